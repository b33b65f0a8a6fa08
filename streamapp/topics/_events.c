/* What core.event makes of a record, for records in plain form, and without a Python object for any of their values.
 *
 * core.event.parse_event, topics.wire.decode_record and its defaults are the truth; a row that is added here is what
 * they give, to the byte, and everything else (whether it is no event or only an unusual one) is left to them.
 * tests/topics/test_scan.py holds the two together.
 */
#include "_events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_event.h"

#define TIMESTAMP_MS_MIN INT64_C(-62135596800000) /* year 1 */
#define TIMESTAMP_MS_END INT64_C(253402300800000) /* year 10000 */
#define ADDRESS_BYTES_MAX 24                      /* of an offset in digits */

/* CloudEvents' attributes win over the body; an empty one is none, but for the time. */
static int merge_attributes(struct event *event, const struct json_bytes *attribute) {
    static const int columns[] = {[EVENTS_ID] = EVENT_ID, [EVENTS_TYPE] = EVENT_TYPE, [EVENTS_SOURCE] = EVENT_SOURCE};
    for (int n = EVENTS_ID; n <= EVENTS_SOURCE; n++) {
        struct json_text text = {attribute[n], 0};
        if (!text.bytes.size)
            continue;
        if (text.bytes.size > EVENT_KEY_CHARACTERS_MAX && json_characters(&text) > EVENT_KEY_CHARACTERS_MAX)
            return -1;
        event->text[columns[n]] = text;
    }
    if (!attribute[EVENTS_TIME].at)
        return 0;
    event->has_time = 1;
    return event_parse_time(attribute[EVENTS_TIME], &event->time_us);
}

/* -- columns */

static int is_string(int column) {
    return column != EVENTS_COLUMN_OFFSET && column != EVENTS_COLUMN_TIME && column != EVENTS_COLUMN_INGEST_TIME &&
           column != EVENTS_COLUMN_DURATION;
}

int events_open(struct events *events, struct json_bytes topic, struct json_bytes address, size_t rows_max,
                size_t value_bytes) {
    *events = (struct events){.topic = topic, .address = address, .rows_max = rows_max};
    int is_short = 0;
    for (int n = 0; n < EVENTS_COLUMNS; n++) {
        struct events_column *column = &events->column[n];
        int is_long = n == EVENTS_COLUMN_PAYLOAD || n == EVENTS_COLUMN_TEXT; /* pages never touched cost nothing */
        column->room = rows_max * sizeof(int64_t) + 64 + (is_long ? value_bytes : 0);
        column->data = malloc(column->room);
        is_short |= !column->data;
        if (!is_string(n))
            continue;
        column->valid = calloc(rows_max / 8 + 1, 1);
        column->ends = calloc(rows_max + 1, sizeof *column->ends);
        is_short |= !column->valid || !column->ends;
    }
    if (is_short)
        events_close(events);
    return is_short ? -1 : 0;
}

void events_close(struct events *events) {
    for (int n = 0; n < EVENTS_COLUMNS; n++) {
        free(events->column[n].data);
        free(events->column[n].valid);
        free(events->column[n].ends);
        events->column[n] = (struct events_column){0};
    }
}

/* Where to write that many bytes more; NULL: no memory. */
static uint8_t *room_for(struct events_column *column, size_t size) {
    if (size > column->room - column->used) {
        size_t room = column->used + size + column->room;
        uint8_t *data = realloc(column->data, room);
        if (!data)
            return NULL;
        column->data = data;
        column->room = room;
    }
    return column->data + column->used;
}

/* The row's string ends at `end`. */
static void finish(struct events *events, int n, const uint8_t *end) {
    struct events_column *column = &events->column[n];
    column->used = (size_t)(end - column->data);
    column->valid[events->rows >> 3] |= (uint8_t)(1u << (events->rows & 7));
}

static int add_text(struct events *events, int n, const struct json_text *text) {
    if (!text->bytes.at) {
        events->column[n].nulls++;
        return 0;
    }
    uint8_t *to = room_for(&events->column[n], text->bytes.size);
    if (!to)
        return -1;
    finish(events, n, json_write_text(to, text));
    return 0;
}

static int add_bytes(struct events *events, int n, struct json_bytes bytes) {
    struct json_text text = {bytes, 0};
    return add_text(events, n, &text);
}

static int add_text_or(struct events *events, int n, const struct json_text *text, struct json_bytes instead) {
    return text->bytes.size ? add_text(events, n, text) : add_bytes(events, n, instead);
}

