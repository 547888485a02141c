/* What is learned from feedback, and what it does to the choice of models. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/learning.h"
#include "common/choice.h"
#include "tests/unit/broker/core_world.h"

/* ---- cells ---- */

static struct learning learning;
static size_t forgotten_count;
static struct learning_key forgotten_last;

static void forgotten(void *context, struct learning_cell *cell)
{
    (void)context;
    forgotten_count++;
    forgotten_last = cell->key;
}

static void start_cells(void)
{
    cr_assert_eq(learning_init(&learning, 7, forgotten, NULL), 0);
}

static void stop_cells(void)
{
    learning_finish(&learning);
}

TestSuite(learning, .init = start_cells, .fini = stop_cells);

static struct learned after(double grade, double complexity, double score, int times)
{
    const struct learning_key key = {.tenant = 1, .model = 2, .task = 3};
    struct learning_cell *cell = learning_touch(&learning, &key);
    for (int i = 0; i < times; i++) {
        learning_note(cell, score, complexity);
    }
    return learning_read(cell, grade, complexity);
}

Test(learning, nothing_known_changes_nothing)
{
    const struct learned learned = learning_read(NULL, 60, 0.5);
    cr_assert_float_eq(learned.grades, 0, 1e-9);
    cr_assert_gt(learned.unsure, 0.05);
    cr_assert_lt(learning_read(NULL, 95, 0.2).unsure, learned.unsure, "a clear case");
}

Test(learning, comes_to_the_grades_that_the_scores_are_worth)
{
    const double promised = choice_chance(0.5, 60);
    const struct learned learned = after(60, 0.5, 0.5, 2000);
    const double shown = choice_chance(0.5, 60 + learned.grades);
    cr_assert_float_eq(shown, 0.5, 0.02, "promised %.2f, shown %.2f", promised, shown);
    cr_assert_lt(learned.unsure, 0.04);
}

Test(learning, is_bounded)
{
    const double lowest = after(95, 0.1, 0, 5000).grades;
    cr_assert(lowest >= -LEARNING_GRADES_MAX && lowest < -0.95 * LEARNING_GRADES_MAX, "%f", lowest);
    const double highest = after(20, 0.9, 1, 5000).grades;
    cr_assert(highest <= LEARNING_GRADES_MAX && highest > 0.9 * LEARNING_GRADES_MAX, "%f", highest);
}

/* However flat the curve is there: a promise of 0.99 that gets one 0.8 is no worse by many grades. */
Test(learning, one_score_moves_by_no_more_than_its_share)
{
    const double most = LEARNING_GRADES_MAX / (1.0 + LEARNING_PRIOR) + 1e-9;
    static const double scores[] = {0, 0.8, 1};
    for (int grade = 0; grade <= 100; grade += 10) {
        for (size_t i = 0; i < 3; i++) {
            stop_cells();
            start_cells();
            const double grades = after(grade, 0.1, scores[i], 1).grades;
            cr_assert_leq(fabs(grades), most, "grade %d, score %g: %f", grade, scores[i], grades);
        }
    }
}

Test(learning, few_scores_weigh_little)
{
    const double one = after(60, 0.5, 0, 1).grades;
    const double more = after(60, 0.5, 0, 9).grades;
    cr_assert_lt(one, 0);
    cr_assert_gt(one, -8);
    cr_assert_lt(more, one - 8);
}

Test(learning, what_is_long_ago_counts_half)
{
    const struct learning_key key = {.tenant = 1};
    struct learning_cell *cell = learning_touch(&learning, &key);
    learning_note(cell, 1, -1);
    for (int i = 0; i < LEARNING_HALF_LIFE; i++) {
        learning_note(cell, 0, -1);
    }
    cr_assert_float_eq(cell->good, 0.5, 1e-9);
    cr_assert_float_eq(cell->complexity / (cell->good + cell->bad), 0.5, 1e-9);
}

Test(learning, the_least_recently_judged_is_forgotten)
{
    for (uint32_t i = 0; i < LEARNING_CELLS_MAX; i++) {
        cr_assert_not_null(learning_touch(
            &learning, &(struct learning_key){.tenant = (uint16_t)i, .model = 1, .task = 1}));
    }
    const struct learning_key first = {.tenant = 0, .model = 1, .task = 1};
    cr_assert_not_null(learning_touch(&learning, &first));
    cr_assert_eq(forgotten_count, 0);
    cr_assert_not_null(learning_touch(&learning, &(struct learning_key){.task = 2}));
    cr_assert_eq(forgotten_count, 1);
    cr_assert_eq(forgotten_last.tenant, 1);
    cr_assert_null(learning_find(&learning, &forgotten_last));
    cr_assert_not_null(learning_find(&learning, &first));
}

