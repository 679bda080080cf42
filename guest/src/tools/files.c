/* stat PATH | mkdir PATH MODE PARENTS | rename PATH TO REPLACE | delete PATH RECURSIVE: what needs no bytes.

   Each puts the entry on stdout: as it is then, or of a deleted one as it was. Flags are 0 or 1. A link at the end of a path
   is itself what is meant. */
#define _GNU_SOURCE
#include "files.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

int file_fail(const char *what)
{
    fprintf(stderr, "%d %s\n", errno, what);
    return TOOL_OS_ERROR;
}

int file_refuse(const char *why)
{
    fprintf(stderr, "0 %s\n", why);
    return TOOL_PROTOCOL;
}

static int hex(char digit)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *found = digit ? strchr(digits, digit) : NULL;
    return found ? (int)(found - digits) : -1;
}

char *path_argument(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex(from[1]), low = high < 0 ? -1 : hex(from[2]);
        if (low < 0 || !(high | low)) {
            errno = EINVAL;
            return NULL;
        }
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = 0;
    errno = ENOENT;
    return *text ? text : NULL;
}

static bool plain(unsigned char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           (byte && strchr("-._~/", byte));
}

static void put_escaped(const char *text)
{
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (plain(byte))
            putchar_unlocked(byte);
        else
            printf("%%%02X", byte);
    }
}

static char type_of(mode_t mode)
{
    return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'o';
}

void put_status(const struct stat *status, const char *shown, const char *target)
{
    printf("%c %o %u %u %lld %lld ", type_of(status->st_mode), status->st_mode & 07777, status->st_uid, status->st_gid,
           (long long)status->st_size, (long long)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec);
    put_escaped(shown);
    putchar_unlocked(' ');
    put_escaped(target);
    putchar_unlocked('\n');
}

bool put_entry(int dir, const char *name, const char *shown)
{
    static char target[PIECE_BYTES];
    struct stat status;
    ssize_t size = 0;
    if (fstatat(dir, name, &status, AT_SYMLINK_NOFOLLOW))
        return false;
    if (S_ISLNK(status.st_mode) && (size = readlinkat(dir, name, target, sizeof target - 1)) < 0)
        return false;
    target[size] = 0;
    put_status(&status, shown, target);
    return true;
}

void trim_slashes(char *path)
{
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/')
        path[--size] = 0;
}

const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int open_parent(const char *path)
{
    size_t size = (size_t)(last_part(path) - path);
    char *parent = size ? strndup(path, size) : strdup(".");
    if (!parent)
        return -1;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = errno;
    free(parent);
    errno = error;
    return fd;
}

bool write_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        ssize_t put = write(fd, at, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        at += put;
        size -= (size_t)put;
    }
    return true;
}

ssize_t read_full(int fd, void *data, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t got = read(fd, (char *)data + have, size - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (!got)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

void raise_open_files(void)
{
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int told(void)
{
    return fflush(stdout) ? file_fail("stdout") : 0;
}

static int show(const char *path)
{
    return put_entry(AT_FDCWD, path, last_part(path)) ? told() : file_fail("stat");
}

int tool_stat(int argc, char **argv)
{
    char *path = argc == 2 ? path_argument(argv[1]) : NULL;
    return path ? show(path) : file_fail("path");
}

bool make_parents(char *path)
{
    for (char *at = path + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        bool made = !mkdir(path, 0755) || errno == EEXIST;
        *at = '/';
        if (!made)
            return false;
    }
    return true;
}

int tool_mkdir(int argc, char **argv)
{
    char *path = argc == 4 ? path_argument(argv[1]) : NULL;
    if (!path)
        return file_fail("path");
    mode_t mode = (mode_t)strtoul(argv[2], NULL, 8);
    bool parents = *argv[3] == '1';
    struct stat status;
    trim_slashes(path);
    umask(0);
    if (parents && !make_parents(path))
        return file_fail("mkdir");
    if (mkdir(path, mode)) {
        int error = errno;
        if (!(error == EEXIST && parents && !stat(path, &status) && S_ISDIR(status.st_mode))) {
            errno = error;
            return file_fail("mkdir");
        }
    }
    return show(path);
}

int tool_rename(int argc, char **argv)
{
    char *path = argc == 4 ? path_argument(argv[1]) : NULL, *to = path ? path_argument(argv[2]) : NULL;
    if (!path || !to)
        return file_fail("path");
    trim_slashes(path);
    trim_slashes(to);
    unsigned flags = *argv[3] == '1' ? 0 : RENAME_NOREPLACE;
    if (syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, to, flags))
        return file_fail("rename");
    return show(to);
}

/* Removes `name` of `dir` and all below it; never through a link. */
static bool remove_tree(int dir, const char *name, int depth)
{
    if (!unlinkat(dir, name, 0))
        return true;
    if (errno != EISDIR && errno != EPERM)
        return errno == ENOENT && depth; /* somebody else was quicker */
    if (depth == MOST_DEPTH) {
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct names names;
    if (fd < 0)
        return false;
    bool done = names_read(fd, &names);
    for (size_t index = 0; done && index < names.count; index++)
        done = remove_tree(fd, names.at[index], depth + 1);
    int error = errno;
    names_free(&names);
    close(fd);
    errno = error;
    return done && !unlinkat(dir, name, AT_REMOVEDIR);
}

int tool_delete(int argc, char **argv)
{
    char *path = argc == 3 ? path_argument(argv[1]) : NULL;
    if (!path)
        return file_fail("path");
    trim_slashes(path);
    raise_open_files();
    if (!put_entry(AT_FDCWD, path, last_part(path)))
        return file_fail("stat");
    if (*argv[2] == '1') {
        if (!remove_tree(AT_FDCWD, path, 0))
            return file_fail("delete");
    } else if (unlink(path) && ((errno != EISDIR && errno != EPERM) || rmdir(path))) {
        return file_fail("delete");
    }
    return told();
}
