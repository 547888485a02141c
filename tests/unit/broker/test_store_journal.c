/*
 * The journal over a disk that fails on demand. A plain program, because Criterion does not start
 * under TSan.
 *
 * The disk holds one number for each key, and fails in the nastiest way that is allowed: some
 * changes of the failed group are on it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/store/disk.h"
#include "broker/store/engine.h"
#include "common/blob.h"
#include "common/clock.h"
#include "common/loop.h"
#include "tests/unit/broker/check.h"

enum { KEYS = 32, HISTORY_MAX = 4096, WAIT_MS = 30000, SLOW_MS = 300 };

/* ------------------------------------------------------------------------------------- the disk */

struct disk {
    pthread_mutex_t lock;
    pthread_cond_t released;
    uint32_t values[KEYS];
    uint64_t history[HISTORY_MAX]; /* batches in the order in which they became durable */
    size_t history_length;
    unsigned writes_to_fail, reopens_to_fail;
    unsigned n_reopens;
    bool is_failed;     /* a write failed: all others fail until it is reopened */
    bool is_closed;     /* a reopening failed */
    uint64_t held_from; /* writes that begin with this batch or a later one wait */
    unsigned n_waiting;
    bool is_loading;
    bool is_slow; /* a load lasts longer than the first wait before a reopening */
};

static void apply(struct disk *disk, const struct store_batch *batch)
{
    for (size_t i = 0; i < batch->changes_length; i++) {
        const struct change *change = &batch->changes[i];
        memcpy(&disk->values[change_key(batch, change)[0]], change_tail(batch, change),
               sizeof(uint32_t));
    }
}

int disk_write(struct disk *disk, const struct batch_list *batches, char *ret_why)
{
    pthread_mutex_lock(&disk->lock);
    CHECK(!disk->is_closed);
    disk->n_waiting++;
    pthread_cond_broadcast(&disk->released);
    while (batches->first->number >= disk->held_from) {
        pthread_cond_wait(&disk->released, &disk->lock);
    }
    disk->n_waiting--;
    bool fails = disk->is_failed || disk->writes_to_fail > 0;
    disk->writes_to_fail -= disk->writes_to_fail > 0;
    disk->is_failed = fails;
    for (const struct store_batch *batch = batches->first; batch != NULL; batch = batch->next) {
        apply(disk, batch);
        if (fails) {
            break; /* a part of the group reached the disk */
        }
        CHECK(disk->history_length < HISTORY_MAX);
        disk->history[disk->history_length++] = batch->number;
    }
    pthread_mutex_unlock(&disk->lock);
    snprintf(ret_why, STORE_WHY_BYTES, "the disk is full");
    return fails ? -ENOSPC : 0;
}

int disk_reopen(struct disk *disk, char *ret_why)
{
    pthread_mutex_lock(&disk->lock);
    CHECK(!disk->is_loading);
    disk->n_reopens++;
    disk->is_closed = disk->reopens_to_fail > 0;
    disk->reopens_to_fail -= disk->reopens_to_fail > 0;
    disk->is_failed = disk->is_closed;
    int r = disk->is_closed ? -EIO : 0;
    pthread_mutex_unlock(&disk->lock);
    snprintf(ret_why, STORE_WHY_BYTES, "the disk does not open");
    return r;
}

void disk_load(struct disk *disk, struct disk_load *loads, char *ret_why)
{
    (void)ret_why;
    pthread_mutex_lock(&disk->lock);
    CHECK(!disk->is_closed);
    disk->is_loading = true;
    for (int64_t end_ms = clock_monotonic_ms() + SLOW_MS;
         disk->is_slow && clock_monotonic_ms() < end_ms;) {
        struct timespec at = {.tv_sec = end_ms / 1000, .tv_nsec = end_ms % 1000 * 1000000};
        pthread_cond_clockwait(&disk->released, &disk->lock, CLOCK_MONOTONIC, &at);
    }
    pthread_mutex_unlock(&disk->lock);
    for (; loads != NULL; loads = loads->next) {
        pthread_mutex_lock(&disk->lock);
        uint32_t value = disk->values[loads->key[0]];
        pthread_mutex_unlock(&disk->lock);
        loads->result = value == 0 ? -ENOENT : blob_create(&value, sizeof(value), &loads->value);
    }
    pthread_mutex_lock(&disk->lock);
    disk->is_loading = false;
    pthread_mutex_unlock(&disk->lock);
}

