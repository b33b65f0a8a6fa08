/* The methods of Ring that write. One thread at a time, of the process that opened the ring. */
#include "_buffers.h"
#include "_ring.h"

static int check_writable(const Ring *ring) {
    if (!ring->writable) {
        PyErr_SetString(PyExc_PermissionError, "this mapping of the ring is read-only");
        return -1;
    }
    if (ring->forks != forks_seen()) {
        PyErr_SetString(PyExc_PermissionError, "another process opened the ring for writing");
        return -1;
    }
    if (ring->writing) {
        PyErr_SetString(PyExc_RuntimeError, "two threads write to one ring: writing is by one thread");
        return -1;
    }
    return 0;
}

/* ---- checks ---- */

static int check_rows(const Ring *ring, uint64_t n) {
    if (n <= evring_commit_max(&ring->at))
        return 0;
    PyErr_SetString(PyExc_ValueError, "a commit is at most half the capacity");
    return -1;
}

static int check_reserved(const Ring *ring, int wanted) {
    if (!!evring_reserved(&ring->at) == wanted)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, wanted ? "no rows are reserved" : "rows are reserved: commit or abandon them");
    return -1;
}

/* ---- rows by value ---- */

static uint64_t commit_rows(Ring *ring, const struct evring_record *records, unsigned char **rows, uint64_t n,
                            const struct evring_position *positions, uint64_t n_positions) {
    ring->writing = 1;
    PyThreadState *unlocked = is_long(ring, n) ? PyEval_SaveThread() : NULL;
    uint64_t first = evring_commit(&ring->at, records, (const unsigned char *const *)rows, n, positions, n_positions);
    if (unlocked)
        PyEval_RestoreThread(unlocked);
    ring->writing = 0;
    return first;
}

/* Commits arrays that need neither checks nor conversion, without positions; 0 when they do. */
static int commit_plain(Ring *ring, PyObject *const *args, Py_ssize_t n_args, uint64_t *first) {
    unsigned char *rows[EVRING_COLUMNS_MAX];
    uint64_t n;
    if ((uint64_t)n_args != ring->at.n_columns + 1 || !ring->writable || ring->writing ||
        ring->forks != forks_seen() || evring_reserved(&ring->at))
        return 0;
    const struct evring_record *records = plain_records(ring, args[0], 0, &n);
    if (!records || !n || n > evring_commit_max(&ring->at))
        return 0;
    for (uint64_t i = 0; i < ring->at.n_columns; i++)
        if (!(rows[i] = plain_rows(ring, args[i + 1], i, 0, n)))
            return 0;
    *first = commit_rows(ring, records, rows, n, NULL, 0);
    return 1;
}

/* The limited API of 3.11 has no PyObject_Vectorcall. */
static PyObject *call_instead(PyObject *instead, PyObject *const *args, Py_ssize_t n_args, PyObject *names) {
    PyObject *given = PyTuple_New(n_args), *named = names ? PyDict_New() : NULL, *result = NULL;
    if (!given || (names && !named))
        goto end;
    for (Py_ssize_t i = 0; i < n_args; i++)
        if (PyTuple_SetItem(given, i, Py_NewRef(args[i])))
            goto end;
    for (Py_ssize_t i = 0; named && i < PyTuple_Size(names); i++)
        if (PyDict_SetItem(named, PyTuple_GetItem(names, i), args[n_args + i]))
            goto end;
    result = PyObject_Call(instead, given, named);
end:
    Py_XDECREF(given);
    Py_XDECREF(named);
    return result;
}

static PyObject *write_or_instead(PyObject *both, PyObject *const *args, Py_ssize_t n_args, PyObject *names) {
    uint64_t first;
    if (!names && commit_plain((Ring *)PyTuple_GetItem(both, 0), args, n_args, &first))
        return PyLong_FromUnsignedLongLong(first);
    return call_instead(PyTuple_GetItem(both, 1), args, n_args, names);
}

static PyMethodDef writer_method = {
    "write", (PyCFunction)(void (*)(void))write_or_instead, METH_FASTCALL | METH_KEYWORDS,
    "write($self, records, semantic, *, extra={}, positions=())\n--\n\nRingWriter.write: publish rows in order."};

const char writer_doc[] = "writer(instead) -> function\n\n"
    "function(records, *columns) commits arrays that need neither checks nor conversion; whatever else it is\n"
    "called with it calls `instead` with, which checks, converts, and calls write().";
PyObject *ring_writer(Ring *ring, PyObject *instead) {
    PyObject *both = PyTuple_Pack(2, (PyObject *)ring, instead);
    PyObject *function = both ? PyCFunction_NewEx(&writer_method, both, NULL) : NULL;
    Py_XDECREF(both);
    return function;
}

