/* The protocol of a mapped ring, without Python: commit, salvage, copy out and wait.
 *
 * The payload is copied with memcpy while it may change: formally a data race in C11, practically what every
 * seqlock does, and what the stamps and the claim are there to detect.
 */
#define _GNU_SOURCE
#include "_protocol.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the ring is little-endian and so must the CPU be"
#endif

#define LOAD(at, order) __atomic_load_n((at), __ATOMIC_##order)
#define STORE(at, value, order) __atomic_store_n((at), (value), __ATOMIC_##order)

/* The copies that may race with the writer; ThreadSanitizer is told so here and nowhere else. */
#define RACY __attribute__((no_sanitize("thread")))

/* A futex wait is cut into slices so that a reader also notices a writer that cannot wake it. */
static const int64_t WAIT_SLICE_NS = 100 * 1000 * 1000;

static struct evring_header *header(const struct evring *ring) { return (struct evring_header *)ring->map; }

static struct evring_record *record(const struct evring *ring, uint64_t seq) {
    return (struct evring_record *)(ring->map + ring->record_off) + (seq & (ring->capacity - 1));
}

static uint64_t stamp_writing(uint64_t seq) { return 2 * seq + 1; }
static uint64_t stamp_valid(uint64_t seq) { return 2 * seq + 2; }
static uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* First seq that a writer who claimed everything below `claim` has not overwritten. */
static uint64_t oldest(const struct evring *ring, uint64_t claim) {
    return most(claim > ring->capacity ? claim - ring->capacity : 0, LOAD(&header(ring)->base, RELAXED));
}

