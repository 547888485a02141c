/* A job's life, and what is promised of it. */
#include <criterion/criterion.h>
#include "tests/unit/broker/core_world.h"

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

TestSuite(core_life, .init = start, .fini = stop);

Test(core_life, memory_job_runs_and_is_answered_without_any_record)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "realtime");
    const struct world_effect *accepted = world_find(&w, EFFECT_ACCEPTED, &job, 1);
    cr_assert_not_null(accepted);
    cr_assert_eq(accepted->effect.batch, 0);
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &job, 1);
    cr_assert_not_null(result);
    cr_assert_eq(result->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    cr_assert_eq(result->effect.as.result.attempts, 1);
    cr_assert_eq(blob_bytes(result->effect.as.result.payload), 6);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 100));
    cr_assert_eq(w.records_length, 0);
}

Test(core_life, durable_job_is_neither_accepted_nor_dispatched_before_its_record_is_durable)
{
    world_worker(&w, 100, "w", 1);
    w.withholds_durability = true;
    const struct id job = world_submit(&w, 1, "standard");
    world_tick(&w);
    cr_assert_null(world_find(&w, EFFECT_ACCEPTED, &job, 0));
    cr_assert_null(world_find(&w, EFFECT_DISPATCH, &job, 0));
    world_make_durable(&w);
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &job, 1));
    cr_assert_not_null(world_find(&w, EFFECT_DISPATCH, &job, 100));
}

Test(core_life, durable_conclusion_leaves_id_and_result_and_nothing_else)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    cr_assert_eq(world_records(&w, STORE_PAYLOADS), 1);
    const struct lease_ref lease = world_lease(&w, &job);
    world_advance(&w, 200); /* long enough for a lease record */
    cr_assert_eq(world_records(&w, STORE_LEASES), 1);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_records(&w, STORE_CONCLUDED), 1);
    cr_assert_eq(world_records(&w, STORE_RESULTS), 1);
    cr_assert_eq(w.records_length, 2);
}

Test(core_life, short_job_never_writes_a_lease_record)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    world_advance(&w, 99);
    cr_assert_eq(world_records(&w, STORE_LEASES), 0);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_life, result_is_let_go_only_when_the_conclusion_is_durable)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    w.withholds_durability = true;
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_null(world_find(&w, EFFECT_RESULT, &job, 0));
    cr_assert_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 0));
    world_make_durable(&w);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 1));
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 100));
}

Test(core_life, same_id_again_is_the_same_job)
{
    struct event event = world_submission(&w, 1, "standard");
    world_turn(&w, &event);
    world_submit_event(&w, &event);
    const struct world_effect *again = world_find(&w, EFFECT_ACCEPTED, &event.as.submit.job_id, 1);
    cr_assert(again->effect.as.accepted.duplicate);
    cr_assert_eq(world_stats(&w).jobs, 1);
}

Test(core_life, same_id_after_the_conclusion_is_answered_with_the_kept_result)
{
    world_worker(&w, 100, "w", 1);
    struct event event = world_submission(&w, 1, "standard");
    world_turn(&w, &event);
    const struct lease_ref lease = world_lease(&w, &event.as.submit.job_id);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    world_forget_log(&w);
    world_submit_event(&w, &event);
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &event.as.submit.job_id, 1);
    cr_assert_not_null(result);
    cr_assert_eq(result->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    cr_assert_eq(memcmp(blob_data(result->effect.as.result.payload), "answer", 6), 0);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 0);
}

Test(core_life, id_of_another_tenant_is_a_conflict)
{
    world_client(&w, 2, "b");
    struct event event = world_submission(&w, 1, "standard");
    world_turn(&w, &event);
    event.peer = 2;
    world_submit_event(&w, &event);
    cr_assert_eq(world_find(&w, EFFECT_REJECTED, NULL, 2)->effect.as.rejected.reason,
                 WIRE__REJECT_REASON__REJECT_CONFLICT);
}

Test(core_life, idempotency_key_finds_the_earlier_job_of_its_tenant_only)
{
    world_client(&w, 2, "b");
    struct event first = world_submission(&w, 1, "standard");
    struct event again = world_submission(&w, 1, "standard");
    struct event other = world_submission(&w, 2, "standard");
    first.as.submit.idempotency_key = again.as.submit.idempotency_key =
        other.as.submit.idempotency_key = "order-1";
    const struct id first_id = first.as.submit.job_id;
    world_submit_event(&w, &first);
    world_submit_event(&w, &again);
    world_submit_event(&w, &other);
    const struct world_effect *accepted =
        world_find(&w, EFFECT_ACCEPTED, &again.as.submit.job_id, 1);
    cr_assert(accepted->effect.as.accepted.has_known_as);
    cr_assert(id_equal(&accepted->effect.as.accepted.known_as, &first_id));
    cr_assert(
        !world_find(&w, EFFECT_ACCEPTED, &other.as.submit.job_id, 2)->effect.as.accepted.duplicate);
    cr_assert_eq(world_stats(&w).jobs, 2);
}

