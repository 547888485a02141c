/* Breakers, limits, failover, pauses: what the core makes of the calls that workers report. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "tests/unit/broker/core_world.h"

#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define DEFERRED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED
#define EXPIRED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED

static struct world w;
static struct config_route routes[1];
static char *alias_models[] = {"m1", "m2", "m0"};

/* m0 at p0, then at p1; m1 at p0; m2 at p1. The route `alias`: m1, m2, m0. Grades 50, 80, 20. */
static void start(void)
{
    world_init(&w);
    world_two_providers(&w);
    w.models[1] = (struct config_model){.name = "m1", .provider = "p0", .quality = 80};
    w.models[2] = (struct config_model){.name = "m2", .provider = "p1", .quality = 20};
    routes[0] = (struct config_route){
        .name = "alias", .choice = CHOICE_LISTED, .models = alias_models, .models_length = 3};
    w.config.routes = routes;
    w.config.routes_length = 1;
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_upstreams, .init = start, .fini = stop);

static struct id submit_to(const char *tier, const char *route)
{
    return world_submit_to(&w, 1, tier, route, NULL);
}

static const struct effect_dispatch *dispatch_of(const struct id *job)
{
    return world_dispatch(&w, job);
}

static void says(const struct id *job, const struct world_said *said)
{
    world_says(&w, job, said);
}

static void is_said(const struct id *job, Wire__AttemptOutcome outcome)
{
    says(job, &(struct world_said){.outcome = outcome});
}

static bool is_at(const struct id *job, const char *provider, const char *model)
{
    const struct effect_dispatch *dispatch = dispatch_of(job);
    return dispatch != NULL && strcmp(dispatch->provider, provider) == 0 &&
           strcmp(dispatch->model, model) == 0;
}

struct search {
    const char *provider, *model;
    struct core_upstream_view found;
};

static void look(void *context, const struct core_upstream_view *view)
{
    struct search *search = context;
    if (strcmp(view->provider, search->provider) == 0 && strcmp(view->model, search->model) == 0) {
        search->found = *view;
    }
}

static struct core_upstream_view upstream(const char *provider, const char *model)
{
    struct search search = {.provider = provider, .model = model};
    core_visit_upstreams(w.core, w.now, look, &search);
    cr_assert_not_null(search.found.provider);
    return search.found;
}

/* Fails all that m1 at p0 is asked until its breaker opens. */
static void break_m1(void)
{
    for (int i = 0; i < 5; i++) {
        const struct id job = submit_to("standard", "m1");
        is_said(&job, UNAVAILABLE);
    }
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN);
}

/* Time with a worker that lives. */
static void pass(int64_t ms)
{
    for (; ms > 0; ms -= 1000) {
        world_advance(&w, ms < 1000 ? ms : 1000);
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT, .peer = 100});
    }
}

Test(core_upstreams, dispatch_names_the_first_candidate)
{
    world_go(&w);
    const struct id named = submit_to("standard", "m0");
    const struct id alias = submit_to("standard", "alias");
    cr_assert(is_at(&named, "p0", "m0"));
    cr_assert(is_at(&alias, "p0", "m1"));
    cr_assert_not(dispatch_of(&named)->is_probe);
}

Test(core_upstreams, failure_goes_to_the_next_provider_at_once)
{
    world_go(&w);
    const struct id job = submit_to("standard", "m0");
    is_said(&job, UNAVAILABLE);
    cr_assert(is_at(&job, "p1", "m0"));
    cr_assert_eq(dispatch_of(&job)->lease.attempt, 2);
    is_said(&job, ANSWERED);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    cr_assert_eq(world_stats(&w).tiers[1].failovers, 1);
}

Test(core_upstreams, after_the_last_candidate_the_job_backs_off_and_begins_anew)
{
    world_go(&w);
    const struct id job = submit_to("standard", "m0");
    is_said(&job, UNAVAILABLE);
    is_said(&job, UNAVAILABLE);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    pass(3000);
    cr_assert(is_at(&job, "p0", "m0"));
    cr_assert_eq(dispatch_of(&job)->lease.attempt, 3);
}

Test(core_upstreams, stands_in_only_what_meets_the_quality_floor)
{
    w.tiers[1].quality_min = 30;
    world_go(&w);
    const struct id job = submit_to("standard", "alias");
    is_said(&job, UNAVAILABLE);
    cr_assert(is_at(&job, "p0", "m0")); /* m2 has 20 */
    const struct id other = submit_to("background", "alias");
    is_said(&other, UNAVAILABLE);
    cr_assert(is_at(&other, "p1", "m2"));
}

Test(core_upstreams, a_named_model_is_not_replaced_by_another)
{
    world_go(&w);
    const struct id job = submit_to("standard", "m1");
    is_said(&job, UNAVAILABLE);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
}

