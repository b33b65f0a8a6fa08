/* What gateway.stamp makes of an event in plain form: the value as it came, a key, and the attributes as headers.
 *
 * CloudEvents 1.0, Kafka protocol binding, binary content mode (section 3.2).  gateway.stamp is the truth, and gets
 * whatever is left; tests/gateway/test_plain.py holds the two together.
 */
#include "_records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_envelope.h"

#define NUMBER_BYTES_MAX 24 /* in digits */
#define FIXED_BYTES_MAX 512 /* of a record, beside what comes from outside */
#define DAY_S 86400

/* -- times */

static uint8_t *put_digits(uint8_t *to, int64_t number, int count) {
    for (int n = count; n--; number /= 10)
        to[n] = (uint8_t)('0' + number % 10);
    return to + count;
}

/* Like 2026-11-22T09:30:00.000000Z; years 1 to 9999.  https://howardhinnant.github.io/date_algorithms.html */
static uint8_t *put_time(uint8_t *to, int64_t time_us) {
    const int64_t day_us = (int64_t)DAY_S * 1000000;
    int64_t days = time_us / day_us - (time_us % day_us < 0), us = time_us - days * day_us;
    int64_t shifted = days + 719468, era = shifted / 146097, of_era = shifted - era * 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100), month = (5 * of_year + 2) / 153;
    int64_t day = of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    int64_t parts[] = {month, day, us / 3600000000, us / 60000000 % 60, us / 1000000 % 60};
    to = put_digits(to, year_of_era + era * 400 + (month <= 2), 4);
    for (int n = 0; n < 5; n++) {
        *to++ = (uint8_t)"--T::"[n];
        to = put_digits(to, parts[n], 2);
    }
    *to++ = '.';
    to = put_digits(to, us % 1000000, 6);
    *to++ = 'Z';
    return to;
}

/* -- texts */

/* Whether a String of CloudEvents may have these characters (core specification, section 3.1); they are UTF-8. */
static int is_clean(const uint8_t *at, const uint8_t *end) {
    for (; at < end; at++) {
        if (*at < 0x20 || *at == 0x7f)
            return 0;
        if (*at == 0xc2 && at[1] < 0xa0) /* U+0080 to U+009F */
            return 0;
        if (*at == 0xef && at[1] == 0xb7 && at[2] >= 0x90 && at[2] < 0xb0) /* U+FDD0 to U+FDEF */
            return 0;
        if (*at == 0xef && at[1] == 0xbf && at[2] >= 0xbe) /* U+FFFE, U+FFFF */
            return 0;
    }
    return 1;
}

static uint8_t *put_name(uint8_t *to, const char *name) { return packed_put_bytes(to, name, strlen(name)); }

/* A header's value, which is then where it stands.  NULL: it is not clean. */
static uint8_t *put_value(uint8_t *to, const struct json_text *text, struct json_bytes *value) {
    uint8_t *written = to + PACKED_VARINT_MAX;
    value->size = (size_t)(json_write_text(written, text) - written);
    to = packed_put_varint(to, (int64_t)value->size);
    memmove(to, written, value->size);
    value->at = to;
    return is_clean(to, to + value->size) ? to + value->size : NULL;
}

/* A header of what `text` says; NULL stays NULL. */
static uint8_t *put_header(uint8_t *to, const char *name, const struct json_text *text, struct json_bytes *value) {
    return to ? put_value(put_name(to, name), text, value) : NULL;
}

/* What an event knows nothing of, as headers behind all others. */
static uint8_t *put_attributes(uint8_t *to, const struct envelope *envelope) {
    struct json_bytes value;
    for (size_t n = 0; to && n < envelope->attributes; n++) {
        const struct envelope_attribute *attribute = &envelope->attribute[n];
        to = packed_put_varint(to, (int64_t)attribute->name.size + 3);
        memcpy(to, "ce_", 3);
        memcpy(to + 3, attribute->name.at, attribute->name.size);
        to = put_value(to + 3 + attribute->name.size, &attribute->text, &value);
    }
    return to;
}

/* -- records */

static int room_for(struct records *records, size_t size) {
    if (size <= records->room - records->used)
        return 0;
    size_t room = records->used + size + records->room;
    uint8_t *data = realloc(records->data, room);
    if (!data)
        return -1;
    records->data = data;
    records->room = room;
    return 0;
}

/* Its id, type, source and conversation are parts of the value; the id may be there three times. */
static size_t size_max(const struct records *records, struct json_bytes value) {
    return 3 * (value.size + records->id_prefix.size + NUMBER_BYTES_MAX) + records->source.size +
           records->tail.size + FIXED_BYTES_MAX;
}

static struct json_text text_or(const struct json_text *text, const void *at, size_t size) {
    return text->bytes.size ? *text : (struct json_text){{at, size}, 0};
}

