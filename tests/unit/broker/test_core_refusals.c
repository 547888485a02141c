/* Every refusal there is: those that pass say when to come back, with jitter; those that never pass
 * say 0. */
#include <criterion/criterion.h>
#include "tests/unit/broker/core_world.h"

static struct world w;

static void start(void)
{
    world_init(&w);
    w.tenants[2].jobs_max = 3;
    w.tenants[3].bytes_max = 10;
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_refusals, .init = start, .fini = stop);

static void begin(void)
{
    static const char *const tenants[] = {"a", "b", "c", "d"};
    world_start(&w);
    for (uint64_t i = 0; i < 4; i++) {
        world_client(&w, i + 1, tenants[i]);
    }
}

static struct event submission(uint64_t peer, const char *tier)
{
    return world_submission(&w, peer, tier);
}

/* NULL: it was accepted. */
static const struct effect *submit(struct event event)
{
    world_submit_event(&w, &event);
    const struct world_effect *found =
        world_find(&w, EFFECT_REJECTED, &event.as.submit.job_id, event.peer);
    return found == NULL ? NULL : &found->effect;
}

static void pause(enum pause_subject subject, const char *name)
{
    world_turn(
        &w, &(struct event){.kind = EVENT_PAUSE, .as.pause = {subject, PAUSE_DRAIN, name, "test"}});
}

/* ---- one way to each reason ---- */

static const struct effect *none(void)
{
    return submit(submission(1, "standard"));
}

static const struct effect *invalid(void)
{
    struct event event = submission(1, "standard");
    event.as.submit.priority = 10;
    return submit(event);
}

static const struct effect *unknown_tier(void)
{
    return submit(submission(1, "premium"));
}

static const struct effect *unknown_tenant(void)
{
    w.config.tenants = &w.tenants[1];
    w.config.tenants_length = 3;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    return submit(submission(1, "standard"));
}

static const struct effect *unknown_route(void)
{
    struct event event = submission(1, "standard");
    event.as.submit.route = "gpt-0";
    return submit(event);
}

static const struct effect *unknown_pool(void)
{
    struct event event = submission(1, "standard");
    event.as.submit.pool = "moon";
    return submit(event);
}

static const struct effect *too_large(void)
{
    struct event event = submission(4, "standard");
    blob_unref(&event.as.submit.payload);
    cr_assert_eq(blob_create("more than ten", 13, &event.as.submit.payload), 0);
    return submit(event); /* than its tenant may ever have */
}

static const struct effect *queue_full(void)
{
    for (int i = 0; i < 3; i++) {
        (void)world_submit(&w, 3, "standard");
    }
    return submit(submission(3, "standard"));
}

static const struct effect *deadline(void)
{
    world_worker(&w, 100, "w", 1);
    uint64_t credit = 1;
    for (int i = 0; i < 100; i++) {
        (void)world_submit(&w, 1, "standard");
    }
    for (int i = 0; i < 10; i++) {
        world_advance(&w, 100);
        const struct lease_ref lease =
            world_find(&w, EFFECT_DISPATCH, NULL, 100)->effect.as.dispatch.lease;
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        world_credit(&w, 100, ++credit);
    }
    struct event event = submission(1, "standard");
    event.as.submit.deadline_in_ms = 1000;
    return submit(event);
}

static const struct effect *draining(void)
{
    world_turn(&w, &(struct event){.kind = EVENT_DRAIN});
    return submit(submission(1, "standard"));
}

static const struct effect *storage(void)
{
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN, .as.store_down = {w.batch, "full"}});
    return submit(submission(1, "standard"));
}

static const struct effect *too_old(void)
{
    w.config.broker.dedup_ids_max = 1;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    struct event event = submission(1, "standard");
    for (int i = 0; i < 2; i++) {
        world_advance(&w, 10);
        const struct id job = world_submit(&w, 1, "standard");
        world_job_event(&w, EVENT_CANCEL, 1, &job);
    }
    return submit(event);
}

static const struct effect *conflict(void)
{
    struct event event = submission(1, "standard");
    const struct id job = event.as.submit.job_id;
    (void)submit(event);
    event = submission(2, "standard");
    event.as.submit.job_id = job;
    return submit(event);
}

static const struct effect *paused(void)
{
    pause(PAUSE_ROUTE, "m0");
    return submit(submission(1, "standard"));
}

