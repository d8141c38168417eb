// liburing.h turns _GNU_SOURCE on, which renames the member of fd_set. The Glibc module of Swift is built without
// it, and two definitions of one struct can't be imported together: take fd_set first, then let features.h
// be read again for the rest.
#include <sys/select.h>
#undef _FEATURES_H
#include <liburing.h>
