/* libFuzzer: the life of a whole process 1. The input is a script of what nodes send, what commands do, what fails and how
   time passes; everything that the guest then says is checked against PROTOCOL.md, byte by byte. Whatever the script was,
   a last node that is in good faith gets all there is, and afterwards nothing is left. No process is made (pretend.c). */
#include "../src/main.c"

#include <setjmp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "pretend.h"

enum {
    NODES = 3,
    IDS = 6,
    OPERATIONS_MOST = 400,
    WIND_DOWN_TURNS = 4000,
    WELCOME_LEAST = 4 + ID_SIZE + 4,
};

/* Not to be as it was before when a session begins: large, and written before it is read. */
#define APART __attribute__((section("apart")))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* The script */

static const uint8_t *script, *script_end;

static uint8_t next8(void)
{
    return script < script_end ? *script++ : 0;
}

static uint64_t next_size(void)
{
    static const uint64_t sizes[] = {0,    1,    2,     7,     100,   4095,       4096,       4097,
                                     9000, 65535, 65536, 65537, 262144, UINT32_MAX, UINT64_MAX, INT64_MAX};
    uint8_t choice = next8();
    return choice < 16 ? sizes[choice] : choice - 16u;
}

/* What a node knows of an execution. An id that was forgotten may be used again. */

struct view {
    bool known; /* on this connection */
    bool blind; /* it was forgotten unheard: what is under way of it is not to be judged */
    bool started, exited, stdin_closed;
    bool placed[2];
    uint64_t next[2], acked[2]; /* output; acked: by this connection */
    uint64_t written; /* input */
};

struct node {
    int fd; /* -1 when it is not connected */
    bool welcomed, stopped;
    uint8_t *received, *sending;
    size_t have, unsent;
    struct view views[IDS];
};

/* What is true of an execution, whoever knows it. */
struct truth {
    unsigned life;
    uint64_t kept_limit;
    uint64_t got[2]; /* output, heard or acknowledged by any node */
    uint64_t given;  /* stdin that was ever sent under this id */
};

static struct node nodes[NODES];
static struct truth truths[IDS];
static uint64_t highest; /* epoch that was offered */
static bool raw;         /* bytes may be sent that nobody keeps track of, so that less can be said of what comes back */
static struct sockaddr_un door; /* where the guest listens */
static socklen_t door_size;
static APART uint8_t received[NODES][1 << 18], sending[NODES][1 << 18];

jmp_buf over;

static void id_of(unsigned number, uint8_t id[ID_SIZE])
{
    memset(id, 0, ID_SIZE);
    id[0] = (uint8_t)(number + 1);
    id[15] = 7;
}

static unsigned number_of(const uint8_t *id)
{
    uint8_t own[ID_SIZE];
    for (unsigned number = 0; number < IDS; number++) {
        id_of(number, own);
        if (!memcmp(own, id, ID_SIZE))
            return number;
    }
    return IDS;
}

static bool exists(unsigned number)
{
    uint8_t id[ID_SIZE];
    id_of(number, id);
    return execution_find(id) != NULL;
}

/* What the guest says */

static void hear_welcome(struct node *node, const uint8_t *body, uint32_t size)
{
    MUST(!node->welcomed && size >= WELCOME_LEAST && get32(body) == VERSION);
    MUST(!memcmp(body + 4, guest.boot_id, ID_SIZE));
    uint32_t count = get32(body + 20);
    MUST(count <= KNOWN_MOST && size == WELCOME_LEAST + count * ID_SIZE);
    node->welcomed = true;
    for (uint32_t index = 0; index < count; index++) {
        unsigned number = number_of(body + WELCOME_LEAST + index * ID_SIZE);
        MUST(raw || number < IDS);
        if (number < IDS)
            node->views[number].known = true;
    }
}

