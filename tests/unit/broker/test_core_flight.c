/* Identical jobs: one runs, all are answered. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/unit/broker/core_world.h"

#define ANSWERED  WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define SUCCEEDED WIRE__JOB_STATE__JOB_STATE_SUCCEEDED
#define FOLLOWING WIRE__JOB_STATE__JOB_STATE_FOLLOWING
#define LEASED    WIRE__JOB_STATE__JOB_STATE_LEASED
#define QUEUED    WIRE__JOB_STATE__JOB_STATE_QUEUED
#define UNKNOWN   WIRE__JOB_STATE__JOB_STATE_UNKNOWN

static struct world w;

static void start(void)
{
    world_init(&w);
    w.config.broker.lease_ms = 1000000; /* no heartbeats here */
    w.config.broker.dead_letters_max = 100000;
    world_start(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "a");
    world_client(&w, 9, "b");
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_flight, .init = start, .fini = stop);

/* A submission under the key that is sixteen times `key`. */
static struct event keyed(uint64_t peer, const char *tier, uint8_t key)
{
    static uint8_t keys[256][16];
    memset(keys[key], key, sizeof(keys[key]));
    struct event event = world_submission(&w, peer, tier);
    event.as.submit.canonical_key = keys[key];
    return event;
}

static struct id submit(uint64_t peer, const char *tier, uint8_t key)
{
    struct event event = keyed(peer, tier, key);
    return world_submit_event(&w, &event);
}

static struct id submit_with_priority(uint8_t key, uint32_t priority)
{
    struct event event = keyed(1, "standard", key);
    event.as.submit.priority = priority;
    return world_submit_event(&w, &event);
}

/* The worker 100 ends the job's latest attempt. */
static void end_using(const struct id *job, Wire__AttemptOutcome outcome, bool key_mismatch,
                      const Wire__Usage *usage)
{
    struct event event = {.kind = EVENT_ATTEMPT_RESULT,
                          .peer = 100,
                          .as.attempt_result = {.lease = world_lease(&w, job),
                                                .outcome = outcome,
                                                .error_code = "",
                                                .error_text = "",
                                                .usage = usage,
                                                .key_mismatch = key_mismatch}};
    if (outcome == ANSWERED) {
        cr_assert_eq(blob_create("answer", 6, &event.as.attempt_result.payload), 0);
    }
    world_turn(&w, &event);
    blob_unref(&event.as.attempt_result.payload);
}

/* So much of its prompt's history was kept; 0: all. */
static void end_cut(const struct id *job, Wire__AttemptOutcome outcome, bool key_mismatch,
                    uint64_t history_tokens)
{
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.cut_history_tokens = history_tokens;
    usage.provider = "sim";
    usage.model = "m0";
    usage.cost_nanousd = 700;
    usage.hedge_cost_nanousd = 300;
    usage.saved_batching_nanousd = 50;
    usage.saved_prompt_cache_nanousd = 40;
    usage.saved_routing_nanousd = -30;
    usage.call_ms = 70;
    end_using(job, outcome, key_mismatch, &usage);
}

/* Nothing is written: no turn follows because something has become durable. */
static void answer_for_nothing(const struct id *job)
{
    end_using(job, ANSWERED, false, NULL);
}

static void end_with(const struct id *job, Wire__AttemptOutcome outcome, bool key_mismatch)
{
    end_cut(job, outcome, key_mismatch, 0);
}

static void answer(const struct id *job)
{
    end_with(job, ANSWERED, false);
}

static const struct world_effect *result_of(const struct id *job)
{
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, job, 0);
    cr_assert_not_null(result);
    return result;
}

static bool is_led_by(const struct id *job, const struct id *leader)
{
    const struct effect_result *result = &result_of(job)->effect.as.result;
    return result->has_leader && id_equal(&result->led_by, leader);
}

static struct core_job_view view_of(const struct id *job)
{
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, job, w.now, &view), 0);
    return view;
}

static bool follows(const struct id *job, const struct id *leader)
{
    const struct core_job_view view = view_of(job);
    return view.has_leader && id_equal(&view.led_by, leader);
}

static void assert_run_once_for_all(const char *tier)
{
    world_worker(&w, 100, "w", 4);
    const struct id leader = submit(1, tier, 1);
    world_advance(&w, 30);
    const struct id second = submit(2, tier, 1);
    const struct id third = submit(1, tier, 1);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    cr_assert_eq(world_state(&w, &second), FOLLOWING);
    cr_assert_eq(world_state(&w, &third), FOLLOWING);
    world_advance(&w, 40);
    answer(&leader);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 1);
    cr_assert_not(result_of(&leader)->effect.as.result.has_leader);
    cr_assert_eq(result_of(&leader)->cost_nanousd, 700);
    cr_assert_eq(result_of(&leader)->saved_prompt_cache_nanousd, 40);
    cr_assert_eq(result_of(&leader)->saved_routing_nanousd, -30);
    const struct id followers[] = {second, third};
    for (size_t i = 0; i < 2; i++) {
        const struct world_effect *result = result_of(&followers[i]);
        cr_assert_eq(result->effect.as.result.state, SUCCEEDED);
        cr_assert(is_led_by(&followers[i], &leader));
        cr_assert_eq(result->effect.as.result.attempts, 0);
        cr_assert_eq(result->effect.as.result.queue_ms, 40);
        cr_assert_eq(result->cost_nanousd, 0);
        cr_assert_eq(result->hedge_cost_nanousd, 0);
        cr_assert_eq(result->saved_batching_nanousd, 0);
        cr_assert_eq(result->saved_prompt_cache_nanousd, 0);
        cr_assert_eq(result->saved_routing_nanousd, 0);
        cr_assert_eq(result->saved_nanousd, 700);
        cr_assert_eq(blob_bytes(result->effect.as.result.payload), 6);
        cr_assert_eq(world_count(&w, EFFECT_RESULT, &followers[i]), 1);
    }
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
    cr_assert_eq(world_records(&w, STORE_PAYLOADS), 0);
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_flight, identical_jobs_run_once_and_all_are_answered)
{
    assert_run_once_for_all("realtime");
    const struct core_tier_stats *stats = &world_stats(&w).tiers[0];
    cr_assert_eq(stats->followers_joined, 2);
    cr_assert_eq(stats->followers_concluded, 2);
    cr_assert_eq(stats->saved_nanousd, 1400);
    cr_assert_eq(stats->cost_nanousd, 700);
    /* Calls of their own would have ended 30 ms later: they came 30 ms after the leader. */
    cr_assert_eq(core_cost_total(w.core)->saved_followers_ms, 2 * 30);
}