Test(core_life, delayed_job_is_not_dispatched_before_its_time)
{
    world_worker(&w, 100, "w", 1);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.delay_ms = 5000;
    world_submit_event(&w, &event);
    world_advance(&w, 4999);
    cr_assert_eq(world_state(&w, &event.as.submit.job_id), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    world_advance(&w, 1);
    cr_assert_eq(world_state(&w, &event.as.submit.job_id), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_life, waiting_job_expires_at_its_deadline_and_is_never_dispatched)
{
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.deadline_in_ms = 300;
    world_submit_event(&w, &event);
    world_advance(&w, 299);
    cr_assert_null(world_find(&w, EFFECT_RESULT, NULL, 0));
    world_advance(&w, 1);
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &event.as.submit.job_id, 1);
    cr_assert_eq(result->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_EXPIRED);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 0);
}

Test(core_life, running_job_is_concluded_and_cancelled_at_its_deadline)
{
    world_worker(&w, 100, "w", 1);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.deadline_in_ms = 300;
    world_submit_event(&w, &event);
    const struct lease_ref lease = world_lease(&w, &event.as.submit.job_id);
    world_advance(&w, 300);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CANCEL, &event.as.submit.job_id, 100));
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, NULL), 1);
    cr_assert_eq(world_stats(&w).tiers[1].late_results, 1);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &event.as.submit.job_id, 100));
}

Test(core_life, cancelled_waiting_job_is_concluded_at_once)
{
    const struct id job = world_submit(&w, 1, "standard");
    world_job_event(&w, EVENT_CANCEL, 1, &job);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_CANCELLED);
    cr_assert_eq(world_stats(&w).jobs, 0);
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
}

Test(core_life, cancelling_a_running_job_stops_its_attempt)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    world_job_event(&w, EVENT_CANCEL, 1, &job);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CANCEL, &job, 100));
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_CANCELLED);
}

Test(core_life, job_of_another_tenant_cannot_be_seen_or_cancelled)
{
    world_client(&w, 2, "b");
    const struct id job = world_submit(&w, 1, "standard");
    world_job_event(&w, EVENT_CANCEL, 2, &job);
    cr_assert_eq(world_find(&w, EFFECT_STATUS, &job, 2)->effect.as.status.state,
                 WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    world_job_event(&w, EVENT_WAIT, 2, &job);
    cr_assert_eq(world_find(&w, EFFECT_STATUS, &job, 2)->effect.as.status.state,
                 WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    cr_assert_eq(world_stats(&w).jobs, 1);
}

Test(core_life, every_waiter_gets_the_result_once)
{
    world_worker(&w, 100, "w", 1);
    world_client(&w, 2, "a");
    world_client(&w, 3, "a");
    const struct id job = world_submit(&w, 1, "standard");
    world_job_event(&w, EVENT_WAIT, 2, &job);
    world_job_event(&w, EVENT_WAIT, 3, &job);
    world_job_event(&w, EVENT_WAIT, 3, &job);
    world_turn(&w, &(struct event){.kind = EVENT_CLIENT_GONE, .peer = 2});
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 2);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 1));
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 3));
}

Test(core_life, collected_result_is_gone_and_says_so)
{
    world_worker(&w, 100, "w", 2);
    const char *const tiers[] = {"realtime", "standard"};
    for (size_t i = 0; i < 2; i++) {
        const struct id job = world_submit(&w, 1, tiers[i]);
        const struct lease_ref lease = world_lease(&w, &job);
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        world_job_event(&w, EVENT_WAIT, 1, &job);
        cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 2);
        world_job_event(&w, EVENT_COLLECTED, 1, &job);
        world_job_event(&w, EVENT_WAIT, 1, &job);
        cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                     WIRE__JOB_STATE__JOB_STATE_COLLECTED);
    }
    cr_assert_eq(world_stats(&w).results, 0);
    cr_assert_eq(world_records(&w, STORE_RESULTS), 0);
}

Test(core_life, discarded_result_is_not_kept)
{
    world_worker(&w, 100, "w", 1);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.discard_result = true;
    world_submit_event(&w, &event);
    const struct lease_ref lease = world_lease(&w, &event.as.submit.job_id);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_records(&w, STORE_RESULTS), 0);
    cr_assert_eq(world_records(&w, STORE_CONCLUDED), 1);
}

Test(core_life, results_and_ids_expire_with_their_records)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    w.now.unix_ms += 10;
    world_advance(&w, 3700000);
    world_client(&w, 1, "a");
    world_worker(&w, 101, "w2", 1);
    const struct id later = world_submit(&w, 1, "standard");
    const struct lease_ref later_lease = world_lease(&w, &later);
    world_result(&w, 101, &later_lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_stats(&w).concluded_ids, 1);
    world_advance(&w, 7200000);
    cr_assert_eq(world_stats(&w).concluded_ids, 0);
    cr_assert_leq(world_records(&w, STORE_CONCLUDED), 1); /* the first went with the second */
    cr_assert_leq(world_records(&w, STORE_RESULTS), 1);
}

