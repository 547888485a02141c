#include "broker/admin_cost.h"
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "broker/admin.h"
#include "broker/admin_upkeep.h"
#include "broker/broker.h"
#include "broker/core/purse.h"
#include "common/array.h"
#include "common/http_admin.h"

enum { BY_DAY, BY_TENANT, BY_TIER, BY_MODEL, BY_PROVIDER, BYS };
enum { KEY_BYTES = 1024, GROUPS_FIRST = 64 };

static const char *const by_names[BYS] = {[BY_DAY] = "day",
                                          [BY_TENANT] = "tenant",
                                          [BY_TIER] = "tier",
                                          [BY_MODEL] = "model",
                                          [BY_PROVIDER] = "provider"};

struct group {
    json_t *names; /* an object: the value of each that it is grouped by; owned */
    struct core_cost sum;
};

struct question {
    bool by[BYS];
    int32_t from_day, to_day; /* both included */
    json_t *index;            /* key to position in `groups`; owned */
    struct group *groups;     /* owned */
    size_t length, capacity;
    struct core_cost total;
    bool is_out_of_memory;
};

/* ---- what is asked ---- */

/* Errors: -EINVAL no date like 2026-01-31. */
static int read_day(const char *text, int32_t *ret_day)
{
    struct tm date = {0};
    const char *end = strptime(text, "%Y-%m-%d", &date);
    const time_t seconds = end == NULL || *end != '\0' ? -1 : timegm(&date);
    if (seconds < 0) {
        return -EINVAL;
    }
    *ret_day = purse_day_of((int64_t)seconds * 1000);
    return 0;
}

/* Errors: -EINVAL, answered. */
static int read_query_day(const struct http_request *request, struct http_response *response,
                          const char *name, int32_t *ret_day)
{
    const char *text = http_query(request, name);
    if (text == NULL || read_day(text, ret_day) == 0) {
        return 0;
    }
    http_error(response, 400, "%s is \"%.32s\"; it must be a day such as 2026-01-31", name, text);
    return -EINVAL;
}

/* "tenant,day". Errors: -EINVAL. */
static int read_by(const char *text, bool ret_by[BYS])
{
    while (*text != '\0') {
        const size_t bytes = strcspn(text, ",");
        size_t i = 0;
        while (i < BYS &&
               (strlen(by_names[i]) != bytes || strncmp(by_names[i], text, bytes) != 0)) {
            i++;
        }
        if (i == BYS) {
            return -EINVAL;
        }
        ret_by[i] = true;
        text += bytes + (text[bytes] == ',');
    }
    return 0;
}

static int read_question(const struct http_request *request, struct http_response *response,
                         struct question *ret_question)
{
    const char *asked_by = http_query(request, "by");
    const char *by = asked_by == NULL ? "tenant" : asked_by;
    struct question question = {.to_day = INT32_MAX};
    if (read_by(by, question.by) < 0) {
        http_error(response, 400,
                   "by is \"%.64s\"; it must be some of day, tenant, tier, model, provider, "
                   "separated by commas",
                   by);
        return -EINVAL;
    }
    int r = read_query_day(request, response, "from", &question.from_day);
    r = r < 0 ? r : read_query_day(request, response, "to", &question.to_day);
    if (r < 0) {
        return r;
    }
    if (question.from_day > question.to_day) {
        http_error(response, 400, "from is \"%.32s\", which is after to, \"%.32s\"; exchange them",
                   http_query(request, "from"), http_query(request, "to"));
        return -EINVAL;
    }
    *ret_question = question;
    return 0;
}

/* ---- adding up ---- */

/* NULL: no memory. */
static struct group *append(struct question *question, const char *key, json_t *names)
{
    if (array_reserve(&question->groups, &question->capacity, question->length + 1,
                      sizeof(struct group), GROUPS_FIRST) < 0) {
        return NULL;
    }
    if (json_object_set_new(question->index, key, json_integer((json_int_t)question->length)) < 0) {
        return NULL;
    }
    struct group *group = &question->groups[question->length++];
    *group = (struct group){.names = json_incref(names)};
    return group;
}

static void add_row(void *context, const struct core_cost_view *view)
{
    struct question *question = context;
    char day[ADMIN_DAY_BYTES];
    char key[KEY_BYTES] = "";
    if (view->day < question->from_day || view->day > question->to_day) {
        return;
    }
    const char *const values[BYS] = {[BY_DAY] = admin_day_text(view->day, day),
                                     [BY_TENANT] = view->tenant,
                                     [BY_TIER] = view->tier,
                                     [BY_MODEL] = view->model,
                                     [BY_PROVIDER] = view->provider};
    json_t *names = json_object();
    size_t length = 0;
    for (size_t i = 0; i < BYS; i++) {
        if (question->by[i]) { /* names hold no line ends, and at most 255 bytes */
            (void)json_object_set_new(names, by_names[i], json_string(values[i]));
            const int bytes = snprintf(key + length, sizeof(key) - length, "%s\n", values[i]);
            length = bytes < 0 || length + (size_t)bytes >= sizeof(key) ? sizeof(key) - 1
                                                                        : length + (size_t)bytes;
        }
    }
    const json_t *known = json_object_get(question->index, key);
    struct group *group =
        known != NULL ? &question->groups[json_integer_value(known)] : append(question, key, names);
    json_decref(names);
    question->is_out_of_memory |= group == NULL;
    if (group != NULL) {
        core_cost_add(&group->sum, view->sum);
    }
    core_cost_add(&question->total, view->sum);
}

