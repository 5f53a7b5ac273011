/* Preloaded into a test's child process: writes down every change of the files under SHIM_ROOT, in order, to SHIM_LOG,
 * and what the child says on its standard output in between; and makes calls fail while the file SHIM_FAULT exists.
 *
 * SHIM_FAULT holds an error number and letters: w fails writes, c creations, s syncs.
 *
 * An entry is: one letter, three numbers of 8 bytes (little-endian: file id, offset, length), and length bytes.
 *   O open, creating if need be (bytes: path; offset: 1 = truncated)   W write   T truncated to offset   S synced
 *   M folder made (path)   D folder removed (path)   U unlinked (path)   R renamed (old path, 0, new path)
 *   A said on standard output
 * sync_file_range is not intercepted: it makes nothing durable. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS 4096
static char *paths[FDS];
static uint64_t ids[FDS], next_id = 1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static const char *root, *fault;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void start(void) {
    root = getenv("SHIM_ROOT");
    fault = getenv("SHIM_FAULT");
    const char *log = getenv("SHIM_LOG");
    if (log) log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(char kind, uint64_t id, uint64_t offset, const void *bytes, uint64_t length) {
    if (log_fd < 0) return;
    char *entry = malloc(25 + length);
    entry[0] = kind;
    memcpy(entry + 1, &id, 8);
    memcpy(entry + 9, &offset, 8);
    memcpy(entry + 17, &length, 8);
    memcpy(entry + 25, bytes, length);
    uint64_t done = 0;
    while (done < 25 + length) {
        ssize_t n = REAL(write)(log_fd, entry + done, 25 + length - done);
        if (n <= 0) abort();
        done += n;
    }
    free(entry);
}

static int under(const char *path) { return root && strncmp(path, root, strlen(root)) == 0; }

static const char *resolve(int dir, const char *path, char *out) {
    if (path[0] == '/') return path;
    if (dir >= 0 && dir < FDS && paths[dir]) {
        snprintf(out, 4096, "%s/%s", paths[dir], path);
        return out;
    }
    return path;
}

/* The error to fail with, or 0. */
static int failing(char operation) {
    if (!fault) return 0;
    int fd = REAL(open)(fault, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char text[32] = {0};
    ssize_t n = read(fd, text, 31);
    REAL(close)(fd);
    return n > 0 && strchr(text, operation) ? atoi(text) : 0;
}

#define FAIL(operation, result) \
    do { int error = failing(operation); if (error) { errno = error; return result; } } while (0)

static int open_at(int dir, const char *path, int flags, mode_t mode) {
    char buffer[4096];
    const char *full = resolve(dir, path, buffer);
    if (!under(full)) return REAL(openat)(dir, path, flags, mode);
    if (flags & O_CREAT) FAIL('c', -1);
    pthread_mutex_lock(&lock);
    int fd = REAL(openat)(dir, path, flags, mode);
    int error = errno;
    if (fd >= 0 && fd < FDS) {
        free(paths[fd]);
        paths[fd] = strdup(full);
        ids[fd] = next_id++;
        put('O', ids[fd], (flags & O_TRUNC) != 0, full, strlen(full));
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { va_list args; va_start(args, flags); mode = va_arg(args, int); va_end(args); }

int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }

int openat64(int dir, const char *path, int flags, ...) {
    MODE(flags)
    return open_at(dir, path, flags, mode);
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) { free(paths[fd]); paths[fd] = NULL; }
    int result = REAL(close)(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static int watched(int fd) { return fd >= 0 && fd < FDS && paths[fd]; }

ssize_t write(int fd, const void *bytes, size_t length) {
    if (fd == 1) {
        pthread_mutex_lock(&lock);
        put('A', 0, 0, bytes, length);
        ssize_t n = REAL(write)(fd, bytes, length);
        pthread_mutex_unlock(&lock);
        return n;
    }
    if (!watched(fd)) return REAL(write)(fd, bytes, length);
    FAIL('w', -1);
    pthread_mutex_lock(&lock);
    off_t at = REAL(fcntl)(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t n = REAL(write)(fd, bytes, length);
    if (n > 0) put('W', ids[fd], at, bytes, n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    if (!watched(fd)) return REAL(pwrite64)(fd, bytes, length, offset);
    FAIL('w', -1);
    pthread_mutex_lock(&lock);
    ssize_t n = REAL(pwrite64)(fd, bytes, length, offset);
    if (n > 0) put('W', ids[fd], offset, bytes, n);
    pthread_mutex_unlock(&lock);
    return n;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return pwrite64(fd, bytes, length, offset);
}

int ftruncate64(int fd, off64_t length) {
    if (!watched(fd)) return REAL(ftruncate64)(fd, length);
    FAIL('w', -1);
    pthread_mutex_lock(&lock);
    int result = REAL(ftruncate64)(fd, length);
    if (result == 0) put('T', ids[fd], length, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_with(int fd, const char *name) {
    int (*call)(int) = real(name);
    if (!watched(fd)) return call(fd);
    FAIL('s', -1);
    pthread_mutex_lock(&lock);
    int result = call(fd);
    if (result == 0) put('S', ids[fd], 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int fd) { return sync_with(fd, "fsync"); }
int fdatasync(int fd) { return sync_with(fd, "fdatasync"); }

int rename(const char *from, const char *to) {
    if (!under(from)) return REAL(rename)(from, to);
    FAIL('c', -1);
    pthread_mutex_lock(&lock);
    int result = REAL(rename)(from, to), error = errno;
    if (result == 0) {
        char both[8192];
        int n = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
        put('R', 0, 0, both, n);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static int named(char kind, const char *path, int result) {
    int error = errno;
    if (result == 0) put(kind, 0, 0, path, strlen(path));
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode) {
    if (!under(path)) return REAL(mkdir)(path, mode);
    FAIL('c', -1);
    pthread_mutex_lock(&lock);
    return named('M', path, REAL(mkdir)(path, mode));
}
int unlink(const char *path) {
    if (!under(path)) return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    return named('U', path, REAL(unlink)(path));
}
int rmdir(const char *path) {
    if (!under(path)) return REAL(rmdir)(path);
    pthread_mutex_lock(&lock);
    return named('D', path, REAL(rmdir)(path));
}
int unlinkat(int dir, const char *path, int flags) {
    char buffer[4096];
    const char *full = resolve(dir, path, buffer);
    if (!under(full)) return REAL(unlinkat)(dir, path, flags);
    pthread_mutex_lock(&lock);
    return named(flags & AT_REMOVEDIR ? 'D' : 'U', full, REAL(unlinkat)(dir, path, flags));
}
