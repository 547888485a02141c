/* What is refused at the door, and how. */
#include <criterion/criterion.h>
#include "tests/unit/broker/core_world.h"

static struct world w;

static void start(void)
{
    world_init(&w);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_admission, .init = start, .fini = stop);

static void begin(void)
{
    world_start(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
}

static const struct effect *refusal(struct event *event)
{
    world_submit_event(&w, event);
    const struct world_effect *found =
        world_find(&w, EFFECT_REJECTED, &event->as.submit.job_id, event->peer);
    cr_assert_not_null(found, "it was not refused");
    cr_assert_neq(found->text[0], '\0', "without a reason in words");
    return &found->effect;
}

Test(core_admission, each_bad_field_has_its_reason)
{
    begin();
    struct event event = world_submission(&w, 1, "premium");
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_UNKNOWN_TIER);
    event = world_submission(&w, 1, "standard");
    event.as.submit.route = "gpt-0";
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_UNKNOWN_ROUTE);
    event = world_submission(&w, 1, "standard");
    event.as.submit.pool = "moon";
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_UNKNOWN_POOL);
    event = world_submission(&w, 1, "standard");
    event.as.submit.priority = 10;
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_INVALID);
    event = world_submission(&w, 1, "standard");
    event.as.submit.deadline_in_ms = -1;
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_DEADLINE);
    event = world_submission(&w, 1, "standard");
    event.as.submit.delay_ms = 2000;
    event.as.submit.deadline_in_ms = 1000;
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_DEADLINE);
    cr_assert_eq(world_stats(&w).jobs, 0);
    cr_assert_eq(w.records_length, 0);
}

Test(core_admission, oversize_payload_is_refused)
{
    w.config.broker.payload_bytes_max = 3;
    begin();
    struct event event = world_submission(&w, 1, "standard");
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_TOO_LARGE);
}

Test(core_admission, full_tier_refuses_with_a_retry_after_and_takes_again_when_it_has_drained)
{
    w.tiers[1].jobs_max = 10;
    begin();
    for (int i = 0; i < 10; i++) {
        (void)world_submit(&w, 1, "standard");
    }
    struct event event = world_submission(&w, 1, "standard");
    const struct effect *refused = refusal(&event);
    cr_assert_eq(refused->as.rejected.reason, WIRE__REJECT_REASON__REJECT_QUEUE_FULL);
    cr_assert_gt(refused->as.rejected.retry_after_ms, 0);
    cr_assert_eq(world_stats(&w).jobs, 10);
    world_worker(&w, 100, "w", 1);
    const struct world_effect *dispatched = world_find(&w, EFFECT_DISPATCH, NULL, 100);
    const struct lease_ref lease = dispatched->effect.as.dispatch.lease;
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    const struct id job = world_submit(&w, 1, "standard");
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &job, 1));
}

Test(core_admission, bytes_bound_tiers_too)
{
    w.tiers[0].bytes_max = 10;
    begin();
    (void)world_submit(&w, 1, "realtime");
    (void)world_submit(&w, 1, "realtime");
    struct event event = world_submission(&w, 1, "realtime");
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_QUEUE_FULL);
}

Test(core_admission, one_tenants_flood_does_not_fill_the_door_for_another)
{
    w.tenants[0].jobs_max = 5;
    begin();
    for (int i = 0; i < 5; i++) {
        (void)world_submit(&w, 1, "background");
    }
    struct event event = world_submission(&w, 1, "background");
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_QUEUE_FULL);
    const struct id other = world_submit(&w, 2, "background");
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &other, 2));
}

/* One worker that takes 100 ms a job, so ten jobs a second. */
static void serve_for(int64_t ms, uint64_t *credit)
{
    for (int64_t i = 0; i < ms / 100; i++) {
        world_advance(&w, 100);
        const struct world_effect *dispatched = world_find(&w, EFFECT_DISPATCH, NULL, 100);
        const struct lease_ref lease = dispatched->effect.as.dispatch.lease;
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        world_credit(&w, 100, ++*credit);
    }
}

Test(core_admission, deadline_shorter_than_the_expected_wait_is_refused_at_the_door)
{
    begin();
    world_worker(&w, 100, "w", 1);
    uint64_t credit = 1;
    for (int i = 0; i < 300; i++) {
        (void)world_submit(&w, 1, "standard");
    }
    serve_for(3000, &credit);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.deadline_in_ms = 5000; /* 270 jobs before it take 27 s */
    const struct effect *refused = refusal(&event);
    cr_assert_eq(refused->as.rejected.reason, WIRE__REJECT_REASON__REJECT_DEADLINE);
    cr_assert_gt(refused->as.rejected.retry_after_ms, 0);
    event = world_submission(&w, 1, "standard");
    event.as.submit.deadline_in_ms = 60000;
    world_submit_event(&w, &event);
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &event.as.submit.job_id, 1));
    /* A tenant with nothing queued has its turn soon, whatever the other has queued. */
    event = world_submission(&w, 2, "standard");
    event.as.submit.deadline_in_ms = 5000;
    world_submit_event(&w, &event);
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &event.as.submit.job_id, 2));
}