Test(core_flight, what_a_worker_says_that_it_has_saved_has_a_bound)
{
    const struct id leader = submit(1, "standard", 0);
    const struct id follower = submit(1, "standard", 0);
    world_worker(&w, 100, "w", 8);
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.provider = "sim";
    usage.model = "m0";
    usage.cost_nanousd = UINT64_MAX - 5;
    usage.saved_nanousd = 10;
    end_using(&leader, ANSWERED, false, &usage);
    cr_assert_eq(result_of(&follower)->saved_nanousd, UINT64_MAX);
}

Test(core_flight, identical_durable_jobs_run_once_and_all_results_are_kept)
{
    assert_run_once_for_all("standard");
    cr_assert_eq(world_records(&w, STORE_RESULTS), 3);
}

/* The tier standard allows so many tokens of history when the answer comes. */
static void assert_cut_answer_is_shared(uint64_t made_with, uint64_t allowed, bool is_shared)
{
    world_worker(&w, 100, "w", 4);
    const struct id leader = submit(1, "standard", 1);
    const struct id best = submit_with_priority(1, 9);
    const struct id last = submit(1, "standard", 1);
    w.config.tiers[1].prompt_history_tokens_max = allowed;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    end_cut(&leader, ANSWERED, false, made_with);
    cr_assert_eq(result_of(&leader)->effect.as.result.state, SUCCEEDED, "it is the leader's");
    if (is_shared) {
        cr_assert(is_led_by(&best, &leader));
        cr_assert(is_led_by(&last, &leader));
        return;
    }
    cr_assert_eq(world_state(&w, &best), LEASED);
    cr_assert(follows(&last, &best));
    end_cut(&best, ANSWERED, false, 0);
    cr_assert(is_led_by(&last, &best));
    cr_assert_eq(world_stats(&w).tiers[1].followers_promoted, 1);
}

Test(core_flight, answer_from_a_cut_prompt_is_shared_where_the_tier_allows_it)
{
    assert_cut_answer_is_shared(500, 500, true);
}

Test(core_flight, answer_from_a_longer_prompt_than_the_tier_allows_is_shared)
{
    assert_cut_answer_is_shared(500, 300, true);
}

Test(core_flight, answer_from_a_cut_prompt_is_the_leaders_alone_where_the_tier_cuts_less)
{
    assert_cut_answer_is_shared(500, 501, false);
}

Test(core_flight, answer_from_a_cut_prompt_is_the_leaders_alone_where_the_tier_cuts_nothing)
{
    assert_cut_answer_is_shared(500, 0, false);
}

Test(core_flight, kept_result_of_a_follower_says_who_led)
{
    world_worker(&w, 100, "w", 4);
    const struct id leader = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    answer(&leader);
    world_forget_log(&w);
    world_job_event(&w, EVENT_WAIT, 2, &follower);
    cr_assert(is_led_by(&follower, &leader));
}

Test(core_flight, only_jobs_of_one_flow_with_one_key_are_identical)
{
    world_worker(&w, 100, "w", 100);
    struct event events[] = {keyed(1, "standard", 1),   keyed(1, "standard", 2),
                             keyed(1, "background", 1), keyed(9, "standard", 1),
                             keyed(1, "standard", 1),   keyed(1, "standard", 1),
                             keyed(1, "standard", 1),   keyed(1, "standard", 1)};
    events[4].as.submit.route = "m1";
    events[5].as.submit.pool = "gpu";
    events[6].as.submit.canonical_key = NULL;
    events[7].as.submit.canonical_key = NULL;
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        world_submit_event(&w, &events[i]);
        cr_assert_eq(world_state(&w, &events[i].as.submit.job_id), i == 5 ? QUEUED : LEASED);
    }
}

Test(core_flight, concluded_job_leads_nobody)
{
    world_worker(&w, 100, "w", 4);
    const struct id first = submit(1, "standard", 1);
    answer(&first);
    const struct id next = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &next), LEASED);
}

Test(core_flight, follower_says_whom_it_waits_for)
{
    const struct id leader = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    world_job_event(&w, EVENT_WAIT, 1, &follower);
    char id[ID_TEXT_BYTES];
    id_format(&leader, id);
    const struct world_effect *status = world_find(&w, EFFECT_STATUS, &follower, 1);
    cr_assert_eq(status->effect.as.status.state, FOLLOWING);
    cr_assert_not_null(strstr(status->text, "an identical job leads"));
    cr_assert_not_null(strstr(status->text, id));
    cr_assert(follows(&follower, &leader));
    cr_assert_eq(view_of(&leader).followers, 1);
    cr_assert_not(view_of(&leader).has_leader);
    cr_assert_eq(world_stats(&w).tiers[1].states[FOLLOWING], 1);
}

/* ---- the leader ends for itself alone ---- */

static void assert_promoted_after_cancel(bool is_leased)
{
    if (is_leased) {
        world_worker(&w, 100, "w", 1);
    }
    const struct id leader = submit_with_priority(1, 0);
    const struct id later = submit_with_priority(1, 0);
    const struct id urgent = submit_with_priority(1, 5);
    world_job_event(&w, EVENT_CANCEL, 1, &leader);
    if (is_leased) {
        cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CANCEL, &leader, 100));
        world_credit(&w, 100, 2);
    } else {
        world_worker(&w, 100, "w", 1);
    }
    cr_assert_eq(world_state(&w, &urgent), LEASED);
    cr_assert_eq(world_state(&w, &later), FOLLOWING);
    cr_assert(follows(&later, &urgent));
    cr_assert_eq(world_stats(&w).tiers[1].followers_promoted, 1);
    answer(&urgent);
    cr_assert(is_led_by(&later, &urgent));
    cr_assert_eq(result_of(&leader)->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_CANCELLED);
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_flight, best_follower_leads_when_a_waiting_leader_is_cancelled)
{
    assert_promoted_after_cancel(false);
}