static void hear_output(struct view *view, struct truth *truth, const uint8_t *body, uint32_t size)
{
    MUST(size > 9 && size <= 9 + PIECE_MOST && (body[0] == 1 || body[0] == 2));
    int stream = body[0] - 1;
    uint64_t offset = get64(body + 1), end = offset + size - 9;
    MUST((view->placed[stream] ? offset == view->next[stream] || offset <= view->acked[stream]
                                      : offset <= truth->got[stream]));
    MUST(end <= truth->kept_limit && end <= lived[truth->life].written[stream]);
    for (uint64_t at = offset; at < end; at++)
        if (body[9 + at - offset] != pattern(truth->life, stream, at))
            MUST(!"output is other than what was written");
    view->placed[stream] = true;
    view->next[stream] = end;
    if (truth->got[stream] < end)
        truth->got[stream] = end;
}

static void hear_exited(struct view *view, const struct truth *truth, const uint8_t *body, uint8_t flags)
{
    uint8_t how = body[0];
    bool began = get64(body + 9) != 0;
    MUST(how >= HOW_EXITED && how <= HOW_INTERRUPTED && flags < 16);
    MUST(began == view->started);
    MUST(how > HOW_SIGNALLED || began);
    for (int stream = 0; stream < 2; stream++) {
        uint64_t total = get64(body + 25 + 8 * stream), kept = get64(body + 41 + 8 * stream);
        MUST(kept == (total < truth->kept_limit ? total : truth->kept_limit));
        MUST(total <= lived[truth->life].written[stream]);
        MUST((view->placed[stream] ? kept == view->next[stream] || kept <= view->acked[stream]
                                          : kept <= truth->got[stream]));
        MUST(flags & EXITED_DRAIN || total == lived[truth->life].written[stream]);
    }
    view->exited = true;
}

static void hear_of(struct node *node, uint8_t type, uint8_t flags, unsigned number, const uint8_t *body, uint32_t size)
{
    struct view *view = &node->views[number];
    struct truth *truth = &truths[number];
    if (type == REFUSED) {
        MUST(size == 1 && body[0] >= REFUSED_BOOT && body[0] <= REFUSED_STOPPING && !flags);
        return;
    }
    if (raw || view->blind)
        return;
    if (type == STDIN_STATE && !view->known)
        return; /* said before it was forgotten */
    MUST(view->known && (!view->exited || type == STDIN_STATE));
    switch (type) {
    case STARTED:
        MUST(size == 8 && !flags && !view->started);
        view->started = true;
        break;
    case OUTPUT:
        MUST(!flags && view->started);
        hear_output(view, truth, body, size);
        break;
    case STDIN_STATE:
        MUST(size == 8 && flags <= 1 && get64(body) >= view->written && get64(body) <= truth->given);
        MUST(!view->stdin_closed || flags);
        view->written = get64(body);
        view->stdin_closed = flags;
        break;
    default:
        MUST(type == EXITED && size == 57);
        hear_exited(view, truth, body, flags);
    }
}

static void hear(struct node *node, uint8_t type, uint8_t flags, const uint8_t *id, const uint8_t *body, uint32_t size)
{
    static const uint8_t nobody[ID_SIZE];
    bool named = memcmp(id, nobody, ID_SIZE);
    if (type == STALE) {
        MUST(!node->welcomed && size == 8 && !named && !flags);
        return;
    }
    if (type == WELCOME) {
        MUST(!named && !flags);
        hear_welcome(node, body, size);
        return;
    }
    MUST(node->welcomed);
    if (type == PONG) {
        MUST(size == 8 && !named && !flags);
    } else if (type == STOPPED) {
        MUST(!size && !named && !flags && !node->stopped && list_empty(&lives));
        for (unsigned number = 0; number < IDS; number++)
            MUST(raw || !exists(number) || node->views[number].blind || node->views[number].exited);
        node->stopped = true;
    } else {
        MUST(named);
        unsigned number = number_of(id);
        MUST(raw || number < IDS);
        if (number < IDS)
            hear_of(node, type, flags, number, body, size);
    }
}

