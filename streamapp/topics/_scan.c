/* streamapp.topics._scan: records to rows; the bytes of many are read without the interpreter lock.
 *
 * Here are only Python's objects: what is borrowed from them is held until the rows are written.  Anything that is not
 * of the exact type we know is left out, and its record is decoded by topics.wire.decode_record.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../core/_packed.h"
#include "_events.h"

/* About 30 us of work: for less, getting the lock back would be what takes the time. */
#define UNLOCK_FROM_BYTES 32768

/* A record in hand; `is_left` says that Python has to decode it. */
struct taken {
    struct events_record record;
    PyObject *held[EVENTS_ATTRIBUTES]; /* the headers' values: their list may change meanwhile */
    int is_left;
};

static int take_bytes(PyObject *object, struct json_bytes *bytes) { /* -1: it is none */
    char *at;
    Py_ssize_t size;
    if (!PyBytes_CheckExact(object) || PyBytes_AsStringAndSize(object, &at, &size))
        return -1;
    *bytes = (struct json_bytes){(const uint8_t *)at, (size_t)size};
    return 0;
}

/* What says in a header that the value is an envelope with the event in it, which is for core.event to open. */
#define CONTENT_TYPE (EVENTS_ATTRIBUTES + 1)

static int is_envelope(struct json_bytes content_type) {
    static const char kind[] = "application/cloudevents";
    size_t size = sizeof kind - 1;
    return content_type.size >= size && !strncasecmp((const char *)content_type.at, kind, size);
}

/* Which attribute a header is: EVENTS_ATTRIBUTES for one that is no column, -1 for one that is no attribute. */
static int attribute_of(const char *name, Py_ssize_t size) {
    static const char *const names[] = {
        [EVENTS_ID] = "ce_id", [EVENTS_TYPE] = "ce_type", [EVENTS_SOURCE] = "ce_source", [EVENTS_TIME] = "ce_time"};
    if (size == 12 && !strncasecmp(name, "content-type", 12))
        return CONTENT_TYPE;
    if (size < 3 || memcmp(name, "ce_", 3))
        return -1;
    for (int n = 0; n < EVENTS_ATTRIBUTES; n++)
        if ((size_t)size == strlen(names[n]) && !memcmp(name, names[n], (size_t)size))
            return n;
    return EVENTS_ATTRIBUTES;
}

/* Of a name that comes twice the last counts, of an absent value (Kafka has them) nothing. */
static int take_header(PyObject *header, struct taken *taken) {
    Py_ssize_t size;
    struct json_bytes value;
    if (!PyTuple_Check(header) || PyTuple_Size(header) != 2 || !PyUnicode_Check(PyTuple_GetItem(header, 0)))
        return -1;
    const char *name = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(header, 0), &size);
    if (!name) {
        PyErr_Clear(); /* half of a surrogate pair; Python says what that means */
        return -1;
    }
    int attribute = attribute_of(name, size);
    PyObject *object = PyTuple_GetItem(header, 1);
    if (attribute < 0 || object == Py_None)
        return 0;
    if (take_bytes(object, &value) || (attribute == CONTENT_TYPE ? is_envelope(value) : !json_is_utf8(value)))
        return -1;
    if (attribute >= EVENTS_ATTRIBUTES)
        return 0;
    Py_INCREF(object);
    Py_XDECREF(taken->held[attribute]);
    taken->held[attribute] = object;
    taken->record.attribute[attribute] = value;
    return 0;
}

static int take_headers(PyObject *headers, struct taken *taken) {
    int is_list = PyList_Check(headers);
    if (!is_list && !PyTuple_Check(headers))
        return -1;
    for (Py_ssize_t n = 0; n < (is_list ? PyList_Size(headers) : PyTuple_Size(headers)); n++)
        if (take_header(is_list ? PyList_GetItem(headers, n) : PyTuple_GetItem(headers, n), taken))
            return -1;
    return 0;
}

static int take_integer(PyObject *object, int64_t *number) {
    if (!PyLong_Check(object))
        return -1;
    *number = PyLong_AsLongLong(object);
    if (*number != -1 || !PyErr_Occurred())
        return 0;
    PyErr_Clear(); /* it has more than 64 bits */
    return -1;
}

/* The columns of `records`: values, keys, headers, offsets, timestamps. */
enum { VALUES, KEYS, HEADERS, OFFSETS, TIMESTAMPS, FIELDS };

