/* A preloaded library that makes system calls fail on paths that contain FAULT_PATH.
 *
 * FAULT_ERRNO is the error number. FAULT_AT selects the call: "open", "stat" (of an open file),
 * "list" (opening a folder), or the offset of a byte that cannot be read: a read that begins before
 * the byte ends there, one that begins at the byte fails, and later bytes can be read. With
 * FAULT_WHILE, calls fail only while a file of that name exists. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int fail(void) {
    errno = atoi(getenv("FAULT_ERRNO"));
    return -1;
}

static int fails(const char *call, const char *path) {
    const char *at = getenv("FAULT_AT"), *part = getenv("FAULT_PATH");
    const char *flag = getenv("FAULT_WHILE");
    if (flag && access(flag, F_OK) != 0) return 0;
    return at && part && path && strcmp(at, call) == 0 && strstr(path, part) != NULL;
}

static int is_faulty(int fd) {
    const char *part = getenv("FAULT_PATH");
    char link[64], path[4096];
    if (!part || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

/* The number of readable bytes among `count` bytes from offset `from`; -1 if the first is bad. */
static ssize_t readable(int fd, off_t from, size_t count) {
    const char *at = getenv("FAULT_AT");
    if (!at || at[0] < '0' || at[0] > '9' || !is_faulty(fd)) return (ssize_t)count;
    off_t bad = atoll(at);
    if (bad < from || bad >= from + (off_t)count) return (ssize_t)count;
    return bad == from ? -1 : (ssize_t)(bad - from);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = va_arg(rest, int); \
        va_end(rest); \
        return fails("open", path) ? fail() : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = va_arg(rest, int); \
        va_end(rest); \
        return fails("open", path) ? fail() : real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    if (!fails("list", path)) return real(path);
    fail();
    return NULL;
}

static int fails_stat(int fd) {
    const char *at = getenv("FAULT_AT");
    return at && strcmp(at, "stat") == 0 && is_faulty(fd);
}

int fstat(int fd, struct stat *into) {
    REAL(int, "fstat", int, struct stat *);
    return fails_stat(fd) ? fail() : real(fd, into);
}

int fstat64(int fd, struct stat64 *into) {
    REAL(int, "fstat64", int, struct stat64 *);
    return fails_stat(fd) ? fail() : real(fd, into);
}

int statx(int folder, const char *restrict path, int flags, unsigned mask,
          struct statx *restrict into) {
    REAL(int, "statx", int, const char *, int, unsigned, struct statx *);
    /* The header declares `path` as nonnull, but callers pass null: `volatile` keeps the check. */
    const char *volatile given = path;
    int is_open_file = given && given[0] == 0;
    return is_open_file && fails_stat(folder) ? fail() : real(folder, path, flags, mask, into);
}

ssize_t read(int fd, void *into, size_t count) {
    REAL(ssize_t, "read", int, void *, size_t);
    off_t from = getenv("FAULT_AT") ? lseek(fd, 0, SEEK_CUR) : -1;
    ssize_t most = from < 0 ? (ssize_t)count : readable(fd, from, count);
    return most < 0 ? fail() : real(fd, into, (size_t)most);
}

#define PREAD(name, offset) \
    ssize_t name(int fd, void *into, size_t count, offset from) { \
        REAL(ssize_t, #name, int, void *, size_t, offset); \
        ssize_t most = readable(fd, from, count); \
        return most < 0 ? fail() : real(fd, into, (size_t)most, from); \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

ssize_t readv(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "readv", int, const struct iovec *, int);
    if (!getenv("FAULT_AT") || count == 0) return real(fd, parts, count);
    return read(fd, parts[0].iov_base, parts[0].iov_len);
}
