/* Reads a streamapp ring: copies each row out, checks that it was whole, prints it, and counts what it missed.
 *
 *     cc -O2 -Wall -Wextra -Werror -I include examples/ring_reader.c -o ring_reader
 *     ./ring_reader PATH [follow]
 *
 * Nothing about the rows is built in: names, types, shapes and places are those of the file's descriptors.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "streamapp_ring.h"

enum { SHOWN = 8 }; /* values of a tensor that are printed */

static const unsigned char *map;
static const struct evring_header *header;
static const struct evring_descriptor *fields;

static void fail(const char *path, const char *reason) {
    fprintf(stderr, "ring_reader: %s: %s\n", path, reason);
    exit(2);
}

static uint64_t load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

/* Values in one row of a field, and bytes of a value: the digit of <f4, <i8, |u1. */
static uint64_t count(const struct evring_descriptor *d) { return d->ndim ? d->shape[0] : 1; }
static uint64_t width(const struct evring_descriptor *d) { return (uint64_t)(d->dtype[2] - '0'); }

static int lies_within(const struct evring_descriptor *d) {
    uint64_t last;
    return memchr(d->name, 0, sizeof d->name) && memchr("fiu", d->dtype[1], 3) && memchr("1248", d->dtype[2], 4) &&
           d->ndim <= 1 && count(d) <= 0xFFFF && !__builtin_mul_overflow(header->capacity - 1, d->stride, &last) &&
           !__builtin_add_overflow(last, d->offset, &last) && last <= header->file_bytes &&
           count(d) * width(d) <= header->file_bytes - last;
}

static void open_ring(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &status) || status.st_size < EVRING_HEADER_BYTES)
        fail(path, "cannot be opened, or is too short for a ring");
    map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fail(path, "cannot be mapped");
    header = (const struct evring_header *)map;
    fields = (const struct evring_descriptor *)(map + EVRING_DESC_OFF);
    if (memcmp(header->magic, EVRING_MAGIC, 8) || header->layout_version != EVRING_LAYOUT_VERSION ||
        header->byte_order != EVRING_BYTE_ORDER)
        fail(path, "is not a ring of layout 2 in this machine's byte order");
    if (header->file_bytes > (uint64_t)status.st_size || !header->capacity || header->n_columns > EVRING_DESC_MAX ||
        header->capacity & (header->capacity - 1) || header->desc_off != EVRING_DESC_OFF)
        fail(path, "is damaged");
    for (uint32_t i = 0; i < header->n_columns; i++)
        if (!lies_within(&fields[i]))
            fail(path, "has a field that lies outside the file");
    if (!header->n_columns || strcmp(fields->name, "stamp") || strncmp(fields->dtype, "<u8", 8) || fields->ndim ||
        fields->offset % 8 || fields->stride % 8)
        fail(path, "does not begin its rows with a stamp");
}

/* First row that a writer who claimed everything below `claim` has not begun to overwrite. */
static uint64_t oldest(void) {
    uint64_t claim = __atomic_load_n(&header->claim, __ATOMIC_RELAXED);
    uint64_t kept = claim > header->capacity ? claim - header->capacity : 0;
    return kept > header->base ? kept : header->base;
}

/* Copies row seq, field by field, and returns its stamp from before; afterwards ask oldest() whether it was whole. */
static uint64_t copy_row(uint64_t seq, unsigned char *row) {
    uint64_t slot = seq & (header->capacity - 1);
    uint64_t stamp = load((const uint64_t *)(map + fields->offset + slot * fields->stride));
    for (const struct evring_descriptor *d = fields; d < fields + header->n_columns; d++) {
        memcpy(row, map + d->offset + slot * d->stride, count(d) * width(d));
        row += count(d) * width(d);
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* the copy is done before claim is loaded */
    return stamp;
}

static void print_value(char kind, uint64_t bytes, const unsigned char *at) {
    union { uint64_t u; int64_t i; double f8; float f4; _Float16 f2; } value = {0};
    memcpy(&value, at, bytes);
    if (kind == 'f') {
        double number = bytes == 2 ? (double)value.f2 : bytes == 4 ? (double)value.f4 : value.f8;
        printf(number == number ? "%.9g" : "nan", number);
    } else if (kind == 'i')
        printf("%" PRId64, (int64_t)(value.u << (64 - 8 * bytes)) >> (64 - 8 * bytes));
    else
        printf("%" PRIu64, value.u);
}

static void print_row(const unsigned char *row) {
    for (const struct evring_descriptor *d = fields; d < fields + header->n_columns; d++) {
        printf(d == fields ? "%s" : " %s", d->name);
        for (uint64_t i = 0; i < count(d) && i < SHOWN; i++) {
            putchar(i ? ',' : '=');
            print_value(d->dtype[1], width(d), row + i * width(d));
        }
        row += count(d) * width(d);
    }
    putchar('\n');
}

/* Sleeps until a commit, at most 0.1 s. The word has to stand still for a while before: in a dense stream the writer
 * does not call the kernel. */
static void await_commit(uint64_t want) {
    const struct timespec watch = {0, EVRING_WATCH_NS}, longest = {0, 100 * 1000 * 1000};
    uint32_t word = __atomic_load_n(&header->wake, __ATOMIC_ACQUIRE);
    fflush(stdout);
    nanosleep(&watch, NULL);
    if (load(&header->head) <= want)
        syscall(SYS_futex, &header->wake, FUTEX_WAIT, word, &longest, NULL, 0);
}

int main(int argc, char **argv) {
    int follow = argc == 3 && !strcmp(argv[2], "follow");
    if (argc != 2 + follow)
        fail("usage", "ring_reader PATH [follow]");
    open_ring(argv[1]);
    uint64_t frames = 0, lost = 0, voids = 0, row_bytes = 0;
    for (uint32_t i = 0; i < header->n_columns; i++)
        row_bytes += count(&fields[i]) * width(&fields[i]);
    unsigned char *row = malloc(row_bytes);
    for (uint64_t want = oldest(); row;) {
        if (want >= load(&header->head)) {
            if (!follow || header->state == EVRING_RETIRED)
                break; /* retired: another file is at the path, open that one */
            await_commit(want);
            continue;
        }
        int whole = copy_row(want, row) == 2 * want + 2;
        uint64_t kept = oldest();
        if (kept > want) { /* overwritten before or during the copy, and perhaps more than this row */
            lost += kept - want;
            want = kept;
            continue;
        }
        if (whole)
            print_row(row);
        frames += whole, voids += !whole, want++;
    }
    free(row);
    fprintf(stderr, "%" PRIu64 " frames, %" PRIu64 " lost, %" PRIu64 " void\n", frames, lost, voids);
    return 0;
}
