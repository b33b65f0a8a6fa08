/* From before a write in one process to after the wait in another that slept, in C: nanoseconds, one a line, then the
 * share of a core that the sleeper took.
 *
 *     sleeper word COUNT RATE [apart]  a word and a futex: the floor under whatever wakes by a futex on this machine
 *     sleeper ring COUNT RATE [apart]  a row of the ring: committed, waited for, copied out
 *
 * `apart` keeps the two on the first and the second CPU; else the scheduler may wake the sleeper where the writer is
 * about to sleep, which costs no interrupt.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "_protocol.h"

enum { DIM = 384, CAPACITY = 8192 };

struct shared {
    _Atomic uint32_t word;
    _Atomic int64_t sent_ns;
};

static struct shared *shared;
static struct evring ring;
static struct evring_record record;
static float vector[DIM];

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void *map_shared(size_t bytes) {
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (map == MAP_FAILED)
        abort();
    return map;
}

/* ---- a word ---- */

static void futex(int operation, uint32_t value) {
    syscall(SYS_futex, &shared->word, operation, value, NULL, NULL, 0);
}

static void open_word(void) { shared = map_shared(sizeof *shared); }

static void write_word(uint64_t number) {
    (void)number;
    atomic_store(&shared->sent_ns, now_ns());
    atomic_fetch_add(&shared->word, 1);
    futex(FUTEX_WAKE, 1);
}

/* Returns how many were sent; the age of the last of them goes to age_ns. */
static uint64_t await_word(uint64_t seen, int64_t *age_ns) {
    uint32_t found;
    while ((found = atomic_load(&shared->word)) == seen)
        futex(FUTEX_WAIT, (uint32_t)seen);
    *age_ns = now_ns() - atomic_load(&shared->sent_ns);
    return found;
}

/* ---- a row ---- */

static void open_ring(void) {
    uint64_t column = EVRING_RECORD_OFF + CAPACITY * sizeof record;
    ring = (struct evring){
        .map_bytes = column + CAPACITY * sizeof vector,
        .capacity = CAPACITY,
        .record_off = EVRING_RECORD_OFF,
        .n_columns = 1,
        .columns = {{column, sizeof vector}},
    };
    ring.map = map_shared(ring.map_bytes);
    if (!evring_fits(&ring, ring.map_bytes))
        abort();
    evring_go_live(&ring, evring_salvage(&ring));
}

static void write_row(uint64_t number) {
    const unsigned char *columns[] = {(unsigned char *)vector};
    record.timestamp_us = now_ns(); /* a time, whatever its unit */
    if (evring_commit(&ring, &record, columns, 1, NULL, 0) != number)
        abort();
}

static uint64_t await_row(uint64_t seen, int64_t *age_ns) {
    unsigned char *columns[] = {(unsigned char *)vector};
    while (evring_wait(&ring, seen, 0, 1000000000) <= seen)
        ;
    seen = evring_copy(&ring, seen, 1, &record, columns).next;
    *age_ns = now_ns() - record.timestamp_us;
    return seen;
}

/* ---- either ---- */

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void sleeper(uint64_t await(uint64_t, int64_t *), uint64_t count) {
    int64_t *ages = malloc(count * sizeof *ages), started_ns = now_ns(), age_ns = 0;
    for (uint64_t seen = 0; seen < count;)
        for (uint64_t found = await(seen, &age_ns); seen < found; seen++)
            ages[seen] = age_ns;
    double spent_s = (double)(now_ns() - started_ns) / 1e9;
    for (uint64_t i = 0; i < count; i++)
        printf("%lld\n", (long long)ages[i]);
    printf("%f\n", cpu_s() / spent_s);
    fflush(stdout);
    _exit(0);
}

static void stay_on(size_t cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        abort();
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 5)
        return 2;
    int is_ring = !strcmp(argv[1], "ring");
    uint64_t count = strtoull(argv[2], NULL, 10);
    int64_t every_ns = 1000000000LL / atol(argv[3]);
    is_ring ? open_ring() : open_word();
    pid_t child = fork();
    if (argc == 5)
        stay_on(child ? 0 : 1);
    if (child == 0)
        sleeper(is_ring ? await_row : await_word, count);
    int64_t next_ns = now_ns() + 200000000; /* the other has begun to sleep */
    for (uint64_t i = 0; i < count; i++, next_ns += every_ns) {
        struct timespec until = {next_ns / 1000000000LL, next_ns % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        is_ring ? write_row(i) : write_word(i);
    }
    int status;
    waitpid(child, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status);
}
