/* libFuzzer: whatever bytes a host sends, cutting and reading frames stays inside them and agrees with itself. */
#include <stdlib.h>
#include <string.h>

#include "frames.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds)
{
    if (!holds)
        abort();
}

static void read_order(const struct frame *frame)
{
    struct order order;
    if (!order_read(frame, &order))
        return;
    char **strings = malloc(((size_t)order.argc + order.envc + 2) * sizeof *strings);
    check(strings != NULL);
    char **envp = strings + order.argc + 1;
    size_t bytes = strlen(order_strings(&order, strings, envp));
    for (uint32_t index = 0; index < order.argc; index++)
        bytes += strlen(strings[index]);
    for (uint32_t index = 0; index < order.envc; index++) {
        bytes += strlen(envp[index]);
        check(strchr(envp[index], '=') > envp[index]);
    }
    check(!strings[order.argc] && !envp[order.envc]);
    check(bytes + 36 + 4 + 4 + 4 * (size_t)order.argc + 4 + 4 * (size_t)order.envc == frame->size);
    free(strings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Exactly as large as what is there, so that one byte too far is seen. */
    uint8_t *copy = malloc(size ? size : 1);
    check(copy != NULL);
    memcpy(copy, data, size);
    struct frame frame;
    size_t at = 0, need;
    for (long cut; (cut = frame_cut(copy + at, size - at, &frame, &need)) > 0; at += (size_t)cut) {
        check((size_t)cut == need && need <= size - at && need == HEADER_SIZE + (size_t)frame.size);
        if (frame.type == START)
            read_order(&frame);
    }
    free(copy);
    return 0;
}
