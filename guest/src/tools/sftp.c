/* sftp: serves the files of this machine on stdin and stdout by version 3 of the SSH file transfer protocol
   (draft-ietf-secsh-filexfer-02, as OpenSSH speaks it).

   One request is answered after the other, by a process of the machine that may do what root of the machine may: what a client
   asks for is neither checked nor bounded here but for its form. A length that no packet has ends the tool with status 76. */
#define _GNU_SOURCE
#include "tools.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { VERSION = 3, MOST_BYTES = 256 * 1024, MOST_DATA = MOST_BYTES - 1024, MOST_HANDLES = 256, NAMES_AT_ONCE = 100 };
enum { LINE_BYTES = NAME_MAX + 128 };

enum request {
    INIT = 1, OPEN = 3, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, MKDIR, RMDIR,
    REALPATH, STAT, RENAME, READLINK, SYMLINK, EXTENDED = 200
};
enum answer { HELLO = 2, STATUS = 101, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 201 };
enum status { OK, END, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 8 };
enum attribute { SIZE = 1, OWNER = 2, MODE = 4, TIMES = 8, MORE = 1u << 31 };
enum how { TO_READ = 1, TO_WRITE = 2, TO_APPEND = 4, MAKE = 8, EMPTY = 16, NEW_ONLY = 32 };

struct attributes {
    uint32_t which, uid, gid, mode, read_at, written_at;
    uint64_t size;
};

/* What is open: a file, or a directory. */
static struct handle {
    bool used;
    int fd;
    DIR *directory;
    bool appends;
} handles[MOST_HANDLES];

/* The request that is being answered. */
static uint8_t request[MOST_BYTES];
static struct {
    const uint8_t *at, *end;
    bool bad; /* it ends before it should */
} in;

/* Its answer: a length, then what `put` has put. What is put is bounded where it comes from. */
static uint8_t answer[4 + MOST_BYTES];
static size_t answered;

static uint64_t take_number(size_t bytes)
{
    uint64_t value = 0;
    if ((size_t)(in.end - in.at) < bytes) {
        in.bad = true;
        in.at = in.end;
        return 0;
    }
    while (bytes--)
        value = value << 8 | *in.at++;
    return value;
}

static uint32_t take_u32(void)
{
    return (uint32_t)take_number(4);
}

static const uint8_t *take_bytes(size_t *size)
{
    size_t wanted = take_u32();
    if ((size_t)(in.end - in.at) < wanted) {
        in.bad = true;
        wanted = 0;
    }
    const uint8_t *bytes = in.at;
    in.at += wanted;
    *size = wanted;
    return bytes;
}

/* A path; where it is none, errno says why and it is NULL. An empty one is where the tool was started. */
static const char *take_path(char path[PATH_MAX])
{
    size_t size;
    const uint8_t *bytes = take_bytes(&size);
    if (size >= PATH_MAX || memchr(bytes, 0, size)) {
        errno = size >= PATH_MAX ? ENAMETOOLONG : EINVAL;
        return NULL;
    }
    memcpy(path, bytes, size);
    path[size] = 0;
    if (!size)
        strcpy(path, ".");
    return path;
}

static struct attributes take_attributes(void)
{
    struct attributes wanted = {.which = take_u32()};
    size_t size;
    if (wanted.which & SIZE)
        wanted.size = take_number(8);
    if (wanted.which & OWNER) {
        wanted.uid = take_u32();
        wanted.gid = take_u32();
    }
    if (wanted.which & MODE)
        wanted.mode = take_u32();
    if (wanted.which & TIMES) {
        wanted.read_at = take_u32();
        wanted.written_at = take_u32();
    }
    if (wanted.which & MORE)
        for (uint32_t left = take_u32(); left && !in.bad; left--) {
            take_bytes(&size);
            take_bytes(&size);
        }
    return wanted;
}

static struct handle *take_handle(void)
{
    size_t size;
    const uint8_t *bytes = take_bytes(&size);
    uint32_t index = MOST_HANDLES;
    if (size == sizeof index)
        memcpy(&index, bytes, size);
    if (index < MOST_HANDLES && handles[index].used)
        return &handles[index];
    errno = EBADF;
    return NULL;
}

static void put(const void *bytes, size_t size)
{
    memcpy(answer + answered, bytes, size);
    answered += size;
}

