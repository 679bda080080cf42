/* Process 1 of a machine (or, without a container, the root of a machine's processes).

   Descriptor 3 is a listening socket, 4 the machine's cgroup2 directory. HOME is given only without a container: the
   directory that stands for /root when a command asks for it as its cwd. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 64, REAP_MOST = 512, KILL_AGAIN_MS = 100, TERMINATED_GRACE_MS = 2000 };

struct guest guest = {.cgroup = -1, .oom_score = -1};

static struct source signals;
static int signals_fd;
static LIST(garbage);
static bool children = true, reap_due = true, off;
static uint64_t stop_at;

uint64_t real_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (uint64_t)time.tv_sec * 1000 * MS + (uint64_t)time.tv_nsec;
}

static uint64_t monotonic_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 * MS + (uint64_t)time.tv_nsec;
}

uint64_t after_ms(uint64_t milliseconds)
{
    return milliseconds > UINT64_MAX / MS / 2 ? UINT64_MAX : guest.now + milliseconds * MS;
}

void sooner(uint64_t *deadline, uint64_t other)
{
    if (other && (!*deadline || other < *deadline))
        *deadline = other;
}

void complain(const char *what)
{
    char line[160];
    int size = snprintf(line, sizeof line, "dormice-guest: %s: %s\n", what, strerror(errno));
    if (write(2, line, (size_t)size) < 0)
        return;
}

bool watch(int fd, uint32_t events, struct source *source)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return !epoll_ctl(guest.epoll, EPOLL_CTL_ADD, fd, &event);
}

void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void unwatch(int *fd)
{
    if (*fd >= 0)
        epoll_ctl(guest.epoll, EPOLL_CTL_DEL, *fd, NULL); /* a child that has not exec'ed yet may hold a copy */
    shut(fd);
}

void discard(struct garbage *item, void *memory)
{
    item->memory = memory;
    list_init(&item->link);
    list_append(&garbage, &item->link);
}

static void collect_garbage(void)
{
    list_each(at, after, &garbage)
        free(container_of(at, struct garbage, link)->memory);
    list_init(&garbage);
}

/* The end of the machine */

static void signal_all(int signal)
{
    if (guest.is_init) {
        kill(-1, signal);
        return;
    }
    list_each(at, after, &executions) {
        struct execution *execution = container_of(at, struct execution, all);
        if (signal == SIGKILL)
            processes_kill(execution);
        else
            processes_signal(execution, signal);
    }
}

void machine_stop(uint32_t grace_ms)
{
    uint64_t at = after_ms(grace_ms);
    if (guest.stopping) {
        if (!guest.stopped && at < stop_at)
            stop_at = at;
        return;
    }
    guest.stopping = true;
    spare_discard();
    stop_at = at;
    children = reap_due = true; /* until asked */
    list_each(link, after, &lives) {
        struct execution *execution = container_of(link, struct execution, live);
        execution->interrupted = execution->pid != 0;
    }
    if (grace_ms) {
        signal_all(SIGTERM);
        signal_all(SIGCONT);
    }
}

void machine_off(void)
{
    if (guest.is_init)
        _exit(0); /* the kernel kills the rest */
    off = true;
    machine_stop(0);
}

static void stop_turn(uint64_t *next)
{
    if (!guest.stopping || guest.stopped)
        return;
    if (guest.now >= stop_at && children) {
        signal_all(SIGKILL);
        stop_at = after_ms(KILL_AGAIN_MS);
    }
    if (children)
        sooner(next, stop_at);
    if (children || (!list_empty(&lives) && !off))
        return;
    int root = open(guest.is_init || !guest.home ? "/" : guest.home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || syncfs(root))
        complain("sync");
    if (root >= 0)
        close(root);
    guest.stopped = true;
}

/* Signals */

/* Reaps what has ended. True when there may be more. */
static bool reap(void)
{
    for (int count = 0; count < REAP_MOST; count++) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0) {
            children = pid == 0 || errno != ECHILD;
            return false;
        }
        if (!spare_ended(pid))
            execution_leader_ended(pid, status);
    }
    return true;
}

static void on_signal(struct source *source, uint32_t events)
{
    (void)source, (void)events;
    struct signalfd_siginfo about;
    while (read(signals_fd, &about, sizeof about) == sizeof about) {
        if (about.ssi_signo == SIGCHLD)
            reap_due = true;
        /* From outside: commands cannot end their machine. Of their own signals, those without a sender's pid (sigqueue may
           leave it out, F_SETSIG has none) are never SI_USER. */
        else if (!guest.is_init || (about.ssi_code == SI_USER && !about.ssi_pid)) {
            machine_stop(TERMINATED_GRACE_MS);
            off = true;
        }
    }
}

