/* Preloaded into the agent: a write to a file with STALL_WORD in its name waits while the file STALL_WHILE is there, as
   one to a worn SD card does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    char link[64], path[4096];
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "write");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        while (strstr(path, getenv("STALL_WORD")) && !access(getenv("STALL_WHILE"), F_OK))
            usleep(10000);
    }
    return real(fd, data, size);
}
