/* A spare: the process of the next execution, made while process 1 has nothing else to do. It is in a cgroup of its own, has
   its descriptors and its filter, and waits for a plan: what to run, where and with what environment. That leaves the exec
   to be done when a START comes, a third of what starting a short command takes.

   Like any process inside it may be stopped or killed, which costs no more than making another: also when it was given a
   plan that it has not read. An execution with STDIN frames or a long argv gets a process of its own. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PLAN = 4, STRINGS_SIZE_MOST = 32 * 1024, STRINGS_MOST = 1024 };

/* One message: the strings of the START follow as they came. */
struct plan {
    uint32_t argc, envc, size;
    uint8_t strings[STRINGS_SIZE_MOST];
};

static pid_t spare; /* 0 for none */
static uint64_t cgroup, leftover;
static int plan_fds[2] = {-1, -1};
static struct pipes pipes;
static bool wanted;
static bool rested; /* there was nothing to be done in the turn before */

void spare_want(void)
{
    wanted = guest.is_init;
}

/* The spare's side */

static _Noreturn void wait_for_plan(void)
{
    static struct plan plan;
    static char *strings[STRINGS_MOST];
    ssize_t got;
    /* Only looked at, so that one which a signal ends meanwhile has not begun. */
    while ((got = recv(PLAN, &plan, sizeof plan, MSG_PEEK)) < 0 && errno == EINTR)
        ;
    struct order order = {.argc = plan.argc, .envc = plan.envc, .strings = plan.strings};
    char **envp = strings + plan.argc + 1, mark;
    if (got <= 0 || recv(PLAN, &mark, 1, 0) != 1) /* takes it */
        _exit(0);                                 /* not needed any more */
    child_exec(order_strings(&order, strings, envp), strings, envp);
}

/* The parent's side */

static void let_go(void)
{
    pipes_close(&pipes);
    shut(&plan_fds[0]);
    shut(&plan_fds[1]);
    spare = 0;
}

/* Forks it; false without anything left open, but perhaps with a cgroup. */
static bool make(void)
{
    int directory = cgroup_make(&cgroup);
    if (directory < 0)
        return false;
    if (pipes_make(&pipes, false) && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, plan_fds)) {
        spare = fork_into(directory);
        if (!spare) {
            child_settle(&pipes, plan_fds[0]);
            wait_for_plan();
        }
    }
    close(directory);
    if (spare <= 0) {
        let_go();
        return false;
    }
    shut(&pipes.out[1]);
    shut(&pipes.err[1]);
    shut(&pipes.status[1]);
    return true;
}

void spare_turn(uint64_t *next)
{
    /* While something runs, which may want this processor, starts are common or the gain is small. */
    if (!wanted || spare || guest.stopping || !list_empty(&lives) || (leftover && !cgroup_unmake(leftover, false))) {
        rested = false;
        return;
    }
    leftover = 0;
    if (!rested) {
        /* Those who have just been told of an end want this processor too, and a client waits for them. */
        rested = true;
        sooner(next, after_ms(1));
        return;
    }
    rested = false;
    wanted = false;
    if (!make())
        leftover = cgroup;
}

static bool send_plan(const struct order *order)
{
    uint32_t head[] = {order->argc, order->envc, order->size}; /* as in struct plan */
    struct iovec parts[] = {{head, sizeof head}, {order->strings, order->size}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return sendmsg(plan_fds[1], &message, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
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
    execution->plan_fd = plan_fds[0];
    plan_fds[0] = -1;
    let_go();
    return true;
}

bool spare_idle(struct execution *execution)
{
    int unread = 0;
    if (execution->plan_fd < 0)
        return false;
    if (!ioctl(execution->plan_fd, FIONREAD, &unread) && unread)
        return true;
    shut(&execution->plan_fd);
    return false;
}

bool spare_again(struct execution *execution)
{
    static struct plan plan;
    bool whole = recv(execution->plan_fd, &plan, sizeof plan, MSG_DONTWAIT) > 0;
    shut(&execution->plan_fd);
    pipes_detach(execution);
    for (int index = 0; index < 2; index++) {
        list_remove(&execution->output[index].readable);
        stream_init(&execution->output[index], execution, (uint8_t)(index + 1));
    }
    cgroup_unmake(execution->cgroup, false);
    execution->cgroup = 0;
    struct order order = {.argc = plan.argc, .envc = plan.envc, .strings = plan.strings, .size = plan.size};
    return whole && spawn(execution, &order);
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
