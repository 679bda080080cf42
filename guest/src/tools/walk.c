/* The names in a directory. */
#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int by_bytes(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static bool names_add(struct names *names, size_t *room, const char *name)
{
    if (names->count == *room) {
        size_t more = *room ? *room * 2 : 64;
        char **grown = realloc(names->at, more * sizeof *grown);
        if (!grown)
            return false;
        names->at = grown;
        *room = more;
    }
    char *copy = strdup(name);
    if (copy)
        names->at[names->count++] = copy;
    return copy;
}

bool names_read(int dir, struct names *names)
{
    *names = (struct names){0};
    size_t room = 0;
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* closed with the stream */
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    const struct dirent *entry;
    bool done = true;
    while (done && (errno = 0, entry = readdir(stream)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            done = names_add(names, &room, entry->d_name);
    int error = errno;
    closedir(stream);
    errno = error;
    if (!done || error) {
        names_free(names);
        return false;
    }
    if (names->count)
        qsort(names->at, names->count, sizeof *names->at, by_bytes);
    return true;
}

void names_free(struct names *names)
{
    for (size_t index = 0; index < names->count; index++)
        free(names->at[index]);
    free(names->at);
    *names = (struct names){0};
}
