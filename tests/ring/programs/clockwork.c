/* The engine's waiting and waking by a clock and a kernel of our own: linked with --wrap=syscall,--wrap=clock_gettime.
 *
 *     clockwork ROUNDS SEED
 *
 * holds the two to what makes a commit without a system call safe: a reader sleeps only on a word that it saw
 * unchanged for the header's watch_ns; a writer wakes nobody only if the word never stood still that long, though it
 * changes in the middle of a commit, too. Prints "sleeps wakes skipped".
 */
#define _GNU_SOURCE
#include "_protocol.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CAPACITY = 8, ROW = 3 << 16 }; /* three pieces of a copy */

static _Alignas(4096) unsigned char file[EVRING_RECORD_OFF + CAPACITY * (EVRING_RECORD_STRIDE + ROW)];
static struct evring ring = {
    .map = file,
    .map_bytes = sizeof file,
    .capacity = CAPACITY,
    .record_off = EVRING_RECORD_OFF,
    .n_columns = 1,
    .columns = {{EVRING_RECORD_OFF + CAPACITY * EVRING_RECORD_STRIDE, ROW}},
};
static struct evring_header *const header = (struct evring_header *)file;
static int64_t now_ns = 1000000, changed_ns; /* changed_ns: when the word last changed, or the wait began */
static uint32_t word_seen, told_ns; /* watch_ns when the word last changed, or less */
static int somebody_may_sleep; /* the word stood still long enough since the last FUTEX_WAKE */
static unsigned dice;
static long sleeps, wakes, skipped;
static int waiting;

static int64_t below(int64_t end) { return rand_r(&dice) % end; }

static void must(int holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void note_change(void) {
    if (word_seen == header->wake)
        return;
    if (!waiting && now_ns - changed_ns >= told_ns)
        somebody_may_sleep = 1;
    word_seen = header->wake;
    changed_ns = now_ns;
    told_ns = header->watch_ns;
}

/* By a writer elsewhere, whose stream is dense or not. */
static void change_word(void) {
    header->watch_ns = below(2) ? 0 : EVRING_WATCH_NS;
    header->wake++;
    note_change();
}

/* Time passes by looking at it; now and then another process had the CPU just before. While a reader watches, the
 * word changes now and then. */
int __wrap_clock_gettime(clockid_t which, struct timespec *time);
int __wrap_clock_gettime(clockid_t which, struct timespec *time) {
    (void)which;
    note_change(); /* before now: no time passes elsewhere */
    now_ns += 100 + below(below(50) ? 200 : 3 * EVRING_WATCH_NS);
    *time = (struct timespec){now_ns / 1000000000, now_ns % 1000000000};
    if (waiting && !below(200))
        change_word();
    return 0;
}

static long sleep_on(uint32_t word) {
    sleeps++;
    must(now_ns - changed_ns >= header->watch_ns, "a reader slept on a word it had not watched");
    if (word != header->wake) {
        errno = EAGAIN;
        return -1;
    }
    now_ns += below(50000);
    switch (below(3)) {
    case 0:
        header->head++;
        change_word();
        return 0;
    case 1:
        change_word();
        return 0;
    default:
        errno = ETIMEDOUT;
        return -1;
    }
}

long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    const uint32_t *word = va_arg(arguments, uint32_t *);
    int operation = va_arg(arguments, int);
    uint32_t value = va_arg(arguments, uint32_t);
    va_end(arguments);
    must(word == &header->wake, "another word");
    if (operation == FUTEX_WAIT)
        return sleep_on(value);
    wakes++;
    note_change();
    somebody_may_sleep = 0;
    return 0;
}

static void commit_some(void) {
    static const unsigned char row[ROW];
    static const struct evring_record record;
    const unsigned char *const rows[] = {row};
    for (int i = 0; i < 20; i++) {
        long had = wakes;
        evring_commit(&ring, &record, rows, 1, NULL, 0);
        must(!somebody_may_sleep, "nobody was woken though somebody may sleep");
        skipped += wakes == had;
        now_ns += below(below(4) ? 1000 : 3 * EVRING_WATCH_NS);
    }
    now_ns += 2 * EVRING_WATCH_NS;
    long had = wakes;
    evring_commit(&ring, &record, rows, 1, NULL, 0);
    must(wakes > had, "a commit after a pause wakes");
}

static void wait_some(void) {
    waiting = 1;
    changed_ns = now_ns;
    word_seen = header->wake;
    long slept = sleeps;
    uint32_t told = header->watch_ns;
    header->watch_ns = below(2) ? 0 : EVRING_WATCH_NS;
    int64_t start_ns = now_ns, timeout_ns = below(500000);
    uint64_t want = header->head + (uint64_t)below(2);
    uint64_t head = evring_wait(&ring, want, 0, timeout_ns);
    waiting = 0;
    header->watch_ns = told;
    somebody_may_sleep |= sleeps > slept;
    must(head > want || now_ns - start_ns >= timeout_ns, "a wait ended without news before its time");
    header->claim = header->head; /* what sleep_on() committed */
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    long rounds = strtol(argv[1], NULL, 10);
    dice = (unsigned)strtoul(argv[2], NULL, 10);
    evring_go_live(&ring, evring_salvage(&ring));
    for (long i = 0; i < rounds; i++) {
        commit_some();
        wait_some();
    }
    printf("%ld %ld %ld\n", sleeps, wakes, skipped);
    return 0;
}
