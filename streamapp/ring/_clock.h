/* Time, and how a reader that watches lets it pass. Needs POSIX clocks: _GNU_SOURCE before the first include. */
#ifndef STREAMAPP_RING_CLOCK_H
#define STREAMAPP_RING_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_ns(clockid_t which) {
    struct timespec now;
    clock_gettime(which, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* About a quarter of a microsecond. */
static inline void relax_a_while(void) {
    for (int i = 0; i < 8; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}

#endif
