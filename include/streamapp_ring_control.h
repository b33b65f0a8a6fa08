/* The control plane of a ring, RING.control: gravity and attractors.  Little-endian.
 *
 * The mirror reads it, whoever may write the file sets it.  To write: flock(fd, LOCK_EX); read
 * `sequence` and let k = sequence >> 1; store 2k + 1; write slot (k + 1) & 1 whole; store 2k + 2;
 * flock(fd, LOCK_UN).  Slot k & 1 holds while `sequence` is 2k or 2k + 1, so a writer that dies
 * midway spoils nothing.  To read: s = sequence; copy slot (s >> 1) & 1; read sequence again: the
 * copy is good if that is at least s and at most (s | 1) + 1.  Use pread and pwrite, or atomic
 * loads and stores with acquire and release.
 *
 * A plane is ignored, with a warning of the mirror, unless every number is finite, gravity and
 * masses are within +-1e6, a position's length is within 1e-6 and 1e6, and labels are 1 to 32
 * bytes of printable UTF-8, no two the same.  A position need not have length 1.
 */
#ifndef STREAMAPP_RING_CONTROL_H
#define STREAMAPP_RING_CONTROL_H

#include <stdint.h>

#define EVCTRL_MAGIC "EVCTRL\0\1"
#define EVCTRL_VERSION 1
#define EVCTRL_BYTE_ORDER 0x01020304u
#define EVCTRL_HEADER_BYTES 128
#define EVCTRL_ATTRACTORS_MAX 64
#define EVCTRL_LABEL_BYTES 32

typedef struct {
    uint8_t magic[8];
    uint32_t version;
    uint32_t byte_order;
    uint64_t file_bytes;     /* EVCTRL_HEADER_BYTES + 2 * slot_bytes */
    uint32_t dim;
    uint32_t attractors_max; /* EVCTRL_ATTRACTORS_MAX */
    uint32_t stride;         /* bytes of an attractor: 64 + 4 * dim, up to a multiple of 64 */
    uint32_t slot_bytes;     /* sizeof(evctrl_slot) + attractors_max * stride */
    uint8_t reserved0[24];
    uint64_t sequence;
    uint8_t reserved1[56];
} evctrl_header;

/* Slot i is at EVCTRL_HEADER_BYTES + i * slot_bytes; its attractors follow it. */
typedef struct {
    uint32_t count;
    float gravity;
    int64_t written_unix_us;
    uint8_t reserved[48];
} evctrl_slot;

/* `dim` floats of the position follow, then bytes up to `stride`. */
typedef struct {
    char label[EVCTRL_LABEL_BYTES]; /* UTF-8, filled up with NUL */
    float mass;
    uint8_t reserved[28];
} evctrl_attractor;

#endif
