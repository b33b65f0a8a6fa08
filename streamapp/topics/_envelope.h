/* A CloudEvent in the JSON event format, as gateway.cloudevents has it; see _envelope.c. */
#ifndef STREAMAPP_TOPICS_ENVELOPE_H
#define STREAMAPP_TOPICS_ENVELOPE_H

#include "_event.h"

struct envelope_attribute {
    struct json_bytes name;
    struct json_text text;
};

struct envelope {
    struct event event;     /* of the data, and what the attributes say instead */
    struct json_bytes data; /* as it came */
    size_t attributes;      /* that an event knows nothing of */
    struct envelope_attribute attribute[JSON_MEMBERS_MAX];
};

/* -1: no CloudEvent, or one not in plain form. */
int envelope_parse(struct json_bytes value, struct envelope *envelope);

#endif
