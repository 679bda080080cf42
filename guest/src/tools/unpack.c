/* unpack PATH: a tar archive on stdin into a directory, which is made if it is missing.

   ustar with pax and GNU's long names. Files, directories, symbolic and hard links; everything else is refused. A name that
   is absolute, has `..`, or leads out of the directory through a link is refused. What is there already is replaced, but no
   directory by something else or the other way round. All belongs to whoever runs this; set-user and set-group bits are
   dropped. Each file is there as a whole or not at all; at the end all is on disk. */
#define _GNU_SOURCE
#include "files.h"
#include "tar.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_EXTENSION = 1 << 20, MODES = 01777 };

/* An entry. Texts that an extension gave are in memory of their own until the entry is done. */
static struct {
    char *path, *link; /* of an extension; NULL for what stands in the head */
    bool has_size, has_mtime;
    uint64_t size;
    int64_t mtime;
} given;

static char *head_path, *head_link;
static int root;
static const char *refusal; /* why the archive is not taken, where no errno says it */

static bool refuse(const char *why)
{
    refusal = why;
    return false;
}

static bool forget(void)
{
    free(given.path);
    free(given.link);
    memset(&given, 0, sizeof given);
    return true;
}

static bool take(void *data, size_t size)
{
    ssize_t got = read_full(0, data, size);
    return got == (ssize_t)size || (got >= 0 && refuse("the archive ends in the midst of something"));
}

static bool skip(uint64_t size)
{
    static char piece[PIECE_BYTES];
    while (size) {
        size_t most = size < sizeof piece ? (size_t)size : sizeof piece;
        if (!take(piece, most))
            return false;
        size -= most;
    }
    return true;
}

static uint64_t padding(uint64_t size)
{
    return -size % TAR_BLOCK;
}

/* An octal number, or GNU's binary one. False when it is neither. */
static bool number(const char *field, size_t room, uint64_t *value)
{
    const unsigned char *at = (const unsigned char *)field, *end = at + room;
    *value = 0;
    if (*at & 0x80) {
        *value = *at++ & 0x3f;
        for (; at < end; at++) {
            if (*value >> 54)
                return refuse("a number in the archive is too large");
            *value = *value << 8 | *at;
        }
        return true;
    }
    while (at < end && *at == ' ')
        at++;
    for (; at < end && *at && *at != ' '; at++) {
        if (*at < '0' || *at > '7')
            return refuse("a number in the archive is none");
        *value = *value << 3 | (uint64_t)(*at - '0');
    }
    return true;
}

/* A time; GNU's binary one may be before 1970. */
static bool moment(const char *field, size_t room, int64_t *value)
{
    const unsigned char *at = (const unsigned char *)field, *end = at + room;
    uint64_t bits = UINT64_MAX;
    bool before = (*at & 0xc0) == 0xc0;
    if (!before && !number(field, room, &bits))
        return false;
    for (; before && at < end; at++)
        bits = bits << 8 | *at;
    *value = (int64_t)bits;
    return true;
}

/* A value of an extended head, which ends with its line. */
static bool set_text(char **text, const char *value, size_t size)
{
    free(*text);
    *text = memchr(value, 0, size) ? NULL : strndup(value, size);
    return *text || refuse("a name in the archive holds NUL");
}

static bool set_record(const char *key, const char *value, size_t size)
{
    if (!strcmp(key, "path"))
        return set_text(&given.path, value, size);
    if (!strcmp(key, "linkpath"))
        return set_text(&given.link, value, size);
    if (!strncmp(key, "GNU.sparse.", 11))
        return refuse("sparse files in archives are not taken");
    char *end;
    if (!strcmp(key, "size")) {
        given.has_size = *value >= '0' && *value <= '9';
        given.size = strtoull(value, &end, 10);
        return given.has_size && given.size <= INT64_MAX ? true : refuse("a size in the archive is none");
    }
    if (!strcmp(key, "mtime")) {
        given.has_mtime = true;
        given.mtime = strtoll(value, &end, 10);
    }
    return true;
}

