/* Make writing fail: preloaded into a process (LD_PRELOAD), this refuses calls on files as a full, failing or
 * forbidding disk does.
 *
 * The environment says what, and is looked at anew at each call:
 *   FAILING_WRITES_PATH    a part of the path of the files that are meant; without it nothing fails
 *   FAILING_WRITES_CALLS   the calls that are meant, such as "write,fsync"; all without it
 *   FAILING_WRITES_ERRNO   the error's number; without it none fails
 *   FAILING_WRITES_AFTER   how many of these calls succeed first
 *   FAILING_WRITES_TIMES   how many fail then; all without it
 *   FAILING_WRITES_LOG     a file that gets a line for each such call
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static long number(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

/* Tell whether this call is to fail; errno is set then. */
static int fails(const char *call, const char *path) {
    const char *part = getenv("FAILING_WRITES_PATH"), *meant = getenv("FAILING_WRITES_CALLS");
    const char *log = getenv("FAILING_WRITES_LOG");
    long error = number("FAILING_WRITES_ERRNO", 0), after = number("FAILING_WRITES_AFTER", 0), at;
    char word[32], words[256], line[4200];
    if (!part || !path || !strstr(path, part)) return 0;
    snprintf(word, sizeof word, ",%s,", call);
    snprintf(words, sizeof words, ",%s,", meant ? meant : call);
    if (!strstr(words, word)) return 0;
    if (log) { /* past the calls below: they would log this one too */
        int file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        syscall(SYS_write, file, line, (size_t)snprintf(line, sizeof line, "%s %s\n", call, path));
        syscall(SYS_close, file);
    }
    at = atomic_fetch_add(&calls, 1);
    if (!error || at < after || at - after >= number("FAILING_WRITES_TIMES", 1L << 40)) return 0;
    errno = (int)error;
    return 1;
}

static int fails_at(const char *call, int descriptor) {
    char link[64], path[4096];
    ssize_t length;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* A call on an open file, and one on a path. */
#define ON_FILE(result, name, call, given, passed) \
    result name given { REAL(name); return fails_at(call, fd) ? (result)-1 : real passed; }
#define ON_PATH(result, name, call, given, passed) \
    result name given { REAL(name); return fails(call, path) ? (result)-1 : real passed; }

ON_FILE(ssize_t, write, "write", (int fd, const void *data, size_t size), (fd, data, size))
ON_FILE(ssize_t, writev, "write", (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_FILE(ssize_t, pwrite, "write", (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
ON_FILE(ssize_t, pwrite64, "write", (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
ON_FILE(int, ftruncate, "truncate", (int fd, off_t size), (fd, size))
ON_FILE(int, ftruncate64, "truncate", (int fd, off64_t size), (fd, size))
ON_FILE(int, fsync, "fsync", (int fd), (fd))
ON_FILE(int, fdatasync, "fsync", (int fd), (fd))
ON_PATH(int, mkdir, "mkdir", (const char *path, mode_t mode), (path, mode))
ON_PATH(int, rename, "rename", (const char *path, const char *target), (path, target))
ON_PATH(int, renameat, "rename", (int folder, const char *path, int other, const char *target),
        (folder, path, other, target))
ON_PATH(int, renameat2, "rename", (int folder, const char *path, int other, const char *target, unsigned flags),
        (folder, path, other, target, flags))

/* The kernel lets go of the file whatever it says. Closing what was only read has nothing to fail at. */
int close(int fd) {
    REAL(close);
    int flags = fcntl(fd, F_GETFL), failed = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && fails_at("close", fd);
    int error = errno, result = real(fd);
    if (failed) errno = error;
    return failed ? -1 : result;
}

ssize_t sendfile64(int fd, int from, off64_t *at, size_t size);
ON_FILE(ssize_t, sendfile64, "write", (int fd, int from, off64_t *at, size_t size), (fd, from, at, size))
ssize_t sendfile(int fd, int from, off_t *at, size_t size);
ON_FILE(ssize_t, sendfile, "write", (int fd, int from, off_t *at, size_t size), (fd, from, at, size))

static mode_t mode_of(int flags, va_list more) { return flags & O_CREAT ? (mode_t)va_arg(more, int) : 0; }

#define OPEN(name, given, passed) \
    int name given { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        return (flags & O_ACCMODE) != O_RDONLY && fails("open", path) ? -1 : real passed; \
    }
OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
