/* Process 1 of a machine: what its parts know of one another.

   start.c       which program this is: process 1, or a tool (tools/)
   main.c        start-up, the loop, time, signals, the machine's end
   frames.c      the wire
   link.c        connections from the node: frames in, and everything owed to the node out
   executions.c  the life of an execution from START to FORGET
   spawn.c       making its first process
   spare.c       one made in advance
   streams.c     its output and input
   cgroups.c     finding, signalling and killing all of its processes

   One thread, one epoll. Memory of a source that may still have an event pending is freed at the end of a turn only. */
#ifndef DORMICE_GUEST_H
#define DORMICE_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "frames.h"
#include "list.h"

enum {
    KNOWN_MOST = 4000,
    TOMBSTONES_MOST = 65536,
    CONNECTIONS_MOST = 8,
    STREAM_WINDOW = 256 * 1024,
    MACHINE_WINDOW = 4 * 1024 * 1024,
    STDIN_CREDIT = 64 * 1024,
    FDS_KEPT_FREE = 32, /* kept free by refusing STARTs, so that accept never fails for want of one */
};

#define MS UINT64_C(1000000) /* all times are nanoseconds, all deadlines of CLOCK_MONOTONIC; 0 is no deadline */

/* Something in the epoll: `ready` is told what happened. */
struct source {
    void (*ready)(struct source *source, uint32_t events);
};

/* Memory to be freed at the end of the turn. */
struct garbage {
    struct link link;
    void *memory;
};

struct execution;

/* An output stream. Kept bytes: acked <= sent <= received. */
struct stream {
    struct source source;
    struct link readable; /* in the list of streams that may hold bytes */
    struct execution *execution;
    int fd; /* -1 once at end of file */
    bool hung_up; /* every writer is gone */
    bool unkept;  /* for want of memory, what comes is only counted from now on */
    uint64_t starved_at; /* since when there has been no memory for its ring; 0 while there is */
    uint8_t number;
    uint8_t *ring;      /* STREAM_WINDOW bytes, mapped only while something is held; byte n lies at n % STREAM_WINDOW */
    uint64_t acked;     /* durable at the server */
    uint64_t sent;      /* on this connection */
    uint64_t announced; /* the highest `sent` ever, so that an ACK of more is known for a lie */
    uint64_t received;  /* what was kept */
    uint64_t total;     /* what the command wrote */
};

/* An execution's stdin when STDIN frames feed it. */
struct input {
    struct source source;
    int fd; /* -1 once closed */
    bool promised, closed;
    uint8_t *queue; /* STDIN_CREDIT bytes, allocated only while something is queued */
    uint32_t queue_at, queued;
    uint64_t written; /* by the command, or dropped because nobody reads it */
    uint64_t end;     /* offset of EOF, UINT64_MAX while not known */
};

enum phase {
    SPAWNING, /* forked, exec not yet known to have worked */
    RUNNING,  /* up to the leader's exit and through the drain */
    ENDED,
};

struct execution {
    uint8_t id[ID_SIZE];
    struct execution *next_by_id, *next_by_pid;
    struct link all, live /* not ENDED */, due /* owes frames */, retry /* its cgroup could not be removed yet */;
    struct garbage garbage;
    bool known; /* not forgotten */
    enum phase phase;
    pid_t pid; /* 0 once reaped */
    struct stream output[2];
    struct input input;

    int status_fd;                   /* tells whether the exec worked; -1 once it has */
    int plan_fd;                     /* what a spare has not read yet of its plan; -1 when it was none, or has begun */
    uint64_t spawned_at, status_at; /* CLOCK_REALTIME; when to ask for the status at the latest */

    uint64_t kept_limit, timeout, drain_left;
    uint64_t timeout_at, kill_at, drain_at, look_at, retry_at;
    uint64_t give_up_at; /* while its processes cannot be killed: when the machine ends for it */
    bool interrupted;   /* STOP came while the leader was alive */
    bool must_be_empty; /* a timeout or a cancel: it ends when its processes are gone */
    bool killed;

    uint64_t cgroup; /* the number of its cgroup; 0 for none */
    bool populated;
    struct source watch_source;
    int watch_fd; /* cgroup.events */

    bool started_due, stdin_due, exited_due;
    enum how how;
    int32_t code;
    uint32_t error;
    uint8_t flags;
    uint64_t started_at, ended_at; /* CLOCK_REALTIME */
    uint64_t total[2], kept[2];    /* as of the end */
};

struct guest {
    uint8_t boot_id[ID_SIZE];
    bool is_init;
    bool has_cgroups;
    bool may_filter;  /* may add a seccomp filter to a child */
    const char *home; /* what /root stands for as a cwd; only without a container */
    int epoll, cgroup, null, oom_score; /* descriptors */
    char oom_own[16], oom_child[16]; /* the texts of its own and of a child's score */
    uint64_t now;
    uint64_t files_soft, files_hard; /* RLIMIT_NOFILE as it was given to process 1 */
    bool stopping, stopped;
};

