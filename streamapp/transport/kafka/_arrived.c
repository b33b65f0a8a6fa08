/* streamapp.transport.kafka._arrived: what _batches.c reads, for Python; without the interpreter lock. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

#include "_batches.h"

static PyObject *read_batches(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer data;
    Py_ssize_t at, enough;
    long long position;
    int check_crcs;
    if (!PyArg_ParseTuple(args, "y*nLnp:read_batches", &data, &at, &position, &enough, &check_crcs))
        return NULL;
    if (data.len > INT32_MAX || at < 0 || at > data.len || enough < 0 || position < 0) {
        PyErr_SetString(PyExc_ValueError, "at most 2 GB, and a place within it, are read from an offset of 0 or more");
        PyBuffer_Release(&data);
        return NULL;
    }
    struct batches batches = {
        .data = data.buf, .size = (size_t)data.len, .at = (size_t)at, .position = position, .check_crcs = check_crcs};
    int why;
    Py_BEGIN_ALLOW_THREADS
    why = batches_read(&batches, (size_t)enough);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    PyObject *answer = NULL;
    if (why == BATCHES_NO_MEMORY)
        PyErr_NoMemory();
    else
        answer = Py_BuildValue("y#nLi", batches.places ? (const char *)batches.places : "",
                               (Py_ssize_t)(batches.count * sizeof *batches.places), (Py_ssize_t)batches.at,
                               (long long)batches.position, why);
    free(batches.places);
    return answer;
}

/* Both ways, so that a test can compare them. */
static PyObject *crc32c(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "y*:crc32c", &data))
        return NULL;
    unsigned long fast = batches_crc32c(data.buf, (size_t)data.len);
    unsigned long portable = batches_crc32c_portable(data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    return Py_BuildValue("kk", fast, portable);
}

static PyMethodDef methods[] = {
    {"read_batches", read_batches, METH_VARARGS, "Places of records, where reading ended, the next offset, and why."},
    {"crc32c", crc32c, METH_VARARGS, "The checksum by the processor's instruction, if it has one, and by tables."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    batches_prepare();
    return PyModule_AddIntMacro(module, BATCHES_ENOUGH) || PyModule_AddIntMacro(module, BATCHES_END) ||
           PyModule_AddIntMacro(module, BATCHES_COMPRESSED) || PyModule_AddIntMacro(module, BATCHES_OLD) ||
           PyModule_AddIntMacro(module, BATCHES_CHECKSUM) || PyModule_AddIntMacro(module, BATCHES_MALFORMED);
}

static struct PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "streamapp.transport.kafka._arrived", "C extension of streamapp.transport.kafka.arrived.",
    0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__arrived(void) { return PyModuleDef_Init(&module); }
