/* streamapp.topics._stamp: events to records, in C; the bytes of many are read without the interpreter lock. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>

#include "_records.h"

/* About 30 us of work: for less, getting the lock back would be what takes the time. */
#define UNLOCK_FROM_BYTES 32768

struct given {
    struct json_bytes value;
    int64_t number;
    int is_left;
    struct records_made made;
};

/* -1, with an exception: not bytes and a number. */
static int take(PyObject *value, PyObject *number, size_t value_bytes_max, struct given *given) {
    char *at;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &at, &size))
        return -1;
    given->value = (struct json_bytes){(const uint8_t *)at, (size_t)size};
    given->is_left = given->value.size > value_bytes_max;
    given->number = PyLong_AsLongLong(number);
    return given->number == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Needs no interpreter lock.  -1: no memory. */
static int make_all(struct records *records, struct given *given, size_t count, int is_enveloped) {
    int (*add)(struct records *, struct json_bytes, int64_t, struct records_made *) =
        is_enveloped ? records_add_envelope : records_add;
    for (size_t n = 0; n < count; n++) {
        int added = given[n].is_left ? 0 : add(records, given[n].value, given[n].number, &given[n].made);
        if (added < 0)
            return -1;
        given[n].is_left = !added;
    }
    return 0;
}

static int append(PyObject *list, PyObject *item) { /* steals the item */
    int failed = !item || PyList_Append(list, item);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

static PyObject *text_of(const struct records *records, int32_t at, int32_t size) {
    return PyUnicode_DecodeUTF8((const char *)records->data + at, size, NULL);
}

/* The ids and types of what was made, and the places of what was left.  -1, with an exception. */
static int tell(const struct records *records, const struct given *given, size_t count, PyObject *ids, PyObject *types,
                PyObject *left) {
    for (size_t n = 0; n < count; n++) {
        const struct records_made *made = &given[n].made;
        if (given[n].is_left) {
            if (append(left, PyLong_FromSize_t(n)))
                return -1;
            continue;
        }
        if (append(ids, text_of(records, made->id_at, made->id_size)))
            return -1;
        if (made->is_typed ? append(types, text_of(records, made->type_at, made->type_size))
                           : PyList_Append(types, Py_None))
            return -1;
    }
    return 0;
}

static PyObject *answer_of(const struct records *records, const struct given *given, size_t count) {
    PyObject *ids = PyList_New(0), *types = PyList_New(0), *left = PyList_New(0), *places = NULL, *answer = NULL;
    if (ids && types && left && !tell(records, given, count, ids, types, left))
        places = PyBytes_FromStringAndSize(NULL, PyList_Size(ids) * (Py_ssize_t)sizeof(struct packed_place));
    if (places) {
        char *to = PyBytes_AsString(places);
        for (size_t n = 0; n < count; n++) {
            if (given[n].is_left)
                continue;
            memcpy(to, &given[n].made.place, sizeof(struct packed_place));
            to += sizeof(struct packed_place);
        }
        answer = Py_BuildValue("y#OOOO", records->data ? (const char *)records->data : "", (Py_ssize_t)records->used,
                               places, ids, types, left);
    }
    Py_XDECREF(places);
    Py_XDECREF(ids);
    Py_XDECREF(types);
    Py_XDECREF(left);
    return answer;
}

static PyObject *stamp(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *values, *numbers;
    struct records records = {0};
    const char *source, *prefix, *tail;
    Py_ssize_t source_size, prefix_size, tail_size, value_bytes_max;
    long long received_us;
    int is_enveloped;
    if (!PyArg_ParseTuple(args, "O!O!y#y#y#Lnp:stamp", &PyTuple_Type, &values, &PyTuple_Type, &numbers, &source,
                          &source_size, &prefix, &prefix_size, &tail, &tail_size, &received_us, &value_bytes_max,
                          &is_enveloped))
        return NULL;
    size_t count = (size_t)PyTuple_Size(values), value_bytes = 0;
    if ((size_t)PyTuple_Size(numbers) != count) {
        PyErr_SetString(PyExc_ValueError, "there must be as many numbers as values");
        return NULL;
    }
    struct given *given = calloc(count + 1, sizeof *given);
    if (!given)
        return PyErr_NoMemory();
    records.source = (struct json_bytes){(const uint8_t *)source, (size_t)source_size};
    records.id_prefix = (struct json_bytes){(const uint8_t *)prefix, (size_t)prefix_size};
    records.tail = (struct json_bytes){(const uint8_t *)tail, (size_t)tail_size};
    records.received_us = received_us;
    PyObject *answer = NULL;
    for (size_t n = 0; n < count; n++) {
        if (take(PyTuple_GetItem(values, (Py_ssize_t)n), PyTuple_GetItem(numbers, (Py_ssize_t)n),
                 value_bytes_max < 0 ? 0 : (size_t)value_bytes_max, &given[n])) {
            free(given);
            return NULL;
        }
        value_bytes += given[n].is_left ? 0 : given[n].value.size;
    }
    PyThreadState *released = value_bytes >= UNLOCK_FROM_BYTES ? PyEval_SaveThread() : NULL;
    int failed = make_all(&records, given, count, is_enveloped);
    if (released)
        PyEval_RestoreThread(released);
    answer = failed ? PyErr_NoMemory() : answer_of(&records, given, count);
    free(records.data);
    free(given);
    return answer;
}

/* -- one event, as objects */

static PyObject *headers_of(const struct records *records, const struct packed_place *place) {
    const uint8_t *at = records->data + place->headers_at, *end = at + place->headers_size, *name, *value;
    PyObject *headers = PyList_New(0);
    int32_t name_size, value_size;
    while (headers && at < end && !packed_bytes(&at, end, &name, &name_size) &&
           !packed_bytes(&at, end, &value, &value_size))
        if (append(headers, Py_BuildValue("s#y#", name, (Py_ssize_t)name_size, value, (Py_ssize_t)value_size)))
            Py_CLEAR(headers);
    return headers;
}

static PyObject *stamp_one(PyObject *module, PyObject *args) {
    (void)module;
    struct records records = {0};
    struct records_made made;
    const char *value, *source, *id;
    Py_ssize_t value_size, source_size, id_size;
    long long received_us;
    if (!PyArg_ParseTuple(args, "y#s#s#L:stamp_one", &value, &value_size, &source, &source_size, &id, &id_size,
                          &received_us))
        return NULL;
    records.source = (struct json_bytes){(const uint8_t *)source, (size_t)source_size};
    records.id_prefix = (struct json_bytes){(const uint8_t *)id, (size_t)id_size};
    records.received_us = received_us;
    int added = records_add(&records, (struct json_bytes){(const uint8_t *)value, (size_t)value_size}, -1, &made);
    PyObject *answer = NULL, *headers;
    if (added < 0) {
        PyErr_NoMemory();
    } else if (!added) {
        answer = Py_NewRef(Py_None);
    } else if ((headers = headers_of(&records, &made.place))) {
        const char *data = (const char *)records.data;
        answer = Py_BuildValue("s#z#y#N", data + made.id_at, (Py_ssize_t)made.id_size,
                               made.is_typed ? data + made.type_at : NULL, (Py_ssize_t)made.type_size,
                               data + made.place.key_at, (Py_ssize_t)made.place.key_size, headers);
    }
    free(records.data);
    return answer;
}

static PyMethodDef methods[] = {
    {"stamp", stamp, METH_VARARGS, "Records of events: data, places, ids, types, and the places of those it leaves."},
    {"stamp_one", stamp_one, METH_VARARGS, "Id, type, key and headers of one event's record; None: it is left."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "streamapp.topics._stamp", "C extension of streamapp.topics.records.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__stamp(void) { return PyModuleDef_Init(&module); }
