#include "tests/unit/broker/core_world.h"
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *const NAMES[] = {"a", "b", "c", "d"};

const struct config_breaker world_breaker = {.failures = 5,
                                             .failure_share_permille = 500,
                                             .calls_min = 20,
                                             .window_ms = 10000,
                                             .slow_share_permille = 800,
                                             .open_first_ms = 1000,
                                             .open_max_ms = 10000,
                                             .slow_start_per_s = 20};

void world_init(struct world *world)
{
    *world = (struct world){
        .seed = 1, .now = {.now_ms = 1000, .unix_ms = INT64_C(1700000000000)}, .batch = 1};
    static char *const tiers[] = {"realtime", "standard", "background"};
    static const uint32_t weights[] = {60, 30, 10};
    static char *const models[] = {"m0", "m1", "m2"};
    for (size_t i = 0; i < WORLD_TIERS; i++) {
        world->tiers[i] =
            (struct config_tier){.name = tiers[i],
                                 .weight = weights[i],
                                 .durability = i == 0 ? DURABILITY_NONE : DURABILITY_FSYNC,
                                 .pool = "default",
                                 .deadline_ms = 600000,
                                 .attempts_max = 3,
                                 .backoff_first_ms = 1000,
                                 .backoff_max_ms = 60000,
                                 .jobs_max = 1000000,
                                 .bytes_max = 1 << 30};
        world->models[i] = (struct config_model){.name = models[i]};
    }
    for (size_t i = 0; i < 4; i++) {
        world->tenants[i] = (struct config_tenant){
            .name = NAMES[i], .weight = 1, .jobs_max = 1000000, .bytes_max = 1 << 30};
    }
    world->pools[0] = "default";
    world->pools[1] = "gpu";
    world->config =
        (struct config){.tiers = world->tiers,
                        .tiers_length = WORLD_TIERS,
                        .pools = world->pools,
                        .pools_length = 2,
                        .tenants = world->tenants,
                        .tenants_length = 4,
                        .models = world->models,
                        .models_length = 3,
                        .broker = {.payload_bytes_max = 1 << 20,
                                   .memory_payload_bytes_max = 1 << 26,
                                   .lease_ms = 15000,
                                   .heartbeat_ms = 3000,
                                   .reclaim_ms = 2000,
                                   .result_ttl_ms = 3600000,
                                   .results_bytes_max = 1 << 30,
                                   .results_memory_bytes_max = 1 << 26,
                                   .dedup_window_ms = 3600000,
                                   .dedup_ids_max = 100000,
                                   .dead_letters_max = 1000,
                                   .clients_max = 1000,
                                   .workers_max = 100,
                                   .losses_max = 5},
                        .breaker = world_breaker,
                        .retries = {.share_permille = 100, .least_per_min = 60, .burst = 20}};
    cr_assert_eq(effects_create(&world->effects), 0);
    effects_reset(world->effects, world->batch);
}

void world_two_providers(struct world *world)
{
    static char *failover[] = {"p1"};
    world->providers[0] = (struct config_provider){.name = "p0"};
    world->providers[1] = (struct config_provider){.name = "p1"};
    world->models[0] = (struct config_model){
        .name = "m0", .provider = "p0", .failover = failover, .failover_length = 1, .quality = 50};
    world->config.providers = world->providers;
    world->config.providers_length = 2;
}

void world_budget(struct world *world, uint64_t daily_nanousd, uint32_t soft_permille)
{
    world->budgets[0] = (struct config_budget){.name = "b",
                                               .tenant = "a",
                                               .tier = "",
                                               .daily_nanousd = daily_nanousd,
                                               .monthly_nanousd = UINT64_MAX,
                                               .soft_permille = soft_permille};
    world->config.budgets = world->budgets;
    world->config.budgets_length = 1;
}

static void take_purse(void *context, const struct core_budget_view *view)
{
    *(struct core_budget_view *)context = *view;
}

struct core_budget_view world_purse(const struct world *world)
{
    struct core_budget_view view = {0};
    core_visit_budgets(world->core, take_purse, &view);
    return view;
}

