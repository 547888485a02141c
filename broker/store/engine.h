/*
 * engine: what a kind of store must do. store.c finds the engine by configuration and passes calls
 * on; the batches are the same for all (batch.h). Contracts: store.h.
 */
#pragma once
#include "broker/store/batch.h"
#include "broker/store/store.h"

struct store_engine {
    int (*scan)(struct store *store, enum store_family family, store_visit_fn *visit,
                void *context, char *ret_why);
    void (*commit)(struct store *store, struct store_batch **batch, bool urgent);
    int (*load)(struct store *store, enum store_family family, const void *key, size_t key_bytes,
                uint64_t token);
    void (*poll)(struct store *store);
    void (*read_stats)(struct store *store, struct store_stats *ret_stats);
    void (*close)(struct store *store); /* frees all, the struct too */
};

/* First in every engine's struct. */
struct store {
    const struct store_engine *engine;
    struct loop *loop;
    struct store_callbacks callbacks;
    struct batch_pool pool; /* loop's thread only */
};

MUST_USE int store_open_memory(struct loop *loop, const struct store_callbacks *callbacks,
                               struct store **ret_store);

struct disk;
/*
 * A store whose batches go to `disk` by way of a thread. Takes *disk on success. Errors: -ENOMEM,
 * -errno of pthread.
 */
MUST_USE int store_open_journal(struct disk **disk, struct loop *loop,
                                const struct store_callbacks *callbacks, struct store **ret_store);
