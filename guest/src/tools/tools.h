/* What the guest's program does when it is run inside the machine as a command, whatever the image holds.

   tools.c   which tools there are
   flow.c    bytes from one descriptor to another
   tty.c     a command on a pseudo terminal
   dial.c    a TCP connection to a port of the machine
   sftp.c    its files, by the SSH file transfer protocol
   files.h   work on files, and which files have its tools

   A tool is an ordinary process of the machine, with a command's rights and limits: it shares nothing with process 1. */
#ifndef DORMICE_TOOLS_H
#define DORMICE_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses (those of sysexits.h). */
enum { TOOL_USAGE = 64, TOOL_UNAVAILABLE = 69, TOOL_OS_ERROR = 71, TOOL_PROTOCOL = 76 };

struct tool {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the tool's name; returns the exit status */
};

/* The tool of that name; NULL when there is none. */
const struct tool *tool_find(const char *name);

int tool_tty(int argc, char **argv);
int tool_dial(int argc, char **argv);
int tool_sftp(int argc, char **argv);

/* Says on stderr what failed, with errno, and returns `status`. */
int tool_fail(const char *what, int status);
/* A whole number of `low` to `high` in decimal digits; -1 for anything else. */
long tool_number(const char *text, long low, long high);

/* Bytes on their way from one descriptor to another; both are in non-blocking mode. */
struct flow {
    int from, to; /* -1 once at its end */
    size_t at, held;
    uint8_t bytes[64 * 1024];
};

short flow_wants(const struct flow *flow, bool source); /* what to poll its source, or its target, for */
bool flow_fill(struct flow *flow);  /* reads; false at the end of the source, or when it cannot be read */
bool flow_drain(struct flow *flow); /* writes what is held; false when nobody reads it */
bool nonblocking(int fd);

#endif
