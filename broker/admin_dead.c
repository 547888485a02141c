#include "broker/admin_dead.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/admin.h"
#include "broker/broker.h"
#include "broker/inquiry.h"
#include "broker/text.h"
#include "common/clock.h"
#include "common/http_admin.h"

enum {
    LIST_LIMIT = 100,
    LIST_LIMIT_MAX = 1000,
    RATE_MAX = 1000000,
};
#define AGE_MS_MAX (INT64_C(1) << 40)

/* ---- what is read of requests ---- */

/* Errors: -EINVAL. */
static int read_number(const char *text, uint64_t most, uint64_t *ret_number)
{
    char *end = NULL;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0 || *end != '\0' || number > most) {
        return -EINVAL;
    }
    *ret_number = number;
    return 0;
}

/* An absent one stays as it is. Errors: -EINVAL, answered. */
static int read_query_number(const struct http_request *request, struct http_response *response,
                             const char *name, uint64_t most, uint64_t *ret_number)
{
    const char *text = http_query(request, name);
    if (text == NULL || read_number(text, most, ret_number) == 0) {
        return 0;
    }
    http_error(response, 400, "%s must be a whole number up to %llu", name,
               (unsigned long long)most);
    return -EINVAL;
}

/* Ages to times. */
static void set_times(struct dead_filter *filter, uint64_t older_than_ms, uint64_t newer_than_ms)
{
    const int64_t now_ms = clock_unix_ms();
    filter->until_unix_ms = older_than_ms > 0 ? now_ms - (int64_t)older_than_ms : 0;
    filter->from_unix_ms = newer_than_ms > 0 ? now_ms - (int64_t)newer_than_ms : 0;
}

/* Errors: -EINVAL, answered. */
static int read_query_filter(const struct http_request *request, struct http_response *response,
                             struct dead_filter *ret_filter)
{
    uint64_t older_than_ms = 0;
    uint64_t newer_than_ms = 0;
    if (read_query_number(request, response, "older_than_ms", AGE_MS_MAX, &older_than_ms) < 0 ||
        read_query_number(request, response, "newer_than_ms", AGE_MS_MAX, &newer_than_ms) < 0) {
        return -EINVAL;
    }
    *ret_filter = (struct dead_filter){
        .tenant = http_query(request, "tenant"),
        .tier = http_query(request, "tier"),
        .route = http_query(request, "route"),
        .code = http_query(request, "code"),
        .worker = http_query(request, "worker"),
        .provider = http_query(request, "provider"),
    };
    set_times(ret_filter, older_than_ms, newer_than_ms);
    return 0;
}

/* Errors: -EINVAL, answered. */
static int check_filter_names(const json_t *filter, struct http_response *response)
{
    static const char *const known[] = {"tenant", "tier",     "route",         "code",
                                        "worker", "provider", "older_than_ms", "newer_than_ms"};
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach ((json_t *)filter, name, value) {
        size_t i = 0;
        while (i < ARRAY_LENGTH(known) && strcmp(name, known[i]) != 0) {
            i++;
        }
        if (i == ARRAY_LENGTH(known)) {
            http_error(response, 400,
                       "filter: %.64s is no member of a filter; write one of tenant, tier, route, "
                       "code, worker, provider, older_than_ms, newer_than_ms",
                       name);
            return -EINVAL;
        }
    }
    return 0;
}

/* Errors: -EINVAL, answered. The strings are the body's. */
static int read_body_filter(json_t *from, struct http_response *response,
                            struct dead_filter *ret_filter)
{
    json_error_t error;
    json_int_t older_than_ms = 0;
    json_int_t newer_than_ms = 0;
    struct dead_filter filter = {0};
    if (check_filter_names(from, response) < 0) {
        return -EINVAL;
    }
    if (json_unpack_ex(from, &error, JSON_STRICT, "{s?s, s?s, s?s, s?s, s?s, s?s, s?I, s?I}",
                       "tenant", &filter.tenant, "tier", &filter.tier, "route", &filter.route,
                       "code", &filter.code, "worker", &filter.worker, "provider", &filter.provider,
                       "older_than_ms", &older_than_ms, "newer_than_ms", &newer_than_ms) < 0) {
        http_error(response, 400, "filter: %s", error.text);
        return -EINVAL;
    }
    if (older_than_ms < 0 || older_than_ms > AGE_MS_MAX || newer_than_ms < 0 ||
        newer_than_ms > AGE_MS_MAX) {
        http_error(response, 400, "filter: older_than_ms and newer_than_ms must be from 0 to %lld",
                   (long long)AGE_MS_MAX);
        return -EINVAL;
    }
    set_times(&filter, (uint64_t)older_than_ms, (uint64_t)newer_than_ms);
    *ret_filter = filter;
    return 0;
}

