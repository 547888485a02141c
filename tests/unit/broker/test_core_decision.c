/* Which model a job is given to, and why not another. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/job.h"
#include "common/choice.h"
#include "common/complexity.h"
#include "tests/unit/broker/core_world.h"

#define ANSWERED    WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

enum { MANY_MODELS = 14 };

static struct world w;
static struct config_route routes[1];
static char *route_models[] = {"m0", "m1", "m2"};
static char *eu[] = {"eu"};
static char *no_images[] = {"tools", "json"};
static char *only_m1[] = {"m1"};

/*
 * A cheap model m0 (grade 40), a dear one m1 (90), both at p0, and m2 (60, in the middle) at p1.
 * The route `any` may use all of them.
 */
static void start(void)
{
    world_init(&w);
    world_two_providers(&w);
    w.providers[1].residency = eu;
    w.providers[1].residency_length = 1;
    static const struct {
        char *name, *provider;
        uint32_t quality;
        uint64_t price;
    } models[] = {{"m0", "p0", 40, 100}, {"m1", "p0", 90, 10000}, {"m2", "p1", 60, 2000}};
    for (size_t i = 0; i < 3; i++) {
        w.models[i] = (struct config_model){.name = models[i].name,
                                            .provider = models[i].provider,
                                            .quality = models[i].quality,
                                            .input_nanousd_per_mtok = models[i].price * 1000000,
                                            .output_nanousd_per_mtok = models[i].price * 2000000};
    }
    routes[0] = (struct config_route){.name = "any", .models = route_models, .models_length = 3};
    w.config.routes = routes;
    w.config.routes_length = 1;
    for (size_t i = 0; i < WORLD_TIERS; i++) {
        w.tiers[i].weight_quality = 60;
        w.tiers[i].weight_price = 30;
        w.tiers[i].weight_latency = 10;
    }
    for (size_t i = 0; i < 4; i++) {
        w.tenants[i].residency = "";
    }
}

static void go(void)
{
    world_start(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
    world_worker(&w, 100, "w", 1000);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_decision, .init = start, .fini = stop);

struct asked {
    uint64_t peer;                        /* 0: 1 */
    const char *tier, *residency, *route; /* route NULL: any */
    const char *task;                     /* NULL: none */
    uint32_t complexity, abilities, input_tokens;
    const uint8_t *canonical_key;
};

static struct id submit(const struct asked *asked)
{
    struct event event = world_submission(&w, asked->peer == 0 ? 1 : asked->peer,
                                          asked->tier == NULL ? "standard" : asked->tier);
    event.as.submit.route = asked->route == NULL ? "any" : asked->route;
    event.as.submit.canonical_key = asked->canonical_key;
    event.as.submit.complexity = asked->complexity;
    event.as.submit.abilities = asked->abilities;
    event.as.submit.input_tokens = asked->input_tokens;
    event.as.submit.estimated_tokens = asked->input_tokens + 100;
    event.as.submit.residency = asked->residency;
    event.as.submit.task = asked->task;
    return world_submit_event(&w, &event);
}

static const struct effect_dispatch *dispatch_of(const struct id *job)
{
    return world_dispatch(&w, job);
}

static const char *model_of(const struct id *job)
{
    const struct effect_dispatch *dispatch = dispatch_of(job);
    return dispatch == NULL ? "none" : dispatch->model;
}

static const char *refusal_of(const struct id *job)
{
    const struct world_effect *found = world_find(&w, EFFECT_REJECTED, job, 0);
    return found == NULL ? "not refused" : found->text;
}

/* The worker has found that the provider has no words for it. */
static void cannot_say(const struct id *job)
{
    world_says(&w, job,
               &(struct world_said){.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED,
                                    .code = "unsupported",
                                    .is_uncalled = true});
}

static void says(const struct id *job, Wire__AttemptOutcome outcome, uint32_t call_ms)
{
    world_says(&w, job, &(struct world_said){.outcome = outcome, .call_ms = call_ms});
}

/* By the model that it was given to, with what the worker thinks is lost. */
static void answers(const struct id *job, uint32_t quality_lost)
{
    const struct effect_dispatch *dispatch = dispatch_of(job);
    cr_assert_not_null(dispatch);
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.provider = (char *)dispatch->provider;
    usage.model = (char *)dispatch->model;
    usage.quality_lost = quality_lost;
    world_turn(&w, &(struct event){.kind = EVENT_ATTEMPT_RESULT,
                                   .peer = 100,
                                   .as.attempt_result = {.lease = dispatch->lease,
                                                         .outcome = ANSWERED,
                                                         .error_code = "",
                                                         .error_text = "",
                                                         .usage = &usage}});
}

/* Time with a worker that lives. */
static void pass(int64_t ms)
{
    for (; ms > 0; ms -= 1000) {
        world_advance(&w, ms < 1000 ? ms : 1000);
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT, .peer = 100});
    }
}

#define HAS(text, part) cr_assert_not_null(strstr(text, part), "%s", text)

Test(core_decision, simple_prompts_get_the_cheap_model_and_hard_ones_the_good_one)
{
    go();
    const struct id simple = submit(&(struct asked){.complexity = 20, .input_tokens = 100});
    const struct id middling = submit(&(struct asked){.complexity = 128, .input_tokens = 100});
    const struct id hard = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    cr_assert_str_eq(model_of(&simple), "m0");
    cr_assert_str_eq(model_of(&middling), "m2");
    cr_assert_str_eq(model_of(&hard), "m1");
}

Test(core_decision, what_is_not_known_is_taken_for_middling)
{
    go();
    const struct id job = submit(&(struct asked){.input_tokens = 100});
    cr_assert_str_eq(model_of(&job), "m2");
}

static struct id submit_features(const uint8_t *features, size_t length)
{
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "any";
    event.as.submit.features = features;
    event.as.submit.features_length = length;
    return world_submit_event(&w, &event);
}

