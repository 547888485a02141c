/*
 * A group's attempts are resumed one after the other, each taken from its seat before: whatever
 * happens within, nobody comes back to a group that has ended.
 */
#include "worker/combine/group.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/combine/reply.h"
#include "worker/pipeline.h"
#include "worker/provider/call_stage.h"
#include "worker/telemetry.h"

#define ANSWERED WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define REJECTED WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define REFUSED  WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED
#define INVALID  WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID

enum group_state { GROUP_GATHERS, GROUP_CALLS, GROUP_ENDS };

struct group {
    struct list_link link; /* of the open ones, while more may join */
    bool is_open;
    struct groups *groups; /* not owned */
    char *key;
    enum group_state state;
    struct loop_timer *timer; /* until it is sent */
    int64_t due_ms;
    struct provider *provider; /* not owned */
    struct provider_wait wait;
    struct provider_call *call;
    struct call_report report;
    size_t sent_bytes; /* of the request */
    size_t jobs_max;
    size_t present; /* attempts that have not left */
    size_t inputs, bytes, tokens;
    size_t length;
    struct combine_seat *seats[CONFIG_COMBINE_JOBS_MAX];
};

void part_finish(struct part *part)
{
    json_decref(part->root);
    *part = (struct part){.root = NULL};
}

static void seat_destroy(struct combine_seat **seat)
{
    struct combine_seat *old = TAKE(*seat);
    if (old != NULL) {
        part_finish(&old->part);
        free(old);
    }
}

/* ---- who is in it ---- */

static void group_close(struct group *group)
{
    if (group->is_open) {
        list_remove(&group->groups->open, &group->link);
        group->is_open = false;
    }
}

void group_destroy(struct group **group)
{
    struct group *old = TAKE(*group);
    if (old == NULL) {
        return;
    }
    group_close(old);
    if (old->provider != NULL) {
        provider_leave(old->provider, &old->wait);
    }
    loop_timer_destroy(&old->timer);
    for (size_t i = 0; i < old->length; i++) {
        assert(old->seats[i]->attempt == NULL);
        seat_destroy(&old->seats[i]);
    }
    free(old->key);
    free(old);
}

static struct attempt *seat_vacate(struct combine_seat *seat)
{
    struct attempt *attempt = TAKE(seat->attempt);
    if (attempt != NULL) {
        attempt->seat = NULL;
        seat->group->present--;
    }
    return attempt;
}

static struct attempt *first_present(const struct group *group)
{
    size_t i = 0;
    while (i < group->length && group->seats[i]->attempt == NULL) {
        i++;
    }
    return i < group->length ? group->seats[i]->attempt : NULL;
}

static bool are_questions(const struct group *group)
{
    return group->seats[0]->part.is_question;
}

static const char *kind_of(const struct group *group)
{
    return are_questions(group) ? "questions" : "embeddings";
}

/* ---- its end ---- */

static void resume(struct attempt *attempt)
{
    const struct stage_event event = {.kind = STAGE_EVENT_COMBINED};
    pipeline_resume(attempt, &event);
}

/* Each makes a call of its own, or is told there why it cannot. */
static void dissolve(struct group **group)
{
    struct group *old = TAKE(*group);
    old->state = GROUP_ENDS;
    for (size_t i = 0; i < old->length; i++) {
        struct attempt *attempt = seat_vacate(old->seats[i]);
        if (attempt != NULL) {
            resume(attempt);
        }
    }
    group_destroy(&old);
}

static void explain(struct attempt *attempt, size_t jobs, const char *why)
{
    char *text = NULL;
    if (attempt->router_reason == NULL) {
        return;
    }
    const int r = why == NULL
                      ? asprintf(&text, "%s; one call for %zu jobs", attempt->router_reason, jobs)
                      : asprintf(&text, "%s; one call for %zu jobs, then alone: %s",
                                 attempt->router_reason, jobs, why);
    if (r >= 0) { /* without memory it is not told */
        free(attempt->router_reason);
        attempt->router_reason = text;
    }
}

