/* streamapp.transport.local._rows: records to what SQLite is given of each, and rows to packed records.
 *
 * sqlite3 asks of every value how it is adapted, unless it is a number, a text or a bytearray; for one of a few hundred
 * bytes that takes longer than a copy.
 *
 * A row has its headers as msgpack, an array of [name, value] (https://github.com/msgpack/msgpack/blob/master/spec.md);
 * a packed record has them as Kafka writes them, behind their count.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#include "../../core/_packed.h"

#define COLUMNS 5              /* of a row: position or offset, timestamp, key, value, headers */
#define COPIED_BYTES_MAX 65536 /* larger ones are adapted */
#define ARRAY_HEAD_MAX 5       /* bytes */
#define HEADER_MORE_MAX 9      /* bytes that a header takes in msgpack at most beyond those it takes in Kafka's form */

/* -- msgpack */

/* How something with a size begins: short ones in a byte of `fixed` and size, others in one that says how many bytes
 * (`bytes`, or 2 or 4 times as many) of the size follow. */
struct form {
    uint8_t fixed, fixed_count, sized;
    int bytes;
};

static const struct form ARRAY = {0x90, 16, 0xdc, 2}, STR = {0xa0, 32, 0xd9, 1}, BIN = {0, 0, 0xc4, 1};

static uint8_t *put_head(uint8_t *to, struct form form, size_t size) {
    if (size < form.fixed_count) {
        *to++ = (uint8_t)(form.fixed | size);
        return to;
    }
    for (; form.bytes < 4 && size >> 8 * form.bytes; form.bytes *= 2)
        form.sized++;
    *to++ = form.sized;
    for (int n = form.bytes; n--;)
        *to++ = (uint8_t)(size >> 8 * n);
    return to;
}

static uint8_t *put_text(uint8_t *to, struct form form, const uint8_t *text, size_t size) {
    to = put_head(to, form, size);
    if (size)
        memcpy(to, text, size);
    return to + size;
}

/* -1: it is of another form. */
static int take_head(const uint8_t **at, const uint8_t *end, struct form form, size_t *size) {
    if (*at == end)
        return -1;
    uint8_t head = *(*at)++;
    if (head >= form.fixed && head < form.fixed + form.fixed_count) {
        *size = (size_t)(head - form.fixed);
        return 0;
    }
    for (; form.bytes < 4 && head != form.sized; form.bytes *= 2)
        form.sized++;
    if (head != form.sized || end - *at < form.bytes)
        return -1;
    for (*size = 0; form.bytes--;)
        *size = *size << 8 | *(*at)++;
    return 0;
}

static int take_text(const uint8_t **at, const uint8_t *end, struct form form, const uint8_t **text, size_t *size) {
    if (take_head(at, end, form, size) || *size > (size_t)(end - *at))
        return -1;
    *text = *at;
    *at += *size;
    return 0;
}

/* -- headers */

static int take_header(const uint8_t **at, const uint8_t *end, const uint8_t **name, int32_t *name_size,
                       const uint8_t **value, int32_t *value_size) { /* -1: there is none */
    if (packed_bytes(at, end, name, name_size) || *name_size < 0)
        return -1;
    return packed_bytes(at, end, value, value_size);
}

/* Kafka's to msgpack.  NULL, with an exception. */
static PyObject *to_msgpack(const uint8_t *at, size_t size) {
    const uint8_t *const end = at + size, *name, *value;
    int32_t name_size, value_size;
    size_t count = 0;
    for (const uint8_t *next = at; next < end; count++)
        if (take_header(&next, end, &name, &name_size, &value, &value_size)) {
            PyErr_SetString(PyExc_ValueError, "a packed record's headers are none");
            return NULL;
        }
    PyObject *made = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(ARRAY_HEAD_MAX + size + HEADER_MORE_MAX * count));
    if (!made)
        return NULL;
    uint8_t *const first = (uint8_t *)PyByteArray_AsString(made), *to = put_head(first, ARRAY, count);
    while (at < end && !take_header(&at, end, &name, &name_size, &value, &value_size)) {
        to = put_text(put_head(to, ARRAY, 2), STR, name, (size_t)name_size);
        to = put_text(to, BIN, value, value_size < 0 ? 0 : (size_t)value_size); /* no value is read as an empty one */
    }
    if (PyByteArray_Resize(made, to - first))
        Py_CLEAR(made);
    return made;
}

