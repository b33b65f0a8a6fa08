/* The engine without Python, to be run under sanitizers.
 *
 *     sanitized fuzz CASES SEED      any geometry, any header: no byte outside the file and the arrays is touched
 *     sanitized races FRAMES SEED    one thread writes by all the ways there are, three read: no data race, no torn row
 *
 * prints the geometries that fitted and the rows that were read, or "accepted torn".
 */
#define _GNU_SOURCE
#include "_protocol.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 32, READERS = 3 };

static uint64_t random_bits(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static uint64_t below(uint64_t *dice, uint64_t end) { return random_bits(dice) % end; }

static void *must(void *memory) {
    if (!memory)
        abort();
    return memory;
}

/* The arrays of one call, each as long as it has to be and no longer. */
struct block {
    struct evring_record *records;
    unsigned char *rows[EVRING_COLUMNS_MAX];
};

static struct block new_block(const struct evring *ring, uint64_t n) {
    struct block block = {.records = must(calloc(n + !n, sizeof *block.records))};
    for (uint64_t i = 0; i < ring->n_columns; i++)
        block.rows[i] = must(calloc(n + !n, ring->columns[i].row_bytes));
    return block;
}

static void free_block(const struct evring *ring, struct block *block) {
    free(block->records);
    for (uint64_t i = 0; i < ring->n_columns; i++)
        free(block->rows[i]);
}

/* ---- fuzz ---- */

static uint64_t odd_number(uint64_t *dice) {
    const uint64_t values[] = {0, 1, 63, 64, 128, 4096, 8192, 8193, 12288, 1ull << 32, 1ull << 63, ~0ull, ~0ull - 63};
    return below(dice, 4) ? values[below(dice, sizeof values / sizeof *values)] : random_bits(dice);
}

/* A geometry that fits more often than not, with one number spoilt now and then. */
static struct evring any_geometry(uint64_t *dice) {
    struct evring ring = {.capacity = 1ull << below(dice, 7), .record_off = EVRING_RECORD_OFF};
    uint64_t end = ring.record_off + ring.capacity * EVRING_RECORD_STRIDE;
    ring.n_columns = 1 + below(dice, EVRING_COLUMNS_MAX);
    for (uint64_t i = 0; i < ring.n_columns; i++) {
        end = (end + 63) / 64 * 64;
        ring.columns[i] = (struct evring_column){end, 1 + below(dice, 70)};
        end += ring.capacity * ring.columns[i].row_bytes;
    }
    ring.map_bytes = end;
    uint64_t *const spoilt[] = {&ring.capacity,          &ring.record_off,           &ring.n_columns, &ring.map_bytes,
                                &ring.columns[0].offset, &ring.columns[0].row_bytes, NULL,            NULL};
    uint64_t *word = spoilt[below(dice, 8)];
    if (word)
        *word = below(dice, 2) ? *word - 1 : odd_number(dice);
    return ring;
}

static void any_header(const struct evring *ring, uint64_t *dice) {
    struct evring_header *h = (struct evring_header *)ring->map;
    uint64_t *const words[] = {&h->base, &h->head, &h->claim, &h->epoch, &h->void_frames};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        *words[i] = below(dice, 2) ? below(dice, 3 * ring->capacity) : odd_number(dice);
    for (uint64_t i = 0; i < ring->capacity; i++)
        memcpy(ring->map + ring->record_off + i * EVRING_RECORD_STRIDE, &i, sizeof i);
}

static uint64_t read_any(const struct evring *ring, uint64_t *dice) {
    uint64_t limit = below(dice, 2 * ring->capacity + 2), want = below(dice, 2) ? 0 : odd_number(dice);
    struct block block = new_block(ring, limit);
    struct evring_window window = evring_copy(ring, want, limit, block.records, block.rows);
    if (window.kept > limit || window.kept + window.lost + window.voids != window.next - want)
        abort();
    evring_wait(ring, want, 0, 1000);
    free_block(ring, &block);
    return window.kept;
}

/* A header that the writer's start accepts. */
static void sane_header(const struct evring *ring, uint64_t *dice) {
    struct evring_header *h = (struct evring_header *)ring->map;
    h->base = below(dice, 1000);
    h->head = h->base + below(dice, 3 * ring->capacity);
    h->claim = h->head + below(dice, evring_commit_max(ring) + 1);
    h->void_frames = 0;
}

static void write_any(struct evring *ring, uint64_t *dice) {
    uint64_t n = below(dice, evring_commit_max(ring) + 1), way = n ? below(dice, 4) : 0;
    struct block block = new_block(ring, n);
    struct evring_position position = {below(dice, EVRING_SOURCES_MAX), 1, 2};
    unsigned char *keep = must(malloc(n + !n));
    for (uint64_t i = 0; i < n; i++)
        keep[i] = (unsigned char)below(dice, 2);
    if (!way) {
        evring_commit(ring, block.records, (const unsigned char *const *)block.rows, n, &position, n % 2);
    } else {
        evring_reserve(ring, n);
        if (evring_reserved(ring) != n)
            abort();
        if (way == 1)
            evring_abandon(ring);
        else
            evring_commit_reserved(ring, block.records, way == 2 ? keep : NULL, &position, n % 2);
    }
    free(keep);
    free_block(ring, &block);
}

static int fuzz(uint64_t cases, uint64_t seed) {
    uint64_t dice = seed, fitted = 0, kept = 0;
    for (uint64_t i = 0; i < cases; i++) {
        struct evring ring = any_geometry(&dice);
        uint64_t file_bytes = below(&dice, 8) ? ring.map_bytes : odd_number(&dice);
        if (!evring_fits(&ring, file_bytes) || ring.map_bytes > 1 << 24)
            continue;
        ring.map = must(malloc(ring.map_bytes));
        memset(ring.map, 0, ring.map_bytes);
        fitted++;
        any_header(&ring, &dice);
        for (int look = 0; look < 4; look++)
            kept += read_any(&ring, &dice);
        sane_header(&ring, &dice);
        evring_go_live(&ring, evring_salvage(&ring));
        for (int step = 0; step < 8; step++) {
            write_any(&ring, &dice);
            kept += read_any(&ring, &dice);
        }
        evring_retire(&ring);
        free(ring.map);
    }
    printf("%llu %llu\n", (unsigned long long)fitted, (unsigned long long)kept);
    return 0;
}

/* ---- races ---- */

enum { CAPACITY = 64, WIDE = 64, NARROW = 8 };

static struct evring shared;
static uint64_t frames;

static void fill(unsigned char *row, uint64_t bytes, uint64_t seq) { memset(row, (int)(seq * 37 % 251), bytes); }

static int is_torn(const unsigned char *row, uint64_t bytes, uint64_t seq) {
    for (uint64_t i = 0; i < bytes; i++)
        if (row[i] != seq * 37 % 251)
            return 1;
    return 0;
}

/* By value, or in place with some rows void, or abandoned. */
static void write_some(struct block *block, uint64_t *dice) {
    uint64_t first = ((struct evring_header *)shared.map)->head, n = 1 + below(dice, BLOCK), way = below(dice, 4);
    unsigned char keep[BLOCK];
    for (uint64_t i = 0; i < n; i++) {
        block->records[i].ingest_us = (int64_t)(first + i);
        keep[i] = way != 2 || below(dice, 4);
    }
    if (way >= 1)
        evring_reserve(&shared, n);
    for (uint64_t c = 0; c < shared.n_columns; c++)
        for (uint64_t i = 0; i < n; i++) {
            uint64_t bytes = shared.columns[c].row_bytes, slot = (first + i) & (CAPACITY - 1);
            unsigned char *in_place = shared.map + shared.columns[c].offset + slot * bytes;
            unsigned char *row = way ? in_place : block->rows[c] + i * bytes;
            fill(row, bytes, first + i);
        }
    if (!way)
        evring_commit(&shared, block->records, (const unsigned char *const *)block->rows, n, NULL, 0);
    else if (way == 1)
        evring_abandon(&shared);
    else
        evring_commit_reserved(&shared, block->records, keep, NULL, 0);
}

static void *write_all(void *seed) {
    uint64_t dice = *(uint64_t *)seed;
    struct block block = new_block(&shared, BLOCK);
    while (((struct evring_header *)shared.map)->head < frames)
        write_some(&block, &dice);
    evring_retire(&shared);
    free_block(&shared, &block);
    return NULL;
}

struct tally {
    uint64_t accepted, torn;
};

static void *read_all(void *result) {
    struct tally *tally = result;
    struct block block = new_block(&shared, BLOCK);
    for (uint64_t want = 0; want < frames;) {
        evring_wait(&shared, want, 0, 1000000000);
        struct evring_window window = evring_copy(&shared, want, BLOCK, block.records, block.rows);
        for (uint64_t i = 0; i < window.kept; i++) {
            uint64_t seq = block.records[i].frame_id;
            int torn = block.records[i].ingest_us != (int64_t)seq;
            for (uint64_t c = 0; c < shared.n_columns; c++) {
                uint64_t bytes = shared.columns[c].row_bytes;
                torn |= is_torn(block.rows[c] + i * bytes, bytes, seq);
            }
            tally->torn += (uint64_t)torn;
        }
        tally->accepted += window.kept;
        uint64_t head = evring_head(&shared); /* in this order: the claim runs ahead */
        if (evring_claim(&shared) < head)
            abort();
        want = window.next;
    }
    free_block(&shared, &block);
    return NULL;
}

static int races(uint64_t seed) {
    uint64_t wide = EVRING_RECORD_OFF + CAPACITY * EVRING_RECORD_STRIDE, narrow = wide + CAPACITY * WIDE;
    shared = (struct evring){
        .map_bytes = narrow + CAPACITY * NARROW,
        .capacity = CAPACITY,
        .record_off = EVRING_RECORD_OFF,
        .n_columns = 2,
        .columns = {{wide, WIDE}, {narrow, NARROW}},
    };
    shared.map = must(aligned_alloc(4096, (shared.map_bytes + 4095) / 4096 * 4096));
    memset(shared.map, 0, shared.map_bytes);
    evring_go_live(&shared, evring_salvage(&shared));
    struct tally tallies[READERS] = {{0, 0}};
    pthread_t writer, readers[READERS];
    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i], NULL, read_all, &tallies[i]);
    pthread_create(&writer, NULL, write_all, &seed);
    pthread_join(writer, NULL);
    uint64_t accepted = 0, torn = 0;
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i], NULL);
        accepted += tallies[i].accepted;
        torn += tallies[i].torn;
    }
    free(shared.map);
    printf("%llu %llu\n", (unsigned long long)accepted, (unsigned long long)torn);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    frames = strtoull(argv[2], NULL, 10);
    uint64_t seed = strtoull(argv[3], NULL, 10);
    if (!strcmp(argv[1], "fuzz"))
        return fuzz(frames, seed);
    return strcmp(argv[1], "races") ? 2 : races(seed);
}