Test(core_flight, best_follower_runs_anew_when_a_running_leader_is_cancelled)
{
    assert_promoted_after_cancel(true);
}

Test(core_flight, follower_leads_when_the_leader_expires)
{
    struct event event = keyed(1, "standard", 1);
    event.as.submit.deadline_in_ms = 1000;
    world_submit_event(&w, &event);
    const struct id follower = submit(1, "standard", 1);
    world_advance(&w, 1000);
    cr_assert_eq(result_of(&event.as.submit.job_id)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_EXPIRED);
    cr_assert_eq(world_state(&w, &follower), QUEUED);
    cr_assert_not(view_of(&follower).has_leader);
}

/* Each of them would end as many workers again. */
Test(core_flight, poison_is_poison_for_all)
{
    const struct id leader = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    for (uint64_t i = 0; world_state(&w, &leader) != WIRE__JOB_STATE__JOB_STATE_DEAD; i++) {
        cr_assert(i < 100);
        char name[16];
        snprintf(name, sizeof(name), "w%u", (unsigned)i);
        world_worker(&w, 200 + i, name, 1);
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 200 + i});
    }
    cr_assert_eq(result_of(&follower)->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_DEAD);
    cr_assert_str_eq(result_of(&follower)->code, "poison");
}

Test(core_flight, follower_expires_and_is_cancelled_by_itself)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit(1, "standard", 1);
    struct event event = keyed(1, "standard", 1);
    event.as.submit.deadline_in_ms = 1000;
    world_submit_event(&w, &event);
    const struct id cancelled = submit(2, "standard", 1);
    world_advance(&w, 1000);
    world_job_event(&w, EVENT_CANCEL, 2, &cancelled);
    cr_assert_eq(result_of(&event.as.submit.job_id)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_EXPIRED);
    cr_assert_eq(result_of(&cancelled)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_CANCELLED);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    cr_assert_eq(view_of(&leader).followers, 0);
    answer(&leader);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &cancelled), 1);
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
}

/* ---- what an attempt says of the request holds for all ---- */

Test(core_flight, what_no_attempt_can_answer_is_dead_for_all)
{
    static const struct {
        Wire__AttemptOutcome outcome;
        const char *code;
    } cases[] = {{WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, "rejected"},
                 {WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID, "invalid"},
                 {WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED, "refused"},
                 {WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, "attempts_exhausted"}};
    world_worker(&w, 100, "w", 100);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct event event = keyed(1, "standard", 1);
        event.as.submit.attempts_max = 1;
        world_submit_event(&w, &event);
        const struct id leader = event.as.submit.job_id;
        const struct id follower = submit(2, "standard", 1);
        end_with(&leader, cases[i].outcome, false);
        cr_assert_eq(result_of(&follower)->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_DEAD);
        cr_assert_str_eq(result_of(&follower)->code, cases[i].code);
        cr_assert(is_led_by(&follower, &leader));
        cr_assert_eq(world_state(&w, &follower), WIRE__JOB_STATE__JOB_STATE_DEAD);
    }
    cr_assert_eq(world_stats(&w).dead_letters, 8);
    cr_assert_eq(world_records(&w, STORE_JOBS), 8);
}

Test(core_flight, followers_wait_while_the_leader_backs_off)
{
    world_worker(&w, 100, "w", 2);
    const struct id leader = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    end_with(&leader, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, false);
    const struct id late = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &leader), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    cr_assert_eq(world_state(&w, &follower), FOLLOWING);
    cr_assert_eq(world_state(&w, &late), FOLLOWING);
    world_advance(&w, 1001);
    answer(&leader);
    cr_assert(is_led_by(&follower, &leader));
    cr_assert(is_led_by(&late, &leader));
}

Test(core_flight, answer_of_a_follower_from_before_a_restart_is_its_own)
{
    world_worker(&w, 100, "w", 1);
    const struct id first = submit(1, "standard", 1);
    const struct lease_ref lease = world_lease(&w, &first);
    world_restart(&w);
    world_client(&w, 1, "a");
    world_advance(&w, w.config.broker.reclaim_ms);
    const struct id second = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &second), FOLLOWING);
    world_worker(&w, 100, "w", 0);
    world_result(&w, 100, &lease, ANSWERED, 0);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &second, 1)->effect.as.result.state, SUCCEEDED);
}

/* ---- priority ---- */

Test(core_flight, urgent_follower_lifts_its_leader)
{
    const struct id other = submit_with_priority(2, 4);
    const struct id leader = submit_with_priority(1, 0);
    submit_with_priority(1, 7);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    cr_assert_eq(world_state(&w, &other), QUEUED);
}

Test(core_flight, lift_lasts_over_an_attempt_that_failed)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit_with_priority(1, 0);
    const struct id other = submit_with_priority(2, 4);
    submit_with_priority(1, 7);
    end_with(&leader, WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED, false);
    world_advance(&w, 1000);
    world_credit(&w, 100, 2);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    cr_assert_eq(world_state(&w, &other), QUEUED);
}

/* ---- a key that lies ---- */

static void assert_split(Wire__AttemptOutcome outcome)
{
    world_worker(&w, 100, "w", 100);
    const struct id liar = submit(1, "standard", 1);
    const struct id one = submit(1, "standard", 1);
    const struct id two = submit(2, "standard", 1);
    end_with(&liar, outcome, true);
    cr_assert_eq(world_state(&w, &one), LEASED);
    cr_assert_eq(world_state(&w, &two), LEASED);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &one), 0);
    cr_assert_eq(world_stats(&w).tiers[1].flights_split, 1);
    const struct world_effect *dispatch = world_find(&w, EFFECT_DISPATCH, &one, 100);
    cr_assert_null(dispatch->effect.as.dispatch.canonical_key);
    const struct id fresh = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &fresh), LEASED);
    answer(&fresh);
    answer(&one);
    cr_assert_not(result_of(&one)->effect.as.result.has_leader);
    cr_assert_eq(world_state(&w, &two), LEASED);
}

