#include "tests/unit/broker/store_fixture.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/loop.h"
#include "tests/unit/remove_tree.h"

enum { WAIT_MS = 30000 };

static void on_durable(void *context, uint64_t batch)
{
    struct store_fixture *fixture = context;
    fixture->is_out_of_order |= batch <= fixture->durable || batch >= fixture->next_batch;
    fixture->durable = batch;
}

static void on_down(void *context, uint64_t first_batch, const char *why)
{
    struct store_fixture *fixture = context;
    fixture->is_out_of_order |= fixture->n_down != fixture->n_up;
    fixture->n_down++;
    fixture->down_first = first_batch;
    snprintf(fixture->down_why, sizeof(fixture->down_why), "%s", why);
}

static void on_up(void *context)
{
    struct store_fixture *fixture = context;
    fixture->n_up++;
    fixture->is_out_of_order |= fixture->n_down != fixture->n_up;
}

static void on_fault(void *context, const char *why)
{
    struct store_fixture *fixture = context;
    fixture->n_faults++;
    snprintf(fixture->fault_why, sizeof(fixture->fault_why), "%s", why);
}

static void on_loaded(void *context, uint64_t token, int result, struct blob *value)
{
    struct store_fixture *fixture = context;
    if (fixture->n_loaded == FIXTURE_LOADED_MAX) {
        abort();
    }
    fixture->loaded[fixture->n_loaded++] = (struct loaded){
        .token = token, .result = result, .value = value == NULL ? NULL : blob_ref(value)};
}

static void forget_loaded(struct store_fixture *fixture)
{
    for (size_t i = 0; i < fixture->n_loaded; i++) {
        blob_unref(&fixture->loaded[i].value);
    }
    fixture->n_loaded = 0;
}

static void turn(void *context)
{
    struct store_fixture *fixture = context;
    if (fixture->store != NULL) {
        store_poll(fixture->store);
    }
}

void fixture_init(struct store_fixture *fixture, enum config_store kind)
{
    *fixture = (struct store_fixture){.next_batch = 1};
    snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/tiermq-store-XXXXXX");
    if (mkdtemp(fixture->directory) == NULL || loop_create(&fixture->loop) < 0 ||
        loop_add_turn_handler(fixture->loop, turn, fixture) < 0) {
        abort();
    }
    fixture->config = (struct config_broker){
        .store = kind,
        .rocksdb_write_buffer_bytes = 1 << 20,
        .rocksdb_block_cache_bytes = 1 << 20,
    };
}

void fixture_finish(struct store_fixture *fixture)
{
    fixture_close(fixture);
    forget_loaded(fixture);
    loop_destroy(&fixture->loop);
    remove_tree(fixture->directory);
}

int fixture_open(struct store_fixture *fixture)
{
    if (fixture->config.data_dir == NULL) {
        fixture->config.data_dir = fixture->directory;
    }
    struct store_callbacks callbacks = {
        .on_durable = on_durable,
        .on_down = on_down,
        .on_up = on_up,
        .on_fault = on_fault,
        .on_loaded = on_loaded,
        .context = fixture,
    };
    return store_open(&fixture->config, fixture->loop, &callbacks, &fixture->store, fixture->why);
}

void fixture_close(struct store_fixture *fixture)
{
    store_close(&fixture->store);
}

struct store_batch *fixture_batch(struct store_fixture *fixture)
{
    struct store_batch *batch = NULL;
    if (store_batch_create(fixture->store, &batch) < 0) {
        abort();
    }
    return batch;
}

uint64_t fixture_commit(struct store_fixture *fixture, struct store_batch **batch)
{
    uint64_t number = fixture->next_batch++;
    store_commit(fixture->store, batch, number, true);
    return number;
}

uint64_t fixture_put(struct store_fixture *fixture, enum store_family family, const char *key,
                     const char *value)
{
    struct store_batch *batch = fixture_batch(fixture);
    if (store_batch_put(batch, family, key, strlen(key), value, strlen(value)) < 0) {
        abort();
    }
    return fixture_commit(fixture, &batch);
}

uint64_t fixture_delete(struct store_fixture *fixture, enum store_family family, const char *key)
{
    struct store_batch *batch = fixture_batch(fixture);
    if (store_batch_delete(batch, family, key, strlen(key)) < 0) {
        abort();
    }
    return fixture_commit(fixture, &batch);
}

void fixture_load(struct store_fixture *fixture, enum store_family family, const char *key,
                  uint64_t token)
{
    if (store_load(fixture->store, family, key, strlen(key), token) < 0) {
        abort();
    }
}

enum awaited { AWAIT_DURABLE, AWAIT_LOADED, AWAIT_DOWN, AWAIT_UP };

static uint64_t reached(const struct store_fixture *fixture, enum awaited what)
{
    switch (what) {
    case AWAIT_DURABLE:
        return fixture->durable;
    case AWAIT_LOADED:
        return fixture->n_loaded;
    case AWAIT_DOWN:
        return fixture->n_down;
    case AWAIT_UP:
        return fixture->n_up;
    }
    abort();
}

static void wait_for(struct store_fixture *fixture, enum awaited what, uint64_t value)
{
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    while (reached(fixture, what) < value) {
        if (clock_monotonic_ms() > end_ms || loop_turn(fixture->loop, 1000) < 0) {
            fprintf(stderr, "waited in vain for %d to reach %llu\n", (int)what,
                    (unsigned long long)value);
            abort();
        }
    }
}

void fixture_wait_durable(struct store_fixture *fixture, uint64_t batch)
{
    wait_for(fixture, AWAIT_DURABLE, batch);
}

void fixture_wait_loaded(struct store_fixture *fixture, size_t n)
{
    wait_for(fixture, AWAIT_LOADED, n);
}

void fixture_wait_down(struct store_fixture *fixture, unsigned n)
{
    wait_for(fixture, AWAIT_DOWN, n);
}

void fixture_wait_up(struct store_fixture *fixture, unsigned n)
{
    wait_for(fixture, AWAIT_UP, n);
}

bool fixture_has(struct store_fixture *fixture, enum store_family family, const char *key,
                 const char *value)
{
    forget_loaded(fixture);
    fixture_load(fixture, family, key, 4711);
    fixture_wait_loaded(fixture, 1);
    const struct loaded *loaded = &fixture->loaded[0];
    if (value == NULL) {
        return loaded->result == -ENOENT;
    }
    return loaded->token == 4711 && loaded->result == 0 &&
           blob_bytes(loaded->value) == strlen(value) &&
           memcmp(blob_data(loaded->value), value, strlen(value)) == 0;
}

static int print_record(void *context, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    fprintf(context, "%.*s=%.*s ", (int)key_bytes, (const char *)key, (int)value_bytes,
            (const char *)value);
    return 0;
}

void fixture_scan(struct store_fixture *fixture, enum store_family family, char *ret_text,
                  size_t bytes)
{
    FILE *text = fmemopen(ret_text, bytes, "w");
    if (text == NULL || store_scan(fixture->store, family, print_record, text, fixture->why) < 0) {
        abort();
    }
    fclose(text);
}
