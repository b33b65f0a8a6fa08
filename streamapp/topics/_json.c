/* JSON in place, for a reader that may decline: whatever is unusual returns -1 and is judged by core.event instead.
 *
 * So what is taken here is a subset, on which all readers agree: strings are UTF-8 without lone surrogates, numbers
 * cannot leave float64, no object has a key twice, nesting is bounded, and with it the stack.  No byte before `at` or
 * from `end` on is touched, and nothing is allocated.
 */
#include "_json.h"

#include <string.h>

#define NUMBER_SPAN_MAX 300 /* digits and exponent together: below 10^308 and above 10^-308 */

/* -- bytes, eight at a time */

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))
#define ZEROS(word) (((word) - EACH(1)) & ~(word) & EACH(0x80))           /* the lowest mark is exact */
#define BELOW(word, byte) (((word) - EACH(byte)) & ~(word) & EACH(0x80)) /* the same */

static uint64_t load(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The first quote, backslash or control character; `seen` gathers all bits on the way and perhaps some behind. */
static const uint8_t *find_special(const uint8_t *at, const uint8_t *end, uint64_t *seen) {
    for (; end - at >= 8; at += 8) {
        uint64_t word = load(at);
        uint64_t marks = ZEROS(word ^ EACH('"')) | ZEROS(word ^ EACH('\\')) | BELOW(word, 0x20);
        *seen |= word;
        if (marks)
            return at + (__builtin_ctzll(marks) >> 3);
    }
    for (; at < end && *at >= 0x20 && *at != '"' && *at != '\\'; at++)
        *seen |= *at;
    return at;
}

static size_t utf8_size(const uint8_t *at, size_t left) { /* of the sequence that starts here; 0: none does */
    uint8_t first = at[0];
    size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (size == 1)
        return 1;
    if (first < 0xc2 || first > 0xf4 || left < size)
        return 0;
    if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f) || /* overlong, surrogates */
        (first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f))   /* overlong, above U+10FFFF */
        return 0;
    for (size_t n = 1; n < size; n++)
        if ((at[n] & 0xc0) != 0x80)
            return 0;
    return size;
}

int json_is_utf8(struct json_bytes bytes) {
    const uint8_t *at = bytes.at, *end = at + bytes.size;
    while (at < end) {
        if (end - at >= 8 && !(load(at) & EACH(0x80))) {
            at += 8;
            continue;
        }
        size_t size = utf8_size(at, (size_t)(end - at));
        if (!size)
            return 0;
        at += size;
    }
    return 1;
}

/* -- strings */

static int hex_digit(uint8_t byte) {
    if ((uint8_t)(byte - '0') < 10)
        return byte - '0';
    byte |= 0x20;
    return (uint8_t)(byte - 'a') < 6 ? byte - 'a' + 10 : -1;
}