/* msgpack to Kafka's, which never takes more bytes.  NULL: these are no headers. */
static uint8_t *put_headers(uint8_t *to, const uint8_t *at, size_t size) {
    const uint8_t *const end = at + size, *name, *value;
    size_t count, two, name_size, value_size;
    if (take_head(&at, end, ARRAY, &count))
        return NULL;
    while (count--) {
        if (take_head(&at, end, ARRAY, &two) || two != 2 || take_text(&at, end, STR, &name, &name_size) ||
            take_text(&at, end, BIN, &value, &value_size))
            return NULL;
        to = packed_put_bytes(to, name, name_size);
        to = packed_put_bytes(to, value, value_size);
    }
    return at == end ? to : NULL;
}

/* -- records to columns */

/* As a bytearray, or as it is.  NULL, with an exception. */
static PyObject *bound(PyObject *object) {
    char *bytes;
    Py_ssize_t size;
    if (!PyBytes_CheckExact(object) || (size = PyBytes_Size(object)) > COPIED_BYTES_MAX)
        return Py_NewRef(object);
    return PyBytes_AsStringAndSize(object, &bytes, &size) ? NULL : PyByteArray_FromStringAndSize(bytes, size);
}

/* A row of Python's has its partition where its position is to be. */
static PyObject *bindings_of_rows(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *rows, *positions;
    if (!PyArg_ParseTuple(args, "O!O!:bindings_of_rows", &PyTuple_Type, &rows, &PyList_Type, &positions))
        return NULL;
    Py_ssize_t count = PyTuple_Size(rows);
    int failed = PyList_Size(positions) != count;
    for (Py_ssize_t n = 0; !failed && n < count; n++)
        failed = !PyTuple_Check(PyTuple_GetItem(rows, n)) || PyTuple_Size(PyTuple_GetItem(rows, n)) != COLUMNS;
    if (failed) {
        PyErr_SetString(PyExc_TypeError, "a row is a tuple of five, and has a position");
        return NULL;
    }
    PyObject *columns = PyList_New(COLUMNS * count);
    for (Py_ssize_t n = 0; columns && n < count; n++) {
        PyObject *row = PyTuple_GetItem(rows, n);
        failed = PyList_SetItem(columns, COLUMNS * n, Py_NewRef(PyList_GetItem(positions, n)));
        for (int column = 1; !failed && column < COLUMNS; column++) {
            PyObject *value = bound(PyTuple_GetItem(row, column));
            failed = !value || PyList_SetItem(columns, COLUMNS * n + column, value);
        }
        if (failed)
            Py_CLEAR(columns);
    }
    return columns;
}

/* Bytes of the buffer, None where there are none; with an exception NULL. */
static PyObject *cut(const Py_buffer *data, int32_t at, int32_t size, int is_headers) {
    if (size < 0 || (is_headers && !size))
        return Py_NewRef(Py_None);
    if (at < 0 || at > data->len || size > data->len - at) {
        PyErr_SetString(PyExc_ValueError, "a packed record is not in its buffer");
        return NULL;
    }
    const char *first = (const char *)data->buf + at;
    return is_headers ? to_msgpack((const uint8_t *)first, (size_t)size) : PyByteArray_FromStringAndSize(first, size);
}

static int add_packed(PyObject *columns, Py_ssize_t n, const Py_buffer *data, const struct packed_place *place) {
    PyObject *row[COLUMNS] = {
        PyLong_FromLongLong(place->offset),
        PyLong_FromLongLong(place->timestamp_ms),
        cut(data, place->key_at, place->key_size, 0),
        cut(data, place->value_at, place->value_size, 0),
        cut(data, place->headers_at, place->headers_size, 1),
    };
    int failed = 0;
    for (int column = 0; column < COLUMNS; column++)
        failed |= !row[column] || PyList_SetItem(columns, COLUMNS * n + column, row[column]);
    return failed ? -1 : 0;
}

static PyObject *bindings_of_packed(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer data, places;
    struct packed_place place;
    if (!PyArg_ParseTuple(args, "y*y*:bindings_of_packed", &data, &places))
        return NULL;
    Py_ssize_t count = places.len / (Py_ssize_t)sizeof place;
    PyObject *columns = PyList_New(COLUMNS * count);
    for (Py_ssize_t n = 0; columns && n < count; n++) {
        memcpy(&place, (const char *)places.buf + n * (Py_ssize_t)sizeof place, sizeof place);
        if (add_packed(columns, n, &data, &place))
            Py_CLEAR(columns);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&places);
    return columns;
}

/* -- rows to packed records */

struct columns {
    int64_t offset, timestamp_ms;
    char *text[3]; /* key, value, headers */
    Py_ssize_t size[3];
};

