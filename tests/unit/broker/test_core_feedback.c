/* What users say of answers: whose word counts for what, once, and over a restart. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/feedback.h"
#include "broker/core/quality.h"
#include "tests/unit/broker/core_world.h"

#define ACCEPTED WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED
#define REPEATED WIRE__FEEDBACK_OUTCOME__FEEDBACK_REPEATED
#define UNKNOWN  WIRE__FEEDBACK_OUTCOME__FEEDBACK_UNKNOWN
#define REFUSED  WIRE__FEEDBACK_OUTCOME__FEEDBACK_REFUSED
#define PUT_OFF  WIRE__FEEDBACK_OUTCOME__FEEDBACK_PUT_OFF

static struct world w;

static void enter(void)
{
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
    world_worker(&w, 100, "w", 1000);
}

static void start(void)
{
    world_init(&w);
    world_start(&w);
    enter();
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_feedback, .init = start, .fini = stop);

static struct id submit(const char *tier, const char *task)
{
    return world_submit_to(&w, 1, tier, NULL, task);
}

static void answer(const struct id *job, const char *model, Wire__CacheStatus cache)
{
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.model = (char *)model;
    usage.provider = "";
    usage.cache = cache;
    const struct event event = {.kind = EVENT_ATTEMPT_RESULT,
                                .peer = 100,
                                .as.attempt_result = {
                                    .lease = world_lease(&w, job),
                                    .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                                    .error_code = "",
                                    .error_text = "",
                                    .usage = &usage,
                                }};
    world_turn(&w, &event);
}

static struct id answered(const char *tier, const char *model)
{
    const struct id id = submit(tier, "summary");
    answer(&id, model, WIRE__CACHE_STATUS__CACHE_MISS);
    return id;
}

static Wire__FeedbackOutcome say(uint64_t peer, const struct id *job, double score,
                                 const char *comment)
{
    world_forget_log(&w);
    world_turn(
        &w, &(struct event){.kind = EVENT_FEEDBACK,
                            .peer = peer,
                            .as.feedback = {.job_id = *job, .score = score, .comment = comment}});
    const struct world_effect *found = world_find(&w, EFFECT_FEEDBACK_TAKEN, job, peer);
    return found == NULL ? WIRE__FEEDBACK_OUTCOME__FEEDBACK_OUTCOME_NONE
                         : found->effect.as.feedback_taken.outcome;
}

static const char *why(void)
{
    const struct world_effect *found = world_find(&w, EFFECT_FEEDBACK_TAKEN, NULL, 0);
    return found == NULL ? "no word" : found->text;
}

struct found {
    const char *model;
    uint64_t count;
    double score, last;
    const char *tier, *route, *task;
    Wire__CacheStatus cache;
};

static void look_at(void *context, const struct core_quality_view *view)
{
    struct found *found = context;
    if (strcmp(view->model, found->model) == 0) {
        found->count += view->count;
        found->score += view->score;
        found->last = view->last;
        found->tier = view->tier;
        found->route = view->route;
        found->task = view->task;
        found->cache = view->cache;
    }
}

static struct found sums_of(const char *model)
{
    struct found found = {.model = model};
    core_visit_quality(w.core, look_at, &found);
    return found;
}

static void look_at_comment(void *context, const struct core_comment_view *view)
{
    char *text = context;
    (void)snprintf(text + strlen(text), 1000 - strlen(text), "%s %s %.2f: %s\n", view->tenant,
                   view->model, view->score, view->text);
}

Test(core_feedback, counts_for_what_answered)
{
    const struct id first = answered("standard", "m0");
    const struct id second = answered("standard", "m0");
    const struct id third = submit("realtime", "");
    answer(&third, "m1", WIRE__CACHE_STATUS__CACHE_NEAR_HIT);
    cr_assert_eq(say(1, &first, 1, ""), ACCEPTED);
    cr_assert_eq(say(1, &second, 0.5, ""), ACCEPTED);
    cr_assert_eq(say(1, &third, 0, ""), ACCEPTED);
    const struct found m0 = sums_of("m0");
    cr_assert_eq(m0.count, 2);
    cr_assert_float_eq(m0.score, 1.5, 1e-9);
    cr_assert_float_eq(m0.last, 0.5, 1e-9);
    cr_assert_str_eq(m0.tier, "standard");
    cr_assert_str_eq(m0.route, "m0");
    cr_assert_str_eq(m0.task, "summary");
    cr_assert_eq(m0.cache, WIRE__CACHE_STATUS__CACHE_MISS);
    const struct found m1 = sums_of("m1");
    cr_assert_eq(m1.count, 1);
    cr_assert_str_eq(m1.tier, "realtime");
    cr_assert_str_eq(m1.task, "");
    cr_assert_eq(m1.cache, WIRE__CACHE_STATUS__CACHE_NEAR_HIT);
}

Test(core_feedback, counts_once)
{
    const struct id job = answered("standard", "m0");
    cr_assert_eq(say(1, &job, 0.8, ""), ACCEPTED);
    cr_assert_eq(say(1, &job, 0.8, ""), REPEATED, "an answer that was lost");
    cr_assert_eq(say(1, &job, 0.1, ""), REFUSED);
    cr_assert_not_null(strstr(why(), "given before"), "%s", why());
    cr_assert_eq(sums_of("m0").count, 1);
    cr_assert_float_eq(sums_of("m0").score, 0.8, 1e-9);
    cr_assert_eq(core_feedback_count(w.core, ACCEPTED), 1);
    cr_assert_eq(core_feedback_count(w.core, REPEATED), 1);
    cr_assert_eq(core_feedback_count(w.core, REFUSED), 1);
}

Test(core_feedback, a_tenant_learns_nothing_of_the_jobs_of_others)
{
    const struct id theirs = answered("standard", "m0");
    const struct id pending = submit("standard", "");
    const struct id nobodys = world_id(&w);
    cr_assert_eq(say(2, &theirs, 1, ""), UNKNOWN);
    char text[256];
    (void)snprintf(text, sizeof(text), "%s", why());
    cr_assert_eq(say(2, &pending, 1, ""), UNKNOWN);
    cr_assert_str_eq(why(), text);
    cr_assert_eq(say(2, &nobodys, 1, ""), UNKNOWN);
    cr_assert_str_eq(why(), text);
    cr_assert_eq(say(1, &theirs, 1, ""), ACCEPTED, "it was not used up");
}

Test(core_feedback, needs_an_answer)
{
    const struct id pending = submit("standard", "");
    cr_assert_eq(say(1, &pending, 1, ""), REFUSED);
    cr_assert_not_null(strstr(why(), "not concluded"), "%s", why());
    world_job_event(&w, EVENT_CANCEL, 1, &pending);
    cr_assert_eq(say(1, &pending, 1, ""), REFUSED);
    cr_assert_not_null(strstr(why(), "no answer"), "%s", why());
}

Test(core_feedback, of_a_durable_tier_survives_a_restart)
{
    const struct id judged = answered("background", "m0");
    const struct id other = answered("background", "m1");
    const struct id volatile_one = answered("realtime", "m2");
    cr_assert_eq(say(1, &judged, 0.25, ""), ACCEPTED);
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    enter();
    cr_assert_eq(say(1, &judged, 0.25, ""), REPEATED);
    cr_assert_eq(say(1, &judged, 1, ""), REFUSED);
    cr_assert_eq(say(1, &volatile_one, 1, ""), UNKNOWN);
    cr_assert_eq(say(1, &other, 0.75, ""), ACCEPTED);
    const struct found m1 = sums_of("m1");
    cr_assert_eq(m1.count, 1);
    cr_assert_str_eq(m1.tier, "background");
    cr_assert_str_eq(m1.route, "m0");
    cr_assert_str_eq(m1.task, "summary");
    cr_assert_eq(m1.cache, WIRE__CACHE_STATUS__CACHE_MISS);
}

Test(core_feedback, is_accepted_when_it_is_durable)
{
    const struct id job = answered("standard", "m0");
    w.withholds_durability = true;
    cr_assert_eq(say(1, &job, 1, ""), WIRE__FEEDBACK_OUTCOME__FEEDBACK_OUTCOME_NONE);
    cr_assert_eq(say(1, &job, 1, ""), WIRE__FEEDBACK_OUTCOME__FEEDBACK_OUTCOME_NONE);
    world_make_durable(&w);
    cr_assert_eq(world_count(&w, EFFECT_FEEDBACK_TAKEN, &job), 2);
    cr_assert_eq(sums_of("m0").count, 1);
}

Test(core_feedback, on_what_is_forgotten_is_too_late)
{
    w.config.broker.dedup_window_ms = 60000;
    world_finish(&w);
    world_init(&w);
    w.config.broker.dedup_window_ms = 60000;
    world_start(&w);
    enter();
    const struct id job = answered("standard", "m0");
    world_advance(&w, 70000);
    enter();
    cr_assert_eq(say(1, &job, 1, ""), UNKNOWN);
    cr_assert_not_null(strstr(why(), "too old"), "%s", why());
}

Test(core_feedback, is_bounded_by_tenant)
{
    const struct id job = answered("standard", "m0");
    for (int i = 0; i < FEEDBACK_BURST; i++) {
        cr_assert_neq(say(1, &job, 1, ""), PUT_OFF);
    }
    cr_assert_eq(say(1, &job, 1, ""), PUT_OFF);
    const struct world_effect *found = world_find(&w, EFFECT_FEEDBACK_TAKEN, &job, 1);
    cr_assert_gt(found->effect.as.feedback_taken.retry_after_ms, 0);
    cr_assert_eq(say(2, &job, 1, ""), UNKNOWN, "another tenant has its own");
    w.now.now_ms += FEEDBACK_EACH_MS;
    cr_assert_eq(say(1, &job, 1, ""), REPEATED);
}

Test(core_feedback, comments_are_noted_and_the_latest_kept)
{
    const struct id job = answered("standard", "m0");
    const struct id other = answered("standard", "m1");
    cr_assert_eq(say(1, &job, 0.5, "too short"), ACCEPTED);
    const struct world_effect *note = world_find(&w, EFFECT_NOTE, &job, 0);
    cr_assert_eq(note->effect.as.note.note, NOTE_FEEDBACK);
    cr_assert_eq(note->effect.as.note.number, 50);
    cr_assert_str_eq(note->text, "too short");
    cr_assert_eq(say(1, &other, 1, "good"), ACCEPTED);
    char text[1000] = "";
    core_visit_comments(w.core, look_at_comment, text);
    cr_assert_str_eq(text, "a m1 1.00: good\na m0 0.50: too short\n");
    for (int i = 0; i < QUALITY_COMMENTS; i++) {
        w.now.now_ms += FEEDBACK_EACH_MS;
        const struct id more = answered("realtime", "m2");
        cr_assert_eq(say(1, &more, 1, "x"), ACCEPTED);
    }
    text[0] = '\0';
    core_visit_comments(w.core, look_at_comment, text);
    cr_assert_null(strstr(text, "good"));
}

Test(core_feedback, a_damaged_mark_is_skipped)
{
    const struct id job = answered("background", "m0");
    cr_assert_eq(say(1, &job, 1, ""), ACCEPTED);
    for (size_t i = 0; i < w.records_length; i++) {
        struct world_record *record = &w.records[i];
        if (record->family == STORE_CONCLUDED && record->value_bytes == 2) {
            record->value[1] = 0;
        }
    }
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 1);
    enter();
    cr_assert_eq(say(1, &job, 0.5, ""), ACCEPTED);
}

Test(core_feedback, on_a_durable_answer_is_put_off_while_the_store_is_down)
{
    const struct id durable = submit("standard", ""), fleeting = submit("realtime", "");
    answer(&durable, "m0", WIRE__CACHE_STATUS__CACHE_MISS);
    answer(&fleeting, "m0", WIRE__CACHE_STATUS__CACHE_MISS);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN, .as.store_down = {1000, "failed"}});
    cr_assert_eq(say(1, &durable, 1, ""), WIRE__FEEDBACK_OUTCOME__FEEDBACK_PUT_OFF);
    cr_assert_eq(say(1, &fleeting, 1, ""), WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_UP});
    cr_assert_eq(say(1, &durable, 1, ""), WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED);
}
