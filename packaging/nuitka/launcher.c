/*
 * The one file of the release: a static program with the real one behind it, packed.
 *
 *     ELF | payload: a tar archive in zstd, with its checksum | trailer: one line of TRAILER_BYTES
 *
 * The first start unpacks the payload into a cache directory, and every start replaces this process by the program
 * in there (execve): one process, so service manager messages, signals, the watchdog and exit codes need no help.
 *
 * The cache must belong to the user or to root, on a path that nobody else can change, where programs may run. It is
 * never a shared temporary directory. Unpacked files are synced before the rename that makes them valid, so a power
 * cut leaves either all or nothing. A shared lock on the directory is held as long as the program runs: unpacking a
 * new version removes the old ones that nobody holds.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
    TRAILER_BYTES = 128,
    TAR_BLOCK = 512,
    WINDOW_LOG = 25, /* the decoder takes this much memory, once: 32 MiB */
    SPARE_BYTES = 4 << 20,
    EXIT_CANNOT_UNPACK = 71, /* EX_OSERR */
};

#define PRODUCT "sagemaker-edge-agent"
#define PROGRAM "sagemaker_edge_agent"
#define SUFFIX ".unpacked"
#define MAGIC "sagemaker-edge-payload-1"

/* The compiler's unwinder wants this of a newer C library than the one linked here; -1: look the long way. */
int _dl_find_object(void *address, void *result);
int _dl_find_object(void *address, void *result) { return (void)address, (void)result, -1; }

typedef struct {
    const uint8_t *data; /* mapped */
    size_t size;
    unsigned long long unpacked_bytes;
    char id[33]; /* names this build's directory */
} Payload;

static char reasons[8192]; /* why each place was passed over, a line each */

static void reason(const char *place, const char *format, ...) {
    size_t used = strlen(reasons);
    va_list list;
    used += (size_t)snprintf(reasons + used, sizeof reasons - used, "  %s: ", place);
    if (used >= sizeof reasons) return;
    va_start(list, format);
    used += (size_t)vsnprintf(reasons + used, sizeof reasons - used, format, list);
    va_end(list);
    if (used < sizeof reasons - 1) strcpy(reasons + used, "\n");
}

/* A file may be started by who cannot read it, but what is packed in it not; no mode of it is changed here. */
static int open_own_file(void) {
    const char *path = (const char *)getauxval(AT_EXECFN);
    struct stat file;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) return fd;
    if (errno == EACCES) {
        bool owner = !stat(path, &file) && file.st_uid == geteuid();
        fprintf(stderr, PROGRAM ": this file cannot be read by its user: chmod %s %s\n", owner ? "0550" : "a+r", path);
    } else {
        fprintf(stderr, PROGRAM ": cannot open its own file, /proc/self/exe: %s\n", strerror(errno));
    }
    return -1;
}

static bool read_payload(Payload *payload) {
    char trailer[TRAILER_BYTES + 1] = "";
    unsigned long long offset, size;
    struct stat file;
    int fd = open_own_file();
    if (fd < 0) return false;
    if (fstat(fd, &file) || file.st_size < TRAILER_BYTES ||
        pread(fd, trailer, TRAILER_BYTES, file.st_size - TRAILER_BYTES) != TRAILER_BYTES ||
        sscanf(trailer, MAGIC " %llu %llu %llu %32[0-9a-f]", &offset, &size, &payload->unpacked_bytes, payload->id) != 4 ||
        offset > (unsigned long long)file.st_size - TRAILER_BYTES ||
        size != (unsigned long long)file.st_size - TRAILER_BYTES - offset) {
        fprintf(stderr, PROGRAM ": this file is damaged or was shortened; copy it again\n");
        return false;
    }
    long page = sysconf(_SC_PAGESIZE);
    off_t start = (off_t)offset / page * page;
    uint8_t *mapped = mmap(NULL, (size_t)(file.st_size - start), PROT_READ, MAP_PRIVATE, fd, start);
    close(fd);
    if (mapped == MAP_FAILED) {
        perror(PROGRAM ": cannot map its own file");
        return false;
    }
    payload->data = mapped + (offset - (unsigned long long)start);
    payload->size = (size_t)size;
    return true;
}

