/* tty COLUMNS ROWS COMMAND [ARGUMENT...]: a command on a pseudo terminal of its own.

   stdin is a sequence of messages, so that a change of size has its place among what is typed:

       u8 type   0 input, 1 size
       u32 size  of what follows, little-endian
       bytes     input: as typed; size: u16 columns, u16 rows

   stdout is what the terminal shows. The end of stdin changes nothing: who wants the terminal gone kills the tool, and the
   terminal hangs up with it. Ends as the command did. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INPUT, SIZE, HEADER = 5, SIZE_BYTES = 4 };

/* What has come of stdin. */
static struct {
    uint8_t head[HEADER + SIZE_BYTES]; /* of the message that is being read; of a size also its body */
    size_t have;
    uint32_t left; /* of the present input */
} message;

static struct flow typed = {.from = 0}, shown = {.to = 1};

static void resize(int terminal, unsigned columns, unsigned rows)
{
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    ioctl(terminal, TIOCSWINSZ, &size);
}

static uint32_t little(const uint8_t *at, int bytes)
{
    uint32_t value = 0;
    while (bytes--)
        value = value << 8 | at[bytes];
    return value;
}

/* Takes one byte of a message's head, or of a size. False when it is no message. */
static bool take_head(int terminal, uint8_t byte)
{
    message.head[message.have++] = byte;
    if (message.have < HEADER)
        return true;
    uint32_t size = little(message.head + 1, 4);
    if (message.head[0] == INPUT) {
        message.left = size;
        message.have = 0;
        return true;
    }
    if (message.head[0] != SIZE || size != SIZE_BYTES)
        return false;
    if (message.have == HEADER + SIZE_BYTES) {
        resize(terminal, little(message.head + HEADER, 2), little(message.head + HEADER + 2, 2));
        message.have = 0;
    }
    return true;
}

/* Gives the terminal what was typed, as far as it takes it. False when stdin holds something that is no message. */
static bool type(int terminal)
{
    while (typed.held) {
        if (!message.left) {
            typed.held--;
            if (!take_head(terminal, typed.bytes[typed.at++]))
                return false;
            continue;
        }
        size_t size = typed.held < message.left ? typed.held : message.left;
        ssize_t put = write(terminal, typed.bytes + typed.at, size);
        if (put < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (put < 0)
            put = (ssize_t)size; /* nobody will ever read it */
        typed.at += (size_t)put;
        typed.held -= (size_t)put;
        message.left -= (uint32_t)put;
    }
    return true;
}

static _Noreturn void become(int slave, char **argv)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0))
        _exit(tool_fail("terminal", TOOL_OS_ERROR));
    for (int fd = 0; fd < 3; fd++)
        dup2(slave, fd);
    execvp(argv[0], argv);
    int status = errno == ENOENT || errno == ENOTDIR ? 127 : 126;
    _exit(tool_fail(argv[0], status));
}

/* Everything that it still shows, once the command has ended: whoever keeps it open is not waited for. */
static void show_rest(int terminal)
{
    fcntl(1, F_SETFL, fcntl(1, F_GETFL) & ~O_NONBLOCK);
    do {
        if (!flow_drain(&shown))
            return;
        shown.from = terminal;
    } while (flow_fill(&shown) && shown.held);
}

/* Ends as the command did. */
static int end_as(int status)
{
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
    return 128 + WTERMSIG(status);
}

/* Whether the command has ended. */
static bool has_ended(int ends, pid_t child, int *status)
{
    struct signalfd_siginfo said;
    while (read(ends, &said, sizeof said) > 0)
        ;
    return waitpid(child, status, WNOHANG) == child;
}

static int attend(int terminal, int slave, int ends, pid_t child)
{
    int status;
    shown.from = typed.to = terminal;
    for (;;) {
        short wanted = (short)((typed.held ? POLLOUT : 0) | flow_wants(&shown, true));
        struct pollfd polled[] = {
            {typed.held ? -1 : typed.from, POLLIN, 0},
            {shown.held ? 1 : -1, POLLOUT, 0},
            {wanted ? terminal : -1, wanted, 0},
            {ends, POLLIN, 0},
        };
        if (poll(polled, 4, -1) < 0 && errno != EINTR)
            return tool_fail("poll", TOOL_OS_ERROR);
        if (polled[0].revents && !flow_fill(&typed))
            typed.from = -1;
        if (!type(terminal)) {
            fputs("stdin holds something that is no message\n", stderr);
            return TOOL_PROTOCOL;
        }
        if (polled[2].revents & POLLIN && !shown.held && !flow_fill(&shown))
            return tool_fail("terminal", TOOL_OS_ERROR);
        if (!flow_drain(&shown))
            return TOOL_OS_ERROR;
        if (polled[3].revents && has_ended(ends, child, &status)) {
            close(slave);
            show_rest(terminal);
            return end_as(status);
        }
    }
}

int tool_tty(int argc, char **argv)
{
    long columns = argc > 3 ? tool_number(argv[1], 1, 65535) : -1, rows = argc > 3 ? tool_number(argv[2], 1, 65535) : -1;
    if (columns < 0 || rows < 0) {
        fputs("usage: tty COLUMNS ROWS COMMAND [ARGUMENT...]\n", stderr);
        return TOOL_USAGE;
    }
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    /* Open here, too: it does not hang up while the command has left it and may come back. */
    int slave = terminal < 0 || unlockpt(terminal) ? -1 : ioctl(terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return tool_fail("pseudo terminal", TOOL_OS_ERROR);
    resize(terminal, (unsigned)columns, (unsigned)rows);
    signal(SIGPIPE, SIG_IGN);
    sigset_t child_signal;
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP}, NULL);
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, NULL);
    int ends = signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK);
    pid_t child = ends >= 0 ? fork() : -1;
    if (!child)
        become(slave, argv + 3);
    if (child < 0 || !nonblocking(0) || !nonblocking(1) || !nonblocking(terminal))
        return tool_fail("tty", TOOL_OS_ERROR);
    return attend(terminal, slave, ends, child);
}
