/* streamapp.ring._ring: _protocol.c for Python, as one type that owns a mapping.
 *
 * Files are made, checked and locked in files.py. This gets an open descriptor and the geometry that was checked
 * there, and checks again what keeps it inside its own mapping.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sys/mman.h>
#include <sys/stat.h>

#include "_layout_table.h"
#include "_protocol.h"

typedef struct {
    PyObject_HEAD
    struct evring at;
    int writable;
    int writing; /* guarded by the GIL */
} Ring;

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", "file_bytes", "capacity", "record_off", "column_off", "row_bytes", "writable", NULL};
    int fd, writable;
    unsigned long long file_bytes, capacity, record_off, column_off, row_bytes;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iKKKKKp:Ring", names, &fd, &file_bytes, &capacity, &record_off,
                                     &column_off, &row_bytes, &writable))
        return NULL;
    struct stat status;
    if (fstat(fd, &status))
        return PyErr_SetFromErrno(PyExc_OSError);
    struct evring at = {NULL, file_bytes, capacity, record_off, column_off, row_bytes};
    if (!evring_fits(&at, (uint64_t)status.st_size)) {
        PyErr_SetString(PyExc_ValueError, "the ring's geometry does not lie within the file");
        return NULL;
    }
    /* The writer touches every page now, on its own node, rather than in the middle of a commit. */
    at.map = mmap(NULL, file_bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                  MAP_SHARED | (writable ? MAP_POPULATE : 0), fd, 0);
    if (at.map == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    Ring *ring = (Ring *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!ring) {
        munmap(at.map, file_bytes);
        return NULL;
    }
    ring->at = at;
    ring->writable = writable;
    return (PyObject *)ring;
}

static void ring_dealloc(Ring *ring) {
    PyTypeObject *type = Py_TYPE((PyObject *)ring);
    munmap(ring->at.map, ring->at.map_bytes);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(ring);
    Py_DECREF(type);
}

/* Views hold a reference to the ring, so that the mapping outlives whoever opened it. */
static int ring_getbuffer(Ring *ring, Py_buffer *view, int flags) {
    return PyBuffer_FillInfo(view, (PyObject *)ring, ring->at.map, (Py_ssize_t)ring->at.map_bytes, !ring->writable,
                             flags);
}

static int check_writable(const Ring *ring) {
    if (!ring->writable) {
        PyErr_SetString(PyExc_PermissionError, "this mapping of the ring is read-only");
        return -1;
    }
    if (ring->writing) {
        PyErr_SetString(PyExc_RuntimeError, "two threads write to one ring: writing is by one thread");
        return -1;
    }
    return 0;
}

static void release_all(Py_buffer *buffers, int n) {
    while (n--)
        PyBuffer_Release(&buffers[n]);
}

/* Takes each argument as a contiguous buffer; on failure none is held. */
static int take_all(PyObject *const *args, Py_buffer *buffers, int n, int flags) {
    for (int i = 0; i < n; i++)
        if (PyObject_GetBuffer(args[i], &buffers[i], flags)) {
            release_all(buffers, i);
            return -1;
        }
    return 0;
}

/* The number of items in a buffer of aligned structs, or -1 with an error set. */
static int64_t count(const Py_buffer *buffer, size_t item, const char *name) {
    if ((size_t)buffer->len % item || (buffer->len && (uintptr_t)buffer->buf % sizeof(uint64_t))) {
        PyErr_Format(PyExc_ValueError, "%s must be aligned items of %zu bytes", name, item);
        return -1;
    }
    return (int64_t)((size_t)buffer->len / item);
}

static int check_sources(const struct evring_position *positions, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (positions[i].source >= EVRING_SOURCES_MAX) {
            PyErr_SetString(PyExc_ValueError, "a position names a source beyond the sources page");
            return -1;
        }
    return 0;
}