/* Four digits at `at`, or -1. */
static int32_t utf16_unit(const uint8_t *at, const uint8_t *end) {
    int32_t unit = 0;
    if (end - at < 4)
        return -1;
    for (int n = 0; n < 4; n++) {
        int digit = hex_digit(at[n]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* The escape at a backslash: its code point, and how many bytes it takes; 0: none that is whole. */
static size_t read_escape(const uint8_t *at, const uint8_t *end, uint32_t *point) {
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (end - at < 2)
        return 0;
    if (at[1] != 'u') {
        const char *found = memchr(letters, at[1], sizeof letters - 1);
        if (!found)
            return 0;
        *point = (uint32_t)meant[found - letters];
        return 2;
    }
    int32_t unit = utf16_unit(at + 2, end);
    if (unit < 0 || (unit & 0xfc00) == 0xdc00)
        return 0;
    *point = (uint32_t)unit;
    if ((unit & 0xfc00) != 0xd800)
        return 6;
    if (end - at < 12 || at[6] != '\\' || at[7] != 'u')
        return 0;
    int32_t low = utf16_unit(at + 8, end);
    if (low < 0 || (low & 0xfc00) != 0xdc00)
        return 0;
    *point = 0x10000u + ((uint32_t)(unit & 0x3ff) << 10) + (uint32_t)(low & 0x3ff);
    return 12;
}

int json_read_string(struct json *json, struct json_text *text) {
    const uint8_t *first = json->at + 1, *at = first;
    uint64_t seen = 0;
    text->is_escaped = 0;
    for (;;) {
        uint32_t point;
        at = find_special(at, json->end, &seen);
        if (at >= json->end || *at < 0x20)
            return -1;
        if (*at == '"')
            break;
        size_t size = read_escape(at, json->end, &point);
        if (!size)
            return -1;
        text->is_escaped = 1;
        at += size;
    }
    text->bytes = (struct json_bytes){first, (size_t)(at - first)};
    json->at = at + 1;
    return seen & EACH(0x80) && !json_is_utf8(text->bytes) ? -1 : 0;
}

size_t json_characters(const struct json_text *text) {
    const uint8_t *at = text->bytes.at, *end = at + text->bytes.size;
    size_t count = 0;
    uint32_t point;
    while (at < end) {
        count += (*at & 0xc0) != 0x80;
        at += text->is_escaped && *at == '\\' ? read_escape(at, end, &point) : 1;
    }
    return count;
}

static uint8_t *write_point(uint8_t *to, uint32_t point) {
    if (point < 0x80) {
        *to++ = (uint8_t)point;
    } else if (point < 0x800) {
        *to++ = (uint8_t)(0xc0 | point >> 6);
        *to++ = (uint8_t)(0x80 | (point & 0x3f));
    } else {
        if (point < 0x10000) {
            *to++ = (uint8_t)(0xe0 | point >> 12);
        } else {
            *to++ = (uint8_t)(0xf0 | point >> 18);
            *to++ = (uint8_t)(0x80 | (point >> 12 & 0x3f));
        }
        *to++ = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (point & 0x3f));
    }
    return to;
}

/* As a JSON string needs it: a point below U+0020, a quote or a backslash came from an escape no shorter than this. */
static uint8_t *write_escaped(uint8_t *to, uint32_t point) {
    static const char letters[] = "\"\\bfnrt", meant[] = "\"\\\b\f\n\r\t", hex[] = "0123456789abcdef";
    if (point >= 0x20 && point != '"' && point != '\\')
        return write_point(to, point);
    const char *found = memchr(meant, (int)point, sizeof meant - 1);
    *to++ = '\\';
    if (found) {
        *to++ = (uint8_t)letters[found - meant];
        return to;
    }
    memcpy(to, "u00", 3);
    to[3] = (uint8_t)hex[point >> 4];
    to[4] = (uint8_t)hex[point & 15];
    return to + 5;
}

static uint8_t *write_string(uint8_t *to, const struct json_text *text, uint8_t *(*write)(uint8_t *, uint32_t)) {
    const uint8_t *at = text->bytes.at, *end = at + text->bytes.size;
    if (!text->is_escaped) {
        memcpy(to, at, text->bytes.size);
        return to + text->bytes.size;
    }
    while (at < end) {
        uint32_t point;
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        at += read_escape(at, end, &point);
        to = write(to, point);
    }
    return to;
}

uint8_t *json_write_text(uint8_t *to, const struct json_text *text) {
    return write_string(to, text, write_point);
}

uint8_t *json_write_key(uint8_t *to, const struct json_text *key) {
    *to++ = '"';
    to = write_string(to, key, write_escaped);
    *to++ = '"';
    return to;
}

/* -- other values */

void json_open(struct json *json, struct json_bytes value) {
    json->at = value.at;
    json->end = value.at + value.size;
    json->keys = json->unescaped_used = 0;
}

void json_skip_space(struct json *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\n' || *json->at == '\r' || *json->at == '\t'))
        json->at++;
}

int json_skip_word(struct json *json, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(json->end - json->at) < size || memcmp(json->at, word, size))
        return -1;
    json->at += size;
    return 0;
}

static int read_digits(struct json *json, struct json_number *number) { /* how many; no more than are taken at all */
    int count = 0;
    for (; json->at < json->end && (uint8_t)(*json->at - '0') < 10 && count <= NUMBER_SPAN_MAX; json->at++, count++)
        number->digits = number->digits * 10 + (uint8_t)(*json->at - '0');
    return count;
}

static int read_exponent(struct json *json) { /* behind the 'e'; beyond NUMBER_SPAN_MAX: none, or too large */
    int exponent = 0, sign = 1, count = 0;
    if (json->at < json->end && (*json->at == '+' || *json->at == '-'))
        sign = *json->at++ == '-' ? -1 : 1;
    for (; json->at < json->end && (uint8_t)(*json->at - '0') < 10 && exponent <= NUMBER_SPAN_MAX; json->at++, count++)
        exponent = exponent * 10 + (*json->at - '0');
    return count ? sign * exponent : NUMBER_SPAN_MAX + 1;
}

int json_read_number(struct json *json, struct json_number *number) {
    int fraction = 0, exponent = 0;
    *number = (struct json_number){.is_integer = 1};
    if (json->at < json->end && *json->at == '-') {
        number->is_negative = 1;
        json->at++;
    }
    const uint8_t *first = json->at;
    int whole = read_digits(json, number);
    if (!whole || (whole > 1 && *first == '0'))
        return -1;
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        number->is_integer = 0;
        fraction = read_digits(json, number);
        if (!fraction)
            return -1;
    }
    if (json->at < json->end && (*json->at | 0x20) == 'e') {
        json->at++;
        number->is_integer = 0;
        exponent = read_exponent(json);
    }
    number->count = whole + fraction;
    number->power = exponent - fraction;
    return number->count + (exponent < 0 ? -exponent : exponent) > NUMBER_SPAN_MAX ? -1 : 0;
}

