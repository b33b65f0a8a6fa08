/* streamapp.sink._keys: sixteen bytes for each (source, id) of a batch, in one call.
 *
 * SipHash-2-4 with 128 bits (Aumasson and Bernstein, https://eprint.iacr.org/2012/351; the reference code's variant
 * for 128 bits), over the length of the source, the source and the id. Who does not know the secret cannot choose ids
 * that collide with others'.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Arrow's buffers are taken as they are: the CPU must be little-endian"
#endif

#define KEY_BYTES 16

struct sip {
    uint64_t v0, v1, v2, v3;
    uint64_t tail; /* bytes that make no word yet, from the lowest on */
    uint64_t size;
};

static uint64_t rotated(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static void rounds(struct sip *s, int n) {
    while (n--) {
        s->v0 += s->v1, s->v1 = rotated(s->v1, 13) ^ s->v0, s->v0 = rotated(s->v0, 32);
        s->v2 += s->v3, s->v3 = rotated(s->v3, 16) ^ s->v2;
        s->v0 += s->v3, s->v3 = rotated(s->v3, 21) ^ s->v0;
        s->v2 += s->v1, s->v1 = rotated(s->v1, 17) ^ s->v2, s->v2 = rotated(s->v2, 32);
    }
}

static void take_word(struct sip *s, uint64_t word) {
    s->v3 ^= word;
    rounds(s, 2);
    s->v0 ^= word;
}

static void take(struct sip *s, const uint8_t *at, size_t size) {
    size_t filled = s->size % 8;
    s->size += size;
    for (; filled && size; size--, at++) {
        s->tail |= (uint64_t)*at << 8 * filled;
        filled = (filled + 1) % 8;
        if (!filled)
            take_word(s, s->tail), s->tail = 0;
    }
    for (uint64_t word; size >= 8; size -= 8, at += 8) {
        memcpy(&word, at, 8);
        take_word(s, word);
    }
    for (; size; size--, at++, filled++)
        s->tail |= (uint64_t)*at << 8 * filled;
}

static void begin(struct sip *s, const uint64_t secret[2]) {
    *s = (struct sip){.v0 = secret[0] ^ 0x736f6d6570736575, .v1 = secret[1] ^ 0x646f72616e646f6d ^ 0xee,
                      .v2 = secret[0] ^ 0x6c7967656e657261, .v3 = secret[1] ^ 0x7465646279746573};
}

static void end(struct sip *s, uint64_t key[2]) {
    take_word(s, s->tail | s->size << 56);
    s->v2 ^= 0xee;
    rounds(s, 4);
    key[0] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
    s->v1 ^= 0xdd;
    rounds(s, 4);
    key[1] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* A column of Arrow's strings: 32-bit offsets and the bytes between them. */
struct strings {
    const int32_t *offsets;
    const uint8_t *bytes;
};

/* 0, with an exception, when the buffers cannot hold rows `first` to `first + n` of such a column. */
static int strings_of(const Py_buffer *offsets, const Py_buffer *bytes, Py_ssize_t first, Py_ssize_t n,
                      struct strings *column) {
    column->offsets = (const int32_t *)offsets->buf + first;
    column->bytes = bytes->buf;
    int good = (size_t)first + (size_t)n < (size_t)offsets->len / 4;
    for (Py_ssize_t row = 0; good && row < n; row++)
        good = column->offsets[row] <= column->offsets[row + 1];
    if (good && column->offsets[0] >= 0 && column->offsets[n] <= bytes->len)
        return 1;
    PyErr_SetString(PyExc_ValueError, "these are not the buffers of that many strings");
    return 0;
}

static PyObject *keys_of(const struct strings *sources, const struct strings *ids, Py_ssize_t n,
                         const uint64_t secret[2]) {
    PyObject *keys = PyList_New(n);
    for (Py_ssize_t row = 0; keys && row < n; row++) {
        const int32_t *source = sources->offsets + row, *id = ids->offsets + row;
        uint64_t source_size = (uint64_t)(source[1] - source[0]), key[2];
        struct sip sip;
        begin(&sip, secret);
        take(&sip, (const uint8_t *)&source_size, sizeof source_size);
        take(&sip, sources->bytes + source[0], (size_t)source_size);
        take(&sip, ids->bytes + id[0], (size_t)(id[1] - id[0]));
        end(&sip, key);
        PyObject *made = PyBytes_FromStringAndSize((const char *)key, KEY_BYTES);
        if (!made || PyList_SetItem(keys, row, made))
            Py_CLEAR(keys);
    }
    return keys;
}

/* siphash(source_offsets, source_bytes, source_first, id_offsets, id_bytes, id_first, n, secret) -> list of bytes */
static PyObject *siphash(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer given[5] = {0};
    Py_ssize_t source_first, id_first, n;
    if (!PyArg_ParseTuple(args, "y*y*ny*y*nny*", &given[0], &given[1], &source_first, &given[2], &given[3], &id_first,
                          &n, &given[4]))
        return NULL;
    struct strings sources, ids;
    uint64_t secret[2];
    PyObject *keys = NULL;
    if (given[4].len != sizeof secret || n < 0 || source_first < 0 || id_first < 0) {
        PyErr_SetString(PyExc_ValueError, "a secret has 16 bytes, and rows are not negative");
    } else if (strings_of(&given[0], &given[1], source_first, n, &sources) &&
               strings_of(&given[2], &given[3], id_first, n, &ids)) {
        memcpy(secret, given[4].buf, sizeof secret);
        keys = keys_of(&sources, &ids, n, secret);
    }
    for (size_t i = 0; i < 5; i++)
        PyBuffer_Release(&given[i]);
    return keys;
}

static PyMethodDef methods[] = {
    {"siphash", siphash, METH_VARARGS, "The keys of rows, from the buffers of their sources and ids and a secret."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "streamapp.sink._keys", "C extension of streamapp.sink.window.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__keys(void) { return PyModuleDef_Init(&module); }