static void put_number(uint64_t value, size_t bytes)
{
    while (bytes--)
        answer[answered++] = (uint8_t)(value >> 8 * bytes);
}

static void put_u32(uint32_t value)
{
    put_number(value, 4);
}

static void put_string(const char *text)
{
    put_u32((uint32_t)strlen(text));
    put(text, strlen(text));
}

static void put_attributes(const struct stat *found)
{
    put_u32(SIZE | OWNER | MODE | TIMES);
    put_number((uint64_t)found->st_size, 8);
    put_u32(found->st_uid);
    put_u32(found->st_gid);
    put_u32(found->st_mode);
    put_u32((uint32_t)found->st_atime);
    put_u32((uint32_t)found->st_mtime);
}

static void begin(enum answer type, uint32_t id)
{
    answered = 4;
    put_number(type, 1);
    put_u32(id);
}

static void say(uint32_t id, enum status status)
{
    static const char *const words[] = {"Success", "End of file", "No such file", "Permission denied", "Failure", "Bad message",
                                        "", "", "Operation unsupported"};
    begin(STATUS, id);
    put_u32(status);
    put_string(words[status]);
    put_string("");
}

/* Whether it worked, and if not, why. */
static void say_done(uint32_t id, bool done)
{
    if (done)
        say(id, OK);
    else if (errno == ENOENT || errno == ENOTDIR || errno == EBADF || errno == ELOOP)
        say(id, NO_SUCH_FILE);
    else if (errno == EACCES || errno == EPERM || errno == EROFS)
        say(id, PERMISSION_DENIED);
    else {
        begin(STATUS, id); /* only words tell a full disk from a directory that is not empty */
        put_u32(FAILURE);
        put_string(strerror(errno));
        put_string("");
    }
}

static void say_attributes(uint32_t id, bool found, const struct stat *status)
{
    if (!found) {
        say_done(id, false);
        return;
    }
    begin(ATTRS, id);
    put_attributes(status);
}

/* A line as `ls -l` writes it, for people. */
static void describe(char line[LINE_BYTES], const char *name, const struct stat *found)
{
    static const char types[] = "?pc?d?b?-?l?s???", letters[] = "rwxrwxrwx";
    char mode[11], when[20] = "";
    time_t written = found->st_mtime, now = time(NULL);
    struct tm parts;
    mode[0] = types[found->st_mode >> 12 & 15];
    for (int bit = 0; bit < 9; bit++)
        mode[bit + 1] = found->st_mode >> (8 - bit) & 1 ? letters[bit] : '-';
    if (found->st_mode & S_ISUID)
        mode[3] = mode[3] == 'x' ? 's' : 'S';
    if (found->st_mode & S_ISGID)
        mode[6] = mode[6] == 'x' ? 's' : 'S';
    if (found->st_mode & S_ISVTX)
        mode[9] = mode[9] == 'x' ? 't' : 'T';
    mode[10] = 0;
    bool recent = written <= now && now - written < 180 * 24 * 3600;
    if (gmtime_r(&written, &parts))
        strftime(when, sizeof when, recent ? "%b %e %H:%M" : "%b %e  %Y", &parts);
    snprintf(line, LINE_BYTES, "%s %4lu %-8u %-8u %8lld %s %s", mode, (unsigned long)found->st_nlink, found->st_uid, found->st_gid,
             (long long)found->st_size, when, name);
}

static struct handle *new_handle(void)
{
    for (size_t index = 0; index < MOST_HANDLES; index++)
        if (!handles[index].used)
            return &handles[index];
    errno = EMFILE;
    return NULL;
}

static void say_handle(uint32_t id, struct handle *made)
{
    uint32_t index = (uint32_t)(made - handles);
    made->used = true;
    begin(HANDLE, id);
    put_u32(sizeof index);
    put(&index, sizeof index);
}

static void open_file(uint32_t id)
{
    char path[PATH_MAX];
    const char *name = take_path(path);
    uint32_t how = take_u32();
    struct attributes wanted = take_attributes();
    struct handle *made = new_handle();
    int flags = how & TO_WRITE ? how & TO_READ ? O_RDWR : O_WRONLY : O_RDONLY;
    flags |= (how & TO_APPEND ? O_APPEND : 0) | (how & MAKE ? O_CREAT : 0) | (how & EMPTY ? O_TRUNC : 0) |
             (how & NEW_ONLY ? O_EXCL : 0);
    int fd = -1;
    if (in.bad)
        say(id, BAD_MESSAGE);
    else if (!name || !made ||
             (fd = open(name, flags | O_CLOEXEC | O_NOCTTY, wanted.which & MODE ? wanted.mode & 07777 : 0666)) < 0)
        say_done(id, false);
    else {
        *made = (struct handle){.fd = fd, .appends = how & TO_APPEND};
        say_handle(id, made);
    }
}