Test(core_flight, answer_under_a_false_key_is_for_nobody_else)
{
    assert_split(ANSWERED);
}

Test(core_flight, failure_under_a_false_key_is_for_nobody_else)
{
    assert_split(WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED);
}

Test(core_flight, false_key_is_forgotten_for_good)
{
    world_worker(&w, 100, "w", 1);
    const struct id liar = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    end_with(&liar, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, true);
    cr_assert_neq(world_state(&w, &follower), FOLLOWING);
    world_restart(&w);
    world_client(&w, 1, "a");
    world_advance(&w, w.config.broker.reclaim_ms + 5000);
    cr_assert_eq(world_state(&w, &liar), QUEUED);
    cr_assert_eq(world_state(&w, &follower), QUEUED);
    const struct id fresh = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &fresh), QUEUED);
}

/* ---- when it joins ---- */

Test(core_flight, durable_follower_joins_when_it_is_on_disk)
{
    const struct id leader = submit(1, "standard", 1);
    w.withholds_durability = true;
    const struct id follower = submit(1, "standard", 1);
    cr_assert_eq(world_count(&w, EFFECT_ACCEPTED, &follower), 0);
    cr_assert_eq(world_state(&w, &follower), QUEUED);
    w.withholds_durability = false;
    world_make_durable(&w);
    cr_assert_eq(world_count(&w, EFFECT_ACCEPTED, &follower), 1);
    cr_assert_eq(world_state(&w, &follower), FOLLOWING);
    cr_assert(follows(&follower, &leader));
}

Test(core_flight, follower_that_cannot_be_written_is_refused_and_the_others_go_on)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    w.withholds_durability = true;
    const struct id lost = submit(1, "standard", 1);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN,
                                   .as.store_down = {.first_batch = w.batch - 1, .why = "full"}});
    cr_assert_eq(world_count(&w, EFFECT_REJECTED, &lost), 1);
    answer(&leader);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &follower), 0);
    w.withholds_durability = false;
    world_turn(&w, &(struct event){.kind = EVENT_STORE_UP});
    world_make_durable(&w);
    cr_assert(is_led_by(&follower, &leader));
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
}

Test(core_flight, delayed_job_joins_when_its_delay_is_over)
{
    world_worker(&w, 100, "w", 1);
    struct event event = keyed(1, "standard", 1);
    event.as.submit.delay_ms = 500;
    world_submit_event(&w, &event);
    const struct id delayed = event.as.submit.job_id;
    const struct id leader = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    cr_assert_eq(world_state(&w, &delayed), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    world_advance(&w, 500);
    cr_assert_eq(world_state(&w, &delayed), FOLLOWING);
}

/*
 * A delayed job that its worker still runs since before a restart, while an identical one leads.
 * Returns the leader, which runs at worker 101.
 */
static struct id reclaim_beside_a_leader(struct event *ret_submission, struct lease_ref *ret_lease)
{
    *ret_submission = keyed(1, "realtime", 1);
    world_worker(&w, 100, "w", 1);
    world_submit_event(&w, ret_submission);
    *ret_lease = world_lease(&w, &ret_submission->as.submit.job_id);
    world_restart(&w);
    world_client(&w, 1, "a");
    world_worker(&w, 101, "v", 1);
    struct event again = keyed(1, "realtime", 1);
    again.as.submit.job_id = ret_submission->as.submit.job_id;
    again.as.submit.delay_ms = 5000;
    world_submit_event(&w, &again);
    const struct id leader = submit(1, "realtime", 1);
    cr_assert_eq(view_of(&leader).state, WIRE__JOB_STATE__JOB_STATE_LEASED);
    const struct event hello = {
        .kind = EVENT_WORKER_HELLO,
        .peer = 102,
        .as.worker_hello = {.name = "w", .slots = 2, .held = ret_lease, .held_length = 1}};
    world_turn(&w, &hello);
    world_credit(&w, 102, 1);
    cr_assert_eq(view_of(&ret_lease->job_id).state, WIRE__JOB_STATE__JOB_STATE_LEASED);
    return leader;
}

Test(core_flight, reclaimed_job_whose_worker_is_lost_follows_who_leads)
{
    struct event submission;
    struct lease_ref lease;
    const struct id leader = reclaim_beside_a_leader(&submission, &lease);
    world_worker(&w, 103, "u", 2);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 102});
    cr_assert(follows(&lease.job_id, &leader));
}

Test(core_flight, reclaimed_job_that_is_undeliverable_follows_who_leads)
{
    struct event submission;
    struct lease_ref lease;
    const struct id leader = reclaim_beside_a_leader(&submission, &lease);
    world_worker(&w, 103, "u", 2);
    world_turn(&w, &(struct event){.kind = EVENT_UNDELIVERABLE,
                                   .peer = 102,
                                   .as.undeliverable = {.lease = lease}});
    cr_assert(follows(&lease.job_id, &leader));
}

Test(core_flight, reclaimed_job_that_fails_follows_who_leads)
{
    struct event submission;
    struct lease_ref lease;
    const struct id leader = reclaim_beside_a_leader(&submission, &lease);
    world_result(&w, 102, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 0);
    world_advance(&w, 10000);
    cr_assert(follows(&lease.job_id, &leader));
}

Test(core_flight, follower_counts_in_the_bounds)
{
    w.tiers[1].jobs_max = 2;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    submit(1, "standard", 1);
    submit(1, "standard", 1);
    const struct id third = submit(1, "standard", 1);
    cr_assert_eq(world_count(&w, EFFECT_REJECTED, &third), 1);
}

