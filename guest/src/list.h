/* Doubly linked lists whose links lie inside their members. */
#ifndef DORMICE_LIST_H
#define DORMICE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *prev, *next;
};

#define LIST(name) struct link name = {&name, &name}
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
/* Walks a list; the current member may be removed meanwhile, its successor may not. */
#define list_each(at, after, list) \
    for (struct link *at = (list)->next, *after = at->next; at != (list); at = after, after = at->next)

static inline void list_init(struct link *link)
{
    link->prev = link->next = link;
}

/* Of a list: it has no members. Of a member: it is in no list. */
static inline bool list_empty(const struct link *link)
{
    return link->next == link;
}

static inline void list_remove(struct link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* Makes it the last member, wherever it was before. */
static inline void list_append(struct link *list, struct link *link)
{
    list_remove(link);
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

#endif