/* Reads at most so many bytes and takes the frames they complete. False at the end. */
static bool node_read(struct node *node, size_t most)
{
    if (node->fd < 0)
        return false;
    if (most > sizeof received[0] - node->have)
        most = sizeof received[0] - node->have;
    ssize_t got = recv(node->fd, node->received + node->have, most, MSG_DONTWAIT);
    if (got <= 0)
        return false;
    node->have += (size_t)got;
    size_t at = 0;
    while (node->have - at >= HEADER_SIZE) {
        const uint8_t *header = node->received + at;
        uint32_t size = get32(header);
        MUST(size <= 65552 && !header[6] && !header[7]);
        if (node->have - at < HEADER_SIZE + size)
            break;
        hear(node, header[4], header[5], header + 8, header + HEADER_SIZE, size);
        at += HEADER_SIZE + size;
    }
    node->have -= at;
    memmove(node->received, node->received + at, node->have);
    return true;
}

/* What nodes do */

static void node_close(struct node *node)
{
    shut(&node->fd);
}

static void node_open(struct node *node)
{
    node_close(node);
    node->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int high = fcntl(node->fd, F_DUPFD_CLOEXEC, GUEST_FD_MOST);
    close(node->fd);
    node->fd = high;
    if (connect(node->fd, (struct sockaddr *)&door, door_size))
        node_close(node); /* the guest has not accepted for long */
    node->received = received[node - nodes];
    node->sending = sending[node - nodes];
    node->have = node->unsent = 0;
    node->welcomed = node->stopped = false;
    memset(node->views, 0, sizeof node->views);
}

static void node_push(struct node *node)
{
    while (node->fd >= 0 && node->unsent) {
        ssize_t put = send(node->fd, node->sending, node->unsent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put <= 0)
            return;
        node->unsent -= (size_t)put;
        memmove(node->sending, node->sending + put, node->unsent);
    }
}

static bool node_send(struct node *node, const void *bytes, size_t size)
{
    if (node->fd < 0 || node->unsent + size > sizeof sending[0])
        return false;
    memcpy(node->sending + node->unsent, bytes, size);
    node->unsent += size;
    node_push(node);
    return true;
}

static bool send_frame(struct node *node, enum frame_type type, uint8_t flags, unsigned number, const uint8_t *body,
                       uint32_t size)
{
    static APART uint8_t bytes[HEADER_SIZE + 8 + PIECE_MOST];
    uint8_t id[ID_SIZE];
    id_of(number, id);
    MUST(size <= sizeof bytes - HEADER_SIZE);
    uint8_t *at = put_header(bytes, type, flags, number < IDS ? id : NULL, size);
    if (size)
        memcpy(at, body, size);
    return node_send(node, bytes, HEADER_SIZE + size);
}

static void say_hello(struct node *node)
{
    uint8_t body[12];
    uint8_t step = next8();
    uint64_t offered = step < 4 && highest > step ? highest - step : highest + 1 + step % 3;
    if (step == 255)
        offered = UINT64_MAX - next8();
    put64(put32(body, step == 200 ? 0 : 1 + step % 3), offered);
    if (send_frame(node, HELLO, 0, IDS, body, sizeof body) && offered > highest && step != 200)
        highest = offered;
}

static uint8_t *put_text(uint8_t *at, uint32_t size, uint8_t letter)
{
    at = put32(at, size);
    memset(at, letter, size);
    return at + size;
}

static void say_start(struct node *node, unsigned number)
{
    static APART uint8_t body[1 << 16];
    uint8_t about = next8(), strings = next8();
    uint64_t limit = next_size(), timeout = about & 8 ? next_size() : 0, grace = about & 16 ? next_size() : 10;
    memcpy(body, guest.boot_id, ID_SIZE);
    body[3] ^= about & 4;
    uint8_t *at = put32(put64(put64(body + ID_SIZE, timeout), limit), (uint32_t)grace);
    at = put_text(at, strings & 3, '/');
    uint32_t arguments = about & 32 ? 1500 : 1 + (strings >> 2 & 3), pairs = strings >> 4;
    at = put32(at, arguments);
    for (uint32_t index = 0; index < arguments; index++)
        at = put_text(at, about & 64 ? 30 : index % 7, 'a');
    at = put32(at, pairs);
    for (uint32_t index = 0; index < pairs; index++)
        at = put_text(put8(put8(put32(at, index + 2), 'K'), '='), index, 'v') - 4;
    if (send_frame(node, START, about & 1, number, body, (uint32_t)(at - body)))
        node->views[number].known = true;
}

