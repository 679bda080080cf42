/* Making the first process of an execution: session, cgroup, descriptors, limits, privileges, then exec.

   Commands must not use clone3, whose flags no seccomp profile can see, but process 1 itself needs it
   (CLONE_INTO_CGROUP). So process 1 is started with CAP_SYS_ADMIN in its user namespace, takes it out of its bounding
   set at once, and each child adds a filter with it and loses it by the exec: NO_NEW_PRIVS, the other way to be
   allowed a filter, would break su and sudo.

   The same filter keeps commands from lowering the limits of process 1, which could kill nothing without descriptors:
   to prlimit, the same user is enough. All else that one process may do to another (priorities, processors, ptrace)
   asks for the capabilities of the other as well. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Not in the C library's headers. */
struct clone3_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
#define INTO_CGROUP UINT64_C(0x200000000)
enum { SYS_CLONE3 = 435, X32_BIT = 0x40000000 }; /* clone3 has this number on every architecture */
/* The halves of a system call's argument, which a filter sees one at a time. */
#define LOW(argument) (offsetof(struct seccomp_data, args) + 8 * (argument))
#define HIGH(argument) (LOW(argument) + 4)

#define BIT(capability) (UINT64_C(1) << (capability))
/* What commands never have, whatever process 1 was given. */
static const uint64_t withheld =
    BIT(CAP_SYS_ADMIN) | BIT(CAP_SYS_PTRACE) | BIT(CAP_SYS_MODULE) | BIT(CAP_SYS_RAWIO) | BIT(CAP_SYS_BOOT) |
    BIT(CAP_SYS_TIME) | BIT(CAP_SYS_PACCT) | BIT(CAP_SYS_RESOURCE) | BIT(CAP_SYSLOG) | BIT(CAP_BPF) |
    BIT(CAP_PERFMON) | BIT(CAP_CHECKPOINT_RESTORE) | BIT(CAP_MAC_ADMIN) | BIT(CAP_MAC_OVERRIDE) |
    BIT(CAP_AUDIT_CONTROL) | BIT(CAP_AUDIT_READ) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_LINUX_IMMUTABLE) |
    BIT(CAP_BLOCK_SUSPEND) | BIT(CAP_WAKE_ALARM) | BIT(CAP_SYS_TTY_CONFIG);

static uint64_t get_capabilities(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    memset(data, 0, 2 * sizeof *data);
    syscall(SYS_capget, &header, data);
    return data[0].effective | (uint64_t)data[1].effective << 32;
}

/* Takes the withheld capabilities away from whatever will be exec'ed. False if that is not allowed. */
static bool withhold(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int capability = 0; capability < 64; capability++)
        if (withheld & BIT(capability) && prctl(PR_CAPBSET_READ, capability) > 0 && prctl(PR_CAPBSET_DROP, capability))
            return false;
    guest.may_filter = get_capabilities(data) & BIT(CAP_SYS_ADMIN);
    for (int half = 0; half < 2; half++) {
        uint32_t lost = (uint32_t)((withheld & ~BIT(CAP_SYS_ADMIN)) >> 32 * half);
        data[half].effective &= ~lost;
        data[half].permitted &= ~lost;
        data[half].inheritable = 0;
    }
    return !syscall(SYS_capset, &header, data);
}

void spawn_prepare(void)
{
    struct rlimit files, none = {0, 0};
    getrlimit(RLIMIT_NOFILE, &files);
    guest.files_soft = files.rlim_cur;
    guest.files_hard = files.rlim_max;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_CORE, &none);
    umask(022);
    bool withheld_all = withhold();
    if (guest.is_init && !(withheld_all && guest.may_filter)) {
        complain("process 1 needs CAP_SYS_ADMIN and CAP_SETPCAP in its user namespace, to keep them from commands");
        _exit(70);
    }
}

/* The child's side */

static _Noreturn void fail(enum how how, int error)
{
    uint8_t why[8];
    put32(put32(why, how), (uint32_t)error);
    if (write(3, why, sizeof why) < 0)
        _exit(126);
    _exit(127);
}

static void enter_cwd(const char *cwd)
{
    bool home = guest.home && !strncmp(cwd, "/root", 5) && (!cwd[5] || cwd[5] == '/');
    if (home && chdir(guest.home))
        fail(HOW_CWD, errno);
    if (home)
        cwd += cwd[5] ? 6 : 5;
    if ((!home || *cwd) && chdir(cwd))
        fail(HOW_CWD, errno);
}

/* No clone3, and no prlimit64(1, ..., new_limit, ...) but with NULL, which only asks. */
static void forbid(void)
{
    static const struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~(unsigned)X32_BIT),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_CLONE3, 7, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 7),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW(0)), /* all that the kernel looks at of a pid */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW(2)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, HIGH(2)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 2),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    const struct sock_fprog program = {sizeof rules / sizeof *rules, (struct sock_filter *)rules};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        fail(HOW_SPAWN_FAILED, errno);
}

