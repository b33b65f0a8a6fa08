/* The bytes of a streamapp ring file, layout 2: one writer, any number of read-only readers.
 *
 * Everything is little-endian. A row has a sequence number `seq`, counted from `base`; it lives in slot
 * seq & (capacity - 1). The file is
 *
 *     0        header page, with the descriptors of every field and column from 1024
 *     4096     sources page: 64 positions in the logs that the rows came from
 *     8192     capacity records of 128 bytes
 *     aligned  column `semantic`: capacity rows of dim values, one C-contiguous tensor
 *     aligned  up to seven more columns, as the descriptors say
 *
 * A reader needs no more than the descriptors: name, dtype, shape, offset of row 0 and stride of each field.
 *
 * Reading row seq (Boehm 2012, "Can seqlocks get along with programming language memory models?"):
 *   1. load head (acquire); the row exists when seq < head
 *   2. load its stamp (acquire), then copy record and columns
 *   3. acquire fence, then load claim
 *   4. the copy is good when seq + capacity >= claim and the stamp was 2 * seq + 2;
 *      otherwise the row was overwritten (count it as lost) or never finished (count it as void):
 *      abandoned by its writer, or its writer was killed
 *
 * Waiting for rows: FUTEX_WAIT on `wake` works on a read-only mapping. A reader sleeps only after it saw the word
 * unchanged for `watch_ns`, loaded after the word; EVRING_WATCH_NS is the most, and right without a look. It is 0 while
 * commits are rare: each wakes with a system call. In a dense stream the word changes sooner than that, in a long
 * commit on the way, and the writer makes no call. Limit every wait, whatever the clocks do.
 *
 * streamapp/ring/layout.py says the same in NumPy; tests/ring/test_layout.py holds the two together.
 */
#ifndef STREAMAPP_RING_H
#define STREAMAPP_RING_H

#include <stddef.h>
#include <stdint.h>

#define EVRING_MAGIC "EVRING\0\2" /* 8 bytes, without the literal's final NUL */
#define EVRING_LAYOUT_VERSION 2u
#define EVRING_BYTE_ORDER 0x01020304u
#define EVRING_HEADER_BYTES 4096u
#define EVRING_DESC_OFF 1024u
#define EVRING_DESC_MAX 48u
#define EVRING_SOURCES_OFF 4096u
#define EVRING_SOURCES_MAX 64u
#define EVRING_RECORD_OFF 8192u
#define EVRING_RECORD_STRIDE 128u
#define EVRING_PAGE_BYTES 4096u
#define EVRING_COLUMNS_MAX 8u /* tensor columns, `semantic` included */

#define EVRING_WATCH_NS 10000 /* watch_ns in a dense stream; see: waiting for rows */

#define EVRING_SOURCE_NONE 0xFFFFu /* source index of a row that came from no log */
#define EVRING_OFFSET_BITS 48u     /* source_offset = index << 48 | offset */
#define EVRING_SOURCE_USED 1u      /* evring_source.flags */

enum evring_state { EVRING_INIT = 0, EVRING_LIVE = 1, EVRING_RECOVERING = 2, EVRING_RETIRED = 3 };

/* Header flags. None changes where bytes are: a reader may ignore what it does not know. */
enum { EVRING_FLAG_CRC = 1, EVRING_FLAG_HUGE = 2, EVRING_FLAG_MIRRORABLE = 4 };

/* Descriptor flags. */
enum { EVRING_DESC_RECORD = 1, EVRING_DESC_COLUMN = 2, EVRING_DESC_ENUM = 4 };

/* Record flags: what is known about the row's vector. */
enum { EVRING_ROW_EMBEDDED = 1, EVRING_ROW_FAILED = 2, EVRING_ROW_TRUNCATED = 4 };