/* Its share of a call that has not answered it is paid for all the same. */
static void pay_in_vain(struct group *group, struct attempt *attempt)
{
    attempt->tokens = attempt->shared.tokens;
    attempt->cost_nanousd = attempt->shared.cost_nanousd;
    telemetry_lost_share(group->groups->services->telemetry, attempt);
}

static void go_on_alone(struct group *group, struct attempt *attempt, const char *why)
{
    attempt->hedge_after_ms = 0; /* an attempt has two calls at most */
    explain(attempt, group->length, why);
    telemetry_combine_redone(group->groups->services->telemetry, kind_of(group), why);
}

static void note_reply(struct attempt *attempt, const struct provider_reply *reply)
{
    attempt->outcome = reply->outcome;
    attempt->http_status = reply->http_status;
    attempt->call_ms = reply->call_ms;
}

static void take_answer(const struct group *group, const struct combine_seat *seat,
                        struct attempt *attempt, struct reply_part *part)
{
    const uint64_t cost = part->share.cost_nanousd;
    attempt->shared.is_answered = true;
    attempt->shared.saved_nanousd = part->lone_nanousd > cost ? part->lone_nanousd - cost : 0;
    attempt->body = part->body;
    part->body = (struct bytes){0};
    /* Who asks alone gets an answer that was made alone. */
    attempt->may_be_filled = attempt->may_be_filled && !seat->part.is_question;
    explain(attempt, group->length, NULL);
}

/* One seat's outcome. NULL: it has left. */
static struct attempt *settle(struct group *group, struct combine_seat *seat,
                              const struct provider_reply *reply, struct reply_part *part)
{
    struct attempt *attempt = seat_vacate(seat);
    if (attempt == NULL) {
        return NULL;
    }
    attempt->shared.jobs = (uint32_t)group->length;
    attempt->shared.tokens = part->share.tokens;
    attempt->shared.cost_nanousd = part->share.cost_nanousd;
    if (part->why == NULL) {
        note_reply(attempt, reply);
    }
    if (part->why == NULL && reply->outcome.kind == ANSWERED) {
        take_answer(group, seat, attempt, part);
        return attempt;
    }
    pay_in_vain(group, attempt);
    if (part->why != NULL) {
        go_on_alone(group, attempt, part->why);
    }
    return attempt;
}

/* What may be the company's fault, and not that of each. */
static const char *why_alone(const struct outcome *outcome)
{
    return outcome->kind == REJECTED || outcome->kind == INVALID ? "rejected"
           : outcome->kind == REFUSED                            ? "refused"
           : strcmp(outcome->code, "too_large") == 0             ? "too_large"
                                                                 : NULL;
}

static bool is_present(const struct combine_seat *seat)
{
    return seat->attempt != NULL;
}

/* Bytes of its own request. */
static size_t sent_alone(const struct attempt *attempt)
{
    size_t bytes;
    (void)attempt_body(attempt, &bytes);
    return bytes;
}

static void list_asks(const struct group *group, struct reply_ask *asks)
{
    for (size_t i = 0; i < group->length; i++) {
        const struct combine_seat *seat = group->seats[i];
        asks[i] = (struct reply_ask){
            .inputs = seat->part.inputs,
            .question = seat->part.question,
            .request_bytes = is_present(seat) ? sent_alone(seat->attempt) : 0,
            .is_present = is_present(seat),
        };
    }
}

/* What was answered is taken apart; of what was cut off the cost is shared. An error costs nothing.
 */
static void share_reply(const struct group *group, struct attempt *teller,
                        const struct provider_reply *reply, struct reply_part *parts)
{
    struct reply_ask asks[CONFIG_COMBINE_JOBS_MAX];
    struct token_counts total;
    const struct reply_call call = {.are_questions = are_questions(group),
                                    .price = &teller->price,
                                    .operation = teller->operation,
                                    .request_bytes = group->sent_bytes,
                                    .body = &reply->body,
                                    .answer = reply->answer};
    list_asks(group, asks);
    if (reply->outcome.kind == ANSWERED) {
        reply_split(&call, asks, group->length, parts, &total);
    } else if (call_report_is_cut(&teller->shared.report)) {
        reply_share_cut(&call, asks, group->length, parts, &total);
    } else {
        return;
    }
    call_report_charge(&teller->shared.report, &teller->price, &total);
}

