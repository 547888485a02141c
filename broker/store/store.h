/*
 * store: where jobs are kept. One interface, one file for each engine (rocksdb.c, memory.c).
 *
 * A batch of record changes is committed as one: either all of it is durable or none. Batches
 * become durable in the order of commit. A journal thread drains all that is pending, writes once
 * with one fsync (group commit), and reports through `on_durable`; loads are read by a thread too
 * and answered through `on_loaded`. Both callbacks run on the loop's thread. The memory engine
 * calls them from store_poll() like the others, never from within store_commit().
 *
 * When a commit fails (ENOSPC, EIO) the store goes down: on_down(first batch that is not durable,
 * why). It keeps what was handed to it in order, closes, reopens and retries with backoff on its
 * thread, and reports on_up() once everything pending is durable. The broker refuses durable jobs
 * meanwhile, so what is pending stays bounded.
 *
 * Keys and values: proto/records.proto. Values are opaque here. Belongs to the loop's thread, but
 * for the destruction of blobs: see common/blob.h.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/blob.h"

struct config_broker;
struct loop;
struct store;
struct store_batch;

/*
 * All are scanned at start; payloads, attempts and results are also loaded one by one, the others
 * never.
 */
enum store_family {
    STORE_JOBS,
    STORE_PAYLOADS,
    STORE_LEASES,
    STORE_ATTEMPTS,
    STORE_CONCLUDED,
    STORE_RESULTS,
    STORE_META,
    STORE_FAMILIES,
};

enum {
    STORE_KEY_BYTES_MAX = 64,
    STORE_WHY_BYTES = 512,   /* room for a reason in words */
    STORE_LOADS_MAX = 16384, /* asked for and not answered */
};

struct store_callbacks {
    void (*on_durable)(void *context, uint64_t batch); /* this batch and all before it */
    void (*on_down)(void *context, uint64_t first_batch, const char *why);
    void (*on_up)(void *context);
    /*
     * Something else that an operator has to know: a read that failed or found damage, or that the store
     * cannot come up again for another reason than on_down() said. At most one a second.
     */
    void (*on_fault)(void *context, const char *why);
    /* result: 0 with a blob (borrowed), -ENOENT, or another negative errno. */
    void (*on_loaded)(void *context, uint64_t token, int result, struct blob *value);
    void *context;
};

/* What was measured, for metrics. */
struct store_stats {
    uint64_t commits; /* fsyncs */
    uint64_t records; /* changes written */
    uint64_t bytes;   /* of their keys and values */
    uint64_t commit_us_last;
    uint64_t commit_us_total;
    uint64_t pending_batches; /* handed over and not durable */
    uint64_t pending_loads;
    uint64_t failures;     /* commits, and attempts to open again */
    uint64_t read_failures; /* loads that failed, or found damage */
    uint64_t disk_bytes;   /* estimate of the engine; 0 unknown */
    uint64_t memory_bytes; /* write buffers and caches */
};

/*
 * Opens (creates) the store; locks its directory. Blocks. `loop` is woken when there is something
 * to poll. Errors: -EBUSY in use by another broker; -EACCES, -EROFS, -ENOTDIR, -ENOSPC …; -EBADMSG
 * of a later version or damaged; -ENOMEM. ret_why, at least STORE_WHY_BYTES, says it in words with
 * the remedy.
 */
MUST_USE int store_open(const struct config_broker *config, struct loop *loop,
                        const struct store_callbacks *callbacks, struct store **ret_store,
                        char *ret_why);
/*
 * Replaces the database in config->data_dir by one with everything in it that can be read, and puts it aside
 * whole. For an operator who was told that it is damaged; before store_open(). Blocks, long. Needs as
 * much room again. Errors, ret_why: as store_open(); nothing has changed then.
 */
struct store_salvage {
    uint64_t records;  /* copied */
    uint64_t replayed; /* batches from the log, behind damage in it */
    uint64_t changes;  /* acknowledged and not in the log any more, at least */
    uint64_t ranges;   /* of keys that could not be read in tables */
    char first_change[STORE_WHY_BYTES], first_range[STORE_WHY_BYTES]; /* in words, or empty */
    char aside[4096];                                                 /* where the damaged one is */
};
MUST_USE int store_salvage(const struct config_broker *config, struct store_salvage *ret_report,
                           char *ret_why);

/* Commits what is pending (unless down), stops the threads, closes. Blocks. */
void store_close(struct store **store);

/*
 * Visits every record of a family in the order of its keys. Blocks; only before the first commit.
 * The visitor returns 0 to go on, or a negative errno to stop. Errors: that, with an empty ret_why; or of
 * the engine, -EBADMSG damaged, -EIO …, in words.
 */
typedef int store_visit_fn(void *context, const void *key, size_t key_bytes, const void *value,
                           size_t value_bytes);
MUST_USE int store_scan(struct store *store, enum store_family family, store_visit_fn *visit,
                        void *context, char *ret_why);

/*
 * Collects changes; a change that could not be added leaves the batch as it was. Values given as
 * blobs are referenced until written (by the memory engine until deleted); others are copied.
 * Errors: -ENOMEM.
 */
MUST_USE int store_batch_create(struct store *store, struct store_batch **ret_batch);
void store_batch_destroy(struct store_batch **batch);
MUST_USE int store_batch_put(struct store_batch *batch, enum store_family family, const void *key,
                             size_t key_bytes, const void *value, size_t value_bytes);
/* value = head (may be empty, copied) followed by the blob's bytes */
MUST_USE int store_batch_put_blob(struct store_batch *batch, enum store_family family,
                                  const void *key, size_t key_bytes, const void *head,
                                  size_t head_bytes, struct blob *value);
MUST_USE int store_batch_delete(struct store_batch *batch, enum store_family family,
                                const void *key, size_t key_bytes);
/* Deletes [from, to). */
MUST_USE int store_batch_delete_range(struct store_batch *batch, enum store_family family,
                                      const void *from, size_t from_bytes, const void *to,
                                      size_t to_bytes);
size_t store_batch_length(const struct store_batch *batch);

/*
 * Hands a batch to the journal under the caller's number (numbers grow by one). Takes *batch,
 * always. `urgent` false: nobody waits for it; it is written with the next urgent one or within 100
 * ms.
 */
void store_commit(struct store *store, struct store_batch **batch, uint64_t number, bool urgent);

/*
 * Asks for one record; on_loaded(token) follows, in the order of asking. Sees every batch handed
 * over before, which it makes urgent; while the store is down the answer waits. Never answered
 * after store_close(). Errors: -ENOMEM; -ENOBUFS STORE_LOADS_MAX are not answered yet.
 */
MUST_USE int store_load(struct store *store, enum store_family family, const void *key,
                        size_t key_bytes, uint64_t token);

/* Delivers the callbacks that are due. Called once a turn. */
void store_poll(struct store *store);

void store_read_stats(struct store *store, struct store_stats *ret_stats);
