/* write PATH MODE PARENTS SIZE: stdin as a file, which is there as a whole, on disk, or not at all.

   MODE is octal, or `-`: that of the file which is replaced, else 644. SIZE is how much will come, or `-`; room for it is
   asked for before. A link at the end of the path is followed. The entry is put on stdout. */
#define _GNU_SOURCE
#include "files.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

void random_name(char name[32])
{
    unsigned char random[10];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        memset(random, (int)getpid(), sizeof random);
    int size = sprintf(name, ".dormice-");
    for (size_t index = 0; index < sizeof random; index++)
        size += sprintf(name + size, "%02x", random[index]);
}

bool fresh_open(struct fresh *fresh, int dir)
{
    *fresh->name = 0;
    fresh->fd = openat(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fresh->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        random_name(fresh->name);
        fresh->fd = openat(dir, fresh->name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
    }
    return fresh->fd >= 0;
}

static bool link_as(const struct fresh *fresh, int dir, const char *name)
{
    char path[64];
    sprintf(path, "/proc/self/fd/%d", fresh->fd);
    return !linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW);
}

bool fresh_place(struct fresh *fresh, int dir, const char *name)
{
    struct stat there;
    if (!*fresh->name) {
        if (link_as(fresh, dir, name))
            return true;
        if (errno != EEXIST)
            return false;
    }
    if (!fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) && S_ISDIR(there.st_mode)) {
        errno = EISDIR;
        return false;
    }
    if (!*fresh->name) {
        random_name(fresh->name);
        if (!link_as(fresh, dir, fresh->name))
            return false;
    }
    if (renameat(dir, fresh->name, dir, name))
        return false;
    *fresh->name = 0;
    return true;
}

void fresh_drop(struct fresh *fresh, int dir)
{
    int error = errno;
    if (*fresh->name)
        unlinkat(dir, fresh->name, 0);
    close(fresh->fd);
    errno = error;
}

/* The path of the file itself, where it is that of a link; NULL with errno when that leads nowhere. */
static char *follow(char *path)
{
    static char found[PATH_MAX];
    struct stat status;
    return lstat(path, &status) || !S_ISLNK(status.st_mode) ? path : realpath(path, found);
}

static bool take(int fd, const char *size)
{
    static char piece[PIECE_BYTES];
    long long expected = *size == '-' ? 0 : atoll(size);
    /* What does not fit is told before it is sent; where room cannot be asked for, once the disk is full. */
    if (expected > 0 && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, expected) && errno != EOPNOTSUPP && errno != EINTR)
        return false;
    for (;;) {
        ssize_t got = read(0, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return !got;
        if (!write_all(fd, piece, (size_t)got))
            return false;
    }
}

int tool_write(int argc, char **argv)
{
    char *path = argc == 5 ? path_argument(argv[1]) : NULL;
    struct stat old;
    struct fresh fresh;
    if (!path)
        return file_fail("path");
    umask(0);
    if ((*argv[3] == '1' && !make_parents(path)) || !(path = follow(path)))
        return file_fail("open");
    bool replaces = !lstat(path, &old);
    if (replaces && S_ISDIR(old.st_mode)) {
        errno = EISDIR;
        return file_fail("open");
    }
    if (replaces && !S_ISREG(old.st_mode))
        return file_refuse("it is no regular file");
    const char *name = last_part(path);
    if (!*name) {
        errno = EISDIR;
        return file_fail("open");
    }
    int dir = open_parent(path);
    if (dir < 0 || !fresh_open(&fresh, dir))
        return file_fail("open");
    mode_t mode = *argv[2] != '-' ? (mode_t)strtoul(argv[2], NULL, 8) : replaces ? old.st_mode & 07777 : 0644;
    bool owned = !replaces || !fchown(fresh.fd, old.st_uid, old.st_gid) || errno == EPERM;
    if (!owned || !take(fresh.fd, argv[4]) || fchmod(fresh.fd, mode) || fsync(fresh.fd) ||
        !fresh_place(&fresh, dir, name) || fsync(dir)) {
        fresh_drop(&fresh, dir);
        return file_fail("write");
    }
    fresh_drop(&fresh, dir);
    if (!put_entry(dir, name, name))
        return file_fail("stat");
    return fflush(stdout) ? file_fail("stdout") : 0;
}
