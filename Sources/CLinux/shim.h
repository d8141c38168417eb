#include <sys/vfs.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
