/* The life of an execution: START, its leader's exit, the drain, one EXITED, FORGET. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BUCKETS = 1024, STARTED_HELD = 10 * MS, KILL_AGAIN_MS = 100, KILL_PATIENCE_MS = 2000 };

LIST(executions);
LIST(lives);
LIST(dues);
LIST(retries);

static struct execution *by_id[BUCKETS], *by_pid[BUCKETS];
static uint32_t known;

/* The table of those that are not forgotten, and of leaders */

static struct execution **bucket(const uint8_t *id)
{
    return &by_id[(get64(id) ^ get64(id + 8)) * UINT64_C(0x9E3779B97F4A7C15) >> 54];
}

struct execution *execution_find(const uint8_t *id)
{
    struct execution *execution = *bucket(id);
    while (execution && memcmp(execution->id, id, ID_SIZE))
        execution = execution->next_by_id;
    return execution;
}

uint32_t executions_known(void)
{
    return known;
}

void executions_names(uint8_t *at)
{
    list_each(link, after, &executions) {
        struct execution *execution = container_of(link, struct execution, all);
        if (execution->known)
            at = put_id(at, execution->id);
    }
}

static void make_known(struct execution *execution)
{
    struct execution **first = bucket(execution->id);
    execution->next_by_id = *first;
    *first = execution;
    execution->known = true;
    known++;
}

static void make_unknown(struct execution *execution)
{
    struct execution **at = bucket(execution->id);
    while (*at != execution)
        at = &(*at)->next_by_id;
    *at = execution->next_by_id;
    execution->known = false;
    known--;
}

static struct execution *take_leader(pid_t pid)
{
    struct execution **at = &by_pid[pid % BUCKETS], *found;
    while (*at && (*at)->pid != pid)
        at = &(*at)->next_by_pid;
    if ((found = *at))
        *at = found->next_by_pid;
    return found;
}

/* Tombstones: ids that were cancelled before they were known. An open table, at most half full. */

static uint8_t (*tombstones)[ID_SIZE];
static uint32_t tombstone_slots, tombstone_count;

