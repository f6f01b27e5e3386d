/*
 * What libLiteRt.so for aarch64 wants of glibc 2.32 to 2.34 and of libstdc++ 11, for systems that have glibc 2.31
 * (docs/adr/0041-litert-in-the-binaries.md). Where the system's own libraries have these names too, either may be found.
 * Linked with libpthread and libdl, which became parts of libc in 2.34.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>

struct mallinfo2 { size_t fields[10]; };
void std_throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv");
void std_throw_bad_array_new_length(void) __asm__("_ZSt28__throw_bad_array_new_lengthv");

/* Whether locks may be left out: never. */
char __libc_single_threaded = 0;

/* Functions of their own since 2.33; before, inline ones that call others. */
int stat(const char *restrict path, struct stat *restrict found) { return fstatat(AT_FDCWD, path, found, 0); }
int fstat(int fd, struct stat *found) { return fstatat(fd, "", found, AT_EMPTY_PATH); }

/* Figures for a profile that the agent does not ask for. */
struct mallinfo2 mallinfo2(void) { return (struct mallinfo2){{0}}; }

/* Its exception is a bad_alloc. */
void std_throw_bad_array_new_length(void) { std_throw_bad_alloc(); }
