/* read PATH: the entry of a file on stdout, and then, as one line of stdin asks, bytes of it.

   The line is `OFFSET LENGTH`. A file that has become shorter meanwhile ends the tool early, with EIO. */
#define _GNU_SOURCE
#include "files.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

static bool wanted(uint64_t *offset, uint64_t *length)
{
    char line[64];
    size_t have = 0;
    while (have < sizeof line - 1 && read(0, line + have, 1) == 1 && line[have] != '\n')
        have++;
    line[have] = 0;
    char *end;
    *offset = strtoull(line, &end, 10);
    *length = strtoull(end, &end, 10);
    return have && !*end;
}

static int copy(int fd, uint64_t offset, uint64_t left)
{
    static char piece[PIECE_BYTES];
    if (lseek(fd, (off_t)offset, SEEK_SET) < 0)
        return file_fail("read");
    while (left) {
        ssize_t got = read(fd, piece, left < sizeof piece ? (size_t)left : sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (!got)
            errno = EIO;
        if (got <= 0)
            return file_fail("read");
        if (!write_all(1, piece, (size_t)got))
            return file_fail("stdout");
        left -= (uint64_t)got;
    }
    return 0;
}

int tool_read(int argc, char **argv)
{
    char *path = argc == 2 ? path_argument(argv[1]) : NULL;
    if (!path)
        return file_fail("path");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a pipe would keep it waiting */
    struct stat status;
    if (fd < 0 || fstat(fd, &status))
        return file_fail("open");
    if (S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        return file_fail("open");
    }
    if (!S_ISREG(status.st_mode))
        return file_refuse("it is no regular file");
    put_status(&status, last_part(path), "");
    if (fflush(stdout))
        return file_fail("stdout");
    uint64_t offset, length;
    return wanted(&offset, &length) ? copy(fd, offset, length) : 0;
}