Test(core_flight, known_id_and_key_lead_to_the_follower)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit(1, "standard", 1);
    struct event event = keyed(1, "standard", 1);
    event.as.submit.idempotency_key = "k";
    world_submit_event(&w, &event);
    const struct id follower = event.as.submit.job_id;
    struct event again = keyed(2, "standard", 1);
    again.as.submit.idempotency_key = "k";
    world_submit_event(&w, &again);
    const struct world_effect *accepted =
        world_find(&w, EFFECT_ACCEPTED, &again.as.submit.job_id, 2);
    cr_assert(id_equal(&accepted->effect.as.accepted.known_as, &follower));
    answer(&leader);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &follower, 1));
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &follower, 2));
}

/* ---- restart ---- */

Test(core_flight, followers_on_disk_find_each_other_again)
{
    struct id jobs[5];
    for (size_t i = 0; i < 5; i++) {
        jobs[i] = submit(1, "standard", 1);
    }
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    world_client(&w, 1, "a");
    for (size_t i = 0; i < 5; i++) {
        world_job_event(&w, EVENT_WAIT, 1, &jobs[i]);
    }
    world_advance(&w, w.config.broker.reclaim_ms);
    cr_assert_eq(world_stats(&w).tiers[1].states[FOLLOWING], 4);
    world_worker(&w, 100, "w", 5);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 1);
    for (size_t i = 0; i < 5; i++) {
        if (world_state(&w, &jobs[i]) == LEASED) {
            answer(&jobs[i]);
        }
    }
    for (size_t i = 0; i < 5; i++) {
        cr_assert_eq(world_find(&w, EFFECT_RESULT, &jobs[i], 1)->effect.as.result.state, SUCCEEDED);
    }
    cr_assert_eq(world_records(&w, STORE_JOBS), 0);
}

Test(core_flight, leader_whose_lease_is_on_disk_leads_after_a_restart)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    world_advance(&w, 200); /* its lease is recorded */
    world_restart(&w);
    world_client(&w, 1, "a");
    world_advance(&w, w.config.broker.reclaim_ms);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    cr_assert_eq(world_state(&w, &follower), FOLLOWING);
}

Test(core_flight, payload_of_a_follower_is_read_again_when_it_leads)
{
    const struct id leader = submit(1, "standard", 1);
    const struct id follower = submit(1, "standard", 1);
    cr_assert_eq(world_stats(&w).payload_memory_bytes, 4);
    world_job_event(&w, EVENT_CANCEL, 1, &leader);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_state(&w, &follower), LEASED);
}

/* ---- many ---- */

enum { MANY = 5000 };

static void submit_many(const char *tier, struct id *ret_jobs)
{
    for (size_t i = 0; i < MANY; i++) {
        ret_jobs[i] = submit(1, tier, 1);
    }
}

static size_t count_results(void)
{
    return world_count(&w, EFFECT_RESULT, NULL);
}

Test(core_flight, large_flight_ends_in_slices_over_the_turns)
{
    static struct id jobs[MANY];
    world_worker(&w, 100, "w", 1);
    submit_many("realtime", jobs);
    answer_for_nothing(&jobs[0]);
    const size_t first = count_results();
    cr_assert(first > 1 && first < MANY / 2);
    cr_assert_eq(core_next_deadline_ms(w.core), w.now.now_ms);
    for (int turns = 0; count_results() < MANY; turns++) {
        cr_assert(turns < 10);
        world_tick(&w);
    }
    cr_assert(is_led_by(&jobs[MANY - 1], &jobs[0]));
    cr_assert_eq(world_stats(&w).jobs, 0);
    cr_assert_neq(core_next_deadline_ms(w.core), w.now.now_ms);
}

Test(core_flight, slices_of_a_durable_flight_wait_for_the_disk)
{
    static struct id jobs[MANY];
    world_worker(&w, 100, "w", 1);
    submit_many("standard", jobs);
    w.withholds_durability = true;
    answer(&jobs[0]);
    const uint64_t left = world_stats(&w).jobs;
    cr_assert(left > 0 && left < MANY - 1);
    for (int i = 0; i < 5; i++) {
        world_tick(&w);
    }
    cr_assert_eq(world_stats(&w).jobs, left);
    cr_assert_neq(core_next_deadline_ms(w.core), w.now.now_ms, "it spins");
    cr_assert_eq(count_results(), 0);
    w.withholds_durability = false;
    world_make_durable(&w);
    cr_assert_eq(count_results(), MANY);
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_flight, crash_between_slices_loses_none_of_the_rest)
{
    static struct id jobs[MANY];
    world_worker(&w, 100, "w", 1);
    submit_many("standard", jobs);
    w.withholds_durability = true;
    answer(&jobs[0]);
    const uint64_t left = world_stats(&w).jobs;
    world_restart(&w); /* the records of the first slice are there, in this store */
    w.withholds_durability = false;
    cr_assert_eq(world_stats(&w).jobs, left);
    world_advance(&w, w.config.broker.reclaim_ms);
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_stats(&w).tiers[1].states[FOLLOWING], left - 1);
    for (size_t i = 0; i < MANY; i++) {
        if (world_state(&w, &jobs[i]) == LEASED) {
            answer(&jobs[i]);
            break;
        }
    }
    cr_assert_eq(world_stats(&w).jobs, 0);
    cr_assert_eq(world_records(&w, STORE_RESULTS), MANY);
}

Test(core_flight, followers_of_an_ending_flight_may_be_cancelled_and_expire)
{
    static struct id jobs[MANY];
    world_worker(&w, 100, "w", 1);
    submit_many("standard", jobs);
    w.withholds_durability = true;
    answer(&jobs[0]);
    world_job_event(&w, EVENT_WAIT, 1, &jobs[MANY - 1]);
    cr_assert_eq(world_state(&w, &jobs[MANY - 1]), FOLLOWING);
    cr_assert_not(view_of(&jobs[MANY - 1]).has_leader);
    world_job_event(&w, EVENT_CANCEL, 1, &jobs[MANY - 1]);
    const struct id next = submit(1, "standard", 1);
    world_advance(&w, 600001);
    w.withholds_durability = false;
    world_make_durable(&w);
    cr_assert_eq(result_of(&jobs[MANY - 1])->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_CANCELLED);
    cr_assert_eq(result_of(&jobs[MANY - 2])->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_EXPIRED);
    cr_assert_eq(result_of(&jobs[1])->effect.as.result.state, SUCCEEDED);
    cr_assert_eq(world_state(&w, &next), UNKNOWN);
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_flight, draining_broker_is_not_idle_while_a_flight_ends)
{
    static struct id jobs[MANY];
    world_worker(&w, 100, "w", 1);
    submit_many("realtime", jobs);
    world_turn(&w, &(struct event){.kind = EVENT_DRAIN});
    answer_for_nothing(&jobs[0]);
    cr_assert_not(core_is_idle(w.core));
    for (int turns = 0; !core_is_idle(w.core); turns++) {
        cr_assert(turns < 10);
        world_tick(&w);
    }
    cr_assert_eq(count_results(), MANY);
}

