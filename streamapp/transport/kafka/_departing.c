/* streamapp.transport.kafka._departing: records as callers have them to what _building.c makes of them. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>

#include "_batches.h"
#include "_building.h"

/* What one record's headers may come to, and how many it may have. */
#define HEADERS_BYTES_MAX (64 << 20)

/* -- headers as Kafka writes them */

struct headers {
    uint8_t *data; /* kept from one record to the next */
    size_t used, room;
    int32_t count;
};

static uint8_t *headers_room(struct headers *headers, size_t size) { /* NULL, with an exception */
    if (size > HEADERS_BYTES_MAX - headers->used) {
        PyErr_SetString(PyExc_ValueError, "a record's headers have too many bytes");
        return NULL;
    }
    if (size > headers->room - headers->used) {
        size_t room = headers->used + size + headers->room + 256;
        uint8_t *data = realloc(headers->data, room);
        if (!data) {
            PyErr_NoMemory();
            return NULL;
        }
        headers->data = data;
        headers->room = room;
    }
    return headers->data + headers->used;
}

static int put_header(struct headers *headers, PyObject *header) { /* -1, with an exception */
    PyObject *name, *value;
    Py_ssize_t name_size, value_size = 0;
    char *bytes = NULL;
    if (!PyTuple_Check(header) || !PyArg_ParseTuple(header, "UO:header", &name, &value)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a header is a tuple of a name and bytes");
        return -1;
    }
    const char *text = PyUnicode_AsUTF8AndSize(name, &name_size);
    if (!text || (value != Py_None && PyBytes_AsStringAndSize(value, &bytes, &value_size)))
        return -1;
    if (name_size > HEADERS_BYTES_MAX || value_size > HEADERS_BYTES_MAX) {
        PyErr_SetString(PyExc_ValueError, "a header has too many bytes");
        return -1;
    }
    uint8_t *to = headers_room(headers, (size_t)(name_size + value_size) + 2 * PACKED_VARINT_MAX);
    if (!to)
        return -1;
    to = packed_put_bytes(to, text, (size_t)name_size);
    to = bytes ? packed_put_bytes(to, bytes, (size_t)value_size) : packed_put_varint(to, -1);
    headers->used = (size_t)(to - headers->data);
    headers->count++;
    return 0;
}

static int put_headers(struct headers *headers, PyObject *given) { /* -1, with an exception */
    headers->used = 0;
    headers->count = 0;
    if (given == Py_None)
        return 0;
    PyObject *all = PyTuple_CheckExact(given) ? Py_NewRef(given) : PySequence_Tuple(given);
    int failed = !all;
    for (Py_ssize_t n = 0; !failed && n < PyTuple_Size(all); n++)
        failed = put_header(headers, PyTuple_GetItem(all, n));
    Py_XDECREF(all);
    return failed ? -1 : 0;
}

/* -- records: objects, or packed */

/* -1, with an exception: neither bytes nor None. */
static int take_bytes(PyObject *object, struct building_bytes *bytes) {
    char *at;
    Py_ssize_t size;
    *bytes = (struct building_bytes){NULL, 0};
    if (object == Py_None)
        return 0;
    if (PyBytes_AsStringAndSize(object, &at, &size))
        return -1;
    *bytes = (struct building_bytes){at, (size_t)size};
    return 0;
}

static int added(int failed) { /* -1, with an exception */
    if (failed)
        PyErr_NoMemory();
    return failed;
}

/* A record of transport.clients.Outgoing: value, key, headers, partition, timestamp_ms. */
static int add_object(struct building *building, PyObject *record, int64_t now_ms, struct headers *headers) {
    struct building_bytes key, value;
    if (!PyTuple_Check(record) || PyTuple_Size(record) != 5) {
        PyErr_SetString(PyExc_TypeError, "a record is an Outgoing");
        return -1;
    }
    PyObject *timestamp = PyTuple_GetItem(record, 4);
    int64_t timestamp_ms = timestamp == Py_None ? now_ms : PyLong_AsLongLong(timestamp);
    if ((timestamp_ms == -1 && PyErr_Occurred()) || take_bytes(PyTuple_GetItem(record, 0), &value) ||
        take_bytes(PyTuple_GetItem(record, 1), &key) || put_headers(headers, PyTuple_GetItem(record, 2)))
        return -1;
    struct building_bytes packed = {headers->data, headers->used};
    return added(building_add(building, timestamp_ms, key, value, headers->count, packed));
}

static int add_objects(struct building *building, PyObject *records, int64_t now_ms, struct headers *headers) {
    for (Py_ssize_t n = 0; n < PyList_Size(records); n++)
        if (add_object(building, PyList_GetItem(records, n), now_ms, headers))
            return -1;
    return 0;
}

/* -1: these bytes are not in the buffer. */
static int find(const Py_buffer *data, int32_t at, int32_t size, struct building_bytes *bytes) {
    *bytes = (struct building_bytes){NULL, 0};
    if (size < 0)
        return 0;
    if (at < 0 || at > data->len || size > data->len - at)
        return -1;
    *bytes = (struct building_bytes){(const char *)data->buf + at, (size_t)size};
    return 0;
}

