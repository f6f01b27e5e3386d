/*
 * Byte code is kept packed in the program: thin.py packs it, and what Nuitka's loader reads a module from passes here.
 *
 *     'z' | bytes unpacked, 4 of them, the lowest first | zlib stream of a marshalled code object
 *
 * Anything else is a marshalled code object as it is: Python's own start reads some modules before this can.
 */
#undef PyMarshal_ReadObjectFromString
#include <Python.h>

#include <stdint.h>
#include <zlib.h>

PyObject *PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size);
PyObject *agent_read_code(const char *data, Py_ssize_t size);

enum { HEADER_BYTES = 5 };

PyObject *agent_read_code(const char *data, Py_ssize_t size) {
    const uint8_t *head = (const uint8_t *)data;
    if (size < HEADER_BYTES || data[0] != 'z') return PyMarshal_ReadObjectFromString(data, size);
    uLongf whole = head[1] | (uLongf)head[2] << 8 | (uLongf)head[3] << 16 | (uLongf)head[4] << 24;
    uLongf got = whole;
    Bytef *room = PyMem_RawMalloc(whole);
    if (!room) return PyErr_NoMemory();
    PyObject *code = NULL;
    if (uncompress(room, &got, head + HEADER_BYTES, (uLong)(size - HEADER_BYTES)) == Z_OK && got == whole) {
        code = PyMarshal_ReadObjectFromString((const char *)room, (Py_ssize_t)got);
    } else {
        PyErr_SetString(PyExc_ImportError, "the program's file is damaged: byte code cannot be unpacked");
    }
    PyMem_RawFree(room);
    return code;
}
