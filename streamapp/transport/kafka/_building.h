/* A record batch of Kafka in the making; see _building.c. */
#ifndef STREAMAPP_TRANSPORT_BUILDING_H
#define STREAMAPP_TRANSPORT_BUILDING_H

#include "../../core/_packed.h"

/* Bytes of somebody else's; `at` is NULL where there are none, which is less than no bytes. */
struct building_bytes {
    const void *at;
    size_t size;
};

struct building {
    uint8_t *data; /* free() it */
    size_t used, room;
    int64_t first_timestamp_ms, max_timestamp_ms;
    int32_t count;
};

/* Who the broker believes a batch is from, and its first record's place among all of theirs. */
struct building_identity {
    int64_t producer;
    int16_t epoch;
    int32_t sequence;
};

/* Room for about so many bytes of records.  -1: no memory. */
int building_open(struct building *building, size_t room);

/* One more record; `headers` as records write them, behind their count.  -1: no memory, or no room in a batch. */
int building_add(struct building *building, int64_t timestamp_ms, struct building_bytes key, struct building_bytes value,
                 int32_t headers_count, struct building_bytes headers);

/* The batch is whole then, up to `used`.  There is a record. */
void building_finish(struct building *building, const struct building_identity *identity);

/* The partition that Kafka's own clients give to a key: murmur2 (org.apache.kafka.common.utils.Utils). */
int32_t building_partition(const uint8_t *key, size_t size, int32_t partitions);

#endif