Test(core_flight, core_is_destroyed_with_flights_in_it)
{
    static struct id jobs[MANY];
    world_worker(&w, 100, "w", 1);
    submit_many("realtime", jobs);
    submit(1, "standard", 2);
    submit(1, "standard", 2);
    answer_for_nothing(&jobs[0]); /* the sanitizers look at what stays */
    cr_assert(world_stats(&w).jobs > 2);
}

/* ---- in any order ---- */

enum { STEPS = 2000, JOBS = 600, KEYS = 4 };

static uint64_t dice;

static uint64_t roll(uint64_t sides)
{
    dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (dice >> 33) % sides;
}

struct played {
    struct id id;
    bool is_durable;
};

static struct played played[JOBS];
static size_t played_length;

static void play_submit(void)
{
    static const char *const tiers[] = {"realtime", "standard"};
    if (played_length == JOBS) {
        return;
    }
    const bool is_durable = roll(2) == 1;
    struct event event = keyed(1 + roll(2), tiers[is_durable], (uint8_t)roll(KEYS));
    event.as.submit.priority = (uint32_t)roll(10);
    event.as.submit.delay_ms = roll(4) == 0 ? (int64_t)roll(3000) : 0;
    event.as.submit.deadline_in_ms = roll(4) == 0 ? 4000 + (int64_t)roll(20000) : 0;
    event.as.submit.stream = roll(3) == 0;
    played[played_length++] = (struct played){event.as.submit.job_id, is_durable};
    world_submit_event(&w, &event);
}

static void play_result(const struct id *job)
{
    static const Wire__AttemptOutcome outcomes[] = {ANSWERED,
                                                    ANSWERED,
                                                    ANSWERED,
                                                    WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE,
                                                    WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED,
                                                    WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED,
                                                    WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED};
    if (world_find(&w, EFFECT_DISPATCH, job, 100) == NULL) {
        return;
    }
    if (roll(2) == 0) {
        struct event chunk = {.kind = EVENT_CHUNK, .peer = 100};
        const struct lease_ref lease = world_lease(&w, job);
        chunk.as.chunk.header = (struct frame_chunk){
            .job_id = *job, .attempt = lease.attempt, .index = (uint32_t)roll(3)};
        cr_assert_eq(blob_create("piece", 5, &chunk.as.chunk.data), 0);
        world_turn(&w, &chunk);
        blob_unref(&chunk.as.chunk.data);
        return;
    }
    end_with(job, outcomes[roll(sizeof(outcomes) / sizeof(outcomes[0]))], roll(12) == 0);
}

static struct core_tier_stats played_stats; /* of all cores */

static void add_stats(void)
{
    const struct core_stats stats = world_stats(&w);
    for (size_t i = 0; i < stats.tiers_length; i++) {
        played_stats.followers_joined += stats.tiers[i].followers_joined;
        played_stats.followers_concluded += stats.tiers[i].followers_concluded;
        played_stats.followers_promoted += stats.tiers[i].followers_promoted;
        played_stats.flights_split += stats.tiers[i].flights_split;
    }
}

static void play_restart(void)
{
    add_stats();
    world_restart(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "a");
}

/* Whatever else holds: among the pending jobs with one key in one flow at most one is no follower.
 */
static void check(void)
{
    const struct core_stats stats = world_stats(&w);
    uint64_t following = 0;
    uint64_t led = 0;
    for (size_t i = 0; i < played_length; i++) {
        struct core_job_view view;
        if (core_view_job(w.core, &played[i].id, w.now, &view) < 0) {
            continue;
        }
        led += view.followers;
        if (view.state == FOLLOWING && view.has_leader) {
            struct core_job_view leader;
            following++;
            cr_assert_eq(core_view_job(w.core, &view.led_by, w.now, &leader), 0);
            cr_assert(leader.followers > 0);
            cr_assert_neq(leader.state, FOLLOWING);
            cr_assert_neq(leader.state, WIRE__JOB_STATE__JOB_STATE_DEAD);
            cr_assert_str_eq(leader.tier, view.tier);
        }
    }
    cr_assert_eq(following, led);
    cr_assert_eq(following, stats.tiers[0].states[FOLLOWING] + stats.tiers[1].states[FOLLOWING]);
}

/* Whoever asks, and however often: a job has one outcome. */
static void check_outcomes(void)
{
    for (size_t i = 0; i < w.log_length; i++) {
        const struct effect_result *result = &w.log[i].effect.as.result;
        if (w.log[i].effect.kind == EFFECT_RESULT) {
            const struct world_effect *last = world_find(&w, EFFECT_RESULT, &result->job_id, 0);
            cr_assert_eq(last->effect.as.result.state, result->state);
        }
    }
}

static void play_step(uint64_t *credit)
{
    const struct id *some = played_length == 0 ? NULL : &played[roll(played_length)].id;
    switch (roll(12)) {
    case 0:
    case 1:
    case 2:
        play_submit();
        break;
    case 3:
        if (some != NULL) {
            world_job_event(&w, EVENT_CANCEL, 1, some);
        }
        break;
    case 4:
        if (some != NULL) {
            world_turn(&w, &(struct event){.kind = EVENT_WAIT,
                                           .peer = 1 + roll(2),
                                           .as.job = {.job_id = *some, .stream = roll(2) == 0}});
        }
        break;
    case 5:
        world_advance(&w, (int64_t)roll(800));
        break;
    case 6:
        w.withholds_durability = !w.withholds_durability;
        if (!w.withholds_durability) {
            world_make_durable(&w);
        }
        break;
    case 7:
        world_credit(&w, 100, *credit += roll(3));
        break;
    case 8:
        if (roll(10) == 0) {
            world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
            world_worker(&w, 100, "w", 8);
            *credit = 8;
        } else if (roll(20) == 0) {
            play_restart();
            world_worker(&w, 100, "w", 8);
            *credit = 8;
        }
        break;
    default:
        if (some != NULL) {
            play_result(some);
        }
        break;
    }
}

