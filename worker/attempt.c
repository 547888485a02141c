#include "worker/attempt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/cache/near_aside.h"
#include "worker/pipeline.h"
#include "worker/provider/hedge.h"

enum {
    NAME_BYTES_MAX = 255,
    HEDGE_AFTER_MS_MAX = 24 * 3600 * 1000,
    TRACE_PARENT_BYTES = 24,
    TRACE_ID_BYTES = 16
};

void hex_write(const uint8_t *data, size_t bytes, char *ret_text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes; i++) {
        ret_text[2 * i] = digits[data[i] >> 4];
        ret_text[2 * i + 1] = digits[data[i] & 15];
    }
    ret_text[2 * bytes] = '\0';
}

static bool is_name(const char *name)
{
    return name[0] != '\0' && strnlen(name, NAME_BYTES_MAX + 1) <= NAME_BYTES_MAX;
}

/* Empty: none. */
static bool is_label(const char *label)
{
    return label[0] == '\0' || is_name(label);
}

static bool is_well_formed(const Wire__Dispatch *dispatch)
{
    const Wire__Upstream *upstream = dispatch->upstream;
    return dispatch->attempt > 0 && is_name(dispatch->tenant) && is_name(dispatch->route) &&
           is_name(dispatch->tier) &&
           strnlen(dispatch->pool, NAME_BYTES_MAX + 1) <= NAME_BYTES_MAX &&
           (upstream == NULL || (is_name(upstream->provider) && is_name(upstream->model))) &&
           is_label(dispatch->tenant_residency) &&
           (dispatch->needs == NULL || is_label(dispatch->needs->residency)) &&
           (dispatch->canonical_key.len == 0 || dispatch->canonical_key.len == ATTEMPT_KEY_BYTES) &&
           (dispatch->trace_parent.len == 0 || dispatch->trace_parent.len == TRACE_PARENT_BYTES);
}

static int copy_names(struct attempt *attempt, const Wire__Dispatch *dispatch)
{
    attempt->tenant = strdup(dispatch->tenant);
    attempt->route = strdup(dispatch->route);
    attempt->tier = strdup(dispatch->tier);
    attempt->pool = strdup(dispatch->pool);
    attempt->residency = strdup(dispatch->needs == NULL ? "" : dispatch->needs->residency);
    attempt->tenant_residency = strdup(dispatch->tenant_residency);
    if (dispatch->upstream != NULL) {
        attempt->upstream_provider = strdup(dispatch->upstream->provider);
        attempt->upstream_model = strdup(dispatch->upstream->model);
        if (attempt->upstream_provider == NULL || attempt->upstream_model == NULL) {
            return -ENOMEM;
        }
    }
    if (dispatch->route_reason[0] != '\0') {
        attempt->router_reason = strdup(dispatch->route_reason); /* without memory it is not told */
    }
    const bool is_whole = attempt->tenant != NULL && attempt->route != NULL &&
                          attempt->tier != NULL && attempt->pool != NULL &&
                          attempt->residency != NULL && attempt->tenant_residency != NULL;
    return is_whole ? 0 : -ENOMEM;
}

/* From a random beginning, so that a worker that starts anew gives none twice. */
static uint64_t next_run(void)
{
    static uint64_t last;
    if (last == 0 && getrandom(&last, sizeof(last), GRND_NONBLOCK) != (ssize_t)sizeof(last)) {
        last = (uint64_t)clock_unix_ms() << 20;
    }
    last += last == UINT64_MAX ? 2 : 1; /* 0 says nothing */
    return last;
}

static void copy_fields(struct attempt *attempt, const Wire__Dispatch *dispatch, int64_t now_ms)
{
    attempt->number = dispatch->attempt;
    attempt->run = next_run();
    attempt->wants_stream = dispatch->stream;
    attempt->chunk_bytes_max = dispatch->stream_bytes;
    attempt->is_probe = dispatch->is_probe;
    attempt->is_last_choice = dispatch->is_last_choice;
    attempt->is_last_attempt = dispatch->is_last_attempt;
    attempt->is_budgeted = dispatch->is_budgeted;
    attempt->hedge_after_ms =
        dispatch->hedge_after_ms < HEDGE_AFTER_MS_MAX ? (int64_t)dispatch->hedge_after_ms : 0;
    attempt->is_of_worker = dispatch->is_of_worker;
    attempt->quality_lost = dispatch->quality_lost;
    attempt->has_needs = dispatch->needs != NULL;
    if (attempt->has_needs) {
        attempt->complexity = dispatch->needs->complexity;
        attempt->abilities = dispatch->needs->abilities;
        attempt->input_tokens = dispatch->needs->input_tokens;
    }
    attempt->started_ms = now_ms;
    attempt->queue_ms =
        dispatch->queue_ms < INT64_MAX / 4 ? (int64_t)dispatch->queue_ms : INT64_MAX / 4;
    attempt->deadline_ms = dispatch->deadline_in_ms == 0 || dispatch->deadline_in_ms > INT64_MAX / 2
                               ? INT64_MAX
                               : now_ms + (int64_t)dispatch->deadline_in_ms;
    if (dispatch->canonical_key.len == ATTEMPT_KEY_BYTES) {
        attempt->has_client_key = true;
        memcpy(attempt->client_key, dispatch->canonical_key.data, ATTEMPT_KEY_BYTES);
    }
    if (dispatch->trace_parent.len == TRACE_PARENT_BYTES) {
        hex_write(dispatch->trace_parent.data, TRACE_ID_BYTES, attempt->trace_id);
    }
}

