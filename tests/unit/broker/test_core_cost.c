/* What attempts used is booked once, and budgets hold: through restarts, repetitions, losses and
 * changes of day. */
#include <criterion/criterion.h>
#include <string.h>
#include "broker/core/charge.h"
#include "tests/unit/broker/core_world.h"

#define ANSWERED WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define FAILED   WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

enum { CALL = 1000 }; /* what an attempt costs at most, in nano-dollars: its request alone */
static const int64_t DAY_MS = INT64_C(86400000);

static struct world w;

static void start(void)
{
    world_init(&w);
    w.config.cost = (struct config_cost){.keep_days = 10, .rows_max = 100};
    w.config.models[0].provider = "p";
    w.config.models[0].request_nanousd = CALL;
    w.config.models[0].max_tokens_default = 1;
    w.config.models[1].provider = "p";
    w.config.models[1].request_nanousd = CALL / 10;
    w.now.unix_ms = INT64_C(1769860800000); /* 2026-01-31 12:00 UTC */
    world_start(&w);
    world_client(&w, 1, "a");
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_cost, .init = start, .fini = stop);

static void budget(uint64_t daily)
{
    world_budget(&w, daily, 1000);
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
}

/* Of the whole ledger. */
static void add_up(void *context, const struct core_cost_view *view)
{
    core_cost_add(context, view->sum);
}

static struct core_cost ledger(void)
{
    struct core_cost sum = {0};
    core_visit_costs(w.core, add_up, &sum);
    return sum;
}

/* Of what an attempt used at m0: 10 tokens, of them 4 from the prompt cache. */
struct said {
    uint64_t peer;
    Wire__AttemptOutcome outcome;
    uint64_t nanousd;      /* 0: nothing was used */
    uint32_t combined;     /* jobs that shared the call, of whose cost this is a part */
    size_t told;           /* calls … */
    uint64_t call_nanousd; /* … and the cost of each */
    bool calls_are_old;
    uint32_t made_by;
    uint64_t run;
};

static void say(const struct lease_ref *lease, const struct said *said)
{
    Wire__Upstream upstream = WIRE__UPSTREAM__INIT;
    Wire__Call call = WIRE__CALL__INIT;
    Wire__Usage usage = WIRE__USAGE__INIT;
    const Wire__Call *const calls[] = {&call, &call};
    usage.provider = upstream.provider = "p";
    usage.model = upstream.model = "m0";
    usage.cost_nanousd = said->nanousd;
    usage.input_tokens = said->nanousd > 0 ? 10 : 0;
    usage.cached_input_tokens = said->nanousd > 0 ? 4 : 0;
    usage.combined = said->combined;
    call.upstream = &upstream;
    call.outcome = said->outcome;
    call.error_code = "";
    call.cost_nanousd = said->call_nanousd;
    world_turn(&w, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                                   .peer = said->peer,
                                   .as.attempt_result = {.lease = *lease,
                                                         .outcome = said->outcome,
                                                         .error_code = "",
                                                         .error_text = "",
                                                         .usage = &usage,
                                                         .calls = calls,
                                                         .calls_length = said->told,
                                                         .calls_are_old = said->calls_are_old,
                                                         .tenant = "a",
                                                         .tier = "standard",
                                                         .made_by = said->made_by,
                                                         .run = said->run}});
}

static void says(uint64_t peer, const struct lease_ref *lease, Wire__AttemptOutcome outcome,
                 uint64_t nanousd, uint32_t made_by)
{
    say(lease, &(struct said){.peer = peer,
                              .outcome = outcome,
                              .nanousd = nanousd,
                              .told = nanousd > 0 && made_by == 0,
                              .call_nanousd = nanousd,
                              .made_by = made_by});
}

static void hello(uint64_t peer, const char *name, const struct lease_ref *held, size_t length)
{
    world_turn(
        &w, &(struct event){.kind = EVENT_WORKER_HELLO,
                            .peer = peer,
                            .as.worker_hello = {
                                .name = name, .slots = 10, .held = held, .held_length = length}});
}