const char seal_doc[] = "seal()\n\nWrite no more through this mapping: the file has another writer, or may have.";
PyObject *ring_seal(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    ring->writable = 0;
    Py_RETURN_NONE;
}

const char write_doc[] = "write(records, columns, positions) -> first seq\n\n"
    "Commit n records with n rows of each column, then the positions (u64 triples), and wake\n"
    "the readers.";
PyObject *ring_write(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    Buffers buffers = {.n = 0};
    unsigned char *rows[EVRING_COLUMNS_MAX];
    const struct evring_record *records;
    const struct evring_position *positions;
    uint64_t n, n_positions, first;
    if (check_args("write", n_args, 3) || check_writable(ring))
        return NULL;
    /* Without rows it moves positions and the heartbeat: that may be while rows are reserved. */
    if (!(records = take_records(ring, &buffers, args[0], 0, &n)) || check_rows(ring, n) ||
        (n && check_reserved(ring, 0)) ||
        take_columns(ring, &buffers, args[1], 0, n, rows) ||
        !(positions = take_positions(&buffers, args[2], &n_positions))) {
        release(&buffers);
        return NULL;
    }
    first = commit_rows(ring, records, rows, n, positions, n_positions);
    release(&buffers);
    return PyLong_FromUnsignedLongLong(first);
}

/* ---- rows in place ---- */

const char reserve_doc[] = "reserve(n) -> first seq\n\nClaim n rows, to be filled in place.";
PyObject *ring_reserve(Ring *ring, PyObject *n) {
    unsigned long long rows = PyLong_AsUnsignedLongLong(n);
    if (PyErr_Occurred() || check_writable(ring) || check_reserved(ring, 0) || check_rows(ring, rows))
        return NULL;
    if (!rows) {
        PyErr_SetString(PyExc_ValueError, "a reservation has at least one row");
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(evring_reserve(&ring->at, rows));
}

const char commit_doc[] = "commit(records, keep, positions) -> first seq\n\n"
    "Publish the reserved rows, whose columns are filled. keep (u8 for each row, or None) says\n"
    "which; the others become void.";
PyObject *ring_commit(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    Buffers buffers = {.n = 0};
    const struct evring_record *records;
    const struct evring_position *positions;
    const Py_buffer *keep = NULL;
    uint64_t n, n_positions, first;
    if (check_args("commit", n_args, 3) || check_writable(ring) || check_reserved(ring, 1))
        return NULL;
    if (!(records = take_records(ring, &buffers, args[0], 0, &n)) ||
        (args[1] != Py_None && !(keep = take(&buffers, args[1], 0))) ||
        !(positions = take_positions(&buffers, args[2], &n_positions))) {
        release(&buffers);
        return NULL;
    }
    if (n != evring_reserved(&ring->at) || (keep && (uint64_t)keep->len != n)) {
        PyErr_SetString(PyExc_ValueError, "a commit has one record, and one byte of keep, for each reserved row");
        release(&buffers);
        return NULL;
    }
    first = evring_commit_reserved(&ring->at, records, keep ? keep->buf : NULL, positions, n_positions);
    release(&buffers);
    return PyLong_FromUnsignedLongLong(first);
}

const char abandon_doc[] = "abandon() -> first seq\n\nLet the reserved rows become void.";
PyObject *ring_abandon(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    if (check_writable(ring) || check_reserved(ring, 1))
        return NULL;
    return PyLong_FromUnsignedLongLong(evring_abandon(&ring->at));
}

/* ---- start and end ---- */

const char salvage_doc[] = "salvage() -> void rows\n\n"
    "First half of a writer's start: a new epoch; rows left unfinished become void.";
PyObject *ring_salvage(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    if (check_writable(ring))
        return NULL;
    return PyLong_FromUnsignedLongLong(evring_salvage(&ring->at));
}

const char go_live_doc[] = "go_live(void)\n\nSecond half of a writer's start: publish what was salvaged.";
PyObject *ring_go_live(Ring *ring, PyObject *voids) {
    unsigned long long n = PyLong_AsUnsignedLongLong(voids);
    if (PyErr_Occurred() || check_writable(ring))
        return NULL;
    evring_go_live(&ring->at, n);
    Py_RETURN_NONE;
}

const char retire_doc[] = "retire()\n\nTell readers that another file is at this path now.";
PyObject *ring_retire(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    if (check_writable(ring))
        return NULL;
    evring_retire(&ring->at);
    Py_RETURN_NONE;
}
