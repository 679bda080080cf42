#include "frames.h"

#include <string.h>

/* What a frame towards the guest may look like. */
static const struct rule {
    uint32_t smallest, largest;
    uint8_t flags;
    bool named;
} rules[] = {
    [HELLO] = {12, 12, 0, false},
    [START] = {36 + 4 + 4 + 4 + 4, START_MOST, 1, true}, /* fixed part, cwd, one argument, no environment */
    [STDIN] = {8, 8 + PIECE_MOST, 1, true},
    [ACK] = {9, 9, 0, true},
    [FORGET] = {0, 0, 0, true},
    [CANCEL] = {4, 4, 0, true},
    [STOP] = {4, 4, 0, false},
    [PING] = {8, 8, 0, false},
    [POWEROFF] = {0, 0, 0, false},
};

uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint64_t get64(const uint8_t *at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

uint8_t *put8(uint8_t *at, uint8_t value)
{
    *at = value;
    return at + 1;
}

uint8_t *put32(uint8_t *at, uint32_t value)
{
    for (int byte = 0; byte < 4; byte++)
        at[byte] = (uint8_t)(value >> 8 * byte);
    return at + 4;
}

uint8_t *put64(uint8_t *at, uint64_t value)
{
    return put32(put32(at, (uint32_t)value), (uint32_t)(value >> 32));
}

uint8_t *put_id(uint8_t *at, const uint8_t *id)
{
    memcpy(at, id, ID_SIZE);
    return at + ID_SIZE;
}

uint8_t *put_header(uint8_t *at, enum frame_type type, uint8_t flags, const uint8_t *id, uint32_t size)
{
    static const uint8_t none[ID_SIZE];
    at = put8(put8(put32(at, size), (uint8_t)type), flags);
    at = put8(put8(at, 0), 0);
    return put_id(at, id ? id : none);
}

static bool names_execution(const uint8_t *id)
{
    return get64(id) || get64(id + 8);
}

long frame_cut(uint8_t *data, size_t have, struct frame *frame, size_t *need)
{
    *need = HEADER_SIZE;
    if (have < HEADER_SIZE)
        return 0;
    *frame = (struct frame){
        .size = get32(data), .type = data[4], .flags = data[5], .id = data + 8, .body = data + HEADER_SIZE};
    if (frame->type < HELLO || frame->type > POWEROFF || data[6] || data[7])
        return -1;
    const struct rule *rule = &rules[frame->type];
    if (frame->size < rule->smallest || frame->size > rule->largest || frame->flags & ~rule->flags ||
        names_execution(frame->id) != rule->named)
        return -1;
    *need = HEADER_SIZE + (size_t)frame->size;
    return have < *need ? 0 : (long)*need;
}

/* Skips one string; NULL when it is cut or holds a NUL. */
static uint8_t *skip_string(uint8_t *at, const uint8_t *end)
{
    if (end - at < 4)
        return NULL;
    uint32_t size = get32(at);
    at += 4;
    if (size > (size_t)(end - at) || memchr(at, 0, size))
        return NULL;
    return at + size;
}

static uint8_t *skip_list(uint8_t *at, const uint8_t *end, uint32_t *count, bool pairs)
{
    if (end - at < 4)
        return NULL;
    *count = get32(at);
    at += 4;
    for (uint32_t index = 0; index < *count; index++) {
        uint8_t *text = at;
        if (!(at = skip_string(at, end)))
            return NULL;
        text += 4;
        if (pairs && (text == at || *text == '=' || !memchr(text, '=', (size_t)(at - text))))
            return NULL;
    }
    return at;
}

bool order_read(const struct frame *frame, struct order *order)
{
    uint8_t *at = frame->body, *end = at + frame->size;
    *order = (struct order){
        .boot_id = at,
        .timeout_ms = get64(at + 16),
        .kept_limit = get64(at + 24),
        .drain_grace_ms = get32(at + 32),
        .stdin_open = frame->flags & 1,
        .strings = at + 36,
        .size = (uint32_t)(end - (at + 36)),
    };
    at = skip_string(order->strings, end);
    at = at ? skip_list(at, end, &order->argc, false) : NULL;
    at = at ? skip_list(at, end, &order->envc, true) : NULL;
    return at == end && order->argc > 0;
}

/* Moves a string one byte down, over its own length, which makes room for its NUL. */
static char *take_string(uint8_t **at)
{
    uint8_t *text = *at + 3;
    uint32_t size = get32(*at);
    memmove(text, text + 1, size);
    text[size] = 0;
    *at += 4 + size;
    return (char *)text;
}

static void take_list(uint8_t **at, char **list)
{
    uint32_t count = get32(*at);
    *at += 4;
    for (uint32_t index = 0; index < count; index++)
        list[index] = take_string(at);
    list[count] = NULL;
}

char *order_strings(const struct order *order, char **argv, char **envp)
{
    uint8_t *at = order->strings;
    char *cwd = take_string(&at);
    take_list(&at, argv);
    take_list(&at, envp);
    return cwd;
}