static bool is_accepted(const struct id *job)
{
    return world_find(&w, EFFECT_ACCEPTED, job, 1) != NULL;
}

static bool is_dispatched(const struct id *job)
{
    return world_dispatch(&w, job) != NULL;
}

Test(core_cost, answer_is_booked_by_class_and_once)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    says(100, &lease, ANSWERED, 700, 0);
    says(100, &lease, ANSWERED, 700, 0);
    cr_assert_eq(ledger().calls, 1);
    cr_assert_eq(ledger().cost_nanousd, 700);
    cr_assert_eq(ledger().late_nanousd, 0);
    cr_assert_eq(ledger().tokens[PRICE_INPUT], 6);
    cr_assert_eq(ledger().tokens[PRICE_CACHED_INPUT], 4);
}

Test(core_cost, ledger_survives_a_restart_and_knows_what_is_said_again)
{
    budget(10 * CALL);
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "realtime");
    const struct lease_ref lease = world_lease(&w, &job);
    says(100, &lease, FAILED, 300, 0);
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    hello(100, "w", NULL, 0);
    says(100, &lease, FAILED, 300, 0);
    cr_assert_eq(ledger().cost_nanousd, 300);
    cr_assert_eq(world_purse(&w).day_nanousd, 300);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 0);
}

Test(core_cost, worker_keeps_its_result_until_the_ledger_is_on_the_disk)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "realtime");
    const struct lease_ref lease = world_lease(&w, &job);
    w.withholds_durability = true;
    says(100, &lease, ANSWERED, 700, 0);
    cr_assert_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 100));
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 1), "its client does not wait for that");
    world_make_durable(&w);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 100));
}

Test(core_cost, lost_attempt_is_estimated_until_its_worker_speaks)
{
    budget(10 * CALL);
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    cr_assert_eq(world_purse(&w).reserved_nanousd, CALL);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    cr_assert_eq(world_purse(&w).reserved_nanousd, CALL, "it may have been called");
    world_advance(&w, w.config.broker.lease_ms);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 0);
    cr_assert_eq(world_purse(&w).day_nanousd, CALL);
    cr_assert_eq(ledger().estimated_calls, 1);
    world_restart(&w);
    world_client(&w, 1, "a");
    hello(101, "w", NULL, 0);
    says(101, &lease, FAILED, 250, 0);
    cr_assert_eq(ledger().estimated_calls, 0);
    cr_assert_eq(ledger().cost_nanousd, 250);
    cr_assert_eq(world_purse(&w).day_nanousd, 250);
}

Test(core_cost, late_and_cancelled_attempts_are_charged_as_they_come)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_job_event(&w, EVENT_CANCEL, 1, &job);
    says(100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED, 80, 0);
    says(100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED, 80, 0);
    cr_assert_eq(ledger().cost_nanousd, 80);
    cr_assert_eq(ledger().late_nanousd, 80);
    world_advance(&w, 2 * w.config.broker.lease_ms);
    cr_assert_eq(ledger().estimated_calls, 0);
}

/* Of worker 100, which is gone, the first; of worker 101, the second, which carries it on. */
static struct lease_ref carried_on(struct lease_ref *ret_first)
{
    budget(10 * CALL);
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    *ret_first = world_lease(&w, &job);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_worker(&w, 101, "w", 1);
    return world_lease(&w, &job);
}

Test(core_cost, what_was_carried_on_as_a_later_attempt_is_charged_once)
{
    struct lease_ref first;
    const struct lease_ref second = carried_on(&first);
    cr_assert_eq(second.attempt, first.attempt + 1);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 2 * CALL);
    says(101, &second, ANSWERED, 400, first.attempt);
    cr_assert_eq(ledger().cost_nanousd, 400);
    cr_assert_eq(ledger().calls, 1, "its call is not told again, and was never told before");
    cr_assert_eq(world_purse(&w).reserved_nanousd, 0);
    world_advance(&w, 2 * w.config.broker.lease_ms);
    cr_assert_eq(world_purse(&w).day_nanousd, 400);
}

