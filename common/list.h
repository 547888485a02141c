/* list: a doubly linked list whose links lie in the element. Append, remove and first are O(1). */
#pragma once
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include "common/attributes.h"

struct list_link {
    struct list_link *next;
    struct list_link *previous;
};

struct list {
    struct list_link head; /* a ring through the head */
    size_t length;
};

static inline void list_init(struct list *list)
{
    list->head.next = list->head.previous = &list->head;
    list->length = 0;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->length == 0;
}

static inline void list_insert_before(struct list *list, struct list_link *link,
                                      struct list_link *position)
{
    assert(position != NULL);
    assert(position->previous != NULL);
    link->next = position;
    link->previous = position->previous;
    position->previous->next = link;
    position->previous = link;
    list->length++;
}

static inline void list_append(struct list *list, struct list_link *link)
{
    list_insert_before(list, link, &list->head);
}

static inline void list_prepend(struct list *list, struct list_link *link)
{
    list_insert_before(list, link, list->head.next);
}

static inline void list_remove(struct list *list, struct list_link *link)
{
    assert(link->next != NULL);
    assert(link->previous != NULL);
    link->next->previous = link->previous;
    link->previous->next = link->next;
    link->next = link->previous = NULL;
    list->length--;
}

/* NULL when the list is empty. */
static inline struct list_link *list_first(const struct list *list)
{
    return list->length == 0 ? NULL : list->head.next;
}

/* Visits each link; the visited one may not be removed. */
#define list_for_each(list_pointer, link)                                                          \
    for (struct list_link *link = (list_pointer)->head.next; link != &(list_pointer)->head;        \
         link = link->next)