/* What the provider failed of for another reason says nothing. */
static void learn(const struct group *group, size_t answered, const struct reply_part *parts)
{
    const struct attempt *attempt = first_present(group);
    if (answered > 0 || parts[0].why != NULL) {
        caution_learn(
            &group->groups->caution,
            caution_upstream(are_questions(group), attempt->provider_name, attempt->model),
            answered > 0, clock_monotonic_ms());
    }
}

/* What the answered would have sent alone, against what was sent for all, as estimated alike. */
static void count_end(const struct group *group, const struct reply_part *parts, bool is_answered)
{
    size_t answered = 0;
    size_t lone_bytes = 0;
    for (size_t i = 0; i < group->length; i++) {
        const struct combine_seat *seat = group->seats[i];
        if (is_present(seat) && is_answered && parts[i].why == NULL) {
            answered++;
            lone_bytes += sent_alone(seat->attempt);
        }
    }
    telemetry_combined(group->groups->services->telemetry, kind_of(group), group->length, answered);
    learn(group, answered, parts);
    if (are_questions(group)) {
        telemetry_combine_tokens(group->groups->services->telemetry,
                                 account_estimate_tokens(lone_bytes),
                                 account_estimate_tokens(group->sent_bytes));
    }
}

static void conclude(struct group *group, struct provider_reply *reply, struct reply_part *parts)
{
    struct attempt *resumed[CONFIG_COMBINE_JOBS_MAX];
    size_t length = 0;
    count_end(group, parts, reply->outcome.kind == ANSWERED);
    for (size_t i = 0; i < group->length; i++) {
        struct attempt *attempt = settle(group, group->seats[i], reply, &parts[i]);
        if (attempt != NULL) {
            resumed[length++] = attempt;
        }
        bytes_finish(&parts[i].body);
    }
    group_destroy(&group);
    for (size_t i = 0; i < length; i++) {
        resume(resumed[i]);
    }
}

/* A result has room for so much; whoever asks alone is told so. */
static void refuse_large(const struct group *group, struct reply_part *parts)
{
    const size_t bytes_max = provider_answer_bytes_max(group->provider);
    for (size_t i = 0; i < group->length; i++) {
        if (parts[i].body.length > bytes_max) {
            bytes_finish(&parts[i].body);
            parts[i].why = "too_large";
        }
    }
}

static void replied(void *context, struct provider_reply *reply)
{
    struct group *group = context;
    struct attempt *teller = first_present(group);
    struct reply_part parts[CONFIG_COMBINE_JOBS_MAX] = {0};
    const char *why = why_alone(&reply->outcome);
    group->call = NULL; /* ends with this event */
    group->state = GROUP_ENDS;
    call_report_reply(&teller->shared.report, reply);
    teller->shared.report.is_made = true;
    for (size_t i = 0; i < group->length; i++) {
        parts[i].why = why;
    }
    share_reply(group, teller, reply, parts);
    refuse_large(group, parts);
    telemetry_call(group->groups->services->telemetry, teller, teller->provider_name, teller->model,
                   &teller->shared.report);
    conclude(group, reply, parts);
}

/* ---- its call ---- */

static int write_request(struct group *group, const struct attempt *first, struct bytes *out)
{
    size_t bytes;
    const void *body = attempt_body(first, &bytes);
    struct inputs inputs[CONFIG_COMBINE_JOBS_MAX];
    struct question questions[CONFIG_COMBINE_JOBS_MAX];
    for (size_t i = 0; i < group->length; i++) {
        inputs[i] = group->seats[i]->part.inputs;
        questions[i] = group->seats[i]->part.question;
    }
    if (!are_questions(group)) {
        return inputs_write(body, bytes, inputs, group->length, out);
    }
    int r = pack_mark(questions, group->length);
    for (size_t i = 0; r == 0 && i < group->length; i++) {
        group->seats[i]->part.question = questions[i];
    }
    return r < 0 ? r : pack_write(body, bytes, questions, group->length, out);
}

