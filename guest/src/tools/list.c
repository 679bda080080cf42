/* list PATH AFTER LIMIT: entries of a directory, sorted by the bytes of their names.

   At most LIMIT of those behind the name AFTER, which is `/` for the beginning. A link to a directory is followed. */
#define _GNU_SOURCE
#include "files.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int tool_list(int argc, char **argv)
{
    char *path = argc == 4 ? path_argument(argv[1]) : NULL, *after = path ? path_argument(argv[2]) : NULL;
    long left = after ? tool_number(argv[3], 1, 1000000) : -1;
    if (left < 0)
        return file_fail("path");
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct names names;
    if (dir < 0 || !names_read(dir, &names))
        return file_fail("list");
    bool all = !strcmp(after, "/");
    for (size_t index = 0; left && index < names.count; index++) {
        if (!all && strcmp(names.at[index], after) <= 0)
            continue;
        if (put_entry(dir, names.at[index], names.at[index]))
            left--;
        else if (errno != ENOENT) /* it has gone meanwhile */
            return file_fail("stat");
    }
    names_free(&names);
    return fflush(stdout) ? file_fail("stdout") : 0;
}