static void timer_due(void *context)
{
    const struct stage_event event = {.kind = STAGE_EVENT_TIMER};
    pipeline_resume(context, &event);
}

int attempt_create(struct loop *loop, const Wire__Dispatch *dispatch, struct blob *payload,
                   int64_t now_ms, struct attempt **ret_attempt)
{
    struct id job_id;
    if (id_from_bytes(dispatch->job_id.data, dispatch->job_id.len, &job_id) < 0 ||
        !is_well_formed(dispatch)) {
        return -EBADMSG;
    }
    CLEANUP(attempt_destroy) struct attempt *attempt = calloc(1, sizeof(*attempt));
    if (attempt == NULL) {
        return -ENOMEM;
    }
    attempt->job_id = job_id;
    copy_fields(attempt, dispatch, now_ms);
    int r = copy_names(attempt, dispatch);
    r = r < 0 ? r : loop_timer_create(loop, timer_due, attempt, &attempt->timer);
    if (r < 0) {
        return r;
    }
    attempt->payload = blob_ref(payload);
    *ret_attempt = TAKE(attempt);
    return 0;
}

void attempt_destroy(struct attempt **attempt)
{
    struct attempt *old = TAKE(*attempt);
    if (old == NULL) {
        return;
    }
    loop_timer_destroy(&old->timer);
    loop_timer_destroy(&old->ask_timer);
    near_aside_destroy(&old->aside);
    hedge_destroy(&old->hedge);
    blob_unref(&old->payload);
    if (old->request != NULL) {
        wire__model_request__free_unpacked(old->request, NULL);
    }
    json_decref(old->asked);
    json_decref(old->answer);
    bytes_finish(&old->chunks);
    bytes_finish(&old->body);
    bytes_finish(&old->optimised_body);
    free(old->near_text);
    free(old->vector);
    free(old->cached_model);
    free(old->model);
    free(old->provider_model);
    free(old->provider_name);
    free(old->upstream_provider);
    free(old->upstream_model);
    free(old->tenant);
    free(old->route);
    free(old->tier);
    free(old->pool);
    free(old->residency);
    free(old->tenant_residency);
    free(old->router_reason);
    free(old);
}

size_t attempt_labels(const struct attempt *attempt, char *ret_labels[ATTEMPT_LABELS_MAX])
{
    size_t length = 0;
    if (attempt->tenant_residency[0] != '\0') {
        ret_labels[length++] = attempt->tenant_residency;
    }
    if (attempt->residency[0] != '\0' &&
        strcmp(attempt->residency, attempt->tenant_residency) != 0) {
        ret_labels[length++] = attempt->residency;
    }
    return length;
}

bool attempt_may_go_to(const struct attempt *attempt, char *const *labels, size_t length)
{
    char *needed[ATTEMPT_LABELS_MAX];
    const size_t needed_length = attempt_labels(attempt, needed);
    size_t found = 0;
    for (size_t i = 0; i < needed_length; i++) {
        size_t at = 0;
        while (at < length && strcmp(labels[at], needed[i]) != 0) {
            at++;
        }
        found += at < length;
    }
    return found == needed_length;
}

static char *text_or_empty(char *text)
{
    return text == NULL ? (char *)"" : text;
}

const void *attempt_body(const struct attempt *attempt, size_t *ret_bytes)
{
    const bool is_changed = attempt->optimised.is_changed;
    *ret_bytes = is_changed ? attempt->optimised_body.length : attempt->request->body.len;
    return is_changed ? (const void *)attempt->optimised_body.data : attempt->request->body.data;
}

