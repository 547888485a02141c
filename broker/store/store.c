#include "broker/store/store.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "broker/store/disk.h"
#include "broker/store/engine.h"
#include "common/config.h"

static int open_rocksdb(const struct config_broker *config, struct loop *loop,
                        const struct store_callbacks *callbacks, struct store **ret_store,
                        char *ret_why)
{
    CLEANUP(disk_close) struct disk *disk = NULL;
    int r = disk_open(config, &disk, ret_why);
    if (r < 0) {
        return r;
    }
    r = store_open_journal(&disk, loop, callbacks, ret_store);
    if (r < 0) {
        snprintf(ret_why, STORE_WHY_BYTES, "cannot start the journal: %s", strerror(-r));
    }
    return r;
}

int store_open(const struct config_broker *config, struct loop *loop,
               const struct store_callbacks *callbacks, struct store **ret_store, char *ret_why)
{
    switch (config->store) {
    case STORE_ROCKSDB:
        return open_rocksdb(config, loop, callbacks, ret_store, ret_why);
    case STORE_MEMORY: {
        int r = store_open_memory(loop, callbacks, ret_store);
        if (r < 0) {
            snprintf(ret_why, STORE_WHY_BYTES, "no memory for the store");
        }
        return r;
    }
    }
    assert(!"an engine for every value of broker.store");
    return 0;
}

void store_close(struct store **store)
{
    if (*store == NULL) {
        return;
    }
    struct store *closed = TAKE(*store);
    closed->engine->close(closed);
}

int store_scan(struct store *store, enum store_family family, store_visit_fn *visit, void *context,
               char *ret_why)
{
    assert(family < STORE_FAMILIES);
    ret_why[0] = '\0';
    return store->engine->scan(store, family, visit, context, ret_why);
}

void store_commit(struct store *store, struct store_batch **batch, uint64_t number, bool urgent)
{
    (*batch)->number = number;
    store->engine->commit(store, batch, urgent);
}

int store_load(struct store *store, enum store_family family, const void *key, size_t key_bytes,
               uint64_t token)
{
    assert(family == STORE_PAYLOADS || family == STORE_ATTEMPTS || family == STORE_RESULTS);
    assert(key_bytes <= STORE_KEY_BYTES_MAX);
    return store->engine->load(store, family, key, key_bytes, token);
}

void store_poll(struct store *store)
{
    store->engine->poll(store);
}

void store_read_stats(struct store *store, struct store_stats *ret_stats)
{
    store->engine->read_stats(store, ret_stats);
}