Test(learning, a_tenant_with_many_tasks_pushes_out_its_own)
{
    const struct learning_key theirs = {.tenant = 2000, .model = 1, .task = 1};
    cr_assert_not_null(learning_touch(&learning, &theirs));
    for (size_t i = 0; i < 10000; i++) {
        const struct learning_key key = {
            .tenant = 7, .model = (uint16_t)(i / 200), .task = (uint8_t)(1 + i % 200)};
        cr_assert_not_null(learning_touch(&learning, &key));
    }
    cr_assert_eq(learning.by_use.length, 1 + LEARNING_TENANT_CELLS_MAX);
    cr_assert_eq(forgotten_count, 10000 - LEARNING_TENANT_CELLS_MAX);
    cr_assert_eq(forgotten_last.tenant, 7);
    cr_assert_not_null(learning_find(&learning, &theirs));
}

/* ---- choices ---- */

#define ACCEPTED WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED

static struct world w;
static struct config_provider providers[1];
static struct config_route routes[1];
static char *route_models[] = {"m0", "m1", "m2"};

/* A cheap model m0 (grade 40), m1 in the middle (65), and a dear one m2 (90). The route `any` may
 * use all. */
static void start_core(void)
{
    world_init(&w);
    providers[0] = (struct config_provider){.name = "p0"};
    static const uint32_t grades[] = {40, 65, 90};
    static const uint64_t prices[] = {100, 1500, 5000};
    for (size_t i = 0; i < 3; i++) {
        w.models[i] = (struct config_model){.name = route_models[i],
                                            .provider = "p0",
                                            .quality = grades[i],
                                            .input_nanousd_per_mtok = prices[i] * 1000000,
                                            .output_nanousd_per_mtok = prices[i] * 2000000};
    }
    routes[0] = (struct config_route){.name = "any", .models = route_models, .models_length = 3};
    w.config.providers = providers;
    w.config.providers_length = 1;
    w.config.routes = routes;
    w.config.routes_length = 1;
    w.config.routing.learn = SWITCH_ON;
    for (size_t i = 0; i < WORLD_TIERS; i++) {
        w.tiers[i].weight_quality = 70;
        w.tiers[i].weight_price = 20;
        w.tiers[i].weight_latency = 10;
    }
    for (size_t i = 0; i < 4; i++) {
        w.tenants[i].residency = "";
    }
}

static void enter(void)
{
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
    world_worker(&w, 100, "w", 1000);
}

static void go(void)
{
    world_start(&w);
    enter();
}

static void stop_core(void)
{
    world_finish(&w);
}

TestSuite(lessons, .init = start_core, .fini = stop_core);

static uint64_t given; /* dispatches since the worker said hello */

/* Submits and answers a job; returns the number of the model that it was given to. */
static size_t run(uint64_t peer, const char *tier, const char *task, Wire__CacheStatus cache,
                  struct id *ret_id)
{
    struct event event = world_submission(&w, peer, tier);
    event.as.submit.route = "any";
    event.as.submit.task = task;
    event.as.submit.complexity = 128;
    event.as.submit.input_tokens = 100;
    event.as.submit.estimated_tokens = 200;
    *ret_id = event.as.submit.job_id;
    world_forget_log(&w);
    world_submit_event(&w, &event);
    const struct world_effect *found = world_find(&w, EFFECT_DISPATCH, ret_id, 0);
    cr_assert_not_null(found);
    const struct effect_dispatch *dispatch = &found->effect.as.dispatch;
    const size_t model = (size_t)(dispatch->model[1] - '0');
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.provider = "p0";
    usage.model = route_models[model];
    usage.cache = cache;
    const struct event answer = {.kind = EVENT_ATTEMPT_RESULT,
                                 .peer = 100,
                                 .as.attempt_result = {
                                     .lease = dispatch->lease,
                                     .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                                     .error_code = "",
                                     .error_text = "",
                                     .usage = &usage,
                                 }};
    world_turn(&w, &answer);
    world_credit(&w, 100, 1000 + ++given);
    return model;
}