static int add_address(struct events *events, int64_t offset) {
    uint8_t *to = room_for(&events->column[EVENTS_COLUMN_ID], events->address.size + ADDRESS_BYTES_MAX);
    if (!to)
        return -1;
    memcpy(to, events->address.at, events->address.size);
    to += events->address.size;
    to += snprintf((char *)to, ADDRESS_BYTES_MAX, "%lld", (long long)offset);
    finish(events, EVENTS_COLUMN_ID, to);
    return 0;
}

/* The record's key names the conversation, unless the producer had none and spread by id. */
static int add_conversation(struct events *events, const struct event *event, struct json_bytes key) {
    const struct events_column *ids = &events->column[EVENTS_COLUMN_ID];
    struct json_text name = {key, 0};
    if (event->text[EVENT_CONVERSATION].bytes.size)
        return add_text(events, EVENTS_COLUMN_CONVERSATION, &event->text[EVENT_CONVERSATION]);
    size_t start = (size_t)ids->ends[events->rows];
    int is_id = event->text[EVENT_ID].bytes.size && ids->used - start == key.size && key.size &&
                !memcmp(ids->data + start, key.at, key.size);
    if (!key.size || is_id || !json_is_utf8(key) || json_characters(&name) > EVENT_KEY_CHARACTERS_MAX)
        name.bytes.at = NULL;
    return add_text(events, EVENTS_COLUMN_CONVERSATION, &name);
}

/* A JSON object of the other members, each value as it was written. */
static int add_payload(struct events *events, const struct event *event, size_t value_size) {
    uint8_t *to = room_for(&events->column[EVENTS_COLUMN_PAYLOAD], value_size); /* which it was a part of */
    if (!to)
        return -1;
    *to++ = '{';
    for (size_t n = 0; n < event->rests; n++) {
        const struct event_member *member = &event->rest[n];
        if (n)
            *to++ = ',';
        to = json_write_key(to, &member->key);
        *to++ = ':';
        memcpy(to, member->value.at, member->value.size);
        to += member->value.size;
    }
    *to++ = '}';
    finish(events, EVENTS_COLUMN_PAYLOAD, to);
    return 0;
}

static void add_fixed(struct events *events, int n, const void *value, size_t size) {
    memcpy(events->column[n].data + events->rows * size, value, size);
}

static int add_row(struct events *events, const struct event *event, const struct events_record *record) {
    static const struct json_bytes type = {(const uint8_t *)"event", 5};
    const struct json_text *text = event->text;
    int64_t ingest_us = record->timestamp_ms * 1000;
    add_fixed(events, EVENTS_COLUMN_OFFSET, &record->offset, sizeof record->offset);
    add_fixed(events, EVENTS_COLUMN_TIME, event->has_time ? &event->time_us : &ingest_us, sizeof ingest_us);
    add_fixed(events, EVENTS_COLUMN_INGEST_TIME, &ingest_us, sizeof ingest_us);
    add_fixed(events, EVENTS_COLUMN_DURATION, &event->duration_ms, sizeof event->duration_ms);
    if ((text[EVENT_ID].bytes.size ? add_text(events, EVENTS_COLUMN_ID, &text[EVENT_ID]) : add_address(events, record->offset)) ||
        add_text_or(events, EVENTS_COLUMN_TYPE, &text[EVENT_TYPE], type) ||
        add_text_or(events, EVENTS_COLUMN_SOURCE, &text[EVENT_SOURCE], events->topic) ||
        add_conversation(events, event, record->key) || add_text(events, EVENTS_COLUMN_ACTOR, &text[EVENT_ACTOR]) ||
        add_text(events, EVENTS_COLUMN_TEXT, &text[EVENT_TEXT]) ||
        add_text(events, EVENTS_COLUMN_ATTACHMENTS, &text[EVENT_ATTACHMENTS]) ||
        add_payload(events, event, record->value.size))
        return -1;
    events->rows++;
    for (int n = 0; n < EVENTS_COLUMNS; n++)
        if (events->column[n].ends)
            events->column[n].ends[events->rows] = (int32_t)events->column[n].used;
    return 1;
}

int events_add(struct events *events, const struct events_record *record) {
    struct event event;
    size_t longest = record->value.size + record->key.size + events->topic.size + events->address.size + 64;
    for (int n = 0; n < EVENTS_ATTRIBUTES; n++)
        longest += record->attribute[n].size;
    if (events->rows == events->rows_max || longest > (size_t)INT32_MAX - events->bytes_max ||
        record->timestamp_ms < TIMESTAMP_MS_MIN || record->timestamp_ms >= TIMESTAMP_MS_END ||
        event_parse(record->value, &event) || merge_attributes(&event, record->attribute))
        return 0;
    events->bytes_max += longest;
    return add_row(events, &event, record);
}
