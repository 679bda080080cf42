/* An execution's output and input.

   Output is held in a ring per stream until the server has made it durable. The windows: 256 KiB per stream, and a
   fair part of 4 MiB per machine; a page per stream is always granted, so that nobody starves. A closed window leaves
   the pipe unread, which slows the command and loses nothing. Past the kept limit, bytes are counted and dropped; so are
   those for which there has been no memory for a while: an end must not wait for it for ever. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, FAIR_LEAST = 16 * 1024, TURN_MOST = 64 * 1024, STARVED_AGAIN_MS = 100, STARVED_MOST_MS = 5000 };

static LIST(readable);
static uint64_t held_by_all;
static unsigned holders;
static bool starved; /* of memory for a ring */

static uint64_t held(const struct stream *stream)
{
    return stream->received - stream->acked;
}

/* Whether further bytes are to be sent, not only counted. */
static bool keeps(const struct stream *stream)
{
    return stream->execution->phase != ENDED && !stream->unkept && stream->received < stream->execution->kept_limit;
}

/* How many bytes may be taken from the pipe now. */
static uint64_t room(const struct stream *stream)
{
    if (!keeps(stream))
        return TURN_MOST;
    uint64_t fair = MACHINE_WINDOW / (holders ? holders : 1), holds = held(stream);
    if (fair > STREAM_WINDOW)
        fair = STREAM_WINDOW;
    if (fair < FAIR_LEAST)
        fair = FAIR_LEAST;
    uint64_t open = holds < fair ? fair - holds : 0;
    uint64_t left = held_by_all < MACHINE_WINDOW ? MACHINE_WINDOW - held_by_all : 0;
    uint64_t granted = holds < PAGE ? PAGE - holds : 0;
    if (open > left)
        open = left;
    if (open < granted)
        open = granted;
    uint64_t wanted = stream->execution->kept_limit - stream->received;
    return open < wanted ? open : wanted;
}

static void close_stream(struct stream *stream)
{
    list_remove(&stream->readable);
    unwatch(&stream->fd);
    if (stream->execution->phase == ENDED)
        execution_release(stream->execution);
}

/* At its end: nobody can write any more and nothing is left to be read. */
static bool ended(const struct stream *stream)
{
    int left = 0;
    return stream->hung_up && !ioctl(stream->fd, FIONREAD, &left) && !left;
}

static void on_output(struct source *source, uint32_t events)
{
    struct stream *stream = container_of(source, struct stream, source);
    stream->hung_up |= (events & EPOLLHUP) != 0;
    stream_look(stream);
}

void stream_init(struct stream *stream, struct execution *execution, uint8_t number)
{
    stream->source.ready = on_output;
    stream->execution = execution;
    stream->number = number;
    stream->fd = -1;
    stream->hung_up = stream->unkept = false;
    stream->starved_at = 0;
    list_init(&stream->readable);
}

bool stream_open(struct stream *stream, int fd)
{
    stream->fd = fd;
    return watch(fd, EPOLLIN | EPOLLET, &stream->source);
}

void stream_look(struct stream *stream)
{
    if (stream->fd >= 0 && list_empty(&stream->readable))
        list_append(&readable, &stream->readable);
}

int stream_slices(const struct stream *stream, uint64_t offset, uint32_t size, struct iovec slices[2])
{
    uint32_t at = (uint32_t)(offset % STREAM_WINDOW), first = STREAM_WINDOW - at;
    if (first > size)
        first = size;
    slices[0] = (struct iovec){stream->ring + at, first};
    slices[1] = (struct iovec){stream->ring, size - first};
    return size > first ? 2 : 1;
}

static bool map_ring(struct stream *stream)
{
    if (stream->ring)
        return true;
    void *ring = mmap(NULL, STREAM_WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring == MAP_FAILED)
        return false;
    madvise(ring, STREAM_WINDOW, MADV_DONTFORK);
    stream->ring = ring;
    stream->starved_at = 0;
    return true;
}