static void say(uint64_t peer, const struct id *job, double score)
{
    w.now.now_ms += 100; /* as much as a tenant may say */
    w.now.unix_ms += 100;
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT, .peer = 100});
    world_turn(&w, &(struct event){.kind = EVENT_FEEDBACK,
                                   .peer = peer,
                                   .as.feedback = {.job_id = *job, .score = score, .comment = ""}});
    const struct world_effect *found = world_find(&w, EFFECT_FEEDBACK_TAKEN, job, peer);
    cr_assert_not_null(found);
    cr_assert_eq(found->effect.as.feedback_taken.outcome, ACCEPTED);
}

static size_t ask(uint64_t peer, const char *task)
{
    struct id id;
    return run(peer, "realtime", task, WIRE__CACHE_STATUS__CACHE_MISS, &id);
}

static void teach(const char *tier, Wire__CacheStatus cache, double score, int times)
{
    for (int i = 0; i < times; i++) {
        struct id id;
        (void)run(1, tier, "sums", cache, &id);
        say(1, &id, score);
    }
}

Test(lessons, a_model_that_is_worse_than_its_grade_is_chosen_no_more_for_that_task)
{
    w.config.routing.explore_share_permille = 0;
    go();
    const size_t before = ask(1, "sums");
    teach("realtime", WIRE__CACHE_STATUS__CACHE_MISS, 0, 20);
    cr_assert_neq(ask(1, "sums"), before);
    cr_assert_eq(ask(1, "rhymes"), before);
    cr_assert_eq(ask(1, ""), before);
    cr_assert_eq(ask(2, "sums"), before);
}

Test(lessons, are_not_used_nor_learned_while_off)
{
    w.config.routing.explore_share_permille = 500;
    w.config.routing.learn = SWITCH_OFF;
    go();
    const size_t before = ask(1, "sums");
    teach("realtime", WIRE__CACHE_STATUS__CACHE_MISS, 0, 30);
    cr_assert_eq(ask(1, "sums"), before);
    cr_assert_eq(world_stats(&w).tiers[0].explored, 0);
    w.config.routing.learn = SWITCH_ON;
    w.config.routing.explore_share_permille = 0;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    cr_assert_eq(ask(1, "sums"), before);
}

Test(lessons, what_the_cache_took_from_another_question_teaches_nothing)
{
    w.config.routing.explore_share_permille = 0;
    go();
    const size_t before = ask(1, "sums");
    teach("realtime", WIRE__CACHE_STATUS__CACHE_NEAR_HIT, 0, 20);
    teach("realtime", WIRE__CACHE_STATUS__CACHE_STALE_HIT, 0, 20);
    cr_assert_eq(ask(1, "sums"), before);
    teach("realtime", WIRE__CACHE_STATUS__CACHE_HIT, 0, 20);
    cr_assert_neq(ask(1, "sums"), before);
}

struct lesson {
    size_t count;
    double weight, grades;
};

static void look_at_lesson(void *context, const struct core_lesson_view *view)
{
    struct lesson *lesson = context;
    cr_assert_str_eq(view->tenant, "a");
    cr_assert_str_eq(view->task, "sums");
    lesson->count++;
    lesson->weight += view->weight;
    lesson->grades += view->grades;
}

static struct lesson lessons(void)
{
    struct lesson lesson = {0};
    core_visit_lessons(w.core, look_at_lesson, &lesson);
    return lesson;
}

Test(lessons, survive_a_restart)
{
    w.config.routing.explore_share_permille = 0;
    go();
    const size_t before = ask(1, "sums");
    teach("standard", WIRE__CACHE_STATUS__CACHE_MISS, 0, 20);
    const size_t changed = ask(1, "sums");
    cr_assert_neq(changed, before);
    const struct lesson learned = lessons();
    world_turn(&w, &(struct event){.kind = EVENT_DRAIN});
    world_restart(&w);
    given = 0;
    cr_assert_eq(w.restore_errors, 0);
    enter();
    const struct lesson restored = lessons();
    cr_assert_eq(restored.count, learned.count);
    cr_assert_float_eq(restored.weight, learned.weight, 1e-9);
    cr_assert_float_eq(restored.grades, learned.grades, 1e-9);
    cr_assert_eq(ask(1, "sums"), changed);
    cr_assert_eq(ask(2, "sums"), before);
}