Test(core_admission, idle_queue_refuses_no_deadline)
{
    begin();
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.deadline_in_ms = 1;
    world_submit_event(&w, &event);
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &event.as.submit.job_id, 1));
}

Test(core_admission, draining_broker_takes_nothing_and_dispatches_nothing)
{
    begin();
    const struct id waiting = world_submit(&w, 1, "standard");
    world_turn(&w, &(struct event){.kind = EVENT_DRAIN});
    struct event event = world_submission(&w, 1, "standard");
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_DRAINING);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_state(&w, &waiting), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    cr_assert(core_is_idle(w.core));
}

Test(core_admission, failing_disk_refuses_what_is_not_durable_and_memory_tiers_run_on)
{
    begin();
    world_worker(&w, 100, "w", 2);
    w.withholds_durability = true;
    const struct id lost = world_submit(&w, 1, "standard");
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN,
                                   .as.store_down = {w.batch - 1, "No space left on device"}});
    cr_assert_eq(world_find(&w, EFFECT_REJECTED, &lost, 1)->effect.as.rejected.reason,
                 WIRE__REJECT_REASON__REJECT_STORAGE);
    struct event event = world_submission(&w, 1, "standard");
    const struct effect *refused = refusal(&event);
    cr_assert_eq(refused->as.rejected.reason, WIRE__REJECT_REASON__REJECT_STORAGE);
    cr_assert_gt(refused->as.rejected.retry_after_ms, 0);
    const struct id job = world_submit(&w, 1, "realtime");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 1));
    world_turn(&w, &(struct event){.kind = EVENT_STORE_UP});
    w.withholds_durability = false;
    world_make_durable(&w);
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
    const struct id later = world_submit(&w, 1, "standard");
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &later, 1));
}

Test(core_admission, failing_disk_refuses_a_job_by_each_id_that_it_was_submitted_under)
{
    begin();
    w.withholds_durability = true;
    struct id jobs[3];
    const uint64_t peers[] = {1, 1, 4};
    world_client(&w, 4, "a");
    for (int i = 0; i < 3; i++) {
        struct event event = world_submission(&w, peers[i], "standard");
        event.as.submit.idempotency_key = "once";
        jobs[i] = event.as.submit.job_id;
        world_submit_event(&w, &event);
    }
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN, .as.store_down = {1, "failed"}});
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(world_count(&w, EFFECT_REJECTED, &jobs[i]), 1);
        cr_expect_not_null(world_find(&w, EFFECT_REJECTED, &jobs[i], peers[i]));
    }
}