static ssize_t keep(struct stream *stream, uint64_t size)
{
    struct iovec slices[2];
    if (!stream->ring) {
        /* No ring for a stream that has nothing to say. */
        struct pollfd state = {.fd = stream->fd, .events = POLLIN};
        poll(&state, 1, 0);
        if (!(state.revents & POLLIN)) {
            errno = EAGAIN;
            return state.revents ? 0 : -1;
        }
        if (!map_ring(stream)) {
            errno = ENOMEM;
            return -1;
        }
    }
    ssize_t got = readv(stream->fd, slices, stream_slices(stream, stream->received, (uint32_t)size, slices));
    if (got > 0) {
        execution_look_started(stream->execution); /* STARTED goes before the first of its output */
        holders += !held(stream);
        held_by_all += (uint64_t)got;
        stream->received += (uint64_t)got;
        execution_due(stream->execution);
    } else if (!held(stream)) {
        stream_free(stream);
    }
    return got;
}

static ssize_t count_only(struct stream *stream)
{
    ssize_t got = splice(stream->fd, NULL, guest.null, NULL, 16 * TURN_MOST, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (got < 0 && errno == EINVAL) {
        static uint8_t nowhere[PAGE];
        got = read(stream->fd, nowhere, sizeof nowhere);
    }
    return got;
}

/* Reads a stream once over. True when there may be more for the next turn. */
static bool read_stream(struct stream *stream)
{
    for (uint32_t taken = 0; taken < TURN_MOST;) {
        uint64_t size = room(stream);
        if (ended(stream)) {
            close_stream(stream); /* which a closed window does not prevent */
            return false;
        }
        if (!size)
            return false;
        if (size > TURN_MOST)
            size = TURN_MOST;
        ssize_t got = keeps(stream) ? keep(stream, size) : count_only(stream);
        if (got > 0) {
            stream->total += (uint64_t)got;
            taken += (uint32_t)got;
        } else if (!got) {
            close_stream(stream);
            return false;
        } else if (errno == EAGAIN) {
            list_remove(&stream->readable);
            return false;
        } else if (errno == ENOMEM) {
            if (!stream->starved_at)
                stream->starved_at = guest.now;
            if (guest.now - stream->starved_at < STARVED_MOST_MS * MS) {
                starved = true;
                return false;
            }
            stream->unkept = true;
        } else if (errno != EINTR) {
            close_stream(stream);
            return false;
        }
    }
    return room(stream) > 0;
}

bool streams_turn(uint64_t *next)
{
    bool more = false;
    starved = false;
    list_each(at, after, &readable)
        more |= read_stream(container_of(at, struct stream, readable));
    if (starved)
        sooner(next, after_ms(STARVED_AGAIN_MS));
    return more;
}

bool stream_quiet(const struct stream *stream)
{
    return stream->fd < 0 || list_empty(&stream->readable) || !keeps(stream);
}

void stream_free(struct stream *stream)
{
    if (held(stream)) {
        held_by_all -= held(stream);
        holders--;
        stream->acked = stream->received;
    }
    if (stream->ring)
        munmap(stream->ring, STREAM_WINDOW);
    stream->ring = NULL;
}

/* Gives the pages of what has been acknowledged back to the kernel, but none that holds newer bytes of a full ring. */
static void return_pages(const struct stream *stream, uint64_t to)
{
    uint64_t from = stream->acked - stream->acked % PAGE;
    struct iovec slices[2];
    if (stream->received - from > STREAM_WINDOW)
        from += PAGE;
    to -= to % PAGE;
    if (to <= from)
        return;
    int count = stream_slices(stream, from, (uint32_t)(to - from), slices);
    for (int slice = 0; slice < count; slice++)
        madvise(slices[slice].iov_base, slices[slice].iov_len, MADV_DONTNEED);
}

void stream_acked(struct stream *stream, uint64_t offset)
{
    if (offset <= stream->acked)
        return;
    if (stream->sent < offset)
        stream->sent = offset;
    if (offset == stream->received) {
        stream_free(stream);
        return;
    }
    held_by_all -= offset - stream->acked;
    return_pages(stream, offset);
    stream->acked = offset;
}

void stream_rewind(struct stream *stream)
{
    stream->sent = stream->acked;
}

/* stdin */

static void on_input(struct source *source, uint32_t events);

void input_init(struct input *input, bool promised)
{
    input->source.ready = on_input;
    input->promised = promised;
    input->closed = !promised;
    input->end = UINT64_MAX;
    input->fd = -1;
}

bool input_open(struct input *input, int fd)
{
    input->fd = fd;
    return watch(fd, EPOLLOUT | EPOLLET, &input->source);
}

static void tell_input(struct execution *execution)
{
    execution->stdin_due = true;
    execution_due(execution);
}

void input_close(struct execution *execution)
{
    struct input *input = &execution->input;
    if (input->closed)
        return;
    unwatch(&input->fd);
    input->written += input->queued;
    input->queued = 0;
    input->closed = true;
    free(input->queue);
    input->queue = NULL;
    tell_input(execution);
}

/* Writes what the pipe takes of `data`. Returns how much, or -1 when nobody will ever read it. */
static ssize_t feed(struct execution *execution, const uint8_t *data, uint32_t size)
{
    uint32_t done = 0;
    while (done < size) {
        ssize_t put = write(execution->input.fd, data + done, size - done);
        if (put > 0)
            done += (uint32_t)put;
        else if (put < 0 && errno == EAGAIN)
            break;
        else if (!(put < 0 && errno == EINTR))
            return -1;
    }
    if (done) {
        execution->input.written += done;
        tell_input(execution);
    }
    return done;
}

static void feed_queue(struct execution *execution)
{
    struct input *input = &execution->input;
    if (input->queued) {
        ssize_t put = feed(execution, input->queue + input->queue_at, input->queued);
        if (put < 0) {
            input_close(execution);
            return;
        }
        input->queue_at += (uint32_t)put;
        input->queued -= (uint32_t)put;
    }
    if (!input->queued) {
        free(input->queue);
        input->queue = NULL;
        if (input->written == input->end)
            input_close(execution);
    }
}

static void on_input(struct source *source, uint32_t events)
{
    struct execution *execution = container_of(source, struct execution, input.source);
    if (execution->input.closed)
        return;
    if (events & EPOLLERR)
        input_close(execution);
    else
        feed_queue(execution);
}

static bool enqueue(struct input *input, const uint8_t *data, uint32_t size)
{
    if (!input->queue && !(input->queue = malloc(STDIN_CREDIT)))
        return false;
    if (input->queue_at && input->queue_at + input->queued + size > STDIN_CREDIT) {
        memmove(input->queue, input->queue + input->queue_at, input->queued);
        input->queue_at = 0;
    }
    if (!input->queued)
        input->queue_at = 0;
    memcpy(input->queue + input->queue_at + input->queued, data, size);
    input->queued += size;
    return true;
}

/* False when the frame breaks the protocol (or memory fails, which a new connection repairs). */
bool input_take(struct execution *execution, uint64_t offset, const uint8_t *data, uint32_t size, bool eof)
{
    struct input *input = &execution->input;
    uint64_t taken = input->written + input->queued, end = offset + size;
    if (end < offset || offset > taken || end > input->written + STDIN_CREDIT)
        return false;
    if ((end > taken && taken >= input->end) || (eof && (end < taken || (input->end != UINT64_MAX && end != input->end))))
        return false;
    if (eof)
        input->end = end;
    if (end > taken) {
        data += taken - offset;
        size = (uint32_t)(end - taken);
    } else {
        size = 0;
    }
    if (input->closed) {
        input->written += size;
        tell_input(execution);
        return true;
    }
    if (size && !input->queued) {
        ssize_t put = feed(execution, data, size);
        if (put < 0) {
            input->written += size;
            input_close(execution);
            return true;
        }
        data += put;
        size -= (uint32_t)put;
    }
    if (size && !enqueue(input, data, size))
        return false;
    if (!input->queued && input->written == input->end)
        input_close(execution);
    return true;
}