/* ce_id, ce_source, ce_type and ce_time between what all records have.  NULL: a text is not clean. */
static uint8_t *put_headers(uint8_t *to, const struct records *records, const struct event *event,
                            const struct json_text *id, struct records_made *made) {
    struct json_text type = text_or(&event->text[EVENT_TYPE], "event", 5);
    struct json_text source = text_or(&event->text[EVENT_SOURCE], records->source.at, records->source.size);
    struct json_bytes value[3];
    to = packed_put_bytes(put_name(to, "ce_specversion"), "1.0", 3);
    to = put_header(to, "ce_id", id, &value[0]);
    to = put_header(to, "ce_source", &source, &value[1]);
    to = put_header(to, "ce_type", &type, &value[2]);
    if (!to)
        return NULL;
    made->id_at = (int32_t)(value[0].at - records->data);
    made->id_size = (int32_t)value[0].size;
    made->type_at = (int32_t)(value[2].at - records->data);
    made->type_size = (int32_t)value[2].size;
    made->is_typed = event->text[EVENT_TYPE].bytes.size > 0;
    to = packed_put_varint(put_name(to, "ce_time"), sizeof "2026-11-22T09:30:00.000000Z" - 1);
    to = put_time(to, event->has_time ? event->time_us : records->received_us);
    to = packed_put_bytes(put_name(to, "content-type"), "application/json", 16);
    if (records->tail.size)
        memcpy(to, records->tail.at, records->tail.size);
    return to + records->tail.size;
}

static int32_t place_of(const struct records *records, const uint8_t *at) { return (int32_t)(at - records->data); }

/* Into room that is there; `envelope` NULL: there is none.  0: a text is not clean, nothing has changed. */
static int put_record(struct records *records, struct json_bytes value, const struct event *event,
                      const struct json_text *id, const struct json_text *key, const struct envelope *envelope,
                      struct records_made *made) {
    uint8_t *to = records->data + records->used, *const first = to;
    *made = (struct records_made){.place = {.key_at = place_of(records, to)}};
    to = json_write_text(to, key);
    made->place.key_size = (int32_t)(to - first);
    made->place.value_at = place_of(records, to);
    made->place.value_size = (int32_t)value.size;
    memcpy(to, value.at, value.size);
    to += value.size;
    made->place.headers_at = place_of(records, to);
    to = put_headers(to, records, event, id, made);
    if (to && envelope)
        to = put_attributes(to, envelope);
    if (!to)
        return 0;
    made->place.headers_size = place_of(records, to) - made->place.headers_at;
    records->used = (size_t)(to - records->data);
    return 1;
}

int records_add(struct records *records, struct json_bytes value, int64_t number, struct records_made *made) {
    struct event event;
    size_t most = size_max(records, value);
    if (most > (size_t)INT32_MAX - records->used || event_parse(value, &event))
        return 0;
    if (room_for(records, most))
        return -1;
    /* An id of ours stands at the end of the room while it is copied. */
    uint8_t *own = records->data + records->used + most - records->id_prefix.size - NUMBER_BYTES_MAX;
    memcpy(own, records->id_prefix.at, records->id_prefix.size);
    int digits = 0;
    if (number >= 0)
        digits = snprintf((char *)own + records->id_prefix.size, NUMBER_BYTES_MAX, "%lld", (long long)number);
    struct json_text id = text_or(&event.text[EVENT_ID], own, records->id_prefix.size + (size_t)digits);
    const struct json_text *key = event.text[EVENT_CONVERSATION].bytes.size ? &event.text[EVENT_CONVERSATION] : &id;
    return put_record(records, value, &event, &id, key, NULL, made);
}

static const struct json_text *key_of(const struct envelope *envelope) {
    static const char name[] = "partitionkey"; /* an extension of CloudEvents (Kafka protocol binding, section 3.1) */
    const struct json_text *text = envelope->event.text;
    for (size_t n = 0; n < envelope->attributes; n++) {
        const struct envelope_attribute *attribute = &envelope->attribute[n];
        if (attribute->name.size == sizeof name - 1 && !memcmp(attribute->name.at, name, sizeof name - 1))
            return &attribute->text;
    }
    return text[EVENT_CONVERSATION].bytes.size ? &text[EVENT_CONVERSATION] : &text[EVENT_ID];
}

int records_add_envelope(struct records *records, struct json_bytes value, int64_t number, struct records_made *made) {
    struct envelope envelope;
    size_t most = size_max(records, value);
    (void)number;
    if (most > (size_t)INT32_MAX - records->used || envelope_parse(value, &envelope))
        return 0;
    const struct json_text *key = key_of(&envelope);
    if (key->bytes.size > EVENT_KEY_CHARACTERS_MAX && json_characters(key) > EVENT_KEY_CHARACTERS_MAX)
        return 0;
    if (room_for(records, most))
        return -1;
    return put_record(records, envelope.data, &envelope.event, &envelope.event.text[EVENT_ID], key, &envelope, made);
}