/* ---- Unpacking: bytes of a tar archive arrive in pieces; only plain files and directories with plain names. ---- */

typedef struct {
    int root;           /* directory everything goes below */
    int file;           /* open while its bytes arrive, else -1 */
    uint64_t remaining; /* bytes of the current file still to come */
    uint64_t padding;   /* bytes after it up to the next block */
    uint8_t header[TAR_BLOCK];
    size_t header_bytes;
    bool ended;
} Untar;

static bool write_all(int fd, const uint8_t *data, size_t size) {
    while (size) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        data += written, size -= (size_t)written;
    }
    return true;
}

static bool plain_name(const char *name) {
    return name[0] && name[0] != '/' && strcmp(name, "..") && strncmp(name, "../", 3) && !strstr(name, "/../");
}

static bool begin_entry(Untar *tar) {
    char name[101] = "", octal[13] = "";
    memcpy(name, tar->header, 100);
    if (!name[0]) return tar->ended = true;
    memcpy(octal, tar->header + 124, 12);
    tar->remaining = strtoull(octal, NULL, 8);
    tar->padding = (TAR_BLOCK - tar->remaining % TAR_BLOCK) % TAR_BLOCK;
    memcpy(octal, tar->header + 100, 8);
    octal[8] = '\0';
    mode_t mode = (mode_t)strtoul(octal, NULL, 8) & 0755;
    if (!plain_name(name)) return errno = EINVAL, false;
    if (tar->header[156] == '5') return !mkdirat(tar->root, name, 0755) || errno == EEXIST;
    if (tar->header[156] != '0') return errno = EINVAL, false;
    tar->file = openat(tar->root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (tar->file >= 0) fchmod(tar->file, mode);
    return tar->file >= 0;
}

static bool feed(Untar *tar, const uint8_t *data, size_t size) {
    while (size && !tar->ended) {
        size_t part;
        if (tar->remaining) {
            part = tar->remaining < size ? (size_t)tar->remaining : size;
            if (!write_all(tar->file, data, part)) return false;
            tar->remaining -= part;
        } else if (tar->padding) {
            part = tar->padding < size ? (size_t)tar->padding : size;
            tar->padding -= part;
        } else {
            part = TAR_BLOCK - tar->header_bytes < size ? TAR_BLOCK - tar->header_bytes : size;
            memcpy(tar->header + tar->header_bytes, data, part);
            tar->header_bytes += part;
            if (tar->header_bytes == TAR_BLOCK) {
                tar->header_bytes = 0;
                if (!begin_entry(tar)) return false;
            }
        }
        data += part, size -= part;
        if (!tar->remaining && tar->file >= 0) {
            int closed = close(tar->file);
            tar->file = -1;
            if (closed) return false;
        }
    }
    return true;
}

static bool unpack_into(const Payload *payload, int directory, const char *place) {
    static uint8_t piece[1 << 16];
    Untar tar = {.root = directory, .file = -1};
    ZSTD_DCtx *decoder = ZSTD_createDCtx();
    ZSTD_inBuffer in = {payload->data, payload->size, 0};
    size_t left = decoder ? ZSTD_DCtx_setParameter(decoder, ZSTD_d_windowLogMax, WINDOW_LOG) : 0;
    bool written = true, sound = decoder && !ZSTD_isError(left), more = sound;
    while (more && written) {
        ZSTD_outBuffer out = {piece, sizeof piece, 0};
        left = ZSTD_decompressStream(decoder, &out, &in);
        sound = !ZSTD_isError(left);
        if (sound) written = feed(&tar, piece, out.pos);
        /* Nothing came and nothing is left to read: the payload was cut short. */
        more = sound && left && (out.pos || in.pos < in.size);
    }
    int error = errno;
    ZSTD_freeDCtx(decoder);
    if (tar.file >= 0) close(tar.file);
    if (!written) {
        reason(place, "%s", strerror(error));
    } else if (!decoder || (!sound && ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation)) {
        reason(place, "%d MB of memory are needed for unpacking", (1 << WINDOW_LOG) / 1000000 + 2);
    } else if (!sound || left || !tar.ended) {
        reason(place, "the packed program is damaged (%s)", sound ? "it ends too early" : ZSTD_getErrorName(left));
    } else if (syncfs(directory)) {
        reason(place, "%s", strerror(errno));
    } else {
        return true;
    }
    return false;
}

static void remove_tree(int parent, const char *name) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    while (entries && (entry = readdir(entries))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (unlinkat(fd, entry->d_name, 0)) remove_tree(fd, entry->d_name);
    }
    if (entries) closedir(entries);
    unlinkat(parent, name, AT_REMOVEDIR);
}