Test(core_upstreams, configured_fallback_stands_in_for_a_named_model)
{
    static char *fallback[] = {"m2"};
    w.models[1].fallback = fallback;
    w.models[1].fallback_length = 1;
    world_go(&w);
    const struct id job = submit_to("standard", "m1");
    is_said(&job, UNAVAILABLE);
    cr_assert(is_at(&job, "p1", "m2"));
}

Test(core_upstreams, nothing_goes_to_what_is_down_but_single_probes)
{
    world_go(&w);
    break_m1();
    struct id jobs[20];
    for (int i = 0; i < 20; i++) {
        jobs[i] = submit_to("standard", "m1");
        cr_assert_null(dispatch_of(&jobs[i]));
    }
    int64_t waited_ms = 0;
    world_forget_log(&w);
    while (world_count(&w, EFFECT_DISPATCH, NULL) == 0) {
        pass(10);
        waited_ms += 10;
    }
    cr_assert(waited_ms >= 800 && waited_ms <= 1010, "%ld", waited_ms);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 1);
    const struct world_effect *probe = world_find(&w, EFFECT_DISPATCH, NULL, 0);
    cr_assert(probe->effect.as.dispatch.is_probe);
    pass(5000);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 1, "another went while one was under way");
}

/*
 * Two requests that their upstream cannot answer, first in line, and others behind them, of this
 * tier: how many probes go before one of the others is asked.
 */
static uint64_t probes_until_another_is_asked(const char *tier)
{
    struct id bad[2], good;
    for (size_t i = 0; i < 2; i++) {
        bad[i] = submit_to("standard", "m1");
    }
    for (int i = 0; i < 3; i++) {
        const struct id job = submit_to("standard", "m1");
        is_said(&job, UNAVAILABLE);
        world_job_event(&w, EVENT_CANCEL, 1, &job);
    }
    is_said(&bad[0], UNAVAILABLE);
    is_said(&bad[1], UNAVAILABLE);
    good = submit_to(tier, "m1");
    for (int i = 0; i < 30000 && dispatch_of(&good) == NULL; i++) {
        pass(10);
        for (size_t at = 0; at < 2; at++) {
            if (world_state(&w, &bad[at]) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
                is_said(&bad[at], UNAVAILABLE);
            }
        }
    }
    cr_assert_not_null(dispatch_of(&good));
    return upstream("p0", "m1").counts.probes;
}

Test(core_upstreams, requests_that_end_their_upstream_are_not_each_probe)
{
    world_go(&w);
    cr_assert_eq(probes_until_another_is_asked("standard"), 1);
}

Test(core_upstreams, requests_that_end_their_upstream_hold_no_other_tier)
{
    world_go(&w);
    cr_assert_eq(probes_until_another_is_asked("background"), 1);
}

Test(core_upstreams, whoever_failed_probes_when_nobody_else_waits)
{
    world_go(&w);
    break_m1();
    world_forget_log(&w);
    int64_t waited_ms = 0;
    while (world_count(&w, EFFECT_DISPATCH, NULL) == 0) {
        pass(10);
        waited_ms += 10;
    }
    cr_assert_leq(waited_ms, 1010 + 260, "%ld", waited_ms);
}

static int64_t waits_of(const struct id *job)
{
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, job, w.now, &view), 0);
    return view.waits_ms;
}

Test(core_upstreams, those_that_failed_in_an_outage_do_not_come_back_at_once)
{
    enum { MANY = 20 };
    world_go(&w);
    struct id jobs[MANY];
    for (int i = 0; i < MANY; i++) {
        jobs[i] = submit_to("standard", "m1");
    }
    for (int i = 0; i < MANY; i++) {
        is_said(&jobs[i], UNAVAILABLE);
    }
    int together = 0;
    for (int i = 0; i < MANY; i++) {
        together += waits_of(&jobs[i]) == waits_of(&jobs[MANY - 1]);
    }
    cr_assert_leq(together, 3);
}

Test(core_upstreams, probe_that_was_given_up_decides_nothing)
{
    world_go(&w);
    break_m1();
    for (int i = 0; i < 5; i++) {
        (void)submit_to("standard", "m1");
    }
    world_forget_log(&w);
    while (world_count(&w, EFFECT_DISPATCH, NULL) == 0) {
        pass(10);
    }
    const struct id first =
        world_find(&w, EFFECT_DISPATCH, NULL, 0)->effect.as.dispatch.lease.job_id;
    const struct lease_ref held = world_lease(&w, &first);
    for (int i = 0; world_count(&w, EFFECT_DISPATCH, NULL) == 1; i++) {
        cr_assert_lt(i, 20);
        pass(1000);
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT,
                                       .peer = 100,
                                       .as.worker_heartbeat = {.held = &held, .held_length = 1}});
    }
    is_said(&first, UNAVAILABLE);
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN);
    pass(3000);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 2,
                 "a third while the second is under way");
}