static void take_record(PyObject *const *fields, Py_ssize_t n, size_t value_bytes_max, struct taken *taken) {
    PyObject *key = PyTuple_GetItem(fields[KEYS], n);
    struct events_record *record = &taken->record;
    taken->is_left = take_bytes(PyTuple_GetItem(fields[VALUES], n), &record->value) ||
                     record->value.size > value_bytes_max ||
                     (key != Py_None && take_bytes(key, &record->key)) ||
                     take_integer(PyTuple_GetItem(fields[OFFSETS], n), &record->offset) ||
                     take_integer(PyTuple_GetItem(fields[TIMESTAMPS], n), &record->timestamp_ms) ||
                     take_headers(PyTuple_GetItem(fields[HEADERS], n), taken);
}

/* Needs no interpreter lock.  -1: no memory. */
static int write_rows(struct taken *taken, size_t count, size_t value_bytes, struct json_bytes topic,
                      struct json_bytes address, struct ArrowArray *array) {
    struct events events;
    if (events_open(&events, topic, address, count, value_bytes))
        return -1;
    int failed = 0;
    for (size_t n = 0; n < count && !failed; n++) {
        int added = taken[n].is_left ? 0 : events_add(&events, &taken[n].record);
        taken[n].is_left = !added;
        failed = added < 0;
    }
    failed = failed || events_export(&events, array);
    events_close(&events);
    return failed ? -1 : 0;
}

static void free_array(PyObject *capsule) {
    struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array && array->release)
        array->release(array);
    free(array);
}

static PyObject *list_left(const struct taken *taken, size_t count) {
    PyObject *left = PyList_New(0);
    for (size_t n = 0; left && n < count; n++) {
        if (!taken[n].is_left)
            continue;
        PyObject *place = PyLong_FromSize_t(n);
        if (!place || PyList_Append(left, place))
            Py_CLEAR(left);
        Py_XDECREF(place);
    }
    return left;
}

static PyObject *scan_records(struct taken *taken, size_t count, struct json_bytes topic, struct json_bytes address) {
    struct ArrowArray *array = calloc(1, sizeof *array);
    size_t value_bytes = 0;
    if (!array)
        return PyErr_NoMemory();
    for (size_t n = 0; n < count; n++)
        value_bytes += taken[n].is_left ? 0 : taken[n].record.value.size;
    PyThreadState *released = value_bytes >= UNLOCK_FROM_BYTES ? PyEval_SaveThread() : NULL;
    int failed = write_rows(taken, count, value_bytes, topic, address, array);
    if (released)
        PyEval_RestoreThread(released);
    if (failed) {
        free(array);
        return PyErr_NoMemory();
    }
    PyObject *capsule = PyCapsule_New(array, "arrow_array", free_array);
    if (!capsule) {
        array->release(array);
        free(array);
        return NULL;
    }
    PyObject *left = list_left(taken, count), *answer = left ? PyTuple_Pack(2, capsule, left) : NULL;
    Py_XDECREF(left);
    Py_DECREF(capsule);
    return answer;
}

static PyObject *scan(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *fields[FIELDS], *topic_bytes, *address_bytes;
    struct json_bytes topic, address;
    Py_ssize_t value_bytes_max;
    if (!PyArg_ParseTuple(args, "O!O!O!O!O!SSn:scan", &PyTuple_Type, &fields[VALUES], &PyTuple_Type, &fields[KEYS],
                          &PyTuple_Type, &fields[HEADERS], &PyTuple_Type, &fields[OFFSETS], &PyTuple_Type,
                          &fields[TIMESTAMPS], &topic_bytes, &address_bytes, &value_bytes_max))
        return NULL;
    Py_ssize_t count = PyTuple_Size(fields[VALUES]);
    for (int n = 0; n < FIELDS; n++) {
        if (PyTuple_Size(fields[n]) != count) {
            PyErr_SetString(PyExc_ValueError, "there must be as many keys, headers, offsets and timestamps as values");
            return NULL;
        }
    }
    if (take_bytes(topic_bytes, &topic) || take_bytes(address_bytes, &address))
        return NULL;
    struct taken *taken = calloc((size_t)count + 1, sizeof *taken);
    if (!taken)
        return PyErr_NoMemory();
    for (Py_ssize_t n = 0; n < count; n++)
        take_record(fields, n, value_bytes_max < 0 ? 0 : (size_t)value_bytes_max, &taken[n]);
    PyObject *answer = scan_records(taken, (size_t)count, topic, address);
    for (Py_ssize_t n = 0; n < count; n++)
        for (int held = 0; held < EVENTS_ATTRIBUTES; held++)
            Py_XDECREF(taken[n].held[held]);
    free(taken);
    return answer;
}

/* -- records that are packed: no Python object for any of them */