Test(core_cost, what_was_carried_on_is_charged_once_though_its_lease_is_over)
{
    struct lease_ref first;
    const struct lease_ref second = carried_on(&first);
    world_job_event(&w, EVENT_CANCEL, 1, &second.job_id);
    says(101, &second, WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED, 400, first.attempt);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 0);
    world_advance(&w, 2 * w.config.broker.lease_ms);
    cr_assert_eq(world_purse(&w).day_nanousd, 400);
    cr_assert_eq(ledger().estimated_calls, 0);
}

/* On a tier in memory: the job is as new as its attempt, and its answer has been charged. */
Test(core_cost, answer_from_before_a_crash_leaves_nothing_reserved)
{
    budget(10 * CALL);
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "realtime");
    const struct lease_ref lease = world_lease(&w, &job);
    struct said said = {.peer = 100, .outcome = ANSWERED, .nanousd = 300, .run = 7};
    say(&lease, &said);
    world_restart(&w);
    world_client(&w, 1, "a");
    world_worker(&w, 101, "w", 1);
    world_advance(&w, w.config.broker.reclaim_ms + 1);
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.job_id = job;
    world_submit_event(&w, &event);
    cr_assert_eq(world_purse(&w).reserved_nanousd, CALL);
    said.peer = 101;
    said.made_by = lease.attempt;
    say(&lease, &said);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 1));
    cr_assert_eq(world_purse(&w).reserved_nanousd, 0);
    cr_assert_eq(world_purse(&w).day_nanousd, 300);
    world_advance(&w, 2 * w.config.broker.lease_ms);
    cr_assert_eq(world_purse(&w).day_nanousd, 300);
}

static size_t charges_on_the_disk(void)
{
    size_t length = 0;
    for (size_t i = 0; i < w.records_length; i++) {
        length += memcmp(w.records[i].key, "charge", 6) == 0;
    }
    return length;
}

Test(core_cost, charges_go_after_their_time_though_an_attempt_takes_longer)
{
    w.config.broker.dedup_window_ms = 60000;
    budget(10 * CALL);
    world_worker(&w, 100, "w", 2);
    const struct id slow = world_submit(&w, 1, "standard");
    const struct id quick = world_submit(&w, 1, "standard");
    const struct lease_ref held = world_lease(&w, &slow);
    says(100, &(struct lease_ref){quick, 1}, ANSWERED, 100, 0);
    cr_assert_eq(charges_on_the_disk(), 2);
    for (int i = 0; i < 20; i++) {
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT,
                                       .peer = 100,
                                       .as.worker_heartbeat = {.held = &held, .held_length = 1}});
        world_advance(&w, 10000);
    }
    cr_assert_eq(charges_on_the_disk(), 1);
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    cr_assert_eq(world_purse(&w).reserved_nanousd, CALL);
}

/* What so many attempts of jobs used that nobody knows any more, said in few turns. */
static void say_of_others(uint64_t peer, size_t n)
{
    enum { IN_A_TURN = 1024 };
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.provider = "p";
    usage.model = "m0";
    usage.cost_nanousd = 1;
    for (size_t i = 1; i <= n; i++) {
        const struct event event = {.kind = EVENT_ATTEMPT_RESULT,
                                    .peer = peer,
                                    .as.attempt_result = {.lease = {world_id(&w), 1},
                                                          .outcome = FAILED,
                                                          .error_code = "",
                                                          .error_text = "",
                                                          .usage = &usage,
                                                          .tenant = "b"}};
        core_step(w.core, w.now, &event, w.effects);
        if (i % IN_A_TURN == 0 || i == n) {
            world_tick(&w);
            world_forget_log(&w);
        }
    }
}

/* The broker begins again by a clock that was set back: what is charged now must not be older than
 * what was charged before, or it goes with what is deleted. */
