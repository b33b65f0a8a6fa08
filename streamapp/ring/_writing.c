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

const char put_doc[] = "put(records, *columns) -> first seq or None\n\n"
    "write without positions, for arrays that need neither checks nor conversion. None: they need write().";
PyObject *ring_put(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    unsigned char *rows[EVRING_COLUMNS_MAX];
    uint64_t n;
    if ((uint64_t)n_args != ring->at.n_columns + 1 || !ring->writable || ring->writing ||
        ring->forks != forks_seen() || evring_reserved(&ring->at))
        Py_RETURN_NONE;
    const struct evring_record *records = plain_records(ring, args[0], 0, &n);
    if (!records || !n || n > evring_commit_max(&ring->at))
        Py_RETURN_NONE;
    for (uint64_t i = 0; i < ring->at.n_columns; i++)
        if (!(rows[i] = plain_rows(ring, args[i + 1], i, 0, n)))
            Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(commit_rows(ring, records, rows, n, NULL, 0));
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
