/* A column mapped twice back to back: every window of at most `capacity` rows is one piece of memory, also over the
 * wrap. The trick is the BPF ring buffer's (linux: Documentation/bpf/ringbuf.rst); nothing in the file knows of it.
 */
#define _GNU_SOURCE
#include "_mirror.h"

#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    unsigned char *map;
    size_t bytes; /* of both halves */
    int writable;
} Mirror;

static unsigned char *map_twice(int fd, uint64_t offset, size_t bytes, int writable) {
    int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int how = MAP_SHARED | MAP_FIXED | (writable ? MAP_POPULATE : 0);
    /* First the addresses, so that the second half cannot land on what somebody else has mapped. */
    unsigned char *map = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    for (size_t half = 0; half < 2; half++)
        if (mmap(map + half * bytes, bytes, access, how, fd, (off_t)offset) == MAP_FAILED) {
            munmap(map, 2 * bytes);
            return NULL;
        }
    return map;
}

PyObject *mirror_new(PyTypeObject *type, int fd, uint64_t offset, uint64_t bytes, int writable) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (offset % page || bytes % page)
        Py_RETURN_NONE;
    Mirror *mirror = (Mirror *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!mirror)
        return NULL;
    mirror->bytes = 2 * (size_t)bytes;
    mirror->writable = writable;
    mirror->map = map_twice(fd, offset, (size_t)bytes, writable);
    if (!mirror->map) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(mirror);
        return NULL;
    }
    return (PyObject *)mirror;
}

static void mirror_dealloc(Mirror *mirror) {
    PyTypeObject *type = Py_TYPE((PyObject *)mirror);
    if (mirror->map)
        munmap(mirror->map, mirror->bytes);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(mirror);
    Py_DECREF(type);
}

static int mirror_getbuffer(Mirror *mirror, Py_buffer *view, int flags) {
    return PyBuffer_FillInfo(view, (PyObject *)mirror, mirror->map, (Py_ssize_t)mirror->bytes, !mirror->writable,
                             flags);
}

PyDoc_STRVAR(mirror_doc, "A column of a ring, mapped twice back to back; made by Ring.mirror.");
static PyType_Slot mirror_slots[] = {
    {Py_tp_doc, (void *)mirror_doc},
    {Py_tp_dealloc, (void *)mirror_dealloc},
    {Py_bf_getbuffer, (void *)mirror_getbuffer},
    {0, NULL},
};
PyType_Spec mirror_spec = {
    "streamapp.ring._ring.Mirror", sizeof(Mirror), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    mirror_slots,
};