Test(core_cost, charges_outlast_a_clock_that_is_set_back_over_a_restart)
{
    budget(10 * CALL);
    world_worker(&w, 100, "w", 3);
    const struct id before = world_submit(&w, 1, "standard");
    const struct lease_ref held = world_lease(&w, &before);
    say_of_others(100, 1);
    w.now.unix_ms -= DAY_MS / 24;
    world_restart(&w);
    world_client(&w, 1, "a");
    hello(100, "w", &held, 1);
    world_credit(&w, 100, 10);
    world_advance(&w, w.config.broker.reclaim_ms + 1);
    const struct id after = world_submit(&w, 1, "standard");
    cr_assert(is_dispatched(&after));
    world_advance(&w, 1);
    say_of_others(100, CHARGES_MAX);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT,
                                   .peer = 100,
                                   .as.worker_heartbeat = {.held = &held, .held_length = 1}});
    world_advance(&w, 5001); /* what makes room is deleted */
    cr_assert_eq(world_purse(&w).reserved_nanousd, 2 * CALL);
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    cr_assert_eq(world_purse(&w).reserved_nanousd, 2 * CALL);
}

/* At m0, of a call for so many jobs (0: for this one alone): of its cost this one's part, and the
 * call itself where it tells of it. */
static void says_part(const struct lease_ref *lease, Wire__AttemptOutcome outcome,
                      uint32_t combined, uint64_t nanousd, size_t told)
{
    say(lease, &(struct said){.peer = 100,
                              .outcome = outcome,
                              .nanousd = nanousd,
                              .combined = combined,
                              .told = told,
                              .call_nanousd = CALL});
}

Test(core_cost, call_for_several_jobs_counts_once)
{
    world_worker(&w, 100, "w", 3);
    const struct id jobs[] = {world_submit(&w, 1, "standard"), world_submit(&w, 1, "standard"),
                              world_submit(&w, 1, "standard")};
    const struct lease_ref leases[] = {world_lease(&w, &jobs[0]), world_lease(&w, &jobs[1]),
                                       world_lease(&w, &jobs[2])};
    says_part(&leases[0], ANSWERED, 3, CALL / 4, 0);
    cr_assert_eq(ledger().calls, 0);
    cr_assert_eq(ledger().cost_nanousd, CALL / 4);
    says_part(&leases[1], ANSWERED, 3, CALL / 4, 1);
    /* Asked alone afterwards, and not the one that tells. */
    says_part(&leases[2], ANSWERED, 0, CALL / 2 + CALL, 1);
    cr_assert_eq(ledger().calls, 2);
    cr_assert_eq(ledger().cost_nanousd, 2 * CALL);
    cr_assert_eq(ledger().tokens[PRICE_INPUT], 18);
    cr_assert_eq(ledger().tokens[PRICE_CACHED_INPUT], 12);
}

static void see_answered(void *context, const struct core_upstream_view *view)
{
    *(uint64_t *)context += view->counts.answered;
}

Test(core_cost, call_of_an_answer_that_is_given_again_is_the_ledgers_alone)
{
    uint64_t answered = 0;
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref first = world_lease(&w, &job);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_worker(&w, 101, "w", 1);
    const struct lease_ref second = world_lease(&w, &job);
    say(&second, &(struct said){.peer = 101,
                                .outcome = ANSWERED,
                                .nanousd = CALL / 4,
                                .combined = 3,
                                .told = 1,
                                .call_nanousd = CALL,
                                .calls_are_old = true,
                                .made_by = first.attempt});
    cr_assert_eq(ledger().calls, 1);
    cr_assert_eq(ledger().cost_nanousd, CALL / 4);
    core_visit_upstreams(w.core, w.now, see_answered, &answered);
    cr_assert_eq(answered, 0);
}

Test(core_cost, job_that_was_asked_alone_may_tell_of_two_calls)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    says_part(&lease, ANSWERED, 0, CALL / 2 + CALL, 2);
    cr_assert_eq(ledger().calls, 2);
}

