/* Reading JSON (RFC 8259) in place; see _json.c. */
#ifndef STREAMAPP_TOPICS_JSON_H
#define STREAMAPP_TOPICS_JSON_H

#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 62       /* below core.event's 64, which then decides */
#define JSON_MEMBERS_MAX 64     /* of one object: every two keys are compared */
#define JSON_KEYS_MAX 512       /* of the objects that are open at once */
#define JSON_UNESCAPED_MAX 4096 /* bytes of those of them that are escaped, at most */

/* Bytes of somebody else's; `at` is NULL where there are none. */
struct json_bytes {
    const uint8_t *at;
    size_t size;
};

/* A string between its quotes, as it was written. */
struct json_text {
    struct json_bytes bytes;
    int is_escaped;
};

/* 123.45e6 is digits 12345, power 4. */
struct json_number {
    uint64_t digits; /* meaningless when there are more than JSON_DIGITS_MAX */
    int count;       /* of digits */
    int power;
    int is_negative;
    int is_integer; /* neither point nor exponent */
};
#define JSON_DIGITS_MAX 19

/* Where a reader is.  Functions return -1 for what is no JSON, or no plain JSON; the position is then undefined. */
struct json {
    const uint8_t *at, *end;
    size_t keys, unescaped_used;
    struct json_bytes key[JSON_KEYS_MAX]; /* without escapes */
    uint8_t unescaped[JSON_UNESCAPED_MAX];
};

/* An object being read; zeros before its first member. */
struct json_object {
    int is_open;
    size_t first_key, unescaped_used; /* where its parent's end */
    struct json_text key;             /* of the current member, as it was written */
    struct json_bytes name;           /* the same without escapes; valid while the object is open */
};

void json_open(struct json *json, struct json_bytes value);
void json_skip_space(struct json *json);

/* At '{' or behind a member's value.  1: at the next member's value; 0: behind the object. */
int json_next_member(struct json *json, struct json_object *object);

/* At a value inside an object or array of that depth (the outermost has 1): to behind it. */
int json_skip_value(struct json *json, int depth);
int json_skip_word(struct json *json, const char *word);
int json_read_string(struct json *json, struct json_text *text); /* at the quote */
int json_read_number(struct json *json, struct json_number *number);

int json_is_utf8(struct json_bytes bytes);
size_t json_characters(const struct json_text *text);

/* Write what is never longer than it was; return where it ends. */
uint8_t *json_write_text(uint8_t *to, const struct json_text *text); /* without escapes */
uint8_t *json_write_key(uint8_t *to, const struct json_text *key);   /* quoted as json.dumps(ensure_ascii=False) does */

#endif
