/* What a fuzzed process 1 has instead of a kernel: time, processes, cgroups and memory that do as the input says.
   Descriptors, pipes, sockets and epoll are real. */
#ifndef DORMICE_PRETEND_H
#define DORMICE_PRETEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROCESSES_MOST = 64, LIVES_MOST = 256 };
enum { GUEST_FD_LEAST = 5, GUEST_FD_MOST = 120 }; /* whatever else is open lies above */

/* What the leader of an execution and all that it forked have done together. */
struct life {
    uint64_t written[2]; /* of output, per stream */
    uint64_t read;       /* of input */
};

/* A process, from its clone on. What it inherits of the guest's descriptors are copies of the children's ends. */
struct process {
    pid_t pid; /* 0 for a free place */
    bool living, obeys; /* obeys: SIGTERM ends it */
    bool leader, spare; /* spare: has not read its plan */
    int status;
    int in, out[2], report, plan;
    uint64_t cgroup;
    unsigned life; /* index into `lived`, from 1 on; also tells what it writes */
};

extern struct process processes[PROCESSES_MOST];
extern struct life lived[LIVES_MOST];
extern uint64_t pretend_time;
extern unsigned fail_memory, fail_pipes, fail_clones; /* the one that many calls ahead fails; 0 for none */
extern bool pretended_exit; /* _exit was called */

void must(bool holds, const char *what);
#define MUST(what) must(what, #what)

struct process *process_find(pid_t pid);
struct process *process_fork(const struct process *parent); /* a child that stays in the cgroup; NULL when there are too many */
void process_end(struct process *process, int status);
uint8_t pattern(unsigned number, int stream, uint64_t offset);

void pretend_begin(void);
void pretend_end(void); /* everything is gone */
void variables_keep(void);    /* those of the guest, as they are before a session */
void variables_restore(void); /* to that */
void descriptors_keep(void);    /* those that are not the guest's */
unsigned descriptors_new(void); /* how many are open that were not then */
void descriptors_close(void);   /* these */
unsigned memory_taken(void); /* pieces of it, by the guest */

#endif
