/* Memory runs out: what comes from outside is refused, and the core lives on. */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/record.h"
#include "broker/core/state.h"
#include "tests/unit/broker/core_world.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_reallocarray(void *memory, size_t n, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_reallocarray(void *memory, size_t n, size_t bytes);

static bool is_failing, is_failing_once;
static int allocations_left;

static bool fails(void)
{
    if (!is_failing || allocations_left-- > 0) {
        return false;
    }
    is_failing = !is_failing_once;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    return fails() ? NULL : __real_realloc(memory, bytes);
}

void *__wrap_reallocarray(void *memory, size_t n, size_t bytes)
{
    return fails() ? NULL : __real_reallocarray(memory, n, bytes);
}

static struct world w;

static void start(void)
{
    world_init(&w);
    world_start(&w);
    world_client(&w, 1, "a");
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_memory, .init = start, .fini = stop);

/* One step that has only so many allocations; the test's own work is done with enough. */
static void step_with(int allocations, const struct event *event)
{
    allocations_left = allocations;
    is_failing = true;
    core_step(w.core, w.now, event, w.effects);
    is_failing = false;
    world_tick(&w);
}

Test(core_memory, submission_without_memory_is_refused_with_a_retry_after)
{
    static const char *const tiers[] = {"realtime", "standard"};
    static const char *const routes[] = {"m0", "m1"};
    for (size_t t = 0; t < 2; t++) {
        size_t refused = 0;
        for (int allocations = 0; allocations < 12; allocations++) {
            struct event event = world_submission(&w, 1, tiers[t]);
            event.as.submit.route = routes[t];
            event.as.submit.idempotency_key = tiers[t];
            world_forget_log(&w);
            step_with(allocations, &event);
            blob_unref(&event.as.submit.payload);
            const struct world_effect *rejected =
                world_find(&w, EFFECT_REJECTED, &event.as.submit.job_id, 1);
            const struct world_effect *accepted =
                world_find(&w, EFFECT_ACCEPTED, &event.as.submit.job_id, 1);
            cr_assert((rejected != NULL) != (accepted != NULL), "%d allocations", allocations);
            cr_assert(rejected == NULL || rejected->effect.as.rejected.retry_after_ms > 0);
            refused += rejected != NULL;
        }
        cr_assert_gt(refused, 2);
        cr_assert_eq(world_stats(&w).jobs, t + 1); /* the rest are duplicates by their key */
    }
}

Test(core_memory, hello_without_memory_is_refused)
{
    for (int allocations = 0; allocations < 4; allocations++) {
        const struct event event = {.kind = EVENT_WORKER_HELLO,
                                    .peer = 100 + (uint64_t)allocations,
                                    .as.worker_hello = {.name = "w", .slots = 4}};
        world_forget_log(&w);
        step_with(allocations, &event);
        cr_assert((world_find(&w, EFFECT_WORKER_WELCOME, NULL, 0) != NULL) !=
                  (world_find(&w, EFFECT_WORKER_ERROR, NULL, event.peer) != NULL));
    }
}

static bool reload_with(int allocations)
{
    allocations_left = allocations;
    is_failing = true;
    const int r = core_reconfigure(w.core, &w.config, w.now);
    is_failing = false;
    return r == 0;
}

/* NULL: it is welcome. */
static const struct world_effect *error_of_hello(uint64_t peer, const char *tenant)
{
    world_forget_log(&w);
    world_turn(&w, &(struct event){.kind = EVENT_CLIENT_HELLO,
                                   .peer = peer,
                                   .as.client_hello = {.tenant = tenant, .name = "test"}});
    return world_find(&w, EFFECT_CLIENT_ERROR, NULL, peer);
}

/* On account of the tenant. */
static bool worker_may_submit(const char *tenant)
{
    const uint64_t jobs = world_stats(&w).jobs;
    struct event event = world_submission(&w, 0, "realtime");
    event.as.submit.tenant = tenant;
    event.as.submit.discard_result = true;
    world_submit_event(&w, &event);
    return world_stats(&w).jobs > jobs;
}