/* ---- Where to unpack ---- */

static bool ours(const struct stat *file) { return file->st_uid == geteuid() || file->st_uid == 0; }

/* True if nobody but this user and root can change what `path` means. */
static bool safe_path(const char *path) {
    char real[PATH_MAX], part[PATH_MAX];
    struct stat file;
    if (!realpath(path, real)) return reason(path, "%s", strerror(errno)), false;
    for (char *end = real; end; end = strchr(end + 1, '/')) {
        size_t length = end == real ? 1 : (size_t)(end - real);
        memcpy(part, real, length);
        part[length] = '\0';
        if (lstat(part, &file)) return reason(path, "%s", strerror(errno)), false;
        if (!ours(&file) || ((file.st_mode & 022) && !(file.st_mode & S_ISVTX)))
            return reason(path, "others could change %s", part), false;
    }
    if (lstat(real, &file) || !ours(&file) || (file.st_mode & 022))
        return reason(path, "it must belong to this user or root, and no one else may write to it"), false;
    return true;
}

/* The unpacked program below `base`, held by a shared lock, or -1. */
static int open_unpacked(int base, const char *name) {
    struct stat file;
    int fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) return -1;
    if (fstat(fd, &file) || !ours(&file) || (file.st_mode & 022) || faccessat(fd, PROGRAM, X_OK, 0) ||
        flock(fd, LOCK_SH | LOCK_NB)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void remove_unused(int base, const char *keep) {
    int again = openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = again < 0 ? NULL : fdopendir(again);
    struct dirent *entry;
    while (entries && (entry = readdir(entries))) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || (strcmp(dot, SUFFIX) && strcmp(dot, ".part")) || !strcmp(entry->d_name, keep)) continue;
        int fd = openat(base, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) continue;
        if (!flock(fd, LOCK_EX | LOCK_NB)) remove_tree(base, entry->d_name);
        close(fd);
    }
    if (entries) closedir(entries);
}

