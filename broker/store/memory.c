/*
 * memory: a store that forgets everything when the process ends, for tiers and tests that need no
 * disk.
 *
 * A batch is applied at the next poll, and thereby "durable"; so answers keep the order that they
 * have with a disk. Nothing is there to be scanned at start, so families that are only scanned are
 * not kept: a million concluded ids would cost 100 MB that nobody reads. The others are trees (the
 * C library's tsearch), ordered, because expired results are deleted by range.
 */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include "broker/store/engine.h"
#include "common/blob.h"
#include "common/loop.h"

struct key {
    const uint8_t *bytes;
    size_t length;
};

struct record {
    struct key key;    /* first: the trees compare keys */
    struct blob *blob; /* NULL: none */
    size_t head_bytes;
    uint8_t bytes[]; /* the key, then the head of the value */
};

struct load {
    struct load *next;
    uint64_t token;
    enum store_family family;
    size_t key_bytes;
    uint8_t key[STORE_KEY_BYTES_MAX];
};

struct memory {
    struct store store;
    void *trees[STORE_FAMILIES];
    struct batch_list pending;
    struct load *loads, **loads_end;
    size_t n_loads;
    bool is_down; /* out of memory: the first of `pending` could not be applied */
    struct store_stats stats;
};

static bool is_kept(enum store_family family)
{
    return family == STORE_PAYLOADS || family == STORE_ATTEMPTS || family == STORE_RESULTS;
}

static int key_compare(const void *a, const void *b)
{
    const struct key *x = a;
    const struct key *y = b;
    size_t shorter = x->length < y->length ? x->length : y->length;
    int order = shorter == 0 ? 0 : memcmp(x->bytes, y->bytes, shorter);
    return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
}

struct range {
    struct key from, to;
};

/* Finds any key in [from, to). */
static int range_compare(const void *range_pointer, const void *key)
{
    const struct range *range = range_pointer;
    if (key_compare(key, &range->from) < 0) {
        return 1;
    }
    return key_compare(key, &range->to) >= 0 ? -1 : 0;
}

static size_t record_memory(const struct record *record)
{
    return sizeof(*record) + record->key.length + record->head_bytes +
           (record->blob == NULL ? 0 : blob_bytes(record->blob));
}

static void record_free(struct memory *memory, struct record *record)
{
    memory->stats.memory_bytes -= record_memory(record);
    blob_unref(&record->blob);
    free(record);
}

static int tree_put(struct memory *memory, const struct store_batch *batch,
                    const struct change *change)
{
    struct record *record = malloc(sizeof(*record) + change->key_bytes + change->tail_bytes);
    if (record == NULL) {
        return -ENOMEM;
    }
    *record = (struct record){.key = {record->bytes, change->key_bytes},
                              .head_bytes = change->tail_bytes};
    memcpy(record->bytes, change_key(batch, change), change->key_bytes + change->tail_bytes);

    struct record **node = tsearch(record, &memory->trees[change->family], key_compare);
    if (node == NULL) {
        free(record);
        return -ENOMEM;
    }
    record->blob = change->blob == NULL ? NULL : blob_ref(change->blob);
    memory->stats.memory_bytes += record_memory(record);
    if (*node != record) {
        record_free(memory, *node);
        *node = record;
    }
    return 0;
}

static void tree_delete(struct memory *memory, enum store_family family, const struct key *key)
{
    struct record **node = tfind(key, &memory->trees[family], key_compare);
    if (node != NULL) {
        struct record *record = *node;
        tdelete(key, &memory->trees[family], key_compare);
        record_free(memory, record);
    }
}

static void tree_delete_range(struct memory *memory, enum store_family family,
                              const struct range *range)
{
    struct record **node;
    while ((node = tfind(range, &memory->trees[family], range_compare)) != NULL) {
        struct record *record = *node;
        tdelete(record, &memory->trees[family], key_compare);
        record_free(memory, record);
    }
}

static int apply_change(struct memory *memory, const struct store_batch *batch,
                        const struct change *change)
{
    struct key key = {change_key(batch, change), change->key_bytes};
    switch ((enum change_kind)change->kind) {
    case CHANGE_PUT:
        return tree_put(memory, batch, change);
    case CHANGE_DELETE:
        tree_delete(memory, change->family, &key);
        return 0;
    case CHANGE_DELETE_RANGE: {
        struct range range = {key, {change_tail(batch, change), change->tail_bytes}};
        tree_delete_range(memory, change->family, &range);
        return 0;
    }
    }
    return -EINVAL;
}