Test(core_decision, result_says_by_what_its_models_were_chosen)
{
    go();
    const struct id job = submit(&(struct asked){.complexity = 128, .abilities = ABILITY_TOOLS});
    world_says(&w, &job, &(struct world_said){.outcome = ANSWERED});
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &job, 1);
    cr_assert_not_null(result);
    cr_assert_eq(result->effect.as.result.complexity, 128);
    cr_assert_eq(result->effect.as.result.abilities, ABILITY_TOOLS);
}

Test(core_decision, complexity_is_made_of_the_features_with_the_weights_that_are_set)
{
    static char *weights[] = {"bias=-5", "code=10", "maths=0"};
    w.config.routing.complexity_weights = weights;
    w.config.routing.complexity_weights_length = 3;
    go();
    uint8_t features[COMPLEXITY_FEATURES + 9] = {0};
    features[COMPLEXITY_MATHS] = 255;
    const struct id maths = submit_features(features, COMPLEXITY_FEATURES);
    features[COMPLEXITY_CODE] = 255;
    features[COMPLEXITY_FEATURES] = 255; /* of a newer client */
    const struct id code = submit_features(features, sizeof(features));
    cr_assert_str_eq(model_of(&maths), "m0");
    cr_assert_str_eq(model_of(&code), "m1");
    const struct id older = submit_features(features, COMPLEXITY_CODE);
    cr_assert_str_eq(model_of(&older), "m0");
}

Test(core_decision, weights_of_the_tier_decide)
{
    w.tiers[0].weight_quality = 100;
    w.tiers[0].weight_price = w.tiers[0].weight_latency = 0;
    w.tiers[2].weight_quality = 10;
    w.tiers[2].weight_price = 100;
    go();
    const struct id good =
        submit(&(struct asked){.tier = "realtime", .complexity = 128, .input_tokens = 9});
    const struct id cheap =
        submit(&(struct asked){.tier = "background", .complexity = 128, .input_tokens = 9});
    cr_assert_str_eq(model_of(&good), "m1");
    cr_assert_str_eq(model_of(&cheap), "m0");
}

Test(core_decision, list_is_taken_in_its_order)
{
    routes[0].choice = CHOICE_LISTED;
    go();
    const struct id hard = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    cr_assert_str_eq(model_of(&hard), "m0");
}

Test(core_decision, model_without_the_ability_is_left_out)
{
    w.models[0].abilities = no_images;
    w.models[0].abilities_length = 2;
    go();
    const struct id text = submit(&(struct asked){.complexity = 20, .input_tokens = 100});
    const struct id image =
        submit(&(struct asked){.complexity = 20, .abilities = ABILITY_IMAGES, .input_tokens = 100});
    cr_assert_str_eq(model_of(&text), "m0");
    cr_assert_str_eq(model_of(&image), "m2");
    uint32_t attempt;
    HAS(core_explain(w.core, &image, &attempt), "p0/m0: cannot do images");
}

Test(core_decision, what_no_model_can_do_is_refused_at_the_door)
{
    for (size_t i = 0; i < 3; i++) {
        w.models[i].abilities = no_images;
        w.models[i].abilities_length = 2;
    }
    go();
    const struct id job =
        submit(&(struct asked){.abilities = ABILITY_IMAGES | ABILITY_AUDIO | ABILITY_TOOLS});
    HAS(refusal_of(&job), "p0/m0 cannot do images, audio;");
    const struct id unknown = submit(&(struct asked){.abilities = 1 << 20});
    HAS(refusal_of(&unknown), "abilities: 0x100000");
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_decision, what_goes_on_from_a_kept_response_goes_where_responses_are_spoken)
{
    w.providers[1].type = PROVIDER_ANTHROPIC;
    w.models[1].abilities = no_images; /* another account, which has not kept it */
    w.models[1].abilities_length = 2;
    go();
    const struct id middling = submit(&(struct asked){.complexity = 128, .input_tokens = 100});
    cr_assert_str_eq(model_of(&middling), "m2");
    const struct id job = submit(
        &(struct asked){.complexity = 220, .abilities = ABILITY_STORED, .input_tokens = 100});
    cr_assert_str_eq(model_of(&job), "m0");
    const struct id named = submit(&(struct asked){.route = "m2", .abilities = ABILITY_STORED});
    HAS(refusal_of(&named), "p1/m2 cannot do stored");
}

Test(core_decision, too_long_input_goes_where_it_fits)
{
    w.models[0].context_tokens = 1000;
    w.models[2].context_tokens = 5000;
    go();
    const struct id small = submit(&(struct asked){.complexity = 20, .input_tokens = 900});
    const struct id large = submit(&(struct asked){.complexity = 20, .input_tokens = 1001});
    const struct id huge = submit(&(struct asked){.complexity = 20, .input_tokens = 100000});
    cr_assert_str_eq(model_of(&small), "m0");
    cr_assert_str_eq(model_of(&large), "m2");
    cr_assert_str_eq(model_of(&huge), "m1");
    uint32_t attempt;
    HAS(core_explain(w.core, &huge, &attempt), "p1/m2: takes 5000 tokens, these are 1");
}

Test(core_decision, data_stay_where_they_must)
{
    w.tenants[1].residency = "eu";
    go();
    const struct id asked = submit(&(struct asked){.complexity = 20, .residency = "eu"});
    const struct id tenants = submit(&(struct asked){.peer = 2, .complexity = 20});
    const struct id free = submit(&(struct asked){.complexity = 20});
    const struct id nowhere = submit(&(struct asked){.residency = "mars"});
    cr_assert_str_eq(model_of(&asked), "m2");
    cr_assert_str_eq(model_of(&tenants), "m2");
    cr_assert_str_eq(model_of(&free), "m0");
    HAS(refusal_of(&nowhere), "residency: no provider has the label \"mars\"");
}

