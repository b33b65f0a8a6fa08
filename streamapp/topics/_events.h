/* Records of a log to the columns of a batch of events, in memory of the Arrow C data interface; see _events.c. */
#ifndef STREAMAPP_TOPICS_EVENTS_H
#define STREAMAPP_TOPICS_EVENTS_H

#include "_json.h"

/* https://arrow.apache.org/docs/format/CDataInterface.html */
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* CloudEvents attributes that are columns, in the order of events_record.attribute. */
enum { EVENTS_ID, EVENTS_TYPE, EVENTS_SOURCE, EVENTS_TIME, EVENTS_ATTRIBUTES };

/* The attributes are of the record's headers and UTF-8; nothing else has been looked at. */
struct events_record {
    struct json_bytes value, key, attribute[EVENTS_ATTRIBUTES];
    int64_t offset, timestamp_ms;
};

/* The columns of core.batch.EVENT_SCHEMA, in its order. */
enum {
    EVENTS_COLUMN_OFFSET,
    EVENTS_COLUMN_ID,
    EVENTS_COLUMN_TYPE,
    EVENTS_COLUMN_SOURCE,
    EVENTS_COLUMN_CONVERSATION,
    EVENTS_COLUMN_ACTOR,
    EVENTS_COLUMN_TIME,
    EVENTS_COLUMN_INGEST_TIME,
    EVENTS_COLUMN_TEXT,
    EVENTS_COLUMN_DURATION,
    EVENTS_COLUMN_PAYLOAD,
    EVENTS_COLUMN_ATTACHMENTS,
    EVENTS_COLUMNS
};

struct events_column {
    uint8_t *data, *valid;
    int32_t *ends; /* of strings, as Arrow's offsets: one more than rows, the first 0; else NULL */
    size_t used, room;
    int64_t nulls;
};

/* A batch in the making. */
struct events {
    struct json_bytes topic, address; /* the defaults of `source`, and of `id` with the offset behind it */
    size_t rows, rows_max, bytes_max; /* bytes_max: no column can have more by now */
    struct events_column column[EVENTS_COLUMNS];
};

/* Room for rows_max rows of about value_bytes together.  -1: no memory. */
int events_open(struct events *events, struct json_bytes topic, struct json_bytes address, size_t rows_max,
                size_t value_bytes);

/* One more row.  1: added; 0: left to core.event, nothing has changed; -1: no memory. */
int events_add(struct events *events, const struct events_record *record);

/* Give the columns away as a struct array.  -1: no memory.  Either way events_close() frees what is left. */
int events_export(struct events *events, struct ArrowArray *array);

void events_close(struct events *events);

#endif