static int apply_batch(struct memory *memory, const struct store_batch *batch)
{
    for (size_t i = 0; i < batch->changes_length; i++) {
        const struct change *change = &batch->changes[i];
        int r = is_kept(change->family) ? apply_change(memory, batch, change) : 0;
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* The whole value as one blob; usually the one that was put. */
static int record_value(const struct record *record, struct blob **ret_value)
{
    if (record->head_bytes == 0 && record->blob != NULL) {
        *ret_value = blob_ref(record->blob);
        return 0;
    }
    const uint8_t *head = record->bytes + record->key.length;
    if (record->blob == NULL) {
        return blob_create(head, record->head_bytes, ret_value);
    }
    size_t bytes = record->head_bytes + blob_bytes(record->blob);
    uint8_t *joined = malloc(bytes);
    if (joined == NULL) {
        return -ENOMEM;
    }
    memcpy(joined, head, record->head_bytes);
    memcpy(joined + record->head_bytes, blob_data(record->blob), blob_bytes(record->blob));
    int r = blob_wrap(joined, bytes, free, joined, ret_value);
    if (r < 0) {
        free(joined);
    }
    return r;
}

static void answer_load(struct memory *memory, const struct load *load)
{
    struct key key = {load->key, load->key_bytes};
    struct record **node = tfind(&key, &memory->trees[load->family], key_compare);
    CLEANUP(blob_unref) struct blob *value = NULL;
    int r = node == NULL ? -ENOENT : record_value(*node, &value);
    memory->store.callbacks.on_loaded(memory->store.callbacks.context, load->token, r, value);
}

static void answer_loads(struct memory *memory)
{
    /* Only those of now: a callback may ask for more, which wait for their own turn. */
    struct load *load = TAKE(memory->loads);
    memory->loads_end = &memory->loads;
    while (load != NULL) {
        struct load *next = load->next;
        memory->n_loads--;
        answer_load(memory, load);
        free(load);
        load = next;
    }
}

/* Applies what is pending; returns the number of the last batch applied, 0: none. */
static uint64_t apply_pending(struct memory *memory)
{
    uint64_t durable = 0;
    while (memory->pending.first != NULL && apply_batch(memory, memory->pending.first) == 0) {
        struct store_batch *batch = batch_list_pop(&memory->pending);
        durable = batch->number;
        memory->stats.commits++;
        memory->stats.records += batch->changes_length;
        memory->stats.bytes += batch->value_bytes;
        batch_pool_give(&memory->store.pool, &batch);
    }
    return durable;
}

static void memory_poll(struct store *store)
{
    struct memory *memory = (struct memory *)store;
    const struct store_callbacks *callbacks = &store->callbacks;
    uint64_t durable = apply_pending(memory);
    bool is_down = memory->pending.first != NULL;
    bool was_down = memory->is_down;
    memory->is_down = is_down;
    if (durable > 0) {
        callbacks->on_durable(callbacks->context, durable);
    }
    if (is_down) {
        memory->stats.failures++;
        if (!was_down) {
            callbacks->on_down(callbacks->context, memory->pending.first->number,
                               "the broker is out of memory");
        }
        return;
    }
    if (was_down) {
        callbacks->on_up(callbacks->context);
    }
    answer_loads(memory);
}

static int scan_nothing(struct store *store, enum store_family family, store_visit_fn *visit,
                        void *context, char *ret_why)
{
    (void)store, (void)family, (void)visit, (void)context, (void)ret_why;
    return 0;
}

static void memory_commit(struct store *store, struct store_batch **batch, bool urgent)
{
    struct memory *memory = (struct memory *)store;
    (void)urgent;
    batch_list_append(&memory->pending, TAKE(*batch));
    loop_again(store->loop);
}

static int memory_load(struct store *store, enum store_family family, const void *key,
                       size_t key_bytes, uint64_t token)
{
    struct memory *memory = (struct memory *)store;
    if (memory->n_loads == STORE_LOADS_MAX) {
        return -ENOBUFS;
    }
    struct load *load = malloc(sizeof(*load));
    if (load == NULL) {
        return -ENOMEM;
    }
    *load = (struct load){.token = token, .family = family, .key_bytes = key_bytes};
    memcpy(load->key, key, key_bytes);
    *memory->loads_end = load;
    memory->loads_end = &load->next;
    memory->n_loads++;
    loop_again(store->loop);
    return 0;
}

static void memory_read_stats(struct store *store, struct store_stats *ret_stats)
{
    const struct memory *memory = (const struct memory *)store;
    *ret_stats = memory->stats;
    ret_stats->pending_batches = memory->pending.length;
    ret_stats->pending_loads = memory->n_loads;
}

static void memory_close(struct store *store)
{
    struct memory *memory = (struct memory *)store;
    for (size_t family = 0; family < STORE_FAMILIES; family++) {
        while (memory->trees[family] != NULL) {
            struct record *record = *(struct record **)memory->trees[family];
            tdelete(record, &memory->trees[family], key_compare);
            record_free(memory, record);
        }
    }
    struct store_batch *batch;
    while ((batch = batch_list_pop(&memory->pending)) != NULL) {
        batch_pool_give(&store->pool, &batch);
    }
    while (memory->loads != NULL) {
        struct load *load = memory->loads;
        memory->loads = load->next;
        free(load);
    }
    batch_pool_finish(&store->pool);
    free(memory);
}

static const struct store_engine memory_engine = {
    .scan = scan_nothing,
    .commit = memory_commit,
    .load = memory_load,
    .poll = memory_poll,
    .read_stats = memory_read_stats,
    .close = memory_close,
};

int store_open_memory(struct loop *loop, const struct store_callbacks *callbacks,
                      struct store **ret_store)
{
    struct memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL) {
        return -ENOMEM;
    }
    memory->store = (struct store){.engine = &memory_engine, .loop = loop, .callbacks = *callbacks};
    memory->loads_end = &memory->loads;
    *ret_store = &memory->store;
    return 0;
}
