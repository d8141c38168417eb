// Instructions that Swift has no name for. Not a line more C than that takes.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

#define PROCESSOR_CRC32C_TARGET __attribute__((target("sse4.2")))
#define PROCESSOR_CRC32C_8(crc, word) ((uint32_t)__builtin_ia32_crc32di(crc, word))
#define PROCESSOR_CRC32C_1(crc, byte) __builtin_ia32_crc32qi(crc, byte)

static inline int processor_has_crc32c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) != 0;
}

#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

#define PROCESSOR_CRC32C_TARGET __attribute__((target("crc")))
#define PROCESSOR_CRC32C_8(crc, word) __builtin_arm_crc32cd(crc, word)
#define PROCESSOR_CRC32C_1(crc, byte) __builtin_arm_crc32cb(crc, byte)

static inline int processor_has_crc32c(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }

#else

static inline int processor_has_crc32c(void) { return 0; }
static inline uint32_t processor_crc32c(uint32_t state, const void *bytes, size_t count) { return state; }

#endif

#ifdef PROCESSOR_CRC32C_TARGET
// The state of a CRC-32C, before the final complement, after `count` further bytes. Only if the processor has it.
PROCESSOR_CRC32C_TARGET static inline uint32_t processor_crc32c(uint32_t state, const void *bytes, size_t count) {
    const unsigned char *next = (const unsigned char *)bytes;
    for (; count >= 8; count -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        state = PROCESSOR_CRC32C_8(state, word);
    }
    for (; count > 0; count--) state = PROCESSOR_CRC32C_1(state, *next++);
    return state;
}
#endif
