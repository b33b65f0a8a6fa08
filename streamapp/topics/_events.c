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

#define KEY_CHARACTERS_MAX 512
#define TIMESTAMP_MS_MIN INT64_C(-62135596800000) /* year 1 */
#define TIMESTAMP_MS_END INT64_C(253402300800000) /* year 10000 */
#define TIME_MS_END UINT64_C(4294967296000)       /* core.event divides as float64: exact to the microsecond up to here */
#define ADDRESS_BYTES_MAX 24                      /* of an offset in digits */
#define POWER_MAX 22                              /* 10^22 is the last power of ten that is a float64 */

enum { ID, TYPE, SOURCE, CONVERSATION, ACTOR, TEXT, ATTACHMENTS, TEXTS, TIME = TEXTS, DURATION, REST };

struct member {
    struct json_text key;
    struct json_bytes value;
};

/* An event, as parse_event has it. */
struct event {
    struct json_text text[TEXTS]; /* `at` is NULL where there is none */
    int64_t time_us;
    float duration_ms;
    int has_time;
    size_t rests;
    struct member rest[JSON_MEMBERS_MAX]; /* what becomes the payload */
};

/* -- times */

static int two_digits(const uint8_t *at, int *number) {
    uint8_t tens = (uint8_t)(at[0] - '0'), ones = (uint8_t)(at[1] - '0');
    *number = tens * 10 + ones;
    return tens < 10 && ones < 10;
}

static int days_of_month(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && is_leap);
}

/* Days since 1970 in the proleptic Gregorian calendar; https://howardhinnant.github.io/date_algorithms.html */
static int64_t days_from_civil(int year, int month, int day) {
    int y = year - (month <= 2), era = y / 400, year_of_era = y - era * 400;
    int day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return (int64_t)era * 146097 + day_of_era - 719468;
}

/* "Z", "+01:00" or nothing up to `end`, to seconds east of UTC. */
static int parse_zone(const uint8_t *at, const uint8_t *end, int *seconds) {
    int hour, minute;
    *seconds = 0;
    if (at == end || (end - at == 1 && *at == 'Z'))
        return 0;
    if (end - at != 6 || (*at != '+' && *at != '-') || !two_digits(at + 1, &hour) || at[3] != ':' ||
        !two_digits(at + 4, &minute) || hour > 23 || minute > 59)
        return -1;
    *seconds = (hour * 60 + minute) * (*at == '-' ? -60 : 60);
    return 0;
}

/* RFC 3339, like 2026-11-22T09:30:00.123456+01:00, a zone or not, to Unix microseconds; nanoseconds are cut off. */
static int parse_time(struct json_bytes text, int64_t *time_us) {
    const uint8_t *at = text.at, *end = at + text.size;
    int century, year, month, day, hour, minute, second, zone_s, fraction_us = 0, digits = 0;
    if (text.size < 19 || !two_digits(at, &century) || !two_digits(at + 2, &year) || at[4] != '-' ||
        !two_digits(at + 5, &month) || at[7] != '-' || !two_digits(at + 8, &day) || (at[10] != 'T' && at[10] != ' ') ||
        !two_digits(at + 11, &hour) || at[13] != ':' || !two_digits(at + 14, &minute) || at[16] != ':' ||
        !two_digits(at + 17, &second))
        return -1;
    at += 19;
    if (at < end && *at == '.') {
        for (at++; at < end && (uint8_t)(*at - '0') < 10 && digits < 9; at++, digits++)
            fraction_us = digits < 6 ? fraction_us * 10 + (*at - '0') : fraction_us;
        if (!digits)
            return -1;
        for (; digits < 6; digits++)
            fraction_us *= 10;
    }
    year += century * 100;
    /* The first and the last year may not have the moment in UTC. */
    if (parse_zone(at, end, &zone_s) || year < 2 || year > 9998 || month < 1 || month > 12 || day < 1 ||
        day > days_of_month(year, month) || hour > 23 || minute > 59 || second > 59)
        return -1;
    int64_t minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute;
    *time_us = (minutes * 60 + second - zone_s) * 1000000 + fraction_us;
    return 0;
}

/* -- numbers */