Test(core_decision, job_cannot_lift_its_tenants_residency)
{
    static char *us[] = {"us"};
    w.providers[0].residency = us;
    w.providers[0].residency_length = 1;
    w.tenants[1].residency = "eu";
    go();
    const struct id job = submit(&(struct asked){.peer = 2, .complexity = 20, .residency = "us"});
    HAS(refusal_of(&job), "p0/m0 has not the residency label eu");
    HAS(refusal_of(&job), "p1/m2 has not the residency label us");
}

Test(core_decision, named_model_obeys_the_tenants_residency)
{
    w.tenants[1].residency = "eu";
    go();
    struct event event = world_submission(&w, 2, "standard"); /* m0, at p0 alone */
    const struct id job = world_submit_event(&w, &event);
    HAS(refusal_of(&job), "p0/m0 has not the residency label eu");
}

Test(core_decision, tenant_gets_the_models_it_may_use)
{
    w.tenants[1].models = only_m1;
    w.tenants[1].models_length = 1;
    go();
    const struct id job = submit(&(struct asked){.peer = 2, .complexity = 20});
    cr_assert_str_eq(model_of(&job), "m1");
    uint32_t attempt;
    HAS(core_explain(w.core, &job, &attempt), "p0/m0: not allowed to this tenant");
}

Test(core_decision, floor_leaves_out_the_lower_ones)
{
    w.tiers[1].quality_min = 80;
    go();
    const struct id job = submit(&(struct asked){.complexity = 20});
    cr_assert_str_eq(model_of(&job), "m1");
}

Test(core_decision, next_best_stands_in_and_what_it_costs_is_told)
{
    go();
    const struct id hard = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    cr_assert_eq(dispatch_of(&hard)->quality_lost, 0);
    says(&hard, UNAVAILABLE, 5);
    cr_assert_str_eq(model_of(&hard), "m2");
    cr_assert_eq(dispatch_of(&hard)->quality_lost, 30);
    uint32_t attempt;
    HAS(core_explain(w.core, &hard, &attempt), "p0/m1: ");
    HAS(core_explain(w.core, &hard, &attempt), "has failed it");
    cr_assert_eq(attempt, 2);
}

Test(core_decision, worker_is_told_when_no_other_upstream_would_be_called)
{
    go();
    const struct id job = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    for (int others = 2; others >= 0; others--) {
        cr_assert_eq(dispatch_of(&job)->is_last_choice, others == 0);
        says(&job, UNAVAILABLE, 5);
    }
}

Test(core_decision, worker_is_told_when_no_attempt_would_be_left)
{
    go();
    const struct id other = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    const struct id job = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    for (int left = 3; left > 0; left--) {
        cr_assert_eq(dispatch_of(&job)->is_last_attempt, left == 1);
        says(&job, UNAVAILABLE, 5);
    }
    cr_assert_not(dispatch_of(&other)->is_last_attempt);
}

Test(core_decision, what_a_provider_cannot_say_another_is_asked)
{
    go();
    const struct id job = submit(&(struct asked){.complexity = 20, .input_tokens = 100});
    cr_assert_str_eq(model_of(&job), "m0");
    cannot_say(&job);
    cr_assert_str_eq(model_of(&job), "m2");
    cannot_say(&job);
    cr_assert_str_eq(model_of(&job), "m1");
    cannot_say(&job);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_DEAD);
    cr_assert_str_eq(world_find(&w, EFFECT_RESULT, &job, 1)->code, "rejected");
}

Test(core_decision, who_has_no_words_for_it_is_not_asked_again_while_the_others_rest)
{
    routes[0].choice = CHOICE_LISTED;
    routes[0].models_length = 2;
    go();
    const struct id other = submit(&(struct asked){.route = "m1"});
    world_says(&w, &other,
               &(struct world_said){.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED,
                                    .retry_after_ms = 120000});
    const struct id job = submit(&(struct asked){.complexity = 20});
    for (int i = 0; i < 60; i++) {
        if (world_state(&w, &job) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
            cannot_say(&job);
        }
        pass(1000);
    }
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, &job), 1);
    pass(90000);
    cr_assert_str_eq(model_of(&job), "m1");
}

/* Its route had no models when it was given to its worker. */
Test(core_decision, what_somebody_cannot_say_the_models_of_a_later_reload_are_asked)
{
    world_start(&w);
    world_client(&w, 1, "a");
    const struct id job = submit(&(struct asked){.complexity = 20});
    w.config.routes_length = 0;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1000);
    cr_assert_null(dispatch_of(&job)->provider);
    w.config.routes_length = 1;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    cannot_say(&job);
    cr_assert_str_eq(model_of(&job), "m0");
}

Test(core_decision, who_was_tried_before_a_reload_is_forgotten)
{
    static char *others[] = {"m2", "m1"};
    routes[0].choice = CHOICE_LISTED;
    go();
    const struct id job = submit(&(struct asked){.complexity = 20});
    says(&job, UNAVAILABLE, 5);
    cr_assert_str_eq(model_of(&job), "m1");
    routes[0].models = others;
    routes[0].models_length = 2;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    says(&job, UNAVAILABLE, 5);
    cr_assert_str_eq(model_of(&job), "m2");
}

Test(core_decision, chosen_one_is_told_where_not_all_fits)
{
    static struct config_model models[MANY_MODELS];
    static char names[MANY_MODELS][64], *all[MANY_MODELS];
    for (size_t i = 0; i < MANY_MODELS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "model-%02zu-with-a-name-that-is-rather-long",
                       i);
        all[i] = names[i];
        models[i] =
            (struct config_model){.name = names[i], .provider = "p0", .quality = 10 + (uint32_t)i};
    }
    w.config.models = models;
    w.config.models_length = MANY_MODELS;
    routes[0].models = all;
    routes[0].models_length = MANY_MODELS;
    go();
    const struct id job = submit(&(struct asked){.complexity = 220});
    char said[128];
    (void)snprintf(said, sizeof(said), "; p0/%s: ", model_of(&job));
    cr_assert_str_eq(model_of(&job), names[MANY_MODELS - 1]);
    uint32_t attempt;
    HAS(core_explain(w.core, &job, &attempt), said);
    HAS(core_explain(w.core, &job, &attempt), ", chosen; ");
}