/* What a probe comes to that says nothing: the next may go, whether it was called or not. */
static void check_probe_is_let_go(const struct world_said *said)
{
    world_go(&w);
    break_m1();
    (void)submit_to("standard", "m1");
    world_forget_log(&w);
    while (world_count(&w, EFFECT_DISPATCH, NULL) == 0) {
        pass(10);
    }
    const struct id probe =
        world_find(&w, EFFECT_DISPATCH, NULL, 0)->effect.as.dispatch.lease.job_id;
    says(&probe, said);
    const struct id next = submit_to("standard", "m1");
    pass(100);
    cr_assert(world_count(&w, EFFECT_DISPATCH, NULL) > 1 || dispatch_of(&next) != NULL);
}

Test(core_upstreams, probe_that_calls_another_is_let_go)
{
    check_probe_is_let_go(&(struct world_said){.outcome = ANSWERED, .provider = "p1"});
}

Test(core_upstreams, probe_whose_call_was_put_off_is_let_go)
{
    check_probe_is_let_go(&(struct world_said){.outcome = DEFERRED});
}

Test(core_upstreams, probe_that_was_given_up_and_fails_late_ends_no_later_one)
{
    w.config.broker.lease_ms = 1000000; /* no heartbeats of what is held here */
    world_go(&w);
    break_m1();
    struct lease_ref first = {0};
    for (int i = 0; i < 3; i++) {
        (void)submit_to("standard", "m1");
    }
    for (int i = 0; i < 2; i++) {
        world_forget_log(&w);
        while (world_count(&w, EFFECT_DISPATCH, NULL) == 0) {
            pass(10);
        }
        if (i == 0) {
            first = world_find(&w, EFFECT_DISPATCH, NULL, 0)->effect.as.dispatch.lease;
            pass(w.config.breaker.open_max_ms - 1000);
        }
    }
    const uint64_t gone = upstream("p0", "m1").counts.probes;
    Wire__Upstream named = WIRE__UPSTREAM__INIT;
    named.provider = "p0";
    named.model = "m1";
    Wire__Call call = WIRE__CALL__INIT;
    call.upstream = &named;
    call.outcome = UNAVAILABLE;
    const Wire__Call *const calls[] = {&call};
    world_turn(&w, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                                   .peer = 100,
                                   .as.attempt_result = {.lease = first,
                                                         .outcome = UNAVAILABLE,
                                                         .error_code = "code",
                                                         .error_text = "text",
                                                         .calls = calls,
                                                         .calls_length = 1}});
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN);
    pass(w.config.breaker.open_max_ms - 2000);
    cr_assert_eq(upstream("p0", "m1").counts.probes, gone, "a third went while one was under way");
}

Test(core_upstreams, permit_of_an_attempt_that_calls_another_is_given_back)
{
    w.providers[0].requests_per_min = 60;
    world_go(&w);
    pass(2000);
    for (int i = 0; i < 30; i++) {
        const struct id job = submit_to("standard", "m1");
        says(&job, &(struct world_said){.outcome = ANSWERED, .provider = "p1"});
    }
}

Test(core_upstreams, quiet_cluster_buries_no_job_in_an_outage)
{
    w.tiers[1].attempts_max = 3; /* fewer than the failures that open a breaker */
    world_go(&w);
    const struct id job = submit_to("standard", "alias");
    for (int i = 0; i < 60; i++) {
        if (world_state(&w, &job) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
            is_said(&job, UNAVAILABLE);
        }
        pass(1000);
    }
    cr_assert_neq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_DEAD);
    for (int i = 0; world_state(&w, &job) != WIRE__JOB_STATE__JOB_STATE_LEASED; i++) {
        cr_assert_lt(i, 120);
        pass(1000);
    }
    is_said(&job, ANSWERED);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
}

Test(core_upstreams, job_that_fails_while_others_are_answered_is_a_dead_letter)
{
    w.tiers[1].attempts_max = 3;
    world_go(&w);
    const struct id job = submit_to("standard", "m1");
    for (int i = 0; i < 60 && world_state(&w, &job) != WIRE__JOB_STATE__JOB_STATE_DEAD; i++) {
        if (world_state(&w, &job) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
            const struct id other = submit_to("standard", "m1");
            is_said(&other, ANSWERED);
            is_said(&job, UNAVAILABLE);
        }
        pass(1000);
    }
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_DEAD);
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_eq(view.attempts, 3);
}

