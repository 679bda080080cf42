/* Which tools there are. */
#define _GNU_SOURCE
#include "tools.h"
#include "files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tool tools[] = {
    {"tty", tool_tty},
    {"dial", tool_dial},
    {"sftp", tool_sftp},
    {"stat", tool_stat},
    {"list", tool_list},
    {"read", tool_read},
    {"write", tool_write},
    {"delete", tool_delete},
    {"mkdir", tool_mkdir},
    {"rename", tool_rename},
    {"pack", tool_pack},
    {"unpack", tool_unpack},
    {"glob", tool_glob},
};

const struct tool *tool_find(const char *name)
{
    for (size_t index = 0; index < sizeof tools / sizeof *tools; index++)
        if (!strcmp(tools[index].name, name))
            return &tools[index];
    return NULL;
}

int tool_fail(const char *what, int status)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return status;
}

long tool_number(const char *text, long low, long high)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    long value = strtol(text, &end, 10);
    return errno || *end || value < low || value > high ? -1 : value;
}