static void say_stdin(struct node *node, unsigned number)
{
    static APART uint8_t body[8 + PIECE_MOST];
    uint8_t about = next8();
    uint64_t size = next_size();
    uint64_t offset = about & 2 ? truths[number].given : about & 4 ? next_size() : node->views[number].written;
    if (about & 8)
        offset++; /* a gap, mostly */
    if (size > PIECE_MOST)
        size = PIECE_MOST;
    put64(body, offset);
    for (uint64_t at = 0; at < size; at++)
        body[8 + at] = pattern(number, 2, offset + at);
    if (send_frame(node, STDIN, about & 1, number, body, (uint32_t)(8 + size)) && truths[number].given < offset + size)
        truths[number].given = offset + size;
}

static void say_ack(struct node *node, unsigned number)
{
    uint8_t about = next8(), body[9];
    int stream = about & 1;
    struct truth *truth = &truths[number];
    struct view *view = &node->views[number];
    uint64_t offsets[] = {view->next[stream], truth->got[stream], view->next[stream] / 2, next_size(),
                          lived[truth->life].written[stream], view->next[stream] + 1, 0, view->next[stream]};
    uint64_t offset = offsets[about >> 1 & 7];
    put64(put8(body, (uint8_t)(stream + 1)), offset);
    if (!send_frame(node, ACK, 0, number, body, sizeof body) || offset > lived[truth->life].written[stream])
        return;
    if (truth->got[stream] < offset)
        truth->got[stream] = offset;
    if (view->acked[stream] < offset)
        view->acked[stream] = offset;
}

static void say_number(struct node *node, enum frame_type type, unsigned number, uint64_t value, uint32_t size)
{
    uint8_t body[8];
    put64(body, value);
    send_frame(node, type, 0, number, body, size);
}

static void say_forget(struct node *node, unsigned number)
{
    if (!send_frame(node, FORGET, 0, number, NULL, 0))
        return;
    for (struct node *each = nodes; each < nodes + NODES; each++)
        each->views[number] = each->views[number].exited ? (struct view){0} : (struct view){.blind = true, .known = true};
}

/* Any frame at all, though none with contents that are not kept track of. */
static void say_anything(struct node *node)
{
    uint8_t bytes[HEADER_SIZE + 255], type = next8(), size = next8();
    uint8_t *at = put_header(bytes, (enum frame_type)type, next8(), NULL, size);
    id_of(next8() % (IDS + 1), bytes + 8);
    bytes[6] = next8() == 1;
    for (uint32_t index = 0; index < size; index++)
        at = put8(at, next8());
    node_send(node, bytes, HEADER_SIZE + size);
}

static void say_bytes(struct node *node)
{
    size_t size = next8();
    if (size > (size_t)(script_end - script))
        size = (size_t)(script_end - script);
    node_send(node, script, size);
    script += size;
}

/* What commands do */

static struct process *some_process(void)
{
    unsigned living = 0, choice = next8();
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
        living += at->pid && at->living;
    if (!living)
        return NULL;
    choice %= living;
    struct process *at = processes;
    while (!(at->pid && at->living) || choice--)
        at++;
    return at;
}

/* A spare takes its plan, if there is one, or ends if there never will be. False while it has to wait. */
static bool read_plan(struct process *process)
{
    static APART uint8_t plan[64 * 1024];
    if (!process->spare)
        return true;
    ssize_t got = recv(process->plan, plan, sizeof plan, MSG_DONTWAIT);
    if (got < 0)
        return false;
    process->spare = false;
    shut(&process->plan);
    if (!got) {
        process_end(process, 0);
        return false;
    }
    uint32_t size, strings = 12;
    memcpy(&size, plan + 8, 4);
    MUST((size_t)got == strings + size);
    return true;
}

static void command_begin(struct process *process)
{
    uint8_t about = next8(), why[8];
    if (!read_plan(process) || process->report < 0)
        return;
    if (about < 16) {
        put32(put32(why, HOW_NOT_FOUND + about % 4), 2);
        MUST(write(process->report, why, sizeof why) == sizeof why);
        process_end(process, 127 << 8);
        return;
    }
    process->obeys = about & 1;
    shut(&process->report);
}