static void prepare_signals(void)
{
    sigset_t all, ours;
    /* The C library refuses to touch the signals that it keeps for itself, which commands may need all the same. */
    static const unsigned long standard[8];
    for (int signal = 1; signal < _NSIG; signal++)
        syscall(SYS_rt_sigaction, signal, standard, NULL, _NSIG / 8);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGTERM);
    signals_fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    signals.ready = on_signal;
    if (signals_fd < 0 || !watch(signals_fd, EPOLLIN, &signals))
        _exit(71);
}

/* Start-up */

static bool read_boot_id(const char *text)
{
    unsigned digits = 0;
    for (; *text; text++) {
        int digit = *text >= '0' && *text <= '9' ? *text - '0' : *text >= 'a' && *text <= 'f' ? *text - 'a' + 10 : -1;
        if (*text == '-')
            continue;
        if (digit < 0 || digits == 2 * ID_SIZE)
            return false;
        guest.boot_id[digits / 2] = (uint8_t)(guest.boot_id[digits / 2] << 4 | digit);
        digits++;
    }
    return digits == 2 * ID_SIZE;
}

/* Opened while /proc/self still belongs to us: once not dumpable, its files belong to the host's root. */
static void prepare_oom_score(void)
{
    char text[16] = "";
    guest.oom_score = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (guest.oom_score < 0 || pread(guest.oom_score, text, sizeof text - 1, 0) <= 0) {
        complain("oom_score_adj");
        guest.oom_score = -1;
        return;
    }
    int own = atoi(text), child = own + 500 < 1000 ? own + 500 : 1000;
    snprintf(guest.oom_own, sizeof guest.oom_own, "%d", own);
    snprintf(guest.oom_child, sizeof guest.oom_child, "%d", child);
}

static void prepare(int argc, char **argv)
{
    syscall(SYS_close_range, 5, ~0U, 0);
    fcntl(4, F_SETFD, FD_CLOEXEC);
    guest.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (guest.null >= 0 && guest.null <= 2)
        guest.null = open("/dev/null", O_RDWR | O_CLOEXEC); /* 0 to 2 are never free for a pipe */
    guest.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (argc < 2 || argc > 3 || !read_boot_id(argv[1]) || guest.null < 0 || guest.epoll < 0) {
        complain("usage: dormice-guest BOOT_ID [HOME]");
        _exit(64);
    }
    guest.home = argv[2];
    guest.is_init = getpid() == 1;
    prepare_oom_score();
    prctl(PR_SET_DUMPABLE, 0);
    if (!guest.is_init)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    spawn_prepare();
    cgroups_open();
    if (guest.is_init && !guest.has_cgroups) {
        complain("process 1 needs a cgroup2 directory as descriptor 4");
        _exit(70);
    }
    prepare_signals();
    link_open();
}

static int until(uint64_t deadline)
{
    uint64_t now = monotonic_time();
    if (!deadline)
        return -1;
    if (deadline <= now)
        return 0;
    uint64_t left = (deadline - now + MS - 1) / MS;
    return left > 3600000 ? 3600000 : (int)left;
}

static void retry_removals(uint64_t *next)
{
    list_each(at, after, &retries) {
        struct execution *execution = container_of(at, struct execution, retry);
        if (guest.now >= execution->retry_at)
            cgroup_remove(execution);
        if (!list_empty(&execution->retry))
            sooner(next, execution->retry_at);
    }
}

/* Does all that is due. Returns how long to wait for more to happen, in milliseconds as epoll_wait takes them. */
static int turn(void)
{
    uint64_t next = 0;
    guest.now = monotonic_time();
    if (reap_due || guest.stopping)
        reap_due = reap();
    bool more = link_receive();
    more |= streams_turn(&next);
    executions_turn(&next);
    stop_turn(&next);
    more |= link_send();
    if (off && guest.stopped)
        _exit(0);
    more |= reap_due;
    retry_removals(&next);
    collect_garbage();
    if (!more) {
        spare_turn(&next);
        cgroups_turn(&next);
    }
    return more ? 0 : until(next);
}

static void look(int timeout)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(guest.epoll, events, EVENTS, timeout);
    for (int index = 0; index < count; index++) {
        struct source *source = events[index].data.ptr;
        source->ready(source, events[index].events);
    }
}

_Noreturn void guest_run(int argc, char **argv)
{
    prepare(argc, argv);
    for (;;)
        look(turn());
}
