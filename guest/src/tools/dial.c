/* dial PORT: a TCP connection to a port of this machine, over stdin and stdout.

   One byte `+` goes ahead of what comes from the connection: it says that there is one. The end of stdin ends its sending
   half; the end of what comes ends the tool. No connection: exit status 69, and why on stderr. */
#define _GNU_SOURCE
#include "tools.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(const struct sockaddr *address, socklen_t size)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd >= 0 && connect(fd, address, size)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Some servers listen on the IPv6 loopback address only. */
static int dial_either(uint16_t port)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};
    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = dial((struct sockaddr *)&four, sizeof four), error = errno;
    if (fd < 0 && error == ECONNREFUSED)
        fd = dial((struct sockaddr *)&six, sizeof six);
    errno = error;
    return fd;
}

static int relay(int connection)
{
    static struct flow in = {.from = 0}, out = {.to = 1};
    in.to = out.from = connection;
    for (;;) {
        short wanted = (short)(flow_wants(&in, false) | flow_wants(&out, true));
        struct pollfd polled[] = {
            {in.held ? -1 : in.from, POLLIN, 0},
            {out.held ? 1 : -1, POLLOUT, 0},
            {wanted ? connection : -1, wanted, 0}, /* a hang-up is told of whatever is wanted */
        };
        if (poll(polled, 3, -1) < 0 && errno != EINTR)
            return tool_fail("poll", TOOL_OS_ERROR);
        if (polled[0].revents && !flow_fill(&in)) {
            in.from = -1;
            shutdown(connection, SHUT_WR);
        }
        if (polled[2].revents & (POLLIN | POLLHUP | POLLERR) && !out.held && !flow_fill(&out))
            return 0;
        if (!flow_drain(&out))
            return 0; /* nobody reads */
        if (!flow_drain(&in))
            in.from = -1, in.held = 0; /* it takes no more, but may have more to say */
    }
}

int tool_dial(int argc, char **argv)
{
    long port = argc == 2 ? tool_number(argv[1], 1, 65535) : -1;
    if (port < 0) {
        fputs("usage: dial PORT\n", stderr);
        return TOOL_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    int connection = dial_either((uint16_t)port);
    if (connection < 0)
        return tool_fail("connect", TOOL_UNAVAILABLE);
    if (write(1, "+", 1) != 1)
        return TOOL_OS_ERROR;
    if (!nonblocking(0) || !nonblocking(1) || !nonblocking(connection))
        return tool_fail("fcntl", TOOL_OS_ERROR);
    return relay(connection);
}