Test(core_upstreams, outage_burns_no_attempts)
{
    world_go(&w);
    break_m1();
    const struct id job = submit_to("standard", "m1");
    for (int i = 0; i < 60; i++) {
        pass(1000);
        if (world_state(&w, &job) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
            is_said(&job, UNAVAILABLE);
        }
    }
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_eq(view.attempts, 0);
    cr_assert_leq(upstream("p0", "m1").counts.probes, 12);
    cr_assert_geq(upstream("p0", "m1").counts.probes, 6);
}

Test(core_upstreams, call_that_reached_nobody_burns_no_attempt)
{
    w.config.breaker.failures = 100; /* it is long before an outage is recognised */
    world_go(&w);
    const struct id job = submit_to("standard", "m1");
    for (int i = 0; i < 10; i++) {
        says(&job,
             &(struct world_said){.outcome = UNAVAILABLE, .code = i % 2 == 0 ? "connect" : "tls"});
        pass(10000);
        cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
    }
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_eq(view.attempts, 1, "the one that runs");
}

/* m1 at p0 has been down while so many jobs came for it, and its probe is answered. */
static void recover_m1_under(int jobs)
{
    break_m1();
    for (int i = 0; i < jobs; i++) {
        (void)submit_to("standard", "m1");
    }
    world_forget_log(&w);
    while (world_count(&w, EFFECT_DISPATCH, NULL) == 0) {
        pass(10);
    }
    const struct id probe =
        world_find(&w, EFFECT_DISPATCH, NULL, 0)->effect.as.dispatch.lease.job_id;
    is_said(&probe, ANSWERED);
}

Test(core_upstreams, probe_that_succeeds_reopens_slowly)
{
    world_go(&w);
    recover_m1_under(300);
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_SLOW_START);
    world_forget_log(&w);
    pass(500);
    const size_t soon = world_count(&w, EFFECT_DISPATCH, NULL);
    cr_assert(soon >= 5 && soon <= 25, "%zu", soon);
    pass(3500);
    cr_assert_gt(world_count(&w, EFFECT_DISPATCH, NULL), 150);
}

Test(core_upstreams, slow_start_refuses_nothing_that_has_time)
{
    world_go(&w);
    recover_m1_under(20000);
    for (int i = 0; i < 40; i++) { /* the rate of the first seconds would take an hour */
        pass(100);
        const struct id job = submit_to("standard", "m1");
        cr_assert_null(world_find(&w, EFFECT_REJECTED, &job, 1));
    }
}

Test(core_upstreams, what_cannot_be_served_in_time_is_refused_though_nobody_asked_there_before)
{
    world_go(&w);
    break_m1();
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.route = "m1";
    event.as.submit.deadline_in_ms = 300;
    const struct id job = world_submit_event(&w, &event);
    const struct world_effect *rejected = world_find(&w, EFFECT_REJECTED, &job, 1);
    cr_assert_not_null(rejected);
    cr_assert_eq(rejected->effect.as.rejected.reason, WIRE__REJECT_REASON__REJECT_DEADLINE);
    cr_assert_gt(rejected->effect.as.rejected.retry_after_ms, 0);
}

Test(core_upstreams, queue_says_that_it_is_paused_and_why)
{
    world_go(&w);
    break_m1();
    const struct id job = submit_to("standard", "m1");
    const struct world_effect *note = NULL;
    for (size_t i = 0; i < w.log_length; i++) {
        if (w.log[i].effect.kind == EFFECT_NOTE &&
            w.log[i].effect.as.note.note == NOTE_QUEUE_PAUSED) {
            note = &w.log[i];
        }
    }
    cr_assert_not_null(note);
    world_job_event(&w, EVENT_WAIT, 1, &job);
    const struct world_effect *status = world_find(&w, EFFECT_STATUS, &job, 1);
    cr_assert_not_null(status);
}

Test(core_upstreams, job_that_expires_in_an_outage_names_it)
{
    world_go(&w);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "m1";
    event.as.submit.deadline_in_ms = 600;
    for (int i = 0; i < 4; i++) {
        const struct id job = submit_to("standard", "m1");
        is_said(&job, UNAVAILABLE);
    }
    const struct id job = world_submit_event(&w, &event);
    is_said(&job, UNAVAILABLE);
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN);
    pass(600);
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &job, 1);
    cr_assert_not_null(result);
    cr_assert_eq(result->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_EXPIRED);
    cr_assert(strstr(result->text, "while it waited: its route is paused: p0/m1 ") != NULL, "%s",
              result->text);
}

Test(core_upstreams, rate_limit_opens_no_breaker_and_burns_no_attempt)
{
    world_go(&w);
    const struct id job = submit_to("standard", "m1");
    for (int i = 0; i < 30; i++) {
        if (world_state(&w, &job) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
            is_said(&job, RATE_LIMITED);
        }
        pass(2000);
    }
    const struct core_upstream_view view = upstream("p0", "m1");
    cr_assert_eq(view.counts.opened, 0);
    cr_assert_gt(view.counts.rate_limited, 5);
    cr_assert_neq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_DEAD);
}

