/* pack PATH: a directory as a tar archive on stdout; its files, directories and symbolic links, sorted by name.

   ustar, with pax records for what does not fit. Names are relative to the directory. Everything else in it (sockets, pipes,
   devices) is left out, and so is what goes meanwhile; a file that becomes shorter is filled up with zeros. A file with
   several names is packed under each. */
#define _GNU_SOURCE
#include "files.h"
#include "tar.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[(MOST_DEPTH + 2) * 256]; /* of the entry that is being packed, from the directory on */
static const char zeros[TAR_BLOCK];

static bool put(const void *data, size_t size)
{
    return fwrite(data, 1, size, stdout) == size;
}

static bool put_padding(uint64_t size)
{
    return put(zeros, (size_t)(-size % TAR_BLOCK));
}

static bool put_head(struct tar_head *head)
{
    memcpy(head->magic, "ustar\0" "00", sizeof head->magic);
    snprintf(head->checksum, sizeof head->checksum, "%06o", tar_sum(head));
    head->checksum[7] = ' ';
    return put(head, sizeof *head);
}

/* The records of an extended head; there is room for the two longest values and some numbers. */
static struct {
    char text[sizeof path + PIECE_BYTES + 1024];
    size_t size;
} pax;

static void pax_add(const char *key, const char *value, size_t size)
{
    size_t length = strlen(key) + size + 3, digits = 1; /* a space, an equals sign and a line end, and then itself */
    for (size_t bound = 10; length + digits >= bound; bound *= 10)
        digits++;
    pax.size += (size_t)sprintf(pax.text + pax.size, "%zu %s=", length + digits, key);
    memcpy(pax.text + pax.size, value, size);
    pax.size += size;
    pax.text[pax.size++] = '\n';
}

static void put_text(char *field, size_t room, const char *key, const char *value)
{
    size_t size = strlen(value);
    if (size > room)
        pax_add(key, value, size);
    memcpy(field, value, size < room ? size : room);
}

static void put_number(char *field, size_t room, const char *key, uint64_t value)
{
    char text[32];
    if (value >> 3 * (room - 1))
        pax_add(key, text, (size_t)sprintf(text, "%llu", (unsigned long long)value));
    else
        sprintf(field, "%0*llo", (int)room - 1, (unsigned long long)value);
}

static bool put_pax(void)
{
    struct tar_head head = {.name = "pax", .mode = "0000644", .uid = "0000000", .gid = "0000000", .mtime = "00000000000"};
    head.type = 'x';
    put_number(head.size, sizeof head.size, "size", pax.size);
    return put_head(&head) && put(pax.text, pax.size) && put_padding(pax.size);
}

static bool is_text(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

static bool put_entry_head(const struct stat *status, char type, const char *name, const char *link, uint64_t size)
{
    struct tar_head head = {.type = type};
    pax.size = 0;
    bool pax_name = strlen(name) > sizeof head.name && !is_text(name);
    bool pax_link = strlen(link) > sizeof head.link && !is_text(link);
    if (pax_name || pax_link) /* it may be no UTF-8, as which pax takes it unless it is told */
        pax_add("hdrcharset", "BINARY", 6);
    put_text(head.name, sizeof head.name, "path", name);
    put_text(head.link, sizeof head.link, "linkpath", link);
    put_number(head.mode, sizeof head.mode, "mode", status->st_mode & 07777);
    put_number(head.uid, sizeof head.uid, "uid", status->st_uid);
    put_number(head.gid, sizeof head.gid, "gid", status->st_gid);
    put_number(head.size, sizeof head.size, "size", size);
    put_number(head.mtime, sizeof head.mtime, "mtime", status->st_mtim.tv_sec < 0 ? 0 : (uint64_t)status->st_mtim.tv_sec);
    return (!pax.size || put_pax()) && put_head(&head);
}

static bool pack_file(int dir, const char *name)
{
    static char piece[PIECE_BYTES];
    struct stat status;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ELOOP;
    if (fstat(fd, &status) || !S_ISREG(status.st_mode)) {
        close(fd);
        return true; /* it was replaced meanwhile */
    }
    uint64_t size = (uint64_t)status.st_size, left = size;
    bool done = put_entry_head(&status, '0', path, "", size);
    while (done && left) {
        size_t most = left < sizeof piece ? (size_t)left : sizeof piece;
        ssize_t got = read_full(fd, piece, most);
        if (got < 0)
            break;
        memset(piece + got, 0, most - (size_t)got);
        done = put(piece, most);
        left -= most;
    }
    close(fd);
    return done && !left && put_padding(size);
}

static bool pack_link(int dir, const char *name, const struct stat *status)
{
    static char target[PIECE_BYTES];
    ssize_t size = readlinkat(dir, name, target, sizeof target - 1);
    if (size < 0)
        return errno == ENOENT || errno == EINVAL;
    target[size] = 0;
    return put_entry_head(status, '2', path, target, 0);
}

static bool pack_below(int dir, size_t end, int depth);

static bool pack_directory(int dir, const char *name, size_t end, int depth)
{
    struct stat status;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    memcpy(path + end, "/", 2);
    bool done = !fstat(fd, &status) && put_entry_head(&status, '5', path, "", 0) && pack_below(fd, end + 1, depth + 1);
    int error = errno;
    close(fd);
    errno = error;
    return done;
}

/* Packs what is in a directory, whose own path ends at `end`. False with errno. */
static bool pack_below(int dir, size_t end, int depth)
{
    struct names names;
    if (depth > MOST_DEPTH) {
        errno = ENAMETOOLONG;
        return false;
    }
    bool done = names_read(dir, &names);
    for (size_t index = 0; done && index < names.count; index++) {
        const char *name = names.at[index];
        struct stat status;
        size_t size = strlen(name);
        memcpy(path + end, name, size + 1);
        if (fstatat(dir, name, &status, AT_SYMLINK_NOFOLLOW))
            done = errno == ENOENT;
        else if (S_ISDIR(status.st_mode))
            done = pack_directory(dir, name, end + size, depth);
        else if (S_ISREG(status.st_mode))
            done = pack_file(dir, name);
        else if (S_ISLNK(status.st_mode))
            done = pack_link(dir, name, &status);
    }
    int error = errno;
    names_free(&names);
    errno = error;
    return done;
}

int tool_pack(int argc, char **argv)
{
    char *from = argc == 2 ? path_argument(argv[1]) : NULL;
    if (!from)
        return file_fail("path");
    raise_open_files();
    int dir = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return file_fail("open");
    static char buffer[PIECE_BYTES];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    if (!pack_below(dir, 0, 0) || !put(zeros, TAR_BLOCK) || !put(zeros, TAR_BLOCK) || fflush(stdout))
        return file_fail("pack");
    return 0;
}