/* ---- answering ---- */

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)(value < INT64_MAX ? value : INT64_MAX));
}

/* Whole nano-dollars: nothing is lost on the way. Adds to `object`. */
static json_t *describe_sum(json_t *object, const struct core_cost *sum)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"calls", sum->calls},
        {"estimated_calls", sum->estimated_calls},
        {"input_tokens", sum->tokens[PRICE_INPUT]},
        {"cached_input_tokens", sum->tokens[PRICE_CACHED_INPUT]},
        {"cache_write_tokens", sum->tokens[PRICE_CACHE_WRITE]},
        {"cache_write_long_tokens", sum->tokens[PRICE_CACHE_WRITE_LONG]},
        {"output_tokens", sum->tokens[PRICE_OUTPUT]},
        {"reasoning_tokens", sum->reasoning_tokens},
        {"estimated_tokens", sum->estimated_tokens},
        {"cost_nanousd", sum->cost_nanousd},
        {"estimated_nanousd", sum->estimated_nanousd},
        {"late_nanousd", sum->late_nanousd},
        {"cache_hits", sum->hits},
        {"followers", sum->followers},
        {"saved_cache_nanousd", sum->saved_cache_nanousd},
        {"saved_cache_ms", sum->saved_cache_ms},
        {"saved_followers_nanousd", sum->saved_followers_nanousd},
        {"saved_followers_ms", sum->saved_followers_ms},
        {"saved_prompt_cache_nanousd", sum->saved_prompt_cache_nanousd},
        {"saved_batching_nanousd", sum->saved_batching_nanousd},
        {"saved_optimising_nanousd", sum->saved_optimising_nanousd},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        (void)json_object_set_new(object, numbers[i].name, number(numbers[i].value));
    }
    (void)json_object_set_new(object, "saved_routing_nanousd",
                              json_integer(sum->saved_routing_nanousd));
    return object;
}

static json_t *limit_or_null(uint64_t nanousd)
{
    return nanousd == UINT64_MAX ? json_null() : number(nanousd);
}

static void add_budget(void *context, const struct core_budget_view *view)
{
    (void)json_array_append_new(
        context,
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:b}", "tenant", view->tenant,
                  "tier", view->tier, "daily_nanousd", limit_or_null(view->daily_max_nanousd),
                  "monthly_nanousd", limit_or_null(view->monthly_max_nanousd), "day_nanousd",
                  number(view->day_nanousd), "month_nanousd", number(view->month_nanousd),
                  "reserved_nanousd", number(view->reserved_nanousd), "day_ends_unix_ms",
                  (json_int_t)view->day_ends_unix_ms, "month_ends_unix_ms",
                  (json_int_t)view->month_ends_unix_ms, "soft", view->is_soft));
}

static json_t *describe(struct broker *broker, struct question *question)
{
    json_t *rows = json_array();
    json_t *by = json_array();
    json_t *budgets = json_array();
    for (size_t i = 0; i < BYS; i++) {
        if (question->by[i]) {
            (void)json_array_append_new(by, json_string(by_names[i]));
        }
    }
    for (size_t i = 0; i < question->length; i++) {
        (void)json_array_append_new(
            rows, describe_sum(json_incref(question->groups[i].names), &question->groups[i].sum));
    }
    core_visit_budgets(broker->core, add_budget, budgets);
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o}", "by", by, "rows", rows, "total",
        describe_sum(json_object(), &question->total), "budgets", budgets, "infrastructure",
        admin_upkeep_describe(broker, question->from_day, question->to_day, question->by[BY_DAY]));
}

static void get_cost(void *context, const struct http_request *request,
                     struct http_response *response)
{
    struct broker *broker = context;
    struct question question;
    if (read_question(request, response, &question) < 0) {
        return;
    }
    question.index = json_object();
    core_visit_costs(broker->core, add_row, &question);
    admin_answer(response, 200, question.is_out_of_memory ? NULL : describe(broker, &question));
    for (size_t i = 0; i < question.length; i++) {
        json_decref(question.groups[i].names);
    }
    free(question.groups);
    json_decref(question.index);
}

int admin_cost_add_routes(struct broker *broker)
{
    return http_admin_route(broker->admin, "GET", "/v1/cost", false, get_cost, broker);
}

const char *admin_day_text(int32_t day, char ret_text[ADMIN_DAY_BYTES])
{
    const time_t seconds = (time_t)(purse_day_begins_unix_ms(day) / 1000);
    struct tm date;
    if (gmtime_r(&seconds, &date) == NULL ||
        strftime(ret_text, ADMIN_DAY_BYTES, "%Y-%m-%d", &date) == 0) {
        ret_text[0] = '\0';
    }
    return ret_text;
}
