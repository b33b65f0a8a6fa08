/* One event's JSON object, as core.event.parse_event has it; see _event.c. */
#ifndef STREAMAPP_TOPICS_EVENT_H
#define STREAMAPP_TOPICS_EVENT_H

#include "_json.h"

#define EVENT_KEY_CHARACTERS_MAX 512

enum {
    EVENT_ID,
    EVENT_TYPE,
    EVENT_SOURCE,
    EVENT_CONVERSATION,
    EVENT_ACTOR,
    EVENT_TEXT,
    EVENT_ATTACHMENTS,
    EVENT_TEXTS,
    EVENT_TIME = EVENT_TEXTS,
    EVENT_DURATION,
    EVENT_REST
};

struct event_member {
    struct json_text key;
    struct json_bytes value;
};

struct event {
    struct json_text text[EVENT_TEXTS]; /* `at` is NULL where there is none */
    int64_t time_us;
    float duration_ms;
    int has_time;
    size_t rests;
    struct event_member rest[JSON_MEMBERS_MAX]; /* what becomes the payload */
};

/* -1: no event, or one not in plain form. */
int event_parse(struct json_bytes value, struct event *event);
int event_read(struct json *json, struct event *event); /* at its first byte: to behind it */

/* RFC 3339, like 2026-11-22T09:30:00.123456+01:00, a zone or not, to Unix microseconds; nanoseconds are cut off. */
int event_parse_time(struct json_bytes text, int64_t *time_us);

#endif
