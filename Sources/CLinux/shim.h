#include <sys/vfs.h>
#include <sys/signalfd.h>
