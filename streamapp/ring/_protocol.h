/* What can be done with a mapped ring; see _protocol.c. */
#ifndef STREAMAPP_RING_PROTOCOL_H
#define STREAMAPP_RING_PROTOCOL_H

#include "streamapp_ring.h"

/* A tensor column: `capacity` rows of so many bytes from `offset` on. */
struct evring_column {
    uint64_t offset;
    uint64_t row_bytes;
};

/* A mapping whose geometry was checked against the file (evring_fits). */
struct evring {
    unsigned char *map;
    uint64_t map_bytes;
    uint64_t capacity; /* a power of two */
    uint64_t record_off;
    uint64_t n_columns;
    struct evring_column columns[EVRING_COLUMNS_MAX]; /* one behind the other */
    int64_t touched_ns[2]; /* writer: CLOCK_MONOTONIC after each of the last two changes of `wake`, 0 for none */
    int stood_still;       /* writer: `wake` stood still for EVRING_WATCH_NS since the commit before */
    int64_t clock_offset_ns; /* writer: realtime - monotonic at the last FUTEX_WAKE */
};

/* What a commit says about one log. */
struct evring_position {
    uint64_t source; /* index into the sources page */
    uint64_t next_source_offset;
    uint64_t next_enriched_offset;
};

/* kept + lost + voids = next - want */
struct evring_window {
    uint64_t kept;  /* rows copied out */
    uint64_t next;  /* seq to ask for next */
    uint64_t lost;  /* rows overwritten before they could be copied */
    uint64_t voids; /* rows never finished: abandoned, or their writer was killed */
};

/* Does the geometry lie within a file of that many bytes? */
int evring_fits(const struct evring *ring, uint64_t file_bytes);

/* The most rows that one commit may have: readers keep at least the other half of the ring. */
uint64_t evring_commit_max(const struct evring *ring);

/* Writer: publish n rows (one array for each column) and their positions, wake readers; returns the first seq.
 * One thread only, and not while rows are reserved. */
uint64_t evring_commit(struct evring *ring, const struct evring_record *records,
                       const unsigned char *const *rows, uint64_t n, const struct evring_position *positions,
                       uint64_t n_positions);

/* Writer: rows claimed by evring_reserve and neither committed nor abandoned. */
uint64_t evring_reserved(const struct evring *ring);

/* Writer: claim n rows, to be filled in place; returns the first seq. */
uint64_t evring_reserve(const struct evring *ring, uint64_t n);

/* Writer: publish the reserved rows, whose columns are filled. Rows i with !keep[i] become void; without `keep` all
 * are kept. Returns the first seq. */
uint64_t evring_commit_reserved(struct evring *ring, const struct evring_record *records,
                                const unsigned char *keep, const struct evring_position *positions,
                                uint64_t n_positions);

/* Writer: let the reserved rows become void; returns the first seq. */
uint64_t evring_abandon(struct evring *ring);

/* Writer's start, first half: new epoch, unfinished rows become void; returns how many. */
uint64_t evring_salvage(const struct evring *ring);

/* Writer's start, second half: publish what was salvaged. */
void evring_go_live(struct evring *ring, uint64_t voids);

/* Writer: tell readers that another file is at this path now. */
void evring_retire(struct evring *ring);

/* Reader: first seq that is not committed. */
uint64_t evring_head(const struct evring *ring);

/* Reader: first seq not yet claimed, loaded after all that was read before: rows below claim - capacity may have
 * changed while they were used. */
uint64_t evring_claim(const struct evring *ring);

/* Reader: copy up to `limit` rows from seq `want` on, each column to an array of its own. */
struct evring_window evring_copy(const struct evring *ring, uint64_t want, uint64_t limit,
                                 struct evring_record *records, unsigned char *const *rows);

/* Reader: return head when head > want, the file is retired, a signal came or the time is over. */
uint64_t evring_wait(const struct evring *ring, uint64_t want, int64_t spin_ns, int64_t timeout_ns);

#endif
