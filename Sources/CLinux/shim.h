#include <sys/vfs.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