Test(core_admission, failing_disk_does_not_keep_the_status_of_jobs_in_memory)
{
    begin();
    world_worker(&w, 100, "w", 2);
    w.withholds_durability = true;
    (void)world_submit(&w, 1, "standard");
    const struct id job = world_submit(&w, 1, "realtime");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    struct event event = {.kind = EVENT_WAIT, .peer = 1, .as.job = {job, .status_only = true}};
    world_turn(&w, &event);
    cr_assert_eq(world_find(&w, EFFECT_STATUS, &job, 1)->effect.as.status.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    world_job_event(&w, EVENT_COLLECTED, 1, &job);
    world_forget_log(&w);
    world_job_event(&w, EVENT_WAIT, 1, &job);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_COLLECTED);
    const struct id unknown = world_id(&w);
    world_job_event(&w, EVENT_WAIT, 1, &unknown);
    cr_assert_eq(world_find(&w, EFFECT_STATUS, &unknown, 1)->effect.as.status.state,
                 WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
}

static void pause(enum event_kind kind, enum pause_subject subject, enum pause_mode mode,
                  const char *name)
{
    world_turn(&w, &(struct event){.kind = kind, .as.pause = {subject, mode, name, "maintenance"}});
}

Test(core_admission, held_subjects_wait_and_others_go_on)
{
    begin();
    world_worker(&w, 100, "w", 10);
    const enum pause_subject subjects[] = {PAUSE_ROUTE, PAUSE_TIER, PAUSE_TENANT};
    const char *const names[] = {"m0", "standard", "a"};
    for (size_t i = 0; i < 3; i++) {
        pause(EVENT_PAUSE, subjects[i], PAUSE_HOLD, names[i]);
        const struct id held = world_submit(&w, 1, "standard");
        struct event event = world_submission(&w, 2, "background");
        event.as.submit.route = "m1";
        world_submit_event(&w, &event);
        cr_assert_eq(world_state(&w, &held), WIRE__JOB_STATE__JOB_STATE_QUEUED);
        cr_assert_eq(world_state(&w, &event.as.submit.job_id), WIRE__JOB_STATE__JOB_STATE_LEASED);
        pause(EVENT_RESUME, subjects[i], PAUSE_HOLD, names[i]);
        cr_assert_eq(world_state(&w, &held), WIRE__JOB_STATE__JOB_STATE_LEASED);
    }
    cr_assert_eq(world_records(&w, STORE_META), 0);
}

Test(core_admission, held_route_that_a_reload_brings_back_is_still_held)
{
    begin();
    pause(EVENT_PAUSE, PAUSE_ROUTE, PAUSE_HOLD, "m2");
    w.config.models_length = 2;
    world_restart(&w);
    world_client(&w, 1, "a");
    world_worker(&w, 100, "w", 10);
    w.config.models_length = 3;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "m2";
    world_submit_event(&w, &event);
    cr_assert_eq(world_state(&w, &event.as.submit.job_id), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    pause(EVENT_RESUME, PAUSE_ROUTE, PAUSE_HOLD, "m2");
    cr_assert_eq(world_state(&w, &event.as.submit.job_id), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_admission, held_route_is_still_held_when_only_its_jobs_come_back)
{
    begin();
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "m2";
    world_submit_event(&w, &event);
    pause(EVENT_PAUSE, PAUSE_ROUTE, PAUSE_HOLD, "m2");
    w.config.models_length = 2;
    world_restart(&w);
    world_worker(&w, 100, "w", 10);
    world_advance(&w, w.config.broker.reclaim_ms + 1);
    cr_assert_eq(world_state(&w, &event.as.submit.job_id), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    pause(EVENT_RESUME, PAUSE_ROUTE, PAUSE_HOLD, "m2");
    cr_assert_eq(world_state(&w, &event.as.submit.job_id), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_admission, drained_route_refuses_and_lets_the_rest_run)
{
    begin();
    const struct id before = world_submit(&w, 1, "standard");
    pause(EVENT_PAUSE, PAUSE_ROUTE, PAUSE_DRAIN, "m0");
    struct event event = world_submission(&w, 1, "standard");
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_PAUSED);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_state(&w, &before), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_admission, drained_worker_is_told_and_gets_nothing_until_it_is_resumed)
{
    begin();
    world_worker(&w, 100, "w", 4);
    pause(EVENT_PAUSE, PAUSE_WORKER, PAUSE_DRAIN, "w");
    cr_assert(world_find(&w, EFFECT_WORKER_DRAIN, NULL, 100)->effect.as.worker_drain.drain);
    const struct id job = world_submit(&w, 1, "standard");
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    pause(EVENT_RESUME, PAUSE_WORKER, PAUSE_DRAIN, "w");
    cr_assert(!world_find(&w, EFFECT_WORKER_DRAIN, NULL, 100)->effect.as.worker_drain.drain);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_admission, reload_adds_tenants_and_refuses_those_that_are_gone)
{
    w.config.tenants_length = 2;
    begin();
    w.config.tenants = &w.tenants[1];
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    struct event event = world_submission(&w, 1, "standard");
    cr_assert_eq(refusal(&event)->as.rejected.reason, WIRE__REJECT_REASON__REJECT_UNKNOWN_TENANT);
    world_client(&w, 3, "c");
    const struct id job = world_submit(&w, 3, "standard");
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &job, 3));
}

Test(core_admission, disk_that_fails_in_the_turn_of_a_submission_gets_it_refused_once_and_for_all)
{
    begin();
    w.withholds_durability = true;
    (void)world_submit(&w, 1, "standard");
    struct event event = world_submission(&w, 1, "standard");
    const struct id job = event.as.submit.job_id;
    core_step(w.core, w.now, &event, w.effects);
    blob_unref(&event.as.submit.payload);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN,
                                   .as.store_down = {w.batch - 1, "No space left on device"}});
    cr_assert_eq(world_count(&w, EFFECT_REJECTED, &job), 1);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_UP});
    w.withholds_durability = false;
    world_make_durable(&w);
    cr_assert_eq(world_count(&w, EFFECT_ACCEPTED, &job), 0);
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
}