static int64_t clock_ns(clockid_t which) {
    struct timespec now;
    clock_gettime(which, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wake(const struct evring *ring) {
    __atomic_fetch_add(&header(ring)->wake, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &header(ring)->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int evring_fits(const struct evring *ring, uint64_t file_bytes) {
    uint64_t records, column, records_end, column_end;
    if (!ring->capacity || ring->capacity & (ring->capacity - 1))
        return 0;
    if (ring->record_off < EVRING_RECORD_OFF || ring->record_off % 64 || ring->column_off % 64)
        return 0;
    if (__builtin_mul_overflow(ring->capacity, (uint64_t)EVRING_RECORD_STRIDE, &records) ||
        __builtin_mul_overflow(ring->capacity, ring->row_bytes, &column) ||
        __builtin_add_overflow(ring->record_off, records, &records_end) ||
        __builtin_add_overflow(ring->column_off, column, &column_end))
        return 0;
    return records_end <= ring->column_off && column_end <= ring->map_bytes && ring->map_bytes <= file_bytes;
}

/* ---- copies: columns in at most two pieces, since n <= capacity ---- */

RACY static void copy_rows_in(const struct evring *ring, uint64_t seq, const unsigned char *rows, uint64_t n) {
    uint64_t slot = seq & (ring->capacity - 1), first = least(n, ring->capacity - slot);
    unsigned char *column = ring->map + ring->column_off;
    memcpy(column + slot * ring->row_bytes, rows, first * ring->row_bytes);
    memcpy(column, rows + first * ring->row_bytes, (n - first) * ring->row_bytes);
}

RACY static void copy_rows_out(const struct evring *ring, uint64_t seq, unsigned char *rows, uint64_t n) {
    uint64_t slot = seq & (ring->capacity - 1), first = least(n, ring->capacity - slot);
    const unsigned char *column = ring->map + ring->column_off;
    memcpy(rows, column + slot * ring->row_bytes, first * ring->row_bytes);
    memcpy(rows + first * ring->row_bytes, column, (n - first) * ring->row_bytes);
}

/* The record's own words (stamp, frame_id, epoch) are the ring's, whatever the caller left in them. */
RACY static void copy_record_in(struct evring_record *to, const struct evring_record *from, uint64_t seq,
                                uint32_t epoch) {
    const size_t first = offsetof(struct evring_record, timestamp_us);
    const size_t end = offsetof(struct evring_record, epoch);
    memcpy((unsigned char *)to + first, (const unsigned char *)from + first, end - first);
    to->frame_id = seq;
    to->epoch = epoch;
}

/* The stamp is loaded on its own, before the rest: one memcpy of both could see a new stamp over old words. */
RACY static void copy_record_out(struct evring_record *to, const struct evring_record *from) {
    const size_t first = offsetof(struct evring_record, frame_id);
    to->stamp = LOAD(&from->stamp, ACQUIRE);
    memcpy((unsigned char *)to + first, (const unsigned char *)from + first, sizeof *to - first);
}

/* ---- writer ---- */

uint64_t evring_commit_max(const struct evring *ring) { return most(1, ring->capacity / 2); }

static void store_positions(const struct evring *ring, const struct evring_position *positions, uint64_t n) {
    struct evring_source *sources = (struct evring_source *)(ring->map + EVRING_SOURCES_OFF);
    for (uint64_t i = 0; i < n; i++) {
        struct evring_source *source = &sources[positions[i].source];
        /* Killed between the two, a mirror replays the enriched record and finds its rows covered. */
        STORE(&source->next_source_offset, positions[i].next_source_offset, RELEASE);
        STORE(&source->next_enriched_offset, positions[i].next_enriched_offset, RELEASE);
    }
}

static void store_rows(const struct evring *ring, const struct evring_record *records, const unsigned char *rows,
                       uint64_t first, uint64_t n) {
    uint32_t epoch = (uint32_t)header(ring)->epoch;
    STORE(&header(ring)->claim, first + n, RELAXED);
    for (uint64_t i = 0; i < n; i++)
        STORE(&record(ring, first + i)->stamp, stamp_writing(first + i), RELEASE); /* so lost is not taken for void */
    /* Whoever sees any of the words below also sees the claim above (with the reader's acquire fence). */
    __atomic_thread_fence(__ATOMIC_RELEASE);

    for (uint64_t i = 0; i < n; i++)
        copy_record_in(record(ring, first + i), &records[i], first + i, epoch);
    copy_rows_in(ring, first, rows, n);
    for (uint64_t i = 0; i < n; i++)
        STORE(&record(ring, first + i)->stamp, stamp_valid(first + i), RELEASE);
}

uint64_t evring_commit(const struct evring *ring, const struct evring_record *records, const unsigned char *rows,
                       uint64_t n, const struct evring_position *positions, uint64_t n_positions) {
    struct evring_header *h = header(ring);
    uint64_t first = h->head;
    if (n)
        store_rows(ring, records, rows, first, n);
    /* After the stamps: a position must never cover a row that a kill here would leave void. */
    store_positions(ring, positions, n_positions);
    STORE(&h->heartbeat_mono_ns, (uint64_t)clock_ns(CLOCK_MONOTONIC), RELAXED);
    if (n) {
        STORE(&h->frames, first + n - h->base - h->void_frames, RELAXED);
        STORE(&h->last_commit_unix_us, clock_ns(CLOCK_REALTIME) / 1000, RELAXED);
        STORE(&h->head, first + n, RELEASE);
        wake(ring);
    }
    return first;
}

/* Claim stays where it is: taken back, a smaller batch than the killed one would let readers accept rows that
 * the killed one had half overwritten. */
uint64_t evring_salvage(const struct evring *ring) {
    struct evring_header *h = header(ring);
    uint64_t voids = 0;
    STORE(&h->state, EVRING_RECOVERING, RELEASE);
    STORE(&h->epoch, h->epoch + 1, RELEASE);
    for (uint64_t seq = h->head; seq < h->claim; seq++) {
        if (LOAD(&record(ring, seq)->stamp, RELAXED) == stamp_valid(seq))
            continue;
        STORE(&record(ring, seq)->stamp, stamp_writing(seq), RELEASE);
        voids++;
    }
    return voids;
}

void evring_go_live(const struct evring *ring, uint64_t voids) {
    struct evring_header *h = header(ring);
    if (h->claim != h->head)
        STORE(&h->recoveries, h->recoveries + 1, RELAXED);
    STORE(&h->void_frames, h->void_frames + voids, RELAXED);
    STORE(&h->frames, h->claim - h->base - h->void_frames, RELAXED);
    STORE(&h->heartbeat_mono_ns, (uint64_t)clock_ns(CLOCK_MONOTONIC), RELAXED);
    STORE(&h->head, h->claim, RELEASE);
    STORE(&h->state, EVRING_LIVE, RELEASE);
    wake(ring);
}

void evring_retire(const struct evring *ring) {
    STORE(&header(ring)->state, EVRING_RETIRED, RELEASE);
    wake(ring);
}

/* ---- reader ---- */

struct evring_window evring_copy(const struct evring *ring, uint64_t want, uint64_t limit,
                                 struct evring_record *records, unsigned char *rows) {
    uint64_t head = LOAD(&header(ring)->head, ACQUIRE);
    uint64_t low = oldest(ring, LOAD(&header(ring)->claim, RELAXED));
    low = most(want, least(low, head));
    uint64_t n = low < head ? least(least(limit, head - low), ring->capacity) : 0;
    struct evring_window window = {0, low + n, low - want, 0};
    if (!n)
        return window;
    for (uint64_t i = 0; i < n; i++)
        copy_record_out(&records[i], record(ring, low + i));
    copy_rows_out(ring, low, rows, n);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);

    uint64_t safe = oldest(ring, LOAD(&header(ring)->claim, RELAXED));
    uint64_t skip = least(safe > low ? safe - low : 0, n);
    window.lost += skip;
    for (uint64_t i = skip; i < n; i++) {
        if (records[i].stamp != stamp_valid(low + i)) {
            window.voids++;
            continue;
        }
        if (window.kept != i) {
            records[window.kept] = records[i];
            memmove(rows + window.kept * ring->row_bytes, rows + i * ring->row_bytes, ring->row_bytes);
        }
        window.kept++;
    }
    return window;
}

static int has_news(const struct evring *ring, uint64_t want) {
    return LOAD(&header(ring)->head, ACQUIRE) > want || LOAD(&header(ring)->state, ACQUIRE) == EVRING_RETIRED;
}

static void wait_for(const struct evring *ring, uint64_t want, int64_t spin_ns, int64_t timeout_ns) {
    int64_t start = clock_ns(CLOCK_MONOTONIC), spent = 0;
    while (!has_news(ring, want) && spent < spin_ns && spent < timeout_ns) {
        for (int i = 0; i < 64; i++)
            relax();
        spent = clock_ns(CLOCK_MONOTONIC) - start;
    }
    while (spent < timeout_ns) {
        /* Word before head: a commit between the two changes the word, and the kernel does not wait. */
        uint32_t word = LOAD(&header(ring)->wake, ACQUIRE);
        if (has_news(ring, want))
            return;
        int64_t slice = timeout_ns - spent < WAIT_SLICE_NS ? timeout_ns - spent : WAIT_SLICE_NS;
        struct timespec left = {slice / 1000000000, slice % 1000000000};
        if (syscall(SYS_futex, &header(ring)->wake, FUTEX_WAIT, word, &left, NULL, 0) && errno == EINTR)
            return; /* a signal: let the caller handle it */
        spent = clock_ns(CLOCK_MONOTONIC) - start;
    }
}

uint64_t evring_wait(const struct evring *ring, uint64_t want, int64_t spin_ns, int64_t timeout_ns) {
    wait_for(ring, want, spin_ns, timeout_ns);
    return LOAD(&header(ring)->head, ACQUIRE);
}