/* ---- list ---- */

static json_t *letter_object(const struct core_dead_view *view)
{
    char id[ID_TEXT_BYTES];
    id_format(&view->id, id);
    const int64_t age_ms = clock_unix_ms() - view->died_unix_ms;
    return json_pack("{s:s, s:I, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:b, s:s}",
                     "id", id, "died_unix_ms", (json_int_t)view->died_unix_ms, "dead_for_ms",
                     (json_int_t)(age_ms > 0 ? age_ms : 0), "tenant", view->tenant, "tier",
                     view->tier, "route", view->route, "error_code", view->code, "error_text",
                     view->text, "worker", view->worker, "provider", view->provider, "attempts",
                     (json_int_t)view->attempts, "losses", (json_int_t)view->losses,
                     "payload_bytes", (json_int_t)view->payload_bytes, "requeuable", !view->is_lost,
                     "why_not", view->why_not);
}

static void add_letter(void *context, const struct core_dead_view *view)
{
    json_array_append_new(context, letter_object(view));
}

static void get_list(void *context, const struct http_request *request,
                     struct http_response *response)
{
    const struct broker *broker = context;
    struct dead_filter filter;
    uint64_t cursor = 0;
    uint64_t limit = LIST_LIMIT;
    if (read_query_filter(request, response, &filter) < 0 ||
        read_query_number(request, response, "cursor", INT64_MAX, &cursor) < 0 ||
        read_query_number(request, response, "limit", LIST_LIMIT_MAX, &limit) < 0) {
        return;
    }
    json_t *letters = json_array();
    const uint64_t next =
        core_visit_dead(broker->core, &filter, cursor, (size_t)limit, add_letter, letters);
    /* A number as text: JSON's numbers are doubles to many, and this is larger than they hold. */
    char text[24] = "";
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)next);
    admin_answer(
        response, 200,
        json_pack("{s:o, s:s?}", "dead_letters", letters, "next", next == 0 ? NULL : text));
}

/* ---- one ---- */

/* The letter that "{id}…" names, of this tenant if one is given; answers when there is none.
 * Returns what follows the id. */
static const char *find_letter(const struct broker *broker, const char *text, const char *tenant,
                               struct http_response *response, struct core_dead_view *ret_view)
{
    char id_text[ID_TEXT_BYTES];
    const size_t length = strcspn(text, "/");
    (void)snprintf(id_text, sizeof(id_text), "%.*s", (int)(length < sizeof(id_text) ? length : 0),
                   text);
    struct id id;
    if (id_parse(id_text, &id) < 0) {
        http_error(response, 400, "\"%s\" is no job id; an id is a UUID of 36 characters", id_text);
        return NULL;
    }
    if (core_view_dead(broker->core, &id, ret_view) < 0 ||
        (tenant != NULL && strcmp(ret_view->tenant, tenant) != 0)) {
        http_error(response, 404, "job %s is no dead letter here", id_text);
        return NULL;
    }
    return text + length;
}

static void show(struct broker *broker, const struct http_request *request,
                 struct http_response *response, bool wants_payload)
{
    struct core_dead_view view;
    const char *rest =
        find_letter(broker, request->rest, http_query(request, "tenant"), response, &view);
    if (rest == NULL) {
        return;
    }
    if (rest[0] != '\0') {
        http_error(response, 404, "there is no \"%s\" of a dead letter", rest);
        return;
    }
    inquiry_answer(broker, request, response, letter_object(&view), &view.id, wants_payload);
}

static void get_letter(void *context, const struct http_request *request,
                       struct http_response *response)
{
    show(context, request, response, false);
}

/* What customers asked for is shown where changes are taken alone. */
static void get_request(void *context, const struct http_request *request,
                        struct http_response *response)
{
    show(context, request, response, true);
}

