/* Second calls beside slow ones: when a worker may ask, who is granted one, and what it costs. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/hedge_budget.h"
#include "broker/core/state.h"
#include "broker/core/upstream.h"
#include "tests/unit/broker/core_world.h"

#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define CANCELLED    WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED
#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED

enum { PEER = 100, PRICE = 1000, KNOWN = 40 };

static struct world w;

/* The model m0 at p0, and at p1 as well. A token costs PRICE nano-dollars; a job is expected to use
 * 10 and 90. */
static void start(void)
{
    world_init(&w);
    world_two_providers(&w);
    w.models[0].input_nanousd_per_mtok = PRICE * UINT64_C(1000000);
    w.models[0].output_nanousd_per_mtok = PRICE * UINT64_C(1000000);
    w.tiers[0].hedge_share_permille = 50;
    w.tiers[0].deadline_ms = 600000;
}

static void go(void)
{
    world_start(&w);
    world_client(&w, 1, "a");
    world_worker(&w, PEER, "w", 100000);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_hedge, .init = start, .fini = stop);

static struct id submit(const char *tier)
{
    struct event event = world_submission(&w, 1, tier);
    event.as.submit.input_tokens = 10;
    event.as.submit.estimated_tokens = 100;
    return world_submit_event(&w, &event);
}

static const struct effect_dispatch *dispatch_of(const struct id *job)
{
    const struct world_effect *found = world_find(&w, EFFECT_DISPATCH, job, 0);
    cr_assert_not_null(found);
    return &found->effect.as.dispatch;
}

struct said {
    const char *provider;
    Wire__AttemptOutcome outcome;
    uint32_t call_ms, first_token_ms;
    uint64_t cost_nanousd;
};

/* The attempt ends with the outcome of the last call. */
static void ends(const struct id *job, const struct said *said, size_t length)
{
    Wire__Upstream upstreams[2];
    Wire__Call calls[2];
    const Wire__Call *refs[2] = {&calls[0], &calls[1]};
    Wire__Usage usage = WIRE__USAGE__INIT;
    for (size_t i = 0; i < length; i++) {
        wire__upstream__init(&upstreams[i]);
        wire__call__init(&calls[i]);
        upstreams[i].provider = (char *)said[i].provider;
        upstreams[i].model = "m0";
        calls[i].upstream = &upstreams[i];
        calls[i].outcome = said[i].outcome;
        calls[i].error_code = said[i].outcome == ANSWERED ? "" : "status_503";
        calls[i].call_ms = said[i].call_ms;
        calls[i].first_token_ms = said[i].first_token_ms;
        calls[i].cost_nanousd = said[i].cost_nanousd;
        usage.cost_nanousd += said[i].cost_nanousd;
        usage.provider = upstreams[i].provider;
        usage.model = upstreams[i].model;
    }
    const struct event event = {
        .kind = EVENT_ATTEMPT_RESULT,
        .peer = PEER,
        .as.attempt_result = {.lease = world_lease(&w, job),
                              .outcome = length > 0 ? said[length - 1].outcome : UNAVAILABLE,
                              .error_code = "code",
                              .error_text = "text",
                              .usage = &usage,
                              .calls = refs,
                              .calls_length = length}};
    world_turn(&w, &event);
}

static void asks(const struct id *job)
{
    world_turn(&w, &(struct event){.kind = EVENT_HEDGE_ASKED,
                                   .peer = PEER,
                                   .as.hedge_asked = {.lease = world_lease(&w, job)}});
}

static bool is_granted(const struct id *job)
{
    return world_find(&w, EFFECT_HEDGE, job, PEER) != NULL;
}

/* Jobs that p0 answers in 100 ms, for as much as is expected. */
static void answers(const char *tier, int jobs)
{
    for (int i = 0; i < jobs; i++) {
        const struct id job = submit(tier);
        ends(&job, &(struct said){"p0", ANSWERED, 100, 0, 100 * PRICE}, 1);
        world_forget_log(&w);
    }
}