Test(core_upstreams, limit_that_is_over_is_not_why_a_job_waits)
{
    w.tiers[2].backoff_first_ms = 600000;
    w.tiers[2].backoff_max_ms = 600000;
    world_go(&w);
    const struct id job = submit_to("background", "m1");
    says(&job, &(struct world_said){.outcome = RATE_LIMITED, .retry_after_ms = 200});
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert(strstr(view.why, "p0/m1 is rate limited for ") != NULL, "%s", view.why);
    pass(300);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_str_eq(view.why, "the last attempt failed; it waits for the next");
}

Test(core_upstreams, retry_after_holds_everybody_back)
{
    world_go(&w);
    const struct id first = submit_to("standard", "m1");
    says(&first, &(struct world_said){.outcome = RATE_LIMITED, .retry_after_ms = 7000});
    cr_assert_str_eq(upstream("p0", "m1").error_code, "status_503", "what it said last");
    const struct id second = submit_to("background", "m1");
    pass(6900);
    cr_assert_null(dispatch_of(&second));
    pass(2000);
    cr_assert_not_null(dispatch_of(&second));
}

enum { DAY_MS = 24 * 3600 * 1000 };

/* A job that can wait for longer than a day. */
static struct id submit_patient(int64_t delay_ms)
{
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "m1";
    event.as.submit.deadline_in_ms = INT64_C(2) * DAY_MS;
    event.as.submit.delay_ms = delay_ms;
    return world_submit_event(&w, &event);
}

static void reset_upstream(const char *provider, const char *model)
{
    const struct event event = {.kind = EVENT_UPSTREAM_RESET,
                                .as.upstream = {.provider = provider, .model = model}};
    world_turn(&w, &event);
}

Test(core_upstreams, reset_ends_a_rest_for_all_who_wait_and_for_a_restart)
{
    world_go(&w);
    const struct id first = submit_patient(0);
    says(&first, &(struct world_said){.outcome = RATE_LIMITED, .retry_after_ms = DAY_MS});
    const struct id second = submit_patient(0);
    cr_assert_null(dispatch_of(&second));
    cr_assert_eq(world_records(&w, STORE_META), 1);
    world_forget_log(&w);
    reset_upstream("p0", "m0");
    cr_assert_gt(upstream("p0", "m1").blocked_ms, 0, "another one was meant");

    reset_upstream("p0", "m1");
    cr_assert_eq(upstream("p0", "m1").blocked_ms, 0);
    cr_assert_not_null(world_find(&w, EFFECT_PUBLISH, NULL, 0));
    cr_assert_eq(world_records(&w, STORE_META), 0);
    pass(2000);
    cr_assert_not_null(dispatch_of(&first), "that job was told to wait itself");
    is_said(&first, ANSWERED);
    pass(2000);
    cr_assert_not_null(dispatch_of(&second));
    world_restart(&w);
    cr_assert_eq(upstream("p0", "m1").blocked_ms, 0);
}

Test(core_upstreams, reset_leaves_alone_who_asked_for_a_delay)
{
    world_go(&w);
    const struct id limited = submit_patient(0);
    says(&limited, &(struct world_said){.outcome = RATE_LIMITED, .retry_after_ms = DAY_MS});
    const struct id delayed = submit_patient(20000);
    world_forget_log(&w);
    reset_upstream(NULL, NULL);
    pass(2000);
    is_said(&limited, ANSWERED);
    pass(17000);
    cr_assert_null(dispatch_of(&delayed));
    pass(2000);
    cr_assert_not_null(dispatch_of(&delayed));
}

Test(core_upstreams, reset_of_a_breaker_probes_now_and_closes_nothing)
{
    world_go(&w);
    break_m1();
    for (int i = 0; i < 3; i++) {
        (void)submit_to("standard", "m1");
    }
    world_forget_log(&w);
    reset_upstream(NULL, NULL);
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN);
    cr_assert_eq(world_records(&w, STORE_META), 1, "it is not known to be up");
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 1);
    const struct effect_dispatch *probe =
        &world_find(&w, EFFECT_DISPATCH, NULL, 0)->effect.as.dispatch;
    cr_assert(probe->is_probe);
    const struct id job = probe->lease.job_id;
    is_said(&job, UNAVAILABLE);
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN);
}

Test(core_upstreams, reset_of_what_is_up_says_nothing)
{
    world_go(&w);
    world_forget_log(&w);
    reset_upstream(NULL, NULL);
    cr_assert_eq(world_count(&w, EFFECT_NOTE, NULL) + world_count(&w, EFFECT_PUBLISH, NULL), 0);
}

