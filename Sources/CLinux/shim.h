#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/vfs.h>

// prctl(2) has a variable number of arguments, and Swift no way to call such a function.
static inline int plexus_prctl(int operation, unsigned long second) {
    return prctl(operation, second, 0UL, 0UL, 0UL);
}

// What it takes to stay in memory, for a program that is run, as far as this one may hand it on.
static inline int plexus_hand_on_resource_capability(void) {
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 24UL /* CAP_SYS_RESOURCE */, 0UL, 0UL);
}
