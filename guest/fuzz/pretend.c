#define _GNU_SOURCE
#include "pretend.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

enum { TAKEN_MOST = 4096, SYS_CLONE3 = 435, PIPES_MOST = 4 };

/* What the guest's sources call, under the names that the Makefile gives it. */
int pretend_clock_gettime(clockid_t clock, struct timespec *time);
pid_t pretend_waitpid(pid_t pid, int *status, int options);
int pretend_kill(pid_t pid, int signal);
long pretend_syscall(long number, ...);
int pretend_pipe2(int ends[2], int flags);
int pretend_socketpair(int domain, int type, int protocol, int ends[2]);
int pretend_accept4(int listening, struct sockaddr *address, socklen_t *length, int flags);
int pretend_syncfs(int fd);
_Noreturn void pretend_exit(int status);
void *pretend_malloc(size_t size);
void *pretend_calloc(size_t count, size_t size);
void *pretend_realloc(void *memory, size_t size);
void pretend_free(void *memory);
void *pretend_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int pretend_munmap(void *at, size_t size);

struct process processes[PROCESSES_MOST];
uint64_t pretend_time;
unsigned fail_memory, fail_pipes, fail_clones;
bool pretended_exit;
extern jmp_buf over;

struct life lived[LIVES_MOST];
static pid_t last_pid;
static unsigned last_number;
static uint64_t last_cgroup;
static int pipes[PIPES_MOST][2], pair[2];
static unsigned piped;
static void *taken[TAKEN_MOST];
static unsigned takes;
static void *rings[TAKEN_MOST];
static unsigned ringed;

void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static bool fails(unsigned *ahead, int error)
{
    if (!*ahead || --*ahead)
        return false;
    errno = error;
    return true;
}

/* Time */

int pretend_clock_gettime(clockid_t clock, struct timespec *time)
{
    uint64_t now = pretend_time + (clock == CLOCK_REALTIME ? UINT64_C(1700000000) * 1000 * MS : 0);
    *time = (struct timespec){(time_t)(now / (1000 * MS)), (long)(now % (1000 * MS))};
    return 0;
}

/* Memory */

static void take(void *memory)
{
    MUST(takes < TAKEN_MOST);
    taken[takes++] = memory;
}

static void let(void *memory)
{
    for (unsigned at = takes; at-- > 0;)
        if (taken[at] == memory) {
            taken[at] = taken[--takes];
            return;
        }
    MUST(!"freed what was not taken");
}

void *pretend_malloc(size_t size)
{
    if (fails(&fail_memory, ENOMEM))
        return NULL;
    void *memory = malloc(size);
    MUST(memory);
    memset(memory, 0xA5, size);
    take(memory);
    return memory;
}

void *pretend_calloc(size_t count, size_t size)
{
    void *memory = pretend_malloc(count * size);
    return memory ? memset(memory, 0, count * size) : NULL;
}

void *pretend_realloc(void *memory, size_t size)
{
    if (fails(&fail_memory, ENOMEM))
        return NULL;
    if (memory)
        let(memory);
    void *other = realloc(memory, size);
    MUST(other);
    take(other);
    return other;
}

void pretend_free(void *memory)
{
    if (memory)
        let(memory);
    free(memory);
}

void *pretend_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails(&fail_memory, ENOMEM))
        return MAP_FAILED;
    void *memory = mmap(at, size, protection, flags, fd, offset);
    MUST(memory != MAP_FAILED && ringed < TAKEN_MOST);
    return rings[ringed++] = memory;
}

int pretend_munmap(void *at, size_t size)
{
    for (unsigned index = 0; index < ringed; index++)
        if (rings[index] == at) {
            rings[index] = rings[--ringed];
            return munmap(at, size);
        }
    MUST(!"unmapped what was not mapped");
    return -1;
}

unsigned memory_taken(void)
{
    return takes + ringed;
}

/* Descriptors */

int pretend_pipe2(int ends[2], int flags)
{
    if (fails(&fail_pipes, EMFILE)) {
        piped = 0;
        return -1;
    }
    MUST(!pipe2(ends, flags));
    MUST(piped < PIPES_MOST);
    memcpy(pipes[piped++], ends, sizeof pipes[0]);
    return 0;
}

int pretend_socketpair(int domain, int type, int protocol, int ends[2])
{
    if (fails(&fail_pipes, EMFILE)) {
        piped = 0;
        return -1;
    }
    MUST(!socketpair(domain, type, protocol, ends));
    memcpy(pair, ends, sizeof pair);
    return 0;
}