/* Whoever may wait longest decides: each attempt watches its own deadline. */
static int64_t latest_deadline_ms(const struct group *group)
{
    int64_t latest_ms = 0;
    for (size_t i = 0; i < group->length; i++) {
        const int64_t deadline_ms = group->seats[i]->attempt->deadline_ms;
        latest_ms = deadline_ms > latest_ms ? deadline_ms : latest_ms;
    }
    return latest_ms;
}

/*
 * Where questions name no bound, and the provider wants one: what each would have alone, and its
 * marks, but no more than bounds that are named may add up to: a model has one of its own.
 */
static uint32_t default_bound(const struct group *group, uint32_t alone)
{
    const uint64_t sum = group->length * ((uint64_t)alone + PACK_TOKENS_A_QUESTION);
    if (!are_questions(group) || alone >= PACK_TOKENS_MAX) {
        return alone;
    }
    return sum < PACK_TOKENS_MAX ? (uint32_t)sum : PACK_TOKENS_MAX;
}

static int group_call(struct group *group, const struct attempt *first)
{
    static const struct provider_handler handler = {.on_done = replied};
    struct bytes body = {.bytes_max = (size_t)4 * GROUP_BYTES_MAX};
    struct outcome outcome;
    char key[CALL_KEY_BYTES];
    int r = write_request(group, first, &body);
    if (r == 0) {
        call_write_key(&first->job_id, first->provider_name, first->model,
                       XXH3_64bits(body.data, body.length), key); /* another body, another call */
        const struct provider_request request = {
            .operation = first->operation,
            .model = first->provider_model,
            .body = body.data,
            .body_bytes = body.length,
            .prefix_key = call_prefix_key(group->groups->services, first, first->provider_name),
            .answers = group->length,
            .max_tokens_default = default_bound(group, first->max_tokens_default),
            .idempotency_key = key,
            .deadline_ms = latest_deadline_ms(group),
        };
        group->sent_bytes = body.length;
        r = provider_start(group->provider, &request, &handler, group, &group->call, &outcome);
    }
    bytes_finish(&body);
    return r;
}

/* Nobody has left: seats of a group that gathers are given up when they are left. */
static void send_group(struct group *group)
{
    if (group->state != GROUP_GATHERS) {
        return;
    }
    const struct attempt *first = first_present(group);
    group->provider = call_find_provider(group->groups->services, first->provider_name);
    if (group->length < 2 || group->provider == NULL ||
        broker_link_upstream_open_ms(first->broker, first->provider_name, first->model,
                                     clock_monotonic_ms()) > 0) {
        group_close(group);
        dissolve(&group);
        return;
    }
    if (provider_is_full(group->provider)) {
        provider_wait(group->provider, &group->wait);
        return;
    }
    group_close(group);
    group->state = GROUP_CALLS;
    if (group_call(group, first) < 0) {
        dissolve(&group);
    }
}

static void due(void *context)
{
    struct group *group = context;
    if (group->wait.link.next == NULL) {
        send_group(group);
    }
}

static void room_found(void *context)
{
    send_group(context);
}

/* ---- its beginning ---- */

int group_create(struct groups *groups, const char *key, size_t jobs_max, struct group **ret_group)
{
    CLEANUP(group_destroy) struct group *group = calloc(1, sizeof(*group));
    if (group == NULL) {
        return -ENOMEM;
    }
    group->groups = groups;
    group->jobs_max = jobs_max;
    group->due_ms = INT64_MAX;
    group->wait = (struct provider_wait){.on_turn = room_found, .context = group};
    group->key = strdup(key);
    if (group->key == NULL ||
        loop_timer_create(groups->services->loop, due, group, &group->timer) < 0) {
        return -ENOMEM;
    }
    list_append(&groups->open, &group->link);
    group->is_open = true;
    *ret_group = TAKE(group);
    return 0;
}

static size_t bytes_of(const struct part *part)
{
    return part->is_question ? part->question.text_bytes : part->inputs.text.bytes;
}

static uint64_t tokens_of(const struct part *part)
{
    return part->is_question ? part->question.tokens_max + (uint64_t)PACK_TOKENS_A_QUESTION
                             : part->inputs.weight;
}