static bool runs(struct process *process)
{
    if (!read_plan(process))
        return false;
    shut(&process->report);
    return true;
}

static void command_write(struct process *process)
{
    static APART uint8_t bytes[1 << 16];
    int stream = next8() & 1;
    uint64_t size = next_size(), *written = &lived[process->life].written[stream];
    if (!runs(process) || process->out[stream] < 0)
        return;
    if (size > sizeof bytes)
        size = sizeof bytes;
    for (uint64_t at = 0; at < size; at++)
        bytes[at] = pattern(process->life, stream, *written + at);
    ssize_t put = write(process->out[stream], bytes, size);
    if (put > 0)
        *written += (uint64_t)put;
}

static void command_read(struct process *process)
{
    static APART uint8_t bytes[1 << 16];
    uint64_t size = next_size();
    if (!runs(process) || process->in < 0)
        return;
    ssize_t got = read(process->in, bytes, size > sizeof bytes ? sizeof bytes : size);
    for (ssize_t at = 0; at < got; at++, lived[process->life].read++)
        for (unsigned number = 0; number < IDS && !raw; number++)
            if (truths[number].life == process->life)
                MUST(bytes[at] == pattern(number, 2, lived[process->life].read));
}

static void command_acts(uint8_t what)
{
    struct process *process = some_process();
    if (!process)
        return;
    switch (what) {
    case 0:
        command_begin(process);
        break;
    case 1:
        command_write(process);
        break;
    case 2:
        command_read(process);
        break;
    case 3:
        if (runs(process))
            process_end(process, next8() << 8);
        break;
    case 4: /* by whomever, also a spare that waits */
        process_end(process, 1 + next8() % 64);
        break;
    case 5:
        if (runs(process))
            process_fork(process);
        break;
    default:
        if (runs(process))
            shut(what == 6 ? &process->in : &process->out[what & 1]);
    }
}

/* The guest's own part */

/* Whose process is whose is known only until the end of the leader is. */
static void recognise(void)
{
    list_each(at, after, &executions) {
        struct execution *execution = container_of(at, struct execution, all);
        const struct process *process = execution->pid ? process_find(execution->pid) : NULL;
        unsigned number = number_of(execution->id);
        if (!process || number == IDS || truths[number].life == process->life)
            continue;
        truths[number] = (struct truth){
            .life = process->life, .kept_limit = execution->kept_limit, .given = truths[number].given};
    }
}

static void guest_turns(unsigned count)
{
    while (count--) {
        for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
            reap_due |= at->pid && !at->living; /* SIGCHLD */
        turn();
        recognise();
        look(0);
    }
}

static void operate(void)
{
    uint8_t operation = next8();
    struct node *node = &nodes[operation >> 5 & 1];
    unsigned number;
    switch (operation & 31) {
    case 0:
        node_open(node);
        break;
    case 1:
        node_close(node);
        break;
    case 2:
        say_hello(node);
        break;
    case 3:
        number = next8() % IDS;
        say_start(node, number);
        break;
    case 4:
        number = next8() % IDS;
        say_stdin(node, number);
        break;
    case 5:
        number = next8() % IDS;
        say_ack(node, number);
        break;
    case 6:
        say_forget(node, next8() % IDS);
        break;
    case 7:
        number = next8() % IDS;
        say_number(node, CANCEL, number, next_size(), 4);
        break;
    case 8:
        say_number(node, STOP, IDS, next_size(), 4);
        break;
    case 9:
        for (unsigned count = next8(); count-- > 0;)
            say_number(node, PING, IDS, count, 8);
        break;
    case 10:
        say_number(node, POWEROFF, IDS, 0, 0);
        break;
    case 11:
        if (raw)
            say_bytes(node);
        break;
    case 12:
        if (raw)
            say_anything(node);
        break;
    case 13:
        node_read(node, next_size());
        break;
    case 14:
        for (int times = 0; times < 50 && node_read(node, SIZE_MAX); times++)
            ;
        break;
    case 15:
        pretend_time += next8() * MS;
        break;
    case 16:
        pretend_time += (next_size() & UINT32_MAX) * MS;
        break;
    case 17:
        fail_memory = next8();
        break;
    case 18:
        fail_pipes = next8();
        break;
    case 19:
        fail_clones = next8();
        break;
    case 20:
        fail_memory = fail_pipes = fail_clones = 0;
        guest_turns(next8() % 8);
        break;
    case 21:
    case 22:
        guest_turns(1);
        break;
    default:
        command_acts((operation & 31) - 23);
    }
    node_push(node);
    if (!(operation & 64))
        guest_turns(1);
}

