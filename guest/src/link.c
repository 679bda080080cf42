/* Connections from the node. At most one is followed, the one with the highest epoch. Frames to it are not queued but
   made from what executions owe when the socket takes them, so nothing grows while a host is slow or gone. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LISTENER = 3,
    INPUT_LEAST = 4096,
    TURN_MOST = 256 * 1024,  /* bytes read from one connection per turn */
    REPLIES_MOST = 128 * 1024,
    BATCH_FRAMES = 64,       /* in one sendmsg */
    BATCH_BYTES = 512 * 1024,
    OWN_FRAME_MOST = HEADER_SIZE + 57, /* EXITED, the longest frame that is not OUTPUT or WELCOME */
};

struct connection {
    struct source source;
    struct link all;
    struct garbage garbage;
    int fd;
    bool readable, writable;
    uint64_t epoch; /* 0 before its HELLO */
    uint8_t *input;
    size_t have, size;
    /* Bytes that go first: the rest of a frame that was sent in part, then WELCOME, PONG and REFUSED. */
    uint8_t *rest, *replies;
    size_t rest_at, rest_size, replies_at, replies_size, replies_room;
    bool told_stopped;
};

static struct source listener;
static LIST(connections);
static struct connection *followed;
static uint64_t epoch;

static void on_connection(struct source *source, uint32_t events)
{
    struct connection *connection = container_of(source, struct connection, source);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        connection->readable = true;
    if (events & EPOLLOUT)
        connection->writable = true;
}

static void hang_up(struct connection *connection)
{
    if (connection->fd < 0)
        return;
    unwatch(&connection->fd);
    list_remove(&connection->all);
    if (followed == connection)
        followed = NULL;
    free(connection->input);
    free(connection->rest);
    free(connection->replies);
    discard(&connection->garbage, connection);
}

static void add_connection(int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) {
        close(fd);
        return;
    }
    unsigned count = 0;
    list_each(at, after, &connections)
        count++;
    if (count == CONNECTIONS_MOST) {
        struct connection *oldest = container_of(connections.next, struct connection, all);
        hang_up(oldest == followed ? container_of(oldest->all.next, struct connection, all) : oldest);
    }
    connection->source.ready = on_connection;
    connection->fd = fd;
    list_init(&connection->all);
    list_append(&connections, &connection->all);
    if (!watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &connection->source))
        hang_up(connection);
}