static void open_directory(uint32_t id)
{
    char path[PATH_MAX];
    const char *name = take_path(path);
    struct handle *made = new_handle();
    DIR *directory = NULL;
    if (in.bad)
        say(id, BAD_MESSAGE);
    else if (!name || !made || !(directory = opendir(name)))
        say_done(id, false);
    else {
        *made = (struct handle){.fd = dirfd(directory), .directory = directory};
        say_handle(id, made);
    }
}

static void close_handle(uint32_t id)
{
    struct handle *handle = take_handle();
    bool done = handle && (handle->directory ? closedir(handle->directory) : close(handle->fd)) == 0;
    if (handle)
        handle->used = false;
    say_done(id, done);
}

static void read_file(uint32_t id)
{
    struct handle *handle = take_handle();
    off_t offset = (off_t)take_number(8);
    size_t wanted = take_u32();
    if (wanted > MOST_DATA)
        wanted = MOST_DATA;
    begin(DATA, id);
    uint8_t *data = answer + answered + 4;
    ssize_t got = -1;
    if (handle && !in.bad) {
        got = pread(handle->fd, data, wanted, offset);
        if (got < 0 && errno == ESPIPE)
            got = read(handle->fd, data, wanted);
    }
    if (in.bad)
        say(id, BAD_MESSAGE);
    else if (got < 0)
        say_done(id, false);
    else if (!got && wanted)
        say(id, END);
    else {
        put_u32((uint32_t)got);
        answered += (size_t)got;
    }
}

static void write_file(uint32_t id)
{
    struct handle *handle = take_handle();
    off_t offset = (off_t)take_number(8);
    size_t left;
    const uint8_t *data = take_bytes(&left);
    if (in.bad) {
        say(id, BAD_MESSAGE);
        return;
    }
    while (handle && left) {
        ssize_t put_down = handle->appends ? write(handle->fd, data, left) : pwrite(handle->fd, data, left, offset);
        if (put_down < 0 && errno == ESPIPE)
            put_down = write(handle->fd, data, left);
        if (put_down < 0 && errno == EINTR)
            continue;
        if (put_down < 0)
            break;
        data += put_down;
        offset += put_down;
        left -= (size_t)put_down;
    }
    say_done(id, handle && !left);
}

static void read_directory(uint32_t id)
{
    struct handle *handle = take_handle();
    struct dirent *entry;
    uint32_t count = 0;
    if (!handle || !handle->directory) {
        errno = EBADF;
        say_done(id, false);
        return;
    }
    begin(NAME, id);
    size_t counted = answered;
    put_u32(0);
    while (count < NAMES_AT_ONCE && (entry = readdir(handle->directory))) {
        struct stat found;
        char line[LINE_BYTES];
        if (fstatat(handle->fd, entry->d_name, &found, AT_SYMLINK_NOFOLLOW))
            continue; /* it is gone */
        describe(line, entry->d_name, &found);
        put_string(entry->d_name);
        put_string(line);
        put_attributes(&found);
        count++;
    }
    if (!count) {
        say(id, END);
        return;
    }
    size_t whole = answered;
    answered = counted;
    put_u32(count);
    answered = whole;
}

/* Of a path, or with no name of what is open. */
static bool change(const char *name, int fd, const struct attributes *wanted, int flags)
{
    struct timespec times[] = {{.tv_sec = wanted->read_at}, {.tv_sec = wanted->written_at}};
    bool done = true;
    if (wanted->which & SIZE)
        done &= (name ? truncate(name, (off_t)wanted->size) : ftruncate(fd, (off_t)wanted->size)) == 0;
    if (done && wanted->which & OWNER)
        done = (name ? fchownat(AT_FDCWD, name, wanted->uid, wanted->gid, flags) : fchown(fd, wanted->uid, wanted->gid)) == 0;
    if (done && wanted->which & MODE)
        done = (name ? fchmodat(AT_FDCWD, name, wanted->mode & 07777, flags) : fchmod(fd, wanted->mode & 07777)) == 0;
    if (done && wanted->which & TIMES)
        done = (name ? utimensat(AT_FDCWD, name, times, flags) : futimens(fd, times)) == 0;
    return done;
}