Test(core_decision, model_that_hangs_is_not_thought_to_be_quick)
{
    w.tiers[0].weight_latency = 90;
    w.tiers[0].deadline_ms = 30000;
    go();
    for (int i = 0; i < 20; i++) {
        (void)submit(&(struct asked){.tier = "realtime", .route = "m1", .input_tokens = 100});
    }
    pass(31000);
    const struct id job =
        submit(&(struct asked){.tier = "realtime", .complexity = 220, .input_tokens = 100});
    cr_assert_str_neq(model_of(&job), "m1");
}

Test(core_decision, calls_that_were_ended_early_make_no_model_quick)
{
    w.tiers[0].weight_latency = 90;
    w.tiers[0].deadline_ms = 30000;
    go();
    for (int i = 0; i < 220; i++) {
        const struct id job = submit(&(struct asked){.route = "m1", .input_tokens = 100});
        if (i < 20) {
            says(&job, ANSWERED, 60000);
        } else {
            says(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED, 5);
        }
    }
    const struct id job =
        submit(&(struct asked){.tier = "realtime", .complexity = 220, .input_tokens = 100});
    cr_assert_str_neq(model_of(&job), "m1");
}

/* One answer for two, of which the second would have wanted the better model. */
Test(core_decision, what_an_answer_loses_is_told_of_each_that_shares_it)
{
    static const uint8_t key[16] = {1};
    go();
    const struct id simple = submit(&(struct asked){.complexity = 20, .canonical_key = key});
    const struct id hard = submit(&(struct asked){.complexity = 220, .canonical_key = key});
    cr_assert_eq(world_state(&w, &hard), WIRE__JOB_STATE__JOB_STATE_FOLLOWING);
    answers(&simple, 0);
    cr_assert_eq(world_state(&w, &hard), WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    const struct core_quality_lost lost = world_stats(&w).tiers[1].quality_lost[STEP_MODEL];
    cr_assert_eq(lost.jobs, 1);
    cr_assert_eq(lost.grades, 50);
}

Test(core_decision, slow_model_loses_where_time_is_short)
{
    w.tiers[0].weight_latency = 90;
    w.tiers[0].deadline_ms = 30000;
    go();
    for (int i = 0; i < 20; i++) {
        const struct id hard = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
        says(&hard, ANSWERED, 60000);
    }
    const struct id job =
        submit(&(struct asked){.tier = "realtime", .complexity = 220, .input_tokens = 100});
    cr_assert_str_neq(model_of(&job), "m1");
    uint32_t attempt;
    HAS(core_explain(w.core, &job, &attempt), "lost by latency");
}

Test(core_decision, failing_model_loses_and_is_tried_again)
{
    w.config.breaker.failures = 1000;
    go();
    for (int i = 0; i < 6; i++) {
        const struct id hard = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
        if (strcmp(model_of(&hard), "m1") == 0) {
            says(&hard, UNAVAILABLE, 5);
        }
    }
    const struct id now = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    cr_assert_str_eq(model_of(&now), "m2");
    pass(2 * w.config.breaker.window_ms);
    const struct id later = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    cr_assert_str_eq(model_of(&later), "m1");
}

Test(core_decision, what_it_needs_survives_a_restart)
{
    w.models[0].abilities = no_images;
    w.models[0].abilities_length = 2;
    world_start(&w);
    world_client(&w, 1, "a");
    const struct id image = submit(&(struct asked){
        .complexity = 20, .abilities = ABILITY_IMAGES, .input_tokens = 100, .residency = "eu"});
    const struct id hard = submit(&(struct asked){.complexity = 220, .input_tokens = 100});
    world_restart(&w);
    world_worker(&w, 100, "w", 1000);
    world_advance(&w, 5000);
    cr_assert_str_eq(model_of(&image), "m2");
    cr_assert_str_eq(model_of(&hard), "m1");
    uint32_t attempt;
    HAS(core_explain(w.core, &hard, &attempt), "complexity 0.86, ");
}

Test(core_decision, job_that_nobody_can_answer_any_more_becomes_a_dead_letter)
{
    world_start(&w);
    world_client(&w, 1, "a");
    const struct id image = submit(&(struct asked){.abilities = ABILITY_IMAGES});
    const struct id text = submit(&(struct asked){.complexity = 20});
    for (size_t i = 0; i < 3; i++) {
        w.models[i].abilities = no_images;
        w.models[i].abilities_length = 2;
    }
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1000);
    cr_assert_eq(world_state(&w, &image), WIRE__JOB_STATE__JOB_STATE_DEAD);
    cr_assert_str_eq(world_find(&w, EFFECT_RESULT, &image, 1)->code, "no_model");
    cr_assert_str_eq(model_of(&text), "m0");
}

Test(core_decision, job_that_waits_for_the_only_model_it_can_use_blocks_no_other)
{
    w.models[0].abilities = no_images;
    w.models[0].abilities_length = 2;
    w.models[1].abilities = no_images;
    w.models[1].abilities_length = 2;
    go();
    const struct id first = submit(&(struct asked){.abilities = ABILITY_IMAGES});
    for (int i = 0; i < 5; i++) {
        pass(i == 0 ? 0 : 30000); /* its backoff */
        says(&first, UNAVAILABLE, 5);
    }
    const struct id second = submit(&(struct asked){.abilities = ABILITY_IMAGES});
    const struct id text = submit(&(struct asked){.complexity = 20});
    cr_assert_str_eq(model_of(&first), "m2");
    cr_assert_str_eq(model_of(&second), "none");
    cr_assert_str_eq(model_of(&text), "m0");
}

