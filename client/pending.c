#include "client/pending.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { BUCKETS_FIRST = 64 };

static struct pending **bucket(const struct pending_table *table, const struct id *id)
{
    return &table->buckets[id_hash(id, table->seed) & (table->buckets_length - 1)];
}

int pending_table_init(struct pending_table *table, uint64_t seed)
{
    struct pending **buckets = calloc(BUCKETS_FIRST, sizeof(*buckets));
    if (buckets == NULL) {
        return -ENOMEM;
    }
    *table =
        (struct pending_table){.buckets = buckets, .buckets_length = BUCKETS_FIRST, .seed = seed};
    return 0;
}

void pending_table_finish(struct pending_table *table)
{
    assert(table->length == 0);
    free(table->buckets);
    table->buckets = NULL;
}

static int grow(struct pending_table *table)
{
    struct pending_table grown = *table;
    grown.buckets_length *= 2;
    grown.buckets = calloc(grown.buckets_length, sizeof(struct pending *));
    if (grown.buckets == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < table->buckets_length; i++) {
        struct pending *next = NULL;
        for (struct pending *pending = table->buckets[i]; pending != NULL; pending = next) {
            next = pending->next;
            struct pending **at = bucket(&grown, &pending->wire_id);
            pending->next = *at;
            *at = pending;
        }
    }
    free(table->buckets);
    *table = grown;
    return 0;
}

int pending_table_add(struct pending_table *table, struct pending *pending)
{
    if (table->length >= table->buckets_length) {
        int r = grow(table);
        if (r < 0) {
            return r;
        }
    }
    struct pending **at = bucket(table, &pending->wire_id);
    pending->next = *at;
    *at = pending;
    table->length++;
    return 0;
}

void pending_table_remove(struct pending_table *table, struct pending *pending)
{
    struct pending **at = bucket(table, &pending->wire_id);
    while (*at != pending) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = pending->next;
    pending->next = NULL;
    table->length--;
}

static struct pending *find_from(struct pending *pending, const struct id *id)
{
    while (pending != NULL && !id_equal(&pending->wire_id, id)) {
        pending = pending->next;
    }
    return pending;
}

struct pending *pending_table_first(const struct pending_table *table, const struct id *id)
{
    return find_from(*bucket(table, id), id);
}

struct pending *pending_table_next(const struct pending *pending)
{
    return find_from(pending->next, &pending->wire_id);
}