static void on_listener(struct source *source, uint32_t events)
{
    (void)source, (void)events;
    int fd = accept4(LISTENER, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        add_connection(fd);
}

void link_open(void)
{
    int listening = 0;
    socklen_t size = sizeof listening;
    if (getsockopt(LISTENER, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) || !listening) {
        complain("descriptor 3 is no listening socket");
        _exit(64);
    }
    fcntl(LISTENER, F_SETFD, FD_CLOEXEC);
    fcntl(LISTENER, F_SETFL, O_NONBLOCK);
    listener.ready = on_listener;
    if (!watch(LISTENER, EPOLLIN, &listener))
        _exit(71);
}

/* Replies */

/* Room for `size` more bytes of replies; NULL, with the connection gone, if its host has left too many unread. */
static uint8_t *reply(struct connection *connection, size_t size)
{
    if (connection->replies_at == connection->replies_size)
        connection->replies_at = connection->replies_size = 0;
    size_t wanted = connection->replies_size + size;
    if (wanted > connection->replies_room) {
        size_t room = wanted < 1024 ? 1024 : wanted * 2;
        uint8_t *larger = wanted <= REPLIES_MOST ? realloc(connection->replies, room) : NULL;
        if (!larger) {
            hang_up(connection);
            return NULL;
        }
        connection->replies = larger;
        connection->replies_room = room;
    }
    uint8_t *at = connection->replies + connection->replies_size;
    connection->replies_size = wanted;
    return at;
}

static bool refuse(struct connection *connection, const uint8_t *id, enum refusal why)
{
    uint8_t *at = reply(connection, HEADER_SIZE + 1);
    if (at)
        put8(put_header(at, REFUSED, 0, id, 1), why);
    return at != NULL;
}

static bool answer_ping(struct connection *connection, uint64_t token)
{
    uint8_t *at = reply(connection, HEADER_SIZE + 8);
    if (at)
        put64(put_header(at, PONG, 0, NULL, 8), token);
    return at != NULL;
}

static void say_stopped(struct connection *connection)
{
    uint8_t *at = reply(connection, HEADER_SIZE);
    connection->told_stopped = true;
    if (at)
        put_header(at, STOPPED, 0, NULL, 0);
}

/* Frames from the node. Each handler returns false when the connection is over. */

static bool on_hello(struct connection *connection, const uint8_t *body)
{
    if (connection->epoch || !get32(body))
        return false;
    uint64_t offered = get64(body + 4);
    if (offered <= epoch) {
        uint8_t stale[HEADER_SIZE + 8];
        put64(put_header(stale, STALE, 0, NULL, 8), epoch);
        send(connection->fd, stale, sizeof stale, MSG_NOSIGNAL | MSG_DONTWAIT);
        return false;
    }
    if (followed)
        hang_up(followed);
    connection->epoch = epoch = offered;
    followed = connection;
    uint32_t count = executions_known(), size = 4 + ID_SIZE + 4 + count * ID_SIZE;
    uint8_t *at = reply(connection, HEADER_SIZE + size);
    if (!at)
        return false;
    at = put32(put_header(at, WELCOME, 0, NULL, size), VERSION);
    at = put32(put_id(at, guest.boot_id), count);
    executions_names(at);
    executions_resend();
    spare_want();
    return true;
}

static bool on_start(struct connection *connection, const struct frame *frame)
{
    struct order order;
    if (!order_read(frame, &order))
        return false;
    enum refusal why = execution_start(frame->id, &order);
    return !why || refuse(connection, frame->id, why);
}

static bool on_ack(struct execution *execution, const uint8_t *body)
{
    if (body[0] != 1 && body[0] != 2)
        return false;
    if (!execution)
        return true;
    struct stream *stream = &execution->output[body[0] - 1];
    uint64_t offset = get64(body + 1);
    if (offset > stream->announced)
        return false;
    stream_acked(stream, offset);
    return true;
}

static bool on_forget(struct execution *execution)
{
    if (execution && execution->phase != ENDED)
        return false;
    if (execution)
        execution_forget(execution);
    return true;
}

static bool on_cancel(struct execution *execution, const struct frame *frame)
{
    if (!execution)
        return tombstone_add(frame->id);
    execution_cancel(execution, get32(frame->body));
    return true;
}

static bool handle(struct connection *connection, const struct frame *frame)
{
    if (frame->type == HELLO)
        return on_hello(connection, frame->body);
    if (!connection->epoch)
        return false;
    struct execution *execution = execution_find(frame->id);
    switch (frame->type) {
    case START:
        return on_start(connection, frame);
    case STDIN:
        return !execution || input_take(execution, get64(frame->body), frame->body + 8, frame->size - 8,
                                        frame->flags & 1);
    case ACK:
        return on_ack(execution, frame->body);
    case FORGET:
        return on_forget(execution);
    case CANCEL:
        return on_cancel(execution, frame);
    case STOP:
        machine_stop(get32(frame->body));
        return true;
    case PING:
        return answer_ping(connection, get64(frame->body));
    default:
        machine_off();
        return true;
    }
}

/* Handles the whole frames in the buffer. False when the connection is over. */
static bool handle_input(struct connection *connection)
{
    struct frame frame;
    size_t at = 0, need;
    for (long size; (size = frame_cut(connection->input + at, connection->have - at, &frame, &need)); at += (size_t)size)
        if (size < 0 || !handle(connection, &frame) || connection->fd < 0)
            return false;
    connection->have -= at;
    if (at)
        memmove(connection->input, connection->input + at, connection->have);
    if (need < INPUT_LEAST)
        need = INPUT_LEAST;
    if (need > connection->size || (!connection->have && connection->size > INPUT_LEAST)) {
        uint8_t *other = realloc(connection->input, need);
        if (!other)
            return false;
        connection->input = other;
        connection->size = need;
    }
    return true;
}

static void receive(struct connection *connection)
{
    if (!connection->input && !(connection->input = malloc(connection->size = INPUT_LEAST))) {
        hang_up(connection);
        return;
    }
    for (size_t taken = 0; taken < TURN_MOST;) {
        ssize_t got = recv(connection->fd, connection->input + connection->have, connection->size - connection->have, 0);
        if (got < 0 && errno == EAGAIN) {
            connection->readable = false;
            return;
        }
        if (got < 0 && errno == EINTR)
            continue;
        if (got > 0) {
            connection->have += (size_t)got;
            taken += (size_t)got;
        }
        if (got <= 0 || !handle_input(connection)) {
            hang_up(connection);
            return;
        }
    }
}

/* Frames to the node: a batch is laid out in slices, sent with one call, and what was sent is then marked so. */

struct piece {
    struct execution *execution;
    struct stream *stream; /* of an OUTPUT */
    uint64_t offset;
    enum frame_type type;
    uint32_t bytes; /* of output */
    uint32_t size;  /* of the whole frame */
    unsigned slice; /* where it begins */
};

static struct batch {
    struct piece pieces[BATCH_FRAMES];
    uint8_t headers[BATCH_FRAMES][OWN_FRAME_MOST];
    struct iovec slices[2 + 3 * BATCH_FRAMES];
    unsigned frames, count;
    size_t bytes;
} batch;

static bool batch_full(void)
{
    return batch.frames == BATCH_FRAMES || batch.bytes >= BATCH_BYTES;
}

static void add_slice(void *at, size_t size)
{
    batch.slices[batch.count++] = (struct iovec){at, size};
    batch.bytes += size;
}

static uint8_t *add_frame(struct execution *execution, enum frame_type type, uint8_t flags, uint32_t size)
{
    uint8_t *header = batch.headers[batch.frames];
    batch.pieces[batch.frames++] =
        (struct piece){.execution = execution, .type = type, .size = HEADER_SIZE + size, .slice = batch.count};
    return put_header(header, type, flags, execution->id, size);
}

/* Call with everything of the frame but output bytes written up to `end`. */
static void end_frame(const uint8_t *end)
{
    uint8_t *header = batch.headers[batch.frames - 1];
    add_slice(header, (size_t)(end - header));
}

static void add_started(struct execution *execution)
{
    end_frame(put64(add_frame(execution, STARTED, 0, 8), execution->started_at));
}

static void add_stdin_state(struct execution *execution)
{
    end_frame(put64(add_frame(execution, STDIN_STATE, execution->input.closed, 8), execution->input.written));
}

static void add_exited(struct execution *execution)
{
    uint8_t *at = add_frame(execution, EXITED, execution->flags, 57);
    at = put32(put32(put8(at, execution->how), (uint32_t)execution->code), execution->error);
    at = put64(put64(at, execution->started_at), execution->ended_at);
    for (int index = 0; index < 2; index++)
        at = put64(at, execution->total[index]);
    for (int index = 0; index < 2; index++)
        at = put64(at, execution->kept[index]);
    end_frame(at);
}

/* Adds one OUTPUT from `offset` on; returns where the next one begins. */
static uint64_t add_output(struct stream *stream, uint64_t offset)
{
    uint64_t left = stream->received - offset;
    uint32_t size = left < PIECE_MOST ? (uint32_t)left : PIECE_MOST;
    end_frame(put64(put8(add_frame(stream->execution, OUTPUT, 0, 9 + size), stream->number), offset));
    struct piece *piece = &batch.pieces[batch.frames - 1];
    piece->stream = stream;
    piece->offset = offset;
    piece->bytes = size;
    struct iovec slices[2];
    int count = stream_slices(stream, offset, size, slices);
    for (int slice = 0; slice < count; slice++)
        add_slice(slices[slice].iov_base, slices[slice].iov_len);
    return offset + size;
}

/* The frames of an execution that go before anyone's output; of an ended one everything, up to EXITED. */
static void add_urgent(struct execution *execution)
{
    if (execution->started_due && !batch_full())
        add_started(execution);
    if (execution->stdin_due && !batch_full())
        add_stdin_state(execution);
    if (!execution->exited_due)
        return;
    for (int index = 0; index < 2; index++) {
        struct stream *stream = &execution->output[index];
        for (uint64_t offset = stream->sent; offset < stream->received;) {
            if (batch_full())
                return;
            offset = add_output(stream, offset);
        }
    }
    if (!batch_full())
        add_exited(execution);
}

static bool owes(const struct execution *execution)
{
    const struct stream *output = execution->output;
    return execution->started_due || execution->stdin_due || execution->exited_due ||
           output[0].sent < output[0].received || output[1].sent < output[1].received;
}

static void make_batch(struct connection *connection)
{
    batch.frames = batch.count = 0;
    batch.bytes = 0;
    if (connection->rest)
        add_slice(connection->rest + connection->rest_at, connection->rest_size - connection->rest_at);
    if (connection->replies_size > connection->replies_at)
        add_slice(connection->replies + connection->replies_at, connection->replies_size - connection->replies_at);
    list_each(at, after, &dues) {
        struct execution *execution = container_of(at, struct execution, due);
        if (batch_full())
            return;
        if (owes(execution))
            add_urgent(execution);
        else
            list_remove(&execution->due);
    }
    list_each(at, after, &dues) {
        struct execution *execution = container_of(at, struct execution, due);
        for (int index = 0; index < 2 && !execution->exited_due && !batch_full(); index++) {
            struct stream *stream = &execution->output[index];
            if (stream->sent < stream->received)
                add_output(stream, stream->sent);
        }
    }
}

static void mark_sent(const struct piece *piece)
{
    struct execution *execution = piece->execution;
    switch (piece->type) {
    case STARTED:
        execution->started_due = false;
        break;
    case STDIN_STATE:
        execution->stdin_due = false;
        break;
    case EXITED:
        execution->exited_due = false;
        break;
    default:
        piece->stream->sent = piece->offset + piece->bytes;
        if (piece->stream->announced < piece->stream->sent)
            piece->stream->announced = piece->stream->sent;
    }
    if (owes(execution))
        list_append(&dues, &execution->due);
    else
        list_remove(&execution->due);
}

/* Keeps what is left of a frame whose first `sent` bytes are out: its output may be freed or sent anew meanwhile. */
static bool keep_rest(struct connection *connection, const struct piece *piece, size_t sent)
{
    uint8_t *at = connection->rest = malloc(piece->size - sent);
    if (!at)
        return false;
    connection->rest_at = 0;
    connection->rest_size = piece->size - sent;
    size_t left = piece->size;
    for (const struct iovec *slice = batch.slices + piece->slice; left; slice++) {
        size_t skip = sent < slice->iov_len ? sent : slice->iov_len;
        memcpy(at, (const uint8_t *)slice->iov_base + skip, slice->iov_len - skip);
        at += slice->iov_len - skip;
        sent -= skip;
        left -= slice->iov_len;
    }
    return true;
}

/* Marks the first `sent` bytes of the batch as sent. False when the connection cannot go on. */
static bool settle(struct connection *connection, size_t sent)
{
    if (connection->rest) {
        size_t rest = connection->rest_size - connection->rest_at;
        if (sent < rest) {
            connection->rest_at += sent;
            return true;
        }
        sent -= rest;
        free(connection->rest);
        connection->rest = NULL;
    }
    size_t replies = connection->replies_size - connection->replies_at;
    if (sent < replies) {
        connection->replies_at += sent;
        return true;
    }
    sent -= replies;
    connection->replies_at = connection->replies_size = connection->replies_room = 0;
    free(connection->replies);
    connection->replies = NULL;
    for (unsigned index = 0; index < batch.frames && sent; index++) {
        const struct piece *piece = &batch.pieces[index];
        if (sent < piece->size) {
            mark_sent(piece);
            return keep_rest(connection, piece, sent);
        }
        mark_sent(piece);
        sent -= piece->size;
    }
    return true;
}

static void transmit(struct connection *connection)
{
    for (int turn = 0; connection->writable && turn < 4; turn++) {
        if (guest.stopped && list_empty(&dues) && !connection->told_stopped)
            say_stopped(connection);
        if (connection->fd < 0)
            return;
        make_batch(connection);
        if (!batch.bytes)
            return;
        struct msghdr message = {.msg_iov = batch.slices, .msg_iovlen = batch.count};
        ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN) {
            connection->writable = false;
            return;
        }
        if (sent < 0 || !settle(connection, (size_t)sent))
            hang_up(connection);
        if (connection->fd < 0)
            return;
    }
}

bool link_receive(void)
{
    bool more = false;
    /* A HELLO may close the connection that would come next, so each round begins anew behind those it has served. */
    unsigned count = 0;
    list_each(at, after, &connections)
        count++;
    while (count-- && !list_empty(&connections)) {
        struct connection *connection = container_of(connections.next, struct connection, all);
        list_append(&connections, &connection->all);
        if (connection->readable)
            receive(connection);
        more |= connection->fd >= 0 && connection->readable;
    }
    return more;
}

bool link_send(void)
{
    if (followed)
        transmit(followed);
    return followed && followed->writable &&
           (!list_empty(&dues) || followed->rest || (guest.stopped && !followed->told_stopped));
}
