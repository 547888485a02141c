/*
 * Who is next: shares of tiers, tenants and routes, reserved slots. Every share is checked by
 * counting dispatches.
 */
#include <criterion/criterion.h>
#include <string.h>
#include "tests/unit/broker/core_world.h"

static struct world w;

static void start(void)
{
    world_init(&w);
    w.tiers[1].durability = w.tiers[2].durability =
        DURABILITY_NONE; /* what is shared does not depend on it */
    w.config.broker.lease_ms = INT64_C(1) << 40;
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_fairness, .init = start, .fini = stop);

static void begin(void)
{
    world_start(&w);
    for (uint64_t i = 0; i < 4; i++) {
        world_client(&w, i + 1, w.tenants[i].name);
    }
}

static void submit_many(size_t n, uint64_t client, const char *tier, const char *route,
                        uint32_t tokens, uint32_t priority)
{
    for (size_t i = 0; i < n; i++) {
        struct event event = world_submission(&w, client, tier);
        event.as.submit.route = route;
        event.as.submit.estimated_tokens = tokens;
        event.as.submit.priority = priority;
        world_submit_event(&w, &event);
    }
}

/*
 * Answers every dispatch of the log and gives credit for another; `n` in all. Returns how many
 * `counts` took.
 */
static size_t serve(size_t n, uint64_t *credit,
                    bool (*counts)(const struct effect_dispatch *dispatch))
{
    size_t taken = 0;
    for (size_t i = 0; i < n; i++) {
        const struct world_effect *found = world_find(&w, EFFECT_DISPATCH, NULL, 100);
        cr_assert_not_null(found, "nothing was dispatched, though jobs wait and a slot is free");
        const struct effect_dispatch dispatch = found->effect.as.dispatch;
        taken += counts(&dispatch);
        world_forget_log(&w);
        world_result(&w, 100, &dispatch.lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        world_credit(&w, 100, ++*credit);
    }
    return taken;
}

static bool is_realtime(const struct effect_dispatch *dispatch)
{
    return strcmp(dispatch->tier, "realtime") == 0;
}

static bool is_background(const struct effect_dispatch *dispatch)
{
    return strcmp(dispatch->tier, "background") == 0;
}

static bool is_tenant_a(const struct effect_dispatch *dispatch)
{
    return strcmp(dispatch->tenant, "a") == 0;
}

static bool is_m0(const struct effect_dispatch *dispatch)
{
    return strcmp(dispatch->route, "m0") == 0;
}

static bool is_near(size_t count, size_t expected, size_t bound)
{
    return count + bound >= expected && count <= expected + bound;
}

Test(core_fairness, tiers_share_dispatch_by_weight)
{
    begin();
    submit_many(1000, 1, "realtime", "m0", 100, 0);
    submit_many(1000, 1, "standard", "m0", 100, 0);
    submit_many(1000, 1, "background", "m0", 100, 0);
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1);
    const size_t realtime = serve(400, &credit, is_realtime);
    cr_assert(is_near(realtime, 240, 20), "realtime got %zu of 400", realtime);
    const size_t background = serve(400, &credit, is_background);
    cr_assert(is_near(background, 40, 5), "background got %zu of 400", background);
}

Test(core_fairness, minimum_share_is_guaranteed)
{
    w.tiers[0].weight = 1000;
    w.tiers[2].weight = 1;
    w.tiers[2].share_min_percent = 20;
    begin();
    submit_many(1000, 1, "realtime", "m0", 100, 0);
    submit_many(1000, 1, "background", "m0", 100, 0);
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1);
    const size_t background = serve(500, &credit, is_background);
    cr_assert(is_near(background, 100, 5), "background got %zu of 500", background);
}

Test(core_fairness, idle_share_goes_to_those_who_have_work)
{
    begin();
    submit_many(100, 1, "background", "m0", 100, 0);
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(serve(99, &credit, is_background), 99);
}

Test(core_fairness, reserved_slots_stay_free_for_their_tier)
{
    w.tiers[0].slots_reserved_percent = 25;
    begin();
    submit_many(100, 1, "background", "m0", 100, 0);
    world_worker(&w, 100, "w", 8);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 6);
    submit_many(1, 1, "realtime", "m0", 100, 0);
    submit_many(1, 1, "realtime", "m0", 100, 0);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 8);
    submit_many(1, 1, "realtime", "m0", 100, 0);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 8);
}

Test(core_fairness, realtime_uses_unreserved_slots_too)
{
    w.tiers[0].slots_reserved_percent = 25;
    begin();
    submit_many(20, 1, "realtime", "m0", 100, 0);
    world_worker(&w, 100, "w", 8);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 8);
}

Test(core_fairness, worker_with_one_slot_serves_every_tier)
{
    w.tiers[0].slots_reserved_percent = 25;
    begin();
    submit_many(1, 1, "background", "m0", 100, 0);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 1);
}

