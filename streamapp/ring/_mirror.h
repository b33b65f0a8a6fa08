/* A column mapped twice back to back; see _mirror.c. */
#ifndef STREAMAPP_RING_MIRROR_H
#define STREAMAPP_RING_MIRROR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

extern PyType_Spec mirror_spec;

/* The bytes [offset, offset + bytes) of the file, two times in a row; None where pages do not allow it. */
PyObject *mirror_new(PyTypeObject *type, int fd, uint64_t offset, uint64_t bytes, int writable);

#endif