static void change_path(uint32_t id, int flags)
{
    char path[PATH_MAX];
    const char *name = take_path(path);
    struct attributes wanted = take_attributes();
    if (in.bad)
        say(id, BAD_MESSAGE);
    else
        say_done(id, name && change(name, -1, &wanted, flags));
}

static void change_open(uint32_t id)
{
    struct handle *handle = take_handle();
    struct attributes wanted = take_attributes();
    if (in.bad)
        say(id, BAD_MESSAGE);
    else
        say_done(id, handle && change(NULL, handle->fd, &wanted, 0));
}

static void say_name(uint32_t id, const char *name)
{
    static const struct stat nothing;
    begin(NAME, id);
    put_u32(1);
    put_string(name);
    put_string(name);
    put_attributes(&nothing);
}

/* The whole path of what may not be there yet, as long as its directory is. */
static bool whole_path(const char *name, char whole[PATH_MAX])
{
    char above[PATH_MAX];
    if (realpath(name, whole))
        return true;
    if (errno != ENOENT)
        return false;
    strcpy(above, name);
    size_t size = strlen(above);
    while (size > 1 && above[size - 1] == '/')
        above[--size] = 0;
    char *last = strrchr(above, '/');
    const char *base = name;
    if (last) {
        base = name + (last - above) + 1;
        last[last == above] = 0;
    }
    if (!realpath(last ? above : ".", whole))
        return false;
    size_t have = strlen(whole);
    if (have + strlen(base) + 2 > PATH_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    if (have > 1)
        strcat(whole, "/");
    strcat(whole, base);
    return true;
}

static void real_path(uint32_t id)
{
    char path[PATH_MAX], whole[PATH_MAX];
    const char *name = take_path(path);
    if (name && whole_path(name, whole))
        say_name(id, whole);
    else
        say_done(id, false);
}

static void read_link(uint32_t id)
{
    char path[PATH_MAX], target[PATH_MAX];
    const char *name = take_path(path);
    ssize_t size = name ? readlink(name, target, sizeof target - 1) : -1;
    if (size < 0) {
        say_done(id, false);
        return;
    }
    target[size] = 0;
    say_name(id, target);
}

/* In version 3 a rename replaces nothing. */
static int rename_only(const char *from, const char *to)
{
    struct stat there;
    if (!syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1 /* RENAME_NOREPLACE */))
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (!lstat(to, &there)) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

static void of_two_paths(uint32_t id, int (*act)(const char *, const char *))
{
    char first[PATH_MAX], second[PATH_MAX];
    const char *one = take_path(first), *other = take_path(second);
    if (in.bad)
        say(id, BAD_MESSAGE);
    else
        say_done(id, one && other && act(one, other) == 0);
}

static void of_one_path(uint32_t id, int (*act)(const char *))
{
    char path[PATH_MAX];
    const char *name = take_path(path);
    say_done(id, name && act(name) == 0);
}

static void make_directory(uint32_t id)
{
    char path[PATH_MAX];
    const char *name = take_path(path);
    struct attributes wanted = take_attributes();
    if (in.bad)
        say(id, BAD_MESSAGE);
    else
        say_done(id, name && mkdir(name, wanted.which & MODE ? wanted.mode & 07777 : 0777) == 0);
}

static void status_of(uint32_t id, int flags)
{
    char path[PATH_MAX];
    struct stat found;
    const char *name = take_path(path);
    say_attributes(id, name && !fstatat(AT_FDCWD, name, &found, flags), &found);
}

static void status_of_open(uint32_t id)
{
    struct stat found;
    struct handle *handle = take_handle();
    say_attributes(id, handle && !fstat(handle->fd, &found), &found);
}

static void room_at(uint32_t id, bool there, const struct statvfs *room)
{
    if (!there) {
        say_done(id, false);
        return;
    }
    const uint64_t figures[] = {room->f_bsize, room->f_frsize, room->f_blocks, room->f_bfree, room->f_bavail, room->f_files,
                                room->f_ffree, room->f_favail, room->f_fsid, room->f_flag, room->f_namemax};
    begin(EXTENDED_REPLY, id);
    for (size_t index = 0; index < sizeof figures / sizeof *figures; index++)
        put_number(figures[index], 8);
}

static void extended(uint32_t id)
{
    size_t size;
    const uint8_t *bytes = take_bytes(&size);
    char name[64] = "", path[PATH_MAX];
    struct statvfs room;
    if (size < sizeof name)
        memcpy(name, bytes, size);
    if (!strcmp(name, "posix-rename@openssh.com"))
        of_two_paths(id, rename);
    else if (!strcmp(name, "hardlink@openssh.com"))
        of_two_paths(id, link);
    else if (!strcmp(name, "lsetstat@openssh.com"))
        change_path(id, AT_SYMLINK_NOFOLLOW);
    else if (!strcmp(name, "fsync@openssh.com")) {
        const struct handle *handle = take_handle();
        say_done(id, handle && !fsync(handle->fd));
    } else if (!strcmp(name, "statvfs@openssh.com")) {
        const char *at = take_path(path);
        room_at(id, at && !statvfs(at, &room), &room);
    } else if (!strcmp(name, "fstatvfs@openssh.com")) {
        const struct handle *handle = take_handle();
        room_at(id, handle && !fstatvfs(handle->fd, &room), &room);
    } else if (!strcmp(name, "limits@openssh.com")) {
        begin(EXTENDED_REPLY, id);
        put_number(MOST_BYTES, 8);
        put_number(MOST_DATA, 8);
        put_number(MOST_DATA, 8);
        put_number(MOST_HANDLES, 8);
    } else
        say(id, UNSUPPORTED);
}

static void greet(void)
{
    static const char *const extensions[][2] = {
        {"posix-rename@openssh.com", "1"}, {"hardlink@openssh.com", "1"}, {"lsetstat@openssh.com", "1"},
        {"fsync@openssh.com", "1"}, {"statvfs@openssh.com", "2"}, {"fstatvfs@openssh.com", "2"}, {"limits@openssh.com", "1"},
    };
    begin(HELLO, VERSION);
    for (size_t index = 0; index < sizeof extensions / sizeof *extensions; index++) {
        put_string(extensions[index][0]);
        put_string(extensions[index][1]);
    }
}

static void serve(uint8_t type, uint32_t id)
{
    switch (type) {
    case OPEN: open_file(id); break;
    case CLOSE: close_handle(id); break;
    case READ: read_file(id); break;
    case WRITE: write_file(id); break;
    case LSTAT: status_of(id, AT_SYMLINK_NOFOLLOW); break;
    case STAT: status_of(id, 0); break;
    case FSTAT: status_of_open(id); break;
    case SETSTAT: change_path(id, 0); break;
    case FSETSTAT: change_open(id); break;
    case OPENDIR: open_directory(id); break;
    case READDIR: read_directory(id); break;
    case REMOVE: of_one_path(id, unlink); break;
    case MKDIR: make_directory(id); break;
    case RMDIR: of_one_path(id, rmdir); break;
    case REALPATH: real_path(id); break;
    case RENAME: of_two_paths(id, rename_only); break;
    case READLINK: read_link(id); break;
    case SYMLINK: of_two_paths(id, symlink); break;
    case EXTENDED: extended(id); break;
    default: say(id, UNSUPPORTED);
    }
}

static bool read_all(void *bytes, size_t size)
{
    for (uint8_t *at = bytes; size;) {
        ssize_t got = read(0, at, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        size -= (size_t)got;
    }
    return true;
}

static bool send_answer(void)
{
    size_t size = answered;
    answered = 0;
    put_u32((uint32_t)(size - 4));
    for (const uint8_t *at = answer; size;) {
        ssize_t sent = write(1, at, size);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

int tool_sftp(int argc, char **argv)
{
    uint8_t head[4];
    (void)argv;
    if (argc != 1) {
        fputs("usage: sftp\n", stderr);
        return TOOL_USAGE;
    }
    while (read_all(head, sizeof head)) {
        uint32_t size = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
        if (size < 5 || size > MOST_BYTES) {
            fputs("stdin holds something that is no packet\n", stderr);
            return TOOL_PROTOCOL;
        }
        if (!read_all(request, size))
            return 0;
        in.at = request + 1;
        in.end = request + size;
        in.bad = false;
        uint32_t id = take_u32();
        if (request[0] == INIT)
            greet();
        else
            serve(request[0], id);
        if (!send_answer())
            return 0; /* nobody reads */
    }
    return 0;
}