static int take_row(PyObject *row, struct columns *columns) { /* -1, with an exception */
    if (!PyTuple_Check(row) || PyTuple_Size(row) != COLUMNS) {
        PyErr_SetString(PyExc_TypeError, "a row is a tuple of five");
        return -1;
    }
    columns->offset = PyLong_AsLongLong(PyTuple_GetItem(row, 0));
    columns->timestamp_ms = PyLong_AsLongLong(PyTuple_GetItem(row, 1));
    if (PyErr_Occurred())
        return -1;
    for (int n = 0; n < 3; n++) {
        PyObject *object = PyTuple_GetItem(row, n + 2);
        columns->size[n] = -1;
        if (object != Py_None && PyBytes_AsStringAndSize(object, &columns->text[n], &columns->size[n]))
            return -1;
    }
    return 0;
}

static Py_ssize_t bytes_of(const struct columns *columns, int count) {
    Py_ssize_t size = 0;
    for (int n = 0; n < count; n++)
        size += columns->size[n] < 0 ? 0 : columns->size[n];
    return size;
}

/* Rows until their bytes reach `bytes_max`; no more are asked for.  Their bytes, and those of keys and values alone.
 * NULL, with an exception. */
static PyObject *fitting(PyObject *source, Py_ssize_t bytes_max, Py_ssize_t *room, Py_ssize_t *counted) {
    struct columns columns;
    PyObject *row, *next = PyObject_GetIter(source), *rows = next ? PyList_New(0) : NULL;
    *room = *counted = 0;
    while (rows && (row = PyIter_Next(next))) {
        if (take_row(row, &columns) || PyList_Append(rows, row)) {
            Py_CLEAR(rows);
        } else {
            *room += bytes_of(&columns, 3);
            *counted += bytes_of(&columns, 2);
        }
        Py_DECREF(row);
        if (*room >= bytes_max)
            break;
    }
    Py_XDECREF(next);
    if (*room > INT32_MAX)
        PyErr_SetString(PyExc_OverflowError, "rows for one buffer have more than 2 GiB");
    if (PyErr_Occurred())
        Py_CLEAR(rows);
    return rows;
}

/* Its place, and where its bytes end.  NULL, with an exception. */
static uint8_t *put_row(uint8_t *to, const uint8_t *data, PyObject *row, struct packed_place *place) {
    struct columns columns;
    if (take_row(row, &columns))
        return NULL;
    *place = (struct packed_place){.offset = columns.offset, .timestamp_ms = columns.timestamp_ms};
    int32_t *parts[] = {&place->key_at, &place->key_size, &place->value_at, &place->value_size};
    for (int n = 0; n < 2; n++) {
        *parts[2 * n] = (int32_t)(to - data);
        *parts[2 * n + 1] = (int32_t)columns.size[n];
        if (columns.size[n] > 0) {
            memcpy(to, columns.text[n], (size_t)columns.size[n]);
            to += columns.size[n];
        }
    }
    place->headers_at = (int32_t)(to - data);
    uint8_t *end = to;
    if (columns.size[2] >= 0)
        end = put_headers(to, (const uint8_t *)columns.text[2], (size_t)columns.size[2]);
    if (!end) {
        PyErr_SetString(PyExc_ValueError, "a row's headers are none");
        return NULL;
    }
    place->headers_size = (int32_t)(end - to);
    return end;
}

static PyObject *pack(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *source, *answer = NULL;
    Py_ssize_t bytes_max, room, counted;
    if (!PyArg_ParseTuple(args, "On:pack", &source, &bytes_max))
        return NULL;
    PyObject *rows = fitting(source, bytes_max, &room, &counted);
    if (!rows)
        return NULL;
    struct packed_place place;
    Py_ssize_t count = PyList_Size(rows);
    PyObject *data = PyBytes_FromStringAndSize(NULL, room);
    PyObject *places = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof place);
    uint8_t *const first = data && places ? (uint8_t *)PyBytes_AsString(data) : NULL, *to = first;
    for (Py_ssize_t n = 0; to && n < count; n++) {
        to = put_row(to, first, PyList_GetItem(rows, n), &place);
        if (to)
            memcpy(PyBytes_AsString(places) + n * (Py_ssize_t)sizeof place, &place, sizeof place);
    }
    if (to) {
        memset(to, 0, (size_t)(room - (to - first))); /* what msgpack took more */
        answer = Py_BuildValue("OOn", data, places, counted);
    }
    Py_DECREF(rows);
    Py_XDECREF(data);
    Py_XDECREF(places);
    return answer;
}

static PyMethodDef methods[] = {
    {"bindings_of_rows", bindings_of_rows, METH_VARARGS, "Columns of rows at these positions, row by row."},
    {"bindings_of_packed", bindings_of_packed, METH_VARARGS, "Columns of packed records, record by record."},
    {"pack", pack, METH_VARARGS, "Rows as packed records: buffer, places, bytes of keys and values."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "streamapp.transport.local._rows", "C extension of streamapp.transport.local.rows.",
    0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rows(void) { return PyModuleDef_Init(&module); }