/* -- objects and arrays */

/* The key's name on the stack of open objects' keys; -1 when it came before, or there is no room. */
static int push_key(struct json *json, struct json_object *object) {
    struct json_bytes *name = &object->name;
    *name = object->key.bytes;
    if (json->keys - object->first_key == JSON_MEMBERS_MAX || json->keys == JSON_KEYS_MAX)
        return -1;
    if (object->key.is_escaped) {
        if (name->size > JSON_UNESCAPED_MAX - json->unescaped_used)
            return -1;
        uint8_t *to = json->unescaped + json->unescaped_used;
        *name = (struct json_bytes){to, (size_t)(json_write_text(to, &object->key) - to)};
        json->unescaped_used += name->size;
    }
    for (size_t n = object->first_key; n < json->keys; n++)
        if (json->key[n].size == name->size && !memcmp(json->key[n].at, name->at, name->size))
            return -1;
    json->key[json->keys++] = *name;
    return 0;
}

static int close_object(struct json *json, const struct json_object *object) {
    json->at++;
    json->keys = object->first_key;
    json->unescaped_used = object->unescaped_used;
    return 0;
}

int json_next_member(struct json *json, struct json_object *object) {
    if (!object->is_open) {
        object->first_key = json->keys;
        object->unescaped_used = json->unescaped_used;
        json->at++;
    }
    json_skip_space(json);
    if (json->at < json->end && *json->at == '}')
        return close_object(json, object);
    if (object->is_open) {
        if (json->at >= json->end || *json->at++ != ',')
            return -1;
        json_skip_space(json);
    }
    object->is_open = 1;
    if (json->at >= json->end || *json->at != '"' || json_read_string(json, &object->key) || push_key(json, object))
        return -1;
    json_skip_space(json);
    if (json->at >= json->end || *json->at++ != ':')
        return -1;
    json_skip_space(json);
    return json->at < json->end ? 1 : -1;
}

static int skip_object(struct json *json, int depth) {
    struct json_object object = {0};
    int more;
    while ((more = json_next_member(json, &object)) > 0)
        if (json_skip_value(json, depth))
            return -1;
    return more;
}

static int skip_array(struct json *json, int depth) {
    json->at++;
    json_skip_space(json);
    if (json->at < json->end && *json->at == ']') {
        json->at++;
        return 0;
    }
    for (;;) {
        json_skip_space(json);
        if (json_skip_value(json, depth))
            return -1;
        json_skip_space(json);
        if (json->at >= json->end || (*json->at != ',' && *json->at != ']'))
            return -1;
        if (*json->at++ == ']')
            return 0;
    }
}

int json_skip_value(struct json *json, int depth) {
    struct json_text text;
    struct json_number number;
    if (json->at >= json->end)
        return -1;
    switch (*json->at) {
    case '"':
        return json_read_string(json, &text);
    case '{':
        return depth < JSON_DEPTH_MAX ? skip_object(json, depth + 1) : -1;
    case '[':
        return depth < JSON_DEPTH_MAX ? skip_array(json, depth + 1) : -1;
    case 't':
        return json_skip_word(json, "true");
    case 'f':
        return json_skip_word(json, "false");
    case 'n':
        return json_skip_word(json, "null");
    default:
        return json_read_number(json, &number);
    }
}