Test(core_cost, answer_of_its_own_is_of_one_call_though_none_is_told)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    says_part(&lease, ANSWERED, 0, CALL, 0);
    cr_assert_eq(ledger().calls, 1);
    cr_assert_eq(ledger().estimated_calls, 0);
    cr_assert_eq(ledger().cost_nanousd, CALL);
}

Test(core_cost, part_of_a_call_in_vain_is_no_call)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    says_part(&lease, FAILED, 0, CALL / 4, 0);
    cr_assert_eq(ledger().calls, 0);
    cr_assert_eq(ledger().cost_nanousd, CALL / 4);
}

Test(core_cost, sums_end_at_their_bounds)
{
    const struct core_cost most = {.calls = UINT64_MAX, .saved_routing_nanousd = INT64_MIN};
    struct core_cost sum = {.calls = 1, .hits = 2, .saved_routing_nanousd = -1};
    core_cost_add(&sum, &most);
    cr_assert_eq(sum.calls, UINT64_MAX);
    cr_assert_eq(sum.hits, 2);
    cr_assert_eq(sum.saved_routing_nanousd, INT64_MIN);
}

Test(core_cost, hit_is_a_saving)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.provider = "";
    usage.model = "m0";
    usage.cache = WIRE__CACHE_STATUS__CACHE_HIT;
    usage.saved_nanousd = 900;
    usage.input_tokens = 5;
    world_turn(&w, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                                   .peer = 100,
                                   .as.attempt_result = {.lease = world_lease(&w, &job),
                                                         .outcome = ANSWERED,
                                                         .error_code = "",
                                                         .error_text = "",
                                                         .usage = &usage}});
    cr_assert_eq(ledger().hits, 1);
    cr_assert_eq(ledger().saved_cache_nanousd, 900);
    cr_assert_eq(ledger().calls, 0);
}

Test(core_cost, attempts_in_flight_have_no_job_refused_but_wait)
{
    budget(3 * CALL / 2);
    world_worker(&w, 100, "w", 10);
    const struct id first = world_submit(&w, 1, "standard");
    const struct id second = world_submit(&w, 1, "standard");
    cr_assert(is_accepted(&second));
    cr_assert_not(is_dispatched(&second), "both could cost 2000 of 1500");
    says(100, &(struct lease_ref){first, 1}, ANSWERED, 500, 0);
    world_advance(&w, 1000);
    cr_assert(is_dispatched(&second), "500 are spent: it fits to the nano-dollar");
    says(100, &(struct lease_ref){second, 1}, ANSWERED, CALL, 0);
    cr_assert_eq(world_purse(&w).day_nanousd, 3 * CALL / 2);
    const struct id third = world_submit(&w, 1, "standard");
    const struct effect *refused = &world_find(&w, EFFECT_REJECTED, &third, 1)->effect;
    cr_assert_eq(refused->as.rejected.reason, WIRE__REJECT_REASON__REJECT_BUDGET);
    cr_assert_str_eq(world_find(&w, EFFECT_REJECTED, &third, 1)->text,
                     "the budget of the tenant a has too little left (0.000000000 USD, attempts in "
                     "flight may take 0.000000000 of it) for what this job may cost (0.000001000 "
                     "USD); it is refilled at 2026-02-01 00:00 UTC");
    cr_assert_leq(refused->as.rejected.retry_after_ms, DAY_MS / 2);
    cr_assert_gt(refused->as.rejected.retry_after_ms, DAY_MS / 2 - 60000, "midnight");
}

Test(core_cost, refusal_tells_what_is_left_and_what_is_reserved)
{
    budget(5 * CALL / 2);
    world_worker(&w, 100, "w", 10);
    const struct id first = world_submit(&w, 1, "standard");
    const struct id second = world_submit(&w, 1, "standard");
    says(100, &(struct lease_ref){first, 1}, ANSWERED, 2 * CALL, 0);
    const struct id third = world_submit(&w, 1, "standard");
    cr_assert(is_dispatched(&second));
    cr_assert_not_null(strstr(world_find(&w, EFFECT_REJECTED, &third, 1)->text,
                              "(0.000000500 USD, attempts in flight may take 0.000001000 of it)"));
}