/* The records of an extended head: "LENGTH KEY=VALUE\n". */
static bool set_records(char *text, size_t size)
{
    char *at = text, *end = text + size;
    while (at < end) {
        char *after;
        unsigned long length = *at >= '1' && *at <= '9' ? strtoul(at, &after, 10) : 0;
        if (!length || length > (unsigned long)(end - at) || *after != ' ' || after >= at + length || at[length - 1] != '\n')
            return refuse("an extended head of the archive cannot be read");
        char *key = after + 1, *equals = memchr(key, '=', (size_t)(at + length - key));
        if (!equals)
            return refuse("an extended head of the archive cannot be read");
        *equals = at[length - 1] = 0;
        if (!set_record(key, equals + 1, (size_t)(at + length - 1 - (equals + 1))))
            return false;
        at += length;
    }
    return true;
}

/* What says something of the next entry: pax records, or GNU's long names. */
static bool extend(char type, uint64_t size)
{
    if (size > MOST_EXTENSION)
        return refuse("an extended head of the archive is too long");
    char *text = malloc((size_t)size + 1);
    if (!text)
        return false;
    bool done = take(text, (size_t)size) && skip(padding(size));
    text[size] = 0;
    if (done && type == 'x')
        done = set_records(text, (size_t)size);
    else if (done && type == 'L')
        done = set_text(&given.path, text, strnlen(text, (size_t)size));
    else if (done && type == 'K')
        done = set_text(&given.link, text, strnlen(text, (size_t)size));
    free(text);
    return done;
}

/* Takes `./` and slashes that mean nothing out of a name, in its place. False when it leads upwards or begins at the root. */
static bool settle(char *name)
{
    char *from = name, *to = name;
    if (*name == '/')
        return refuse("a name in the archive is absolute");
    while (*from) {
        size_t size = strcspn(from, "/");
        if (size == 2 && !memcmp(from, "..", 2))
            return refuse("a name in the archive has '..'");
        if (size && !(size == 1 && *from == '.')) {
            if (to != name)
                *to++ = '/';
            memmove(to, from, size);
            to += size;
        }
        from += size + (from[size] == '/');
    }
    *to = 0;
    return true;
}

/* Opens a directory of the target, never through a link that leads out of it. */
static int open_beneath(const char *path)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
}

/* Opens the directory above a name's last part. With `make`, directories that are missing are made. */
static int open_above(char *path, bool make)
{
    char *slash = strrchr(path, '/');
    if (!slash)
        return open_beneath("");
    *slash = 0;
    int fd = open_beneath(path);
    if (fd < 0 && errno == ENOENT && make) {
        int above = open_above(path, true);
        if (above >= 0) {
            bool made = !mkdirat(above, last_part(path), 0755) || errno == EEXIST;
            close(above);
            fd = made ? open_beneath(path) : -1;
        }
    }
    *slash = '/';
    return fd;
}

static void set_mtime(int dir, const char *name, int64_t mtime)
{
    struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};
    utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
}

/* Gives a link that has been made as `fresh` its name. False with errno when `made` is, or when that is a directory's. */
static bool place_link(int dir, const char *fresh, const char *name, bool made)
{
    bool done = made && !renameat(dir, fresh, dir, name);
    int error = errno;
    if (made)
        unlinkat(dir, fresh, 0); /* also there where both are the same file already */
    errno = error;
    return done;
}

static bool unpack_file(int dir, const char *name, mode_t mode, uint64_t size, int64_t mtime)
{
    static char piece[PIECE_BYTES];
    struct fresh fresh;
    if (!fresh_open(&fresh, dir))
        return false;
    bool done = true;
    for (uint64_t left = size; done && left;) {
        size_t most = left < sizeof piece ? (size_t)left : sizeof piece;
        done = take(piece, most) && write_all(fresh.fd, piece, most);
        left -= most;
    }
    struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};
    done = done && !fchmod(fresh.fd, mode) && !futimens(fresh.fd, times) && fresh_place(&fresh, dir, name);
    fresh_drop(&fresh, dir);
    return done && skip(padding(size));
}

static bool unpack_directory(int dir, const char *path, mode_t mode)
{
    if (!*path || !mkdirat(dir, last_part(path), mode))
        return true; /* without a name it is the target itself */
    int error = errno, fd = error == EEXIST ? open_beneath(path) : -1;
    if (fd < 0) {
        errno = error;
        return false;
    }
    bool done = !fchmod(fd, mode);
    close(fd);
    return done;
}

