/* The type of _ring.c, and its methods that write (_writing.c). */
#ifndef STREAMAPP_RING_RING_H
#define STREAMAPP_RING_RING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_protocol.h"

typedef struct {
    PyObject_HEAD
    struct evring at;
    int fd; /* for mirrors */
    int writable; /* until it is sealed */
    int writing; /* guarded by the GIL */
    int forks;   /* forks_seen() when it was opened */
    uint64_t dims[EVRING_COLUMNS_MAX]; /* of a row of each column */
    PyObject *dtypes;                  /* a tuple: NumPy's type of the records, then of each column */
    PyObject *dtype[1 + EVRING_COLUMNS_MAX]; /* what is in it */
    PyObject *array_type;              /* numpy.ndarray */
} Ring;

/* How many times this process is a fork's child since the module was loaded. */
int watch_forks(void);
int forks_seen(void);

/* Is the copy of n rows worth giving the GIL away? */
int is_long(const Ring *ring, uint64_t n);

int check_args(const char *name, Py_ssize_t n, Py_ssize_t wanted);

extern const char writer_doc[], write_doc[], reserve_doc[], commit_doc[], abandon_doc[], salvage_doc[],
    go_live_doc[], retire_doc[], seal_doc[];
PyObject *ring_writer(Ring *ring, PyObject *instead);
PyObject *ring_write(Ring *ring, PyObject *const *args, Py_ssize_t n_args);
PyObject *ring_reserve(Ring *ring, PyObject *n);
PyObject *ring_commit(Ring *ring, PyObject *const *args, Py_ssize_t n_args);
PyObject *ring_abandon(Ring *ring, PyObject *ignored);
PyObject *ring_salvage(Ring *ring, PyObject *ignored);
PyObject *ring_go_live(Ring *ring, PyObject *voids);
PyObject *ring_retire(Ring *ring, PyObject *ignored);
PyObject *ring_seal(Ring *ring, PyObject *ignored);

#endif