Test(lessons, are_recorded_lazily)
{
    w.config.routing.explore_share_permille = 0;
    go();
    const size_t before = world_records(&w, STORE_META);
    teach("realtime", WIRE__CACHE_STATUS__CACHE_MISS, 1, 3);
    cr_assert_eq(world_records(&w, STORE_META), before);
    w.now.now_ms += 10000;
    world_tick(&w);
    cr_assert_eq(world_records(&w, STORE_META), before + 1);
    cr_assert_gt(core_next_deadline_ms(w.core), w.now.now_ms);
}

Test(lessons, are_recorded_when_the_store_is_back)
{
    w.config.routing.explore_share_permille = 0;
    go();
    const size_t before = world_records(&w, STORE_META);
    teach("realtime", WIRE__CACHE_STATUS__CACHE_MISS, 1, 3);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN, .as.store_down = {1, "failed"}});
    w.now.now_ms += 10000;
    world_tick(&w);
    cr_assert_eq(world_records(&w, STORE_META), before);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_UP});
    world_tick(&w);
    cr_assert_eq(world_records(&w, STORE_META), before + 1);
}

Test(lessons, a_damaged_record_is_skipped)
{
    go();
    teach("realtime", WIRE__CACHE_STATUS__CACHE_MISS, 1, 3);
    world_turn(&w, &(struct event){.kind = EVENT_DRAIN});
    for (size_t i = 0; i < w.records_length; i++) {
        if (w.records[i].family == STORE_META && memcmp(w.records[i].key, "learn", 5) == 0) {
            memset(w.records[i].value + w.records[i].value_bytes - 8, 0xff, 8); /* no number */
        }
    }
    world_restart(&w);
    cr_assert_gt(w.restore_errors, 0);
    cr_assert_eq(lessons().count, 0);
}

Test(lessons, an_explored_choice_says_so)
{
    w.config.routing.explore_share_permille = 500;
    go();
    const size_t before = ask(1, "");
    size_t others = 0;
    for (int i = 0; i < 100; i++) {
        struct id id;
        const bool is_other =
            run(1, "realtime", "sums", WIRE__CACHE_STATUS__CACHE_MISS, &id) != before;
        uint32_t attempt;
        const char *why = core_explain(w.core, &id, &attempt);
        cr_assert_eq(strstr(why, "explored") != NULL, is_other, "%s", why);
        cr_assert_eq(strstr(why, "left aside") != NULL, is_other, "%s", why);
        others += is_other;
        cr_assert_eq(ask(1, ""), before, "without a task");
    }
    cr_assert_gt(others, 25);
    cr_assert_lt(others, 75);
    cr_assert_eq(world_stats(&w).tiers[0].explored, others);
}

/* ---- regret ---- */

/* How often each model is right, by task. */
static const double truth[2][3] = {{0.30, 0.93, 0.35}, {0.90, 0.55, 0.60}};
static const char *const tasks[2] = {"translate", "classify"};

static double unit(uint64_t *random)
{
    *random += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = *random;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

enum { ROUNDS = 5000, LEARNED_AFTER = 500 };

static void learn_and_count(uint64_t seed)
{
    w.seed = seed;
    w.config.routing.explore_share_permille = 50;
    go();
    uint64_t random = seed;
    size_t best = 0, counted = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const size_t task = (size_t)i % 2;
        struct id id;
        const size_t model = run(1, "realtime", tasks[task], WIRE__CACHE_STATUS__CACHE_MISS, &id);
        say(1, &id, unit(&random) < truth[task][model] ? 1 : 0);
        if (i >= LEARNED_AFTER) {
            counted++;
            best += model == (task == 0 ? 1 : 0);
        }
    }
    const double share = (double)best / (double)counted;
    const double explored = (double)world_stats(&w).tiers[0].explored / ROUNDS;
    fprintf(stderr, "seed %llu: best %.3f, explored %.4f\n", (unsigned long long)seed, share,
            explored);
    cr_assert_geq(share, 0.85);
    cr_assert_leq(explored, 0.05);
}

Test(lessons, find_the_best_model_for_each_task)
{
    learn_and_count(1);
}

Test(lessons, find_it_with_another_seed)
{
    learn_and_count(2);
}

Test(lessons, find_it_with_a_third_seed)
{
    learn_and_count(3);
}
