/* To which of several providers of one model a job goes whose prompt begins as others do. */
#include <criterion/criterion.h>
#include <string.h>

#include "broker/core/state.h"
#include "broker/core/upstream.h"
#include "tests/unit/broker/core_world.h"

#define ANSWERED    WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

enum { PREFIXES = 200, CALLS_FREE = 4 };

static struct world w;
static struct config_route routes[1];
static char *route_models[] = {"m0"};

/* m0 is at p0 and at p1. */
static void start(void)
{
    world_init(&w);
    world_two_providers(&w);
    routes[0] = (struct config_route){.name = "any", .models = route_models, .models_length = 1};
    w.config.routes = routes;
    w.config.routes_length = 1;
    w.config.routing.prefix_permille = 50;
    for (size_t i = 0; i < WORLD_TIERS; i++) {
        w.tiers[i].weight_quality = 60;
        w.tiers[i].weight_price = 30;
        w.tiers[i].weight_latency = 10;
    }
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_prefix, .init = start, .fini = stop);

static struct id submit_to(const char *route, uint32_t prefix)
{
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = route;
    event.as.submit.prefix = prefix;
    return world_submit_event(&w, &event);
}

static struct id submit(uint32_t prefix)
{
    return submit_to("any", prefix);
}

static const char *provider_of(const struct id *job)
{
    const struct effect_dispatch *dispatch = world_dispatch(&w, job);
    cr_assert_not_null(dispatch);
    return dispatch->provider;
}

static void says(const struct id *job, Wire__AttemptOutcome outcome)
{
    world_says(&w, job, &(struct world_said){.outcome = outcome, .call_ms = 10});
}

/* Where it goes while nothing else runs. */
static const char *home_of(uint32_t prefix)
{
    const struct id job = submit(prefix);
    const char *provider = provider_of(&job);
    says(&job, ANSWERED);
    return provider;
}

/* A prefix that goes to `provider`. */
static uint32_t prefix_at(const char *provider)
{
    for (uint32_t prefix = 1; prefix < PREFIXES; prefix++) {
        if (strcmp(home_of(prefix), provider) == 0) {
            return prefix;
        }
    }
    cr_assert(false, "none of %d goes to %s", PREFIXES, provider);
    return 0;
}

static const char *why(const struct id *job)
{
    uint32_t attempt;
    const char *text = core_explain(w.core, job, &attempt);
    return text == NULL ? "" : text;
}

Test(core_prefix, prompts_that_begin_alike_go_to_one_provider_and_others_are_spread)
{
    size_t at_first = 0;
    world_go(&w);
    for (uint32_t prefix = 1; prefix < PREFIXES; prefix++) {
        const char *home = home_of(prefix);
        at_first += strcmp(home, "p0") == 0;
        for (int again = 0; again < 3; again++) {
            cr_assert_str_eq(home_of(prefix), home);
        }
    }
    cr_assert_gt(at_first, PREFIXES / 3);
    cr_assert_lt(at_first, PREFIXES * 2 / 3);
    cr_assert_str_eq(home_of(0), "p0", "the list's order decides");
}

Test(core_prefix, its_reason_is_told)
{
    world_go(&w);
    (void)prefix_at("p1");
    const struct id job = submit(prefix_at("p1"));
    cr_assert_not_null(strstr(why(&job), "p1/m0: "));
    cr_assert_not_null(strstr(why(&job), "chosen: prompts go there that begin like this one"), "%s",
                       why(&job));
    cr_assert_not_null(
        strstr(why(&job), "as good, but not where prompts go that begin like this one"), "%s",
        why(&job));
}

Test(core_prefix, without_a_weight_it_does_not_count)
{
    w.config.routing.prefix_permille = 0;
    world_go(&w);
    for (uint32_t prefix = 1; prefix < PREFIXES; prefix++) {
        const struct id job = submit(prefix);
        cr_assert_null(strstr(why(&job), "begin like"), "%s", why(&job));
        says(&job, ANSWERED);
    }
}

Test(core_prefix, order_of_a_list_stays)
{
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    const struct id named = submit_to("m0", prefix);
    cr_assert_str_eq(provider_of(&named), "p0", "p1 is there for when p0 fails");
}