/* Attempts cost 1000 nano-dollars each; the day has 1500, and one has been paid. */
static const struct effect *budget(void)
{
    struct config_budget limits = {.name = "b",
                                   .tenant = "a",
                                   .tier = "",
                                   .daily_nanousd = 1500,
                                   .monthly_nanousd = UINT64_MAX,
                                   .soft_permille = 1000};
    w.config.models[0].provider = "p";
    w.config.models[0].request_nanousd = 1000;
    w.config.models[0].max_tokens_default = 1;
    w.config.budgets = &limits;
    w.config.budgets_length = 1;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    w.config.budgets_length = 0;
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.provider = w.config.models[0].provider;
    usage.model = w.config.models[0].name;
    usage.cost_nanousd = 1000;
    const struct event event = {
        .kind = EVENT_ATTEMPT_RESULT,
        .peer = 100,
        .as.attempt_result = {.lease = world_lease(&w, &job),
                              .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                              .error_code = "",
                              .error_text = "",
                              .usage = &usage}};
    world_turn(&w, &event);
    return submit(submission(1, "standard"));
}

static const struct way {
    const struct effect *(*go)(void);
    bool passes;
} ways[] = {
    [WIRE__REJECT_REASON__REJECT_NONE] = {none, false},
    [WIRE__REJECT_REASON__REJECT_INVALID] = {invalid, false},
    [WIRE__REJECT_REASON__REJECT_UNKNOWN_TIER] = {unknown_tier, false},
    [WIRE__REJECT_REASON__REJECT_UNKNOWN_TENANT] = {unknown_tenant, false},
    [WIRE__REJECT_REASON__REJECT_UNKNOWN_ROUTE] = {unknown_route, false},
    [WIRE__REJECT_REASON__REJECT_UNKNOWN_POOL] = {unknown_pool, false},
    [WIRE__REJECT_REASON__REJECT_TOO_LARGE] = {too_large, false},
    [WIRE__REJECT_REASON__REJECT_QUEUE_FULL] = {queue_full, true},
    [WIRE__REJECT_REASON__REJECT_DEADLINE] = {deadline, true},
    [WIRE__REJECT_REASON__REJECT_DRAINING] = {draining, true},
    [WIRE__REJECT_REASON__REJECT_STORAGE] = {storage, true},
    [WIRE__REJECT_REASON__REJECT_TOO_OLD] = {too_old, false},
    [WIRE__REJECT_REASON__REJECT_CONFLICT] = {conflict, false},
    [WIRE__REJECT_REASON__REJECT_PAUSED] = {paused, true},
    [WIRE__REJECT_REASON__REJECT_BUDGET] = {budget, true},
};

Test(core_refusals, every_reason_that_passes_says_when_to_come_back)
{
    const ProtobufCEnumDescriptor *reasons = &wire__reject_reason__descriptor;
    for (unsigned i = 0; i < reasons->n_values; i++) {
        const int reason = reasons->values[i].value;
        cr_assert(reason < (int)(sizeof(ways) / sizeof(*ways)) && ways[reason].go != NULL,
                  "%s is not tried here", reasons->values[i].name);
        stop(); /* a world of its own for each */
        start();
        begin();
        const struct effect *refused = ways[reason].go();
        if (reason != WIRE__REJECT_REASON__REJECT_NONE) {
            cr_assert_not_null(refused, "%s", reasons->values[i].name);
            cr_assert_eq((int)refused->as.rejected.reason, reason, "%s", reasons->values[i].name);
            cr_assert_eq(refused->as.rejected.retry_after_ms > 0, ways[reason].passes, "%s: %lld",
                         reasons->values[i].name, (long long)refused->as.rejected.retry_after_ms);
        } else {
            cr_assert_null(refused);
        }
    }
}

/* The same reason, but nothing that time would change. */
Test(core_refusals, deadline_that_has_passed_or_can_never_be_met_says_0)
{
    begin();
    struct event event = submission(1, "standard");
    event.as.submit.deadline_in_ms = -1;
    cr_assert_eq(submit(event)->as.rejected.retry_after_ms, 0);
    event = submission(1, "standard");
    event.as.submit.deadline_in_ms = 1000;
    event.as.submit.delay_ms = 1000;
    cr_assert_eq(submit(event)->as.rejected.retry_after_ms, 0);
}

