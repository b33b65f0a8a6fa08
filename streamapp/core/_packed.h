/* Where the parts of a log record are in the buffer it arrived in; core.packed.PLACE is the same for NumPy. */
#ifndef STREAMAPP_CORE_PACKED_H
#define STREAMAPP_CORE_PACKED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A size of -1: there is none.  Headers are as Kafka's records write them, behind their count. */
struct packed_place {
    int64_t offset, timestamp_ms;
    int32_t timestamp_type; /* Kafka's: 0 of the producer, 1 of the log */
    int32_t key_at, key_size, value_at, value_size, headers_at, headers_size, unused;
};

/* A zigzag varint (https://protobuf.dev/programming-guides/encoding/#signed-ints); `*at` goes behind it.  -1: none. */
static inline int packed_varint(const uint8_t **at, const uint8_t *end, int64_t *number) {
    uint64_t bits = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        bits |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *number = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return 0;
        }
    }
    return -1;
}

/* A varint of a size and so many bytes; a negative size is -1 and has none.  -1: they are not there. */
static inline int packed_bytes(const uint8_t **at, const uint8_t *end, const uint8_t **bytes, int32_t *size) {
    int64_t number;
    if (packed_varint(at, end, &number) || number > end - *at)
        return -1;
    *bytes = *at;
    *size = number < 0 ? -1 : (int32_t)number;
    *at += number < 0 ? 0 : number;
    return 0;
}

#define PACKED_VARINT_MAX 10

/* Where it ends; there must be room for PACKED_VARINT_MAX bytes. */
static inline uint8_t *packed_put_varint(uint8_t *to, int64_t number) {
    uint64_t bits = (uint64_t)number << 1 ^ (uint64_t)(number >> 63);
    for (; bits >= 0x80; bits >>= 7)
        *to++ = (uint8_t)(bits | 0x80);
    *to++ = (uint8_t)bits;
    return to;
}

static inline uint8_t *packed_put_bytes(uint8_t *to, const void *bytes, size_t size) {
    to = packed_put_varint(to, (int64_t)size);
    if (size)
        memcpy(to, bytes, size);
    return to + size;
}

#endif