Test(core_prefix, provider_that_is_limited_gives_its_prefixes_away_for_so_long)
{
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    const struct id job = submit(prefix);
    world_says(&w, &job,
               &(struct world_said){.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED,
                                    .retry_after_ms = 1000});
    cr_assert_str_eq(home_of(prefix), "p0");
    world_advance(&w, 1100);
    cr_assert_str_eq(home_of(prefix), "p1");
}

Test(core_prefix, provider_that_failed_the_job_does_not_get_it_again_for_its_prefix)
{
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    const struct id job = submit(prefix);
    cr_assert_str_eq(provider_of(&job), "p1");
    says(&job, UNAVAILABLE);
    world_advance(&w, 5000);
    cr_assert_str_eq(provider_of(&job), "p0");
}

Test(core_prefix, provider_that_fails_more_is_not_as_good)
{
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    for (int i = 0; i < 3; i++) { /* its breaker stays closed */
        const struct id failed = submit(prefix);
        const bool is_there = strcmp(provider_of(&failed), "p1") == 0;
        says(&failed, is_there ? UNAVAILABLE : ANSWERED);
    }
    cr_assert_str_eq(home_of(prefix), "p0");
}

Test(core_prefix, one_that_all_have_overloads_no_provider)
{
    enum { JOBS = 100 };
    size_t at_home = 0;
    struct id jobs[JOBS];
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    for (size_t i = 0; i < JOBS; i++) {
        jobs[i] = submit(prefix);
        const bool is_home = strcmp(provider_of(&jobs[i]), "p1") == 0;
        cr_assert(is_home || i >= CALLS_FREE, "so few are no load");
        at_home += is_home;
    }
    cr_assert_gt(at_home, JOBS / 2);
    cr_assert_leq(at_home, JOBS * 5 / 8 + 1, "five quarters of the mean");
    for (size_t i = 0; i < JOBS; i++) {
        says(&jobs[i], ANSWERED);
    }
    for (uint32_t i = 0; i < JOBS; i++) {
        const struct id job = submit(prefix);
        cr_assert_str_eq(provider_of(&job), "p1", "what was called is settled");
        says(&job, ANSWERED);
    }
}

Test(core_prefix, one_that_is_away_says_so)
{
    struct id job = {{0}};
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    for (int i = 0; i < 40 && strstr(why(&job), "more calls run than its share") == NULL; i++) {
        job = submit(prefix);
    }
    cr_assert_str_eq(provider_of(&job), "p0");
    cr_assert_not_null(strstr(why(&job), "p1/m0: "));
}

static uint32_t calls_out(void)
{
    uint32_t calls = 0;
    for (size_t i = 0; i < w.core->providers_length; i++) {
        calls += w.core->providers[i]->calls;
    }
    return calls;
}

Test(core_prefix, leases_that_are_lost_are_no_load)
{
    enum { JOBS = 20 };
    world_go(&w);
    for (uint32_t i = 0; i < JOBS; i++) {
        (void)submit(1);
    }
    cr_assert_eq(calls_out(), JOBS);
    world_advance(&w, 60 * 1000); /* its worker says nothing more */
    cr_assert_eq(calls_out(), 0);
    world_worker(&w, 101, "v", 7);
    cr_assert_eq(calls_out(), 7);
}

Test(core_prefix, it_survives_a_restart)
{
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    world_finish(&w);
    start();
    world_start(&w);
    world_client(&w, 1, "a");
    const struct id job = submit(prefix);
    world_restart(&w);
    world_worker(&w, 100, "w", 10);
    world_advance(&w, 5000);
    cr_assert_str_eq(provider_of(&job), "p1");
}

Test(core_prefix, soft_share_of_a_budget_leaves_it_there)
{
    world_budget(&w, UINT32_MAX, 1);
    w.models[0].input_nanousd_per_mtok = 1000000000;
    w.models[0].max_tokens_default = UINT16_MAX;
    w.models[0].output_nanousd_per_mtok = 1000000000;
    w.config.cost = (struct config_cost){.keep_days = 10, .rows_max = 100};
    world_go(&w);
    const uint32_t prefix = prefix_at("p1");
    (void)submit(prefix);
    const struct id job = submit(prefix);
    cr_assert_str_eq(provider_of(&job), "p1");
    cr_assert_eq(core_budget_counts(w.core)->downgraded, 0);
}
