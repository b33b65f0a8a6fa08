/* The protocol alone, without Python, between two processes: also for CPUs that are emulated here.
 *
 *     protocol tear CAPACITY FRAMES BATCH      a reader checks every word of what it accepts
 *     protocol control CAPACITY SECONDS        the same flood, read without stamps and claim
 *     protocol wake ROUNDS SEED                bursts at random gaps; who waits must see the last row of each
 *
 * prints "accepted torn lost void", "torn", or the rounds. A wake-up that is missed is a hang.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "_protocol.h"

enum { WIDE = 256, NARROW = 12, BLOCK = 64 };

/* A batch outside the ring; every word follows from the row's seq. */
struct rows {
    struct evring_record records[BLOCK];
    uint32_t wide[BLOCK][WIDE];
    uint32_t narrow[BLOCK][NARROW];
};

static uint64_t up(uint64_t bytes) { return (bytes + 4095) & ~4095ull; }

static struct evring new_ring(uint64_t capacity) {
    uint64_t wide = up(EVRING_RECORD_OFF + capacity * EVRING_RECORD_STRIDE);
    uint64_t narrow = up(wide + capacity * WIDE * 4);
    struct evring ring = {
        .map_bytes = up(narrow + capacity * NARROW * 4),
        .capacity = capacity,
        .record_off = EVRING_RECORD_OFF,
        .n_columns = 2,
        .columns = {{wide, WIDE * 4}, {narrow, NARROW * 4}},
    };
    ring.map = mmap(NULL, ring.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ring.map == MAP_FAILED || !evring_fits(&ring, ring.map_bytes))
        exit(2);
    evring_go_live(&ring, evring_salvage(&ring));
    return ring;
}

static uint32_t word(uint64_t seq, int i) { return (uint32_t)(seq * 2654435761u) + (uint32_t)i; }

static uint64_t long_word(uint64_t seq, int i) { return seq * 0x9E3779B97F4A7C15u + (uint64_t)i; }

static void fill(struct rows *rows, uint64_t first, uint64_t n) {
    for (uint64_t r = 0; r < n; r++) {
        uint64_t own[16] = {0};
        for (int i = 2; i < 15; i++)
            own[i] = long_word(first + r, i);
        memcpy(&rows->records[r], own, sizeof own);
        for (int i = 0; i < WIDE; i++)
            rows->wide[r][i] = word(first + r, i);
        for (int i = 0; i < NARROW; i++)
            rows->narrow[r][i] = word(first + r, i);
    }
}

static int is_torn(const struct rows *rows, uint64_t r) {
    uint64_t own[16], seq = rows->records[r].frame_id;
    memcpy(own, &rows->records[r], sizeof own);
    int bad = own[0] != 2 * seq + 2;
    for (int i = 2; i < 15; i++)
        bad |= own[i] != long_word(seq, i);
    for (int i = 0; i < WIDE; i++)
        bad |= rows->wide[r][i] != word(seq, i);
    for (int i = 0; i < NARROW; i++)
        bad |= rows->narrow[r][i] != word(seq, i);
    return bad;
}

static void commit(struct evring *ring, struct rows *rows, uint64_t first, uint64_t n) {
    const unsigned char *columns[] = {(unsigned char *)rows->wide, (unsigned char *)rows->narrow};
    fill(rows, first, n);
    if (evring_commit(ring, rows->records, columns, n, NULL, 0) != first)
        exit(2);
}