Test(core_upstreams, configured_limit_holds_over_all_models_of_the_key)
{
    w.providers[0].requests_per_min = 60;
    world_go(&w);
    for (int i = 0; i < 100; i++) {
        (void)submit_to("standard", i % 2 == 0 ? "m0" : "m1");
    }
    world_forget_log(&w);
    size_t at_p0 = 0;
    pass(60000);
    for (size_t i = 0; i < w.log_length; i++) {
        at_p0 += w.log[i].effect.kind == EFFECT_DISPATCH &&
                 strcmp(w.log[i].effect.as.dispatch.provider, "p0") == 0;
    }
    cr_assert(at_p0 >= 57 && at_p0 <= 60, "%zu", at_p0);
}

Test(core_upstreams, permit_that_was_not_used_is_given_back)
{
    w.providers[0].requests_per_min = 60;
    world_go(&w);
    pass(2000);
    for (int i = 0; i < 30; i++) { /* from the cache: no call */
        const struct id job = submit_to("standard", "m1");
        const struct lease_ref lease = world_lease(&w, &job);
        world_result(&w, 100, &lease, ANSWERED, 0);
    }
}

Test(core_upstreams, learned_limit_is_held)
{
    world_go(&w);
    Wire__RateLimits limits = WIRE__RATE_LIMITS__INIT;
    limits.requests_per_min = 120;
    const struct id first = submit_to("standard", "m1");
    says(&first, &(struct world_said){.outcome = ANSWERED, .limits = &limits});
    for (int i = 0; i < 300; i++) {
        (void)submit_to("standard", "m1");
    }
    world_forget_log(&w);
    pass(60000);
    const size_t dispatched = world_count(&w, EFFECT_DISPATCH, NULL);
    cr_assert(dispatched >= 115 && dispatched <= 120, "%zu", dispatched);
}

Test(core_upstreams, tokens_are_settled_by_what_was_used)
{
    w.providers[0].tokens_per_min = 6000; /* 100 a second */
    world_go(&w);
    pass(5000);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "m1";
    event.as.submit.estimated_tokens = 100;
    const struct id first = world_submit_event(&w, &event);
    says(&first, &(struct world_said){.outcome = ANSWERED, .tokens = 3000});
    const struct id second = submit_to("standard", "m1");
    pass(20000);
    cr_assert_null(dispatch_of(&second), "a debt of 2900 tokens takes 29 s");
    pass(12000);
    cr_assert_not_null(dispatch_of(&second));
}

/* One that it shared in vain, and its own. */
Test(core_upstreams, a_second_call_of_an_attempt_is_settled_beside_its_permit)
{
    w.providers[0].tokens_per_min = 6000; /* 100 a second */
    world_go(&w);
    pass(5000);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "m1";
    event.as.submit.estimated_tokens = 1000;
    const struct id first = event.as.submit.job_id;
    world_submit_event(&w, &event);
    says(&first, &(struct world_said){.outcome = ANSWERED, .tokens = 1000, .is_called_twice = true});
    const struct id second = submit_to("standard", "m1");
    pass(13000);
    cr_assert_null(dispatch_of(&second), "a debt of 1900 tokens takes 19 s");
    pass(12000);
    cr_assert_not_null(dispatch_of(&second));
}

/* Small jobs take what there is as it comes; a large one has to find its turn all the same. */
Test(core_upstreams, large_jobs_do_not_starve_beside_small_ones_of_another_queue)
{
    w.providers[0].tokens_per_min = 60000;
    world_go(&w);
    for (int i = 0; i < 8000; i++) {
        struct event event = world_submission(&w, 1, i < 200 ? "realtime" : "background");
        event.as.submit.route = "m1";
        event.as.submit.estimated_tokens = i < 200 ? 1000 : 10;
        event.as.submit.deadline_in_ms = 3600000;
        world_submit_event(&w, &event);
    }
    world_forget_log(&w);
    pass(60000);
    size_t large = 0, tokens = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        if (w.log[i].effect.kind == EFFECT_DISPATCH) {
            const uint32_t taken = w.log[i].effect.as.dispatch.estimated_tokens;
            large += taken == 1000;
            tokens += taken;
        }
    }
    cr_assert_gt(large, 40, "%zu", large);
    cr_assert_leq(tokens, 60000 + 1000, "%zu", tokens);
}

