#include "broker/admin_quality.h"
#include <jansson.h>
#include "broker/admin.h"
#include "broker/broker.h"
#include "broker/names.h"
#include "common/http_admin.h"

static json_t *outcomes_of(const struct core *core)
{
    json_t *outcomes = json_object();
    for (int i = 1; i < CORE_FEEDBACK_OUTCOMES; i++) {
        const Wire__FeedbackOutcome outcome = (Wire__FeedbackOutcome)i;
        (void)json_object_set_new(outcomes, name_of_feedback(outcome),
                                  json_integer((json_int_t)core_feedback_count(core, outcome)));
    }
    return outcomes;
}

static void add_sum(void *context, const struct core_quality_view *view)
{
    (void)json_array_append_new(
        context,
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:I}", "tenant", view->tenant,
                  "tier", view->tier, "route", view->route, "model", view->model, "cache",
                  name_of_cache_status(view->cache), "task", view->task, "count",
                  (json_int_t)view->count, "mean", view->score / (double)view->count, "last",
                  view->last, "last_unix_ms", (json_int_t)view->last_unix_ms));
}

static void add_lesson(void *context, const struct core_lesson_view *view)
{
    (void)json_array_append_new(context, json_pack("{s:s, s:s, s:s, s:f, s:f, s:f}", "tenant",
                                                   view->tenant, "task", view->task, "model",
                                                   view->model, "weight", view->weight, "mean",
                                                   view->mean, "grades", view->grades));
}

static void get_quality(void *context, const struct http_request *request,
                        struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    json_t *sums = json_array();
    json_t *learned = json_array();
    core_visit_quality(broker->core, add_sum, sums);
    core_visit_lessons(broker->core, add_lesson, learned);
    admin_answer(response, 200,
                 json_pack("{s:o, s:o, s:o}", "feedback", outcomes_of(broker->core), "sums", sums,
                           "learned", learned));
}

static void add_comment(void *context, const struct core_comment_view *view)
{
    char id[ID_TEXT_BYTES];
    id_format(&view->job_id, id);
    (void)json_array_append_new(context, json_pack("{s:s, s:I, s:s, s:s, s:f, s:s}", "id", id,
                                                   "unix_ms", (json_int_t)view->unix_ms, "tenant",
                                                   view->tenant, "model", view->model, "score",
                                                   view->score, "comment", view->text));
}

static void get_comments(void *context, const struct http_request *request,
                         struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    json_t *comments = json_array();
    core_visit_comments(broker->core, add_comment, comments);
    admin_answer(response, 200, json_pack("{s:o}", "comments", comments));
}

int admin_quality_add_routes(struct broker *broker)
{
    const int r = http_admin_route(broker->admin, "GET", "/v1/quality", false, get_quality, broker);
    return r < 0 ? r
                 : http_admin_route(broker->admin, "GET", "/v1/quality/comments", true,
                                    get_comments, broker);
}
