// Open files over a Unix socket. The macros for control messages, cmsg(3), are none that Swift could call.

#define PLEXUS_FILES_AT_ONCE 64

// Sends one byte with open files, at most PLEXUS_FILES_AT_ONCE. Returns 1, or -1 and errno.
long plexus_send_files(int socket, const int *files, int count);

// Receives up to `length` bytes and the files that come with them: `files` has room for PLEXUS_FILES_AT_ONCE, `count` says
// how many there are, -1 that some are lost. They are closed by exec. Returns the number of bytes, or -1 and errno.
long plexus_receive_files(int socket, void *bytes, unsigned long length, int *files, int *count);
