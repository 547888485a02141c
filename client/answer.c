#include "client/answer.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json_read.h"

struct tiermq_answer answer_local(enum tiermq_state state, const char *error_code,
                                  const char *error_text)
{
    return (struct tiermq_answer){
        .state = state,
        .error_code = error_code,
        .error_text = error_text,
        .text = "",
        .model = "",
        .provider = "",
        .worker = "",
        .router_reason = "",
        .cache_why = "",
        .near_key = "",
        .embedder = "",
    };
}

enum tiermq_state answer_state(Wire__JobState state)
{
    switch (state) {
    case WIRE__JOB_STATE__JOB_STATE_SUCCEEDED:
        return TIERMQ_SUCCEEDED;
    case WIRE__JOB_STATE__JOB_STATE_DEAD:
        return TIERMQ_DEAD;
    case WIRE__JOB_STATE__JOB_STATE_CANCELLED:
        return TIERMQ_CANCELLED;
    case WIRE__JOB_STATE__JOB_STATE_EXPIRED:
        return TIERMQ_EXPIRED;
    case WIRE__JOB_STATE__JOB_STATE_COLLECTED:
        return TIERMQ_COLLECTED;
    case WIRE__JOB_STATE__JOB_STATE_UNKNOWN:
        return TIERMQ_UNKNOWN;
    case WIRE__JOB_STATE__JOB_STATE_QUEUED:
    case WIRE__JOB_STATE__JOB_STATE_BACKING_OFF:
    case WIRE__JOB_STATE__JOB_STATE_LOADING:
    case WIRE__JOB_STATE__JOB_STATE_LEASED:
    case WIRE__JOB_STATE__JOB_STATE_FOLLOWING:
    case WIRE__JOB_STATE__JOB_STATE_PARKED:
    case _WIRE__JOB_STATE_IS_INT_SIZE:
        break;
    }
    return TIERMQ_PENDING; /* also a state of a later protocol: not concluded as far as we can tell
                            */
}

const char *answer_state_name(Wire__JobState state)
{
    static const char *const names[] = {"unknown", "queued",    "backing_off", "loading",
                                        "leased",  "following", "parked",      "succeeded",
                                        "dead",    "cancelled", "expired",     "collected"};
    return (size_t)state < ARRAY_LENGTH(names) ? names[state] : "unknown";
}

const char *answer_reject_name(Wire__RejectReason reason)
{
    static const char *const names[] = {
        "rejected",     "invalid",   "unknown_tier", "unknown_tenant", "unknown_route",
        "unknown_pool", "too_large", "queue_full",   "deadline",       "draining",
        "storage",      "too_old",   "conflict",     "paused",    "budget"};
    return (size_t)reason < ARRAY_LENGTH(names) ? names[reason] : "rejected";
}

/* `content` is a text, or a list of parts of which some are texts. */
static char *join_content(const json_t *content)
{
    if (json_is_string(content)) {
        return strdup(json_string_value(content));
    }
    if (!json_is_array(content)) {
        return NULL;
    }
    size_t bytes = 1;
    size_t i = 0;
    const json_t *part = NULL;
    json_array_foreach (content, i, part) {
        bytes += json_string_length(json_object_get(part, "text"));
    }
    char *text = malloc(bytes);
    if (text == NULL) {
        return NULL;
    }
    char *at = text;
    json_array_foreach (content, i, part) {
        const json_t *piece = json_object_get(part, "text");
        const size_t length = json_string_length(piece);
        if (length > 0) {
            memcpy(at, json_string_value(piece), length);
            at += length;
        }
    }
    *at = '\0';
    return text;
}

/* The texts of a response's messages, one behind the other; NULL: none. */
static char *join_output(const json_t *output)
{
    json_t *parts = json_array();
    size_t i;
    json_t *item;
    json_array_foreach (output, i, item) {
        const char *type = json_string_value(json_object_get(item, "type"));
        if (type != NULL && strcmp(type, "message") == 0) {
            (void)json_array_extend(parts, json_object_get(item, "content"));
        }
    }
    char *text = json_array_size(parts) == 0 ? NULL : join_content(parts);
    json_decref(parts);
    return text;
}

