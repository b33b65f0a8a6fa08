/* Record batches of magic 2 (https://kafka.apache.org/documentation/#recordbatch), read in place.
 *
 * Nothing is trusted: a size is compared with what is left before anything behind it is looked at, and a batch of which
 * one record is malformed gives none.
 */
#include "_batches.h"

#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
#include <nmmintrin.h>
#endif

enum { CODEC = 0x07, LOG_APPEND_TIME = 0x08, CONTROL = 0x20 }; /* of the attributes */

#define OFFSET_MAX (INT64_MAX - ((int64_t)1 << 33)) /* so that two deltas may be added */

static uint32_t big32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int64_t big64(const uint8_t *at) { return (int64_t)((uint64_t)big32(at) << 32 | big32(at + 4)); }

/* -- CRC-32C (RFC 3720, appendix B.4) */

static uint32_t tables[8][256]; /* one per byte of eight */

void batches_prepare(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
        tables[0][n] = crc;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (int t = 1; t < 8; t++)
            tables[t][n] = tables[t - 1][n] >> 8 ^ tables[0][tables[t - 1][n] & 0xff];
}

uint32_t batches_crc32c_portable(const uint8_t *at, size_t size) {
    uint32_t crc = UINT32_MAX;
    for (; size >= 8; at += 8, size -= 8) {
        crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = tables[7][crc & 0xff] ^ tables[6][crc >> 8 & 0xff] ^ tables[5][crc >> 16 & 0xff] ^ tables[4][crc >> 24] ^
              tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
    }
    while (size--)
        crc = crc >> 8 ^ tables[0][(crc ^ *at++) & 0xff];
    return ~crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(const uint8_t *at, size_t size) {
    uint64_t crc = UINT32_MAX, word;
    for (; size >= 8; at += 8, size -= 8) {
        memcpy(&word, at, 8);
        crc = _mm_crc32_u64(crc, word);
    }
    while (size--)
        crc = _mm_crc32_u8((uint32_t)crc, *at++);
    return ~(uint32_t)crc;
}
#endif

uint32_t batches_crc32c(const uint8_t *at, size_t size) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse42(at, size);
#endif
    return batches_crc32c_portable(at, size);
}

/* -- records */

/* A whole batch: its bytes behind the header, and what the header says of all its records. */
struct batch {
    const uint8_t *at, *end;
    int64_t base, first_timestamp, max_timestamp;
    int attributes;
    int32_t last_delta, count;
};

static int32_t place_of(const struct batches *batches, const uint8_t *at) { return (int32_t)(at - batches->data); }

static int skip_headers(const uint8_t **at, const uint8_t *end) {
    const uint8_t *bytes;
    int32_t size;
    int64_t count;
    if (packed_varint(at, end, &count) || count < 0)
        return -1;
    while (count--)
        if (packed_bytes(at, end, &bytes, &size) || size < 0 || packed_bytes(at, end, &bytes, &size))
            return -1;
    return 0;
}

/* The record at batch->at, which goes behind it.  -1: malformed. */
static int read_record(const struct batches *batches, struct batch *batch, struct packed_place *place) {
    const uint8_t *at = batch->at, *end = batch->end, *bytes;
    int64_t length, timestamp_delta, delta, count;
    if (packed_varint(&at, end, &length) || length < 1 || length > end - at)
        return -1;
    end = at++ + length; /* the record's attributes are not used */
    if (packed_varint(&at, end, &timestamp_delta) || packed_varint(&at, end, &delta) || delta < INT32_MIN ||
        delta > INT32_MAX)
        return -1;
    place->offset = batch->base + delta;
    place->timestamp_type = (batch->attributes & LOG_APPEND_TIME) != 0;
    place->timestamp_ms = place->timestamp_type ? batch->max_timestamp
                                                : (int64_t)((uint64_t)batch->first_timestamp + (uint64_t)timestamp_delta);
    if (packed_bytes(&at, end, &bytes, &place->key_size))
        return -1;
    place->key_at = place_of(batches, bytes);
    if (packed_bytes(&at, end, &bytes, &place->value_size))
        return -1;
    place->value_at = place_of(batches, bytes);
    bytes = at;
    if (skip_headers(&at, end) || at != end)
        return -1;
    packed_varint(&bytes, end, &count);
    place->headers_at = place_of(batches, bytes);
    place->headers_size = (int32_t)(end - bytes);
    batch->at = end;
    return 0;
}