static struct core_tier_stats stats(void)
{
    return world_stats(&w).tiers[0];
}

struct seen {
    uint64_t dispatched, answered, failed;
};

static void look(void *context, const struct core_upstream_view *view)
{
    struct seen *seen = context;
    if (strcmp(view->provider, "p1") == 0 && strcmp(view->model, "m0") == 0) {
        *seen = (struct seen){view->counts.dispatched, view->counts.answered, view->counts.failed};
    }
}

static struct seen second(void)
{
    struct seen seen = {0};
    core_visit_upstreams(w.core, w.now, look, &seen);
    return seen;
}

/* ---- when it may ask ---- */

Test(core_hedge, worker_may_ask_after_the_percentile_that_was_seen)
{
    go();
    const struct id first = submit("realtime");
    cr_assert_eq(dispatch_of(&first)->hedge_after_ms, 0);
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    cr_assert_geq(dispatch_of(&job)->hedge_after_ms, 100);
    cr_assert_leq(dispatch_of(&job)->hedge_after_ms, 125);
}

Test(core_hedge, tier_without_a_share_never_asks)
{
    go();
    answers("standard", KNOWN);
    const struct id job = submit("standard");
    cr_assert_eq(dispatch_of(&job)->hedge_after_ms, 0);
    asks(&job);
    cr_assert_not(is_granted(&job));
}

Test(core_hedge, nobody_asks_where_there_is_no_other_provider)
{
    w.models[0].failover_length = 0;
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    cr_assert_eq(dispatch_of(&job)->hedge_after_ms, 0);
}

Test(core_hedge, stream_is_waited_for_until_its_first_token)
{
    go();
    for (int i = 0; i < KNOWN; i++) {
        const struct id job = submit("realtime");
        ends(&job, &(struct said){"p0", ANSWERED, 9000, 100, 0}, 1);
    }
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.input_tokens = 10;
    event.as.submit.stream = true;
    const struct id stream = world_submit_event(&w, &event);
    const struct id whole = submit("realtime");
    cr_assert_leq(dispatch_of(&stream)->hedge_after_ms, 125);
    cr_assert_geq(dispatch_of(&whole)->hedge_after_ms, 9000);
}

/* ---- granting ---- */

Test(core_hedge, slow_call_gets_a_second_one_at_another_provider)
{
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    asks(&job);
    cr_assert(is_granted(&job));
    const struct world_effect *grant = world_find(&w, EFFECT_HEDGE, &job, PEER);
    cr_assert_str_eq(grant->effect.as.hedge.provider, "p1");
    cr_assert_str_eq(grant->effect.as.hedge.model, "m0");
    cr_assert_eq(second().dispatched, 1);
    asks(&job);
    cr_assert_eq(world_count(&w, EFFECT_HEDGE, NULL), 1);
}

Test(core_hedge, second_call_is_told_by_the_explanation)
{
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    uint32_t attempt = 0;
    cr_assert_null(strstr(core_explain(w.core, &job, &attempt), "second call"));
    asks(&job);
    const char *why = core_explain(w.core, &job, &attempt);
    cr_assert_not_null(strstr(why, "; second call, beside a slow first one: p1/m0"), "%s", why);
}

/* A name is of 64 bytes at most. */
Test(core_hedge, second_call_is_told_with_its_whole_name)
{
    static char name[] = "0123456789012345678901234567890123456789012345678901234567890123";
    static char *failover[] = {name};
    w.providers[1].name = name;
    w.models[0].failover = failover;
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    asks(&job);
    uint32_t attempt = 0;
    const char *why = core_explain(w.core, &job, &attempt);
    cr_assert(strstr(why, name) != NULL && strcmp(why + strlen(why) - 3, "/m0") == 0, "%s", why);
}

Test(core_hedge, only_the_holder_is_granted_one)
{
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    world_worker(&w, PEER + 1, "v", 10);
    struct event event = {.kind = EVENT_HEDGE_ASKED,
                          .peer = PEER + 1,
                          .as.hedge_asked = {.lease = world_lease(&w, &job)}};
    world_turn(&w, &event);
    event.peer = PEER;
    event.as.hedge_asked.lease.attempt++;
    world_turn(&w, &event);
    cr_assert_not(is_granted(&job));
}