static bool has_room(const struct group *group, const struct part *part)
{
    const size_t bytes_max = part->is_question ? GROUP_QUESTION_BYTES_MAX : GROUP_BYTES_MAX;
    const uint64_t tokens_max = part->is_question ? PACK_TOKENS_MAX : GROUP_TOKENS_MAX;
    return group->length == 0 ||
           (group->length < group->jobs_max && group->inputs + part->inputs.length <= INPUTS_MAX &&
            group->bytes + bytes_of(part) <= bytes_max &&
            group->tokens + tokens_of(part) <= tokens_max);
}

static void send_soon(struct group *group)
{
    group_close(group);
    group->due_ms = 0;
    loop_timer_set(group->timer, 0);
}

struct group *group_find(struct groups *groups, const char *key, const struct part *part)
{
    list_for_each (&groups->open, at) {
        struct group *group = CONTAINER_OF(at, struct group, link);
        if (strcmp(group->key, key) == 0) {
            if (has_room(group, part)) {
                return group;
            }
            send_soon(group);
            return NULL;
        }
    }
    return NULL;
}

int group_join(struct group *group, struct attempt *attempt, struct part *part, int64_t due_ms)
{
    struct combine_seat *seat = calloc(1, sizeof(*seat));
    if (seat == NULL) {
        return -ENOMEM;
    }
    *seat = (struct combine_seat){.group = group, .attempt = attempt, .part = *part};
    *part = (struct part){.root = NULL};
    attempt->seat = seat;
    group->seats[group->length++] = seat;
    group->present++;
    group->inputs += seat->part.inputs.length;
    group->bytes += bytes_of(&seat->part);
    group->tokens += tokens_of(&seat->part);
    if (due_ms < group->due_ms) {
        group->due_ms = due_ms;
        loop_timer_set(group->timer, due_ms);
    }
    if (group->length >= group->jobs_max || group->inputs >= INPUTS_MAX) {
        send_soon(group);
    }
    return 0;
}

/* ---- who leaves ---- */

static void remove_seat(struct group *group, struct combine_seat *seat)
{
    size_t at = 0;
    while (group->seats[at] != seat) {
        at++;
    }
    group->length--;
    memmove(&group->seats[at], &group->seats[at + 1], (group->length - at) * sizeof(*group->seats));
    group->inputs -= seat->part.inputs.length;
    group->bytes -= bytes_of(&seat->part);
    group->tokens -= tokens_of(&seat->part);
    seat_destroy(&seat);
}

/* A call that was begun may have used the provider's limits, and money: it is reported. */
static void end_call(struct group *group, struct attempt *attempt, Wire__AttemptOutcome outcome,
                     const char *code)
{
    struct call_report *report = &attempt->shared.report;
    *report = (struct call_report){.is_made = true,
                                   .outcome = outcome,
                                   .code = code,
                                   .call_ms = provider_call_ms(group->call)};
    attempt->call_ms = report->call_ms;
    attempt->shared.jobs = (uint32_t)group->length;
    account_estimate_cut(group->sent_bytes, 0, &attempt->shared.tokens);
    call_report_charge(report, &attempt->price, &attempt->shared.tokens);
    attempt->shared.cost_nanousd = report->cost_nanousd;
    pay_in_vain(group, attempt);
    provider_cancel(&group->call);
    telemetry_call(group->groups->services->telemetry, attempt, attempt->provider_name,
                   attempt->model, report);
}

bool group_has_called(const struct combine_seat *seat)
{
    return seat->group->state != GROUP_GATHERS;
}

void group_leave(struct attempt *attempt, Wire__AttemptOutcome outcome, const char *code)
{
    struct combine_seat *seat = attempt->seat;
    struct group *group = seat->group;
    (void)seat_vacate(seat);
    if (group->state == GROUP_GATHERS) {
        remove_seat(group, seat);
    }
    if (group->present > 0 || group->state == GROUP_ENDS) {
        return; /* who ends it goes through those who are left */
    }
    if (group->state == GROUP_CALLS) {
        end_call(group, attempt, outcome, code);
    }
    group_destroy(&group);
}