static int check_commit(const Ring *ring, const Py_buffer *rows, int64_t n) {
    if ((uint64_t)n > evring_commit_max(&ring->at) || (uint64_t)rows->len != (uint64_t)n * ring->at.row_bytes) {
        PyErr_SetString(PyExc_ValueError, "a commit is at most half the capacity, with one row for each record");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(write_doc, "write(records, rows, positions) -> first seq\n\n"
                        "Commit n records and rows, then the positions (u64 triples), and wake the readers.");
static PyObject *ring_write(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer buffers[3];
    if (n_args != 3)
        return PyErr_Format(PyExc_TypeError, "write takes 3 arguments, not %zd", n_args);
    if (check_writable(ring) || take_all(args, buffers, 3, PyBUF_SIMPLE))
        return NULL;
    int64_t n = count(&buffers[0], sizeof(struct evring_record), "records");
    int64_t n_positions = n < 0 ? -1 : count(&buffers[2], sizeof(struct evring_position), "positions");
    if (n_positions < 0 || check_commit(ring, &buffers[1], n) || check_sources(buffers[2].buf, n_positions)) {
        release_all(buffers, 3);
        return NULL;
    }
    uint64_t first;
    ring->writing = 1;
    Py_BEGIN_ALLOW_THREADS
    first = evring_commit(&ring->at, buffers[0].buf, buffers[1].buf, (uint64_t)n, buffers[2].buf,
                          (uint64_t)n_positions);
    Py_END_ALLOW_THREADS
    ring->writing = 0;
    release_all(buffers, 3);
    return PyLong_FromUnsignedLongLong(first);
}

PyDoc_STRVAR(read_doc, "read(want, records, rows) -> (kept, next, lost, void)\n\n"
                       "Copy rows from seq `want` on into the two writable buffers.");
static PyObject *ring_read(Ring *ring, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer buffers[2];
    if (n_args != 3)
        return PyErr_Format(PyExc_TypeError, "read takes 3 arguments, not %zd", n_args);
    unsigned long long want = PyLong_AsUnsignedLongLong(args[0]);
    if (PyErr_Occurred() || take_all(args + 1, buffers, 2, PyBUF_WRITABLE))
        return NULL;
    int64_t limit = count(&buffers[0], sizeof(struct evring_record), "records");
    if (limit >= 0 && (uint64_t)buffers[1].len < (uint64_t)limit * ring->at.row_bytes) {
        PyErr_SetString(PyExc_ValueError, "there is room for fewer rows than records");
        limit = -1;
    }
    if (limit < 0) {
        release_all(buffers, 2);
        return NULL;
    }
    struct evring_window window;
    Py_BEGIN_ALLOW_THREADS
    window = evring_copy(&ring->at, want, (uint64_t)limit, buffers[0].buf, buffers[1].buf);
    Py_END_ALLOW_THREADS
    release_all(buffers, 2);
    return Py_BuildValue("KKKK", (unsigned long long)window.kept, (unsigned long long)window.next,
                         (unsigned long long)window.lost, (unsigned long long)window.voids);
}

PyDoc_STRVAR(wait_doc, "wait(want, spin_ns, timeout_ns) -> head\n\n"
                       "Return when head > want, the file is retired, a signal came or the time is over.");
static PyObject *ring_wait(Ring *ring, PyObject *args) {
    unsigned long long want;
    long long spin_ns, timeout_ns;
    if (!PyArg_ParseTuple(args, "KLL:wait", &want, &spin_ns, &timeout_ns))
        return NULL;
    uint64_t head;
    Py_BEGIN_ALLOW_THREADS
    head = evring_wait(&ring->at, want, spin_ns, timeout_ns);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(head);
}

PyDoc_STRVAR(salvage_doc, "salvage() -> void rows\n\n"
                          "First half of a writer's start: a new epoch; rows left unfinished become void.");
static PyObject *ring_salvage(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    if (check_writable(ring))
        return NULL;
    return PyLong_FromUnsignedLongLong(evring_salvage(&ring->at));
}

PyDoc_STRVAR(go_live_doc, "go_live(void)\n\nSecond half of a writer's start: publish what was salvaged.");
static PyObject *ring_go_live(Ring *ring, PyObject *voids) {
    unsigned long long n = PyLong_AsUnsignedLongLong(voids);
    if (PyErr_Occurred() || check_writable(ring))
        return NULL;
    evring_go_live(&ring->at, n);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(retire_doc, "retire()\n\nTell readers that another file is at this path now.");
static PyObject *ring_retire(Ring *ring, PyObject *Py_UNUSED(ignored)) {
    if (check_writable(ring))
        return NULL;
    evring_retire(&ring->at);
    Py_RETURN_NONE;
}

static PyMethodDef ring_methods[] = {
    {"write", (PyCFunction)(void (*)(void))ring_write, METH_FASTCALL, write_doc},
    {"read", (PyCFunction)(void (*)(void))ring_read, METH_FASTCALL, read_doc},
    {"wait", (PyCFunction)ring_wait, METH_VARARGS, wait_doc},
    {"salvage", (PyCFunction)ring_salvage, METH_NOARGS, salvage_doc},
    {"go_live", (PyCFunction)ring_go_live, METH_O, go_live_doc},
    {"retire", (PyCFunction)ring_retire, METH_NOARGS, retire_doc},
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
    PyObject *type = PyType_FromModuleAndSpec(module, &ring_spec, NULL);
    int failed = !type || PyModule_AddType(module, (PyTypeObject *)type) || add_layout(module);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)module_exec}, {0, NULL}};
static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "streamapp.ring._ring", "The ring's atomics, fences and futex.", 0, NULL,
    module_slots,          NULL,                   NULL,                                    NULL,
};

PyMODINIT_FUNC PyInit__ring(void) { return PyModuleDef_Init(&module_def); }