Test(core_hedge, second_calls_stay_within_their_share_of_calls)
{
    go();
    for (int i = 0; i < 1000; i++) {
        const struct id job = submit("realtime");
        asks(&job);
        if (is_granted(&job)) {
            ends(&job,
                 (struct said[]){{"p1", CANCELLED, 5, 0, 10 * PRICE},
                                 {"p0", ANSWERED, 100, 0, 100 * PRICE}},
                 2);
        } else {
            ends(&job, &(struct said){"p0", ANSWERED, 100, 0, 100 * PRICE}, 1);
        }
        world_forget_log(&w);
        cr_assert_leq(stats().hedges_granted * 20, (uint64_t)i + 1);
    }
    cr_assert_geq(stats().hedges_granted, 45);
    cr_assert_eq(stats().hedges[HEDGE_LOST], stats().hedges_granted);
    cr_assert_eq(stats().hedges_refused[HEDGE_NO_CALLS], 1000 - stats().hedges_granted);
}

Test(core_hedge, second_calls_stay_within_their_share_of_cost)
{
    go();
    uint64_t all = 0, of_second = 0;
    for (int i = 0; i < 2000; i++) { /* at the second provider they cost four times as much */
        const struct id job = submit("realtime");
        asks(&job);
        all += 100 * PRICE;
        if (is_granted(&job)) {
            of_second += 400 * PRICE;
            all += 400 * PRICE;
            ends(&job,
                 (struct said[]){{"p1", CANCELLED, 5, 0, 400 * PRICE},
                                 {"p0", ANSWERED, 100, 0, 100 * PRICE}},
                 2);
        } else {
            ends(&job, &(struct said){"p0", ANSWERED, 100, 0, 100 * PRICE}, 1);
        }
        world_forget_log(&w);
    }
    cr_assert_leq(of_second, all / 20 + 400 * PRICE);
    cr_assert_geq(stats().hedges_granted, 20);
    cr_assert_gt(stats().hedges_refused[HEDGE_NO_MONEY], 0);
    cr_assert_eq(stats().hedge_cost_nanousd, of_second);
}

Test(core_hedge, none_is_granted_that_would_come_too_late)
{
    go();
    answers("realtime", KNOWN);
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.deadline_in_ms = 1000;
    const struct id job = world_submit_event(&w, &event);
    const struct id other = submit("realtime");
    asks(&other); /* and p1 is known to take 5000 ms then */
    ends(&other, (struct said[]){{"p0", CANCELLED, 5000, 0, 0}, {"p1", ANSWERED, 5000, 0, 0}}, 2);
    asks(&job);
    cr_assert_not(is_granted(&job));
    cr_assert_eq(stats().hedges_refused[HEDGE_TOO_LATE], 1);
}

/* What is known of p1, for prompts of this size. */
static double slowest_of_second_ms(void)
{
    double most_ms = 0;
    for (size_t i = 0; i < w.core->upstreams_length; i++) {
        const struct upstream *upstream = w.core->upstreams[i];
        if (strcmp(upstream->provider, "p1") == 0) {
            const double ms = latency_quantile_ms(&upstream->latency, latency_size_of(10), 0.95);
            most_ms = ms > most_ms ? ms : most_ms;
        }
    }
    return most_ms;
}

/* Both calls run when the deadline ends the jobs: as many as make an upstream known. */
Test(core_hedge, second_calls_that_run_into_the_deadline_are_remembered)
{
    w.tiers[0].hedge_share_permille = 500;
    go();
    answers("realtime", KNOWN);
    for (int i = 0; i < 8; i++) {
        struct event event = world_submission(&w, 1, "realtime");
        event.as.submit.deadline_in_ms = 14000;
        event.as.submit.input_tokens = 10;
        event.as.submit.estimated_tokens = 100;
        const struct id job = world_submit_event(&w, &event);
        asks(&job);
        cr_assert(is_granted(&job));
    }
    cr_assert_eq(slowest_of_second_ms(), 0);
    world_advance(&w, 14000);
    cr_assert_eq(stats().concluded[WIRE__JOB_STATE__JOB_STATE_EXPIRED], 8);
    cr_assert_geq(slowest_of_second_ms(), 10000, "%f", slowest_of_second_ms());
}