/* In the end each job that is still known is answered. */
static void play_out(uint64_t credit)
{
    w.withholds_durability = false;
    world_make_durable(&w);
    world_worker(&w, 100, "w", 8);
    credit = 8;
    for (int rounds = 0; world_stats(&w).jobs > 0; rounds++) {
        cr_assert(rounds < 1000);
        for (size_t i = 0; i < played_length; i++) {
            if (world_state(&w, &played[i].id) == LEASED) {
                answer_for_nothing(&played[i].id);
                world_credit(&w, 100, ++credit);
            }
        }
        world_advance(&w, 5000);
    }
    cr_assert_eq(world_records(&w, STORE_LEASES), 0);
}

Test(core_flight, every_order_of_events_keeps_the_flights_whole, .timeout = 110)
{
    const char *given = getenv("TIERMQ_TEST_SEED");
    const uint64_t first = given != NULL ? strtoull(given, NULL, 10) : 1;
    const uint64_t seeds = given != NULL ? 1 : 6;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        stop();
        start();
        w.config.broker.stream_log_bytes_max = 1000;
        cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
        dice = seed;
        played_length = 0;
        uint64_t credit = 8;
        world_worker(&w, 100, "w", 8);
        for (int i = 0; i < STEPS; i++) {
            play_step(&credit);
            if (i % 50 == 0) {
                check();
            }
        }
        play_out(credit);
        check_outcomes();
        add_stats();
        cr_assert_eq(w.restore_errors, 0);
    }
    cr_assert(played_stats.followers_joined > seeds * 20);
    cr_assert(played_stats.followers_concluded > seeds * 5);
    cr_assert(played_stats.followers_promoted > seeds);
    cr_assert(played_stats.flights_split > 0);
}

/* ---- what the leader's answer is made from is invalidated meanwhile ---- */

static void invalidate(char *tenant)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tag = "prices";
    selector.tenant = tenant;
    const struct event event = {.kind = EVENT_CACHE_INVALIDATE,
                                .as.cache_invalidate = {&selector, "prices changed", 0}};
    world_turn(&w, &event);
}

Test(core_flight, who_comes_after_an_invalidation_does_not_follow_who_was_dispatched_before)
{
    world_worker(&w, 100, "w", 4);
    const struct id leader = submit(1, "standard", 1);
    const struct id before = submit(1, "standard", 1);
    invalidate("");
    const struct id after = submit(1, "standard", 1);
    const struct id last = submit(1, "standard", 1);
    cr_assert(follows(&before, &leader));
    cr_assert_eq(world_state(&w, &after), LEASED);
    cr_assert(follows(&last, &after));
    answer(&leader);
    cr_assert(is_led_by(&before, &leader));
    cr_assert_null(world_find(&w, EFFECT_RESULT, &last, 0));
    answer(&after);
    cr_assert(is_led_by(&last, &after));
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_flight, leader_that_is_dispatched_after_an_invalidation_is_followed)
{
    const struct id leader = submit(1, "standard", 1);
    invalidate("");
    world_worker(&w, 100, "w", 4);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    const struct id after = submit(1, "standard", 1);
    cr_assert(follows(&after, &leader));
}

Test(core_flight, invalidation_of_another_tenant_ends_no_flight)
{
    world_worker(&w, 100, "w", 4);
    const struct id leader = submit(1, "standard", 1);
    invalidate("b");
    const struct id after = submit(1, "standard", 1);
    cr_assert(follows(&after, &leader));
    invalidate("a");
    const struct id own = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &own), LEASED);
}

Test(core_flight, invalidation_of_a_tenant_that_nobody_knows_ends_no_flight)
{
    world_worker(&w, 100, "w", 4);
    const struct id leader = submit(1, "standard", 1);
    invalidate("mistyped");
    const struct id after = submit(1, "standard", 1);
    cr_assert(follows(&after, &leader));
}

Test(core_flight, invalidation_reaches_a_tenant_that_became_known_before_it_was_told)
{
    world_worker(&w, 100, "w", 4);
    w.withholds_durability = true;
    invalidate("new");
    w.config.tenants[3].name = "new";
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_client(&w, 3, "new");
    const struct id leader = submit(3, "realtime", 1);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    world_make_durable(&w);
    const struct id after = submit(3, "realtime", 1);
    cr_assert_eq(world_state(&w, &after), LEASED);
}

Test(core_flight, dispatched_while_an_invalidation_is_not_told_yet_is_before_it)
{
    world_worker(&w, 100, "w", 4);
    w.withholds_durability = true;
    invalidate("");
    const struct id leader = submit(1, "realtime", 1);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    world_make_durable(&w);
    const struct id after = submit(1, "realtime", 1);
    cr_assert_eq(world_state(&w, &after), LEASED);
}

Test(core_flight, outdated_leader_that_waits_again_leads_those_it_has_and_nobody_else)
{
    world_worker(&w, 100, "w", 4);
    const struct id leader = submit(1, "standard", 1);
    const struct id before = submit(1, "standard", 1);
    invalidate("");
    const struct id after = submit(1, "standard", 1);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    cr_assert(follows(&before, &leader));
    cr_assert_eq(world_state(&w, &leader), QUEUED);
    cr_assert_eq(world_state(&w, &after), QUEUED);
    world_job_event(&w, EVENT_CANCEL, 1, &leader); /* while another one leads */
    cr_assert_eq(world_state(&w, &before), QUEUED);
    world_worker(&w, 100, "w", 4);
    answer(&before);
    answer(&after);
    cr_assert_eq(world_stats(&w).jobs, 0);
}