char *answer_text(const void *body, size_t bytes)
{
    json_t *root = json_read(body, bytes, JSON_ALLOW_NUL, NULL);
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const json_t *content = json_object_get(json_object_get(choice, "message"), "content");
    if (content == NULL) {
        content = json_object_get(choice, "text");
    }
    const json_t *output = json_object_get(root, "output");
    char *text = json_is_array(output) ? join_output(output) : join_content(content);
    json_decref(root);
    return text;
}

/* What an event of a response adds. */
static const json_t *response_delta(const json_t *event)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    return type != NULL && strcmp(type, "response.output_text.delta") == 0
               ? json_object_get(event, "delta")
               : NULL;
}

static void add_event_text(const char *event, size_t bytes, FILE *out)
{
    json_t *root = json_read(event, bytes, JSON_ALLOW_NUL, NULL);
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const json_t *text = json_object_get(json_object_get(choice, "delta"), "content");
    if (!json_is_string(text)) {
        text = choice == NULL ? response_delta(root) : json_object_get(choice, "text");
    }
    if (json_is_string(text)) {
        fwrite(json_string_value(text), 1, json_string_length(text), out);
    }
    json_decref(root);
}

/* Events are lines here: nobody breaks the JSON of a chunk over several data lines. */
int tiermq_chunk_text(const void *data, size_t bytes, char **ret_text)
{
    static const char field[] = "data:";
    const size_t field_bytes = sizeof(field) - 1;
    char *text = NULL;
    size_t text_bytes = 0;
    FILE *out = open_memstream(&text, &text_bytes);
    if (out == NULL) {
        return -ENOMEM;
    }
    const char *at = data;
    const char *end = at + bytes;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        line_end = line_end == NULL ? end : line_end;
        const size_t line_bytes = (size_t)(line_end - at);
        if (line_bytes > field_bytes && memcmp(at, field, field_bytes) == 0) {
            add_event_text(at + field_bytes, line_bytes - field_bytes, out);
        }
        at = line_end + (line_end < end);
    }
    if (fclose(out) != 0) {
        free(text);
        return -ENOMEM;
    }
    *ret_text = text;
    return 0;
}

static enum tiermq_cache cache_status(Wire__CacheStatus status)
{
    const bool is_known =
        status >= WIRE__CACHE_STATUS__CACHE_NONE && status <= WIRE__CACHE_STATUS__CACHE_STALE_HIT;
    return is_known ? (enum tiermq_cache)status : TIERMQ_CACHE_NONE;
}

static void read_usage(const Wire__Usage *usage, struct tiermq_answer *ret_answer)
{
    ret_answer->model = usage->model;
    ret_answer->provider = usage->provider;
    ret_answer->input_tokens = usage->input_tokens;
    ret_answer->output_tokens = usage->output_tokens;
    ret_answer->cost_nanousd = usage->cost_nanousd;
    ret_answer->saved_nanousd = usage->saved_nanousd;
    ret_answer->cost_is_estimated = usage->is_estimated;
    ret_answer->saved_ms = usage->saved_ms <= INT64_MAX ? (int64_t)usage->saved_ms : INT64_MAX;
    ret_answer->saved_prompt_cache_nanousd = usage->saved_prompt_cache_nanousd;
    ret_answer->saved_routing_nanousd = usage->saved_routing_nanousd;
    ret_answer->quality_lost = usage->quality_lost;
    ret_answer->prompt_tokens_saved = usage->saved_history_tokens + usage->saved_passages_tokens +
                                      usage->saved_space_tokens + usage->saved_repeats_tokens;
    ret_answer->prompt_is_cut = usage->cut_history_tokens > 0 || usage->cut_passages_tokens > 0;
    ret_answer->cache = cache_status(usage->cache);
    ret_answer->first_token_ms = usage->first_token_ms;
}