/* Attributes among the headers.  -1: one is not UTF-8, an envelope, or they are not as a record writes them. */
static int take_packed_headers(const uint8_t *at, const uint8_t *end, struct events_record *record) {
    while (at < end) {
        const uint8_t *name, *value;
        int32_t name_size, value_size;
        if (packed_bytes(&at, end, &name, &name_size) || name_size < 0 || packed_bytes(&at, end, &value, &value_size))
            return -1;
        struct json_bytes bytes = {value, value_size < 0 ? 0 : (size_t)value_size};
        int attribute = attribute_of((const char *)name, name_size);
        if (attribute < 0)
            continue;
        if (attribute == CONTENT_TYPE ? is_envelope(bytes) : !json_is_utf8(bytes))
            return -1;
        if (attribute < EVENTS_ATTRIBUTES)
            record->attribute[attribute] = bytes;
    }
    return 0;
}

/* -1: these bytes are not in the buffer. */
static int find_packed(const Py_buffer *data, int32_t at, int32_t size, struct json_bytes *bytes) {
    if (size < 0)
        return 0;
    if (at < 0 || at > data->len || size > data->len - at)
        return -1;
    *bytes = (struct json_bytes){(const uint8_t *)data->buf + at, (size_t)size};
    return 0;
}

static void take_packed(const Py_buffer *data, const struct packed_place *place, size_t value_bytes_max,
                        struct taken *taken) {
    struct events_record *record = &taken->record;
    struct json_bytes headers = {0};
    record->offset = place->offset;
    record->timestamp_ms = place->timestamp_ms;
    taken->is_left = find_packed(data, place->value_at, place->value_size, &record->value) || !record->value.at ||
                     record->value.size > value_bytes_max ||
                     find_packed(data, place->key_at, place->key_size, &record->key) ||
                     find_packed(data, place->headers_at, place->headers_size, &headers) ||
                     (headers.size && take_packed_headers(headers.at, headers.at + headers.size, record));
}

/* A buffer and the places in it, as core.packed.Part has them. */
struct part {
    Py_buffer data, places;
};

static void close_parts(struct part *parts, Py_ssize_t count) {
    while (count--) {
        PyBuffer_Release(&parts[count].data);
        PyBuffer_Release(&parts[count].places);
    }
    free(parts);
}

/* NULL, with an exception: a part is none. */
static struct part *open_parts(PyObject *tuple, size_t *records) {
    Py_ssize_t count = PyTuple_Size(tuple), n = 0;
    struct part *parts = calloc((size_t)count + 1, sizeof *parts);
    if (!parts) {
        PyErr_NoMemory();
        return NULL;
    }
    for (*records = 0; n < count; n++) {
        PyObject *part = PyTuple_GetItem(tuple, n);
        if (!PyTuple_Check(part) || !PyArg_ParseTuple(part, "y*y*:part", &parts[n].data, &parts[n].places))
            break;
        *records += (size_t)parts[n].places.len / sizeof(struct packed_place);
    }
    if (n == count)
        return parts;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "a part is a tuple of a buffer and places");
    close_parts(parts, n);
    return NULL;
}

static PyObject *scan_packed(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *tuple, *topic_bytes, *address_bytes;
    struct json_bytes topic, address;
    Py_ssize_t value_bytes_max;
    size_t count, filled = 0;
    if (!PyArg_ParseTuple(args, "O!SSn:scan_packed", &PyTuple_Type, &tuple, &topic_bytes, &address_bytes,
                          &value_bytes_max) ||
        take_bytes(topic_bytes, &topic) || take_bytes(address_bytes, &address))
        return NULL;
    struct part *parts = open_parts(tuple, &count);
    if (!parts)
        return NULL;
    struct taken *taken = calloc(count + 1, sizeof *taken);
    for (Py_ssize_t n = 0; taken && n < PyTuple_Size(tuple); n++) {
        struct packed_place place;
        const uint8_t *at = parts[n].places.buf, *end = at + parts[n].places.len;
        for (; (size_t)(end - at) >= sizeof place; at += sizeof place) {
            memcpy(&place, at, sizeof place); /* nobody says how it is aligned */
            take_packed(&parts[n].data, &place, value_bytes_max < 0 ? 0 : (size_t)value_bytes_max, &taken[filled++]);
        }
    }
    PyObject *answer = taken ? scan_records(taken, count, topic, address) : PyErr_NoMemory();
    free(taken);
    close_parts(parts, PyTuple_Size(tuple));
    return answer;
}

static PyMethodDef methods[] = {
    {"scan", scan, METH_VARARGS, "Records to an Arrow array of rows, and the places of those that it leaves."},
    {"scan_packed", scan_packed, METH_VARARGS, "The same of records that are packed, by their parts."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "streamapp.topics._scan", "C extension of streamapp.topics.columns.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__scan(void) { return PyModuleDef_Init(&module); }