Test(core_upstreams, what_nobody_believes_blocks_a_provider_for_a_minute_at_most)
{
    w.providers[0].tokens_per_min = 6000;
    world_go(&w);
    pass(5000);
    const struct id first = submit_to("standard", "m1");
    says(&first, &(struct world_said){.outcome = ANSWERED, .tokens = UINT64_MAX});
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "m1";
    event.as.submit.estimated_tokens = UINT32_MAX;
    const struct id second = world_submit_event(&w, &event);
    pass(70000);
    cr_assert_not_null(dispatch_of(&second));
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_worker(&w, 100, "w", 1000);
    pass(70000);
    cr_assert_not_null(world_find(&w, EFFECT_DISPATCH, &second, 0));
    cr_assert_eq(dispatch_of(&second)->lease.attempt, 2);
}

Test(core_upstreams, worker_at_fault_is_set_aside_and_the_upstream_stays_open_to_others)
{
    world_go(&w);
    world_worker(&w, 101, "broken", 1000);
    int broken = 0;
    for (int i = 0; i < 40; i++) {
        pass(1);
        const struct id job = submit_to("standard", "m1");
        const struct world_effect *dispatch = world_find(&w, EFFECT_DISPATCH, &job, 0);
        cr_assert_not_null(dispatch);
        broken += dispatch->effect.peer == 101;
        says(&job,
             &(struct world_said){.outcome = dispatch->effect.peer == 101 ? UNAVAILABLE : ANSWERED,
                                  .peer = dispatch->effect.peer});
    }
    cr_assert_leq(broken, 8);
    cr_assert_eq(upstream("p0", "m1").counts.opened, 0);
}

Test(core_upstreams, outage_for_all_sets_no_worker_aside)
{
    world_go(&w);
    world_worker(&w, 101, "other", 1000);
    for (int i = 0; i < 20; i++) {
        const struct id job = submit_to("standard", "m1");
        const uint64_t peer = world_find(&w, EFFECT_DISPATCH, &job, 0)->effect.peer;
        says(&job, &(struct world_said){.outcome = ANSWERED, .peer = peer});
    }
    struct id jobs[20];
    for (int i = 0; i < 20; i++) {
        jobs[i] = submit_to("standard", "m1");
    }
    pass(100);
    for (int i = 0; i < 20; i += 2) { /* one worker's failures come first */
        const uint64_t peer = world_find(&w, EFFECT_DISPATCH, &jobs[i], 0)->effect.peer;
        says(&jobs[i], &(struct world_said){.outcome = UNAVAILABLE, .peer = peer});
    }
    cr_assert_eq(upstream("p0", "m1").counts.opened, 1);
    for (size_t i = 0; i < w.log_length; i++) {
        cr_assert(w.log[i].effect.kind != EFFECT_NOTE ||
                  w.log[i].effect.as.note.note != NOTE_WORKER_SET_ASIDE);
    }
}

Test(core_upstreams, hanging_provider_is_found_by_calls_given_up)
{
    world_go(&w);
    for (int i = 0; i < 5; i++) {
        const struct id job = submit_to("standard", "m1");
        says(&job, &(struct world_said){.outcome = ANSWERED, .call_ms = 500});
    }
    for (int i = 0; i < 5; i++) {
        const struct id job = submit_to("standard", "m1");
        says(&job, &(struct world_said){.outcome = EXPIRED, .call_ms = 900});
    }
    cr_assert_eq(upstream("p0", "m1").counts.opened, 0);
    for (int i = 0; i < 5; i++) {
        const struct id job = submit_to("standard", "m1");
        says(&job, &(struct world_said){.outcome = EXPIRED, .call_ms = 5000});
    }
    cr_assert_eq(upstream("p0", "m1").counts.opened, 1);
}

Test(core_upstreams, what_is_down_is_down_after_a_restart)
{
    world_go(&w);
    break_m1();
    cr_assert_eq(world_records(&w, STORE_META), 1);
    world_restart(&w);
    cr_assert_eq(upstream("p0", "m1").state, WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN);
    cr_assert_gt(upstream("p0", "m1").blocked_ms, 0);
}

Test(core_upstreams, outage_burns_no_attempt_of_a_lease_from_before_a_restart)
{
    world_go(&w);
    const struct id job = submit_to("standard", "m1");
    const struct effect_dispatch before = *dispatch_of(&job);
    pass(1000); /* its lease is recorded */
    break_m1();
    world_restart(&w);
    const struct lease_ref held = before.lease;
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = 100,
                                   .as.worker_hello = {
                                       .name = "w", .slots = 10, .held = &held, .held_length = 1}});
    Wire__Upstream name = WIRE__UPSTREAM__INIT;
    name.provider = (char *)"p0";
    name.model = (char *)"m1";
    Wire__Call call = WIRE__CALL__INIT;
    call.upstream = &name;
    call.outcome = UNAVAILABLE;
    const Wire__Call *const calls[] = {&call};
    world_turn(&w, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                                   .peer = 100,
                                   .as.attempt_result = {.lease = held,
                                                         .outcome = UNAVAILABLE,
                                                         .error_code = "code",
                                                         .error_text = "text",
                                                         .calls = calls,
                                                         .calls_length = 1}});
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_eq(view.state, WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    cr_assert_eq(view.attempts, 0);
}

