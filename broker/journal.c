#include "broker/journal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/broker.h"
#include "broker/delivery.h"
#include "broker/held.h"
#include "broker/inquiry.h"
#include "broker/store/store.h"
#include "broker/telemetry.h"
#include "common/config.h"
#include "common/log.h"

/* ---- what the store answers ---- */

static void on_durable(void *context, uint64_t batch)
{
    struct broker *broker = context;
    broker->durable = batch;
    broker_step(broker, &(struct event){.kind = EVENT_DURABLE, .as.durable = {.batch = batch}});
    delivery_release(broker, batch);
    struct store_stats stats;
    store_read_stats(broker->store, &stats);
    telemetry_committed(broker->telemetry, &stats);
}

static void on_down(void *context, uint64_t first_batch, const char *why)
{
    struct broker *broker = context;
    broker->is_store_down = true;
    held_forget_accepts(broker->held, first_batch);
    const struct event event = {
        .kind = EVENT_STORE_DOWN,
        .as.store_down = {.first_batch = first_batch, .why = why},
    };
    broker_step(broker, &event);
}

static void on_up(void *context)
{
    struct broker *broker = context;
    broker->is_store_down = false;
    broker_step(broker, &(struct event){.kind = EVENT_STORE_UP});
}

static void on_fault(void *context, const char *why)
{
    const struct broker *broker = context;
    log_at(broker->log, LOG_ERROR, "store fault", log_text("reason", why));
}

static void on_loaded(void *context, uint64_t token, int result, struct blob *value)
{
    if (inquiry_is_token(token)) {
        inquiries_loaded(context, token, result, value);
        return;
    }
    const struct event event = {
        .kind = EVENT_LOADED,
        .as.loaded = {.token = token, .result = result, .value = value},
    };
    broker_step(context, &event);
}

/* ---- opening ---- */

struct restoring {
    struct broker *broker;
    enum store_family family;
    uint64_t records, damaged;
};

/* The key has the job's id in it: proto/records.proto. */
static void log_damaged(const struct restoring *restoring, const void *key, size_t key_bytes)
{
    enum { DAMAGED_NAMED_MAX = 100 };
    static const char *const families[STORE_FAMILIES] = {
        [STORE_META] = "meta",
        [STORE_CONCLUDED] = "concluded",
        [STORE_JOBS] = "jobs",
        [STORE_LEASES] = "leases",
    };
    char text[2 * STORE_KEY_BYTES_MAX + 1] = "";
    for (size_t i = 0; i < key_bytes && i < STORE_KEY_BYTES_MAX; i++) {
        snprintf(text + 2 * i, 3, "%02x", ((const uint8_t *)key)[i]);
    }
    if (restoring->damaged < DAMAGED_NAMED_MAX) {
        log_at(restoring->broker->log, LOG_ERROR, "a damaged record was skipped",
               log_text("family", families[restoring->family]), log_text("key", text));
    }
}

static int restore_record(void *context, const void *key, size_t key_bytes, const void *value,
                          size_t value_bytes)
{
    struct restoring *restoring = context;
    const int r = core_restore(restoring->broker->core, restoring->family, key, key_bytes, value,
                               value_bytes, broker_time(restoring->broker));
    if (r == -EBADMSG) {
        log_damaged(restoring, key, key_bytes);
        restoring->damaged++;
        return 0;
    }
    restoring->records++;
    return r;
}

static int restore(struct broker *broker, char *ret_why)
{
    static const enum store_family families[] = {STORE_META, STORE_CONCLUDED, STORE_JOBS,
                                                 STORE_LEASES};
    struct restoring restoring = {.broker = broker};
    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        restoring.family = families[i];
        const int r = store_scan(broker->store, families[i], restore_record, &restoring, ret_why);
        if (r < 0) {
            return r;
        }
    }
    core_restored(broker->core, broker_time(broker));
    if (restoring.damaged > 0) {
        log_at(broker->log, LOG_ERROR, "damaged records were skipped",
               log_int("records", restoring.damaged));
    }
    log_at(broker->log, LOG_INFO, "recovered", log_int("records", restoring.records));
    return 0;
}

static const char *or_nothing(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

static enum exit_code salvage(struct broker *broker)
{
    char why[STORE_WHY_BYTES] = "";
    struct store_salvage report;
    const int r = store_salvage(&broker->config->broker, &report, why);
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "nothing could be salvaged", log_text("reason", why),
               log_text("data_dir", broker->config->broker.data_dir),
               log_text("error", strerror(-r)));
        return EXIT_STORE;
    }
    broker->salvage_lost = report.changes + report.ranges;
    log_at(broker->log, broker->salvage_lost > 0 ? LOG_ERROR : LOG_INFO, "salvaged",
           log_int("records", report.records), log_int("batches_replayed", report.replayed),
           log_int("changes_lost", report.changes), log_int("ranges_unreadable", report.ranges),
           log_text("log", or_nothing(report.first_change)),
           log_text("table", or_nothing(report.first_range)),
           log_text("damaged_database", report.aside));
    return EXIT_OK;
}

