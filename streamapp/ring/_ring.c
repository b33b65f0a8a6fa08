/* streamapp.ring._ring: _protocol.c for Python, as one type that owns a mapping.
 *
 * Files are made, checked and locked in files.py. This gets an open descriptor and the geometry that was checked
 * there, and checks again what keeps it inside its own mapping.
 */
#include "_ring.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "_buffers.h"
#include "_layout_table.h"
#include "_mirror.h"

/* Copies of more bytes than this leave the GIL to others; for less, giving it back and forth costs more. */
enum { LONG_BYTES = 256 * 1024 };

typedef struct {
    PyTypeObject *mirror;
} State;

static int forks;
static void count_fork(void) { forks++; }
int forks_seen(void) { return forks; }
int watch_forks(void) { return pthread_atfork(NULL, NULL, count_fork); }

static int parse_columns(PyObject *columns, struct evring *at, uint64_t *dims) {
    Py_ssize_t n = PyTuple_Size(columns);
    if (n < 1 || n > EVRING_COLUMNS_MAX) {
        PyErr_Format(PyExc_ValueError, "a ring has 1 to %u columns, not %zd", EVRING_COLUMNS_MAX, n);
        return -1;
    }
    at->n_columns = (uint64_t)n;
    for (Py_ssize_t i = 0; i < n; i++) {
        unsigned long long offset, dim, item;
        PyObject *column = PyTuple_GetItem(columns, i);
        if (!PyTuple_Check(column)) {
            PyErr_SetString(PyExc_TypeError, "a column is a tuple of offset, dim and bytes of an item");
            return -1;
        }
        if (!PyArg_ParseTuple(column, "KKK:column", &offset, &dim, &item))
            return -1;
        at->columns[i].offset = offset;
        if (__builtin_mul_overflow(dim, item, &at->columns[i].row_bytes))
            at->columns[i].row_bytes = UINT64_MAX; /* evring_fits says no */
        dims[i] = dim;
    }
    return 0;
}

/* Maps the file and keeps a descriptor of its own; on failure nothing is left. */
static int map_file(Ring *ring, int fd) {
    ring->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (ring->fd < 0)
        return -1;
    /* The writer touches every page now, on its own node, rather than in the middle of a commit. */
    int access = ring->writable ? PROT_READ | PROT_WRITE : PROT_READ;
    unsigned char *map =
        mmap(NULL, ring->at.map_bytes, access, MAP_SHARED | (ring->writable ? MAP_POPULATE : 0), fd, 0);
    if (map == MAP_FAILED)
        return -1;
    ring->at.map = map;
    return 0;
}

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd",     "file_bytes", "capacity", "record_off", "columns",
                            "dtypes", "array_type", "writable", NULL};
    int fd, writable;
    unsigned long long file_bytes, capacity, record_off;
    PyObject *columns, *dtypes, *array_type;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iKKKO!O!Op:Ring", names, &fd, &file_bytes, &capacity, &record_off,
                                     &PyTuple_Type, &columns, &PyTuple_Type, &dtypes, &array_type, &writable))
        return NULL;
    struct stat status;
    if (fstat(fd, &status))
        return PyErr_SetFromErrno(PyExc_OSError);
    struct evring at = {.map_bytes = file_bytes, .capacity = capacity, .record_off = record_off};
    uint64_t dims[EVRING_COLUMNS_MAX];
    if (parse_columns(columns, &at, dims))
        return NULL;
    if ((uint64_t)PyTuple_Size(dtypes) != at.n_columns + 1) {
        PyErr_SetString(PyExc_ValueError, "dtypes are one for the records and one for each column");
        return NULL;
    }
    if (!evring_fits(&at, (uint64_t)status.st_size)) {
        PyErr_SetString(PyExc_ValueError, "the ring's geometry does not lie within the file");
        return NULL;
    }
    Ring *ring = (Ring *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!ring)
        return NULL;
    ring->at = at;
    ring->writable = writable;
    ring->forks = forks_seen();
    ring->dtypes = Py_NewRef(dtypes);
    for (uint64_t i = 0; i <= at.n_columns; i++)
        ring->dtype[i] = PyTuple_GetItem(dtypes, (Py_ssize_t)i);
    memcpy(ring->dims, dims, sizeof ring->dims);
    ring->array_type = Py_NewRef(array_type);
    if (map_file(ring, fd)) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(ring);
        return NULL;
    }
    return (PyObject *)ring;
}