static uint8_t *tombstone_slot(uint8_t (*table)[ID_SIZE], uint32_t slots, const uint8_t *id)
{
    uint32_t at = (uint32_t)((get64(id) ^ get64(id + 8)) * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (slots - 1);
    while ((get64(table[at]) || get64(table[at] + 8)) && memcmp(table[at], id, ID_SIZE))
        at = (at + 1) & (slots - 1);
    return table[at];
}

bool tombstone_has(const uint8_t *id)
{
    return tombstone_slots && !memcmp(tombstone_slot(tombstones, tombstone_slots, id), id, ID_SIZE);
}

bool tombstone_add(const uint8_t *id)
{
    if (tombstone_has(id))
        return true;
    if (tombstone_count == TOMBSTONES_MOST)
        return false;
    if (tombstone_count * 2 >= tombstone_slots) {
        uint32_t slots = tombstone_slots ? tombstone_slots * 2 : 64;
        uint8_t(*table)[ID_SIZE] = calloc(slots, ID_SIZE);
        if (!table)
            return false;
        for (uint32_t at = 0; at < tombstone_slots; at++)
            if (get64(tombstones[at]) || get64(tombstones[at] + 8))
                memcpy(tombstone_slot(table, slots, tombstones[at]), tombstones[at], ID_SIZE);
        free(tombstones);
        tombstones = table;
        tombstone_slots = slots;
    }
    memcpy(tombstone_slot(tombstones, tombstone_slots, id), id, ID_SIZE);
    tombstone_count++;
    return true;
}

/* What is owed to the node */

void execution_due(struct execution *execution)
{
    if (execution->known && list_empty(&execution->due))
        list_append(&dues, &execution->due);
}

static void resend(struct execution *execution)
{
    execution_look_started(execution);
    execution->started_due = execution->started_at != 0;
    execution->stdin_due = execution->input.promised;
    execution->exited_due = execution->phase == ENDED;
    stream_rewind(&execution->output[0]);
    stream_rewind(&execution->output[1]);
    execution_due(execution);
}

void executions_resend(void)
{
    list_each(link, after, &executions)
        resend(container_of(link, struct execution, all));
}

/* Start */

static struct execution *make_execution(const uint8_t *id, const struct order *order)
{
    struct execution *execution = calloc(1, sizeof *execution);
    if (!execution)
        return NULL;
    memcpy(execution->id, id, ID_SIZE);
    list_init(&execution->all);
    list_init(&execution->live);
    list_init(&execution->due);
    list_init(&execution->retry);
    stream_init(&execution->output[0], execution, 1);
    stream_init(&execution->output[1], execution, 2);
    input_init(&execution->input, order->stdin_open);
    execution->status_fd = execution->watch_fd = execution->plan_fd = -1;
    execution->kept_limit = order->kept_limit;
    execution->timeout = order->timeout_ms;
    execution->drain_left = order->drain_grace_ms * MS;
    return execution;
}

/* Once its process is made. */
static void follow_leader(struct execution *execution)
{
    execution->spawned_at = real_time();
    execution->status_at = guest.now + STARTED_HELD;
    execution->next_by_pid = by_pid[execution->pid % BUCKETS];
    by_pid[execution->pid % BUCKETS] = execution;
}

enum refusal execution_start(const uint8_t *id, const struct order *order)
{
    if (memcmp(order->boot_id, guest.boot_id, ID_SIZE))
        return REFUSED_BOOT;
    struct execution *execution = execution_find(id);
    if (execution)
        return 0; /* all there is to say of it has been said on this connection, or will be */
    if (tombstone_has(id))
        return REFUSED_CANCELLED;
    if (guest.stopping)
        return REFUSED_STOPPING;
    if (known == KNOWN_MOST || !(execution = make_execution(id, order)))
        return REFUSED_RESOURCES;
    list_append(&executions, &execution->all);
    if (!spawn(execution, order)) {
        execution->phase = ENDED;
        cgroup_remove(execution);
        execution_release(execution);
        return REFUSED_RESOURCES;
    }
    follow_leader(execution);
    if (execution->timeout)
        execution->timeout_at = after_ms(execution->timeout);
    make_known(execution);
    list_append(&lives, &execution->live);
    return 0;
}

/* Learns whether the exec worked: the child writes why not, or its end of the pipe closes. Nobody waits for that: it is
   asked when there is more to say, or after a while, so that a short command is told of in one frame and wakes nobody before. */
void execution_look_started(struct execution *execution)
{
    uint8_t why[8];
    if (execution->status_fd < 0)
        return;
    ssize_t got = read(execution->status_fd, why, sizeof why);
    if ((got < 0 && (errno == EAGAIN || errno == EINTR)) || spare_idle(execution)) {
        execution->status_at = guest.now + STARTED_HELD;
        return;
    }
    shut(&execution->status_fd);
    execution->phase = RUNNING;
    if (got == sizeof why) {
        execution->how = get32(why);
        execution->error = get32(why + 4);
        return;
    }
    execution->started_at = execution->spawned_at;
    execution->started_due = true;
    execution_due(execution);
}

/* Its end */

void execution_leader_ended(pid_t pid, int status)
{
    struct execution *execution = take_leader(pid);
    if (!execution)
        return;
    bool wanted = !execution->must_be_empty && !execution->interrupted && !guest.stopping;
    if (spare_idle(execution) && wanted) {
        if (spare_again(execution)) {
            follow_leader(execution);
            return;
        }
        execution->how = HOW_SPAWN_FAILED;
        execution->error = EAGAIN;
    }
    shut(&execution->plan_fd);
    execution_look_started(execution);
    execution->pid = 0;
    execution->ended_at = real_time();
    if (!execution->how) {
        bool signalled = WIFSIGNALED(status);
        execution->code = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
        execution->how = signalled ? HOW_SIGNALLED : HOW_EXITED;
        if (execution->interrupted) {
            execution->how = HOW_INTERRUPTED;
            execution->code = signalled ? execution->code : 0;
        }
    }
    stream_look(&execution->output[0]);
    stream_look(&execution->output[1]);
}

static void end_execution(struct execution *execution)
{
    if (cgroup_oom(execution))
        execution->flags |= EXITED_OOM;
    for (int index = 0; index < 2; index++) {
        execution->total[index] = execution->output[index].total;
        execution->kept[index] = execution->output[index].received;
        if (execution->output[index].fd >= 0)
            execution->flags |= EXITED_DRAIN;
    }
    input_close(execution);
    execution->phase = ENDED;
    list_remove(&execution->live);
    execution->exited_due = true;
    execution_due(execution);
    execution->retry_at = 0;
    list_append(&retries, &execution->retry); /* its cgroup goes once EXITED has been sent */
}

/* Whether its output is complete, or no more of it is waited for. Sets drain_at while the grace runs. */
static bool drained(struct execution *execution)
{
    const struct stream *output = execution->output;
    if (output[0].fd < 0 && output[1].fd < 0)
        return true;
    bool quiet = stream_quiet(&output[0]) && stream_quiet(&output[1]);
    if (quiet && !execution->drain_at)
        execution->drain_at = guest.now + execution->drain_left;
    if (!quiet && execution->drain_at) {
        execution->drain_left = execution->drain_at > guest.now ? execution->drain_at - guest.now : 0;
        execution->drain_at = 0;
    }
    return quiet && guest.now >= execution->drain_at;
}

/* Whether a timeout or cancel has all of its processes. Without a cgroup to tell, looks again from time to time. */
static bool emptied(struct execution *execution)
{
    if (!execution->must_be_empty)
        return true;
    if (guest.now < execution->look_at)
        return false;
    if (processes_gone(execution))
        return true;
    execution->look_at = execution->watch_fd < 0 ? guest.now + 20 * MS : 0;
    return false;
}

static void kill_now(struct execution *execution)
{
    execution->timeout_at = execution->kill_at = 0;
    execution->must_be_empty = true;
    cgroup_follow(execution);
    if (processes_kill(execution)) {
        execution->give_up_at = 0;
        return;
    }
    /* Without a descriptor or memory for it, again; what can be killed in no other way dies with the machine. */
    if (!execution->give_up_at)
        execution->give_up_at = after_ms(KILL_PATIENCE_MS);
    if (guest.is_init && guest.now >= execution->give_up_at) {
        complain("kill the processes of an execution, so the machine ends");
        machine_off();
    }
    execution->kill_at = after_ms(KILL_AGAIN_MS);
}

/* Applies its deadlines, ends it if it has come to that, and brings `next` forward to its next deadline. */
static void live_turn(struct execution *execution, uint64_t *next)
{
    if (execution->status_fd >= 0 && guest.now >= execution->status_at)
        execution_look_started(execution);
    if (execution->timeout_at && guest.now >= execution->timeout_at) {
        execution->flags |= EXITED_TIMEOUT;
        kill_now(execution);
    }
    if (execution->kill_at && guest.now >= execution->kill_at)
        kill_now(execution);
    if (!execution->pid && drained(execution) && emptied(execution)) {
        end_execution(execution);
        return;
    }
    if (execution->status_fd >= 0)
        sooner(next, execution->status_at);
    sooner(next, execution->timeout_at);
    sooner(next, execution->kill_at);
    sooner(next, execution->look_at ? execution->look_at : execution->drain_at);
}

void executions_turn(uint64_t *next)
{
    list_each(link, after, &lives)
        live_turn(container_of(link, struct execution, live), next);
}

void execution_cancel(struct execution *execution, uint32_t grace_ms)
{
    if (execution->phase == ENDED || (execution->flags & EXITED_CANCEL && grace_ms))
        return;
    execution->flags |= EXITED_CANCEL;
    execution->must_be_empty = true;
    cgroup_follow(execution);
    if (!grace_ms) {
        kill_now(execution);
        return;
    }
    execution->kill_at = after_ms(grace_ms);
    processes_signal(execution, SIGTERM);
    processes_signal(execution, SIGCONT);
}

void execution_forget(struct execution *execution)
{
    make_unknown(execution);
    list_remove(&execution->due);
    stream_free(&execution->output[0]);
    stream_free(&execution->output[1]);
    execution_release(execution);
}

void execution_release(struct execution *execution)
{
    if (execution->known || execution->phase != ENDED || execution->cgroup || execution->output[0].fd >= 0 ||
        execution->output[1].fd >= 0 || list_empty(&execution->all))
        return;
    list_remove(&execution->all);
    list_remove(&execution->retry);
    discard(&execution->garbage, execution);
}