static bool unpack_hard_link(int dir, const char *name, char *target)
{
    if (!settle(target) || !*target)
        return refusal ? false : refuse("a hard link in the archive leads nowhere");
    int above = open_above(target, false);
    if (above < 0)
        return false;
    char fresh[32];
    random_name(fresh);
    bool done = place_link(dir, fresh, name, !linkat(above, last_part(target), dir, fresh, 0));
    int error = errno;
    close(above);
    errno = error;
    return done;
}

static bool unpack_link(int dir, const char *name, const char *target, int64_t mtime)
{
    if (!*target)
        return refuse("a link in the archive leads nowhere");
    char fresh[32];
    random_name(fresh);
    if (!place_link(dir, fresh, name, !symlinkat(target, dir, fresh)))
        return false;
    set_mtime(dir, name, mtime);
    return true;
}

static bool unpack_entry(const struct tar_head *head, uint64_t size)
{
    uint64_t mode;
    int64_t mtime;
    char *path = given.path ? given.path : head_path, *link = given.link ? given.link : head_link;
    if (!number(head->mode, sizeof head->mode, &mode) || !moment(head->mtime, sizeof head->mtime, &mtime) || !settle(path))
        return false;
    size_t end = strlen(path);
    char type = head->type;
    int64_t modified = given.has_mtime ? given.mtime : mtime;
    if (!end && type != '5')
        return refuse("a name in the archive is empty");
    int dir = open_above(path, true);
    if (dir < 0)
        return errno == EXDEV ? refuse("a name in the archive leads out of the directory through a link") : false;
    const char *name = last_part(path);
    mode_t kept = (mode_t)mode & MODES;
    bool done;
    switch (type) {
    case '0':
    case '7':
    case 0:
        done = unpack_file(dir, name, kept, size, modified);
        break;
    case '5':
        done = unpack_directory(dir, path, kept) && skip(size + padding(size));
        break;
    case '2':
        done = unpack_link(dir, name, link, modified) && skip(size + padding(size));
        break;
    case '1':
        done = unpack_hard_link(dir, name, link) && skip(size + padding(size));
        break;
    default:
        done = refuse("the archive has a device, a pipe or something else that is not taken");
    }
    int error = errno;
    close(dir);
    errno = error;
    return done;
}

/* The name of a head, with its prefix. */
static bool head_texts(const struct tar_head *head)
{
    bool prefixed = !memcmp(head->magic, "ustar", 6) && *head->prefix;
    free(head_path);
    free(head_link);
    head_link = strndup(head->link, sizeof head->link);
    head_path = malloc(sizeof head->prefix + sizeof head->name + 2);
    if (head_path)
        sprintf(head_path, "%.155s%s%.100s", prefixed ? head->prefix : "", prefixed ? "/" : "", head->name);
    return head_path && head_link;
}

static bool is_end(const struct tar_head *head)
{
    const char *bytes = (const char *)head;
    for (size_t index = 0; index < TAR_BLOCK; index++)
        if (bytes[index])
            return false;
    return true;
}

static bool unpack(void)
{
    struct tar_head head;
    uint64_t sum, size;
    for (;;) {
        if (!take(&head, sizeof head))
            return false;
        if (is_end(&head))
            break;
        if (!number(head.checksum, sizeof head.checksum, &sum) || sum != tar_sum(&head))
            return refuse("it is no tar archive, or is damaged (a compressed one is not taken)");
        if (!number(head.size, sizeof head.size, &size))
            return false;
        bool extension = head.type && strchr("xgLK", head.type);
        if (extension ? !extend(head.type, size)
                      : !head_texts(&head) || !unpack_entry(&head, given.has_size ? given.size : size) || !forget())
            return false;
    }
    char rest[PIECE_BYTES];
    ssize_t got;
    do
        got = read(0, rest, sizeof rest);
    while (got > 0 || (got < 0 && errno == EINTR));
    return !got;
}

int tool_unpack(int argc, char **argv)
{
    char *path = argc == 2 ? path_argument(argv[1]) : NULL;
    if (!path)
        return file_fail("path");
    umask(0);
    trim_slashes(path);
    if (!make_parents(path) || (mkdir(path, 0755) && errno != EEXIST))
        return file_fail("mkdir");
    root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return file_fail("open");
    if (!unpack())
        return refusal ? file_refuse(refusal) : file_fail("unpack");
    if (syncfs(root))
        return file_fail("sync");
    if (!put_entry(AT_FDCWD, path, last_part(path)))
        return file_fail("stat");
    return fflush(stdout) ? file_fail("stdout") : 0;
}
