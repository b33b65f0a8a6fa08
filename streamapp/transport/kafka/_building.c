/* Records to a batch, https://kafka.apache.org/documentation/#recordbatch; not compressed. */
#include "_building.h"

#include <stdlib.h>
#include <string.h>

#include "_batches.h"

enum { MAGIC = 2, RECORD_FIXED_MAX = 8 * PACKED_VARINT_MAX };

static uint8_t *put_big(uint8_t *to, uint64_t number, int bytes) {
    for (int n = bytes; n--; number >>= 8)
        to[n] = (uint8_t)number;
    return to + bytes;
}

static size_t varint_size(int64_t number) {
    uint8_t bytes[PACKED_VARINT_MAX];
    return (size_t)(packed_put_varint(bytes, number) - bytes);
}

static int64_t size_told(struct building_bytes bytes) { return bytes.at ? (int64_t)bytes.size : -1; }

static uint8_t *put_sized(uint8_t *to, struct building_bytes bytes) {
    return bytes.at ? packed_put_bytes(to, bytes.at, bytes.size) : packed_put_varint(to, -1);
}

int building_open(struct building *building, size_t room) {
    *building = (struct building){.used = BATCHES_AT_RECORDS, .room = BATCHES_AT_RECORDS + room};
    building->data = calloc(1, building->room);
    return building->data ? 0 : -1;
}

static int room_for(struct building *building, size_t size) {
    if (size <= building->room - building->used)
        return 0;
    size_t room = building->used + size + building->room;
    uint8_t *data = room > INT32_MAX ? NULL : realloc(building->data, room);
    if (!data)
        return -1;
    building->data = data;
    building->room = room;
    return 0;
}

int building_add(struct building *building, int64_t timestamp_ms, struct building_bytes key, struct building_bytes value,
                 int32_t headers_count, struct building_bytes headers) {
    if (!building->count)
        building->first_timestamp_ms = building->max_timestamp_ms = timestamp_ms;
    if (timestamp_ms > building->max_timestamp_ms)
        building->max_timestamp_ms = timestamp_ms;
    int64_t delta = (int64_t)((uint64_t)timestamp_ms - (uint64_t)building->first_timestamp_ms);
    size_t size = 1 + varint_size(delta) + varint_size(building->count) + varint_size(size_told(key)) + key.size +
                  varint_size(size_told(value)) + value.size + varint_size(headers_count) + headers.size;
    if (building->count == INT32_MAX || room_for(building, size + RECORD_FIXED_MAX))
        return -1;
    uint8_t *to = packed_put_varint(building->data + building->used, (int64_t)size);
    *to++ = 0; /* attributes, of which there are none */
    to = packed_put_varint(to, delta);
    to = packed_put_varint(to, building->count++);
    to = put_sized(to, key);
    to = put_sized(to, value);
    to = packed_put_varint(to, headers_count);
    if (headers.size)
        memcpy(to, headers.at, headers.size);
    building->used = (size_t)(to + headers.size - building->data);
    return 0;
}

void building_finish(struct building *building, const struct building_identity *identity) {
    uint8_t *to = building->data, *const checked = building->data + BATCHES_AT_ATTRIBUTES;
    to = put_big(to, 0, 8); /* the log gives offsets */
    to = put_big(to, building->used - BATCHES_AT_BEHIND_LENGTH, 4);
    to = put_big(to, UINT32_MAX, 4); /* the leader's epoch, which we do not know */
    put_big(to, MAGIC, 1);
    to = put_big(checked, 0, 2);
    to = put_big(to, (uint64_t)building->count - 1, 4);
    to = put_big(to, (uint64_t)building->first_timestamp_ms, 8);
    to = put_big(to, (uint64_t)building->max_timestamp_ms, 8);
    to = put_big(to, (uint64_t)identity->producer, 8);
    to = put_big(to, (uint64_t)identity->epoch, 2);
    to = put_big(to, (uint64_t)identity->sequence, 4);
    put_big(to, (uint64_t)building->count, 4);
    uint32_t crc = batches_crc32c(checked, building->used - BATCHES_AT_ATTRIBUTES);
    put_big(building->data + BATCHES_AT_CHECKSUM, crc, 4);
}

static uint32_t murmur2(const uint8_t *key, size_t size) {
    const uint32_t m = 0x5bd1e995;
    uint32_t hash = 0x9747b28c ^ (uint32_t)size;
    for (; size >= 4; key += 4, size -= 4) {
        uint32_t k = (uint32_t)key[0] | (uint32_t)key[1] << 8 | (uint32_t)key[2] << 16 | (uint32_t)key[3] << 24;
        k *= m;
        hash = hash * m ^ (k ^ k >> 24) * m;
    }
    for (size_t n = size; n--;)
        hash ^= (uint32_t)key[n] << 8 * n;
    hash = size ? hash * m : hash;
    hash = (hash ^ hash >> 13) * m;
    return hash ^ hash >> 15;
}

int32_t building_partition(const uint8_t *key, size_t size, int32_t partitions) {
    return partitions > 1 ? (int32_t)((murmur2(key, size) & 0x7fffffff) % (uint32_t)partitions) : 0;
}
