/* What core.event makes of a JSON object that is in plain form, which is what producers send.
 *
 * core.event.parse_event is the truth: what is taken here is read as it reads it, and everything else (whether it is no
 * event or only an unusual one) is left to it.
 */
#include "_event.h"

#include <string.h>

#define TIME_MS_END UINT64_C(4294967296000) /* core.event divides as float64: exact to the microsecond up to here */
#define POWER_MAX 22                        /* 10^22 is the last power of ten that is a float64 */

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

int event_parse_time(struct json_bytes text, int64_t *time_us) {
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
        {"id", 2, EVENT_ID},           {"type", 4, EVENT_TYPE},         {"time", 4, EVENT_TIME},
        {"text", 4, EVENT_TEXT},       {"actor", 5, EVENT_ACTOR},       {"source", 6, EVENT_SOURCE},
        {"message", 7, EVENT_TEXT},    {"duration_ms", 11, EVENT_DURATION}, {"attachments", 11, EVENT_ATTACHMENTS},
        {"conversation", 12, EVENT_CONVERSATION}, {"conversation_id", 15, EVENT_CONVERSATION},
    };
    for (size_t n = 0; n < sizeof known / sizeof *known; n++)
        if (known[n].size == name.size && !memcmp(known[n].name, name.at, name.size))
            return known[n].column;
    return EVENT_REST;
}

static int take_number(struct json *json, struct event *event, int column) {
    struct json_number number;
    const uint8_t *first = json->at;
    if (json_read_number(json, &number) || number.is_negative || number.count > JSON_DIGITS_MAX)
        return -1;
    if (column == EVENT_DURATION)
        return round_float(&number, &event->duration_ms);
    if (!number.is_integer)
        return -1;
    if (column == EVENT_TIME) {
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
    if (json_read_string(json, &text) || column == EVENT_DURATION)
        return -1;
    if (column == EVENT_TIME) {
        event->has_time = 1;
        return text.is_escaped ? -1 : event_parse_time(text.bytes, &event->time_us);
    }
    if (column != EVENT_TEXT && text.bytes.size > EVENT_KEY_CHARACTERS_MAX && json_characters(&text) > EVENT_KEY_CHARACTERS_MAX)
        return -1;
    event->text[column] = text;
    return 0;
}

static int take_field(struct json *json, struct event *event, int column) {
    const uint8_t *first = json->at;
    if (*first == 'n')
        return json_skip_word(json, "null");
    if (column == EVENT_ATTACHMENTS) {
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
    event->rest[event->rests++] = (struct event_member){*key, {first, (size_t)(json->at - first)}};
    return 0;
}

int event_read(struct json *json, struct event *event) {
    struct json_object object = {0};
    unsigned filled = 0;
    int more;
    memset(event, 0, offsetof(struct event, rest));
    if (json->at >= json->end || *json->at != '{')
        return -1;
    while ((more = json_next_member(json, &object)) > 0) {
        int column = column_of(object.name);
        int is_first = column != EVENT_REST && !(filled >> column & 1); /* of two spellings */
        filled |= 1u << column;
        if (is_first ? take_field(json, event, column) : take_rest(json, event, &object.key))
            return -1;
    }
    return more;
}

int event_parse(struct json_bytes value, struct event *event) {
    struct json json;
    json_open(&json, value);
    json_skip_space(&json);
    if (event_read(&json, event))
        return -1;
    json_skip_space(&json);
    return json.at < json.end ? -1 : 0;
}
