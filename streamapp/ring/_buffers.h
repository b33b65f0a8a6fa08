/* Arrays from Python; see _buffers.c. */
#ifndef STREAMAPP_RING_BUFFERS_H
#define STREAMAPP_RING_BUFFERS_H

#include "_ring.h"

/* The data of a NumPy array of the ring's own type and layout, without the buffer protocol; NULL for anything else,
 * with no error set. They are valid as long as the caller holds the array. */
struct evring_record *plain_records(const Ring *ring, PyObject *array, int writable, uint64_t *n);
unsigned char *plain_rows(const Ring *ring, PyObject *array, uint64_t column, int writable, uint64_t n);

/* Has nobody but the caller's list `kept` of [records, tuple of columns] a hand on them, not even a weak one, and are
 * they as they were made, of n rows? Then they can be filled again. */
int are_spare(const Ring *ring, PyObject *kept, uint64_t n);

/* The buffers of one call: what was taken is released as a whole. */
typedef struct {
    Py_buffer held[EVRING_COLUMNS_MAX + 3];
    int n;
} Buffers;

void release(Buffers *buffers);

/* What follows returns NULL or -1 with a Python error set. */
const Py_buffer *take(Buffers *buffers, PyObject *object, int writable);

/* Their number goes to n. */
struct evring_record *take_records(const Ring *ring, Buffers *buffers, PyObject *object, int writable, uint64_t *n);

/* A tuple of one array of n rows for each column of the ring. */
int take_columns(const Ring *ring, Buffers *buffers, PyObject *columns, int writable, uint64_t n,
                 unsigned char **rows);

const struct evring_position *take_positions(Buffers *buffers, PyObject *object, uint64_t *n);

#endif
