/* Arrays from Python as what _protocol.c takes: contiguous, aligned, of the right size.
 *
 * Anything with the buffer protocol will do. Arrays as we make them ourselves are looked at directly, which is a
 * tenth of the work: that is what one row costs (NumPy: C API, "PyArrayObject", stable since 2.0).
 */
#include "_buffers.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/ndarraytypes.h>

/* An array of that type with ndim dimensions in C order, or NULL. */
static PyArrayObject *plain(const Ring *ring, PyObject *object, Py_ssize_t dtype, int writable, int ndim) {
    PyArrayObject *array = (PyArrayObject *)object;
    int wanted = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | (writable ? NPY_ARRAY_WRITEABLE : 0);
    if ((PyObject *)Py_TYPE(object) != ring->array_type ||
        (PyObject *)PyArray_DESCR(array) != ring->dtype[dtype] || PyArray_NDIM(array) != ndim ||
        (PyArray_FLAGS(array) & wanted) != wanted)
        return NULL;
    return array;
}

static int is_aligned(const void *at) { return (uintptr_t)at % sizeof(uint64_t) == 0; }

struct evring_record *plain_records(const Ring *ring, PyObject *object, int writable, uint64_t *n) {
    PyArrayObject *array = plain(ring, object, 0, writable, 1);
    if (!array || !is_aligned(PyArray_DATA(array)))
        return NULL;
    *n = (uint64_t)PyArray_DIM(array, 0);
    return PyArray_DATA(array);
}

unsigned char *plain_rows(const Ring *ring, PyObject *object, uint64_t column, int writable, uint64_t n) {
    PyArrayObject *array = plain(ring, object, (Py_ssize_t)column + 1, writable, 2);
    if (!array || (uint64_t)PyArray_DIM(array, 0) != n || (uint64_t)PyArray_DIM(array, 1) != ring->dims[column])
        return NULL;
    return PyArray_DATA(array);
}

/* Views, tensors and capsules all count as holders of the array that owns the memory. */
static int is_held_once(PyObject *array) {
    return Py_REFCNT(array) == 1 && !((PyArrayObject_fields *)array)->weakreflist;
}

int are_spare(const Ring *ring, PyObject *kept, uint64_t n) {
    uint64_t rows;
    if (!PyList_Check(kept) || PyList_Size(kept) != 2)
        return 0;
    PyObject *records = PyList_GetItem(kept, 0), *columns = PyList_GetItem(kept, 1);
    if (!plain_records(ring, records, 1, &rows) || rows != n || !is_held_once(records))
        return 0;
    if (!PyTuple_Check(columns) || (uint64_t)PyTuple_Size(columns) != ring->at.n_columns || Py_REFCNT(columns) != 1)
        return 0;
    for (uint64_t i = 0; i < ring->at.n_columns; i++) {
        PyObject *rows_of = PyTuple_GetItem(columns, (Py_ssize_t)i);
        if (!plain_rows(ring, rows_of, i, 1, n) || !is_held_once(rows_of))
            return 0;
    }
    return 1;
}

void release(Buffers *buffers) {
    while (buffers->n)
        PyBuffer_Release(&buffers->held[--buffers->n]);
}

const Py_buffer *take(Buffers *buffers, PyObject *object, int writable) {
    Py_buffer *view = &buffers->held[buffers->n];
    if (PyObject_GetBuffer(object, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE))
        return NULL;
    buffers->n++;
    return view;
}

/* Takes aligned items of one struct; their number goes to n. */
static void *take_items(Buffers *buffers, PyObject *object, int writable, size_t item, const char *name,
                        uint64_t *n) {
    const Py_buffer *view = take(buffers, object, writable);
    if (!view)
        return NULL;
    if ((size_t)view->len % item || (view->len && !is_aligned(view->buf))) {
        PyErr_Format(PyExc_ValueError, "%s must be aligned items of %zu bytes", name, item);
        return NULL;
    }
    *n = (uint64_t)view->len / item;
    return view->buf;
}

struct evring_record *take_records(const Ring *ring, Buffers *buffers, PyObject *object, int writable, uint64_t *n) {
    struct evring_record *records = plain_records(ring, object, writable, n);
    return records ? records : take_items(buffers, object, writable, sizeof *records, "records", n);
}

static unsigned char *take_rows(const Ring *ring, Buffers *buffers, PyObject *object, uint64_t column, int writable,
                                uint64_t n) {
    unsigned char *rows = plain_rows(ring, object, column, writable, n);
    const Py_buffer *view = rows ? NULL : take(buffers, object, writable);
    if (rows || !view)
        return rows;
    if ((uint64_t)view->len != n * ring->at.columns[column].row_bytes) {
        PyErr_Format(PyExc_ValueError, "column %d must have one row for each record", (int)column);
        return NULL;
    }
    return view->buf;
}

int take_columns(const Ring *ring, Buffers *buffers, PyObject *columns, int writable, uint64_t n,
                 unsigned char **rows) {
    if (!PyTuple_Check(columns) || (uint64_t)PyTuple_Size(columns) != ring->at.n_columns) {
        PyErr_Format(PyExc_ValueError, "columns must be a tuple of %d arrays", (int)ring->at.n_columns);
        return -1;
    }
    for (uint64_t i = 0; i < ring->at.n_columns; i++)
        if (!(rows[i] = take_rows(ring, buffers, PyTuple_GetItem(columns, (Py_ssize_t)i), i, writable, n)))
            return -1;
    return 0;
}

const struct evring_position *take_positions(Buffers *buffers, PyObject *object, uint64_t *n) {
    const struct evring_position *positions = take_items(buffers, object, 0, sizeof *positions, "positions", n);
    for (uint64_t i = 0; positions && i < *n; i++)
        if (positions[i].source >= EVRING_SOURCES_MAX) {
            PyErr_SetString(PyExc_ValueError, "a position names a source beyond the sources page");
            return NULL;
        }
    return positions;
}