static void do_to_one(struct broker *broker, enum dead_action action,
                      const struct core_dead_view *view, struct http_response *response)
{
    char id[ID_TEXT_BYTES];
    id_format(&view->id, id);
    if (action == DEAD_REQUEUE && view->why_not[0] != '\0') {
        http_error(response, 409, "job %s cannot be requeued%s: %s", id,
                   view->is_lost ? "" : " now", view->why_not);
        return;
    }
    broker_step(broker, &(struct event){.kind = EVENT_DEAD_ONE,
                                        .as.dead_one = {.job_id = view->id, .action = action}});
    admin_answer(response, 200,
                 json_pack("{s:s, s:s}", "id", id, "state",
                           action == DEAD_REQUEUE ? "requeued" : "dropped"));
}

static void post_one(void *context, const struct http_request *request,
                     struct http_response *response)
{
    struct broker *broker = context;
    struct core_dead_view view;
    json_t *body = NULL;
    if (admin_read_body(request, response, &body) < 0) {
        return;
    }
    const char *tenant = json_string_value(json_object_get(body, "tenant"));
    const char *rest = find_letter(broker, request->rest, tenant, response, &view);
    if (rest != NULL && strcmp(rest, "/requeue") == 0) {
        do_to_one(broker, DEAD_REQUEUE, &view, response);
    } else if (rest != NULL && strcmp(rest, "/drop") == 0) {
        do_to_one(broker, DEAD_DROP, &view, response);
    } else if (rest != NULL) {
        http_error(
            response, 404,
            "\"%s\" cannot be done to a dead letter; POST /v1/dead/{id}/requeue and …/drop can",
            rest);
    }
    json_decref(body);
}

/* ---- sweeps ---- */

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text != NULL) {
        json_object_set_new(object, key, json_string(text));
    }
}

static json_t *filter_object(const struct dead_filter *filter)
{
    json_t *object = json_object();
    set_text(object, "tenant", filter->tenant);
    set_text(object, "tier", filter->tier);
    set_text(object, "route", filter->route);
    set_text(object, "code", filter->code);
    set_text(object, "worker", filter->worker);
    set_text(object, "provider", filter->provider);
    if (filter->from_unix_ms > 0) {
        json_object_set_new(object, "from_unix_ms", json_integer(filter->from_unix_ms));
    }
    if (filter->until_unix_ms > 0) {
        json_object_set_new(object, "until_unix_ms", json_integer(filter->until_unix_ms));
    }
    return object;
}

static json_t *sweep_object(const struct core_sweep_view *view)
{
    const char *state = !view->is_over     ? view->waits[0] != '\0' ? "waiting" : "running"
                        : view->is_stopped ? "stopped"
                                           : "done";
    return json_pack("{s:I, s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "number",
                     (json_int_t)view->number, "action",
                     view->action == DEAD_REQUEUE ? "requeue" : "drop", "state", state, "filter",
                     filter_object(view->filter), "rate_per_s", (json_int_t)view->rate_per_s,
                     "looked", (json_int_t)view->looked, "done", (json_int_t)view->done, "skipped",
                     (json_int_t)view->skipped, "began_unix_ms", (json_int_t)view->began_unix_ms,
                     "ended_unix_ms", (json_int_t)view->ended_unix_ms, "why", view->waits);
}

struct sweep_search {
    uint64_t number;
    json_t *found;
};

static void look_at_sweep(void *context, const struct core_sweep_view *view)
{
    struct sweep_search *search = context;
    if (view->number == search->number) {
        search->found = sweep_object(view);
    }
}

/* Gives: NULL: there is none of this number. */
static json_t *find_sweep(const struct broker *broker, uint64_t number)
{
    struct sweep_search search = {.number = number};
    core_visit_sweeps(broker->core, look_at_sweep, &search);
    return search.found;
}

static void begin_sweep(struct broker *broker, const struct event *event,
                        struct http_response *response)
{
    const uint64_t before = core_latest_sweep(broker->core);
    broker_step(broker, event);
    const uint64_t number = core_latest_sweep(broker->core);
    if (number == before) {
        http_error(response, 503, "as many sweeps run as may; stop one, or wait for its end");
        return;
    }
    admin_answer(response, 200, find_sweep(broker, number));
}