Test(core_cost, where_a_worker_chooses_the_dearest_model_is_held)
{
    static struct config_route route = {.name = "no-model"};
    w.config.routes = &route;
    w.config.routes_length = 1;
    budget(3 * CALL / 2);
    world_worker(&w, 100, "w", 10);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "no-model";
    const struct id first = event.as.submit.job_id;
    world_submit_event(&w, &event);
    cr_assert(is_dispatched(&first));
    cr_assert_null(world_dispatch(&w, &first)->model);
    cr_assert_eq(world_purse(&w).reserved_nanousd, CALL);
    event = world_submission(&w, 1, "standard");
    event.as.submit.route = "no-model";
    const struct id second = event.as.submit.job_id;
    world_submit_event(&w, &event);
    cr_assert(is_accepted(&second));
    cr_assert_not(is_dispatched(&second));
    says(100, &(struct lease_ref){first, 1}, ANSWERED, CALL, 0);
    world_advance(&w, 60000);
    cr_assert_not(is_dispatched(&second), "too little is left");
    cr_assert_eq(world_purse(&w).day_nanousd, CALL);
}

static void route_of(enum config_choice choice, char *first, char *second, uint64_t daily)
{
    static char *models[2];
    static struct config_route route = {.name = "list", .models = models, .models_length = 2};
    route.choice = choice;
    models[0] = first;
    models[1] = second;
    w.config.routes = &route;
    w.config.routes_length = 1;
    budget(daily);
    world_worker(&w, 100, "w", 10);
}

/* A route whose order decides. */
static void list(char *first, char *second, uint64_t daily)
{
    route_of(CHOICE_LISTED, first, second, daily);
}

Test(core_cost, of_a_list_the_first_model_has_to_fit)
{
    list("m0", "m1", 3 * CALL / 2);
    const struct id first = world_submit_to(&w, 1, "standard", "list", NULL);
    const struct id second = world_submit_to(&w, 1, "standard", "list", NULL);
    cr_assert(is_accepted(&second));
    says(100, &(struct lease_ref){first, 1}, ANSWERED, CALL, 0);
    world_advance(&w, 1000);
    const struct world_effect *expired = world_find(&w, EFFECT_RESULT, &second, 1);
    cr_assert_not_null(expired, "m1 would fit, and is not its turn");
    cr_assert_str_eq(expired->code, "budget");
    const struct id third = world_submit_to(&w, 1, "standard", "list", NULL);
    cr_assert_not(is_accepted(&third));
}

Test(core_cost, where_the_next_of_a_list_does_not_fit_the_first_is_tried_again)
{
    list("m1", "m0", CALL / 2);
    const struct id job = world_submit_to(&w, 1, "standard", "list", NULL);
    world_says(&w, &job, &(struct world_said){.outcome = FAILED});
    world_advance(&w, 1000);
    cr_assert_eq(world_dispatch(&w, &job)->lease.attempt, 2);
    cr_assert_str_eq(world_dispatch(&w, &job)->model, "m1");
}

Test(core_cost, where_no_other_model_will_fit_the_cheap_one_that_failed_is_tried_again)
{
    route_of(CHOICE_SCORED, "m1", "m0", CALL / 2);
    const struct id job = world_submit_to(&w, 1, "standard", "list", NULL);
    cr_assert_str_eq(world_dispatch(&w, &job)->model, "m1");
    world_says(&w, &job, &(struct world_said){.outcome = FAILED});
    world_advance(&w, 1000);
    cr_assert_eq(world_dispatch(&w, &job)->lease.attempt, 2);
    cr_assert_str_eq(world_dispatch(&w, &job)->model, "m1");
}