Test(core_life, id_older_than_what_was_forgotten_is_refused)
{
    world_worker(&w, 100, "w", 1);
    struct event event = world_submission(&w, 1, "standard");
    world_turn(&w, &event);
    const struct lease_ref lease = world_lease(&w, &event.as.submit.job_id);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    world_advance(&w, 3700000);
    world_client(&w, 1, "a");
    world_submit_event(&w, &event);
    cr_assert_eq(
        world_find(&w, EFFECT_REJECTED, &event.as.submit.job_id, 1)->effect.as.rejected.reason,
        WIRE__REJECT_REASON__REJECT_TOO_OLD);
}

Test(core_life, chunks_reach_the_waiters_that_stream_as_far_as_they_give_credit)
{
    world_worker(&w, 100, "w", 1);
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.stream = true;
    world_submit_event(&w, &event);
    const struct id job = event.as.submit.job_id;
    const struct lease_ref lease = world_lease(&w, &job);
    struct event chunk = {.kind = EVENT_CHUNK,
                          .peer = 100,
                          .as.chunk.header = {.job_id = job, .attempt = lease.attempt}};
    world_turn(&w, &chunk);
    cr_assert_eq(world_count(&w, EFFECT_CHUNK, &job), 1);
    world_turn(
        &w, &(struct event){.kind = EVENT_STREAM_CREDIT, .peer = 1, .as.stream_credit = {job, 1}});
    chunk.as.chunk.header.index = 1;
    world_turn(&w, &chunk);
    chunk.as.chunk.header.index = 2;
    world_turn(&w, &chunk);
    cr_assert_eq(world_count(&w, EFFECT_CHUNK, &job), 2);
    chunk.as.chunk.header.attempt++;
    world_turn(&w, &chunk);
    cr_assert_eq(world_count(&w, EFFECT_CHUNK, &job), 2);
}

Test(core_life, unknown_peers_are_told_to_say_hello)
{
    struct event event = world_submission(&w, 77, "realtime");
    world_submit_event(&w, &event);
    cr_assert_eq(world_find(&w, EFFECT_CLIENT_ERROR, NULL, 77)->effect.as.error.code,
                 WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED);
    world_credit(&w, 88, 1);
    cr_assert_eq(world_find(&w, EFFECT_WORKER_ERROR, NULL, 88)->effect.as.error.code,
                 WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED);
    world_client(&w, 5, "nobody");
    cr_assert_eq(world_find(&w, EFFECT_CLIENT_ERROR, NULL, 5)->effect.as.error.code,
                 WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED);
}

Test(core_life, resubmission_of_a_job_concluded_before_its_acceptance_is_durable_waits_for_the_disk)
{
    w.withholds_durability = true;
    struct event event = world_submission(&w, 1, "standard");
    const struct id job = event.as.submit.job_id;
    world_turn(&w, &event);
    world_job_event(&w, EVENT_CANCEL, 1, &job);
    world_submit_event(&w, &event);
    cr_assert_eq(world_count(&w, EFFECT_ACCEPTED, &job), 0);
    world_make_durable(&w);
    cr_assert_eq(world_count(&w, EFFECT_ACCEPTED, &job), 2);
}

Test(core_life, kept_result_that_is_asked_for_too_often_in_a_turn_is_to_be_asked_for_again)
{
    enum { TIMES = 300000, TEXT_BYTES = 1000 };
    char text[TEXT_BYTES + 1];
    memset(text, 'x', TEXT_BYTES);
    text[TEXT_BYTES] = '\0';
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "realtime");
    const struct lease_ref lease = world_lease(&w, &job);
    world_turn(&w, &(struct event){
                       .kind = EVENT_ATTEMPT_RESULT,
                       .peer = 100,
                       .as.attempt_result = {.lease = lease,
                                             .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED,
                                             .error_code = "e",
                                             .error_text = text}});
    const struct event wait = {.kind = EVENT_WAIT, .peer = 1, .as.job = {.job_id = job}};
    for (size_t i = 0; i < TIMES; i++) {
        core_step(w.core, w.now, &wait, w.effects);
    }
    cr_assert_eq(effects_length(w.effects), TIMES);
    cr_assert_eq(effects_at(w.effects, 0)->kind, EFFECT_RESULT);
    const struct effect *last = effects_at(w.effects, TIMES - 1);
    cr_assert_eq(last->kind, EFFECT_STATUS);
    cr_assert_eq(last->as.status.state, WIRE__JOB_STATE__JOB_STATE_DEAD);
    effects_reset(w.effects, w.batch);
    world_job_event(&w, EVENT_WAIT, 1, &job);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 2);
}

Test(core_life, job_of_a_worker_runs_and_nobody_is_told)
{
    world_worker(&w, 100, "w", 4);
    struct event event = world_submission(&w, 0, "background");
    event.as.submit.tenant = "b";
    event.as.submit.discard_result = true;
    const struct id job = world_submit_event(&w, &event);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
    cr_assert_str_eq(world_find(&w, EFFECT_DISPATCH, &job, 100)->effect.as.dispatch.tenant, "b");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 0);
    cr_assert_eq(world_stats(&w).jobs, 0);
    event = world_submission(&w, 0, "background");
    event.as.submit.tenant = "nobody";
    world_submit_event(&w, &event);
    cr_assert_eq(world_stats(&w).jobs, 0);
}