extern struct guest guest;
extern struct link executions; /* all, by `all` */
extern struct link lives;      /* by `live` */
extern struct link dues;       /* by `due` */
extern struct link retries;    /* by `retry` */

/* main.c */
_Noreturn void guest_run(int argc, char **argv);
uint64_t real_time(void);
bool watch(int fd, uint32_t events, struct source *source);
void shut(int *fd);           /* closed, if it is open, and -1 */
void unwatch(int *fd);        /* out of the epoll, closed and -1 */
void discard(struct garbage *garbage, void *memory); /* free at the end of the turn */
void sooner(uint64_t *deadline, uint64_t other);
uint64_t after_ms(uint64_t milliseconds); /* a deadline */
void complain(const char *what);
void machine_stop(uint32_t grace_ms);
void machine_off(void);

/* link.c */
void link_open(void);
bool link_receive(void); /* true when there is more to read at once */
bool link_send(void);    /* true when there is more to send at once */

/* executions.c */
struct execution *execution_find(const uint8_t *id);
uint32_t executions_known(void);
void executions_names(uint8_t *at);
void executions_resend(void);
enum refusal execution_start(const uint8_t *id, const struct order *order); /* 0 when started */
void execution_cancel(struct execution *execution, uint32_t grace_ms);
void execution_forget(struct execution *execution);
void execution_look_started(struct execution *execution);
void execution_leader_ended(pid_t pid, int status);
void execution_due(struct execution *execution);
void execution_release(struct execution *execution); /* frees it if nothing of it is left */
void executions_turn(uint64_t *next);                /* applies deadlines and ends, brings forward the next one */
bool tombstone_add(const uint8_t *id);
bool tombstone_has(const uint8_t *id);

/* spawn.c */
void spawn_prepare(void);
/* Text that is in the environment of the execution's processes when there is no cgroup to find them by. */
void execution_mark(const struct execution *execution, char text[2 * ID_SIZE + 1]);
/* Makes the leader; false when there is no memory, process or descriptor for it. */
bool spawn(struct execution *execution, const struct order *order);

struct pipes {
    int in[2], out[2], err[2], status[2];
};
bool pipes_make(struct pipes *pipes, bool with_stdin);
bool pipes_attach(struct execution *execution, struct pipes *pipes); /* hands it the parent's ends, or closes them */
void pipes_detach(struct execution *execution);
void pipes_close(const struct pipes *pipes);
pid_t fork_into(int cgroup);
void child_settle(const struct pipes *pipes, int kept); /* `kept` becomes 4; -1 for none */
_Noreturn void child_exec(const char *cwd, char **argv, char **envp);

/* spare.c */
bool spare_take(struct execution *execution, const struct order *order); /* false when another process must be made */
bool spare_idle(struct execution *execution);                            /* whether it has not read its plan */
bool spare_again(struct execution *execution); /* another process for the plan of one that died before it read it */
void spare_want(void);
void spare_turn(uint64_t *next);
bool spare_ended(pid_t pid); /* whether that was the spare */
void spare_discard(void);

/* streams.c */
void stream_init(struct stream *stream, struct execution *execution, uint8_t number);
bool stream_open(struct stream *stream, int fd);
void stream_acked(struct stream *stream, uint64_t offset);
void stream_rewind(struct stream *stream);
int stream_slices(const struct stream *stream, uint64_t offset, uint32_t size, struct iovec slices[2]);
void stream_free(struct stream *stream);
bool stream_quiet(const struct stream *stream); /* nothing to wait for but more from the command */
void stream_look(struct stream *stream);        /* read it in this turn, whatever epoll says */
bool streams_turn(uint64_t *next);              /* reads what may be read; true when there is more */
void input_init(struct input *input, bool promised);
bool input_open(struct input *input, int fd);
bool input_take(struct execution *execution, uint64_t offset, const uint8_t *data, uint32_t size, bool eof);
void input_close(struct execution *execution);

/* cgroups.c */
void cgroups_open(void);
int cgroup_make(uint64_t *cgroup); /* its directory, or -1 */
bool cgroup_unmake(uint64_t cgroup, bool killed); /* false while something lives in it */
void cgroups_turn(uint64_t *next); /* lets go of those that nobody has needed for a while */
void processes_signal(struct execution *execution, int signal);
bool processes_kill(struct execution *execution); /* false when it cannot be done now */
bool processes_gone(struct execution *execution);
void cgroup_follow(struct execution *execution);
void cgroup_remove(struct execution *execution);
bool cgroup_oom(const struct execution *execution);

#endif