Test(core_cost, round_that_a_budget_ends_is_followed_by_a_first_backoff)
{
    for (size_t i = 0; i < w.config.tiers_length; i++) {
        w.config.tiers[i].backoff_first_ms = w.config.tiers[i].backoff_max_ms = 300000;
    }
    list("m1", "m0", CALL / 2);
    const struct id job = world_submit_to(&w, 1, "standard", "list", NULL);
    world_says(&w, &job, &(struct world_said){.outcome = FAILED});
    world_advance(&w, 1000);
    cr_assert_eq(world_dispatch(&w, &job)->lease.attempt, 1,
                 "all its attempts would be over at once");
    world_advance(&w, 300000);
    world_worker(&w, 101, "v", 10);
    cr_assert_eq(world_dispatch(&w, &job)->lease.attempt, 2);
}

Test(core_cost, model_that_has_not_failed_is_waited_for_while_others_have_reserved_its_cost)
{
    list("m1", "m0", 3 * CALL / 2);
    const struct id other = world_submit_to(&w, 1, "standard", "m0", NULL);
    cr_assert(is_dispatched(&other));
    const struct id job = world_submit_to(&w, 1, "standard", "list", NULL);
    cr_assert_str_eq(world_dispatch(&w, &job)->model, "m1");
    world_says(&w, &job, &(struct world_said){.outcome = FAILED});
    world_advance(&w, 1000);
    cr_assert_eq(world_dispatch(&w, &job)->lease.attempt, 1, "m1 has failed it");
    says(100, &(struct lease_ref){other, 1}, ANSWERED, CALL / 10, 0);
    world_advance(&w, 1000);
    cr_assert_eq(world_dispatch(&w, &job)->lease.attempt, 2);
    cr_assert_str_eq(world_dispatch(&w, &job)->model, "m0");
}

/* Each once in 50 ms: 100,000 looks a second, and of a million jobs all that the broker does. */
Test(core_cost, looks_of_many_that_wait_for_reservations_are_few)
{
    enum { JOBS = 5000 };
    budget(3 * CALL / 2);
    world_worker(&w, 100, "w", 10);
    const struct id first = world_submit_to(&w, 1, "standard", "m0", NULL);
    for (size_t i = 1; i < JOBS; i++) {
        (void)world_submit_to(&w, 1, "standard", "m0", NULL);
    }
    world_advance(&w, 3000);
    const uint64_t before = core_budget_counts(w.core)->waited;
    world_advance(&w, 1000);
    cr_assert_lt(core_budget_counts(w.core)->waited - before, 4 * JOBS);
    says(100, &(struct lease_ref){first, 1}, FAILED, 0, 0);
    world_advance(&w, 100);
    cr_assert_eq(world_purse(&w).reserved_nanousd, CALL, "another one has looked");
}

Test(core_cost, worker_is_told_whose_cost_a_budget_holds)
{
    world_worker(&w, 100, "w", 3);
    world_client(&w, 2, "b");
    const struct id before = world_submit(&w, 1, "standard");
    cr_assert_not(world_dispatch(&w, &before)->is_budgeted);
    budget(10 * CALL);
    const struct id job = world_submit(&w, 1, "standard");
    cr_assert(world_dispatch(&w, &job)->is_budgeted);
    const struct id other = world_submit(&w, 2, "standard");
    cr_assert_not(world_dispatch(&w, &other)->is_budgeted, "of another tenant");
}