/* As many more as the bits of who may use what have to grow for. */
Test(core_decision, tenant_that_is_configured_no_more_may_use_no_model_that_came_since)
{
    enum { MORE = 70 };
    static struct config_model models[3 + MORE];
    static char names[MORE][8];
    static char *only_new[] = {names[MORE - 1], "m1"};
    w.tenants[1].models = only_m1;
    w.tenants[1].models_length = 1;
    world_start(&w);
    world_client(&w, 2, "b");
    const struct id job = submit(&(struct asked){.peer = 2, .complexity = 20});
    memcpy(models, w.models, 3 * sizeof(*models));
    for (size_t i = 0; i < MORE; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "n%zu", i);
        models[3 + i] = (struct config_model){.name = names[i], .provider = "p0", .quality = 99};
    }
    w.config.models = models;
    w.config.models_length = 3 + MORE;
    routes[0].models = only_new;
    routes[0].models_length = 2;
    w.config.tenants_length = 1;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1000);
    cr_assert_str_eq(model_of(&job), "m1");
}

/* ---- when the configuration no longer says ---- */

static void restart_without(size_t tenants, bool has_route)
{
    w.config.tenants_length = tenants;
    w.config.routes_length = has_route ? 1 : 0;
    world_restart(&w);
    world_worker(&w, 100, "w", 1000);
    world_advance(&w, 5000);
}

/* The error of a job that may be given to nobody. */
static const char *death_of(const struct id *job)
{
    const struct world_effect *note = world_find(&w, EFFECT_NOTE, job, 0);
    return world_dispatch(&w, job) == NULL && note != NULL &&
                   note->effect.as.note.note == NOTE_DEAD_LETTER
               ? note->text
               : "no dead letter";
}

Test(core_decision, tenant_that_a_restart_knows_no_more_may_use_no_model)
{
    w.tenants[1].residency = "eu";
    world_start(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
    const struct id theirs = submit(&(struct asked){.peer = 2, .complexity = 20});
    const struct id ours = submit(&(struct asked){.complexity = 20});
    restart_without(1, true);
    cr_assert_str_eq(model_of(&ours), "m0");
    HAS(death_of(&theirs), "its tenant is configured no more");
    cr_assert_eq(world_state(&w, &theirs), WIRE__JOB_STATE__JOB_STATE_DEAD);
}

Test(core_decision, route_that_is_gone_lets_no_worker_choose_for_a_labelled_job)
{
    world_start(&w);
    world_client(&w, 1, "a");
    const struct id labelled = submit(&(struct asked){.residency = "eu"});
    const struct id free = submit(&(struct asked){.complexity = 20});
    restart_without(4, false);
    HAS(death_of(&labelled),
        "its route names no model any more, and it needs the residency label eu");
    cr_assert_not_null(dispatch_of(&free));
    cr_assert_null(dispatch_of(&free)->model);
}

Test(core_decision, route_that_is_gone_lets_no_worker_choose_for_a_bound_tenant)
{
    w.tenants[1].residency = "eu";
    w.tenants[2].models = only_m1;
    w.tenants[2].models_length = 1;
    world_start(&w);
    world_client(&w, 2, "b");
    world_client(&w, 3, "c");
    const struct id labelled = submit(&(struct asked){.peer = 2});
    const struct id listed = submit(&(struct asked){.peer = 3});
    w.config.routes_length = 0;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1000);
    HAS(death_of(&labelled), "it needs the residency label eu");
    HAS(death_of(&listed), "its tenant may use some models alone");
}

/* A provider's labels are read at the start alone, so a tenant's may come before. */
Test(core_decision, label_that_no_provider_has_yet_is_called_by_its_name)
{
    world_start(&w);
    world_client(&w, 2, "b");
    const struct id job = submit(&(struct asked){.peer = 2, .complexity = 20});
    w.tenants[1].residency = "mars";
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1000);
    HAS(death_of(&job), "p0/m0 has not the residency label mars");
    const struct id nowhere = submit(&(struct asked){.peer = 2, .residency = "mars"});
    HAS(refusal_of(&nowhere), "residency: no provider has the label \"mars\"");
}

/* What it needed before counts on while the broker runs. */
Test(core_decision, tenant_that_a_reload_takes_away_keeps_its_label)
{
    w.tenants[1].residency = "eu";
    world_start(&w);
    world_client(&w, 2, "b");
    const struct id job = submit(&(struct asked){.peer = 2, .complexity = 20});
    w.config.tenants_length = 1;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1000);
    cr_assert_str_eq(model_of(&job), "m2");
}

/* ---- identical jobs ---- */

static struct id submit_keyed(uint64_t peer, const char *residency, uint32_t abilities)
{
    static const uint8_t key[16] = {1};
    struct event event = world_submission(&w, peer, "standard");
    event.as.submit.route = "any";
    event.as.submit.complexity = 20;
    event.as.submit.canonical_key = key;
    event.as.submit.residency = residency;
    event.as.submit.abilities = abilities;
    return world_submit_event(&w, &event);
}

Test(core_decision, labelled_job_follows_none_without_its_label)
{
    w.models[0].abilities = no_images;
    w.models[0].abilities_length = 2;
    go();
    const struct id first = submit_keyed(1, NULL, 0);
    const struct id labelled = submit_keyed(1, "eu", 0);
    const struct id image = submit_keyed(1, NULL, ABILITY_IMAGES);
    const struct id labelled_too = submit_keyed(1, "eu", 0);
    const struct id second = submit_keyed(1, "", 0);
    cr_assert_str_eq(model_of(&first), "m0");
    cr_assert_str_eq(model_of(&labelled), "m2");
    cr_assert_str_eq(model_of(&image), "m2");
    cr_assert_eq(world_state(&w, &labelled_too), WIRE__JOB_STATE__JOB_STATE_FOLLOWING);
    cr_assert_eq(world_state(&w, &second), WIRE__JOB_STATE__JOB_STATE_FOLLOWING);
}

