#include "worker/combine/combine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/list.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/combine/group.h"
#include "worker/services.h"

#define ANSWERED  WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define CANCELLED WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED
#define EXPIRED   WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED

enum {
    ATTEMPTS_MAX =
        2, /* of a job in company: the third goes alone, so that none fails of it for ever */
    DEADLINE_SHARE = 10, /* at most a tenth of what a job has left is spent on waiting */
};

struct combine {
    struct groups groups;
};

int combine_create(struct services *services, struct combine **ret_combine)
{
    struct combine *combine = calloc(1, sizeof(*combine));
    if (combine == NULL) {
        return -ENOMEM;
    }
    combine->groups.services = services;
    list_init(&combine->groups.open);
    *ret_combine = combine;
    return 0;
}

void combine_destroy(struct combine **combine)
{
    free(TAKE(*combine));
}

/* ---- what can be asked together ---- */

static bool is_of_kind(const struct attempt *attempt)
{
    return attempt->operation == OPERATION_EMBEDDINGS ||
           (attempt->operation == OPERATION_CHAT && attempt->request->batchable);
}

/* A budget holds what one call of the job's own can cost: a share, then a call alone, is more, and
 * so is all of a call that the others have left. */
static bool may_share(const struct attempt *attempt, const struct config_tier *tier)
{
    return tier != NULL && tier->combine_linger_ms > 0 && is_of_kind(attempt) &&
           !attempt->wants_stream && !attempt->is_probe && !attempt->is_of_worker &&
           !attempt->is_budgeted && attempt->number <= ATTEMPTS_MAX;
}

/* Shared calls have come to nothing there of late. */
static bool is_forbidden(const struct combine *combine, const struct attempt *attempt)
{
    return caution_forbids(&combine->groups.caution,
                           caution_upstream(attempt->operation == OPERATION_CHAT,
                                            attempt->provider_name, attempt->model),
                           clock_monotonic_ms());
}

static bool read_part(const struct attempt *attempt, struct part *ret_part)
{
    size_t bytes;
    const void *body = attempt_body(attempt, &bytes);
    struct part part = {.is_question = attempt->operation == OPERATION_CHAT};
    part.root = json_loadb(body, bytes, 0, NULL);
    const bool is_good = part.is_question
                             ? pack_read(part.root, &part.question)
                             : inputs_read(part.root, body, bytes, &part.inputs);
    if (!is_good) {
        part_finish(&part);
        return false;
    }
    *ret_part = part;
    return true;
}

/* What must be the same: all of the body but what is each one's own. */
static json_t *parameters(const struct part *part)
{
    json_t *same = json_copy(part->root);
    (void)json_object_del(same, "model"); /* the router's is in the key */
    (void)json_object_del(same, part->is_question ? "messages" : "input");
    if (part->is_question && part->question.bound != NULL) {
        (void)json_object_set_new(same, part->question.bound, json_true());
    }
    return same;
}

/* NULL: no memory. */
static char *key_of(const struct attempt *attempt, const struct part *part)
{
    const char *system = part->question.system;
    json_t *key = json_pack(
        "[s, s, s, s, s, s, s, I, b, s?, s?, o]", operation_name(attempt->operation),
        attempt->tenant, attempt->tier, attempt->provider_name, attempt->model, attempt->residency,
        attempt->tenant_residency, (json_int_t)(intptr_t)attempt->broker, part->inputs.are_tokens,
        system == NULL ? NULL : part->question.system_role, system, parameters(part));
    char *text = key == NULL ? NULL : json_dumps(key, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(key);
    return text;
}

/* ---- the stage ---- */

static int64_t due_ms(const struct attempt *attempt, const struct config_tier *tier)
{
    const int64_t now_ms = clock_monotonic_ms();
    const int64_t left_ms = attempt->deadline_ms - now_ms;
    const int64_t most_ms = left_ms / DEADLINE_SHARE;
    return now_ms + (tier->combine_linger_ms < most_ms ? tier->combine_linger_ms : most_ms);
}

static int join(struct combine *combine, struct attempt *attempt, const struct config_tier *tier,
                struct part *part)
{
    char *key = key_of(attempt, part);
    struct group *group = key == NULL ? NULL : group_find(&combine->groups, key, part);
    int r = key == NULL ? -ENOMEM : 0;
    const bool is_new = r == 0 && group == NULL;
    if (is_new) {
        r = group_create(&combine->groups, key, tier->combine_jobs_max, &group);
    }
    r = r < 0 ? r : group_join(group, attempt, part, due_ms(attempt, tier));
    if (r < 0 && is_new) {
        group_destroy(&group);
    }
    free(key);
    return r;
}

static enum stage_verdict combine_start(void *module, struct attempt *attempt)
{
    struct combine *combine = module;
    const struct config_tier *tier =
        config_find_tier(combine->groups.services->config, attempt->tier);
    struct part part;
    if (!may_share(attempt, tier) || is_forbidden(combine, attempt) || !read_part(attempt, &part)) {
        return STAGE_NEXT;
    }
    const int r = join(combine, attempt, tier, &part);
    part_finish(&part);
    if (r < 0) {
        return STAGE_NEXT; /* without memory it is asked alone */
    }
    if (attempt->deadline_ms != INT64_MAX) {
        loop_timer_set(attempt->timer, attempt->deadline_ms);
    }
    return STAGE_WAITS;
}

static enum stage_verdict expire(struct attempt *attempt)
{
    outcome_set(&attempt->outcome, EXPIRED, "deadline",
                group_has_called(attempt->seat) ? "the deadline passed during the provider call"
                                                : "the deadline passed before the call");
    group_leave(attempt, EXPIRED, "deadline");
    return STAGE_CONCLUDES;
}

static enum stage_verdict go_on(struct attempt *attempt)
{
    loop_timer_stop(attempt->timer);
    const bool has_failed = attempt->outcome.kind != WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE &&
                            attempt->outcome.kind != ANSWERED;
    return has_failed ? STAGE_CONCLUDES : STAGE_NEXT;
}

static enum stage_verdict combine_resume(void *module, struct attempt *attempt,
                                         const struct stage_event *event)
{
    (void)module;
    if (event->kind == STAGE_EVENT_COMBINED) {
        return go_on(attempt);
    }
    return event->kind == STAGE_EVENT_TIMER && attempt->seat != NULL ? expire(attempt)
                                                                     : STAGE_WAITS;
}

static void combine_abandon(void *module, struct attempt *attempt)
{
    (void)module;
    if (attempt->seat != NULL) {
        group_leave(attempt, CANCELLED, "cancelled");
    }
}

struct stage combine_stage(struct combine *combine)
{
    return (struct stage){
        .name = "combine",
        .module = combine,
        .start = combine_start,
        .resume = combine_resume,
        .abandon = combine_abandon,
    };
}