Test(core_upstreams, record_goes_when_it_is_up_again)
{
    world_go(&w);
    break_m1();
    const struct id job = submit_to("standard", "m1");
    while (dispatch_of(&job) == NULL) {
        pass(10);
        const struct world_effect *probe = world_find(&w, EFFECT_DISPATCH, NULL, 0);
        if (probe->effect.as.dispatch.is_probe) {
            const struct id probed = probe->effect.as.dispatch.lease.job_id;
            is_said(&probed, ANSWERED);
            break;
        }
    }
    cr_assert_eq(world_records(&w, STORE_META), 0);
}

Test(core_upstreams, retries_stay_within_the_budget)
{
    w.config.retries =
        (struct config_retries){.share_permille = 100, .least_per_min = 6, .burst = 3};
    w.config.breaker.failures = 10000; /* it stays closed: the budget alone holds them */
    w.config.breaker.calls_min = 10000;
    w.tiers[1].attempts_max = 100;
    world_go(&w);
    struct id jobs[50];
    for (int i = 0; i < 50; i++) {
        jobs[i] = submit_to("standard", "m1");
    }
    for (int second = 0; second < 60; second++) {
        for (int i = 0; i < 50; i++) {
            if (world_state(&w, &jobs[i]) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
                is_said(&jobs[i], UNAVAILABLE);
            }
        }
        const struct id good = submit_to("background", "m1");
        if (dispatch_of(&good) != NULL) {
            is_said(&good, ANSWERED);
        }
        pass(1000);
    }
    const uint64_t retries = world_stats(&w).tiers[1].retries;
    cr_assert_leq(retries, (uint64_t)(0.1 * 110 + 6 + 3 + 1), "%lu", retries);
    cr_assert_gt(retries, 5);
    cr_assert_gt(world_stats(&w).tiers[1].retries_held, 0);
}

Test(core_upstreams, route_that_is_down_blocks_no_other)
{
    world_go(&w);
    break_m1();
    (void)submit_to("standard", "m1");
    const struct id other = submit_to("standard", "m2");
    cr_assert(is_at(&other, "p1", "m2"));
}

Test(core_upstreams, alias_goes_around_what_is_down_and_probes_it)
{
    world_go(&w);
    for (int i = 0; i < 5; i++) {
        const struct id job = submit_to("standard", "alias");
        is_said(&job, UNAVAILABLE);
        cr_assert(is_at(&job, "p1", "m2"));
    }
    const struct id job = submit_to("standard", "alias");
    cr_assert(is_at(&job, "p1", "m2"));
    pass(1500);
    const struct id probe = submit_to("standard", "alias");
    cr_assert(is_at(&probe, "p0", "m1"));
    cr_assert(dispatch_of(&probe)->is_probe);
    is_said(&probe, UNAVAILABLE);
    cr_assert(is_at(&probe, "p1", "m2"));
}

Test(core_upstreams, worker_that_gives_back_for_an_open_upstream_is_not_set_aside)
{
    world_go(&w);
    const struct id job = submit_to("standard", "m1");
    const struct lease_ref lease = world_lease(&w, &job);
    world_turn(&w, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                                   .peer = 100,
                                   .as.attempt_result = {.lease = lease,
                                                         .outcome = DEFERRED,
                                                         .error_code = "upstream_open",
                                                         .error_text = ""}});
    const struct id other = submit_to("standard", "m2");
    cr_assert_not_null(dispatch_of(&other));
}

Test(core_upstreams, reload_changes_candidates_and_limits)
{
    world_go(&w);
    w.models[0].provider = "p1";
    w.models[0].failover_length = 0;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    const struct id job = submit_to("standard", "m0");
    cr_assert(is_at(&job, "p1", "m0"));
}

static void count_paused(void *context, const struct core_queue_view *view)
{
    *(size_t *)context += view->is_blocked;
}

static size_t queues_paused(void)
{
    size_t paused = 0;
    core_visit_queues(w.core, count_paused, &paused);
    return paused;
}

Test(core_upstreams, queue_is_not_paused_for_what_a_reload_took_away)
{
    world_go(&w);
    break_m1();
    const struct id job = submit_to("standard", "m1");
    cr_assert_null(dispatch_of(&job));
    cr_assert_eq(queues_paused(), 1);
    w.models[1].provider = NULL; /* the worker chooses */
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_tick(&w);
    cr_assert_not_null(dispatch_of(&job));
    cr_assert_eq(queues_paused(), 0);
}
