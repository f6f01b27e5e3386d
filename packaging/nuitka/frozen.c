/*
 * The modules that are frozen into CPython as C data, without those that this program has as byte code. 1.5 MB of objects,
 * and as much of relocations, by which each start would write to every page of them.
 *
 * wheels.sh makes the definitions of CPython's own weak; the linker then drops what only those refer to.
 */
#include <Python.h>

int _PyStaticCode_InternStrings(PyCodeObject *code);
int _Py_Deepfreeze_Init(void);
void _Py_Deepfreeze_Fini(void);
PyObject *_Py_get_importlib__bootstrap_toplevel(void);
PyObject *_Py_get_importlib__bootstrap_external_toplevel(void);
PyObject *_Py_get_zipimport_toplevel(void);

static const struct _frozen none[] = {{0}};
extern const struct _frozen *_PyImport_FrozenStdlib, *_PyImport_FrozenTest;
const struct _frozen *_PyImport_FrozenStdlib = none;
const struct _frozen *_PyImport_FrozenTest = none;

/* What import itself is made of. */
int _Py_Deepfreeze_Init(void) {
    PyObject *(*const modules[])(void) = {
        _Py_get_importlib__bootstrap_toplevel,
        _Py_get_importlib__bootstrap_external_toplevel,
        _Py_get_zipimport_toplevel,
    };
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        PyObject *code = modules[i]();
        int failed = _PyStaticCode_InternStrings((PyCodeObject *)code) < 0;
        Py_DECREF(code);
        if (failed) return -1;
    }
    return 0;
}

/* At the process's end: nothing to free that the system does not. */
void _Py_Deepfreeze_Fini(void) {}