Test(core_hedge, provider_that_is_down_is_not_asked)
{
    w.config.breaker.failures = 1;
    go();
    answers("realtime", KNOWN);
    const struct id other = submit("realtime");
    asks(&other);
    ends(&other,
         (struct said[]){{"p1", UNAVAILABLE, 5, 0, 0}, {"p0", ANSWERED, 100, 0, 100 * PRICE}}, 2);
    answers("realtime", 20);
    const struct id job = submit("realtime");
    asks(&job);
    cr_assert_not(is_granted(&job));
    cr_assert_eq(stats().hedges_refused[HEDGE_NOBODY], 1);
    cr_assert_eq(stats().hedges[HEDGE_FAILED], 1);
}

Test(core_hedge, providers_limit_holds_for_second_calls)
{
    w.providers[1].requests_per_min = 1;
    go();
    world_advance(&w, 1000);
    answers("realtime", 100);
    uint64_t granted = 0;
    for (int i = 0; i < 4; i++) {
        const struct id job = submit("realtime");
        asks(&job);
        granted += is_granted(&job);
    }
    cr_assert_leq(granted, 1);
    cr_assert_geq(stats().hedges_refused[HEDGE_NOBODY], 3);
}

/* ---- settling ---- */

Test(core_hedge, second_one_that_answers_concludes_the_job)
{
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    asks(&job);
    ends(&job,
         (struct said[]){{"p0", CANCELLED, 150, 0, 10 * PRICE},
                         {"p1", ANSWERED, 20, 0, 100 * PRICE}},
         2);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 1);
    cr_assert_eq(stats().hedges[HEDGE_WON], 1);
    cr_assert_eq(stats().hedge_cost_nanousd, 100 * PRICE);
    cr_assert_eq(second().answered, 1);
    cr_assert_eq(stats().attempts_failed, 0);
}

Test(core_hedge, loser_is_no_failure_of_its_provider)
{
    w.config.breaker.failures = 1;
    go();
    answers("realtime", 200);
    for (int i = 0; i < 5; i++) {
        const struct id job = submit("realtime");
        asks(&job);
        cr_assert(is_granted(&job));
        ends(&job,
             (struct said[]){{"p1", CANCELLED, 30, 0, 0}, {"p0", ANSWERED, 140, 0, 100 * PRICE}},
             2);
    }
    cr_assert_eq(second().failed, 0);
    cr_assert_eq(second().answered, 0);
}

Test(core_hedge, both_that_fail_are_tried_by_it_no_more)
{
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    asks(&job);
    ends(&job, (struct said[]){{"p1", UNAVAILABLE, 5, 0, 0}, {"p0", UNAVAILABLE, 200, 0, 0}}, 2);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, &job), 1);
    cr_assert_eq(stats().hedges[HEDGE_FAILED], 1);
}

Test(core_hedge, what_was_granted_and_not_called_is_given_back)
{
    w.providers[1].requests_per_min = 60;
    go();
    world_advance(&w, 2000);
    answers("realtime", 20);
    for (int i = 0; i < 3; i++) { /* one call is saved up, and one may go at once at p1 */
        const struct id job = submit("realtime");
        asks(&job);
        cr_assert(is_granted(&job));
        ends(&job, &(struct said){"p0", ANSWERED, 130, 0, 100 * PRICE}, 1);
    }
    cr_assert_eq(stats().hedges[HEDGE_LOST] + stats().hedges[HEDGE_WON], 0);
}