void attempt_usage(const struct attempt *attempt, Wire__Usage *ret_usage)
{
    const bool is_cached = attempt->cache_status >= WIRE__CACHE_STATUS__CACHE_HIT;
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.input_tokens = attempt->tokens.input;
    usage.output_tokens = attempt->tokens.output;
    usage.cached_input_tokens = attempt->tokens.cached_input;
    usage.reasoning_tokens = attempt->tokens.reasoning;
    usage.cost_nanousd = attempt->cost_nanousd;
    usage.saved_nanousd = attempt->saved_nanousd;
    usage.hedge_cost_nanousd = attempt->hedge_cost_nanousd;
    usage.cache = attempt->cache_status;
    usage.provider = is_cached ? (char *)"" : text_or_empty(attempt->provider_name);
    usage.model = text_or_empty(is_cached ? attempt->cached_model : attempt->model);
    usage.call_ms = (uint32_t)attempt->call_ms;
    usage.first_token_ms = (uint32_t)attempt->first_token_ms;
    usage.quality_lost = attempt->quality_lost;
    usage.cache_write_tokens = attempt->tokens.cache_write;
    usage.cache_write_long_tokens = attempt->tokens.cache_write_long;
    usage.is_estimated = attempt->tokens.is_estimated;
    usage.service = attempt->tokens.service;
    usage.saved_ms = attempt->saved_ms;
    usage.saved_prompt_cache_nanousd = attempt->saved_prompt_cache_nanousd;
    usage.saved_routing_nanousd = attempt->saved_routing_nanousd;
    usage.cut_history_tokens = attempt->cut.history_tokens;
    usage.cut_passages_tokens = attempt->cut.passages_tokens;
    if ((attempt->report.is_made || attempt->shared.is_answered) && !is_cached) {
        const uint64_t *saved = attempt->optimised.saved_tokens;
        usage.saved_history_tokens = saved[LEVER_HISTORY];
        usage.saved_passages_tokens = saved[LEVER_PASSAGES];
        usage.saved_space_tokens = saved[LEVER_SPACE];
        usage.saved_repeats_tokens = saved[LEVER_REPEATS];
        usage.saved_optimising_nanousd = attempt->saved_optimising_nanousd;
    }
    usage.saved_batching_nanousd = attempt->shared.saved_nanousd;
    usage.combined = attempt->shared.is_answered ? attempt->shared.jobs : 0;
    *ret_usage = usage;
}

bool call_report_is_cut(const struct call_report *report)
{
    static const char *const ours[] = {"cancelled", "deadline", "overtaken", "timeout"};
    if (!report->is_made || report->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(ours); i++) {
        if (strcmp(report->code, ours[i]) == 0) {
            return true;
        }
    }
    return report->pieces > 0;
}

void call_report_charge(struct call_report *report, const struct price *price,
                        const struct token_counts *tokens)
{
    report->tokens = tokens->counted;
    report->cost_nanousd = account_cost_nanousd(price, tokens);
    report->is_estimated = tokens->is_estimated;
    report->input_tokens = tokens->is_estimated ? tokens->input : 0;
    report->output_tokens = tokens->is_estimated ? tokens->output : 0;
}

void call_report_write(const struct call_report *report, Wire__Call *ret_call)
{
    Wire__Call call = WIRE__CALL__INIT;
    call.outcome = report->outcome;
    call.error_code = (char *)report->code;
    call.http_status = report->http_status;
    call.call_ms = (uint32_t)report->call_ms;
    call.retry_after_ms = (uint64_t)report->retry_after_ms;
    call.tokens = report->tokens;
    call.cost_nanousd = report->cost_nanousd;
    call.is_estimated = report->is_estimated;
    call.input_tokens = report->input_tokens;
    call.output_tokens = report->output_tokens;
    call.first_token_ms = (uint32_t)report->first_token_ms;
    *ret_call = call;
}

int attempt_pack_response(const struct attempt *attempt, struct blob **ret_payload)
{
    Wire__ModelResponse response = WIRE__MODEL_RESPONSE__INIT;
    Wire__Usage usage;
    attempt_usage(attempt, &usage);
    response.body.data = (uint8_t *)attempt->body.data;
    response.body.len = attempt->body.length;
    response.usage = &usage;
    response.http_status = (uint32_t)attempt->http_status;
    response.near_key = (char *)attempt->near_key;
    if (attempt->near_key[0] != '\0') {
        response.near_score = attempt->near_score;
        response.near_threshold = attempt->near_threshold;
        response.embedder = (char *)attempt->embedder;
    }
    response.age_ms = attempt->cache_age_ms > 0 ? (uint64_t)attempt->cache_age_ms : 0;
    if (attempt->cache_why != NULL) {
        response.cache_why = (char *)attempt->cache_why;
    }
    response.router_reason = text_or_empty(attempt->router_reason);
    response.hedged = attempt->hedge != NULL && attempt->cached_model == NULL;
    const size_t bytes = wire__model_response__get_packed_size(&response);
    uint8_t *packed = malloc(bytes);
    if (packed == NULL) {
        return -ENOMEM;
    }
    (void)wire__model_response__pack(&response, packed);
    int r = blob_wrap(packed, bytes, free, packed, ret_payload);
    if (r < 0) {
        free(packed);
    }
    return r;
}
