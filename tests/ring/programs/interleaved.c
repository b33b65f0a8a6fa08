/* One writer and one reader of the engine, by turns: every load, store, look at the clock and system call is a place
 * where the other may go on, the writer be killed, or time pass.
 *
 *     interleaved ROUNDS SEED
 *
 * Whenever a commit, a start or the end of a ring is told, the reader must not sleep though there is news for it: nobody
 * would call it. It waits as the engine does, or as the header says that any reader may. clockwork.c is stricter with
 * times, this with the order of things. Prints "sleeps skipped kills".
 */
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>

static void step(void);
static int our_clock(clockid_t which, struct timespec *time);
static long our_kernel(long number, ...);
#define __atomic_load_n(at, order) (step(), __atomic_load_n(at, order))
#define __atomic_store_n(at, value, order) (step(), __atomic_store_n(at, value, order))
#define __atomic_fetch_add(at, value, order) (step(), __atomic_fetch_add(at, value, order))
#define clock_gettime our_clock
#define syscall our_kernel
#include "_protocol.c"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

enum { CAPACITY = 8, ROW_MAX = 3 << 16, COMMITS = 24, WRITER = 0, READER = 1, STACK = 1 << 16 };

static _Alignas(4096) unsigned char file[EVRING_RECORD_OFF + CAPACITY * (EVRING_RECORD_STRIDE + ROW_MAX)];
static struct evring shape = {
    .map = file,
    .map_bytes = sizeof file,
    .capacity = CAPACITY,
    .record_off = EVRING_RECORD_OFF,
    .n_columns = 1,
    .columns = {{EVRING_RECORD_OFF + CAPACITY * EVRING_RECORD_STRIDE, 64}},
};
static struct evring_header *const words = (struct evring_header *)file;
static ucontext_t round_of, turn[2];
static char stacks[2][STACK];
static int who, asleep, over; /* asleep: the reader */
static uint64_t wanted; /* by the reader */
static int64_t now_ns = 1;
static unsigned dice, haste, calm; /* one step in so many pauses, or ends a turn */
static long sleeps, wakes, skipped, kills;

static int64_t below(int64_t end) { return rand_r(&dice) % end; }

static void write_all(void);

static void begin(int role, void (*run)(void)) {
    getcontext(&turn[role]);
    turn[role].uc_stack.ss_sp = stacks[role];
    turn[role].uc_stack.ss_size = STACK;
    makecontext(&turn[role], run, 0);
}

static void let_other_go_on(void) {
    int me = who;
    who = !me;
    swapcontext(&turn[me], &turn[!me]);
}

static void kill_writer(void) {
    kills++;
    begin(WRITER, write_all); /* the next one, with nothing in its mind */
    who = READER;
    setcontext(&turn[READER]);
}

static void step(void) {
    int pauses = !below(haste);
    now_ns += below(pauses ? 2 * EVRING_WATCH_NS : 50);
    if (who == WRITER && !below(2000))
        kill_writer();
    if (pauses || !below(calm))
        let_other_go_on();
}

static int our_clock(clockid_t which, struct timespec *time) {
    (void)which;
    step();
    *time = (struct timespec){now_ns / 1000000000, now_ns % 1000000000};
    return 0;
}

/* Until it is called; or before: a slice is over, a signal came, or for no reason. */
static long sleep_on_word(uint32_t word) {
    if (word != words->wake) {
        errno = EAGAIN;
        return -1;
    }
    asleep = 1;
    sleeps++;
    while (asleep) {
        let_other_go_on();
        asleep = asleep && below(100);
    }
    int why = (int)below(3);
    errno = why ? EINTR : ETIMEDOUT;
    return why == 2 ? 0 : -1;
}

static long our_kernel(long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    const uint32_t *word = va_arg(arguments, uint32_t *);
    int operation = va_arg(arguments, int);
    uint32_t value = va_arg(arguments, uint32_t);
    va_end(arguments);
    step();
    if (word != &words->wake)
        abort();
    if (operation == FUTEX_WAIT)
        return sleep_on_word(value);
    wakes++;
    asleep = 0;
    return 0;
}

static void check(const char *after) {
    if (!asleep || (words->head <= wanted && words->state != EVRING_RETIRED))
        return;
    fprintf(stderr, "the reader sleeps after %s: it wants row %lu, head is %lu\n", after, wanted, words->head);
    exit(1);
}

static void write_some(struct evring *ring) {
    static const unsigned char row[ROW_MAX];
    static const struct evring_record record;
    const unsigned char *const rows[] = {row};
    switch (below(8)) {
    case 0:
        evring_reserve(ring, 1);
        evring_commit_reserved(ring, &record, NULL, NULL, 0);
        break;
    case 1:
        evring_reserve(ring, 1);
        evring_abandon(ring);
        break;
    default:
        evring_commit(ring, &record, rows, 1, NULL, 0);
    }
}

static void write_all(void) {
    struct evring ring = shape;
    evring_go_live(&ring, evring_salvage(&ring));
    check("a start");
    while (words->head < COMMITS) {
        long had = wakes;
        write_some(&ring);
        check("a commit");
        skipped += wakes == had;
        now_ns += below(below(4) ? 1000 : 2 * EVRING_WATCH_NS);
    }
    evring_retire(&ring);
    check("the end");
    over = 1;
    setcontext(&round_of);
}

/* What the header asks of a reader, and no more. */
static void wait_by_header(const struct evring *ring, uint64_t want) {
    uint32_t word = LOAD(&words->wake, ACQUIRE);
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    while (clock_ns(CLOCK_MONOTONIC) - start < EVRING_WATCH_NS)
        continue;
    if (!has_news(ring, want))
        sleep_on(ring, word, INT64_MAX);
}

static void read_all(void) {
    for (;;) {
        wanted = evring_head(&shape);
        if (below(4))
            evring_wait(&shape, wanted, 0, INT64_MAX);
        else
            wait_by_header(&shape, wanted);
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    dice = (unsigned)strtoul(argv[2], NULL, 10);
    for (volatile long rounds = strtol(argv[1], NULL, 10); rounds; rounds--) {
        memset(words, 0, sizeof *words);
        words->wake = (uint32_t)-below(8); /* it goes round */
        words->watch_ns = below(2) ? 0 : EVRING_WATCH_NS;
        shape.columns[0].row_bytes = below(16) ? 64 : ROW_MAX; /* three pieces of a copy */
        haste = 8u << below(8), calm = 2u << below(5);
        wanted = asleep = over = 0;
        begin(READER, read_all);
        begin(WRITER, write_all);
        who = WRITER;
        getcontext(&round_of);
        if (!over)
            setcontext(&turn[WRITER]);
    }
    printf("%ld %ld %ld\n", sleeps, skipped, kills);
    return 0;
}