Test(core_cost, queued_job_waits_for_the_next_day_if_its_deadline_allows_that)
{
    budget(2 * CALL);
    world_worker(&w, 100, "w", 1);
    const struct id running = world_submit(&w, 1, "standard");
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.deadline_in_ms = DAY_MS;
    const struct id patient = event.as.submit.job_id;
    world_submit_event(&w, &event);
    event = world_submission(&w, 1, "standard");
    event.as.submit.deadline_in_ms = 60000;
    const struct id hasty = event.as.submit.job_id;
    world_submit_event(&w, &event);
    says(100, &(struct lease_ref){running, 1}, ANSWERED, 3 * CALL / 2, 0);
    world_credit(&w, 100, 10);
    world_advance(&w, 1000);
    const struct world_effect *expired = world_find(&w, EFFECT_RESULT, &hasty, 1);
    cr_assert_not_null(expired);
    cr_assert_eq(expired->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_EXPIRED);
    cr_assert_str_eq(expired->code, "budget");
    cr_assert_not(is_dispatched(&patient));
    for (int i = 0; i < 13 * 360 && !is_dispatched(&patient); i++) {
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT, .peer = 100});
        world_turn(&w,
                   &(struct event){.kind = EVENT_WAIT, .peer = 1, .as.job = {.job_id = patient}});
        world_advance(&w, 10000);
    }
    cr_assert(is_dispatched(&patient));
    cr_assert_eq(world_purse(&w).day_nanousd, 0);
}

Test(core_cost, job_that_no_budget_will_ever_pay_is_refused_for_good)
{
    budget(CALL - 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct effect *refused = &world_find(&w, EFFECT_REJECTED, &job, 1)->effect;
    cr_assert_eq(refused->as.rejected.reason, WIRE__REJECT_REASON__REJECT_BUDGET);
    cr_assert_eq(refused->as.rejected.retry_after_ms, 0);
    cr_assert_not_null(strstr(world_find(&w, EFFECT_REJECTED, &job, 1)->text,
                              "the budget of the tenant a (daily_usd 0.000000999) is smaller than "
                              "what this job may cost (0.000001000 USD)"));
}

Test(core_cost, after_a_restart_nothing_is_dispatched_before_workers_had_time_to_report)
{
    budget(2 * CALL);
    world_worker(&w, 100, "w", 1);
    (void)world_submit(&w, 1, "realtime");
    world_restart(&w);
    world_client(&w, 1, "a");
    cr_assert_eq(world_purse(&w).reserved_nanousd, CALL, "of the attempt that ran");
    world_worker(&w, 101, "x", 2);
    const struct id job = world_submit(&w, 1, "realtime");
    cr_assert_not(is_dispatched(&job));
    world_advance(&w, w.config.broker.reclaim_ms + 1);
    cr_assert(is_dispatched(&job));
}

Test(core_cost, rows_beyond_the_bound_share_one_that_names_nobody)
{
    w.config.cost.rows_max = 0;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 2);
    for (int i = 0; i < 3; i++) {
        const struct id job = world_submit(&w, 1, "standard");
        const struct lease_ref lease = world_lease(&w, &job);
        says(100, &lease, ANSWERED, 100, 0);
        world_credit(&w, 100, 10);
    }
    cr_assert_eq(ledger().cost_nanousd, 300);
    world_restart(&w);
    cr_assert_eq(ledger().cost_nanousd, 300);
}

Test(core_cost, estimate_is_taken_back_from_the_row_that_names_nobody)
{
    budget(10 * CALL);
    w.config.cost.rows_max = 0;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_advance(&w, w.config.broker.lease_ms);
    cr_assert_eq(ledger().estimated_calls, 1);
    hello(101, "w", NULL, 0);
    says(101, &lease, FAILED, 250, 0);
    cr_assert_eq(ledger().estimated_calls, 0);
    cr_assert_eq(ledger().cost_nanousd, 250);
}

Test(core_cost, days_that_are_too_old_are_forgotten_with_their_records)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    says(100, &lease, ANSWERED, 100, 0);
    w.now.unix_ms += 9 * DAY_MS;
    world_tick(&w);
    cr_assert_eq(ledger().cost_nanousd, 100);
    w.now.unix_ms += 1 * DAY_MS;
    world_tick(&w);
    cr_assert_eq(ledger().cost_nanousd, 0);
    world_restart(&w);
    cr_assert_eq(ledger().cost_nanousd, 0);
}