Test(core_hedge, loser_whose_cost_is_not_said_has_cost_what_was_expected)
{
    go();
    answers("realtime", 20); /* earn one call, and what it is expected to cost */
    const struct id job = submit("realtime");
    asks(&job);
    cr_assert(is_granted(&job));
    ends(&job, (struct said[]){{"p1", CANCELLED, 5, 0, 0}, {"p0", ANSWERED, 100, 0, 100 * PRICE}},
         2);
    for (int i = 0; i < 20; i++) { /* earn one call, and nothing else */
        const struct id free = submit("realtime");
        ends(&free, &(struct said){"p0", ANSWERED, 100, 0, 0}, 1);
    }
    const struct id next = submit("realtime");
    asks(&next);
    cr_assert_not(is_granted(&next));
    cr_assert_eq(stats().hedges_refused[HEDGE_NO_MONEY], 1);
}

Test(core_hedge, lease_that_is_lost_takes_both_permits_with_it)
{
    go();
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    asks(&job);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = PEER});
    world_worker(&w, PEER + 1, "v", 10);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, &job), 2);
    cr_assert_eq(world_lease(&w, &job).attempt, 2);
}

Test(core_hedge, slow_calls_that_were_overtaken_are_not_forgotten)
{
    w.tiers[0].hedge_share_permille = 500;
    go();
    int64_t after_ms = 0;
    for (int i = 0; i < 400; i++) { /* every fifth takes long, and is overtaken */
        const struct id job = submit("realtime");
        after_ms = dispatch_of(&job)->hedge_after_ms;
        const bool is_slow = i % 5 == 0 && after_ms > 0;
        if (is_slow) {
            asks(&job);
        }
        if (is_slow && is_granted(&job)) {
            ends(&job,
                 (struct said[]){{"p0", CANCELLED, (uint32_t)after_ms + 20, 0, 0},
                                 {"p1", ANSWERED, 20, 0, 0}},
                 2);
        } else {
            ends(&job, &(struct said){"p0", ANSWERED, is_slow ? 900 : 100, 0, 100 * PRICE}, 1);
        }
        world_forget_log(&w);
    }
    cr_assert_geq(after_ms, 120);
}

/* ---- the budget ---- */

Test(core_hedge, budget_saves_up_no_more_than_a_burst)
{
    struct hedge_budget budget = {0};
    for (int i = 0; i < 10000; i++) {
        hedge_budget_earn_call(&budget, 0.05);
    }
    int taken = 0;
    while (hedge_budget_has_call(&budget)) {
        cr_assert(hedge_budget_take(&budget, 0));
        taken++;
    }
    cr_assert_eq(taken, HEDGE_BURST);
}

Test(core_hedge, budget_is_within_its_shares_at_any_time)
{
    struct hedge_budget budget = {0};
    uint64_t random = 1, calls = 0, seconds = 0, cost = 0, of_seconds = 0;
    for (int i = 0; i < 100000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        const uint64_t one = 1 + (random >> 40) % 1000;
        calls++;
        cost += one;
        hedge_budget_earn_call(&budget, 0.02);
        hedge_budget_earn_cost(&budget, 0.02, one);
        if ((random >> 20) % 10 < 4 && hedge_budget_has_call(&budget) &&
            hedge_budget_take(&budget, one)) {
            const bool is_called = (random >> 30) % 4 > 0;
            if (is_called) {
                seconds++;
                of_seconds += one / 2;
                hedge_budget_settle(&budget, one, one / 2);
            } else {
                hedge_budget_give_back(&budget, one);
            }
        }
        cr_assert_leq((double)seconds, 0.02 * (double)calls + 1e-6);
        cr_assert_leq((double)of_seconds, 0.02 * (double)cost + 1e-6);
    }
    cr_assert_gt(seconds, 1000);
}

/* ---- what both cost ---- */

/* What one call with m0 may cost: a token for each byte of "work", and one of output. */
enum { WORST = 5 * PRICE };

static void start_limited(uint64_t daily)
{
    world_budget(&w, daily, 1000);
    w.config.cost = (struct config_cost){.keep_days = 10, .rows_max = 100};
    w.models[0].max_tokens_default = 1;
    w.now.unix_ms = INT64_C(1769860800000); /* 2026-01-31 12:00 UTC */
    go();
}

