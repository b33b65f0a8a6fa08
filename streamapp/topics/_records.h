/* Events of nobody's topic yet to the records that carry them; see _records.c. */
#ifndef STREAMAPP_TOPICS_RECORDS_H
#define STREAMAPP_TOPICS_RECORDS_H

#include "../core/_packed.h"
#include "_json.h"

/* Records in the making, behind each other in one buffer. */
struct records {
    struct json_bytes source, id_prefix; /* the defaults of `source`, and of `id` with the number behind it */
    struct json_bytes tail;              /* headers behind ours, as Kafka's records write them */
    int64_t received_us;                 /* the default of `time` */
    uint8_t *data;                       /* free() it */
    size_t used, room;
};

/* Where a record is, and where in its headers are its event's id and type. */
struct records_made {
    struct packed_place place;
    int32_t id_at, id_size, type_at, type_size;
    int is_typed; /* the event says its type itself */
};

/* One more record; a number below 0 is none, and the id is the prefix alone.  1: added; 0: left to gateway.stamp, nothing has changed; -1: no memory. */
int records_add(struct records *records, struct json_bytes value, int64_t number, struct records_made *made);

/* The same for a CloudEvent in the JSON event format, left to gateway.cloudevents; it has an id. */
int records_add_envelope(struct records *records, struct json_bytes value, int64_t number, struct records_made *made);

#endif