Test(core_refusals, those_who_are_refused_together_are_not_told_the_same_time)
{
    begin();
    for (int i = 0; i < 3; i++) {
        (void)world_submit(&w, 3, "standard");
    }
    int64_t least = INT64_MAX, most = 0;
    for (int i = 0; i < 100; i++) {
        const int64_t ms = submit(submission(3, "standard"))->as.rejected.retry_after_ms;
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    cr_assert_lt(least, 1050);
    cr_assert_gt(most, 1200);
    cr_assert_leq(most, 1250);
}

static const struct effect *hello(enum event_kind kind, uint64_t peer, const char *name)
{
    struct event event = {.kind = kind, .peer = peer};
    if (kind == EVENT_CLIENT_HELLO) {
        event.as.client_hello.tenant = name;
        event.as.client_hello.name = "test";
    } else {
        event.as.worker_hello.name = name;
        event.as.worker_hello.slots = 1;
    }
    world_turn(&w, &event);
    const struct world_effect *error = world_find(
        &w, kind == EVENT_CLIENT_HELLO ? EFFECT_CLIENT_ERROR : EFFECT_WORKER_ERROR, NULL, peer);
    cr_assert_not_null(error);
    cr_assert_eq(error->effect.as.error.code, WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED);
    return &error->effect;
}

Test(core_refusals, hello_that_will_be_taken_later_says_when)
{
    w.config.broker.clients_max = 4;
    w.config.broker.workers_max = 1;
    begin();
    world_worker(&w, 100, "w", 1);
    cr_assert_gt(hello(EVENT_CLIENT_HELLO, 5, "a")->as.error.retry_after_ms, 0);
    cr_assert_gt(hello(EVENT_WORKER_HELLO, 101, "w2")->as.error.retry_after_ms, 0);
    cr_assert_eq(hello(EVENT_CLIENT_HELLO, 6, "nobody")->as.error.retry_after_ms, 0);
}

/* By the names that an operator can change. */
Test(core_refusals, worker_of_an_unknown_pool_is_told_which_key_names_it)
{
    static const char *const pools[] = {"default", "fast"};
    begin();
    world_turn(
        &w, &(struct event){
                .kind = EVENT_WORKER_HELLO,
                .peer = 100,
                .as.worker_hello = {.name = "w", .slots = 1, .pools = pools, .pools_length = 2}});
    cr_assert_str_eq(
        world_find(&w, EFFECT_WORKER_ERROR, NULL, 100)->text,
        "worker.pools: \"fast\" is not configured at the broker; add it there under pools");
}

/* ---- bounds of a tenant ---- */

Test(core_refusals, bound_of_a_tenant_counts_its_jobs_of_all_tiers_and_binds_no_other)
{
    static const char *const tiers[] = {"realtime", "standard", "background"};
    begin();
    for (int i = 0; i < 3; i++) {
        cr_assert_null(submit(submission(3, tiers[i])));
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(submit(submission(3, tiers[i]))->as.rejected.reason,
                     WIRE__REJECT_REASON__REJECT_QUEUE_FULL);
        cr_assert_null(submit(submission(1, tiers[i])));
        cr_assert_null(submit(submission(2, tiers[i])));
    }
    world_worker(&w, 100, "w", 16); /* all end: as many fit again, of whatever tier */
    for (size_t i = 0; i < w.log_length; i++) {
        if (w.log[i].effect.kind == EFFECT_DISPATCH) {
            const struct lease_ref lease = w.log[i].effect.as.dispatch.lease;
            world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        }
    }
    cr_assert_null(submit(submission(3, "background")));
}

Test(core_refusals, bytes_bind_a_tenant_too_and_come_free_again)
{
    begin();
    struct event first = submission(4, "realtime");
    const struct id job = first.as.submit.job_id;
    cr_assert_null(submit(first)); /* 4 bytes each, of 10 */
    cr_assert_null(submit(submission(4, "standard")));
    cr_assert_eq(submit(submission(4, "background"))->as.rejected.reason,
                 WIRE__REJECT_REASON__REJECT_QUEUE_FULL);
    cr_assert_null(submit(submission(1, "background")));
    world_job_event(&w, EVENT_CANCEL, 4, &job);
    cr_assert_null(submit(submission(4, "background")));
}