Test(core_memory, tenant_of_a_reload_that_failed_is_refused_until_one_is_done)
{
    char names[64][16];
    size_t halves = 0;
    bool is_done = false;
    for (int i = 0; i < 64 && !is_done; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "late%d", i);
        w.tenants[3].name = names[i];
        is_done = reload_with(i);
        const struct world_effect *error = error_of_hello(200 + (uint64_t)i, names[i]);
        cr_assert_eq(error == NULL, is_done, "%d allocations", i);
        halves += error != NULL && strstr(error->text, "reload it") != NULL &&
                  error->effect.as.error.retry_after_ms > 0;
        cr_assert_eq(worker_may_submit(names[i]), is_done, "%d allocations", i);
    }
    cr_assert(is_done);
    cr_assert_gt(halves, 0);
}

Test(core_memory, job_that_finds_no_memory_for_its_lease_waits)
{
    const struct id job = world_submit(&w, 1, "realtime");
    world_worker(&w, 100, "w", 0);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = 100,
                                   .as.worker_hello = {.name = "w", .slots = 1}});
    const struct event credit = {
        .kind = EVENT_WORKER_CREDIT, .peer = 100, .as.worker_credit.total = 1};
    core_step(w.core, w.now, &credit, w.effects);
    allocations_left = 0;
    is_failing = true;
    core_step(w.core, w.now, &(struct event){.kind = EVENT_TICK}, w.effects);
    is_failing = false;
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    world_tick(&w);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_memory, conclusion_without_memory_for_its_result_is_still_answered_once)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "realtime");
    const struct lease_ref lease = world_lease(&w, &job);
    const struct event answered = {
        .kind = EVENT_ATTEMPT_RESULT,
        .peer = 100,
        .as.attempt_result = {.lease = lease,
                              .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                              .error_code = "",
                              .error_text = ""}};
    step_with(0, &answered);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 1);
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_memory, first_conclusion_without_memory_is_stored_all_the_same)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    step_with(
        0, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                           .peer = 100,
                           .as.attempt_result = {.lease = lease,
                                                 .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                                                 .error_code = "",
                                                 .error_text = ""}});
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
    cr_assert_eq(world_records(&w, STORE_CONCLUDED), 1);
    cr_assert_eq(world_records(&w, STORE_RESULTS), 1);
    const struct id later = world_submit(&w, 1, "standard");
    cr_assert_eq(world_count(&w, EFFECT_REJECTED, &later), 0,
                 "its id is taken for a forgotten one");
}

Test(core_memory, death_without_memory_for_its_letter_is_concluded_all_the_same)
{
    static const char *const tiers[] = {"realtime", "standard"};
    world_worker(&w, 100, "w", 100);
    for (size_t t = 0; t < 2; t++) {
        uint64_t letters = world_stats(&w).dead_letters;
        size_t missing = 0;
        for (int allocations = 0; allocations < 10; allocations++) {
            world_advance(&w, 1); /* an id that is forgotten makes those of its time too old */
            const struct id job = world_submit(&w, 1, tiers[t]);
            const struct lease_ref lease = world_lease(&w, &job);
            const struct event rejected = {
                .kind = EVENT_ATTEMPT_RESULT,
                .peer = 100,
                .as.attempt_result = {.lease = lease,
                                      .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED,
                                      .error_code = "x",
                                      .error_text = "y"}};
            step_with(allocations, &rejected);
            cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                         WIRE__JOB_STATE__JOB_STATE_DEAD);
            cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 1);
            missing += world_stats(&w).dead_letters == letters;
            letters = world_stats(&w).dead_letters;
        }
        cr_assert(missing > 0 && missing < 10, "%zu are missing", missing);
        cr_assert_eq(world_stats(&w).tiers[t].dead_evicted, missing);
    }
    cr_assert_eq(world_stats(&w).jobs, 0);
    cr_assert_eq(world_records(&w, STORE_JOBS),
                 world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_DEAD]);
    cr_assert_eq(world_records(&w, STORE_PAYLOADS), world_records(&w, STORE_JOBS));
}

Test(core_memory, sweep_without_memory_does_not_begin)
{
    step_with(0,
              &(struct event){.kind = EVENT_DEAD_SWEEP,
                              .as.dead_sweep = {.action = DEAD_REQUEUE, .filter = {.tier = "t"}}});
    cr_assert_eq(core_latest_sweep(w.core), 0);
}

