/* A spare: the process of the next execution, made while process 1 has nothing else to do. It is in a cgroup of its own, has
   its descriptors and its filter, and waits for a plan: what to run, where and with what environment. That leaves the exec
   to be done when a START comes, a third of what starting a short command takes.

   Like any process inside it may be stopped or killed, which costs no more than making another. An execution with STDIN
   frames or a long argv gets a process of its own. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PLAN = 4, STRINGS_SIZE_MOST = 32 * 1024, STRINGS_MOST = 1024 };

/* Followed by the strings of the START as they came. */
struct plan {
    uint32_t argc, envc, size;
};

static pid_t spare; /* 0 for none */
static uint64_t cgroup, leftover;
static int plan_fd = -1;
static struct pipes pipes;
static bool wanted;

void spare_want(void)
{
    wanted = guest.is_init;
}

/* The spare's side */

static void receive(void *at, size_t size)
{
    for (size_t have = 0; have < size;) {
        ssize_t got = read(PLAN, (char *)at + have, size - have);
        if (!got || (got < 0 && errno != EINTR))
            _exit(0); /* not needed any more */
        have += got > 0 ? (size_t)got : 0;
    }
}

static _Noreturn void wait_for_plan(void)
{
    static uint8_t text[STRINGS_SIZE_MOST];
    static char *strings[STRINGS_MOST];
    struct plan plan;
    receive(&plan, sizeof plan);
    receive(text, plan.size);
    struct order order = {.argc = plan.argc, .envc = plan.envc, .strings = text};
    char **envp = strings + plan.argc + 1;
    child_exec(order_strings(&order, strings, envp), strings, envp);
}

/* The parent's side */

static void let_go(void)
{
    pipes_close(&pipes);
    if (plan_fd >= 0)
        close(plan_fd);
    spare = 0;
    plan_fd = -1;
}

static void close_theirs(int ends[2])
{
    close(ends[1]);
    ends[1] = -1;
}

/* Forks it; false without anything left open, but perhaps with a cgroup. */
static bool make(void)
{
    int ends[2], directory = cgroup_make(&cgroup);
    if (directory < 0) {
        cgroup = 0;
        return false;
    }
    if (pipes_make(&pipes, false) && !pipe2(ends, O_CLOEXEC)) {
        plan_fd = ends[1];
        fcntl(plan_fd, F_SETFL, O_NONBLOCK);
        spare = fork_into(directory);
        if (!spare) {
            child_settle(&pipes, ends[0]);
            wait_for_plan();
        }
        close(ends[0]);
    }
    close(directory);
    if (spare <= 0) {
        let_go();
        return false;
    }
    close_theirs(pipes.out);
    close_theirs(pipes.err);
    close_theirs(pipes.status);
    return true;
}

void spare_turn(void)
{
    /* While something runs, which may want this processor, starts are common or the gain is small. */
    if (!wanted || spare || guest.stopping || !list_empty(&lives) || (leftover && !cgroup_unmake(leftover, false)))
        return;
    leftover = 0;
    wanted = false;
    if (!make())
        leftover = cgroup;
}

static bool send_plan(const struct order *order)
{
    struct plan plan = {order->argc, order->envc, order->size};
    const struct iovec parts[] = {{&plan, sizeof plan}, {order->strings, order->size}};
    return writev(plan_fd, parts, 2) == (ssize_t)(sizeof plan + order->size);
}

bool spare_take(struct execution *execution, const struct order *order)
{
    spare_want(); /* the next one */
    if (!spare || order->stdin_open || order->size > STRINGS_SIZE_MOST ||
        (size_t)order->argc + order->envc + 2 > STRINGS_MOST)
        return false;
    bool done = pipes_attach(execution, &pipes);
    if (done && !(done = send_plan(order)))
        pipes_detach(execution);
    if (!done) {
        spare_discard();
        return false;
    }
    kill(spare, SIGCONT); /* should somebody have stopped everything */
    execution->pid = spare;
    execution->cgroup = cgroup;
    let_go();
    return true;
}

void spare_discard(void)
{
    if (!spare)
        return;
    kill(spare, SIGKILL);
    leftover = cgroup; /* until it is dead, and that is soon enough */
    let_go();
}

bool spare_ended(pid_t pid)
{
    if (pid != spare)
        return false;
    leftover = cgroup;
    let_go();
    return true;
}
