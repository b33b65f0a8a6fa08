/* The protocol of a mapped ring, without Python: commit, salvage, copy out and wait.
 *
 * copy_record_out and copy_rows_out copy what may change meanwhile: formally a data race in C11, practically what
 * every seqlock does, and what the stamps and the claim are there to detect. ThreadSanitizer finds no other race
 * (tests/ring/test_sanitizers.py).
 */
#define _GNU_SOURCE
#include "_clock.h"
#include "_memory.h"
#include "_protocol.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the ring is little-endian and so must the CPU be"
#endif

#define LOAD(at, order) __atomic_load_n((at), __ATOMIC_##order)
#define STORE(at, value, order) __atomic_store_n((at), (value), __ATOMIC_##order)

/* A futex wait is cut into slices so that a reader also notices a writer that cannot wake it. */
#ifndef EVRING_WAIT_SLICE_NS
#define EVRING_WAIT_SLICE_NS 100000000
#endif

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

static void change_word(const struct evring *ring) { __atomic_fetch_add(&header(ring)->wake, 1, __ATOMIC_SEQ_CST); }

static void wake_sleepers(const struct evring *ring) {
    syscall(SYS_futex, &header(ring)->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Notes when the word that readers watch was changed, and whether it stood still for EVRING_WATCH_NS; returns the time.
 *
 * The change before this one came later than touched_ns[0] was read. So a reader that watched for EVRING_WATCH_NS and
 * fell asleep between the two began after touched_ns[0], and this one is at least that much later. The margin is for
 * stores on their way and for clocks of two CPUs.
 */
static int64_t note_change(struct evring *ring) {
    const int64_t margin_ns = EVRING_WATCH_NS / 4;
    int64_t now = clock_ns(CLOCK_MONOTONIC), before = ring->touched_ns[0];
    if (!before || now - before >= EVRING_WATCH_NS - margin_ns)
        ring->stood_still = 1;
    ring->touched_ns[0] = ring->touched_ns[1];
    ring->touched_ns[1] = now;
    return now;
}

/* Tells readers of a commit; returns the time after it. Without a system call in a dense stream, where readers were
 * told to watch: nobody fell asleep then. What they are told changes before the word does, and the call after that is
 * for those who loaded the word before. */
static int64_t wake(struct evring *ring) {
    struct evring_header *h = header(ring);
    uint32_t told = LOAD(&h->watch_ns, RELAXED);
    change_word(ring);
    if (!told)
        wake_sleepers(ring); /* before anything else: they wait for it */
    int64_t now = note_change(ring);
    uint32_t watch_ns = ring->stood_still ? 0 : EVRING_WATCH_NS;
    if (watch_ns != told) {
        STORE(&h->watch_ns, watch_ns, RELEASE);
        change_word(ring);
        wake_sleepers(ring);
    }
    if (!watch_ns)
        ring->clock_offset_ns = clock_ns(CLOCK_REALTIME) - now; /* after a step of that clock, too */
    ring->stood_still = 0;
    return now;
}

/* Wakes whoever sleeps, whatever was before. */
static int64_t wake_all(struct evring *ring) {
    ring->stood_still = 1;
    return wake(ring);
}

/* Does [offset, offset + n * item) begin at or after *end, aligned? Moves *end behind it. */
static int follows(uint64_t *end, uint64_t offset, uint64_t n, uint64_t item) {
    uint64_t bytes, next;
    if (offset < *end || offset % 64 || __builtin_mul_overflow(n, item, &bytes) ||
        __builtin_add_overflow(offset, bytes, &next))
        return 0;
    *end = next;
    return 1;
}

int evring_fits(const struct evring *ring, uint64_t file_bytes) {
    uint64_t end = EVRING_RECORD_OFF;
    if (!ring->capacity || ring->capacity & (ring->capacity - 1))
        return 0;
    if (!ring->n_columns || ring->n_columns > EVRING_COLUMNS_MAX)
        return 0;
    if (!follows(&end, ring->record_off, ring->capacity, EVRING_RECORD_STRIDE))
        return 0;
    for (uint64_t i = 0; i < ring->n_columns; i++)
        if (!follows(&end, ring->columns[i].offset, ring->capacity, ring->columns[i].row_bytes))
            return 0;
    return end <= ring->map_bytes && ring->map_bytes <= file_bytes;
}

/* ---- copies: columns in at most two pieces, since n <= capacity ---- */

/* A large copy keeps readers awake on its way: a system call to wake them would cost more. */
static void copy_in(struct evring *ring, unsigned char *to, const unsigned char *from, uint64_t bytes) {
    for (const uint64_t piece = 1 << 16; bytes > piece; to += piece, from += piece, bytes -= piece) {
        copy_piece(to, from, piece);
        change_word(ring);
        note_change(ring);
    }
    copy_piece(to, from, bytes);
}

static void copy_rows_in(struct evring *ring, uint64_t seq, const unsigned char *const *rows, uint64_t n) {
    uint64_t slot = seq & (ring->capacity - 1), first = least(n, ring->capacity - slot);
    for (uint64_t i = 0; i < ring->n_columns; i++) {
        unsigned char *column = ring->map + ring->columns[i].offset;
        uint64_t row_bytes = ring->columns[i].row_bytes;
        copy_in(ring, column + slot * row_bytes, rows[i], first * row_bytes);
        if (first < n)
            copy_in(ring, column, rows[i] + first * row_bytes, (n - first) * row_bytes);
    }
}

static void copy_rows_out(const struct evring *ring, uint64_t seq, unsigned char *const *rows, uint64_t n) {
    uint64_t slot = seq & (ring->capacity - 1), first = least(n, ring->capacity - slot);
    for (uint64_t i = 0; i < ring->n_columns; i++) {
        const unsigned char *column = ring->map + ring->columns[i].offset;
        uint64_t row_bytes = ring->columns[i].row_bytes;
        memcpy(rows[i], column + slot * row_bytes, first * row_bytes);
        if (first < n)
            memcpy(rows[i] + first * row_bytes, column, (n - first) * row_bytes);
    }
}

/* The record's own words (stamp, frame_id, epoch) are the ring's, whatever the caller left in them. */
static void copy_record_in(struct evring_record *to, const struct evring_record *from, uint64_t seq,
                                uint32_t epoch) {
    const size_t first = offsetof(struct evring_record, timestamp_us);
    const size_t end = offsetof(struct evring_record, epoch);
    memcpy((unsigned char *)to + first, (const unsigned char *)from + first, end - first);
    to->frame_id = seq;
    to->epoch = epoch;
}

/* The stamp is loaded on its own, before the rest: one memcpy of both could see a new stamp over old words. */
static void copy_record_out(struct evring_record *to, const struct evring_record *from) {
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

/* Rows [first, first + n) are the writer's from here on. */
static void claim_rows(const struct evring *ring, uint64_t first, uint64_t n) {
    STORE(&header(ring)->claim, first + n, RELAXED);
    for (uint64_t i = 0; i < n; i++)
        STORE(&record(ring, first + i)->stamp, stamp_writing(first + i), RELEASE); /* so lost is not taken for void */
    /* Whoever sees any of the words stored from now on also sees the claim above (with the reader's acquire fence). */
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

/* Stores the records of the rows to keep, whose columns are there, and stamps them as valid: in one pass, while the
 * record's lines are at hand.  Returns how many stay void. */
static uint64_t finish_rows(const struct evring *ring, const struct evring_record *records, const unsigned char *keep,
                            uint64_t first, uint64_t n) {
    uint32_t epoch = (uint32_t)header(ring)->epoch;
    uint64_t voids = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (keep && !keep[i]) {
            voids++;
            continue;
        }
        copy_record_in(record(ring, first + i), &records[i], first + i, epoch);
        STORE(&record(ring, first + i)->stamp, stamp_valid(first + i), RELEASE);
    }
    return voids;
}

static void beat(const struct evring *ring, int64_t now_ns) {
    STORE(&header(ring)->heartbeat_mono_ns, (uint64_t)now_ns, RELAXED);
}

/* Moves head over the rows up to `end` and wakes who waits for them. */
static void publish(struct evring *ring, uint64_t end, uint64_t voids) {
    struct evring_header *h = header(ring);
    if (end == h->head) {
        beat(ring, clock_ns(CLOCK_MONOTONIC));
        return;
    }
    if (voids)
        STORE(&h->void_frames, h->void_frames + voids, RELAXED);
    STORE(&h->frames, end - h->base - h->void_frames, RELAXED);
    STORE(&h->head, end, RELEASE);
    int64_t now = wake(ring);
    STORE(&h->last_commit_unix_us, (now + ring->clock_offset_ns) / 1000, RELAXED);
    beat(ring, now);
}

/* Most stores of a single row miss the caches that are this CPU's own, and the commit's atomic add waits for them all:
 * so that row's lines are asked for while the caller makes it (half of what one row cost). */
static void expect_row(const struct evring *ring, uint64_t seq) {
    prefetch_to_write(record(ring, seq), EVRING_RECORD_STRIDE);
    for (uint64_t i = 0; i < ring->n_columns; i++) {
        const struct evring_column *at = &ring->columns[i];
        prefetch_to_write(ring->map + at->offset + (seq & (ring->capacity - 1)) * at->row_bytes, at->row_bytes);
    }
}

uint64_t evring_commit(struct evring *ring, const struct evring_record *records,
                       const unsigned char *const *rows, uint64_t n, const struct evring_position *positions,
                       uint64_t n_positions) {
    uint64_t first = header(ring)->head;
    if (n) {
        claim_rows(ring, first, n);
        copy_rows_in(ring, first, rows, n);
        finish_rows(ring, records, NULL, first, n);
    }
    /* After the stamps: a position must never cover a row that a kill here would leave void. */
    store_positions(ring, positions, n_positions);
    publish(ring, first + n, 0);
    expect_row(ring, first + n);
    return first;
}

uint64_t evring_reserved(const struct evring *ring) { return header(ring)->claim - header(ring)->head; }

uint64_t evring_reserve(const struct evring *ring, uint64_t n) {
    uint64_t first = header(ring)->head;
    claim_rows(ring, first, n);
    return first;
}

uint64_t evring_commit_reserved(struct evring *ring, const struct evring_record *records,
                                const unsigned char *keep, const struct evring_position *positions,
                                uint64_t n_positions) {
    uint64_t first = header(ring)->head, n = evring_reserved(ring);
    uint64_t voids = finish_rows(ring, records, keep, first, n);
    store_positions(ring, positions, n_positions);
    publish(ring, first + n, voids);
    return first;
}

uint64_t evring_abandon(struct evring *ring) {
    uint64_t first = header(ring)->head, n = evring_reserved(ring);
    publish(ring, first + n, n);
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

void evring_go_live(struct evring *ring, uint64_t voids) {
    struct evring_header *h = header(ring);
    if (h->claim != h->head)
        STORE(&h->recoveries, h->recoveries + 1, RELAXED);
    STORE(&h->void_frames, h->void_frames + voids, RELAXED);
    STORE(&h->frames, h->claim - h->base - h->void_frames, RELAXED);
    STORE(&h->head, h->claim, RELEASE);
    STORE(&h->state, EVRING_LIVE, RELEASE);
    beat(ring, wake_all(ring));
}

void evring_retire(struct evring *ring) {
    STORE(&header(ring)->state, EVRING_RETIRED, RELEASE);
    wake_all(ring);
}

/* ---- reader ---- */

uint64_t evring_head(const struct evring *ring) { return LOAD(&header(ring)->head, ACQUIRE); }

uint64_t evring_claim(const struct evring *ring) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return LOAD(&header(ring)->claim, RELAXED);
}

/* Row `from` of the copy becomes row `to`. */
static void move_row(const struct evring *ring, struct evring_record *records, unsigned char *const *rows,
                     uint64_t to, uint64_t from) {
    records[to] = records[from];
    for (uint64_t i = 0; i < ring->n_columns; i++) {
        uint64_t row_bytes = ring->columns[i].row_bytes;
        memmove(rows[i] + to * row_bytes, rows[i] + from * row_bytes, row_bytes);
    }
}

struct evring_window evring_copy(const struct evring *ring, uint64_t want, uint64_t limit,
                                 struct evring_record *records, unsigned char *const *rows) {
    uint64_t head = evring_head(ring);
    uint64_t low = oldest(ring, LOAD(&header(ring)->claim, RELAXED));
    low = most(want, least(low, head));
    uint64_t n = low < head ? least(least(limit, head - low), ring->capacity) : 0;
    struct evring_window window = {0, low + n, low - want, 0};
    if (!n)
        return window;
    for (uint64_t i = 0; i < n; i++)
        copy_record_out(&records[i], record(ring, low + i));
    copy_rows_out(ring, low, rows, n);

    uint64_t safe = oldest(ring, evring_claim(ring));
    uint64_t skip = least(safe > low ? safe - low : 0, n);
    window.lost += skip;
    for (uint64_t i = skip; i < n; i++) {
        if (records[i].stamp != stamp_valid(low + i)) {
            window.voids++;
            continue;
        }
        if (window.kept != i)
            move_row(ring, records, rows, window.kept, i);
        window.kept++;
    }
    return window;
}

static int has_news(const struct evring *ring, uint64_t want) {
    return LOAD(&header(ring)->head, ACQUIRE) > want || LOAD(&header(ring)->state, ACQUIRE) == EVRING_RETIRED;
}

/* Sleeps until the word changes; false when a signal came. */
static int sleep_on(const struct evring *ring, uint32_t word, int64_t ns) {
    struct timespec left = {ns / 1000000000, ns % 1000000000};
    return !syscall(SYS_futex, &header(ring)->wake, FUTEX_WAIT, word, &left, NULL, 0) || errno != EINTR;
}

/* Watches the word before every sleep on it, see wake(). The word is loaded before head: a commit between the two
 * changes it, and then the kernel does not let us sleep. Who wakes looks for news before the clock. */
uint64_t evring_wait(const struct evring *ring, uint64_t want, int64_t spin_ns, int64_t timeout_ns) {
    uint32_t word = LOAD(&header(ring)->wake, ACQUIRE);
    int64_t start = clock_ns(CLOCK_MONOTONIC), since = start;
    while (!has_news(ring, want)) {
        int64_t now = clock_ns(CLOCK_MONOTONIC), left = timeout_ns - (now - start);
        uint32_t seen = LOAD(&header(ring)->wake, ACQUIRE);
        int64_t watch_ns = (int64_t)least(LOAD(&header(ring)->watch_ns, RELAXED), EVRING_WATCH_NS);
        if (left <= 0)
            break;
        if (seen != word) {
            word = seen;
            since = clock_ns(CLOCK_MONOTONIC);
        } else if (now - since < spin_ns || now - since < watch_ns) {
            relax_a_while();
        } else if (!sleep_on(ring, word, left < EVRING_WAIT_SLICE_NS ? left : EVRING_WAIT_SLICE_NS)) {
            break; /* let the caller handle the signal */
        }
    }
    return evring_head(ring);
}
