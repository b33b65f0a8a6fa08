/* Events, whole and damaged, through the C that reads them; run by test_scan_memory.py under sanitizers.
 *
 * usage: events_driver FILE CASES SEED; FILE has one value per line.  Every value, key and attribute lies in a block
 * of its own of just its size, so that one byte too far is seen.  Prints how many were taken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_events.h"
#include "_records.h"

enum { BATCH = 16, SEEDS_MAX = 256, LINE_MAX_BYTES = 1 << 16 };

static uint64_t state;

static uint32_t dice(uint32_t sides) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 32) % sides;
}

static struct json_bytes copy(const void *at, size_t size) {
    uint8_t *own = malloc(size ? size : 1);
    if (!own)
        exit(3);
    memcpy(own, at, size);
    return (struct json_bytes){own, size};
}

static struct json_bytes mutate(struct json_bytes seed) {
    static const char put[] = "\"\"\\\\{}[]:,/ubnD8e+-.0129 \n\tZT\x01\x1f\x7f\xc3\xa9\xed\xa0\xf0\x9f\xff";
    uint8_t *at = malloc(seed.size + 8);
    size_t size = seed.size;
    if (!at)
        exit(3);
    memcpy(at, seed.at, size);
    for (uint32_t times = dice(4); times; times--) {
        size_t place = dice((uint32_t)size + 1);
        uint32_t how = dice(8);
        if (how == 0) {
            size = place; /* torn */
        } else if (how < 3 && place < size) {
            memmove(at + place, at + place + 1, --size - place);
        } else if (how < 5) {
            memmove(at + place + 1, at + place, size++ - place);
            at[place] = (uint8_t)put[dice(sizeof put - 1)];
        } else if (place < size) {
            at[place] = (uint8_t)put[dice(sizeof put - 1)];
        }
    }
    struct json_bytes value = copy(at, size);
    free(at);
    return value;
}

static struct json_bytes maybe(const char *text) {
    return dice(4) ? (struct json_bytes){NULL, 0} : copy(text, dice((uint32_t)strlen(text) + 1));
}

/* What Arrow would read: every byte of every buffer, to where its offsets end. */
static uint64_t read_all(const struct ArrowArray *array) {
    uint64_t sum = 0;
    for (int64_t n = 0; n < array->n_children; n++) {
        const struct ArrowArray *column = array->children[n];
        const uint8_t *valid = column->buffers[0], *data = column->buffers[column->n_buffers - 1];
        size_t size = (size_t)column->length * (n == EVENTS_COLUMN_DURATION ? 4 : 8);
        if (column->n_buffers == 3) {
            const int32_t *ends = column->buffers[1];
            for (int64_t row = 0; row < column->length; row++)
                if (ends[0] || ends[row] > ends[row + 1])
                    abort();
            size = (size_t)ends[column->length];
            if (!json_is_utf8((struct json_bytes){data, size}))
                abort();
        }
        for (size_t at = 0; at < size; at++)
            sum += data[at];
        for (int64_t row = 0; valid && row < column->length; row++)
            sum += valid[row >> 3] >> (row & 7) & 1;
    }
    return sum;
}

static size_t run_batch(const struct json_bytes *seeds, uint32_t count, uint64_t *sum) {
    struct events_record records[BATCH];
    struct events events;
    struct ArrowArray array, kept;
    struct json_bytes topic = copy("t", 1), address = copy("t-0-", 4);
    if (events_open(&events, topic, address, BATCH, dice(2000)))
        exit(3);
    for (int n = 0; n < BATCH; n++) {
        records[n] = (struct events_record){.value = mutate(seeds[dice(count)]), .key = maybe("k\xc3\xa9y\xff"),
                                            .offset = (int64_t)state, .timestamp_ms = (int64_t)dice(1u << 31)};
        records[n].attribute[dice(EVENTS_TIME)] = maybe("an attribute");
        records[n].attribute[EVENTS_TIME] = maybe("2026-11-22T09:30:00.123456+01:00");
        if (events_add(&events, &records[n]) < 0)
            exit(3);
    }
    for (int n = 0; n < BATCH; n++) { /* the rows are copies */
        free((void *)(uintptr_t)records[n].value.at);
        free((void *)(uintptr_t)records[n].key.at);
        for (int m = 0; m < EVENTS_ATTRIBUTES; m++)
            free((void *)(uintptr_t)records[n].attribute[m].at);
    }
    free((void *)(uintptr_t)topic.at);
    free((void *)(uintptr_t)address.at);
    size_t rows = events.rows;
    if (dice(8) && events_export(&events, &array) == 0) {
        *sum += read_all(&array);
        kept = *array.children[EVENTS_COLUMN_TEXT]; /* as Arrow moves a child out */
        array.children[EVENTS_COLUMN_TEXT]->release = NULL;
        array.release(&array);
        kept.release(&kept);
    }
    events_close(&events);
    return rows;
}

/* The same values on their way in: every byte of the records that they become. */
static size_t run_records(const struct json_bytes *seeds, uint32_t count, uint64_t *sum) {
    char prefix[300];
    memset(prefix, 'p', sizeof prefix);
    struct json_bytes source = copy("/v1/events", 10), id_prefix = copy(prefix, dice(sizeof prefix)),
                      tail = copy("\x02n\x02v", 4);
    struct records records = {.source = source, .id_prefix = id_prefix, .tail = tail, .received_us = (int64_t)dice(1u << 31)};
    size_t taken = 0;
    for (int n = 0; n < BATCH; n++) {
        struct json_bytes value = mutate(seeds[dice(count)]);
        struct records_made made;
        int is_enveloped = !dice(3);
        int added = (is_enveloped ? records_add_envelope : records_add)(&records, value, (int64_t)state, &made);
        free((void *)(uintptr_t)value.at);
        if (added < 0)
            exit(3);
        if (!added)
            continue;
        const struct packed_place *place = &made.place;
        const uint8_t *at = records.data + place->headers_at, *end = at + place->headers_size, *bytes;
        int32_t size, headers = 0;
        for (; at < end; headers++)
            if (packed_bytes(&at, end, &bytes, &size) || size < 0 || packed_bytes(&at, end, &bytes, &size))
                abort();
        if ((is_enveloped ? headers < 7 : headers != 7) || end != records.data + records.used || place->key_at + place->key_size != place->value_at ||
            place->value_at + place->value_size != place->headers_at || made.id_at + made.id_size > (int32_t)records.used ||
            made.type_at + made.type_size > (int32_t)records.used)
            abort();
        taken++;
    }
    for (size_t at = 0; at < records.used; at++)
        *sum += records.data[at];
    free(records.data);
    free((void *)(uintptr_t)source.at);
    free((void *)(uintptr_t)id_prefix.at);
    free((void *)(uintptr_t)tail.at);
    return taken;
}

int main(int argc, char **argv) {
    static char line[LINE_MAX_BYTES];
    struct json_bytes seeds[SEEDS_MAX];
    uint32_t count = 0;
    uint64_t sum = 0;
    FILE *file = argc == 4 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    while (count < SEEDS_MAX && fgets(line, sizeof line, file))
        seeds[count++] = copy(line, strcspn(line, "\n"));
    fclose(file);
    size_t cases = (size_t)strtoull(argv[2], NULL, 10), taken = 0;
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    for (size_t done = 0; done < cases; done += BATCH)
        taken += done / BATCH % 2 ? run_records(seeds, count, &sum) : run_batch(seeds, count, &sum);
    while (count--)
        free((void *)(uintptr_t)seeds[count].at);
    printf("%zu %llu\n", taken, (unsigned long long)sum);
    return 0;
}