Test(core_memory, core_that_cannot_be_created_leaves_nothing_behind)
{
    core_destroy(&w.core);
    int r = -1;
    int allocations = 0;
    for (; r < 0 && allocations < 200; allocations++) {
        allocations_left = allocations;
        is_failing = true;
        r = core_create(&w.config, 1, w.now, &w.core);
        is_failing = false;
    }
    cr_assert_eq(r, 0);
    cr_assert_gt(allocations, 10);
}

static struct event identical(void)
{
    static const uint8_t key[16] = {1};
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.canonical_key = key;
    return event;
}

Test(core_memory, identical_job_without_memory_to_follow_runs_by_itself)
{
    struct event first = identical();
    world_submit_event(&w, &first);
    size_t alone = 0;
    size_t follows = 0;
    for (int allocations = 0; follows == 0; allocations++) {
        cr_assert(allocations < 20);
        struct event event = identical();
        step_with(allocations, &event);
        blob_unref(&event.as.submit.payload);
        const Wire__JobState state = world_state(&w, &event.as.submit.job_id);
        alone += state == WIRE__JOB_STATE__JOB_STATE_QUEUED;
        follows += state == WIRE__JOB_STATE__JOB_STATE_FOLLOWING;
    }
    cr_assert_eq(alone, 2); /* no memory for the flight, or for a place in it */
    world_worker(&w, 100, "w", 8);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 3);
}

Test(core_memory, answer_that_cannot_be_kept_for_the_followers_lets_the_best_of_them_run)
{
    world_worker(&w, 100, "w", 8);
    struct event first = identical();
    struct event second = identical();
    world_submit_event(&w, &first);
    world_submit_event(&w, &second);
    const struct id leader = first.as.submit.job_id;
    const struct id follower = second.as.submit.job_id;
    struct event answer = {.kind = EVENT_ATTEMPT_RESULT,
                           .peer = 100,
                           .as.attempt_result = {.lease = world_lease(&w, &leader),
                                                 .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                                                 .error_code = "",
                                                 .error_text = ""}};
    step_with(0, &answer);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &leader, 1));
    cr_assert_eq(world_state(&w, &follower), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_memory, stream_without_memory_for_its_log_reaches_who_waits)
{
    w.config.broker.stream_log_bytes_max = 10000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1);
    world_client(&w, 2, "a");
    struct event event = identical();
    event.as.submit.stream = true;
    world_submit_event(&w, &event);
    const struct id job = event.as.submit.job_id;
    struct event chunk = {
        .kind = EVENT_CHUNK, .peer = 100, .as.chunk.header = {.job_id = job, .attempt = 1}};
    step_with(1, &chunk); /* the stream, and no log */
    cr_assert_not_null(world_find(&w, EFFECT_CHUNK, &job, 1));
    world_turn(&w, &(struct event){
                       .kind = EVENT_WAIT, .peer = 2, .as.job = {.job_id = job, .stream = true}});
    cr_assert_null(world_find(&w, EFFECT_CHUNK, &job, 2));
    chunk.as.chunk.header.index = 1;
    world_turn(&w, &chunk);
    cr_assert_eq(world_count(&w, EFFECT_CHUNK, &job), 2);
}

/* What an answer has cost, in the records. */
static void spend_with(int allocations, uint64_t nanousd)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "realtime");
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.provider = usage.model = (char *)(uintptr_t) "p";
    usage.input_tokens = 1;
    usage.cost_nanousd = nanousd;
    const struct event event = {
        .kind = EVENT_ATTEMPT_RESULT,
        .peer = 100,
        .as.attempt_result = {.lease = world_lease(&w, &job),
                              .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE,
                              .error_code = "",
                              .error_text = "",
                              .usage = &usage}};
    step_with(allocations, &event);
}

static void spend(uint64_t nanousd)
{
    spend_with(INT_MAX, nanousd);
}

/* A core that has read what is recorded under `head`, but for one allocation of each record. With
 * `has_arena` each has what it is read into. False: the core said that memory ran out. */