struct row {
    const char *provider;
    struct core_cost sum;
};

static void take_row(void *context, const struct core_cost_view *view)
{
    struct row *row = context;
    if (strcmp(view->provider, row->provider) == 0) {
        row->sum = *view->sum;
    }
}

static struct core_cost row_of(const char *provider)
{
    struct row row = {.provider = provider};
    core_visit_costs(w.core, take_row, &row);
    return row.sum;
}

/* The second one answers; the first was ended after 3 tokens of prompt and 2 of answer. */
static void second_answers(const struct id *job, uint64_t nanousd, uint64_t first_nanousd,
                           bool says_calls)
{
    Wire__Upstream upstreams[2] = {WIRE__UPSTREAM__INIT, WIRE__UPSTREAM__INIT};
    Wire__Call calls[2] = {WIRE__CALL__INIT, WIRE__CALL__INIT};
    const Wire__Call *refs[2] = {&calls[0], &calls[1]};
    Wire__Usage usage = WIRE__USAGE__INIT;
    for (size_t i = 0; i < 2; i++) {
        upstreams[i].provider = i == 0 ? "p0" : "p1";
        upstreams[i].model = "m0";
        calls[i].upstream = &upstreams[i];
        calls[i].error_code = "";
    }
    calls[0].outcome = CANCELLED;
    calls[0].is_estimated = true;
    calls[0].input_tokens = 3;
    calls[0].output_tokens = 2;
    calls[0].cost_nanousd = first_nanousd;
    calls[1].outcome = ANSWERED;
    calls[1].cost_nanousd = nanousd;
    usage.provider = "p1";
    usage.model = "m0";
    usage.input_tokens = 4;
    usage.output_tokens = 1;
    usage.cost_nanousd = nanousd + first_nanousd;
    usage.hedge_cost_nanousd = first_nanousd;
    world_turn(&w,
               &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                               .peer = PEER,
                               .as.attempt_result = {.lease = world_lease(&w, job),
                                                     .outcome = ANSWERED,
                                                     .error_code = "",
                                                     .error_text = "",
                                                     .usage = &usage,
                                                     .calls = refs,
                                                     .calls_length = says_calls ? 2 : 0}});
}

static struct id ask_for_second(void)
{
    answers("realtime", KNOWN);
    const struct id job = submit("realtime");
    asks(&job);
    return job;
}

Test(core_hedge, each_of_two_calls_is_booked_in_its_own_row)
{
    start_limited(1000 * 100 * PRICE);
    const struct id job = ask_for_second();
    cr_assert(is_granted(&job));
    const uint64_t before = world_purse(&w).day_nanousd;
    second_answers(&job, 700, 300, true);
    cr_assert_eq(row_of("p1").cost_nanousd, 700);
    cr_assert_eq(row_of("p1").calls, 1);
    cr_assert_eq(row_of("p1").estimated_nanousd, 0);
    cr_assert_eq(row_of("p0").estimated_nanousd, 300, "of the one that was ended");
    cr_assert_eq(row_of("p0").late_nanousd, 300);
    cr_assert_eq(row_of("p0").estimated_tokens, 5);
    cr_assert_eq(row_of("p0").estimated_calls, 1);
    cr_assert_eq(world_purse(&w).day_nanousd, before + 1000);
    second_answers(&job, 700, 300, true);
    cr_assert_eq(world_purse(&w).day_nanousd, before + 1000, "said again it is known");
}

Test(core_hedge, other_call_that_is_not_said_by_itself_is_an_estimate_all_the_same)
{
    start_limited(1000 * 100 * PRICE);
    const struct id job = ask_for_second();
    second_answers(&job, 700, 300, false);
    cr_assert_eq(row_of("p1").cost_nanousd, 1000);
    cr_assert_eq(row_of("p1").estimated_nanousd, 300);
    cr_assert_eq(row_of("p1").late_nanousd, 300);
}

