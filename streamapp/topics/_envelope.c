/* CloudEvents 1.0 in the JSON event format, with all that most of them have: data that is an event in plain form, and
 * attributes that are strings.
 *
 * gateway.cloudevents.stamp_envelope is the truth, and gets whatever is left.
 */
#include "_envelope.h"

#include <string.h>

#define NAME_BYTES_MAX 64

/* What the attributes say of the event itself. */
struct said {
    struct json_text id, type, source;
    int64_t time_us;
    int has_time, has_version;
};

static int is(struct json_bytes bytes, const char *word) {
    return bytes.size == strlen(word) && !memcmp(bytes.at, word, bytes.size);
}

static int is_name(struct json_bytes name) { /* of an attribute (core specification, section 3.1) */
    for (size_t n = 0; n < name.size; n++)
        if ((uint8_t)(name.at[n] - 'a') >= 26 && (uint8_t)(name.at[n] - '0') >= 10)
            return 0;
    return name.size > 0 && name.size <= NAME_BYTES_MAX;
}

static int take_key(struct json_text *key, const struct json_text *text) {
    *key = *text;
    return text->bytes.size > EVENT_KEY_CHARACTERS_MAX ? -1 : 0; /* which may be fewer characters */
}

static int take_attribute(struct envelope *envelope, struct said *said, struct json_bytes name,
                          const struct json_text *text) {
    if (is(name, "id"))
        return take_key(&said->id, text);
    if (is(name, "type"))
        return take_key(&said->type, text);
    if (is(name, "source"))
        return take_key(&said->source, text);
    if (is(name, "time")) {
        said->has_time = 1;
        return text->is_escaped ? -1 : event_parse_time(text->bytes, &said->time_us);
    }
    if (is(name, "specversion")) {
        said->has_version = 1;
        return is(text->bytes, "1.0") ? 0 : -1;
    }
    if (is(name, "datacontenttype"))
        return is(text->bytes, "application/json") ? 0 : -1;
    envelope->attribute[envelope->attributes++] = (struct envelope_attribute){name, *text};
    return is_name(name) ? 0 : -1;
}

static int take_member(struct json *json, struct envelope *envelope, struct said *said,
                       const struct json_object *object) {
    const uint8_t *first = json->at;
    struct json_text text;
    if (object->key.is_escaped) /* its name would be valid for a moment only */
        return -1;
    if (is(object->name, "data")) {
        if (event_read(json, &envelope->event))
            return -1;
        envelope->data = (struct json_bytes){first, (size_t)(json->at - first)};
        return 0;
    }
    if (*first != '"' || json_read_string(json, &text) || !text.bytes.size)
        return -1;
    return take_attribute(envelope, said, object->name, &text);
}

int envelope_parse(struct json_bytes value, struct envelope *envelope) {
    struct json json;
    struct json_object object = {0};
    struct said said = {0};
    int more;
    envelope->data = (struct json_bytes){0};
    envelope->attributes = 0;
    json_open(&json, value);
    json_skip_space(&json);
    if (json.at >= json.end || *json.at != '{')
        return -1;
    while ((more = json_next_member(&json, &object)) > 0)
        if (take_member(&json, envelope, &said, &object))
            return -1;
    json_skip_space(&json);
    if (more || json.at < json.end || !envelope->data.at || !said.has_version || !said.id.bytes.size ||
        !said.type.bytes.size || !said.source.bytes.size)
        return -1;
    struct event *event = &envelope->event;
    event->text[EVENT_ID] = said.id;
    event->text[EVENT_TYPE] = said.type;
    event->text[EVENT_SOURCE] = said.source;
    if (said.has_time) {
        event->has_time = 1;
        event->time_us = said.time_us;
    }
    return 0;
}