static void ring_dealloc(Ring *ring) {
    PyTypeObject *type = Py_TYPE((PyObject *)ring);
    if (ring->at.map)
        munmap(ring->at.map, ring->at.map_bytes);
    if (ring->fd >= 0)
        close(ring->fd);
    Py_XDECREF(ring->dtypes);
    Py_XDECREF(ring->array_type);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(ring);
    Py_DECREF(type);
}

/* Views hold a reference to the ring, so that the mapping outlives whoever opened it. */
static int ring_getbuffer(Ring *ring, Py_buffer *view, int flags) {
    return PyBuffer_FillInfo(view, (PyObject *)ring, ring->at.map, (Py_ssize_t)ring->at.map_bytes, !ring->writable,
                             flags);
}

PyDoc_STRVAR(mirror_doc, "mirror(column) -> Mirror or None\n\n"
                         "The column of that index mapped twice back to back, as a buffer that owns its mapping;\n"
                         "None when its bytes are not whole pages.");
static PyObject *ring_mirror(Ring *ring, PyObject *index) {
    const State *state = PyType_GetModuleState(Py_TYPE((PyObject *)ring));
    size_t i = PyLong_AsSize_t(index);
    if (PyErr_Occurred() || !state)
        return NULL;
    if (i >= ring->at.n_columns)
        return PyErr_Format(PyExc_IndexError, "the ring has no column %zu", i);
    const struct evring_column *column = &ring->at.columns[i];
    return mirror_new(state->mirror, ring->fd, column->offset, ring->at.capacity * column->row_bytes, ring->writable);
}

int check_args(const char *name, Py_ssize_t n, Py_ssize_t wanted) {
    if (n == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, wanted, n);
    return -1;
}

int is_long(const Ring *ring, uint64_t n) {
    uint64_t row_bytes = EVRING_RECORD_STRIDE;
    for (uint64_t i = 0; i < ring->at.n_columns; i++)
        row_bytes += ring->at.columns[i].row_bytes;
    return n * row_bytes > LONG_BYTES; /* no overflow: as many rows are in memory */
}

/* ---- reader ---- */

PyDoc_STRVAR(read_doc, "read(want, records, columns) -> (kept, next, lost, void)\n\n"
                       "Copy rows from seq `want` on into the writable arrays, one for each column.");
static PyObject *ring_read(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    Buffers buffers = {.n = 0};
    unsigned char *rows[EVRING_COLUMNS_MAX];
    struct evring_record *records;
    uint64_t limit;
    if (check_args("read", n_args, 3))
        return NULL;
    unsigned long long want = PyLong_AsUnsignedLongLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    if (!(records = take_records(ring, &buffers, args[1], 1, &limit)) ||
        take_columns(ring, &buffers, args[2], 1, limit, rows)) {
        release(&buffers);
        return NULL;
    }
    PyThreadState *unlocked = is_long(ring, limit) ? PyEval_SaveThread() : NULL;
    struct evring_window window = evring_copy(&ring->at, want, limit, records, rows);
    if (unlocked)
        PyEval_RestoreThread(unlocked);
    release(&buffers);
    return Py_BuildValue("KKKK", (unsigned long long)window.kept, (unsigned long long)window.next,
                         (unsigned long long)window.lost, (unsigned long long)window.voids);
}

PyDoc_STRVAR(spare_doc, "spare(kept, n) -> bool\n\n"
                        "Can kept, a list of records and a tuple of columns, be filled with n rows again? Yes when\n"
                        "nobody else holds any of it and nobody changed its shape.");
static PyObject *ring_spare(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    if (check_args("spare", n_args, 2))
        return NULL;
    unsigned long long n = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(are_spare(ring, args[0], n));
}

PyDoc_STRVAR(head_doc, "head() -> first seq that is not committed");
static PyObject *ring_head(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromUnsignedLongLong(evring_head(&ring->at));
}

PyDoc_STRVAR(claim_doc, "claim() -> first seq not yet claimed\n\n"
                        "Loaded after everything that was read from the ring before: rows below claim - capacity\n"
                        "may have changed while they were used.");
static PyObject *ring_claim(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromUnsignedLongLong(evring_claim(&ring->at));
}

PyDoc_STRVAR(wait_doc, "wait(want, spin_ns, timeout_ns) -> head\n\n"
                       "Return when head > want, the file is retired, a signal came or the time is over.");