static int32_t count_headers(struct building_bytes headers) { /* -1: they are not as records write them */
    const uint8_t *at = headers.at, *end = at + headers.size, *bytes;
    int32_t count = 0, size;
    for (; at < end; count++)
        if (packed_bytes(&at, end, &bytes, &size) || size < 0 || packed_bytes(&at, end, &bytes, &size))
            return -1;
    return count;
}

static int add_packed(struct building *building, const Py_buffer *data, const struct packed_place *place,
                      int64_t now_ms) {
    struct building_bytes key, value, headers;
    int32_t count = 0;
    if (find(data, place->key_at, place->key_size, &key) || find(data, place->value_at, place->value_size, &value) ||
        find(data, place->headers_at, place->headers_size, &headers) ||
        (headers.at && (count = count_headers(headers)) < 0)) {
        PyErr_SetString(PyExc_ValueError, "a packed record is not in its buffer");
        return -1;
    }
    return added(building_add(building, now_ms, key, value, count, headers));
}

/* A buffer, and the places of records in it. */
struct part {
    Py_buffer data, places;
};

static int open_part(PyObject *tuple, struct part *part) { /* -1, with an exception */
    return PyArg_ParseTuple(tuple, "y*y*:part", &part->data, &part->places) ? 0 : -1;
}

static void close_part(struct part *part) {
    PyBuffer_Release(&part->data);
    PyBuffer_Release(&part->places);
}

/* The place behind `*at`.  0: there is none. */
static int next_place(const struct part *part, Py_ssize_t *at, struct packed_place *place) {
    if (part->places.len - *at < (Py_ssize_t)sizeof *place)
        return 0;
    memcpy(place, (const char *)part->places.buf + *at, sizeof *place); /* nobody says how it is aligned */
    *at += (Py_ssize_t)sizeof *place;
    return 1;
}

static int add_part(struct building *building, PyObject *tuple, int64_t now_ms) {
    struct part part;
    struct packed_place place;
    Py_ssize_t at = 0;
    int failed = 0;
    if (open_part(tuple, &part))
        return -1;
    while (!failed && next_place(&part, &at, &place))
        failed = add_packed(building, &part.data, &place, now_ms);
    close_part(&part);
    return failed;
}

/* -- what Python calls */

static int add_all(struct building *building, PyObject *pieces, int64_t now_ms) {
    struct headers headers = {0};
    int failed = 0;
    for (Py_ssize_t n = 0; !failed && n < PyTuple_Size(pieces); n++) {
        PyObject *piece = PyTuple_GetItem(pieces, n);
        if (PyList_Check(piece))
            failed = add_objects(building, piece, now_ms, &headers);
        else if (PyTuple_Check(piece))
            failed = add_part(building, piece, now_ms);
        else
            PyErr_SetString(PyExc_TypeError, "a piece is a list of records, or a buffer and places");
        failed = failed || PyErr_Occurred();
    }
    free(headers.data);
    return failed ? -1 : 0;
}

static PyObject *encode(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *pieces, *answer = NULL;
    struct building building;
    struct building_identity identity;
    long long producer, now_ms;
    int sequence;
    Py_ssize_t room;
    if (!PyArg_ParseTuple(args, "O!LhiLn:encode", &PyTuple_Type, &pieces, &producer, &identity.epoch, &sequence, &now_ms,
                          &room))
        return NULL;
    identity.producer = producer;
    identity.sequence = sequence;
    if (room < 0 || room > INT32_MAX / 2 || building_open(&building, (size_t)room))
        return PyErr_NoMemory();
    if (!add_all(&building, pieces, now_ms)) {
        if (building.count) {
            building_finish(&building, &identity);
            answer = PyBytes_FromStringAndSize((const char *)building.data, (Py_ssize_t)building.used);
        } else {
            PyErr_SetString(PyExc_ValueError, "there is no record");
        }
    }
    free(building.data);
    return answer;
}

static PyObject *partitions(PyObject *module, PyObject *args) {
    (void)module;
    struct part part;
    struct packed_place place;
    struct building_bytes key;
    int count, keyless;
    Py_ssize_t at = 0;
    if (!PyArg_ParseTuple(args, "y*y*ii:partitions", &part.data, &part.places, &count, &keyless))
        return NULL;
    Py_ssize_t records = part.places.len / (Py_ssize_t)sizeof place;
    PyObject *answer = PyBytes_FromStringAndSize(NULL, records * (Py_ssize_t)sizeof(int32_t));
    for (char *to = answer ? PyBytes_AsString(answer) : NULL; answer && next_place(&part, &at, &place); to += 4) {
        if (find(&part.data, place.key_at, place.key_size, &key)) {
            PyErr_SetString(PyExc_ValueError, "a packed record is not in its buffer");
            Py_CLEAR(answer);
            break;
        }
        int32_t partition = key.at ? building_partition(key.at, key.size, count) : keyless;
        memcpy(to, &partition, sizeof partition);
    }
    close_part(&part);
    return answer;
}

static PyMethodDef methods[] = {
    {"encode", encode, METH_VARARGS, "One batch of the records of all pieces."},
    {"partitions", partitions, METH_VARARGS, "The partition of each packed record, as int32."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    (void)module;
    batches_prepare();
    return 0;
}

static struct PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "streamapp.transport.kafka._departing", "C extension of streamapp.transport.kafka.departing.",
    0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__departing(void) { return PyModuleDef_Init(&module); }