void world_start(struct world *world)
{
    cr_assert_eq(core_create(&world->config, world->seed, world->now, &world->core), 0);
}

static void free_record(struct world *world, size_t index)
{
    free(world->records[index].value);
    world->records[index] = world->records[--world->records_length];
    world->records_hashes[index] = world->records_hashes[world->records_length];
}

static void release(struct effect *effect)
{
    if (effect->kind == EFFECT_RESULT) {
        blob_unref(&effect->as.result.payload);
    } else if (effect->kind == EFFECT_CACHE_EVIDENCE) {
        blob_unref(&effect->as.cache_evidence.packed);
    }
}

void world_forget_log(struct world *world)
{
    for (size_t i = 0; i < world->log_length; i++) {
        release(&world->log[i].effect);
    }
    world->log_length = 0;
}

static void forget_held(struct world *world)
{
    for (size_t i = 0; i < world->held_length; i++) {
        release(&world->held[i].effect);
    }
    world->held_length = 0;
}

void world_finish(struct world *world)
{
    core_destroy(&world->core);
    effects_destroy(&world->effects);
    world_forget_log(world);
    forget_held(world);
    while (world->records_length > 0) {
        free_record(world, 0);
    }
    free(world->log);
    free(world->held);
    free(world->records);
    free(world->records_hashes);
}

/* ---- store ---- */

