/* A disk that fails, for LD_PRELOAD on 64-bit Linux: see disk.py.

   Calls on files below a folder are counted by the fault that may hit them, and one of them fails. These are the calls
   of libc that Python, Arrow, DuckDB and safetensors make; pages of mapped files are read without one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* In the order of FAULTS in disk.py. */
enum { SHORT, FULL, READ, RENAME, LOST, CHANGE, SYNC, LINK, REMOVE, KINDS };
enum { MOST_INODES = 1 << 16 };

static char folder[PATH_MAX];
static size_t folder_length;
static char spared[PATH_MAX]; /* below it no file changes */
static int kind_to_fail;
static long number_to_fail;
static long calls[KINDS];
static ino_t opened[MOST_INODES]; /* those opened for reading so far */
static int n_opened;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* From now on, count calls below `where`, and let call `number`, from 1, of a kind fail; 0: none. */
void disk_watch(const char *where, const char *without, int kind, long number)
{
    strncpy(folder, where, sizeof folder - 1);
    strncpy(spared, without, sizeof spared - 1);
    folder_length = strlen(folder);
    kind_to_fail = kind;
    number_to_fail = number;
    memset(calls, 0, sizeof calls);
    n_opened = 0;
}

long disk_calls(int kind) { return calls[kind]; }

static int leads_below(int file)
{
    char link[64], path[PATH_MAX];
    if (!folder_length || file < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path);
    return length >= (ssize_t)folder_length && !strncmp(path, folder, folder_length);
}

static int is_below(int directory, const char *path)
{
    if (!folder_length)
        return 0;
    return path[0] == '/' ? !strncmp(path, folder, folder_length) : leads_below(directory);
}

/* Count a call and return whether it fails. A full disk stays full. */
static int fails(int kind)
{
    long number = __sync_add_and_fetch(&calls[kind], 1);
    if (kind != kind_to_fail || !number_to_fail)
        return 0;
    return number == number_to_fail || (kind == FULL && number > number_to_fail);
}

static long fault(int code)
{
    errno = code;
    return -1;
}

static int was_opened(ino_t inode)
{
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_opened && !found; i++)
        found = opened[i] == inode;
    if (!found && n_opened < MOST_INODES)
        opened[n_opened++] = inode;
    pthread_mutex_unlock(&lock);
    return found;
}

/* Flip a bit of a file that was opened before, as if it had changed after it was hashed. */
static void change(int file)
{
    struct stat status;
    char link[64], byte;
    if (fstat(file, &status) || !S_ISREG(status.st_mode) || !status.st_size || !was_opened(status.st_ino))
        return;
    if (!fails(CHANGE))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    int again = syscall(SYS_openat, AT_FDCWD, link, O_RDWR, 0);
    off_t middle = status.st_size / 2;
    if (syscall(SYS_pread64, again, &byte, 1, middle) == 1) {
        byte ^= 1;
        syscall(SYS_pwrite64, again, &byte, 1, middle);
    }
    syscall(SYS_close, again);
}

static int open_file(int directory, const char *path, int flags, mode_t mode)
{
    int below = is_below(directory, path);
    int reads = (flags & O_ACCMODE) == O_RDONLY;
    if (below && !(flags & O_DIRECTORY) && fails(reads ? READ : FULL))
        return fault(reads ? EIO : ENOSPC);
    int file = syscall(SYS_openat, directory, path, flags, mode);
    if (below && reads && file >= 0 && !(spared[0] && !strncmp(path, spared, strlen(spared))))
        change(file);
    return file;
}

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, last); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, flags)
    return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, flags)
    return open_file(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    MODE(flags, flags)
    return open_file(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    MODE(flags, flags)
    return open_file(directory, path, flags, mode);
}

ssize_t read(int file, void *data, size_t n)
{
    if (leads_below(file) && fails(READ))
        return fault(EIO);
    return syscall(SYS_read, file, data, n);
}

ssize_t pread(int file, void *data, size_t n, off_t at)
{
    if (leads_below(file) && fails(READ))
        return fault(EIO);
    return syscall(SYS_pread64, file, data, n, at);
}

ssize_t pread64(int file, void *data, size_t n, off_t at) { return pread(file, data, n, at); }

/* Return how many bytes a call may write; -1: none, the disk is full. */
static ssize_t writable(int file, size_t n)
{
    if (!n || !leads_below(file))
        return n;
    if (fails(FULL))
        return fault(ENOSPC);
    return n > 1 && fails(SHORT) ? n / 2 : n;
}

ssize_t write(int file, const void *data, size_t n)
{
    ssize_t most = writable(file, n);
    return most < 0 ? -1 : syscall(SYS_write, file, data, most);
}

ssize_t pwrite(int file, const void *data, size_t n, off_t at)
{
    ssize_t most = writable(file, n);
    return most < 0 ? -1 : syscall(SYS_pwrite64, file, data, most, at);
}

ssize_t pwrite64(int file, const void *data, size_t n, off_t at) { return pwrite(file, data, n, at); }

ssize_t writev(int file, const struct iovec *parts, int n)
{
    if (n > 0 && leads_below(file))
        return write(file, parts[0].iov_base, parts[0].iov_len); /* a short write, which callers have to bear */
    return syscall(SYS_writev, file, parts, n);
}

ssize_t sendfile(int to, int from, off_t *at, size_t n)
{
    ssize_t most = writable(to, n);
    return most < 0 ? -1 : syscall(SYS_sendfile, to, from, at, most);
}

ssize_t sendfile64(int to, int from, off_t *at, size_t n) { return sendfile(to, from, at, n); }

int ftruncate(int file, off_t size)
{
    if (leads_below(file) && fails(FULL))
        return fault(ENOSPC);
    return syscall(SYS_ftruncate, file, size);
}

int ftruncate64(int file, off_t size) { return ftruncate(file, size); }

int fsync(int file)
{
    if (leads_below(file) && fails(SYNC))
        return fault(EIO);
    return 0; /* which only guards against power cuts */
}

int renameat(int from_directory, const char *from, int to_directory, const char *to)
{
    if (is_below(from_directory, from)) {
        if (fails(RENAME))
            return fault(EIO);
        if (fails(LOST))
            return 0;
    }
    return syscall(SYS_renameat2, from_directory, from, to_directory, to, 0);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags)
{
    if (is_below(to_directory, to) && fails(LINK))
        return fault(EIO);
    return syscall(SYS_linkat, from_directory, from, to_directory, to, flags);
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int directory, const char *path, int flags)
{
    if (is_below(directory, path) && fails(REMOVE))
        return fault(EIO);
    return syscall(SYS_unlinkat, directory, path, flags);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int directory, const char *path, mode_t mode)
{
    if (is_below(directory, path) && fails(FULL))
        return fault(ENOSPC);
    return syscall(SYS_mkdirat, directory, path, mode);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