/* ---- tasks ---- */

static struct id submit_task(uint64_t peer, const char *task)
{
    return world_submit_to(&w, peer, "standard", "any", task);
}

static uint8_t task_of(const struct id *job)
{
    return job_find(w.core, job)->task;
}

Test(core_decision, tasks_of_one_tenant_leave_room_for_those_of_others)
{
    go();
    char name[16];
    struct id job;
    for (int i = 0; i < UINT8_MAX; i++) {
        (void)snprintf(name, sizeof(name), "task-%d", i);
        job = submit_task(1, name);
        cr_assert_eq(task_of(&job), i + 1);
    }
    const struct id beyond = submit_task(1, "one-too-many"), known = submit_task(1, "task-3");
    const struct id theirs = submit_task(2, "their-first");
    cr_assert_eq(task_of(&beyond), 0);
    cr_assert_eq(task_of(&known), 4);
    cr_assert_eq(task_of(&theirs), 1);
}

Test(core_decision, task_with_a_long_name_is_refused)
{
    go();
    char name[66];
    memset(name, 'x', sizeof(name));
    name[65] = '\0';
    const struct id job = submit_task(1, name);
    HAS(refusal_of(&job), "task: must be at most 64 bytes");
    name[64] = '\0';
    const struct id good = submit_task(1, name);
    cr_assert_eq(task_of(&good), 1);
}

Test(core_decision, task_of_a_job_that_is_refused_is_not_kept)
{
    w.tenants[0].jobs_max = 1;
    go();
    (void)submit_task(1, "first");
    const struct id full = submit_task(1, "second");
    w.tenants[0].jobs_max = 2;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    const struct id third = submit_task(1, "third");
    HAS(refusal_of(&full), "tenants.jobs_max");
    cr_assert_eq(task_of(&third), 2);
}

Test(core_decision, size_of_an_input_is_the_same_after_any_number_of_restarts)
{
    for (uint32_t tokens = 1; tokens < 2000000; tokens += 1 + tokens / 500) {
        struct job job = {.needs = {.input_size = job_input_size(tokens)}};
        const uint32_t kept = job_input_tokens(&job);
        cr_assert_geq(kept, tokens);
        cr_assert_leq(kept, tokens + tokens * 6 / 100 + 1);
        job.needs.input_size = job_input_size(kept);
        cr_assert_eq(job_input_tokens(&job), kept, "%u tokens", tokens);
    }
}

/* All wait for one upstream, and come back at the same time. */
Test(core_decision, tenants_whose_jobs_wait_for_one_model_take_turns)
{
    enum { MANY = 30 };
    w.models[0].abilities = w.models[1].abilities = no_images;
    w.models[0].abilities_length = w.models[1].abilities_length = 2;
    w.providers[1].requests_per_min = 60;
    go();
    for (int i = 0; i < MANY; i++) {
        (void)submit(&(struct asked){.abilities = ABILITY_IMAGES, .input_tokens = 900});
    }
    const struct id job =
        submit(&(struct asked){.peer = 2, .abilities = ABILITY_IMAGES, .input_tokens = 900});
    for (int i = 0; i < 6 * 20; i++) {
        pass(50);
    }
    cr_assert_str_eq(model_of(&job), "m2");
}

/* All but m2, which is at p1, cannot do it. */
static void let_only_m2_see_images(void)
{
    w.models[0].abilities = w.models[1].abilities = no_images;
    w.models[0].abilities_length = w.models[1].abilities_length = 2;
}

static struct id submit_image(uint64_t peer)
{
    return submit(&(struct asked){.peer = peer, .abilities = ABILITY_IMAGES, .input_tokens = 1000});
}

static void rest_m2(uint64_t for_ms)
{
    const struct id job = submit(&(struct asked){.route = "m2"});
    world_says(&w, &job,
               &(struct world_said){.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED,
                                    .retry_after_ms = for_ms});
}

Test(core_decision, job_that_waits_for_one_model_is_called_back_by_a_reload)
{
    let_only_m2_see_images();
    go();
    rest_m2(3600000);
    const struct id job = submit_image(1);
    cr_assert_str_eq(model_of(&job), "none");
    w.models[0].abilities_length = 0;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_tick(&w);
    cr_assert_str_eq(model_of(&job), "m0");
}

Test(core_decision, job_that_waits_for_one_model_is_called_back_by_its_reset)
{
    let_only_m2_see_images();
    go();
    rest_m2(3600000);
    const struct id job = submit_image(1);
    pass(5000);
    cr_assert_str_eq(model_of(&job), "none");
    world_turn(&w, &(struct event){.kind = EVENT_UPSTREAM_RESET,
                                   .as.upstream = {.provider = "p1", .model = "m2"}});
    pass(2000);
    cr_assert_str_eq(model_of(&job), "m2");
}

Test(core_decision, job_that_waits_for_one_model_is_called_back_by_a_permit_that_is_given_back)
{
    let_only_m2_see_images();
    w.providers[1].requests_per_min = 1;
    go();
    const struct id first = submit_image(1);
    pass(61000);
    const struct id second = submit_image(1);
    cr_assert_str_eq(model_of(&first), "m2");
    cr_assert_str_eq(model_of(&second), "none");
    world_says(&w, &first,
               &(struct world_said){.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED,
                                    .retry_after_ms = 30000,
                                    .is_uncalled = true});
    world_worker(&w, 101, "another", 10);
    pass(10);
    cr_assert_str_eq(model_of(&second), "m2");
}