static int compare_keys(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* FNV-1a. */
static uint64_t hash_key(enum store_family family, const uint8_t *key, size_t key_bytes)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ (uint64_t)family;
    for (size_t i = 0; i < key_bytes; i++) {
        hash = (hash ^ key[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t hash_of(const struct world_record *record)
{
    return hash_key(record->family, record->key, record->key_bytes);
}

static struct world_record *find_record(const struct world *world, enum store_family family,
                                        const void *key, size_t key_bytes)
{
    const uint64_t hash = hash_key(family, key, key_bytes);
    for (size_t i = 0; i < world->records_length; i++) {
        struct world_record *record = &world->records[i];
        if (world->records_hashes[i] == hash && record->family == family &&
            compare_keys(record->key, record->key_bytes, key, key_bytes) == 0) {
            return record;
        }
    }
    return NULL;
}

/*
 * Room for one item more. Lists double at powers of two: a sanitizer copies a list at each realloc,
 * and tests of thousands of effects copied for minutes.
 */
static void *with_room(void *list, size_t length, size_t item_bytes)
{
    if ((length & (length - 1)) != 0) {
        return list;
    }
    void *larger = realloc(list, (length == 0 ? 1 : 2 * length) * item_bytes);
    cr_assert_not_null(larger);
    return larger;
}

static void put(struct world *world, const struct effect *effect)
{
    struct world_record *record =
        find_record(world, effect->as.put.family, effect->as.put.key, effect->as.put.key_bytes);
    if (record == NULL) {
        world->records = with_room(world->records, world->records_length, sizeof(*world->records));
        world->records_hashes =
            with_room(world->records_hashes, world->records_length, sizeof(*world->records_hashes));
        record = &world->records[world->records_length];
        *record = (struct world_record){.family = effect->as.put.family,
                                        .key_bytes = effect->as.put.key_bytes};
        memcpy(record->key, effect->as.put.key, record->key_bytes);
        world->records_hashes[world->records_length++] = hash_of(record);
    }
    const size_t blob = effect->as.put.blob == NULL ? 0 : blob_bytes(effect->as.put.blob);
    free(record->value);
    record->value_bytes = effect->as.put.value_bytes + blob;
    record->value = malloc(record->value_bytes + 1);
    if (effect->as.put.value_bytes > 0) {
        memcpy(record->value, effect->as.put.value, effect->as.put.value_bytes);
    }
    if (blob > 0) {
        memcpy(record->value + effect->as.put.value_bytes, blob_data(effect->as.put.blob), blob);
    }
}

static void delete (struct world *world, const struct effect *effect)
{
    const struct world_record *record =
        find_record(world, effect->as.put.family, effect->as.put.key, effect->as.put.key_bytes);
    if (record != NULL) {
        free_record(world, (size_t)(record - world->records));
    }
}

static void delete_range(struct world *world, const struct effect *effect)
{
    for (size_t i = world->records_length; i-- > 0;) {
        const struct world_record *record = &world->records[i];
        if (record->family == effect->as.range.family &&
            compare_keys(record->key, record->key_bytes, effect->as.range.from,
                         effect->as.range.from_bytes) >= 0 &&
            compare_keys(record->key, record->key_bytes, effect->as.range.to,
                         effect->as.range.to_bytes) < 0) {
            free_record(world, i);
        }
    }
}

/* ---- log ---- */

static void copy_text(char *to, size_t bytes, const char *text)
{
    snprintf(to, bytes, "%s", text == NULL ? "" : text);
}

static void append(struct world_effect **list, size_t *length, const struct effect *effect)
{
    *list = with_room(*list, *length, sizeof(**list));
    struct world_effect *entry = &(*list)[(*length)++];
    *entry = (struct world_effect){.effect = *effect};
    if (effect->kind == EFFECT_RESULT) {
        struct effect_result *result = &entry->effect.as.result;
        if (result->usage != NULL) {
            entry->cost_nanousd = result->usage->cost_nanousd;
            entry->saved_nanousd = result->usage->saved_nanousd;
            entry->hedge_cost_nanousd = result->usage->hedge_cost_nanousd;
            entry->saved_batching_nanousd = result->usage->saved_batching_nanousd;
            entry->saved_prompt_cache_nanousd = result->usage->saved_prompt_cache_nanousd;
            entry->saved_routing_nanousd = result->usage->saved_routing_nanousd;
        }
        if (result->packed != NULL) {
            Wire__Result *packed = wire__result__unpack(NULL, result->packed_bytes, result->packed);
            cr_assert_not_null(packed);
            result->state = packed->state;
            result->attempts = packed->attempts;
            result->has_leader = packed->led_by.len == ID_BYTES;
            if (result->has_leader) {
                memcpy(result->led_by.bytes, packed->led_by.data, ID_BYTES);
            }
            copy_text(entry->code, sizeof(entry->code), packed->error_code);
            wire__result__free_unpacked(packed, NULL);
        } else {
            copy_text(entry->code, sizeof(entry->code), result->error_code);
            copy_text(entry->text, sizeof(entry->text), result->error_text);
        }
        if (result->payload != NULL) {
            blob_ref(result->payload);
        }
    } else if (effect->kind == EFFECT_CACHE_EVIDENCE) {
        blob_ref(effect->as.cache_evidence.packed);
    } else if (effect->kind == EFFECT_STATUS) {
        copy_text(entry->text, sizeof(entry->text), effect->as.status.why);
    } else if (effect->kind == EFFECT_CHUNK && effect->as.chunk.data != NULL) {
        snprintf(entry->text, sizeof(entry->text), "%.*s", (int)blob_bytes(effect->as.chunk.data),
                 (const char *)blob_data(effect->as.chunk.data));
    } else if (effect->kind == EFFECT_REJECTED) {
        copy_text(entry->text, sizeof(entry->text), effect->as.rejected.text);
    } else if (effect->kind == EFFECT_NOTE) {
        copy_text(entry->text, sizeof(entry->text), effect->as.note.text);
    } else if (effect->kind == EFFECT_ATTEMPT_CANCEL) {
        copy_text(entry->text, sizeof(entry->text), effect->as.attempt.reason);
    } else if (effect->kind == EFFECT_CLIENT_ERROR || effect->kind == EFFECT_WORKER_ERROR) {
        copy_text(entry->text, sizeof(entry->text), effect->as.error.text);
    } else if (effect->kind == EFFECT_CACHE_INVALIDATED) {
        copy_text(entry->text, sizeof(entry->text), effect->as.cache_invalidated.error);
    } else if (effect->kind == EFFECT_FEEDBACK_TAKEN) {
        copy_text(entry->text, sizeof(entry->text), effect->as.feedback_taken.error);
    }
}

static const struct id *job_of(const struct effect *effect)
{
    switch ((int)effect->kind) {
    case EFFECT_ACCEPTED:
        return &effect->as.accepted.job_id;
    case EFFECT_REJECTED:
        return &effect->as.rejected.job_id;
    case EFFECT_RESULT:
        return &effect->as.result.job_id;
    case EFFECT_STATUS:
        return &effect->as.status.job_id;
    case EFFECT_FEEDBACK_TAKEN:
        return &effect->as.feedback_taken.job_id;
    case EFFECT_CHUNK:
        return &effect->as.chunk.header.job_id;
    case EFFECT_DISPATCH:
        return &effect->as.dispatch.lease.job_id;
    case EFFECT_HEDGE:
        return &effect->as.hedge.lease.job_id;
    case EFFECT_ATTEMPT_CONCLUDED:
    case EFFECT_ATTEMPT_CANCEL:
        return &effect->as.attempt.lease.job_id;
    case EFFECT_NOTE:
        return &effect->as.note.job_id;
    default:
        return NULL;
    }
}

static bool matches(const struct effect *effect, enum effect_kind kind, const struct id *job_id,
                    uint64_t peer)
{
    const struct id *job = job_of(effect);
    return effect->kind == kind && (peer == 0 || effect->peer == peer) &&
           (job_id == NULL || (job != NULL && id_equal(job, job_id)));
}

const struct world_effect *world_find(const struct world *world, enum effect_kind kind,
                                      const struct id *job_id, uint64_t peer)
{
    for (size_t i = world->log_length; i-- > 0;) {
        if (matches(&world->log[i].effect, kind, job_id, peer)) {
            return &world->log[i];
        }
    }
    return NULL;
}

size_t world_count(const struct world *world, enum effect_kind kind, const struct id *job_id)
{
    size_t n = 0;
    for (size_t i = 0; i < world->log_length; i++) {
        n += matches(&world->log[i].effect, kind, job_id, 0);
    }
    return n;
}

struct lease_ref world_lease(const struct world *world, const struct id *job_id)
{
    const struct world_effect *found = world_find(world, EFFECT_DISPATCH, job_id, 0);
    cr_assert_not_null(found, "the job was not dispatched");
    return found->effect.as.dispatch.lease;
}

/* ---- turns ---- */

struct pending_load {
    uint64_t token;
    struct world_record *record;
};

static void step(struct world *world, const struct event *event)
{
    core_step(world->core, world->now, event, world->effects);
}

static void let_go(struct world *world)
{
    for (size_t i = 0; i < world->held_length; i++) {
        world->log = with_room(world->log, world->log_length, sizeof(*world->log));
        world->log[world->log_length++] = world->held[i];
    }
    world->held_length = 0;
}

static void load(struct world *world, const struct effect *effect)
{
    const struct world_record *record =
        find_record(world, effect->as.load.family, effect->as.load.key, effect->as.load.key_bytes);
    struct event event = {
        .kind = EVENT_LOADED,
        .as.loaded = {.token = effect->as.load.token, .result = record == NULL ? -ENOENT : 0}};
    if (record != NULL) {
        cr_assert_eq(blob_create(record->value, record->value_bytes, &event.as.loaded.value), 0);
    }
    world_turn(world, &event);
    blob_unref(&event.as.loaded.value);
}

/* Effects are copied first: carrying them out takes more turns. */
static void carry_out(struct world *world)
{
    const bool has_records = effects_have_records(world->effects);
    struct effect *loads = NULL;
    size_t loads_length = 0;
    for (size_t i = 0; i < effects_length(world->effects); i++) {
        const struct effect *effect = effects_at(world->effects, i);
        cr_assert(effect->batch <= world->batch);
        if (effect->kind == EFFECT_PUT) {
            put(world, effect);
        } else if (effect->kind == EFFECT_DELETE) {
            delete (world, effect);
        } else if (effect->kind == EFFECT_DELETE_RANGE) {
            delete_range(world, effect);
        } else if (effect->kind == EFFECT_LOAD) {
            loads = with_room(loads, loads_length, sizeof(*loads));
            world->loads_asked++;
            loads[loads_length++] = *effect;
        } else if (effect->batch > 0 && (world->withholds_durability || has_records)) {
            append(&world->held, &world->held_length, effect);
        } else {
            append(&world->log, &world->log_length, effect);
        }
    }
    world->batch += has_records;
    effects_reset(world->effects, world->batch);
    if (has_records && !world->withholds_durability) {
        world_make_durable(world);
    }
    for (size_t i = 0; i < loads_length && !world->withholds_loads; i++) {
        load(world, &loads[i]);
    }
    free(loads);
}

void world_turn(struct world *world, const struct event *event)
{
    step(world, event);
    if (event->kind != EVENT_TICK) {
        step(world, &(struct event){.kind = EVENT_TICK});
    }
    carry_out(world);
}

void world_tick(struct world *world)
{
    world_turn(world, &(struct event){.kind = EVENT_TICK});
}

void world_make_durable(struct world *world)
{
    let_go(world);
    world_turn(world, &(struct event){.kind = EVENT_DURABLE, .as.durable.batch = world->batch - 1});
}

void world_advance(struct world *world, int64_t ms)
{
    const int64_t end_ms = world->now.now_ms + ms;
    int64_t at_ms;
    while ((at_ms = core_next_deadline_ms(world->core)) <= end_ms) {
        const int64_t step_ms = at_ms > world->now.now_ms ? at_ms - world->now.now_ms : 0;
        world->now.now_ms += step_ms;
        world->now.unix_ms += step_ms;
        world_tick(world);
    }
    world->now.unix_ms += end_ms - world->now.now_ms;
    world->now.now_ms = end_ms;
    world_tick(world);
}

static int compare_records(const void *a, const void *b)
{
    const struct world_record *x = a;
    const struct world_record *y = b;
    return compare_keys(x->key, x->key_bytes, y->key, y->key_bytes);
}

void world_restart(struct world *world)
{
    static const enum store_family order[] = {STORE_META, STORE_CONCLUDED, STORE_JOBS,
                                              STORE_LEASES};
    core_destroy(&world->core);
    forget_held(world);
    effects_reset(world->effects, world->batch);
    world_start(world);
    if (world->records_length > 0) {
        qsort(world->records, world->records_length, sizeof(*world->records), compare_records);
    }
    for (size_t i = 0; i < world->records_length; i++) {
        world->records_hashes[i] = hash_of(&world->records[i]);
    }
    for (size_t f = 0; f < ARRAY_LENGTH(order); f++) {
        for (size_t i = 0; i < world->records_length; i++) {
            const struct world_record *record = &world->records[i];
            if (record->family == order[f]) {
                world->restore_errors +=
                    core_restore(world->core, record->family, record->key, record->key_bytes,
                                 record->value, record->value_bytes, world->now) < 0;
            }
        }
    }
    core_restored(world->core, world->now);
}

/* ---- peers ---- */

struct id world_id(struct world *world)
{
    struct id id = {{0}};
    const uint64_t time = htobe64((uint64_t)world->now.unix_ms << 16);
    const uint64_t number = htobe64(++world->ids);
    memcpy(id.bytes, &time, 8);
    memcpy(id.bytes + 8, &number, 8);
    return id;
}

void world_client(struct world *world, uint64_t peer, const char *tenant)
{
    world_turn(world, &(struct event){.kind = EVENT_CLIENT_HELLO,
                                      .peer = peer,
                                      .as.client_hello = {tenant, "test"}});
}

void world_go(struct world *world)
{
    world_start(world);
    world_client(world, 1, "a");
    world_worker(world, 100, "w", 1000);
}

struct event world_submission(struct world *world, uint64_t peer, const char *tier)
{
    struct event event = {.kind = EVENT_SUBMIT,
                          .peer = peer,
                          .as.submit = {.job_id = world_id(world),
                                        .tier = tier,
                                        .route = "m0",
                                        .pool = "",
                                        .idempotency_key = "",
                                        .estimated_tokens = 100}};
    cr_assert_eq(blob_create("work", 4, &event.as.submit.payload), 0);
    return event;
}

struct id world_submit_event(struct world *world, struct event *event)
{
    world_turn(world, event);
    blob_unref(&event->as.submit.payload);
    return event->as.submit.job_id;
}

struct id world_submit(struct world *world, uint64_t peer, const char *tier)
{
    struct event event = world_submission(world, peer, tier);
    return world_submit_event(world, &event);
}

struct id world_submit_to(struct world *world, uint64_t peer, const char *tier, const char *route,
                          const char *task)
{
    struct event event = world_submission(world, peer, tier);
    event.as.submit.route = route == NULL ? "m0" : route;
    event.as.submit.task = task;
    return world_submit_event(world, &event);
}

void world_credit(struct world *world, uint64_t peer, uint64_t total)
{
    world_turn(world, &(struct event){.kind = EVENT_WORKER_CREDIT,
                                      .peer = peer,
                                      .as.worker_credit.total = total});
}

void world_worker(struct world *world, uint64_t peer, const char *name, uint32_t slots)
{
    world_turn(world, &(struct event){.kind = EVENT_WORKER_HELLO,
                                      .peer = peer,
                                      .as.worker_hello = {.name = name, .slots = slots}});
    world_credit(world, peer, slots);
}

void world_result(struct world *world, uint64_t peer, const struct lease_ref *lease,
                  Wire__AttemptOutcome outcome, int64_t retry_after_ms)
{
    struct event event = {.kind = EVENT_ATTEMPT_RESULT,
                          .peer = peer,
                          .as.attempt_result = {.lease = *lease,
                                                .outcome = outcome,
                                                .error_code = "",
                                                .error_text = "",
                                                .retry_after_ms = retry_after_ms}};
    if (outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        cr_assert_eq(blob_create("answer", 6, &event.as.attempt_result.payload), 0);
    }
    world_turn(world, &event);
    blob_unref(&event.as.attempt_result.payload);
}

const struct effect_dispatch *world_dispatch(const struct world *world, const struct id *job_id)
{
    const struct world_effect *found = world_find(world, EFFECT_DISPATCH, job_id, 0);
    return found == NULL ? NULL : &found->effect.as.dispatch;
}

void world_says(struct world *world, const struct id *job_id, const struct world_said *said)
{
    const struct effect_dispatch *dispatch = world_dispatch(world, job_id);
    cr_assert_not_null(dispatch);
    Wire__Upstream upstream = WIRE__UPSTREAM__INIT;
    upstream.provider = (char *)(said->provider == NULL ? dispatch->provider : said->provider);
    upstream.model = (char *)dispatch->model;
    Wire__Call call = WIRE__CALL__INIT;
    call.upstream = &upstream;
    call.outcome = said->outcome;
    call.error_code = said->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED ? "" : "status_503";
    call.retry_after_ms = said->retry_after_ms;
    call.call_ms = said->call_ms;
    call.limits = said->limits;
    call.tokens = said->tokens;
    const Wire__Call *const calls[] = {&call, &call};
    const struct event event = {
        .kind = EVENT_ATTEMPT_RESULT,
        .peer = said->peer == 0 ? 100 : said->peer,
        .as.attempt_result = {.lease = dispatch->lease,
                              .outcome = said->outcome,
                              .error_code = said->code == NULL ? "code" : said->code,
                              .error_text = "text",
                              .retry_after_ms = (int64_t)said->retry_after_ms,
                              .calls = calls,
                              .calls_length = said->is_uncalled       ? 0
                                              : said->is_called_twice ? 2
                                                                      : 1},
    };
    world_turn(world, &event);
}

void world_job_event(struct world *world, enum event_kind kind, uint64_t peer,
                     const struct id *job_id)
{
    world_turn(world, &(struct event){.kind = kind, .peer = peer, .as.job.job_id = *job_id});
}

Wire__JobState world_state(const struct world *world, const struct id *job_id)
{
    struct core_job_view view;
    return core_view_job(world->core, job_id, world->now, &view) < 0
               ? WIRE__JOB_STATE__JOB_STATE_UNKNOWN
               : view.state;
}

size_t world_records(const struct world *world, enum store_family family)
{
    size_t n = 0;
    for (size_t i = 0; i < world->records_length; i++) {
        n += world->records[i].family == family;
    }
    return n;
}

struct core_stats world_stats(struct world *world)
{
    struct core_stats stats;
    core_read_stats(world->core, world->now, &stats);
    return stats;
}