/* Everything has to be asked for in so many words: "filter" is required, if only an empty one. */
static int read_sweep(json_t *body, struct http_response *response, struct event *event)
{
    json_error_t error;
    json_t *filter = NULL;
    json_int_t rate_per_s = 0;
    if (json_unpack_ex(body, &error, JSON_STRICT, "{s:o, s?I}", "filter", &filter, "rate_per_s",
                       &rate_per_s) < 0) {
        http_error(response, 400, "%s; send {\"filter\": {…}, \"rate_per_s\": …}", error.text);
        return -EINVAL;
    }
    if (rate_per_s < 0 || rate_per_s > RATE_MAX) {
        http_error(response, 400, "rate_per_s must be from 0 to %d", RATE_MAX);
        return -EINVAL;
    }
    event->as.dead_sweep.rate_per_s = (uint32_t)rate_per_s;
    return read_body_filter(filter, response, &event->as.dead_sweep.filter);
}

static void post_sweep(struct broker *broker, const struct http_request *request,
                       struct http_response *response, enum dead_action action)
{
    struct event event = {.kind = EVENT_DEAD_SWEEP, .as.dead_sweep.action = action};
    json_t *body = NULL;
    if (admin_read_body(request, response, &body) == 0 && read_sweep(body, response, &event) == 0) {
        begin_sweep(broker, &event, response);
    }
    json_decref(body);
}

static void post_requeue(void *context, const struct http_request *request,
                         struct http_response *response)
{
    post_sweep(context, request, response, DEAD_REQUEUE);
}

static void post_drop(void *context, const struct http_request *request,
                      struct http_response *response)
{
    post_sweep(context, request, response, DEAD_DROP);
}

static void add_sweep(void *context, const struct core_sweep_view *view)
{
    json_array_append_new(context, sweep_object(view));
}

static void get_sweeps(void *context, const struct http_request *request,
                       struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    json_t *sweeps = json_array();
    core_visit_sweeps(broker->core, add_sweep, sweeps);
    admin_answer(response, 200, json_pack("{s:o}", "sweeps", sweeps));
}

/* The sweep that "{number}{rest}" names; answers when there is none. */
static int read_sweep_number(const struct broker *broker, const struct http_request *request,
                             struct http_response *response, const char *rest, uint64_t *ret_number)
{
    char text[24] = "";
    const size_t length = strcspn(request->rest, "/");
    if (length < sizeof(text) && strcmp(request->rest + length, rest) == 0) {
        memcpy(text, request->rest, length);
    }
    json_t *found =
        read_number(text, INT64_MAX, ret_number) == 0 ? find_sweep(broker, *ret_number) : NULL;
    if (found == NULL) {
        http_error(response, 404, "there is no sweep \"%.*s\"", (int)(length < 64 ? length : 64),
                   request->rest);
        return -ENOENT;
    }
    json_decref(found);
    return 0;
}

static void get_sweep(void *context, const struct http_request *request,
                      struct http_response *response)
{
    const struct broker *broker = context;
    uint64_t number;
    if (read_sweep_number(broker, request, response, "", &number) == 0) {
        admin_answer(response, 200, find_sweep(broker, number));
    }
}

static void post_stop(void *context, const struct http_request *request,
                      struct http_response *response)
{
    struct broker *broker = context;
    uint64_t number;
    if (read_sweep_number(broker, request, response, "/stop", &number) < 0) {
        return;
    }
    broker_step(broker,
                &(struct event){.kind = EVENT_DEAD_STOP, .as.dead_stop = {.number = number}});
    admin_answer(response, 200, find_sweep(broker, number));
}

int admin_dead_add_routes(struct broker *broker)
{
    static const struct {
        const char *method, *path;
        bool changes;
        http_fn *handler;
    } routes[] = {
        {"GET", "/v1/dead", false, get_list},
        {"GET", "/v1/dead/", false, get_letter},
        {"GET", "/v1/dead/requests/", true, get_request},
        {"GET", "/v1/dead/sweeps", false, get_sweeps},
        {"GET", "/v1/dead/sweeps/", false, get_sweep},
        {"POST", "/v1/dead/", true, post_one},
        {"POST", "/v1/dead/requeue", true, post_requeue},
        {"POST", "/v1/dead/drop", true, post_drop},
        {"POST", "/v1/dead/sweeps/", true, post_stop},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(routes); i++) {
        const int r = http_admin_route(broker->admin, routes[i].method, routes[i].path,
                                       routes[i].changes, routes[i].handler, broker);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}