/* A process that ends with its parent. */
static pid_t fork_child(void) {
    pid_t pid = fork();
    if (pid < 0)
        exit(2);
    if (!pid)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void write_for_ever(struct evring *ring, uint64_t batch) {
    static struct rows rows;
    for (uint64_t seq = 0;; seq += batch)
        commit(ring, &rows, seq, batch);
}

static int tear(uint64_t capacity, uint64_t frames, uint64_t batch) {
    static struct rows rows;
    unsigned char *columns[] = {(unsigned char *)rows.wide, (unsigned char *)rows.narrow};
    struct evring ring = new_ring(capacity);
    uint64_t want = 0, accepted = 0, torn = 0, lost = 0, voids = 0;
    if (batch > evring_commit_max(&ring))
        batch = evring_commit_max(&ring);
    if (!fork_child())
        write_for_ever(&ring, batch);
    for (int turn = 0; want < frames; turn++) {
        /* Every other time the writer is about to overwrite what is read. */
        while (turn % 2 && evring_head(&ring) < want + capacity)
            ;
        evring_wait(&ring, want, 0, 1000000000);
        struct evring_window window = evring_copy(&ring, want, BLOCK, rows.records, columns);
        for (uint64_t r = 0; r < window.kept; r++)
            torn += (uint64_t)is_torn(&rows, r);
        want = window.next, accepted += window.kept, lost += window.lost, voids += window.voids;
    }
    printf("%lu %lu %lu %lu\n", accepted, torn, lost, voids);
    return accepted + lost + voids == want ? 0 : 3;
}

static void await(struct evring *ring, uint64_t want) {
    while (evring_wait(ring, want, 0, 3600000000000) <= want)
        ;
}

static int control(uint64_t capacity, int64_t seconds) {
    struct evring ring = new_ring(capacity);
    time_t end = time(NULL) + seconds;
    uint64_t torn = 0;
    if (!fork_child())
        write_for_ever(&ring, 1);
    await(&ring, capacity); /* until every slot holds a row: nothing at all would look torn, too */
    while (!torn && time(NULL) < end)
        for (int look = 0; look < 1000; look++) {
            uint32_t row[WIDE];
            uint64_t slot = evring_head(&ring) & (capacity - 1);
            memcpy(row, ring.map + ring.columns[0].offset + slot * sizeof row, sizeof row);
            for (int i = 1; i < WIDE; i++)
                if (row[i] != row[0] + (uint32_t)i) {
                    torn++;
                    break;
                }
        }
    printf("%lu\n", torn);
    return 0;
}

static void pause_ns(int64_t ns) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < ns);
}

/* Rows of a burst: 1 to 8. */
static uint64_t burst_of(unsigned *dice) { return 1 + (uint64_t)(rand_r(dice) % 8); }

/* Answers every burst, after a while, when it has seen the last row of it. */
static void answer(struct evring *there, struct evring *back, uint64_t rounds, unsigned seed) {
    static struct rows rows;
    for (uint64_t round = 0, seen = 0; round < rounds; round++) {
        unsigned dice = seed + (unsigned)round; /* the same as the writer's */
        seen += burst_of(&dice);
        await(there, seen - 1);
        pause_ns(rand_r(&dice) % 40000);
        commit(back, &rows, round, 1);
    }
}

/* Rows 0 to 60 us apart, sooner and later than a reader falls asleep; after a burst the writer itself waits. */
static int wake(uint64_t rounds, unsigned seed) {
    static struct rows rows;
    struct evring there = new_ring(64), back = new_ring(64);
    if (!fork_child()) {
        answer(&there, &back, rounds, seed);
        _exit(0);
    }
    for (uint64_t round = 0, sent = 0; round < rounds; round++) {
        unsigned dice = seed + (unsigned)round;
        for (uint64_t end = sent + burst_of(&dice); sent < end; sent++) {
            pause_ns(rand_r(&dice) % 60000);
            commit(&there, &rows, sent, 1);
        }
        await(&back, round);
    }
    printf("%lu\n", rounds);
    return 0;
}

int main(int argc, char **argv) {
    uint64_t number[3] = {0, 0, 0};
    for (int i = 2; i < argc && i < 5; i++)
        number[i - 2] = strtoull(argv[i], NULL, 10);
    if (argc == 5 && !strcmp(argv[1], "tear"))
        return tear(number[0], number[1], number[2]);
    if (argc == 4 && !strcmp(argv[1], "control"))
        return control(number[0], (int64_t)number[1]);
    if (argc == 4 && !strcmp(argv[1], "wake"))
        return wake(number[0], (unsigned)number[1]);
    return 2;
}
