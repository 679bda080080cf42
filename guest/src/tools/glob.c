/* glob CWD MOST PATTERN...: the regular files whose paths match, at most MOST, as entries named by their paths.

   A pattern is absolute, or from CWD on; its parts are matched as a shell does (`*`, `?`, `[...]`; a leading dot is matched
   by a dot only), and `**` stands for any number of directories. A path is said once, however often it matches. A link to a
   file counts as the file; `**` goes through no link.

   Of a pattern every path is visited once, with all places of the pattern that it may be at: otherwise a few `**` would take
   longer than anybody waits. */
#define _GNU_SOURCE
#include "files.h"
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_PARTS = PATH_MAX / 2 + 1, WORDS = MOST_PARTS / 64 + 1 };

/* Which parts of the pattern come next; the place behind the last one is its end. */
struct places {
    uint64_t bits[WORDS];
};

static char path[PATH_MAX]; /* of what is being looked at */
static char *parts[MOST_PARTS];
static size_t count;
static long left;  /* how many may still be said */
static void *said; /* a tree of their paths */

static bool has(const struct places *places, size_t place)
{
    return places->bits[place / 64] >> place % 64 & 1;
}

static void add(struct places *places, size_t place)
{
    places->bits[place / 64] |= UINT64_C(1) << place % 64;
}

static bool is_plain(size_t place)
{
    return !strpbrk(parts[place], "*?[\\");
}

static bool is_deep(size_t place)
{
    return !strcmp(parts[place], "**");
}

/* Takes a pattern apart, in its place. False with errno when it has too many parts. */
static bool take_apart(char *pattern)
{
    static char any[] = "*";
    char *save, *part = strtok_r(pattern, "/", &save);
    for (count = 0; part; part = strtok_r(NULL, "/", &save)) {
        if (count + 2 > MOST_PARTS) {
            errno = ENAMETOOLONG;
            return false;
        }
        if (!count || strcmp(part, "**") || !is_deep(count - 1))
            parts[count++] = part;
    }
    if (count && is_deep(count - 1))
        parts[count++] = any;
    return true;
}

static int by_text(const void *one, const void *other)
{
    return strcmp(one, other);
}

static int by_name(const void *name, const void *at)
{
    return strcmp(name, *(char *const *)at);
}

/* Says the file at `path`, if it is one and has not been said. False with errno. */
static bool found(void)
{
    struct stat status;
    if (stat(path, &status) || !S_ISREG(status.st_mode) || tfind(path, &said, by_text))
        return true;
    char *kept = strdup(path);
    if (!kept || !tsearch(kept, &said, by_text))
        return false;
    put_status(&status, path, "");
    left--;
    return true;
}

static bool is_directory(void)
{
    struct stat status;
    return !lstat(path, &status) && S_ISDIR(status.st_mode);
}

/* Where the pattern is behind `name`, the last part of `path`. False when it is nowhere. */
static bool step(const struct places *at, const char *name, struct places *next)
{
    bool any = false;
    *next = (struct places){0};
    for (size_t place = 0; place < count; place++) {
        if (!has(at, place))
            continue;
        bool deep = is_deep(place);
        bool fits = deep               ? *name != '.' && is_directory()
                    : is_plain(place) ? !strcmp(parts[place], name)
                                      : !fnmatch(parts[place], name, FNM_PERIOD);
        if (fits)
            add(next, deep ? place : place + 1);
        any |= fits;
    }
    return any;
}

static bool visit(size_t end, struct places *at, int depth);

/* Goes on with a name behind the directory whose path ends at `end`. False with errno. */
static bool try(size_t end, const char *name, const struct places *at, int depth)
{
    struct places next;
    size_t size = strlen(name);
    if (end + size + 2 > sizeof path)
        return true; /* nothing could open it by its path */
    memcpy(path + end, name, size + 1);
    if (!step(at, name, &next))
        return true;
    if (has(&next, count) && !found())
        return false;
    memcpy(path + end + size, "/", 2);
    return visit(end + size + 1, &next, depth + 1);
}

/* Tries the names that the pattern itself has, unless they were tried with all that are in the directory. */
static bool try_plain(size_t end, const struct names *tried, const struct places *at, int depth)
{
    bool done = true;
    for (size_t place = 0; done && left && place < count; place++) {
        if (!has(at, place) || !is_plain(place))
            continue;
        bool before = tried->count && bsearch(parts[place], tried->at, tried->count, sizeof *tried->at, by_name);
        for (size_t earlier = 0; !before && earlier < place; earlier++)
            before = has(at, earlier) && !strcmp(parts[earlier], parts[place]);
        if (!before)
            done = try(end, parts[place], at, depth);
    }
    return done;
}

/* Matches below the directory whose path ends at `end`. False with errno. */
static bool visit(size_t end, struct places *at, int depth)
{
    struct names names = {0};
    bool listed = false, done = true;
    for (size_t place = 0; place < count; place++) {
        if (!has(at, place))
            continue;
        if (is_deep(place))
            add(at, place + 1); /* it stands for no directory, too */
        listed |= !is_plain(place);
    }
    if (depth > MOST_DEPTH)
        return true;
    path[end] = 0;
    if (listed) {
        int dir = open(end ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bool read = dir >= 0 && names_read(dir, &names);
        if (dir >= 0)
            close(dir);
        if (!read && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
            return false;
    }
    for (size_t index = 0; done && left && index < names.count; index++)
        done = try(end, names.at[index], at, depth);
    done = done && try_plain(end, &names, at, depth);
    names_free(&names);
    return done;
}

int tool_glob(int argc, char **argv)
{
    char *cwd = argc > 3 ? path_argument(argv[1]) : NULL;
    left = cwd ? tool_number(argv[2], 1, 1000000) : -1;
    if (left < 0)
        return file_fail("path");
    if (chdir(cwd))
        return errno == ENOENT || errno == ENOTDIR ? 0 : file_fail("chdir"); /* nothing is in it */
    for (int index = 3; index < argc; index++) {
        char *pattern = path_argument(argv[index]);
        struct places first = {{1}};
        if (!pattern)
            return file_fail("path");
        bool absolute = *pattern == '/';
        path[0] = '/';
        if (!take_apart(pattern) || !visit(absolute, &first, 0))
            return file_fail("glob");
    }
    return fflush(stdout) ? file_fail("stdout") : 0;
}