static void read_response(const void *payload, size_t payload_bytes, struct answer_view *view)
{
    view->response = wire__model_response__unpack(NULL, payload_bytes, payload);
    if (view->response == NULL) {
        view->answer.error_text = "the answer of the worker cannot be decoded";
        return;
    }
    const Wire__ModelResponse *response = view->response;
    view->answer.router_reason = response->router_reason;
    view->answer.cache_age_ms =
        response->age_ms < INT64_MAX ? (int64_t)response->age_ms : INT64_MAX;
    view->answer.cache_why = response->cache_why;
    view->answer.hedged = response->hedged;
    view->answer.combined = response->usage == NULL ? 0 : response->usage->combined;
    view->answer.near_key = response->near_key;
    view->answer.embedder = response->embedder;
    view->answer.near_score = response->near_score;
    view->answer.near_threshold = response->near_threshold;
    if (response->body.len > 0) {
        view->answer.body = response->body.data;
        view->answer.body_bytes = response->body.len;
        view->text = answer_text(response->body.data, response->body.len);
    }
    if (view->text != NULL) {
        view->answer.text = view->text;
    }
}

void answer_read(const Wire__Result *result, const void *payload, size_t payload_bytes,
                 struct answer_view *ret_view)
{
    *ret_view = (struct answer_view){
        .answer = answer_local(answer_state(result->state), result->error_code, result->error_text),
    };
    struct tiermq_answer *answer = &ret_view->answer;
    answer->worker = result->worker;
    answer->attempts = result->attempts;
    answer->queue_ms = (int64_t)result->queue_ms;
    answer->run_ms = (int64_t)result->run_ms;
    answer->complexity = result->complexity;
    answer->abilities = result->abilities;
    answer->retry_after_ms =
        result->retry_after_ms < INT64_MAX ? (int64_t)result->retry_after_ms : INT64_MAX;
    if (result->led_by.len == sizeof(answer->led_by.bytes)) {
        memcpy(answer->led_by.bytes, result->led_by.data, sizeof(answer->led_by.bytes));
    }
    if (payload != NULL) {
        read_response(payload, payload_bytes, ret_view);
    }
    /* The broker's account of the job covers all that it cost; the worker's only its own attempt.
     */
    if (result->usage != NULL) {
        read_usage(result->usage, answer);
    } else if (ret_view->response != NULL && ret_view->response->usage != NULL) {
        read_usage(ret_view->response->usage, answer);
    }
}

void answer_view_finish(struct answer_view *view)
{
    if (view->response != NULL) {
        wire__model_response__free_unpacked(view->response, NULL);
        view->response = NULL;
    }
    free(view->text);
    view->text = NULL;
}

static const char *keep(char **at, const void *data, size_t bytes)
{
    char *kept = *at;
    if (bytes > 0) {
        memcpy(kept, data, bytes);
    }
    kept[bytes] = '\0';
    *at += bytes + 1;
    return kept;
}

int answer_copy(const struct tiermq_answer *answer, struct tiermq_answer **ret_answer)
{
    const char *strings[] = {answer->error_code,    answer->error_text, answer->text,
                             answer->model,         answer->provider,   answer->worker,
                             answer->router_reason, answer->cache_why,  answer->near_key,
                             answer->embedder};
    size_t bytes = sizeof(*answer) + answer->body_bytes + 1;
    for (size_t i = 0; i < ARRAY_LENGTH(strings); i++) {
        bytes += strlen(strings[i]) + 1;
    }
    struct tiermq_answer *copy = malloc(bytes);
    if (copy == NULL) {
        return -ENOMEM;
    }
    *copy = *answer;
    char *at = (char *)(copy + 1);
    const char **const kept[] = {&copy->error_code,    &copy->error_text, &copy->text,
                                 &copy->model,         &copy->provider,   &copy->worker,
                                 &copy->router_reason, &copy->cache_why,  &copy->near_key,
                                 &copy->embedder};
    for (size_t i = 0; i < ARRAY_LENGTH(strings); i++) {
        *kept[i] = keep(&at, strings[i], strlen(strings[i]));
    }
    if (answer->body != NULL) {
        copy->body = keep(&at, answer->body, answer->body_bytes);
    }
    *ret_answer = copy;
    return 0;
}

void tiermq_answer_free(struct tiermq_answer **answer)
{
    if (answer != NULL) {
        free(*answer);
        *answer = NULL;
    }
}
