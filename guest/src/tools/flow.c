/* Bytes from one descriptor to another, without waiting for either. */
#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

bool nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

short flow_wants(const struct flow *flow, bool source)
{
    if (source)
        return flow->from >= 0 && !flow->held ? POLLIN : 0;
    return flow->held ? POLLOUT : 0;
}

bool flow_fill(struct flow *flow)
{
    ssize_t got = read(flow->from, flow->bytes, sizeof flow->bytes);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got <= 0)
        return false;
    flow->at = 0;
    flow->held = (size_t)got;
    return true;
}

bool flow_drain(struct flow *flow)
{
    while (flow->held) {
        ssize_t put = write(flow->to, flow->bytes + flow->at, flow->held);
        if (put < 0)
            return errno == EAGAIN || errno == EINTR;
        flow->at += (size_t)put;
        flow->held -= (size_t)put;
    }
    return true;
}
