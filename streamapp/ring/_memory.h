/* How bytes move best on the CPU at hand. */
#ifndef STREAMAPP_RING_MEMORY_H
#define STREAMAPP_RING_MEMORY_H

#include <stdint.h>
#include <string.h>

/* memcpy, but not by `rep movsb`, as glibc does from 2 KB on, where addresses differ modulo 32, as NumPy's arrays (they
 * begin at 16) and rows of the ring do: on AMD a loop is a third faster on memory. */
static inline void copy_piece(unsigned char *to, const unsigned char *from, uint64_t bytes) {
    typedef unsigned char vector __attribute__((vector_size(16), aligned(1), may_alias));
    if (((uintptr_t)to - (uintptr_t)from) % 32 && bytes >= 2048)
        for (; bytes >= 4 * sizeof(vector); to += 64, from += 64, bytes -= 64) {
            const vector *in = (const vector *)from, a = in[0], b = in[1], c = in[2], d = in[3];
            ((vector *)to)[0] = a, ((vector *)to)[1] = b, ((vector *)to)[2] = c, ((vector *)to)[3] = d;
        }
    memcpy(to, from, bytes);
}

/* Asks for the cache lines at `at`, at most the first 4 KB, to be this CPU's own: the stores to come need not wait. */
static inline void prefetch_to_write(const void *at, uint64_t bytes) {
    const unsigned char *line = at, *end = line + (bytes < 4096 ? bytes : 4096);
    for (; line < end; line += 64) {
#if defined(__x86_64__)
        __asm__ volatile("prefetchw %0" : : "m"(*line)); /* GCC has no builtin for it below -mprfchw */
#else
        __builtin_prefetch(line, 1);
#endif
    }
}

#endif