static PyObject *ring_wait(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    if (check_args("wait", n_args, 3))
        return NULL;
    unsigned long long want = PyLong_AsUnsignedLongLong(args[0]);
    long long spin_ns = PyErr_Occurred() ? 0 : PyLong_AsLongLong(args[1]);
    long long timeout_ns = PyErr_Occurred() ? 0 : PyLong_AsLongLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    uint64_t head = evring_head(&ring->at);
    if (head <= want && timeout_ns > 0) {
        Py_BEGIN_ALLOW_THREADS
        head = evring_wait(&ring->at, want, spin_ns, timeout_ns);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromUnsignedLongLong(head);
}

static PyMethodDef ring_methods[] = {
    {"writer", (PyCFunction)ring_writer, METH_O, writer_doc},
    {"write", (PyCFunction)(void (*)(void))ring_write, METH_FASTCALL, write_doc},
    {"reserve", (PyCFunction)ring_reserve, METH_O, reserve_doc},
    {"commit", (PyCFunction)(void (*)(void))ring_commit, METH_FASTCALL, commit_doc},
    {"abandon", (PyCFunction)ring_abandon, METH_NOARGS, abandon_doc},
    {"read", (PyCFunction)(void (*)(void))ring_read, METH_FASTCALL, read_doc},
    {"spare", (PyCFunction)(void (*)(void))ring_spare, METH_FASTCALL, spare_doc},
    {"head", (PyCFunction)ring_head, METH_NOARGS, head_doc},
    {"claim", (PyCFunction)ring_claim, METH_NOARGS, claim_doc},
    {"mirror", (PyCFunction)ring_mirror, METH_O, mirror_doc},
    {"wait", (PyCFunction)(void (*)(void))ring_wait, METH_FASTCALL, wait_doc},
    {"salvage", (PyCFunction)ring_salvage, METH_NOARGS, salvage_doc},
    {"go_live", (PyCFunction)ring_go_live, METH_O, go_live_doc},
    {"retire", (PyCFunction)ring_retire, METH_NOARGS, retire_doc},
    {"seal", (PyCFunction)ring_seal, METH_NOARGS, seal_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(ring_doc, "A mapped ring file; exports its bytes by the buffer protocol, read-only unless writable.");
static PyType_Slot ring_slots[] = {
    {Py_tp_doc, (void *)ring_doc},       {Py_tp_new, (void *)ring_new},
    {Py_tp_dealloc, (void *)ring_dealloc}, {Py_tp_methods, ring_methods},
    {Py_bf_getbuffer, (void *)ring_getbuffer}, {0, NULL},
};
static PyType_Spec ring_spec = {"streamapp.ring._ring.Ring", sizeof(Ring), 0, Py_TPFLAGS_DEFAULT, ring_slots};

static int add_layout(PyObject *module) {
    PyObject *layout = PyDict_New();
    for (size_t i = 0; layout && i < sizeof LAYOUT / sizeof *LAYOUT; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(LAYOUT[i].value);
        if (!value || PyDict_SetItemString(layout, LAYOUT[i].name, value))
            Py_CLEAR(layout);
        Py_XDECREF(value);
    }
    int failed = !layout || PyModule_AddObjectRef(module, "LAYOUT", layout);
    Py_XDECREF(layout);
    return failed ? -1 : 0;
}

static int module_exec(PyObject *module) {
    State *state = PyModule_GetState(module);
    state->mirror = (PyTypeObject *)PyType_FromModuleAndSpec(module, &mirror_spec, NULL);
    if (!state->mirror)
        return -1;
    static int watched;
    if (!watched && (watched = 1) && watch_forks()) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &ring_spec, NULL);
    int failed = !type || PyModule_AddType(module, (PyTypeObject *)type) || add_layout(module);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    Py_VISIT(((State *)PyModule_GetState(module))->mirror);
    return 0;
}

static int module_clear(PyObject *module) {
    Py_CLEAR(((State *)PyModule_GetState(module))->mirror);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)module_exec}, {0, NULL}};
static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "streamapp.ring._ring", "The ring's atomics, fences and futex.", sizeof(State), NULL,
    module_slots,          module_traverse,        module_clear,                            NULL,
};

PyMODINIT_FUNC PyInit__ring(void) { return PyModuleDef_Init(&module_def); }