static int unpack_below(const Payload *payload, int base, const char *place, const char *name) {
    char part[64];
    struct statvfs disk;
    int result = -1;
    int lock = openat(base, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0 || flock(lock, LOCK_EX)) return reason(place, "%s", strerror(errno)), -1;
    if ((result = open_unpacked(base, name)) >= 0) goto done; /* another start was first */
    remove_unused(base, name);
    remove_tree(base, name);
    if (!fstatvfs(base, &disk) && (uint64_t)disk.f_bavail * disk.f_frsize < payload->unpacked_bytes + SPARE_BYTES) {
        reason(place, "%llu MB are needed, %llu MB are free", (payload->unpacked_bytes + SPARE_BYTES) / 1000000,
               (unsigned long long)disk.f_bavail * disk.f_frsize / 1000000);
        goto done;
    }
    snprintf(part, sizeof part, "%ld.part", (long)getpid());
    int directory = mkdirat(base, part, 0700) ? -1 : openat(base, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (directory < 0) {
        reason(place, "%s", strerror(errno));
    } else {
        if (unpack_into(payload, directory, place) && !renameat(base, part, base, name) && !fsync(base))
            result = open_unpacked(base, name);
        if (result < 0) remove_tree(base, part);
        close(directory);
    }
done:
    close(lock);
    return result;
}

/* The directory of the unpacked program, open and locked, or -1 with a reason noted. */
static int try_place(const Payload *payload, const char *place) {
    char name[64];
    struct statvfs disk;
    if (mkdir(place, 0700) && errno != EEXIST) return reason(place, "%s", strerror(errno)), -1;
    if (!safe_path(place)) return -1;
    int base = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (base < 0) return reason(place, "%s", strerror(errno)), -1;
    snprintf(name, sizeof name, "%s" SUFFIX, payload->id);
    int result = -1;
    if (!fstatvfs(base, &disk) && (disk.f_flag & ST_NOEXEC)) {
        reason(place, "mounted noexec: no program can run from there");
    } else if ((result = open_unpacked(base, name)) < 0) {
        result = unpack_below(payload, base, place, name);
    }
    close(base);
    return result;
}

/* A directory given by the service manager (the first of a list) or the user, with our name below it if shared. */
static int try_variable(const Payload *payload, const char *variable, const char *below) {
    char place[PATH_MAX];
    const char *value = getenv(variable);
    if (!value || value[0] != '/') return -1;
    int length = (int)strcspn(value, ":");
    snprintf(place, sizeof place, "%.*s%s", length, value, below);
    return try_place(payload, place);
}

static int find_place(const Payload *payload) {
    static const char *const system_places[] = {"/var/cache/" PRODUCT, "/var/lib/" PRODUCT, "/run/" PRODUCT "-program"};
    static const struct { const char *variable, *below; } places[] = {
        {"CACHE_DIRECTORY", ""},
        {"STATE_DIRECTORY", "/program"},
        {"XDG_CACHE_HOME", "/" PRODUCT},
        {"HOME", "/.cache/" PRODUCT},
        {"RUNTIME_DIRECTORY", "/program"},
        {"XDG_RUNTIME_DIR", "/" PRODUCT},
    };
    char cache[PATH_MAX];
    int fd;
    if (getenv("SAGEMAKER_EDGE_UNPACK_DIR")) return try_variable(payload, "SAGEMAKER_EDGE_UNPACK_DIR", "");
    for (size_t i = 0; i < 2; i++)
        if ((fd = try_variable(payload, places[i].variable, places[i].below)) >= 0) return fd;
    if (geteuid() == 0)
        for (size_t i = 0; i < sizeof system_places / sizeof *system_places; i++)
            if ((fd = try_place(payload, system_places[i])) >= 0) return fd;
    if (getenv("HOME") && snprintf(cache, sizeof cache, "%s/.cache", getenv("HOME")) < (int)sizeof cache) mkdir(cache, 0700);
    for (size_t i = 2; i < sizeof places / sizeof *places; i++)
        if ((fd = try_variable(payload, places[i].variable, places[i].below)) >= 0) return fd;
    return -1;
}

static int unpack_for_packager(const Payload *payload, const char *place) {
    if (mkdir(place, 0755) && errno != EEXIST) return perror(place), EXIT_CANNOT_UNPACK;
    int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return perror(place), EXIT_CANNOT_UNPACK;
    if (unpack_into(payload, fd, place)) return 0;
    fprintf(stderr, PROGRAM ": cannot unpack:\n%s", reasons);
    return EXIT_CANNOT_UNPACK;
}

int main(int argc, char **argv) {
    Payload payload;
    char path[64];
    /* A closed standard descriptor would be given to the next file opened, here or in the program. */
    int null;
    while ((null = open("/dev/null", O_RDWR)) >= 0 && null <= STDERR_FILENO) continue;
    if (null > STDERR_FILENO) close(null);
    if (!read_payload(&payload)) return EXIT_CANNOT_UNPACK;
    if (argc == 3 && !strcmp(argv[1], "--unpack")) return unpack_for_packager(&payload, argv[2]);
    int fd = find_place(&payload);
    if (fd < 0) {
        fprintf(stderr,
                PROGRAM ": no place to unpack the program to:\n%s"
                        "Set SAGEMAKER_EDGE_UNPACK_DIR to a directory of this user with %llu MB free, where programs may run.\n",
                reasons, (payload.unpacked_bytes + SPARE_BYTES) / 1000000);
        return EXIT_CANNOT_UNPACK;
    }
    /* The program must find its files by a true path, and /proc may be restricted for it: resolve here. */
    char real[PATH_MAX];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, real, sizeof real - sizeof PROGRAM - 2);
    if (length < 0) return perror(PROGRAM), EXIT_CANNOT_UNPACK;
    strcpy(real + length, "/" PROGRAM);
    execv(real, argv);
    fprintf(stderr, PROGRAM ": cannot start %s: %s\n", real, strerror(errno));
    return EXIT_CANNOT_UNPACK;
}