/* So little room that much is sent in part. */
int pretend_accept4(int listening, struct sockaddr *address, socklen_t *length, int flags)
{
    const int room = 4096;
    int fd = accept4(listening, address, length, flags);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    return fd;
}

int pretend_syncfs(int fd)
{
    (void)fd;
    return 0;
}

/* Processes */

struct process *process_find(pid_t pid)
{
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
        if (at->pid && at->pid == pid)
            return at;
    return NULL;
}

static struct process *place(void)
{
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
        if (!at->pid)
            return at;
    return NULL;
}

static int copy(int fd)
{
    int other = fcntl(fd, F_DUPFD_CLOEXEC, GUEST_FD_MOST);
    MUST(other >= GUEST_FD_MOST);
    fcntl(other, F_SETFL, O_NONBLOCK);
    return other;
}

static pid_t process_make(void)
{
    struct process *process = place();
    if (!process || last_number + 1 == LIVES_MOST || fails(&fail_clones, EAGAIN)) {
        errno = EAGAIN;
        return -1;
    }
    MUST(piped >= 3);
    *process = (struct process){.pid = ++last_pid, .living = true, .leader = true, .cgroup = last_cgroup,
                                .in = -1, .plan = -1, .life = ++last_number};
    lived[last_number] = (struct life){0};
    process->out[0] = copy(pipes[piped - 3][1]);
    process->out[1] = copy(pipes[piped - 2][1]);
    process->report = copy(pipes[piped - 1][1]);
    if (piped == 4)
        process->in = copy(pipes[0][0]);
    process->spare = pair[0] >= 0;
    if (process->spare)
        process->plan = copy(pair[0]);
    return process->pid;
}

struct process *process_fork(const struct process *parent)
{
    struct process *child = place();
    if (!child)
        return NULL;
    *child = *parent;
    child->pid = ++last_pid;
    child->leader = child->spare = false;
    child->in = child->plan = child->report = -1;
    for (int index = 0; index < 2; index++)
        child->out[index] = parent->out[index] < 0 ? -1 : copy(parent->out[index]);
    return child;
}

static void close_all(struct process *process)
{
    shut(&process->in);
    shut(&process->plan);
    shut(&process->report);
    shut(&process->out[0]);
    shut(&process->out[1]);
}

void process_end(struct process *process, int status)
{
    if (!process->living)
        return;
    process->living = false;
    process->status = status;
    close_all(process);
}

uint8_t pattern(unsigned number, int stream, uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 8) * 7 + number * 3 + (uint64_t)stream);
}

long pretend_syscall(long number, ...)
{
    MUST(number == SYS_CLONE3);
    pid_t pid = process_make();
    piped = 0;
    pair[0] = pair[1] = -1;
    return pid;
}

pid_t pretend_waitpid(pid_t pid, int *status, int options)
{
    MUST(pid == -1 && options == WNOHANG);
    bool any = false;
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++) {
        if (at->pid && !at->living) {
            *status = at->status;
            pid_t ended = at->pid;
            at->pid = 0;
            return ended;
        }
        any |= at->pid != 0;
    }
    errno = ECHILD;
    return any ? 0 : -1;
}

static void signal_one(struct process *process, int signal)
{
    if (signal == SIGKILL || (signal == SIGTERM && process->obeys))
        process_end(process, signal);
}

int pretend_kill(pid_t pid, int signal)
{
    MUST(pid == -1 || process_find(pid));
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
        if (at->pid && at->living && (pid == -1 || at->pid == pid))
            signal_one(at, signal);
    return 0;
}

_Noreturn void pretend_exit(int status)
{
    MUST(!status);
    pretended_exit = true;
    longjmp(over, 1);
}

/* Cgroups: what cgroups.c does with real ones. */

static bool populated(uint64_t cgroup)
{
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
        if (at->pid && at->living && at->cgroup == cgroup)
            return true;
    return false;
}

int cgroup_make(uint64_t *cgroup)
{
    *cgroup = ++last_cgroup;
    return fcntl(guest.null, F_DUPFD_CLOEXEC, 0);
}

bool cgroup_unmake(uint64_t cgroup, bool killed)
{
    (void)killed;
    return !populated(cgroup);
}