/* Its first attempt began before, and nobody knows which of its followers came after. */
Test(core_flight, late_answer_of_an_attempt_from_before_is_not_shared)
{
    world_worker(&w, 100, "w", 1);
    world_worker(&w, 101, "x", 1);
    const struct id leader = submit(1, "standard", 1);
    const uint64_t first = world_find(&w, EFFECT_DISPATCH, &leader, 0)->effect.peer;
    const struct lease_ref lease = world_lease(&w, &leader);
    invalidate("");
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = first});
    cr_assert_eq(world_state(&w, &leader), LEASED); /* by the other one */
    const struct id after = submit(1, "standard", 1);
    cr_assert(follows(&after, &leader));
    world_worker(&w, 102, "y", 1);
    world_result(&w, 102, &lease, ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &leader, 0));
    cr_assert_null(world_find(&w, EFFECT_RESULT, &after, 0));
    cr_assert_eq(world_state(&w, &after), LEASED);
}

/* Its worker gives it to the attempt that was dispatched after. */
Test(core_flight, answer_from_before_that_is_carried_on_is_not_shared)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit(1, "standard", 1);
    const struct lease_ref before = world_lease(&w, &leader);
    invalidate("");
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_worker(&w, 101, "w", 2);
    const struct id after = submit(1, "standard", 1);
    cr_assert(follows(&after, &leader));
    world_turn(&w, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                                   .peer = 101,
                                   .as.attempt_result = {.lease = world_lease(&w, &leader),
                                                         .outcome = ANSWERED,
                                                         .error_code = "",
                                                         .error_text = "",
                                                         .made_by = before.attempt}});
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &leader, 0));
    cr_assert_null(world_find(&w, EFFECT_RESULT, &after, 0));
    cr_assert_eq(world_state(&w, &after), LEASED);
}

Test(core_flight, who_follows_runs_by_itself_when_a_worker_comes_back_with_an_unknown_attempt)
{
    invalidate("");
    const struct id leader = submit(1, "standard", 1);
    const struct id after = submit(1, "standard", 1);
    const struct lease_ref held = {leader, 1};
    const struct event hello = {
        .kind = EVENT_WORKER_HELLO,
        .peer = 100,
        .as.worker_hello = {.name = "w", .slots = 2, .held = &held, .held_length = 1}};
    world_turn(&w, &hello);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    cr_assert_not(view_of(&after).has_leader);
}

/* It comes back from a lost lease while another one leads, which is cancelled then. */
Test(core_flight, who_was_dispatched_before_and_lost_its_lease_does_not_lead_who_came_after)
{
    world_worker(&w, 100, "w", 1);
    const struct id before = submit(1, "standard", 1);
    const struct lease_ref lease = world_lease(&w, &before);
    invalidate("");
    world_worker(&w, 101, "x", 1);
    const struct id leader = submit(1, "standard", 1);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    const struct id after = submit(1, "standard", 1);
    const struct id last = submit(1, "standard", 1);
    cr_assert(follows(&before, &leader));
    cr_assert(follows(&after, &leader));
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 101});
    world_job_event(&w, EVENT_CANCEL, 1, &leader);
    cr_assert(follows(&last, &after));
    const struct event hello = {
        .kind = EVENT_WORKER_HELLO,
        .peer = 102,
        .as.worker_hello = {.name = "w", .slots = 1, .held = &lease, .held_length = 1}};
    world_turn(&w, &hello);
    cr_assert_eq(world_state(&w, &before), LEASED);
    world_result(&w, 102, &lease, ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &before, 0));
    cr_assert_null(world_find(&w, EFFECT_RESULT, &after, 0));
    cr_assert_null(world_find(&w, EFFECT_RESULT, &last, 0));
}

/* What was dispatched shortly before a crash is recorded nowhere, so its number is given again. */
Test(core_flight, late_answer_from_before_a_restart_is_not_shared_though_its_number_is_the_same)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit(1, "standard", 1);
    const struct lease_ref lease = world_lease(&w, &leader);
    world_restart(&w);
    world_forget_log(&w);
    world_client(&w, 1, "a");
    invalidate("");
    world_worker(&w, 101, "x", 1);
    world_advance(&w, w.config.broker.reclaim_ms);
    cr_assert_eq(world_lease(&w, &leader).attempt, lease.attempt);
    const struct id after = submit(1, "standard", 1);
    cr_assert(follows(&after, &leader));
    const struct event hello = {
        .kind = EVENT_WORKER_HELLO,
        .peer = 102,
        .as.worker_hello = {.name = "w", .slots = 1, .answered = &lease, .answered_length = 1}};
    world_turn(&w, &hello);
    world_result(&w, 102, &lease, ANSWERED, 0);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &after), 0);
    cr_assert_eq(world_state(&w, &leader), UNKNOWN);
    cr_assert_eq(world_stats(&w).jobs, 1);
}

/* Both attempts have the same number, and the core cannot tell which of them it is. */
Test(core_flight, attempt_that_comes_back_from_before_a_restart_is_not_shared)
{
    world_worker(&w, 100, "w", 1);
    const struct id leader = submit(1, "standard", 1);
    const struct lease_ref lease = world_lease(&w, &leader);
    world_restart(&w);
    world_client(&w, 1, "a");
    invalidate("");
    world_worker(&w, 101, "x", 1);
    world_advance(&w, w.config.broker.reclaim_ms);
    const struct id after = submit(1, "standard", 1);
    cr_assert(follows(&after, &leader));
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 101});
    cr_assert(follows(&after, &leader));
    const struct event hello = {
        .kind = EVENT_WORKER_HELLO,
        .peer = 102,
        .as.worker_hello = {.name = "w", .slots = 1, .held = &lease, .held_length = 1}};
    world_turn(&w, &hello);
    cr_assert_eq(world_state(&w, &leader), LEASED);
    world_result(&w, 102, &lease, ANSWERED, 0);
    cr_assert_eq(world_state(&w, &leader), UNKNOWN);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &after), 0);
}