/* The time comes, and there is no worker: who came back to see whether it may go is still there. */
Test(core_decision, of_a_crowd_that_waits_for_one_model_one_comes_back_at_a_time)
{
    let_only_m2_see_images();
    go();
    rest_m2(60000);
    for (int i = 0; i < 50; i++) {
        (void)submit_image(1);
    }
    cr_assert_eq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_QUEUED], 0);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_advance(&w, 70000);
    cr_assert_leq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_QUEUED], 3);
    cr_assert_geq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_BACKING_OFF], 47);
    world_worker(&w, 101, "another", 1000);
    world_advance(&w, 1);
    cr_assert_eq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_BACKING_OFF], 0);
}

/* In a pool without a worker: what comes after on a durable tier is on disk alone. */
static void fill_memory(void)
{
    w.config.broker.memory_payload_bytes_max = 400;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    while (world_stats(&w).payload_memory_bytes < 400) {
        struct event event = world_submission(&w, 1, "background");
        event.as.submit.pool = "gpu";
        world_submit_event(&w, &event);
    }
}

/* A worker that is busy has payloads read ahead, and their jobs find the model resting. */
Test(core_decision, crowd_keeps_no_payloads_beyond_the_memory_bound)
{
    let_only_m2_see_images();
    go();
    rest_m2(3600000);
    fill_memory();
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_worker(&w, 101, "narrow", 1);
    for (uint32_t i = 0; i < 20; i++) {
        const struct id text = submit(&(struct asked){.complexity = 20});
        cr_assert_str_eq(model_of(&text), "m0");
        for (int j = 0; j < 20; j++) {
            (void)submit_image(1);
        }
        world_says(&w, &text, &(struct world_said){.outcome = ANSWERED, .peer = 101});
        world_credit(&w, 101, i + 2);
    }
    cr_assert_geq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_BACKING_OFF], 400);
    cr_assert_leq(world_stats(&w).payload_memory_bytes, 404);
}

/* Without a worker the first one tries until somebody takes it. */
Test(core_decision, next_of_a_crowd_tries_when_who_tried_is_cancelled)
{
    let_only_m2_see_images();
    go();
    rest_m2(60000);
    const struct id first = submit_image(1), second = submit_image(1);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    world_advance(&w, 70000);
    cr_assert_eq(world_state(&w, &first), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    cr_assert_eq(world_state(&w, &second), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    world_job_event(&w, EVENT_CANCEL, 1, &first);
    world_tick(&w);
    cr_assert_eq(world_state(&w, &second), WIRE__JOB_STATE__JOB_STATE_QUEUED);
}

static struct id submit_identical(uint32_t priority)
{
    static const uint8_t key[16] = {2};
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.route = "any";
    event.as.submit.abilities = ABILITY_IMAGES;
    event.as.submit.canonical_key = key;
    event.as.submit.priority = priority;
    return world_submit_event(&w, &event);
}

Test(core_decision, urgent_follower_lifts_its_leader_in_a_crowd)
{
    let_only_m2_see_images();
    w.providers[1].requests_per_min = 1;
    go();
    const struct id first = submit_image(1);
    const struct id leader = submit_identical(0);
    const struct id follower = submit_identical(9);
    cr_assert_eq(world_state(&w, &follower), WIRE__JOB_STATE__JOB_STATE_FOLLOWING);
    pass(61000);
    cr_assert_str_eq(model_of(&first), "none");
    cr_assert_str_eq(model_of(&leader), "m2");
}

static size_t answer_those_that_run(const struct id *jobs, size_t length)
{
    size_t answered = 0;
    for (size_t i = 0; i < length; i++) {
        if (world_state(&w, &jobs[i]) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
            says(&jobs[i], ANSWERED, 5);
            answered++;
        }
    }
    return answered;
}

/* A quantum is a job: of four served three are of the heavier one. */
static void check_weights(bool is_on_disk)
{
    enum { MANY = 60 };
    let_only_m2_see_images();
    w.tenants[1].weight = 3;
    w.providers[1].requests_per_min = 60;
    go();
    if (is_on_disk) {
        fill_memory();
    }
    struct id light[MANY], heavy[MANY];
    for (int i = 0; i < MANY; i++) {
        light[i] = submit_image(1);
        heavy[i] = submit_image(2);
    }
    size_t lights = 0, heavies = 0;
    for (int s = 0; s < 40; s++) {
        pass(1000);
        lights += answer_those_that_run(light, MANY);
        heavies += answer_those_that_run(heavy, MANY);
    }
    cr_assert_gt(lights + heavies, 36, "%zu and %zu", lights, heavies);
    cr_assert(heavies > 2 * lights && heavies < 4 * lights, "%zu and %zu", lights, heavies);
}

Test(core_decision, tenants_whose_jobs_wait_for_one_model_are_served_by_their_weights)
{
    check_weights(false);
}

Test(core_decision, tenants_whose_jobs_wait_on_disk_are_served_by_their_weights)
{
    check_weights(true);
}

/* On disk, until m2 is back in a minute. */
static void make_crowd_on_disk(uint64_t jobs)
{
    let_only_m2_see_images();
    go();
    world_worker(&w, 101, "wide", 1000);
    rest_m2(60000);
    fill_memory();
    for (uint64_t i = 0; i < jobs; i++) {
        (void)submit_image(1);
    }
    cr_assert_geq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_BACKING_OFF], jobs);
}

Test(core_decision, payloads_of_a_crowd_are_asked_for_several_at_a_time)
{
    make_crowd_on_disk(50);
    pass(50000);
    const size_t before = w.loads_asked;
    w.withholds_loads = true;
    pass(20000);
    cr_assert_geq(w.loads_asked - before, 12);
    cr_assert_leq(w.loads_asked - before, 16);
}

Test(core_decision, crowd_on_disk_is_gone_when_its_model_is_back)
{
    make_crowd_on_disk(50);
    pass(70000);
    cr_assert_eq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_BACKING_OFF], 0);
    cr_assert_geq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_LEASED], 50);
}

