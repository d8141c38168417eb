// Instructions that Swift has no name for. Not a line more C than that takes.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static inline int processor_has_crc32c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) != 0;
}

// The state of a CRC-32C, before the final complement, after `count` further bytes. Only if the processor has it.
__attribute__((target("sse4.2"))) static inline uint32_t processor_crc32c(
    uint32_t state, const void *bytes, size_t count) {
    const unsigned char *next = (const unsigned char *)bytes;
    uint64_t crc = state;
    for (; count >= 8; count -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        crc = __builtin_ia32_crc32di(crc, word);
    }
    for (; count > 0; count--) crc = __builtin_ia32_crc32qi((uint32_t)crc, *next++);
    return (uint32_t)crc;
}

#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static inline int processor_has_crc32c(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }

__attribute__((target("crc"))) static inline uint32_t processor_crc32c(
    uint32_t state, const void *bytes, size_t count) {
    const unsigned char *next = (const unsigned char *)bytes;
    for (; count >= 8; count -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        state = __builtin_arm_crc32cd(state, word);
    }
    for (; count > 0; count--) state = __builtin_arm_crc32cb(state, *next++);
    return state;
}

#else

static inline int processor_has_crc32c(void) { return 0; }
static inline uint32_t processor_crc32c(uint32_t state, const void *bytes, size_t count) { return state; }

#endif