Test(core_hedge, second_call_is_reserved_until_it_is_settled)
{
    start_limited(1000 * 100 * PRICE);
    const struct id job = ask_for_second();
    cr_assert_eq(world_purse(&w).reserved_nanousd, 2 * WORST);
    second_answers(&job, 700, 300, true);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 0);
}

Test(core_hedge, second_call_that_does_not_fit_a_budget_is_not_granted)
{
    start_limited(KNOWN * 100 * PRICE + 2 * WORST - 1);
    const struct id job = ask_for_second();
    cr_assert_not(is_granted(&job));
    cr_assert_eq(stats().hedges_refused[HEDGE_NO_MONEY], 1);
    cr_assert_eq(world_purse(&w).reserved_nanousd, WORST);
}

Test(core_hedge, second_call_that_just_fits_a_budget_is_granted)
{
    start_limited(KNOWN * 100 * PRICE + 2 * WORST);
    const struct id job = ask_for_second();
    cr_assert(is_granted(&job));
}

Test(core_hedge, from_the_soft_share_on_no_second_call_is_granted)
{
    start_limited(1000 * 100 * PRICE);
    w.budgets[0].soft_permille = 1;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    const struct id job = ask_for_second();
    cr_assert_not(is_granted(&job));
}

Test(core_hedge, lost_attempt_is_estimated_with_both_calls_over_a_restart)
{
    start_limited(1000 * 100 * PRICE);
    const struct id job = ask_for_second();
    const uint64_t before = world_purse(&w).day_nanousd;
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = PEER});
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 2 * WORST);
    world_advance(&w, w.config.broker.lease_ms + w.config.broker.reclaim_ms);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 0);
    cr_assert_eq(world_purse(&w).day_nanousd, before + 2 * WORST);
    cr_assert_eq(row_of("p0").estimated_nanousd, WORST);
    cr_assert_eq(row_of("p1").estimated_nanousd, WORST);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = PEER,
                                   .as.worker_hello = {.name = "w", .slots = 1}});
    second_answers(&job, 700, 300, true);
    cr_assert_eq(world_purse(&w).day_nanousd, before + 1000, "its worker's word takes the estimate's place");
    cr_assert_eq(row_of("p1").cost_nanousd, 700);
}

/* ---- streams that nobody reads on ---- */

/* One chunk that uses up what its stream may have, for a reader who takes none. */
static void pause_until_its_deadline(void)
{
    static char larger_than_a_log[2000];
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.input_tokens = 10;
    event.as.submit.stream = true;
    event.as.submit.stream_chunks = 1;
    const struct id job = world_submit_event(&w, &event);
    struct event chunk = {.kind = EVENT_CHUNK,
                          .peer = PEER,
                          .as.chunk.header = {.job_id = job, .attempt = 1}};
    for (uint32_t i = 0; i < 2; i++) {
        chunk.as.chunk.header.index = i;
        cr_assert_eq(
            blob_create(larger_than_a_log, sizeof(larger_than_a_log), &chunk.as.chunk.data), 0);
        world_turn(&w, &chunk);
        blob_unref(&chunk.as.chunk.data);
    }
    world_advance(&w, 600001);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_EXPIRED);
    world_forget_log(&w);
}

Test(core_hedge, stream_that_its_reader_held_until_its_deadline_says_nothing_of_its_provider)
{
    w.config.broker.stream_log_bytes_max = 1000;
    w.config.broker.lease_ms = 100000000; /* no heartbeats here */
    go();
    answers("realtime", KNOWN);
    struct id job = submit("realtime");
    const int64_t before_ms = dispatch_of(&job)->hedge_after_ms;
    cr_assert_gt(before_ms, 0);
    ends(&job, &(struct said){"p0", ANSWERED, 100, 0, 100 * PRICE}, 1);
    for (int i = 0; i < KNOWN; i++) {
        pause_until_its_deadline();
    }
    job = submit("realtime");
    cr_assert_eq(dispatch_of(&job)->hedge_after_ms, before_ms);
}