int disk_scan(struct disk *disk, enum store_family family, store_visit_fn *visit, void *context,
              char *ret_why)
{
    (void)ret_why;
    (void)disk, (void)family, (void)visit, (void)context;
    return 0;
}

void disk_tidy(struct disk *disk)
{
    (void)disk;
}

void disk_measure(struct disk *disk, struct store_stats *stats)
{
    (void)disk, (void)stats;
}

void disk_close(struct disk **disk)
{
    *disk = NULL; /* the test owns it */
}

static void disk_hold(struct disk *disk, uint64_t from)
{
    pthread_mutex_lock(&disk->lock);
    disk->held_from = from;
    pthread_cond_broadcast(&disk->released);
    pthread_mutex_unlock(&disk->lock);
}

static void disk_wait_for_write(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    while (disk->n_waiting == 0) {
        pthread_cond_wait(&disk->released, &disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
}

static void disk_fail(struct disk *disk, unsigned writes, unsigned reopens)
{
    pthread_mutex_lock(&disk->lock);
    disk->writes_to_fail = writes;
    disk->reopens_to_fail = reopens;
    pthread_mutex_unlock(&disk->lock);
}

/* ------------------------------------------------------------------------------------ the bench */

struct bench {
    struct disk disk;
    struct loop *loop;
    struct store *store;
    uint64_t handed, durable;
    uint32_t expected[KEYS];
    unsigned n_down, n_up, n_faults;
    char fault_why[STORE_WHY_BYTES];
    uint64_t down_first;
    size_t n_loaded;
};

static void on_durable(void *context, uint64_t batch)
{
    struct bench *bench = context;
    CHECK(batch > bench->durable);
    CHECK(batch <= bench->handed);
    bench->durable = batch;
}

static void on_down(void *context, uint64_t first_batch, const char *why)
{
    struct bench *bench = context;
    CHECK(bench->n_down == bench->n_up);
    CHECK(first_batch == bench->durable + 1);
    CHECK(strcmp(why, "the disk is full") == 0);
    bench->n_down++;
    bench->down_first = first_batch;
}

static void on_up(void *context)
{
    struct bench *bench = context;
    bench->n_up++;
    CHECK(bench->n_down == bench->n_up);
}

static void on_fault(void *context, const char *why)
{
    struct bench *bench = context;
    bench->n_faults++;
    snprintf(bench->fault_why, sizeof(bench->fault_why), "%s", why);
}

static void on_loaded(void *context, uint64_t token, int result, struct blob *value)
{
    struct bench *bench = context;
    uint32_t found;
    CHECK(result == 0);
    memcpy(&found, blob_data(value), sizeof(found));
    CHECK(found >= token); /* what was handed over before the load, or something later */
    bench->n_loaded++;
}

static void poll_store(void *context)
{
    struct store *store = ((struct bench *)context)->store;
    store->engine->poll(store);
}

static void bench_init(struct bench *bench)
{
    *bench = (struct bench){.disk = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                     .released = PTHREAD_COND_INITIALIZER,
                                     .held_from = UINT64_MAX}};
    struct store_callbacks callbacks = {
        .on_durable = on_durable,
        .on_down = on_down,
        .on_up = on_up,
        .on_fault = on_fault,
        .on_loaded = on_loaded,
        .context = bench,
    };
    struct disk *disk = &bench->disk;
    CHECK(loop_create(&bench->loop) == 0);
    CHECK(store_open_journal(&disk, bench->loop, &callbacks, &bench->store) == 0);
    CHECK(loop_add_turn_handler(bench->loop, poll_store, bench) == 0);
}

static void bench_close_store(struct bench *bench)
{
    bench->store->engine->close(bench->store);
    bench->store = NULL;
}

static void bench_finish(struct bench *bench)
{
    if (bench->store != NULL) {
        bench_close_store(bench);
    }
    loop_destroy(&bench->loop);
    pthread_cond_destroy(&bench->disk.released);
    pthread_mutex_destroy(&bench->disk.lock);
}

/* Gives a key the number of its batch as value. */
static void put(struct bench *bench, uint8_t key, bool urgent)
{
    struct store_batch *batch = NULL;
    uint32_t value = (uint32_t)++bench->handed;
    CHECK(store_batch_create(bench->store, &batch) == 0);
    CHECK(store_batch_put(batch, STORE_PAYLOADS, &key, 1, &value, sizeof(value)) == 0);
    batch->number = bench->handed;
    bench->expected[key] = value;
    bench->store->engine->commit(bench->store, &batch, urgent);
}

static void load(struct bench *bench, uint8_t key)
{
    CHECK(bench->store->engine->load(bench->store, STORE_PAYLOADS, &key, 1, bench->expected[key]) ==
          0);
}

#define TURN_UNTIL(bench, fact)                                                                    \
    for (int64_t end_ms_ = clock_monotonic_ms() + WAIT_MS; !(fact);) {                             \
        CHECK(clock_monotonic_ms() < end_ms_);                                                     \
        CHECK(loop_turn((bench)->loop, 1000) == 0);                                                \
    }

static void check_disk(struct bench *bench)
{
    CHECK(bench->disk.history_length == bench->handed);
    for (size_t i = 0; i < bench->disk.history_length; i++) {
        CHECK(bench->disk.history[i] == i + 1);
    }
    CHECK(memcmp(bench->disk.values, bench->expected, sizeof(bench->expected)) == 0);
}

/* ------------------------------------------------------------------------------------ the facts */

static void batches_that_gather_are_one_write(void)
{
    struct bench bench;
    bench_init(&bench);
    disk_hold(&bench.disk, 0);
    put(&bench, 0, true);
    disk_wait_for_write(&bench.disk);
    for (uint8_t i = 0; i < 100; i++) {
        put(&bench, i % KEYS, true);
    }
    disk_hold(&bench.disk, UINT64_MAX);
    TURN_UNTIL(&bench, bench.durable == 101);
    struct store_stats stats;
    bench.store->engine->read_stats(bench.store, &stats);
    CHECK(stats.commits == 2);
    check_disk(&bench);
    bench_finish(&bench);
}

static void failed_write_is_repeated_in_order(void)
{
    struct bench bench;
    bench_init(&bench);
    put(&bench, 1, true);
    TURN_UNTIL(&bench, bench.durable == 1);
    disk_fail(&bench.disk, 2, 2);
    for (uint8_t i = 0; i < 10; i++) {
        put(&bench, i % 4, true);
    }
    TURN_UNTIL(&bench, bench.n_down == 1);
    CHECK(bench.down_first == 2);
    for (uint8_t i = 0; i < 10; i++) {
        put(&bench, i % 5, true); /* what arrives meanwhile waits its turn */
    }
    load(&bench, 3);
    TURN_UNTIL(&bench, bench.n_up == 1 && bench.n_loaded == 1);
    CHECK(bench.durable == bench.handed);
    CHECK(bench.disk.n_reopens ==
          4); /* after the first failure; two of them fail; after the second failure */
    check_disk(&bench);
    bench_finish(&bench);
}

static void another_reason_to_stay_down_is_said(void)
{
    struct bench bench;
    bench_init(&bench);
    disk_fail(&bench.disk, 1, 3);
    put(&bench, 1, true);
    TURN_UNTIL(&bench, bench.n_down == 1);
    TURN_UNTIL(&bench, bench.n_faults == 1);
    CHECK(strcmp(bench.fault_why, "the disk does not open") == 0);
    TURN_UNTIL(&bench, bench.n_up == 1);
    CHECK(bench.n_faults == 1); /* once, though it did not open three times */
    bench_finish(&bench);
}

static void store_is_up_only_when_all_is_durable(void)
{
    struct bench bench;
    bench_init(&bench);
    disk_fail(&bench.disk, 1, 0);
    put(&bench, 1, true);
    TURN_UNTIL(&bench, bench.n_down == 1);
    disk_hold(&bench.disk, 2);
    put(&bench, 2, true);
    TURN_UNTIL(&bench, bench.durable == 1);
    CHECK(bench.n_up == 0);
    disk_hold(&bench.disk, UINT64_MAX);
    TURN_UNTIL(&bench, bench.n_up == 1);
    CHECK(bench.durable == 2);
    bench_finish(&bench);
}

/* disk_reopen() of the test asserts it. */
static void disk_is_not_reopened_under_a_load(void)
{
    struct bench bench;
    bench_init(&bench);
    bench.disk.is_slow = true;
    put(&bench, 1, true);
    TURN_UNTIL(&bench, bench.durable == 1);
    load(&bench, 1);
    disk_fail(&bench.disk, 1, 0);
    put(&bench, 2, true);
    TURN_UNTIL(&bench, bench.n_up == 1 && bench.n_loaded == 1);
    CHECK(bench.disk.n_reopens == 1);
    bench_finish(&bench);
}

static void random_failures_lose_nothing(void)
{
    struct bench bench;
    bench_init(&bench);
    unsigned seed = 42;
    size_t loads = 0;
    for (unsigned round = 0; round < 200; round++) {
        for (int n = rand_r(&seed) % 8; n >= 0; n--) {
            put(&bench, (uint8_t)(rand_r(&seed) % KEYS), rand_r(&seed) % 4 != 0);
        }
        uint8_t key = (uint8_t)(rand_r(&seed) % KEYS);
        if (bench.expected[key] != 0) {
            load(&bench, key);
            loads++;
        }
        if (round % 40 == 20) {
            disk_fail(&bench.disk, 1, round % 80 == 20);
        }
        CHECK(loop_turn(bench.loop, 1) == 0);
    }
    TURN_UNTIL(&bench, bench.durable == bench.handed && bench.n_loaded == loads &&
                           bench.n_up == bench.n_down);
    CHECK(bench.n_down > 0);
    check_disk(&bench);
    bench_finish(&bench);
}

static void closing_writes_what_is_pending(void)
{
    struct bench bench;
    bench_init(&bench);
    for (uint8_t i = 0; i < 20; i++) {
        put(&bench, i, false);
    }
    bench_close_store(&bench);
    check_disk(&bench);
    bench_finish(&bench);
}

static void closing_while_down_does_not_wait_for_the_disk(void)
{
    struct bench bench;
    bench_init(&bench);
    disk_fail(&bench.disk, 1000000, 1000000);
    put(&bench, 1, true);
    TURN_UNTIL(&bench, bench.n_down == 1);
    load(&bench, 1);
    bench_close_store(&bench);
    CHECK(bench.disk.history_length == 0);
    bench_finish(&bench);
}

int main(void)
{
    batches_that_gather_are_one_write();
    failed_write_is_repeated_in_order();
    another_reason_to_stay_down_is_said();
    store_is_up_only_when_all_is_durable();
    disk_is_not_reopened_under_a_load();
    random_failures_lose_nothing();
    closing_writes_what_is_pending();
    closing_while_down_does_not_wait_for_the_disk();
    return 0;
}