static void signal_members(const struct execution *execution, int signal)
{
    MUST(execution->cgroup);
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
        if (at->pid && at->living && at->cgroup == execution->cgroup)
            signal_one(at, signal);
}

void processes_signal(struct execution *execution, int signal)
{
    if (execution->cgroup)
        signal_members(execution, signal);
}

bool processes_kill(struct execution *execution)
{
    execution->killed = true;
    if (execution->cgroup)
        signal_members(execution, SIGKILL);
    return true;
}

bool processes_gone(struct execution *execution)
{
    return !execution->cgroup || !populated(execution->cgroup);
}

void cgroup_follow(struct execution *execution)
{
    (void)execution;
}

void cgroup_remove(struct execution *execution)
{
    list_remove(&execution->retry);
    if (!execution->cgroup)
        return;
    if (populated(execution->cgroup)) {
        execution->retry_at = after_ms(20);
        list_append(&retries, &execution->retry);
        return;
    }
    execution->cgroup = 0;
    execution_release(execution);
}

bool cgroup_oom(const struct execution *execution)
{
    return execution->cgroup % 8 == 7;
}

void cgroups_open(void)
{
    guest.has_cgroups = true;
}

void cgroups_turn(uint64_t *next)
{
    (void)next;
}

void execution_mark(const struct execution *execution, char text[2 * ID_SIZE + 1])
{
    (void)execution;
    text[0] = 0;
}

/* All of it */

void pretend_begin(void)
{
    memset(processes, 0, sizeof processes);
    pretend_time = 1000 * 1000 * MS;
    fail_memory = fail_pipes = fail_clones = piped = 0;
    last_pid = 100;
    last_number = 0;
    last_cgroup = 0;
    pair[0] = pair[1] = -1;
    pretended_exit = false;
}

void pretend_end(void)
{
    for (struct process *at = processes; at < processes + PROCESSES_MOST; at++)
        if (at->pid)
            process_end(at, 0);
    while (takes)
        free(taken[--takes]);
    while (ringed)
        munmap(rings[--ringed], STREAM_WINDOW);
}

/* All variables of the guest and of session.c lie between these: the Makefile has put them into sections of these names. */
extern uint8_t __start_guest_bss[], __stop_guest_bss[], __start_guest_data[], __stop_guest_data[];
static uint8_t *kept_bss, *kept_data;

/* By hand: between variables lies what the sanitizer does not let a library touch. */
__attribute__((no_sanitize("address"))) static void copy_section(uint8_t *to, const uint8_t *from, size_t size)
{
    for (size_t at = 0; at < size; at += sizeof(uint64_t))
        *(volatile uint64_t *)(to + at) = *(const uint64_t *)(from + at);
}

void variables_keep(void)
{
    kept_bss = malloc((size_t)(__stop_guest_bss - __start_guest_bss));
    kept_data = malloc((size_t)(__stop_guest_data - __start_guest_data));
    MUST(kept_bss && kept_data);
    copy_section(kept_bss, __start_guest_bss, (size_t)(__stop_guest_bss - __start_guest_bss));
    copy_section(kept_data, __start_guest_data, (size_t)(__stop_guest_data - __start_guest_data));
}

void variables_restore(void)
{
    copy_section(__start_guest_bss, kept_bss, (size_t)(__stop_guest_bss - __start_guest_bss));
    copy_section(__start_guest_data, kept_data, (size_t)(__stop_guest_data - __start_guest_data));
}

static unsigned __int128 kept_descriptors; /* as bits; the sanitizer has some of its own there */

static unsigned __int128 descriptors(void)
{
    unsigned __int128 found = 0;
    for (int fd = GUEST_FD_LEAST; fd < GUEST_FD_MOST; fd++)
        found |= (unsigned __int128)(fcntl(fd, F_GETFD) >= 0) << fd;
    return found & ~kept_descriptors;
}

void descriptors_keep(void)
{
    kept_descriptors = 0;
    kept_descriptors = descriptors();
}

unsigned descriptors_new(void)
{
    unsigned __int128 found = descriptors();
    return (unsigned)(__builtin_popcountll((uint64_t)found) + __builtin_popcountll((uint64_t)(found >> 64)));
}

void descriptors_close(void)
{
    unsigned __int128 found = descriptors();
    for (int fd = GUEST_FD_LEAST; fd < GUEST_FD_MOST; fd++)
        if (found >> fd & 1)
            close(fd);
}
