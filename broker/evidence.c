#include "broker/evidence.h"
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "broker/admin.h"
#include "broker/broker.h"
#include "broker/core/cache_evidence.h"
#include "common/config.h"
#include "common/http_admin.h"
#include "common/near_rules.h"

/* A verdict takes up to 0.2 ms of the loop. */
enum { LIMIT_PRESET = 64, LIMIT_MAX = 100 };

static const char *state_word(enum threshold_state state)
{
    switch (state) {
    case THRESHOLD_OPEN:
        return "open";
    case THRESHOLD_CLOSED_JUDGE:
        return "closed_judge";
    case THRESHOLD_CLOSED_THIN:
        return "closed_thin";
    case THRESHOLD_CLOSED_WRONG:
        return "closed_wrong";
    case THRESHOLD_CLOSED_TURNED:
        return "closed_turned";
    }
    return "";
}

static void decide(const struct core_evidence_view *view, const struct threshold_policy *policy,
                   json_t *object)
{
    struct threshold_verdict verdict = {.state = THRESHOLD_CLOSED_THIN};
    const char *state = "off", *reason = "near hits are off: max_error is 0";
    if (policy->max_error > 0 && view->seed == NULL) {
        state = "unknown";
        reason = "no worker has said what its scores mean; each decides for itself";
    } else if (policy->max_error > 0) {
        threshold_decide(view->sum, view->seed, policy, &verdict);
        state = state_word(verdict.state);
        reason = verdict.reason;
    }
    const bool is_open = verdict.state == THRESHOLD_OPEN && isfinite(verdict.threshold);
    (void)json_object_set_new(object, "state", json_string(state));
    (void)json_object_set_new(object, "reason", json_string(reason));
    (void)json_object_set_new(object, "threshold",
                              is_open ? json_real(verdict.threshold) : json_null());
    (void)json_object_set_new(
        object, "bound", verdict.state == THRESHOLD_OPEN ? json_real(verdict.bound) : json_null());
}

struct page {
    const struct config *config;
    json_t *classes;
};

static void add_class(void *context, const struct core_evidence_view *view)
{
    const struct page *page = context;
    struct threshold_policy policy;
    struct threshold_rate rate;
    near_rules(page->config, view->tenant, view->tier, &policy);
    threshold_measure(view->sum, &policy, &rate);
    json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:f, s:I, s:I, s:f, s:f, s:f}", "tenant",
                               view->tenant, "tier", view->tier, "embedder", view->embedder,
                               "epoch", (json_int_t)view->sum->newest, "max_error",
                               policy.max_error, "audits", (json_int_t)rate.audits, "audits_wrong",
                               (json_int_t)rate.audits_wrong, "false_hit_rate", rate.estimate,
                               "false_hit_low", rate.low, "false_hit_high", rate.high);
    decide(view, &policy, object);
    (void)json_array_append_new(page->classes, object);
}

/* Left as it is when it is absent. Errors: -EINVAL, answered. */
static int read_number(const struct http_request *request, struct http_response *response,
                       const char *name, long least, long most, long *number)
{
    const char *text = http_query(request, name);
    char *end = NULL;
    const long value = text == NULL ? *number : strtol(text, &end, 10);
    if (value < least || value > most || (end != NULL && *end != '\0')) {
        http_error(response, 400, "%s is \"%.32s\", must be from %ld to %ld", name, text, least,
                   most);
        return -EINVAL;
    }
    *number = value;
    return 0;
}

void evidence_show(void *context, const struct http_request *request,
                   struct http_response *response)
{
    struct broker *broker = context;
    long skip = 0, limit = LIMIT_PRESET;
    if (read_number(request, response, "limit", 1, LIMIT_MAX, &limit) < 0 ||
        read_number(request, response, "skip", 0, EVIDENCE_CLASSES_MAX, &skip) < 0) {
        return;
    }
    struct page page = {.config = broker->config, .classes = json_array()};
    const size_t length =
        core_visit_evidence(broker->core, (size_t)skip, (size_t)limit, add_class, &page);
    admin_answer(response, 200,
                 json_pack("{s:o, s:I, s:I}", "classes", page.classes, "total", (json_int_t)length,
                           "refused", (json_int_t)core_evidence_refused(broker->core)));
}