enum exit_code journal_open(struct broker *broker)
{
    const struct store_callbacks callbacks = {
        .on_durable = on_durable,
        .on_down = on_down,
        .on_up = on_up,
        .on_fault = on_fault,
        .on_loaded = on_loaded,
        .context = broker,
    };
    char why[STORE_WHY_BYTES] = "";
    if (broker->salvages && broker->config->broker.store == STORE_ROCKSDB) {
        const enum exit_code code = salvage(broker);
        if (code != EXIT_OK) {
            return code;
        }
    }
    int r = store_open(&broker->config->broker, broker->loop, &callbacks, &broker->store, why);
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "the store cannot be opened", log_text("reason", why),
               log_text("data_dir", broker->config->broker.data_dir),
               log_text("error", strerror(-r)));
        return EXIT_STORE;
    }
    r = restore(broker, why);
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "the store cannot be read", log_text("reason", why),
               log_text("error", strerror(-r)),
               log_text("data_dir", broker->config->broker.data_dir));
        return EXIT_STORE;
    }
    return EXIT_OK;
}

/* ---- a turn's records ---- */

static int add_record(struct store_batch *batch, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_PUT:
        return effect->as.put.blob == NULL
                   ? store_batch_put(batch, effect->as.put.family, effect->as.put.key,
                                     effect->as.put.key_bytes, effect->as.put.value,
                                     effect->as.put.value_bytes)
                   : store_batch_put_blob(batch, effect->as.put.family, effect->as.put.key,
                                          effect->as.put.key_bytes, effect->as.put.value,
                                          effect->as.put.value_bytes, effect->as.put.blob);
    case EFFECT_DELETE:
        return store_batch_delete(batch, effect->as.put.family, effect->as.put.key,
                                  effect->as.put.key_bytes);
    case EFFECT_DELETE_RANGE:
        return store_batch_delete_range(batch, effect->as.range.family, effect->as.range.from,
                                        effect->as.range.from_bytes, effect->as.range.to,
                                        effect->as.range.to_bytes);
    case EFFECT_CLIENT_WELCOME:
    case EFFECT_CLIENT_ERROR:
    case EFFECT_ACCEPTED:
    case EFFECT_REJECTED:
    case EFFECT_RESULT:
    case EFFECT_STATUS:
    case EFFECT_CHUNK:
    case EFFECT_WORKER_WELCOME:
    case EFFECT_WORKER_ERROR:
    case EFFECT_DISPATCH:
    case EFFECT_HEDGE:
    case EFFECT_STREAM_ALLOWANCE:
    case EFFECT_ATTEMPT_CONCLUDED:
    case EFFECT_ATTEMPT_CANCEL:
    case EFFECT_WORKER_DRAIN:
    case EFFECT_CACHE_INVALIDATE:
    case EFFECT_CACHE_EVIDENCE:
    case EFFECT_CACHE_INVALIDATED:
    case EFFECT_FEEDBACK_TAKEN:
    case EFFECT_LOAD:
    case EFFECT_PUBLISH:
    case EFFECT_NOTE:
        return 0;
    }
    return 0;
}

/*
 * The core has moved on already, and what was acknowledged is on disk: the way back is a restart.
 */
static _Noreturn void give_up(struct broker *broker)
{
    log_at(broker->log, LOG_ERROR,
           "out of memory while records were written; the process ends to recover from disk");
    abort();
}

static void commit_records(struct broker *broker)
{
    CLEANUP(store_batch_destroy) struct store_batch *batch = NULL;
    int r = store_batch_create(broker->store, &batch);
    for (size_t i = 0; r == 0 && i < effects_length(broker->effects); i++) {
        r = add_record(batch, effects_at(broker->effects, i));
    }
    if (r < 0) {
        give_up(broker);
    }
    store_commit(broker->store, &batch, broker->batch++, effects_are_urgent(broker->effects));
}

static void ask(struct broker *broker, const struct effect *effect)
{
    const int r = store_load(broker->store, effect->as.load.family, effect->as.load.key,
                             effect->as.load.key_bytes, effect->as.load.token);
    if (r < 0) {
        const struct event event = {
            .kind = EVENT_LOADED,
            .as.loaded = {.token = effect->as.load.token, .result = r},
        };
        broker_step_later(broker, &event);
    }
}

void journal_commit(struct broker *broker)
{
    if (effects_have_records(broker->effects)) {
        commit_records(broker);
    }
    for (size_t i = 0; i < effects_length(broker->effects); i++) {
        const struct effect *effect = effects_at(broker->effects, i);
        if (effect->kind == EFFECT_LOAD) {
            ask(broker, effect);
        }
    }
}