static const char *search_path(char **envp)
{
    for (; *envp; envp++)
        if (!strncmp(*envp, "PATH=", 5))
            return *envp + 5;
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/* Runs the program like execvp does, but never hands a file without a known format to a shell. */
static _Noreturn void run(char **argv, char **envp)
{
    const char *program = argv[0], *at = search_path(envp);
    char path[4096];
    struct stat found;
    int error = ENOENT;
    if (strchr(program, '/')) {
        execve(program, argv, envp);
        error = errno;
    } else if (*program) {
        for (bool last = false; !last && (error == ENOENT || error == EACCES);) {
            size_t size = strcspn(at, ":");
            last = !at[size];
            if (snprintf(path, sizeof path, "%.*s%s%s", (int)size, at, size ? "/" : "./", program) < (int)sizeof path) {
                /* A look costs a fifth of an execve that finds nothing. Not access(), which asks for the real user. */
                if (!stat(path, &found))
                    execve(path, argv, envp);
                if (errno != ENOENT && errno != ENOTDIR)
                    error = errno;
            }
            at += size + 1;
        }
    }
    fail(error == ENOENT || error == ENOTDIR ? HOW_NOT_FOUND
         : error == EACCES || error == EPERM ? HOW_PERMISSION
                                             : HOW_SPAWN_FAILED,
         error);
}

void child_settle(const struct pipes *pipes, int kept)
{
    /* The pipes' own numbers are above 4: 0 to 4 are taken since process 1 began. */
    dup2(pipes->in[0] >= 0 ? pipes->in[0] : guest.null, 0);
    dup2(pipes->out[1], 1);
    dup2(pipes->err[1], 2);
    dup3(pipes->status[1], 3, O_CLOEXEC);
    if (kept >= 0)
        dup3(kept, 4, O_CLOEXEC);
    syscall(SYS_close_range, kept >= 0 ? 5 : 4, ~0U, 0);
    setsid();
    struct rlimit files = {guest.files_soft, guest.files_hard};
    if (files.rlim_cur != files.rlim_max)
        setrlimit(RLIMIT_NOFILE, &files);
    if (guest.is_init)
        setpriority(PRIO_PROCESS, 0, 0); /* process 1 runs before what it started */
    if (!guest.is_init && !guest.has_cgroups)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (guest.may_filter)
        forbid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn void child_exec(const char *cwd, char **argv, char **envp)
{
    enter_cwd(cwd);
    run(argv, envp);
}

/* The parent's side */

pid_t fork_into(int cgroup)
{
    struct clone3_arguments arguments = {.exit_signal = SIGCHLD};
    if (cgroup >= 0) {
        arguments.flags = INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup;
    }
    /* The child inherits the score of this moment; without the bracket it would equal that of process 1 for ever,
       as nothing in the machine may lower a score again. */
    if (guest.oom_score >= 0 && pwrite(guest.oom_score, guest.oom_child, strlen(guest.oom_child), 0) < 0)
        complain("raise oom_score_adj");
    pid_t pid = (pid_t)syscall(SYS_CLONE3, &arguments, sizeof arguments);
    if (pid && guest.oom_score >= 0 && pwrite(guest.oom_score, guest.oom_own, strlen(guest.oom_own), 0) < 0)
        complain("lower oom_score_adj");
    return pid;
}

static void close_one(int fd)
{
    if (fd >= 0)
        close(fd);
}

static bool make_pipe(int ends[2], int ours)
{
    if (pipe2(ends, O_CLOEXEC)) {
        ends[0] = ends[1] = -1;
        return false;
    }
    return !fcntl(ends[ours], F_SETFL, O_NONBLOCK);
}

bool pipes_make(struct pipes *pipes, bool with_stdin)
{
    *pipes = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
    return (!with_stdin || make_pipe(pipes->in, 1)) && make_pipe(pipes->out, 0) && make_pipe(pipes->err, 0) &&
           make_pipe(pipes->status, 0) && (uint64_t)pipes->status[1] + FDS_KEPT_FREE < guest.files_hard;
}

bool pipes_attach(struct execution *execution, struct pipes *pipes)
{
    bool done = stream_open(&execution->output[0], pipes->out[0]) && stream_open(&execution->output[1], pipes->err[0]);
    done = done && (pipes->in[1] < 0 || input_open(&execution->input, pipes->in[1]));
    execution->status_fd = pipes->status[0];
    pipes->out[0] = pipes->err[0] = pipes->status[0] = pipes->in[1] = -1;
    if (!done)
        pipes_detach(execution);
    return done;
}

void pipes_detach(struct execution *execution)
{
    unwatch(&execution->output[0].fd);
    unwatch(&execution->output[1].fd);
    unwatch(&execution->input.fd);
    shut(&execution->status_fd);
}

void pipes_close(const struct pipes *pipes)
{
    for (const int *fd = (const int *)pipes; fd < (const int *)(pipes + 1); fd++)
        close_one(*fd);
}

static bool launch(struct execution *execution, const struct pipes *pipes, const struct order *order, char **strings)
{
    char mark[64] = "DORMICE_EXECUTION=", **argv = strings, **envp = strings + order->argc + 1;
    const char *cwd = order_strings(order, argv, envp);
    if (!guest.has_cgroups) {
        execution_mark(execution, mark + strlen(mark));
        envp[order->envc] = mark;
        envp[order->envc + 1] = NULL;
    }
    int cgroup = guest.has_cgroups ? cgroup_make(&execution->cgroup) : -1;
    if (guest.has_cgroups && cgroup < 0) {
        complain("make a cgroup");
        return false;
    }
    execution->pid = fork_into(cgroup);
    if (!execution->pid) {
        child_settle(pipes, -1);
        child_exec(cwd, argv, envp);
    }
    if (execution->pid < 0)
        complain("clone3");
    close_one(cgroup);
    return execution->pid > 0;
}

bool spawn(struct execution *execution, const struct order *order)
{
    struct pipes pipes;
    if (spare_take(execution, order))
        return true;
    char **strings = malloc(((size_t)order->argc + order->envc + 3) * sizeof *strings);
    if (!strings)
        return false;
    bool done = pipes_make(&pipes, order->stdin_open) && pipes_attach(execution, &pipes);
    if (done && !(done = launch(execution, &pipes, order, strings)))
        pipes_detach(execution);
    pipes_close(&pipes);
    free(strings);
    return done;
}