Test(core_decision, crowd_whose_payload_does_not_come_is_in_no_others_way)
{
    make_crowd_on_disk(1);
    w.withholds_loads = true;
    pass(70000);
    w.withholds_loads = false;
    cr_assert_eq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_BACKING_OFF], 1);
    const struct id other = submit_image(2);
    pass(2000);
    cr_assert_str_eq(model_of(&other), "m2");
    cr_assert_eq(world_stats(&w).tiers[1].states[WIRE__JOB_STATE__JOB_STATE_BACKING_OFF], 1);
}

/* ---- budgets ---- */

/* A hard prompt uses little of what it may cost with m1. */
static void start_limited(uint64_t daily, uint32_t soft_permille)
{
    world_budget(&w, daily, soft_permille);
    for (size_t i = 0; i < 3; i++) {
        w.models[i].max_tokens_default = 10;
    }
    w.config.cost = (struct config_cost){.keep_days = 10, .rows_max = 100};
    go();
}

/* With m1: 4 tokens of prompt, 10 of answer. */
enum { DEAR = 4 * 10000 + 10 * 20000, CHEAP = 4 * 100 + 10 * 200 };

static struct id hard(const char *route)
{
    return submit(&(struct asked){.complexity = 220, .input_tokens = 4, .route = route});
}

Test(core_decision, from_the_soft_share_on_the_cheapest_model_is_taken)
{
    start_limited(4 * DEAR, 500);
    const struct id first = hard(NULL);
    const struct id second = hard(NULL);
    const struct id third = hard(NULL);
    cr_assert_str_eq(model_of(&first), "m1");
    cr_assert_str_eq(model_of(&second), "m1", "a quarter is reserved");
    cr_assert_str_eq(model_of(&third), "m0", "half is");
    cr_assert_gt(dispatch_of(&third)->quality_lost, 0);
    cr_assert_eq(core_budget_counts(w.core)->downgraded, 1);
    cr_assert_not_null(world_find(&w, EFFECT_NOTE, NULL, 0));
}

Test(core_decision, cheapest_model_that_is_the_best_loses_no_grade)
{
    w.models[2].quality = 95;
    w.models[2].input_nanousd_per_mtok = w.models[2].output_nanousd_per_mtok = 10 * 1000000;
    w.config.routing.learn = SWITCH_ON;
    w.config.routing.explore_share_permille = 1000;
    start_limited(4 * DEAR, 1);
    const struct asked asked = {.complexity = 220, .input_tokens = 4, .task = "t"};
    const struct id first = submit(&asked);
    const struct id second = submit(&asked);
    cr_assert_str_eq(model_of(&first), "m1", "to know more of it");
    cr_assert_eq(dispatch_of(&first)->quality_lost, 5);
    cr_assert_str_eq(model_of(&second), "m2", "m1 again, but for the soft share");
    cr_assert_eq(dispatch_of(&second)->quality_lost, 0);
}

Test(core_decision, job_that_finds_no_model_cheap_enough_was_given_none)
{
    start_limited(DEAR + CHEAP / 2, 1000);
    const struct id first = hard(NULL);
    const struct id second = hard(NULL);
    pass(1000);
    cr_assert_str_eq(model_of(&first), "m1");
    cr_assert_str_eq(model_of(&second), "none", "it looks again and again");
    cr_assert_eq(core_budget_counts(w.core)->downgraded, 0);
}

/* Two are read at once, and one of them fits. */
Test(core_decision, job_that_waits_for_its_budget_keeps_no_payload_beyond_the_memory_bound)
{
    start_limited(3 * DEAR / 2, 1000);
    fill_memory();
    w.withholds_durability = true;
    const struct id first = hard("m1");
    const struct id second = hard("m1");
    w.withholds_durability = false;
    world_make_durable(&w);
    cr_assert_str_eq(model_of(&first), "m1");
    cr_assert_eq(world_state(&w, &second), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    cr_assert_leq(world_stats(&w).payload_memory_bytes, 400);
}

/* With m2, which alone can see it: 4 tokens of prompt, 10 of answer. */
enum { IMAGE = 4 * 2000 + 10 * 4000 };

Test(core_decision, job_that_has_waited_for_its_budget_may_wait_for_its_model)
{
    let_only_m2_see_images();
    start_limited(3 * IMAGE / 2, 1000);
    fill_memory(); /* its payload is on disk alone */
    const struct id first = submit_image(1);
    const struct id second = submit_image(1);
    cr_assert_str_eq(model_of(&first), "m2");
    cr_assert_str_eq(model_of(&second), "none", "half of it is left");
    world_says(&w, &first,
               &(struct world_said){.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED,
                                    .retry_after_ms = 60000});
    pass(5000);
    cr_assert_eq(world_state(&w, &second), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    world_job_event(&w, EVENT_CANCEL, 1, &first);
    pass(70000);
    cr_assert_str_eq(model_of(&second), "m2");
}

Test(core_decision, model_that_a_job_names_stays_beyond_the_soft_share)
{
    start_limited(4 * DEAR, 1);
    const struct id first = hard("m1");
    const struct id second = hard("m1");
    cr_assert_str_eq(model_of(&first), "m1");
    cr_assert_str_eq(model_of(&second), "m1");
    cr_assert_eq(core_budget_counts(w.core)->downgraded, 0);
}

Test(core_decision, soft_share_keeps_the_floor)
{
    w.tiers[1].quality_min = 50;
    start_limited(4 * DEAR, 1);
    (void)hard(NULL);
    const struct id second = hard(NULL);
    cr_assert_str_eq(model_of(&second), "m2", "m0 is below the floor");
}

Test(core_decision, dear_model_that_does_not_fit_gives_way_to_a_cheap_one)
{
    start_limited(DEAR + CHEAP, 1000);
    const struct id first = hard(NULL);
    const struct id second = hard(NULL);
    const struct id third = hard(NULL);
    cr_assert_str_eq(model_of(&first), "m1");
    cr_assert_str_eq(model_of(&second), "m0");
    cr_assert_str_eq(model_of(&third), "none", "it waits");
}
