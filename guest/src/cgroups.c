/* Finding, signalling and killing every process of an execution.

   With a cgroup2 directory each execution has a cgroup of its own, which nothing that its processes do can leave.
   Without one (driver `process` on hosts that delegate none) they are found in /proc by session, ancestry and a mark
   in the environment: good for processes that do not hide. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { CGROUP2_MAGIC = 0x63677270 };

static bool counts_memory; /* executions' cgroups have a memory controller */

static bool write_text(int directory, const char *path, const char *text)
{
    int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, text, strlen(text)) >= 0;
    close(fd);
    return done;
}

/* What a file says, at most `size` - 1 bytes of it; empty when it cannot be read. */
static void read_text(const char *path, char *text, size_t size)
{
    int fd = openat(guest.cgroup, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
}

/* Whether it was started there. Moving into a cgroup, even the one that a process is in, waits for the kernel's readers of
   all processes: ten milliseconds and more. */
static bool is_in_init(void)
{
    char text[256], own[16];
    read_text("init/cgroup.procs", text, sizeof text);
    snprintf(own, sizeof own, "%d", (int)getpid());
    for (char *rest, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (!strcmp(line, own))
            return true;
    return false;
}

void cgroups_open(void)
{
    struct statfs about;
    guest.cgroup = 4;
    if (fstatfs(guest.cgroup, &about) || about.f_type != CGROUP2_MAGIC)
        return;
    if (mkdirat(guest.cgroup, "init", 0755) && errno != EEXIST) {
        complain("mkdir init in the machine's cgroup");
        return;
    }
    if (!is_in_init() && !write_text(guest.cgroup, "init/cgroup.procs", "0")) {
        complain("join init in the machine's cgroup");
        return;
    }
    guest.has_cgroups = true;
    counts_memory = write_text(guest.cgroup, "cgroup.subtree_control", "+memory");
}

/* A cgroup is "x-<number>" in the machine's. */
static void name(uint64_t cgroup, char path[64], const char *file)
{
    snprintf(path, 64, "x-%" PRIu64 "%s", cgroup, file);
}

static int open_file(const struct execution *execution, const char *file, int flags)
{
    char path[64];
    name(execution->cgroup, path, file);
    return openat(guest.cgroup, path, flags | O_CLOEXEC);
}

static bool is_empty(uint64_t cgroup)
{
    char path[64], text[256];
    name(cgroup, path, "/cgroup.events");
    read_text(path, text, sizeof text);
    return strstr(text, "populated 0") != NULL;
}

/* Whether the OOM killer struck in it: 1, 0, or -1 when that cannot be told. */
static int oom_struck(uint64_t cgroup)
{
    char path[64], text[512];
    name(cgroup, path, "/memory.events");
    read_text(path, text, sizeof text);
    const char *kills = strstr(text, "oom_kill ");
    return kills ? kills[9] != '0' : -1;
}

/* Some that are empty are kept for the next: making and removing one costs a tenth of a short command. */
enum { IDLE_MOST = 64, IDLE_KEPT = 8, IDLE_REST_MS = 1000 };
static uint64_t idle[IDLE_MOST];
static unsigned idles;

int cgroup_make(uint64_t *cgroup)
{
    static uint64_t last;
    char path[64];
    *cgroup = 0;
    bool made = !idles;
    uint64_t number = made ? ++last : idle[--idles];
    name(number, path, "");
    if (made && mkdirat(guest.cgroup, path, 0755))
        return -1;
    *cgroup = number;
    return openat(guest.cgroup, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

bool cgroup_unmake(uint64_t cgroup, bool killed)
{
    char path[64];
    /* Not one that was killed: Linux (6.18) kills whatever is cloned into it later. Nor one in which the OOM killer
       struck, which would be believed to have struck again. */
    if (!killed && idles < IDLE_MOST && is_empty(cgroup) && (!counts_memory || oom_struck(cgroup) == 0)) {
        idle[idles++] = cgroup;
        return true;
    }
    name(cgroup, path, "");
    return !unlinkat(guest.cgroup, path, AT_REMOVEDIR) || errno == ENOENT;
}

void cgroups_turn(uint64_t *next)
{
    static uint64_t rested_at;
    char path[64];
    if (idles <= IDLE_KEPT || !list_empty(&lives)) {
        rested_at = 0;
    } else if (!rested_at) {
        rested_at = after_ms(IDLE_REST_MS);
    } else if (rested_at <= guest.now) {
        name(idle[--idles], path, "");
        unlinkat(guest.cgroup, path, AT_REMOVEDIR);
    }
    sooner(next, rested_at);
}

/* False when its processes cannot be looked up. */
static bool signal_members(const struct execution *execution, int signal)
{
    char text[4096];
    int fd = open_file(execution, "/cgroup.procs", O_RDONLY);
    if (fd < 0)
        return false;
    long pid = 0;
    for (ssize_t got; (got = read(fd, text, sizeof text)) > 0;)
        for (ssize_t at = 0; at < got; at++)
            if (text[at] != '\n') {
                pid = pid * 10 + text[at] - '0';
            } else {
                if (pid > 1)
                    kill((pid_t)pid, signal);
                pid = 0;
            }
    close(fd);
    return true;
}

static void read_populated(struct execution *execution)
{
    char text[256];
    ssize_t got = pread(execution->watch_fd, text, sizeof text - 1, 0);
    text[got > 0 ? got : 0] = 0;
    execution->populated = !strstr(text, "populated 0");
}

static void on_cgroup_event(struct source *source, uint32_t events)
{
    (void)events;
    struct execution *execution = container_of(source, struct execution, watch_source);
    if (execution->watch_fd < 0)
        return;
    read_populated(execution);
    if (execution->phase == ENDED)
        cgroup_remove(execution);
}

void cgroup_follow(struct execution *execution)
{
    if (!execution->cgroup || execution->watch_fd >= 0)
        return;
    execution->populated = true;
    execution->watch_source.ready = on_cgroup_event;
    execution->watch_fd = open_file(execution, "/cgroup.events", O_RDONLY);
    if (execution->watch_fd < 0)
        return;
    if (!watch(execution->watch_fd, EPOLLPRI | EPOLLET, &execution->watch_source))
        unwatch(&execution->watch_fd);
    else
        read_populated(execution);
}

void cgroup_remove(struct execution *execution)
{
    list_remove(&execution->retry);
    if (!execution->cgroup)
        return;
    if (!cgroup_unmake(execution->cgroup, execution->killed)) {
        /* A daemon lives on, which an event will tell, or the last process is not quite gone. */
        cgroup_follow(execution);
        if (execution->watch_fd < 0 || !execution->populated) {
            execution->retry_at = after_ms(execution->watch_fd < 0 ? 1000 : 20);
            list_append(&retries, &execution->retry);
        }
        return;
    }
    execution->cgroup = 0;
    if (execution->watch_fd >= 0)
        unwatch(&execution->watch_fd);
    execution_release(execution);
}

bool cgroup_oom(const struct execution *execution)
{
    return counts_memory && execution->cgroup && oom_struck(execution->cgroup) == 1;
}

/* Without cgroups */

void execution_mark(const struct execution *execution, char text[2 * ID_SIZE + 1])
{
    for (int byte = 0; byte < ID_SIZE; byte++)
        snprintf(text + 2 * byte, 3, "%02x", execution->id[byte]);
}

struct process {
    pid_t pid, parent, session;
    bool dead, member;
};

static bool read_file(pid_t pid, const char *file, char *text, size_t size, size_t *length)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    *length = 0;
    for (ssize_t got; *length < size - 1 && (got = read(fd, text + *length, size - 1 - *length)) > 0;)
        *length += (size_t)got;
    close(fd);
    text[*length] = 0;
    return true;
}

static bool read_process(pid_t pid, const char *mark, struct process *process)
{
    static char text[32768];
    size_t length;
    int parent, session;
    char state;
    if (!read_file(pid, "stat", text, sizeof text, &length))
        return false;
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 1, " %c %d %*d %d", &state, &parent, &session) != 3)
        return false;
    *process = (struct process){pid, parent, session, state == 'Z' || state == 'X', false};
    if (!process->dead && read_file(pid, "environ", text, sizeof text, &length))
        process->member = memmem(text, length, mark, strlen(mark)) != NULL;
    return true;
}

/* Every living process of the execution gets the signal (0: none is sent). Returns how many there are. */
static unsigned signal_tree(const struct execution *execution, int signal)
{
    char mark[2 * ID_SIZE + 1];
    unsigned count = 0, size = 0, living = 0;
    struct process *all = NULL;
    DIR *proc = opendir("/proc");
    if (!proc)
        return 1; /* as far as can be told */
    execution_mark(execution, mark);
    for (struct dirent *entry; (entry = readdir(proc));) {
        pid_t pid = (pid_t)atol(entry->d_name);
        if (pid <= 1 || pid == getpid())
            continue;
        if (count == size) {
            struct process *larger = realloc(all, (size = size * 2 + 64) * sizeof *all);
            if (!larger)
                break;
            all = larger;
        }
        if (read_process(pid, mark, &all[count])) {
            struct process *process = &all[count++];
            process->member |= execution->pid && (pid == execution->pid || process->session == execution->pid);
        }
    }
    closedir(proc);
    for (bool grown = true; grown;) {
        grown = false;
        for (unsigned child = 0; child < count; child++)
            for (unsigned parent = 0; !all[child].member && parent < count; parent++)
                if (all[parent].member && all[parent].pid == all[child].parent)
                    grown = all[child].member = true;
    }
    for (unsigned index = 0; index < count; index++)
        if (all[index].member && !all[index].dead) {
            living++;
            if (signal)
                kill(all[index].pid, signal);
        }
    free(all);
    return living;
}

void processes_signal(struct execution *execution, int signal)
{
    if (execution->cgroup)
        signal_members(execution, signal);
    else if (!guest.has_cgroups)
        signal_tree(execution, signal);
}

bool processes_kill(struct execution *execution)
{
    execution->killed = true;
    if (execution->cgroup) {
        char path[64];
        name(execution->cgroup, path, "/cgroup.kill");
        return write_text(guest.cgroup, path, "1") || signal_members(execution, SIGKILL);
    }
    if (!guest.has_cgroups)
        signal_tree(execution, SIGKILL);
    return true;
}

bool processes_gone(struct execution *execution)
{
    if (execution->cgroup) {
        cgroup_follow(execution);
        return execution->watch_fd < 0 ? is_empty(execution->cgroup) : !execution->populated;
    }
    return guest.has_cgroups || !signal_tree(execution, execution->killed ? SIGKILL : 0);
}