/* The end: a node that is in good faith, and no process lives any more */

static void settle_with(struct node *node)
{
    while (node_read(node, SIZE_MAX))
        ;
    for (unsigned number = 0; number < IDS; number++) {
        struct view *view = &node->views[number];
        for (uint8_t stream = 0; stream < 2; stream++) {
            uint8_t body[9];
            if (!view->placed[stream] || view->acked[stream] >= view->next[stream])
                continue;
            put64(put8(body, (uint8_t)(stream + 1)), view->next[stream]);
            if (send_frame(node, ACK, 0, number, body, sizeof body))
                view->acked[stream] = view->next[stream];
        }
        if (view->exited)
            say_forget(node, number);
    }
    node_push(node);
}

static void wind_down(void)
{
    struct node *node = &nodes[NODES - 1];
    fail_memory = fail_pipes = fail_clones = 0;
    script = script_end;
    for (struct node *other = nodes; other < node; other++)
        node_close(other);
    guest_turns(12); /* the guest takes what it was sent, and accepts whoever waits */
    node_open(node);
    MUST(node->fd >= 0);
    uint8_t hello[12];
    if (raw || highest == UINT64_MAX) /* which epoch it has is not known */
        return;
    put64(put32(hello, 1), ++highest);
    send_frame(node, HELLO, 0, IDS, hello, sizeof hello);
    for (int left = WIND_DOWN_TURNS; !list_empty(&executions) || !node->welcomed; left--) {
        if (!left)
            MUST(!"an execution does not end");
        guest_turns(1);
        for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
            if (at->pid && (!at->spare || !list_empty(&lives)))
                process_end(at, 9);
        settle_with(node);
        pretend_time += 10 * MS;
    }
    MUST(!executions_known() && list_empty(&lives) && list_empty(&dues) && list_empty(&retries));
    node_close(node);
    guest_turns(4);
    MUST(list_empty(&garbage));
    MUST(memory_taken() <= 1); /* the tombstones */
}

static void session_begin(void)
{
    pretend_begin();
    guest.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    guest.epoll = epoll_create1(EPOLL_CLOEXEC);
    guest.is_init = guest.has_cgroups = true;
    guest.files_hard = 4096;
    memset(guest.boot_id, 0xB0, ID_SIZE);
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    door.sun_family = AF_UNIX;
    MUST(!bind(listening, (struct sockaddr *)&door, sizeof door.sun_family) && !listen(listening, 8));
    door_size = sizeof door;
    MUST(!getsockname(listening, (struct sockaddr *)&door, &door_size));
    MUST(dup2(listening, 3) == 3);
    close(listening);
    link_open();
    for (struct node *node = nodes; node < nodes + NODES; node++)
        node->fd = -1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    signal(SIGPIPE, SIG_IGN); /* commands' */
    int taken = -1;
    while (taken < 5) /* 3 and 4 are the guest's */
        taken = open("/dev/null", O_RDONLY);
    variables_keep();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    descriptors_keep();
    session_begin();
    unsigned descriptors = descriptors_new();
    script = data;
    script_end = data + size;
    raw = next8() % 4 == 3;
    if (!setjmp(over)) {
        for (int count = 0; script < script_end && count < OPERATIONS_MOST; count++)
            operate();
        wind_down();
        if (!raw)
            spare_discard();
        if (!raw && highest < UINT64_MAX)
            MUST(descriptors_new() == descriptors);
    }
    for (struct node *node = nodes; node < nodes + NODES; node++)
        node_close(node);
    pretend_end();
    descriptors_close();
    variables_restore();
    return 0;
}
