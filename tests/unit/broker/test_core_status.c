/* Where a job stands, as its tenant and an operator are told. */
#include <criterion/criterion.h>
#include <string.h>
#include "tests/unit/broker/core_world.h"

static struct world w;

static void start(void)
{
    world_init(&w);
    world_start(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_status, .init = start, .fini = stop);

static const struct world_effect *ask(const struct id *job)
{
    world_turn(&w, &(struct event){.kind = EVENT_WAIT,
                                   .peer = 1,
                                   .as.job = {.job_id = *job, .status_only = true}});
    const struct world_effect *status = world_find(&w, EFFECT_STATUS, job, 1);
    cr_assert_not_null(status);
    return status;
}

static uint64_t position(const struct id *job)
{
    return ask(job)->effect.as.status.position;
}

static void expect_why(const struct id *job, const char *part)
{
    const struct world_effect *status = ask(job);
    cr_assert_not_null(strstr(status->text, part), "\"%s\" does not say \"%s\"", status->text,
                       part);
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, job, w.now, &view), 0);
    cr_assert_str_eq(view.why, status->text, "an operator is told the same");
    Wire__JobState state;
    const char *worker;
    cr_assert_eq(core_find_job(w.core, job, &state, &worker), 0);
    cr_assert_eq(state, view.state);
    cr_assert_str_eq(worker, view.worker);
}

static struct id submit_with(uint32_t priority, int64_t delay_ms)
{
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.priority = priority;
    event.as.submit.delay_ms = delay_ms;
    return world_submit_event(&w, &event);
}

Test(core_status, position_counts_the_jobs_of_its_tenant_that_go_before_it)
{
    struct id jobs[5];
    for (int i = 0; i < 5; i++) {
        jobs[i] = submit_with(0, 0);
        (void)world_submit(&w, 2, "realtime"); /* another tenant's do not count */
    }
    for (uint64_t i = 0; i < 5; i++) {
        cr_assert_eq(position(&jobs[i]), i);
    }
    const struct id urgent = submit_with(5, 0);
    cr_assert_eq(position(&urgent), 0);
    cr_assert_eq(position(&jobs[4]), 5);
    world_job_event(&w, EVENT_CANCEL, 1, &jobs[0]);
    cr_assert_eq(position(&jobs[4]), 4);
}

Test(core_status, position_in_a_long_queue_is_an_estimate_that_is_close)
{
    enum { JOBS = 100000 };
    static struct id jobs[JOBS];
    for (int i = 0; i < JOBS; i++) {
        struct event event = world_submission(&w, 1, "realtime");
        event.as.submit.priority = i % 4 == 0 ? 3 : 0; /* a quarter goes before all others */
        jobs[i] = event.as.submit.job_id;
        core_step(w.core, w.now, &event, w.effects);
        blob_unref(&event.as.submit.payload);
        effects_reset(w.effects, w.batch);
    }
    const double late = (double)position(&jobs[79999]), first = (double)position(&jobs[0]);
    cr_assert_float_eq(late, 25000 + 60000, 5000);
    cr_assert_leq(first, 1000);
}

Test(core_status, start_is_estimated_from_how_fast_its_queue_is_dispatched)
{
    world_worker(&w, 100, "w", 1);
    uint64_t credit = 1;
    struct id last = {{0}};
    for (int i = 0; i < 100; i++) {
        last = submit_with(0, 0);
    }
    cr_assert_not(ask(&last)->effect.as.status.has_estimate, "nothing was measured yet");
    for (int i = 0; i < 20; i++) { /* ten a second */
        world_advance(&w, 100);
        const struct lease_ref lease =
            world_find(&w, EFFECT_DISPATCH, NULL, 100)->effect.as.dispatch.lease;
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        world_credit(&w, 100, ++credit);
    }
    const struct effect *status = &ask(&last)->effect;
    cr_assert(status->as.status.has_estimate);
    cr_assert_eq(status->as.status.position, 78);
    cr_assert_float_eq((double)status->as.status.starts_in_ms, 7800, 800);
    expect_why(&last, "queued behind 78");
    const struct id delayed = submit_with(0, 5000);
    cr_assert_eq(ask(&delayed)->effect.as.status.waits_ms, 5000);
    cr_assert_geq(ask(&delayed)->effect.as.status.starts_in_ms, 5000);
    cr_assert_lt(ask(&delayed)->effect.as.status.starts_in_ms, 8000, "both waits were added");
}

static void pause(enum event_kind kind, enum pause_subject subject, const char *name)
{
    world_turn(&w, &(struct event){.kind = kind, .as.pause = {subject, PAUSE_HOLD, name, "test"}});
}

Test(core_status, why_names_what_keeps_the_job)
{
    const struct id job = submit_with(0, 0), behind = submit_with(0, 0);
    expect_why(&job, "no worker serves the pool default");
    world_worker(&w, 100, "w", 1);
    expect_why(&behind, "the next of its tenant");
    const struct id third = submit_with(0, 0);
    expect_why(&third, "queued behind 1 ");
    expect_why(&job, ""); /* it runs */
    const enum pause_subject subjects[] = {PAUSE_ROUTE, PAUSE_TIER, PAUSE_TENANT};
    const char *const names[] = {"m0", "realtime", "a"};
    const char *const words[] = {"the route m0 is paused by an operator: test",
                                 "the tier realtime is paused", "the tenant a is paused"};
    for (size_t i = 0; i < 3; i++) {
        pause(EVENT_PAUSE, subjects[i], names[i]);
        expect_why(&behind, words[i]);
        pause(EVENT_RESUME, subjects[i], names[i]);
    }
    const struct id delayed = submit_with(0, 5000);
    expect_why(&delayed, "delayed");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 0);
    expect_why(&job, "the last attempt failed");
    world_turn(&w, &(struct event){.kind = EVENT_DRAIN});
    expect_why(&third, "shutting down");
}

Test(core_status, long_reason_is_cut_between_characters)
{
    char reason[121] = "x"; /* and 60 letters of two bytes: the 80th byte is within one */
    for (int i = 0; i < 59; i++) {
        (void)strcat(reason, "\xc3\xa9");
    }
    const struct id job = submit_with(0, 0);
    world_turn(&w, &(struct event){.kind = EVENT_PAUSE,
                                   .as.pause = {PAUSE_ROUTE, PAUSE_HOLD, "m0", reason}});
    const struct world_effect *status = ask(&job);
    cr_assert_eq((unsigned char)status->text[strlen(status->text) - 1], 0xa9, "%s", status->text);
}