static int more_room(struct batches *batches) {
    size_t room = batches->room ? 2 * batches->room : 1024;
    struct packed_place *places = realloc(batches->places, room * sizeof *places);
    if (!places)
        return -1;
    batches->places = places;
    batches->room = room;
    return 0;
}

/* The wanted records of a batch, none when one is malformed. */
static int read_records(struct batches *batches, struct batch *batch) {
    size_t before = batches->count;
    int64_t position = batches->position;
    for (int32_t n = 0; n < batch->count; n++) {
        if (batches->count == batches->room && more_room(batches)) {
            batches->count = before;
            return BATCHES_NO_MEMORY;
        }
        struct packed_place *place = &batches->places[batches->count];
        *place = (struct packed_place){0};
        if (read_record(batches, batch, place)) {
            batches->count = before;
            return BATCHES_MALFORMED;
        }
        if (place->offset < position) /* of before where we read, or no order */
            continue;
        position = place->offset + 1;
        batches->count++;
    }
    if (batch->at != batch->end) {
        batches->count = before;
        return BATCHES_MALFORMED;
    }
    batches->position = position;
    return BATCHES_ENOUGH;
}

/* -- batches */

static int read_batch(struct batches *batches) {
    const uint8_t *at = batches->data + batches->at;
    size_t left = batches->size - batches->at;
    if (left < BATCHES_AT_BEHIND_LENGTH)
        return BATCHES_END;
    uint32_t length = big32(at + BATCHES_AT_LENGTH);
    if (length > INT32_MAX || length <= BATCHES_AT_MAGIC - BATCHES_AT_BEHIND_LENGTH)
        return BATCHES_MALFORMED;
    if (length > left - BATCHES_AT_BEHIND_LENGTH)
        return BATCHES_END;
    if (at[BATCHES_AT_MAGIC] < 2)
        return BATCHES_OLD;
    size_t size = BATCHES_AT_BEHIND_LENGTH + (size_t)length;
    if (at[BATCHES_AT_MAGIC] > 2 || size < BATCHES_AT_RECORDS)
        return BATCHES_MALFORMED;
    if (batches->check_crcs &&
        batches_crc32c(at + BATCHES_AT_ATTRIBUTES, size - BATCHES_AT_ATTRIBUTES) != big32(at + BATCHES_AT_CHECKSUM))
        return BATCHES_CHECKSUM;
    struct batch batch = {
        .at = at + BATCHES_AT_RECORDS,
        .end = at + size,
        .base = big64(at),
        .first_timestamp = big64(at + BATCHES_AT_FIRST_TIMESTAMP),
        .max_timestamp = big64(at + BATCHES_AT_MAX_TIMESTAMP),
        .attributes = at[BATCHES_AT_ATTRIBUTES + 1],
        .last_delta = (int32_t)big32(at + BATCHES_AT_LAST_DELTA),
        .count = (int32_t)big32(at + BATCHES_AT_COUNT),
    };
    if (batch.base < 0 || batch.base > OFFSET_MAX || batch.last_delta < 0 || batch.count < 0)
        return BATCHES_MALFORMED;
    if (!(batch.attributes & CONTROL)) { /* markers of transactions are no records */
        int why = batch.attributes & CODEC ? BATCHES_COMPRESSED : read_records(batches, &batch);
        if (why != BATCHES_ENOUGH)
            return why;
    }
    batches->at += size;
    if (batches->position <= batch.base + batch.last_delta) /* compaction took the last records */
        batches->position = batch.base + batch.last_delta + 1;
    return BATCHES_ENOUGH;
}

int batches_read(struct batches *batches, size_t enough) {
    int why = BATCHES_ENOUGH;
    while (why == BATCHES_ENOUGH && batches->count < enough)
        why = read_batch(batches);
    return why;
}
