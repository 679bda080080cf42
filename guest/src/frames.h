/* The wire, as PROTOCOL.md lays it down: pure functions over bytes, no state and no I/O (fuzz/frames.c feeds them). */
#ifndef DORMICE_FRAMES_H
#define DORMICE_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VERSION = 1,
    ID_SIZE = 16,
    HEADER_SIZE = 24,
    START_MOST = 2 * 1024 * 1024,
    PIECE_MOST = 64 * 1024, /* bytes of output or stdin in one frame */
};

enum frame_type {
    HELLO = 1, START, STDIN, ACK, FORGET, CANCEL, STOP, PING, POWEROFF,
    WELCOME = 65, STALE, STARTED, OUTPUT, EXITED, REFUSED, STDIN_STATE, STOPPED, PONG,
};

enum how { HOW_EXITED = 1, HOW_SIGNALLED, HOW_NOT_FOUND, HOW_PERMISSION, HOW_CWD, HOW_SPAWN_FAILED, HOW_INTERRUPTED };
enum refusal { REFUSED_BOOT = 1, REFUSED_CANCELLED, REFUSED_RESOURCES, REFUSED_STOPPING };
enum exited_flag { EXITED_TIMEOUT = 1, EXITED_CANCEL = 2, EXITED_DRAIN = 4, EXITED_OOM = 8 };

struct frame {
    uint8_t type, flags;
    const uint8_t *id;
    uint8_t *body;
    uint32_t size;
};

/* A START, read out of its frame. The strings stay in the frame until order_strings takes them. */
struct order {
    const uint8_t *boot_id;
    uint64_t timeout_ms, kept_limit;
    uint32_t drain_grace_ms;
    bool stdin_open;
    uint32_t argc, envc;
    uint8_t *strings; /* as they came: cwd, argv, envp */
    uint32_t size;    /* of all of them */
};

/* Cuts the first frame off `data`. Returns its whole size; 0 when it is not complete, with `need` bytes in all
   required to go on; -1 when it breaks the protocol. */
long frame_cut(uint8_t *data, size_t have, struct frame *frame, size_t *need);

/* Reads a START; false when it breaks the protocol. */
bool order_read(const struct frame *frame, struct order *order);

/* Ends the order's strings with NUL in place (once only) and stores argv and envp with their final NULLs. */
char *order_strings(const struct order *order, char **argv, char **envp);

uint32_t get32(const uint8_t *at);
uint64_t get64(const uint8_t *at);

/* Writers: each returns the place behind what it wrote. */
uint8_t *put8(uint8_t *at, uint8_t value);
uint8_t *put32(uint8_t *at, uint32_t value);
uint8_t *put64(uint8_t *at, uint64_t value);
uint8_t *put_id(uint8_t *at, const uint8_t *id);
/* `id` may be NULL: the frame names no execution. */
uint8_t *put_header(uint8_t *at, enum frame_type type, uint8_t flags, const uint8_t *id, uint32_t size);

#endif