/* The float32 of the float64 nearest to the number.  -1 where it may be its neighbour. */
static int round_float(const struct json_number *number, float *rounded) {
    static const double ten_to[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    int power = number->power;
    if (number->count > JSON_DIGITS_MAX || power > POWER_MAX || power < -POWER_MAX)
        return -1;
    double about = (double)number->digits;
    about = power < 0 ? about / ten_to[-power] : about * ten_to[power];
    if (about > 1e38)
        return -1;
    /* One rounding of two exact numbers is the nearest; digits beyond 2^53 were rounded before. */
    double margin = number->digits >> 53 ? about * 0x1p-50 : 0;
    *rounded = (float)(about - margin);
    return *rounded < (float)(about + margin) ? -1 : 0;
}

/* -- a value's members */

static int column_of(struct json_bytes name) {
    static const struct {
        const char *name;
        size_t size;
        int column;
    } known[] = {
        {"id", 2, ID},           {"type", 4, TYPE},         {"time", 4, TIME},
        {"text", 4, TEXT},       {"actor", 5, ACTOR},       {"source", 6, SOURCE},
        {"message", 7, TEXT},    {"duration_ms", 11, DURATION}, {"attachments", 11, ATTACHMENTS},
        {"conversation", 12, CONVERSATION}, {"conversation_id", 15, CONVERSATION},
    };
    for (size_t n = 0; n < sizeof known / sizeof *known; n++)
        if (known[n].size == name.size && !memcmp(known[n].name, name.at, name.size))
            return known[n].column;
    return REST;
}

static int take_number(struct json *json, struct event *event, int column) {
    struct json_number number;
    const uint8_t *first = json->at;
    if (json_read_number(json, &number) || number.is_negative || number.count > JSON_DIGITS_MAX)
        return -1;
    if (column == DURATION)
        return round_float(&number, &event->duration_ms);
    if (!number.is_integer)
        return -1;
    if (column == TIME) {
        if (number.digits >= TIME_MS_END)
            return -1;
        event->has_time = 1;
        event->time_us = (int64_t)number.digits * 1000;
        return 0;
    }
    event->text[column].bytes = (struct json_bytes){first, (size_t)(json->at - first)};
    return 0;
}

static int take_text(struct json *json, struct event *event, int column) {
    struct json_text text;
    if (json_read_string(json, &text) || column == DURATION)
        return -1;
    if (column == TIME) {
        event->has_time = 1;
        return text.is_escaped ? -1 : parse_time(text.bytes, &event->time_us);
    }
    if (column != TEXT && text.bytes.size > KEY_CHARACTERS_MAX && json_characters(&text) > KEY_CHARACTERS_MAX)
        return -1;
    event->text[column] = text;
    return 0;
}

static int take_field(struct json *json, struct event *event, int column) {
    const uint8_t *first = json->at;
    if (*first == 'n')
        return json_skip_word(json, "null");
    if (column == ATTACHMENTS) {
        if (json_skip_value(json, 1))
            return -1;
        event->text[column].bytes = (struct json_bytes){first, (size_t)(json->at - first)};
        return 0;
    }
    return *first == '"' ? take_text(json, event, column) : take_number(json, event, column);
}

static int take_rest(struct json *json, struct event *event, const struct json_text *key) {
    const uint8_t *first = json->at;
    if (json_skip_value(json, 1))
        return -1;
    event->rest[event->rests++] = (struct member){*key, {first, (size_t)(json->at - first)}};
    return 0;
}

static int parse_event(struct json_bytes value, struct event *event) {
    struct json json;
    struct json_object object = {0};
    unsigned filled = 0;
    int more;
    memset(event, 0, offsetof(struct event, rest));
    json_open(&json, value);
    json_skip_space(&json);
    if (json.at >= json.end || *json.at != '{')
        return -1;
    while ((more = json_next_member(&json, &object)) > 0) {
        int column = column_of(object.name);
        int is_first = column != REST && !(filled >> column & 1); /* of two spellings */
        filled |= 1u << column;
        if (is_first ? take_field(&json, event, column) : take_rest(&json, event, &object.key))
            return -1;
    }
    json_skip_space(&json);
    return more || json.at < json.end ? -1 : 0;
}

/* CloudEvents' attributes win over the body; an empty one is none, but for the time. */
static int merge_attributes(struct event *event, const struct json_bytes *attribute) {
    static const int columns[] = {[EVENTS_ID] = ID, [EVENTS_TYPE] = TYPE, [EVENTS_SOURCE] = SOURCE};
    for (int n = EVENTS_ID; n <= EVENTS_SOURCE; n++) {
        struct json_text text = {attribute[n], 0};
        if (!text.bytes.size)
            continue;
        if (text.bytes.size > KEY_CHARACTERS_MAX && json_characters(&text) > KEY_CHARACTERS_MAX)
            return -1;
        event->text[columns[n]] = text;
    }
    if (!attribute[EVENTS_TIME].at)
        return 0;
    event->has_time = 1;
    return parse_time(attribute[EVENTS_TIME], &event->time_us);
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
    if (event->text[CONVERSATION].bytes.size)
        return add_text(events, EVENTS_COLUMN_CONVERSATION, &event->text[CONVERSATION]);
    size_t start = (size_t)ids->ends[events->rows];
    int is_id = event->text[ID].bytes.size && ids->used - start == key.size && key.size &&
                !memcmp(ids->data + start, key.at, key.size);
    if (!key.size || is_id || !json_is_utf8(key) || json_characters(&name) > KEY_CHARACTERS_MAX)
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
        const struct member *member = &event->rest[n];
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
    if ((text[ID].bytes.size ? add_text(events, EVENTS_COLUMN_ID, &text[ID]) : add_address(events, record->offset)) ||
        add_text_or(events, EVENTS_COLUMN_TYPE, &text[TYPE], type) ||
        add_text_or(events, EVENTS_COLUMN_SOURCE, &text[SOURCE], events->topic) ||
        add_conversation(events, event, record->key) || add_text(events, EVENTS_COLUMN_ACTOR, &text[ACTOR]) ||
        add_text(events, EVENTS_COLUMN_TEXT, &text[TEXT]) ||
        add_text(events, EVENTS_COLUMN_ATTACHMENTS, &text[ATTACHMENTS]) ||
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
        parse_event(record->value, &event) || merge_attributes(&event, record->attribute))
        return 0;
    events->bytes_max += longest;
    return add_row(events, &event, record);
}