/* The tokens of a, dispatched out of `total`, are within a quantum and a job of its share. */
Test(core_fairness, tenants_share_tokens_by_weight_whatever_the_size_of_their_jobs)
{
    w.tenants[1].weight = 3;
    begin();
    submit_many(2000, 1, "standard", "m0", 100, 0);
    submit_many(200, 2, "standard", "m0", 3000, 0);
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1);
    const size_t n = 1100;
    const size_t a = serve(n, &credit, is_tenant_a);
    const double tokens_a = (double)a * 100;
    const double tokens_b = (double)(n - a) * 3000;
    cr_assert_float_eq(tokens_a / (tokens_a + tokens_b), 0.25, 0.03, "a got %zu of %zu", a, n);
}

Test(core_fairness, priority_orders_one_tenants_jobs_and_gains_nothing_over_others)
{
    begin();
    submit_many(200, 1, "standard", "m0", 100, 9);
    submit_many(200, 2, "standard", "m0", 100, 0);
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1);
    const size_t a = serve(200, &credit, is_tenant_a);
    cr_assert(is_near(a, 100, 12), "a got %zu of 200", a);
}

Test(core_fairness, higher_priority_then_older_goes_first)
{
    begin();
    submit_many(1, 1, "standard", "m0", 1, 0);
    submit_many(1, 1, "standard", "m0", 2, 5);
    submit_many(1, 1, "standard", "m0", 3, 9);
    submit_many(1, 1, "standard", "m0", 4, 5);
    world_worker(&w, 100, "w", 4);
    const uint32_t expected[] = {3, 2, 4, 1};
    size_t n = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        if (w.log[i].effect.kind == EFFECT_DISPATCH) {
            cr_assert_eq(w.log[i].effect.as.dispatch.estimated_tokens, expected[n++]);
        }
    }
    cr_assert_eq(n, 4);
}

Test(core_fairness, short_queue_is_not_made_to_wait_for_a_long_one)
{
    begin();
    submit_many(3000, 1, "background", "m0", 100, 0);
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1);
    (void)serve(50, &credit, is_m0);
    submit_many(10, 1, "background", "m1", 100, 0);
    const size_t n = 200;
    cr_assert_eq(serve(n, &credit, is_m0), n - 10,
                 "all ten jobs of the short queue go within %zu dispatches", n);
}

Test(core_fairness, route_that_is_held_blocks_no_other)
{
    begin();
    submit_many(50, 1, "standard", "m0", 100, 0);
    submit_many(50, 1, "standard", "m1", 100, 0);
    world_turn(
        &w, &(struct event){.kind = EVENT_PAUSE, .as.pause = {PAUSE_ROUTE, PAUSE_HOLD, "m0", ""}});
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(serve(49, &credit, is_m0), 0);
}

static bool is_large(const struct effect_dispatch *dispatch)
{
    return dispatch->estimated_tokens == 100000;
}

/* It is charged when its payload is read, and must not be charged again when it goes. */
Test(core_fairness, job_that_is_put_back_after_its_payload_was_read_is_charged_once)
{
    w.tiers[1].durability = DURABILITY_FSYNC;
    w.config.broker.memory_payload_bytes_max = 1;
    begin();
    submit_many(1, 2, "standard", "m0", 1024, 0);
    submit_many(400, 2, "standard", "m0", 100, 0);
    submit_many(1, 1, "standard", "m0", 100000, 0);
    submit_many(400, 3, "standard", "m0", 100, 0);
    uint64_t credit = 1;
    world_worker(&w, 100, "w", 1); /* b's first job goes, and a's is read */
    world_turn(
        &w, &(struct event){.kind = EVENT_PAUSE, .as.pause = {PAUSE_TENANT, PAUSE_HOLD, "a", ""}});
    world_turn(&w, &(struct event){.kind = EVENT_RESUME,
                                   .as.pause = {.subject = PAUSE_TENANT, .name = "a"}});
    cr_assert_eq(serve(100, &credit, is_large), 1);
}

Test(core_fairness, pools_are_kept_apart)
{
    begin();
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.pool = "gpu";
    world_submit_event(&w, &event);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 0);
    static const char *const pools[] = {"gpu", "default", "gpu"};
    world_turn(
        &w, &(struct event){
                .kind = EVENT_WORKER_HELLO,
                .peer = 101,
                .as.worker_hello = {.name = "g", .slots = 1, .pools = pools, .pools_length = 3}});
    world_credit(&w, 101, 1);
    cr_assert_not_null(world_find(&w, EFFECT_DISPATCH, &event.as.submit.job_id, 101));
}

Test(core_fairness, dispatch_never_exceeds_credit)
{
    begin();
    submit_many(100, 1, "standard", "m0", 100, 0);
    world_worker(&w, 100, "w", 3);
    world_worker(&w, 101, "v", 5);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 8);
    world_credit(&w, 100, 3);
    world_credit(&w, 101, 7);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 10);
}

Test(core_fairness, jobs_spread_over_workers)
{
    begin();
    world_worker(&w, 100, "w", 10);
    world_worker(&w, 101, "v", 10);
    submit_many(10, 1, "standard", "m0", 100, 0);
    size_t first = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        first += w.log[i].effect.kind == EFFECT_DISPATCH && w.log[i].effect.peer == 100;
    }
    cr_assert_eq(first, 5);
}