static bool restore_without(int allocation, const char *head, bool has_arena)
{
    static const uint8_t nothing[] = {RECORD_VERSION};
    int r = 0;
    size_t read = 0;
    core_destroy(&w.core);
    cr_assert_eq(core_create(&w.config, 1, w.now, &w.core), 0);
    if (has_arena) {
        cr_assert_eq(core_restore(w.core, STORE_META, "budget-", 7, nothing, 1, w.now), 0);
    }
    for (size_t i = 0; r == 0 && i < w.records_length; i++) {
        const struct world_record *record = &w.records[i];
        if (record->family != STORE_META || memcmp(record->key, head, strlen(head)) != 0) {
            continue;
        }
        read++;
        allocations_left = allocation;
        is_failing = is_failing_once = true;
        r = core_restore(w.core, record->family, record->key, record->key_bytes, record->value,
                         record->value_bytes, w.now);
        is_failing = is_failing_once = false;
        cr_assert(r == 0 || r == -ENOMEM, "%d", r); /* damaged it is not */
    }
    cr_assert_gt(read, 0);
    return r == 0;
}

static void look_at_row(void *context, const struct core_cost_view *view)
{
    uint64_t *cost = context;
    cr_assert_str_eq(view->tenant, "a");
    cr_assert_str_eq(view->tier, "realtime");
    cr_assert_str_eq(view->provider, "p");
    *cost += view->sum->cost_nanousd;
}

Test(core_memory, row_of_the_ledger_is_restored_under_its_names_or_not_at_all)
{
    int refused = 0;
    w.config.cost = (struct config_cost){.keep_days = 10, .rows_max = 100};
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    spend(700);
    for (int allocation = 0; allocation < 20; allocation++) {
        uint64_t cost = 0;
        if (restore_without(allocation, "ledger", false)) {
            core_visit_costs(w.core, look_at_row, &cost);
            cr_assert_eq(cost, 700);
        } else {
            refused++;
        }
    }
    cr_assert(refused > 4 && refused < 20); /* names, and the row */
}

Test(core_memory, what_was_charged_is_remembered_or_that_is_said)
{
    int refused = 0;
    spend(700);
    spend(700);
    for (int allocation = 0; allocation < 20; allocation++) {
        if (restore_without(allocation, "charge", true)) {
            cr_assert_eq(w.core->charges.by_attempt.length, 2);
        } else {
            refused++;
        }
    }
    cr_assert(refused > 0 && refused < 20);
}

static uint64_t spent_under_a_new_limit(void)
{
    world_budget(&w, 1000, 1000);
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    w.config.budgets_length = 0;
    return world_purse(&w).day_nanousd;
}

Test(core_memory, what_a_tenant_spends_is_counted_without_memory)
{
    spend_with(0, 700);
    cr_assert_eq(spent_under_a_new_limit(), 700);
}

/* Of each tick one allocation fails: of the lease, or of what remembers its reservation. */
Test(core_memory, attempt_under_a_budget_begins_with_its_reservation_or_not_at_all)
{
    enum { CALL = 1000 };
    size_t running = 0;
    w.models[0].provider = "p";
    w.models[0].request_nanousd = CALL;
    world_budget(&w, 100 * CALL, 1000);
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = 100,
                                   .as.worker_hello = {.name = "w", .slots = 100}});
    for (int i = 0; i < 20; i++) {
        const struct event credit = {
            .kind = EVENT_WORKER_CREDIT, .peer = 100, .as.worker_credit.total = (uint64_t)i + 1};
        (void)world_submit(&w, 1, "realtime");
        core_step(w.core, w.now, &credit, w.effects);
        allocations_left = i % 4;
        is_failing = is_failing_once = true;
        core_step(w.core, w.now, &(struct event){.kind = EVENT_TICK}, w.effects);
        is_failing = is_failing_once = false;
        running = world_stats(&w).tiers[0].states[WIRE__JOB_STATE__JOB_STATE_LEASED];
        cr_assert_eq(world_purse(&w).reserved_nanousd, running * CALL);
        world_tick(&w);
    }
    cr_assert_gt(running, 10);
}

Test(core_memory, what_a_tenant_has_spent_is_restored_or_that_is_said)
{
    int refused = 0;
    spend(700);
    for (int allocation = 0; allocation < 20; allocation++) {
        if (restore_without(allocation, "budget", false)) {
            cr_assert_eq(spent_under_a_new_limit(), 700);
        } else {
            refused++;
        }
    }
    cr_assert(refused > 0 && refused < 20);
}