struct evring_header {
    unsigned char magic[8];
    uint32_t layout_version;
    uint32_t byte_order;
    uint64_t capacity; /* rows, a power of two */
    uint64_t file_bytes;
    uint32_t record_stride;
    uint32_t n_columns; /* descriptors: record fields and columns */
    uint64_t schema_hash; /* first 8 bytes of BLAKE2b-64 of the descriptor bytes */
    uint32_t desc_off;
    uint32_t desc_len;
    uint32_t flags;
    uint32_t record_off;
    unsigned char ring_uuid[16];
    unsigned char boot_id[16]; /* rows written before a reboot are not trusted */
    int64_t created_unix_ns;
    int64_t clock_offset_ns; /* realtime - monotonic when the writer started */
    uint32_t sources_off;
    uint32_t sources_max;
    uint64_t base; /* first seq of this file: ids go on when a ring is rebuilt in another shape */
    uint64_t epoch; /* + 1 for every start of a writer */
    uint32_t state;
    uint32_t writer_pid; /* for people; whether it lives is told by flock */
    int64_t writer_start_unix_ns;
    unsigned char pad0[104];
    uint64_t claim; /* first seq not yet claimed; never decreases */
    unsigned char pad1[120];
    uint64_t head; /* first seq not committed */
    uint32_t wake; /* futex word, changed by every commit of rows; see: waiting for rows */
    uint32_t watch_ns;
    unsigned char pad2[112];
    uint64_t heartbeat_mono_ns;
    uint64_t frames; /* rows that readers could see, ever */
    uint64_t void_frames; /* rows never finished: abandoned, or their writer was killed */
    uint64_t recoveries;
    int64_t last_commit_unix_us;
    unsigned char pad3[3544];
};

struct evring_descriptor {
    char name[24];
    char dtype[8]; /* NumPy style: <f4, <i8, |u1 */
    uint32_t ndim; /* of one row */
    uint32_t shape[2];
    uint32_t flags;
    uint64_t offset; /* of row 0, from the start of the file */
    uint64_t stride;
};

struct evring_source {
    char topic[40];
    uint32_t partition;
    uint32_t flags;
    uint64_t next_source_offset;
    uint64_t next_enriched_offset;
};

struct evring_record {
    uint64_t stamp; /* 0 never written; 2*seq+1 being written or void; 2*seq+2 valid */
    uint64_t frame_id; /* = seq */
    int64_t timestamp_us; /* event time */
    uint64_t conversation_hash;
    int64_t ingest_us;
    uint64_t source_offset;
    float delta_time;
    float duration_ms;
    float velocity;
    float interrupt;
    float fill_rate;
    float sentiment;
    float confidence;
    float spin[4]; /* quaternion w, x, y, z */
    float attractor_pull;
    int32_t workflow_node;
    int32_t case_status;
    int32_t lead_status;
    int32_t actor_type;
    int32_t intent_id;
    uint16_t dim_used;
    uint8_t dtype_code; /* 0 no vector, 1 <f4, 2 <f2 */
    uint8_t flags;
    uint32_t presence; /* bit per field: known, or only a default */
    uint32_t epoch; /* low half of the writer's epoch */
};

#define EVRING_AT(type, field, offset) \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field)

EVRING_AT(evring_header, capacity, 16);
EVRING_AT(evring_header, schema_hash, 40);
EVRING_AT(evring_header, record_off, 60);
EVRING_AT(evring_header, ring_uuid, 64);
EVRING_AT(evring_header, sources_off, 112);
EVRING_AT(evring_header, base, 120);
EVRING_AT(evring_header, epoch, 128);
EVRING_AT(evring_header, state, 136);
EVRING_AT(evring_header, claim, 256);
EVRING_AT(evring_header, head, 384);
EVRING_AT(evring_header, wake, 392);
EVRING_AT(evring_header, watch_ns, 396);
EVRING_AT(evring_header, heartbeat_mono_ns, 512);
EVRING_AT(evring_record, delta_time, 48);
EVRING_AT(evring_record, spin, 76);
EVRING_AT(evring_record, attractor_pull, 92);
EVRING_AT(evring_record, workflow_node, 96);
EVRING_AT(evring_record, dim_used, 116);
EVRING_AT(evring_record, epoch, 124);
_Static_assert(sizeof(struct evring_header) == EVRING_HEADER_BYTES, "header page");
_Static_assert(sizeof(struct evring_descriptor) == 64, "descriptor");
_Static_assert(sizeof(struct evring_source) == 64, "source");
_Static_assert(sizeof(struct evring_record) == EVRING_RECORD_STRIDE, "record");
_Static_assert(EVRING_DESC_OFF + EVRING_DESC_MAX * 64 <= EVRING_HEADER_BYTES, "descriptors fit");

#endif
