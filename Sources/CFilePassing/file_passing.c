#define _GNU_SOURCE
#include "file_passing.h"

#include <errno.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>

long plexus_send_files(int socket, const int *files, int count) {
    char byte = 'F';
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PLEXUS_FILES_AT_ONCE)] = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control};
    if (count < 1 || count > PLEXUS_FILES_AT_ONCE) {
        errno = EINVAL;
        return -1;
    }
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(header), files, sizeof(int) * count);
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

long plexus_receive_files(int socket, void *bytes, unsigned long length, int *files, int *count) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PLEXUS_FILES_AT_ONCE)];
    struct iovec vector = {bytes, length};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    long received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    *count = 0;
    if (received < 0) return received;
    if (message.msg_flags & MSG_CTRUNC) {
        // Files are lost: there was no room for them in this process.
        *count = -1;
        return received;
    }
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        *count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(files, CMSG_DATA(header), sizeof(int) * *count);
    }
    return received;
}
