#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// libFuzzer, which clang and Swift bring along. Weak, so that a build without it links; scripts/fuzz --guided makes one
// with it. Source: llvm-project, compiler-rt/lib/fuzzer/FuzzerInterface.h.
extern int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size))
    __attribute__((weak));

// Ends the process when it is done; returns only if libFuzzer is not there.
static inline void run_libfuzzer(int argc, char **argv, int (*callback)(const uint8_t *data, size_t size)) {
    if (LLVMFuzzerRunDriver) { _Exit(LLVMFuzzerRunDriver(&argc, &argv, callback)); }
}
