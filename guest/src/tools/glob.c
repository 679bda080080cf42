/* glob CWD MOST PATTERN...: the regular files whose paths match, at most MOST, as entries named by their paths.

   A pattern is absolute, or from CWD on; its parts are matched as a shell does (`*`, `?`, `[...]`; a leading dot is matched
   by a dot only), and `**` stands for any number of directories. What matches twice is said twice. A link to a file counts
   as the file; `**` goes through no link. */
#define _GNU_SOURCE
#include "files.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[PATH_MAX]; /* of what is being looked at */
static long left;           /* how many may still be said */

static bool match(size_t end, const char *pattern, int depth);

/* Says the file at `path`, if it is one. */
static bool found(void)
{
    struct stat status;
    if (stat(path, &status) || !S_ISREG(status.st_mode))
        return true;
    put_status(&status, path, "");
    left--;
    return true;
}

/* Goes on with the name behind the directory whose path ends at `end`. */
static bool descend(size_t end, const char *name, const char *rest, int depth)
{
    size_t size = strlen(name);
    if (end + size + 2 > sizeof path)
        return true; /* nothing could open it by its path */
    memcpy(path + end, name, size + 1);
    if (!*rest)
        return found();
    memcpy(path + end + size, "/", 2);
    return match(end + size + 1, rest, depth + 1);
}

static bool is_plain(const char *part)
{
    return !strpbrk(part, "*?[\\");
}

static bool is_directory(int dir, const char *name)
{
    struct stat status;
    return !fstatat(dir, name, &status, AT_SYMLINK_NOFOLLOW) && S_ISDIR(status.st_mode);
}

/* Tries `part` on every name in the directory at `path`; for `**` also what is below with the pattern itself. */
static bool match_names(size_t end, const char *part, const char *rest, const char *pattern, int depth)
{
    bool all = !strcmp(part, "**"), done = true;
    int dir = open(end ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct names names;
    if (dir < 0)
        return errno != EMFILE && errno != ENFILE;
    if (!names_read(dir, &names)) {
        close(dir);
        return errno != ENOMEM;
    }
    for (size_t index = 0; done && left && index < names.count; index++) {
        const char *name = names.at[index];
        if (all ? *name != '.' && is_directory(dir, name) : !fnmatch(part, name, FNM_PERIOD))
            done = descend(end, name, all ? pattern : rest, depth);
    }
    names_free(&names);
    close(dir);
    return done;
}

/* Matches the rest of a pattern below the directory whose path ends at `end`. False with errno. */
static bool match(size_t end, const char *pattern, int depth)
{
    char part[NAME_MAX + 1];
    while (*pattern == '/')
        pattern++;
    size_t size = strcspn(pattern, "/");
    const char *rest = pattern + size;
    while (*rest == '/')
        rest++;
    path[end] = 0;
    if (!left || size > NAME_MAX || !size || depth > MOST_DEPTH)
        return true;
    memcpy(part, pattern, size);
    part[size] = 0;
    if (is_plain(part))
        return descend(end, part, rest, depth);
    if (strcmp(part, "**"))
        return match_names(end, part, rest, pattern, depth);
    /* None of the directories that it stands for, and then one or more. */
    const char *below = *rest ? rest : "*";
    return match(end, below, depth) && (path[end] = 0, match_names(end, part, rest, pattern, depth));
}

int tool_glob(int argc, char **argv)
{
    char *cwd = argc > 3 ? path_argument(argv[1]) : NULL;
    left = cwd ? tool_number(argv[2], 1, 1000000) : -1;
    if (left < 0)
        return file_fail("path");
    raise_open_files();
    if (chdir(cwd))
        return errno == ENOENT || errno == ENOTDIR ? 0 : file_fail("chdir"); /* nothing is in it */
    for (int index = 3; index < argc; index++) {
        char *pattern = path_argument(argv[index]);
        if (!pattern)
            return file_fail("path");
        path[0] = '/';
        if (!match(*pattern == '/', pattern, 0))
            return file_fail("glob");
    }
    return fflush(stdout) ? file_fail("stdout") : 0;
}
