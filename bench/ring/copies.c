/* What the ring costs in C beside memcpy of the same bytes to the same places, in turns, ns a row.
 *
 *     copies FILE CAPACITY RECORD_OFF COLUMN_OFF ROW_BYTES BATCH CHUNK LAPS
 *
 * prints pairs, one for each chunk of rows: memcpy into the ring and commit; an empty line; memcpy out and read. The two
 * go round half a ring apart and change turns, so that each finds its slots as long ago touched. FILE is a ring that nobody writes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "_protocol.h"

/* As an ML reader or the mirror has them: one batch, used again, so in the cache. */
static struct evring_record *records;
static unsigned char *rows;

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* The compiler must not see through the copies. */
static void used(const void *at) { __asm__ volatile("" ::"r"(at) : "memory"); }

static void copy_in(struct evring *ring, uint64_t seq, uint64_t n) {
    const struct evring_column *column = &ring->columns[0];
    uint64_t slot = seq & (ring->capacity - 1);
    memcpy(ring->map + ring->record_off + slot * sizeof *records, records, n * sizeof *records);
    memcpy(ring->map + column->offset + slot * column->row_bytes, rows, n * column->row_bytes);
    used(ring->map);
}

static void copy_out(struct evring *ring, uint64_t seq, uint64_t n) {
    const struct evring_column *column = &ring->columns[0];
    uint64_t slot = seq & (ring->capacity - 1);
    memcpy(records, ring->map + ring->record_off + slot * sizeof *records, n * sizeof *records);
    memcpy(rows, ring->map + column->offset + slot * column->row_bytes, n * column->row_bytes);
    used(rows);
}

static void commit(struct evring *ring, uint64_t seq, uint64_t n) {
    const unsigned char *columns[] = {rows};
    if (evring_commit(ring, records, columns, n, NULL, 0) != seq)
        abort();
}

static void read_rows(struct evring *ring, uint64_t seq, uint64_t n) {
    unsigned char *columns[] = {rows};
    if (evring_copy(ring, seq, n, records, columns).kept != n)
        abort();
}

typedef void step(struct evring *, uint64_t seq, uint64_t n);

static double ns_a_row(struct evring *ring, step *take, uint64_t first, uint64_t total, uint64_t n) {
    double start = now_ns();
    for (uint64_t seq = first; seq < first + total; seq += n)
        take(ring, seq, n);
    return (now_ns() - start) / (double)total;
}

/* One chunk of each, the other first in every second pair: who comes second finds its slots longer untouched. */
static void both(struct evring *ring, step *plain, uint64_t plain_at, step *ours, uint64_t ours_at, uint64_t chunk,
                 uint64_t n, uint64_t ours_first) {
    double ours_ns = ours_first ? ns_a_row(ring, ours, ours_at, chunk, n) : 0;
    double plain_ns = ns_a_row(ring, plain, plain_at, chunk, n);
    if (!ours_first)
        ours_ns = ns_a_row(ring, ours, ours_at, chunk, n);
    printf("%.2f %.2f\n", plain_ns, ours_ns);
}

int main(int argc, char **argv) {
    if (argc != 9)
        return 2;
    uint64_t number[7];
    for (int i = 0; i < 7; i++)
        number[i] = strtoull(argv[2 + i], NULL, 10);
    struct evring ring = {
        .map_bytes = number[2] + number[0] * number[3],
        .capacity = number[0],
        .record_off = number[1],
        .n_columns = 1,
        .columns = {{number[2], number[3]}},
    };
    uint64_t n = number[4], chunk = number[5], total = number[6] * ring.capacity, half = ring.capacity / 2;
    int fd = open(argv[1], O_RDWR);
    ring.map = mmap(NULL, ring.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (fd < 0 || ring.map == MAP_FAILED || !evring_fits(&ring, ring.map_bytes))
        return perror(argv[1]), 1;
    records = aligned_alloc(4096, (n * sizeof *records + 4095) & ~4095ull);
    rows = aligned_alloc(4096, (n * ring.columns[0].row_bytes + 4095) & ~4095ull);
    memset(records, 1, n * sizeof *records);
    memset(rows, 1, n * ring.columns[0].row_bytes);

    ns_a_row(&ring, commit, evring_head(&ring), ring.capacity, n);
    for (uint64_t at = 0, head = evring_head(&ring); at < total; at += chunk)
        both(&ring, copy_in, head + at + half, commit, head + at, chunk, n, at / chunk % 2);
    ns_a_row(&ring, commit, evring_head(&ring), ring.capacity, n);
    putchar('\n');
    for (uint64_t at = 0, low = evring_head(&ring) - ring.capacity; at < total; at += chunk)
        both(&ring, copy_out, low + (at + half) % ring.capacity, read_rows, low + at % ring.capacity, chunk, n,
             at / chunk % 2);
    return 0;
}
