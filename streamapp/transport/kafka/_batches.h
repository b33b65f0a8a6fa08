/* Record batches of Kafka to the places of their records; see _batches.c. */
#ifndef STREAMAPP_TRANSPORT_BATCHES_H
#define STREAMAPP_TRANSPORT_BATCHES_H

#include "../../core/_packed.h"

enum { /* where a batch has what, in bytes */
    BATCHES_AT_LENGTH = 8,
    BATCHES_AT_BEHIND_LENGTH = 12,
    BATCHES_AT_MAGIC = 16,
    BATCHES_AT_CHECKSUM = 17,
    BATCHES_AT_ATTRIBUTES = 21,
    BATCHES_AT_LAST_DELTA = 23,
    BATCHES_AT_FIRST_TIMESTAMP = 27,
    BATCHES_AT_MAX_TIMESTAMP = 35,
    BATCHES_AT_COUNT = 57,
    BATCHES_AT_RECORDS = 61
};

/* Why reading ended before the batch at `at`. */
enum {
    BATCHES_ENOUGH,     /* there are as many records as were wanted */
    BATCHES_END,        /* no whole batch is there */
    BATCHES_COMPRESSED, /* its checksum is right, if that is looked at */
    BATCHES_OLD,        /* of a format before magic 2 */
    BATCHES_CHECKSUM,   /* is wrong */
    BATCHES_MALFORMED,
    BATCHES_NO_MEMORY
};

struct batches {
    const uint8_t *data;
    size_t size;          /* at most INT32_MAX, so that places fit */
    size_t at;            /* of the next batch */
    int64_t position;     /* records below are not wanted; behind the last batch afterwards */
    int check_crcs;
    struct packed_place *places; /* free() them */
    size_t count, room;
};

/* Once, before anything else is called. */
void batches_prepare(void);

/* Whole batches, until there are `enough` records. */
int batches_read(struct batches *batches, size_t enough);

uint32_t batches_crc32c(const uint8_t *at, size_t size);
uint32_t batches_crc32c_portable(const uint8_t *at, size_t size);

#endif
