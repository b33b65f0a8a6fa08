/* Record batches, whole and damaged, through the C that reads them; run by test_arrived_memory.py under sanitizers.
 *
 * usage: batches_driver FILE CASES SEED; FILE has batches behind each other, each led by its size (8 bytes, little endian).
 * Every input lies in a block of its own of just its size.  Prints how many were read whole, and how many records.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_batches.h"
#include "_building.h"

enum { SEEDS_MAX = 64, SIZE_MAX_BYTES = 1 << 20 };

struct seed {
    uint8_t *at;
    size_t size;
};

static uint64_t state;

static uint32_t dice(uint32_t sides) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 32) % sides;
}

static struct seed copy(const void *at, size_t size) {
    uint8_t *own = malloc(size ? size : 1);
    if (!own)
        exit(3);
    memcpy(own, at, size);
    return (struct seed){own, size};
}

static struct seed mutate(struct seed seed) {
    static const uint8_t put[] = {0, 1, 2, 3, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff};
    struct seed own = copy(seed.at, seed.size);
    for (uint32_t times = dice(4); times; times--)
        own.at[dice((uint32_t)own.size)] = put[dice(sizeof put)];
    if (dice(8))
        return own;
    struct seed torn = copy(own.at, dice((uint32_t)own.size));
    free(own.at);
    return torn;
}

/* What a reader of the places would read. */
static uint64_t read_all(const struct batches *batches) {
    uint64_t sum = 0;
    int64_t before = -1;
    for (size_t n = 0; n < batches->count; n++) {
        const struct packed_place *place = &batches->places[n];
        const int32_t parts[][2] = {{place->key_at, place->key_size},
                                    {place->value_at, place->value_size},
                                    {place->headers_at, place->headers_size}};
        if (place->offset <= before || place->offset >= batches->position)
            abort();
        before = place->offset;
        for (int m = 0; m < 3; m++)
            for (int32_t at = 0; at < parts[m][1]; at++)
                sum += batches->data[parts[m][0] + at];
        const uint8_t *at = batches->data + place->headers_at, *end = at + place->headers_size, *bytes;
        int32_t size;
        while (at < end)
            if (packed_bytes(&at, end, &bytes, &size))
                abort();
    }
    return sum;
}

static struct building_bytes part(const struct batches *batches, int32_t at, int32_t size) {
    return size < 0 ? (struct building_bytes){0} : (struct building_bytes){batches->data + at, (size_t)size};
}

static int same(const struct batches *one, int32_t at, int32_t size, const struct batches *other, int32_t its, int32_t its_size) {
    return size == its_size && (size <= 0 || !memcmp(one->data + at, other->data + its, (size_t)size));
}

/* What was read, written as one batch and read again, is the same. */
static void write_and_read(const struct batches *batches) {
    struct building building;
    if (building_open(&building, dice(200)))
        exit(3);
    for (size_t n = 0; n < batches->count; n++) {
        const struct packed_place *place = &batches->places[n];
        const uint8_t *at = batches->data + place->headers_at, *end = at + place->headers_size, *bytes;
        int32_t size, headers = 0;
        for (; at < end; headers++)
            if (packed_bytes(&at, end, &bytes, &size) || packed_bytes(&at, end, &bytes, &size))
                abort();
        if (building_add(&building, place->timestamp_ms, part(batches, place->key_at, place->key_size),
                         part(batches, place->value_at, place->value_size), headers,
                         part(batches, place->headers_at, place->headers_size)))
            exit(3);
    }
    building_finish(&building, &(struct building_identity){(int64_t)state, 3, (int32_t)dice(1u << 31)});
    struct batches again = {.data = building.data, .size = building.used, .check_crcs = 1};
    if (batches_read(&again, batches->count + 1) != BATCHES_END || again.count != batches->count || again.at != again.size)
        abort();
    for (size_t n = 0; n < again.count; n++) {
        const struct packed_place *was = &batches->places[n], *is = &again.places[n];
        if (is->offset != (int64_t)n || is->timestamp_ms != was->timestamp_ms ||
            !same(batches, was->key_at, was->key_size, &again, is->key_at, is->key_size) ||
            !same(batches, was->value_at, was->value_size, &again, is->value_at, is->value_size) ||
            !same(batches, was->headers_at, was->headers_size, &again, is->headers_at, is->headers_size))
            abort();
    }
    free(again.places);
    free(building.data);
}

int main(int argc, char **argv) {
    static uint8_t buffer[SIZE_MAX_BYTES];
    struct seed seeds[SEEDS_MAX];
    uint32_t count = 0;
    uint64_t size, sum = 0, records = 0, whole = 0;
    FILE *file = argc == 4 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    while (count < SEEDS_MAX && fread(&size, sizeof size, 1, file) == 1 && size <= sizeof buffer &&
           fread(buffer, 1, size, file) == size)
        seeds[count++] = copy(buffer, size);
    fclose(file);
    batches_prepare();
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    for (size_t left = (size_t)strtoull(argv[2], NULL, 10); left; left--) {
        struct seed own = mutate(seeds[dice(count)]);
        struct batches batches = {
            .data = own.at, .size = own.size, .position = dice(5), .check_crcs = !dice(8)};
        int why = BATCHES_ENOUGH;
        while (why == BATCHES_ENOUGH)
            why = batches_read(&batches, batches.count + 1 + dice(3));
        if (why == BATCHES_NO_MEMORY || batches_crc32c(own.at, own.size) != batches_crc32c_portable(own.at, own.size))
            abort();
        whole += why == BATCHES_END;
        records += batches.count;
        sum += read_all(&batches);
        if (batches.count)
            write_and_read(&batches);
        free(batches.places);
        free(own.at);
    }
    while (count--)
        free(seeds[count].at);
    printf("%llu %llu %llu\n", (unsigned long long)whole, (unsigned long long)records, (unsigned long long)sum);
    return 0;
}
