#include "worker/telemetry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "worker/attempt.h"

enum family {
    ATTEMPTS,
    ATTEMPT_SECONDS,
    CALL_SECONDS,
    CALLS,
    TOKENS,
    COST,
    SAVED,
    PROMPTS,
    PROMPT_TOKENS,
    LOOKUPS,
    CHECKS,
    CHECKS_COST,
    FILLS_DROPPED,
    KEY_MISMATCHES,
    PROTOCOL_ERRORS,
    DISCONNECTED,
    ANSWERS_DROPPED,
    CHUNKS_DROPPED,
    UPSTREAM_CHANGES,
    COMBINED_CALLS,
    COMBINED_JOBS,
    COMBINE_REDONE,
    COMBINE_TOKENS,
    ANSWERED_AGAIN,
    OPERATION_SECONDS,
    TOKEN_USAGE,
    FIRST_TOKEN_SECONDS,
    NEXT_TOKEN_SECONDS,
    /* From here on set by telemetry_set_gauges(), in the order of struct telemetry_gauges. */
    SLOTS,
    IN_FLIGHT,
    BROKERS_JOINED,
    ANSWERS_KEPT,
    ANSWERS_BYTES,
    CACHE_ENTRIES,
    CACHE_BYTES,
    CACHE_MEMORY_BYTES,
    CACHE_EVICTIONS,
    CACHE_FILLS,
    CACHE_FILLS_FAILED,
    CACHE_BROKEN,
    CACHE_BUILDING,
    CACHE_SET_ASIDE,
    CACHE_DAMAGED,
    CACHE_INDEXED,
    CACHE_SEARCHES_CUT,
    CACHE_WANTED,
    EMBEDDER_DOWN,
    EMBEDDER_TEXTS,
    EMBEDDER_TEXTS_CACHED,
    EMBEDDER_REQUESTS,
    EMBEDDER_FAILURES,
    UPSTREAMS_OPEN,
    RESIDENT_BYTES,
    CPU_SECONDS,
    FAMILIES,
};

struct telemetry {
    struct metric_family *families[FAMILIES];
};

static const double duration_bounds[] = {0.01, 0.02, 0.04, 0.08,  0.16,  0.32,  0.64,
                                         1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
static const double token_bounds[] = {1,     4,     16,     64,      256,     1024,     4096,
                                      16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864};

/* Finer than the conventions have them: gaps of a stream that flows are milliseconds. */
static const double first_token_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06,  0.08,  0.1,
                                            0.25,  0.5,   0.75, 1.0,  2.5,  5.0,   7.5,   10.0,
                                            20.48, 40.96, 81.92};
static const double next_token_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                           0.2,   0.3,    0.4,   0.5,  0.75,  1.0,  2.5,   10.0};

static const char *const by_outcome[] = {"outcome", NULL};
static const char *const by_result[] = {"result", NULL};
static const char *const by_tier_result[] = {"tier", "result", NULL};
static const char *const by_tier_lever[] = {"tier", "lever", NULL};
static const char *const by_check[] = {"why", "result", NULL};
static const char *const by_why[] = {"why", NULL};
static const char *const by_kind[] = {"kind", NULL};
static const char *const by_kind_result[] = {"kind", "result", NULL};
static const char *const by_kind_why[] = {"kind", "why", NULL};
static const char *const by_link_reason[] = {"link", "reason", NULL};
static const char *const by_change[] = {"change", NULL};
static const char *const by_model[] = {"provider", "model", NULL};
static const char *const by_model_outcome[] = {"provider", "model", "outcome", NULL};
static const char *const by_upstream_state[] = {"provider", "model", "state", NULL};
static const char *const by_model_token[] = {"provider", "model", "type", NULL};
static const char *const by_gen_ai[] = {"gen_ai_operation_name", "gen_ai_provider_name",
                                        "gen_ai_request_model", "error_type", NULL};
static const char *const by_gen_ai_stream[] = {"gen_ai_operation_name", "gen_ai_provider_name",
                                               "gen_ai_request_model", NULL};
static const char *const by_gen_ai_token[] = {"gen_ai_operation_name", "gen_ai_provider_name",
                                              "gen_ai_request_model", "gen_ai_token_type", NULL};

static const struct {
    enum metric_type type;
    const char *name;
    const char *help;
    const char *const *labels;
    const double *bounds;
    size_t bounds_length;
} families[FAMILIES] = {
    [ATTEMPTS] = {METRIC_COUNTER, "tiermq_worker_attempts_total", "Attempts concluded, by outcome.",
                  by_outcome},
    [ATTEMPT_SECONDS] = {METRIC_HISTOGRAM, "tiermq_worker_attempt_seconds",
                         "From dispatch to conclusion at the worker.", by_outcome},
    [CALL_SECONDS] = {METRIC_HISTOGRAM, "tiermq_worker_provider_call_seconds",
                      "Duration of provider calls.", by_model},
    [CALLS] = {METRIC_COUNTER, "tiermq_worker_provider_calls_total",
               "Provider calls, by what their reply meant.", by_model_outcome},
    [TOKENS] = {METRIC_COUNTER, "tiermq_worker_tokens_total",
                "Tokens used: input, cached_input (part of it), output, reasoning (part of it).",
                by_model_token},
    [COST] = {METRIC_COUNTER, "tiermq_worker_cost_usd_total",
              "Cost of provider calls by the price table, in US dollars.", by_model},
    [SAVED] = {METRIC_COUNTER, "tiermq_worker_saved_usd_total",
               "What cache hits would have cost as calls, in US dollars.", NULL},
    [PROMPTS] = {METRIC_COUNTER, "tiermq_worker_prompts_total",
                 "Prompts that were looked at for what may be left out: changed, unchanged, "
                 "too_large, failed.",
                 by_tier_result},
    [PROMPT_TOKENS] = {METRIC_COUNTER, "tiermq_worker_prompt_tokens_saved_total",
                       "Input tokens left out of prompts before they were sent: history, passages, "
                       "space, repeats.",
                       by_tier_lever},
    [LOOKUPS] = {METRIC_COUNTER, "tiermq_worker_cache_lookups_total",
                 "Cache lookups: exact, near, stale, miss, bypass, timeout, busy, broken.",
                 by_result},
    [CHECKS] = {METRIC_COUNTER, "tiermq_worker_cache_checks_total",
                "What the cache does to know its near hits: jobs to refresh, audit, judge (made, "
                "dropped), and what audits and misses say "
                "(same, different, unknown).",
                by_check},
    [CHECKS_COST] =
        {METRIC_COUNTER, "tiermq_worker_cache_checks_cost_usd_total",
         "What the jobs that the cache made have cost, in US dollars: refresh, audit, judge.",
         by_why},
    [FILLS_DROPPED] = {METRIC_COUNTER, "tiermq_worker_cache_fills_dropped_total",
                       "Fills dropped because the cache's queue was full.", NULL},
    [KEY_MISMATCHES] =
        {METRIC_COUNTER, "tiermq_worker_key_mismatches_total",
         "Jobs whose canonical key, as the client named it, was not that of its request.", NULL},
    [PROTOCOL_ERRORS] = {METRIC_COUNTER, "tiermq_worker_protocol_errors_total",
                         "Malformed messages from a broker, and errors it reported.", by_kind},
    [DISCONNECTED] = {METRIC_COUNTER, "tiermq_worker_connections_ended_total",
                      "Connections to brokers that have ended, by why.", by_link_reason},
    [ANSWERS_DROPPED] = {METRIC_COUNTER, "tiermq_worker_answers_dropped_total",
                         "Answers given up because no broker concluded them in worker.answers_ttl.",
                         NULL},
    [CHUNKS_DROPPED] =
        {METRIC_COUNTER, "tiermq_worker_chunks_dropped_total",
         "Pieces of streams that the broker could not take; the whole answer still follows.", NULL},
    [UPSTREAM_CHANGES] = {METRIC_COUNTER, "tiermq_worker_upstream_changes_total",
                          "Changes of the brokers' breakers that this worker has heard of.",
                          by_upstream_state},
    [COMBINED_CALLS] = {METRIC_COUNTER, "tiermq_worker_combined_calls_total",
                        "Calls that were made for several jobs: embeddings, questions.", by_kind},
    [COMBINED_JOBS] = {METRIC_COUNTER, "tiermq_worker_combined_jobs_total",
                       "Jobs for which they were made: answered by them, or not.", by_kind_result},
    [COMBINE_REDONE] = {METRIC_COUNTER, "tiermq_worker_combine_redone_total",
                        "Jobs that were asked again alone, by what was wrong with the shared answer.",
                        by_kind_why},
    [COMBINE_TOKENS] = {METRIC_COUNTER, "tiermq_worker_combine_input_tokens_total",
                        "Estimated tokens of prompt by which packed questions differ from the same "
                        "ones alone: saved, added.",
                        by_change},
    [ANSWERED_AGAIN] = {METRIC_COUNTER, "tiermq_worker_answered_again_total",
                        "Dispatches of jobs whose answer was still kept: answered without a call.",
                        NULL},
    [OPERATION_SECONDS] =
        {METRIC_HISTOGRAM, "gen_ai_client_operation_duration_seconds",
         "Duration of provider calls (OpenTelemetry gen_ai.client.operation.duration).", by_gen_ai,
         duration_bounds, ARRAY_LENGTH(duration_bounds)},
    [TOKEN_USAGE] = {METRIC_HISTOGRAM, "gen_ai_client_token_usage",
                     "Tokens a call (OpenTelemetry gen_ai.client.token.usage).", by_gen_ai_token,
                     token_bounds, ARRAY_LENGTH(token_bounds)},
    [FIRST_TOKEN_SECONDS] = {METRIC_HISTOGRAM,
                             "gen_ai_client_operation_time_to_first_chunk_seconds",
                             "From the beginning of a streamed call to its first token "
                             "(OpenTelemetry gen_ai.client.operation.time_to_first_chunk).",
                             by_gen_ai_stream, first_token_bounds,
                             ARRAY_LENGTH(first_token_bounds)},
    [NEXT_TOKEN_SECONDS] = {METRIC_HISTOGRAM,
                            "gen_ai_client_operation_time_per_output_chunk_seconds",
                            "From one token of a stream to the next "
                            "(OpenTelemetry gen_ai.client.operation.time_per_output_chunk).",
                            by_gen_ai_stream, next_token_bounds, ARRAY_LENGTH(next_token_bounds)},
    [SLOTS] = {METRIC_GAUGE, "tiermq_worker_slots", "Jobs this worker runs at once.", NULL},
    [IN_FLIGHT] = {METRIC_GAUGE, "tiermq_worker_in_flight", "Jobs this worker runs now.", NULL},
    [BROKERS_JOINED] = {METRIC_GAUGE, "tiermq_worker_brokers_joined",
                        "Brokers that have welcomed this worker.", NULL},
    [ANSWERS_KEPT] = {METRIC_GAUGE, "tiermq_worker_answers_kept",
                      "Answers kept until their broker concludes them.", NULL},
    [ANSWERS_BYTES] = {METRIC_GAUGE, "tiermq_worker_answers_kept_bytes", "Their payload bytes.",
                       NULL},
    [CACHE_ENTRIES] = {METRIC_GAUGE, "tiermq_worker_cache_entries", "Entries in the cache.", NULL},
    [CACHE_BYTES] = {METRIC_GAUGE, "tiermq_worker_cache_bytes",
                     "Bytes of the cache's entries before compression.", NULL},
    [CACHE_MEMORY_BYTES] = {METRIC_GAUGE, "tiermq_worker_cache_memory_bytes",
                            "Memory of the vectors for near matches.", NULL},
    [CACHE_EVICTIONS] = {METRIC_COUNTER, "tiermq_worker_cache_evictions_total",
                         "Entries evicted to keep a bound.", NULL},
    [CACHE_FILLS] = {METRIC_COUNTER, "tiermq_worker_cache_fills_total",
                     "Answers written to the cache.", NULL},
    [CACHE_FILLS_FAILED] = {METRIC_COUNTER, "tiermq_worker_cache_fills_failed_total",
                            "Answers that the cache could not write.", NULL},
    [CACHE_BROKEN] = {METRIC_GAUGE, "tiermq_worker_cache_broken",
                      "1 while the cache's store cannot be opened or read.", NULL},
    [CACHE_BUILDING] = {METRIC_GAUGE, "tiermq_worker_cache_building",
                        "1 while the index of similar questions is made from the store.", NULL},
    [CACHE_SET_ASIDE] = {METRIC_COUNTER, "tiermq_worker_cache_set_aside_total",
                         "Damaged databases that were moved aside, and new ones begun.", NULL},
    [CACHE_DAMAGED] = {METRIC_COUNTER, "tiermq_worker_cache_damaged_total",
                       "Entries that were found damaged, and removed.", NULL},
    [CACHE_INDEXED] = {METRIC_GAUGE, "tiermq_worker_cache_indexed",
                       "Entries that can be found as near hits.", NULL},
    [CACHE_SEARCHES_CUT] = {METRIC_COUNTER, "tiermq_worker_cache_searches_cut_total",
                            "Searches for similar questions that left out lists to be in time.",
                            NULL},
    [CACHE_WANTED] = {METRIC_GAUGE, "tiermq_worker_cache_wanted",
                      "Entries whose vectors the embedder has been asked for in the background.",
                      NULL},
    [EMBEDDER_DOWN] = {METRIC_GAUGE, "tiermq_worker_embedder_down",
                       "1 while the embedder fails, so that there are exact hits only.", NULL},
    [EMBEDDER_TEXTS] = {METRIC_COUNTER, "tiermq_worker_embedder_texts_total",
                        "Texts whose vectors were asked for.", NULL},
    [EMBEDDER_TEXTS_CACHED] = {METRIC_COUNTER, "tiermq_worker_embedder_texts_cached_total",
                               "Of them, those whose vectors were still in memory.", NULL},
    [EMBEDDER_REQUESTS] = {METRIC_COUNTER, "tiermq_worker_embedder_requests_total",
                           "Requests to the embeddings endpoint.", NULL},
    [EMBEDDER_FAILURES] = {METRIC_COUNTER, "tiermq_worker_embedder_failures_total",
                           "Of them, those that failed.", NULL},
    [UPSTREAMS_OPEN] = {METRIC_GAUGE, "tiermq_worker_upstreams_open",
                        "Upstreams that a broker has closed to all but probes.", NULL},
    [CPU_SECONDS] = {METRIC_COUNTER, "process_cpu_seconds_total",
                     "User and system CPU time in seconds.", NULL},
    [RESIDENT_BYTES] = {METRIC_GAUGE, "process_resident_memory_bytes",
                        "Resident memory size in bytes.", NULL},
};

int telemetry_create(struct metrics *metrics, struct telemetry **ret_telemetry)
{
    struct telemetry *telemetry = calloc(1, sizeof(*telemetry));
    if (telemetry == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < FAMILIES; i++) {
        int r = metrics_register(metrics, families[i].type, families[i].name, families[i].help,
                                 families[i].labels, families[i].bounds, families[i].bounds_length,
                                 &telemetry->families[i]);
        if (r < 0) {
            free(telemetry);
            return r;
        }
    }
    *ret_telemetry = telemetry;
    return 0;
}

void telemetry_destroy(struct telemetry **telemetry)
{
    free(TAKE(*telemetry));
}

static struct metric *series(struct telemetry *telemetry, enum family family,
                             const char *const *values)
{
    return metric_series(telemetry->families[family], values);
}

static const char *outcome_name(Wire__AttemptOutcome outcome)
{
    static const char *const names[] = {
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE] = "none",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED] = "answered",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED] = "rate_limited",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE] = "unavailable",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED] = "rejected",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED] = "deferred",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED] = "expired",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED] = "cancelled",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID] = "invalid",
        [WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED] = "refused",
    };
    return (size_t)outcome < ARRAY_LENGTH(names) ? names[outcome] : "none";
}

void telemetry_attempt(struct telemetry *telemetry, const struct attempt *attempt)
{
    const char *const values[] = {outcome_name(attempt->outcome.kind)};
    const double seconds = (double)(clock_monotonic_ms() - attempt->started_ms) / 1000.0;
    metric_add(series(telemetry, ATTEMPTS, values), 1);
    metric_observe(series(telemetry, ATTEMPT_SECONDS, values), seconds);
}

void telemetry_call(struct telemetry *telemetry, const struct attempt *attempt,
                    const char *provider, const char *model, const struct call_report *report)
{
    const char *const values[] = {provider, model, outcome_name(report->outcome)};
    const char *const gen_ai[] = {operation_telemetry(attempt->operation), provider, model,
                                  report->code};
    const double seconds = (double)report->call_ms / 1000.0;
    metric_observe(series(telemetry, CALL_SECONDS, values), seconds);
    metric_add(series(telemetry, CALLS, values), 1);
    metric_observe(series(telemetry, OPERATION_SECONDS, gen_ai), seconds);
}

static void observe_stream(struct telemetry *telemetry, enum family family,
                           const struct attempt *attempt, double seconds)
{
    const char *const values[] = {operation_telemetry(attempt->operation), attempt->provider_name,
                                  attempt->model};
    metric_observe(series(telemetry, family, values), seconds);
}

void telemetry_first_token(struct telemetry *telemetry, const struct attempt *attempt,
                           double seconds)
{
    observe_stream(telemetry, FIRST_TOKEN_SECONDS, attempt, seconds);
}

void telemetry_next_token(struct telemetry *telemetry, const struct attempt *attempt,
                          double seconds)
{
    observe_stream(telemetry, NEXT_TOKEN_SECONDS, attempt, seconds);
}

static void count_tokens(struct telemetry *telemetry, const char *provider, const char *model,
                         const char *type, uint64_t count)
{
    const char *const values[] = {provider, model, type};
    if (count > 0) {
        metric_add(series(telemetry, TOKENS, values), (double)count);
    }
}

static void count_usage(struct telemetry *telemetry, const char *provider, const char *model,
                        const struct token_counts *tokens, uint64_t cost_nanousd)
{
    const char *const values[] = {provider, model};
    count_tokens(telemetry, provider, model, "input", tokens->input);
    count_tokens(telemetry, provider, model, "cached_input", tokens->cached_input);
    count_tokens(telemetry, provider, model, "output", tokens->output);
    count_tokens(telemetry, provider, model, "reasoning", tokens->reasoning);
    metric_add(series(telemetry, COST, values), (double)cost_nanousd / 1e9);
}

void telemetry_overtaken(struct telemetry *telemetry, const char *provider, const char *model,
                         const struct token_counts *tokens, uint64_t cost_nanousd)
{
    count_usage(telemetry, provider, model, tokens, cost_nanousd);
}

static void observe_tokens(struct telemetry *telemetry, const struct attempt *attempt,
                           const char *type, uint64_t count)
{
    const char *const values[] = {operation_telemetry(attempt->operation), attempt->provider_name,
                                  attempt->model, type};
    metric_observe(series(telemetry, TOKEN_USAGE, values), (double)count);
}

void telemetry_usage(struct telemetry *telemetry, const struct attempt *attempt)
{
    count_usage(telemetry, attempt->provider_name, attempt->model, &attempt->tokens,
                attempt->report.cost_nanousd);
    observe_tokens(telemetry, attempt, "input", attempt->tokens.input);
    if (attempt->operation != OPERATION_EMBEDDINGS) {
        observe_tokens(telemetry, attempt, "output", attempt->tokens.output);
    }
}

void telemetry_optimised(struct telemetry *telemetry, const struct attempt *attempt,
                         const char *result)
{
    const char *const prompt[] = {attempt->tier, result};
    metric_add(series(telemetry, PROMPTS, prompt), 1);
    for (size_t i = 0; i < LEVERS; i++) {
        const char *const values[] = {attempt->tier, lever_name((enum lever)i)};
        const uint64_t tokens = attempt->optimised.saved_tokens[i];
        if (tokens > 0) {
            metric_add(series(telemetry, PROMPT_TOKENS, values), (double)tokens);
        }
    }
}

void telemetry_combined(struct telemetry *telemetry, const char *kind, size_t jobs, size_t answered)
{
    const char *const good[] = {kind, "answered"};
    const char *const bad[] = {kind, "unanswered"};
    metric_add(series(telemetry, COMBINED_CALLS, &kind), 1);
    metric_add(series(telemetry, COMBINED_JOBS, good), (double)answered);
    metric_add(series(telemetry, COMBINED_JOBS, bad), (double)(jobs - answered));
}

void telemetry_combine_tokens(struct telemetry *telemetry, uint64_t lone, uint64_t sent)
{
    const char *change = lone > sent ? "saved" : "added";
    const uint64_t tokens = lone > sent ? lone - sent : sent - lone;
    metric_add(series(telemetry, COMBINE_TOKENS, &change), (double)tokens);
}

void telemetry_combine_redone(struct telemetry *telemetry, const char *kind, const char *why)
{
    const char *const values[] = {kind, why};
    metric_add(series(telemetry, COMBINE_REDONE, values), 1);
}

void telemetry_lost_share(struct telemetry *telemetry, const struct attempt *attempt)
{
    count_usage(telemetry, attempt->provider_name, attempt->model, &attempt->shared.tokens,
                attempt->shared.cost_nanousd);
}

void telemetry_cache(struct telemetry *telemetry, const char *result)
{
    metric_add(series(telemetry, LOOKUPS, &result), 1);
}

void telemetry_cache_check(struct telemetry *telemetry, const char *why, const char *result)
{
    const char *const values[] = {why, result};
    metric_add(series(telemetry, CHECKS, values), 1);
}

void telemetry_cache_check_cost(struct telemetry *telemetry, const char *why, uint64_t cost_nanousd)
{
    metric_add(series(telemetry, CHECKS_COST, &why), (double)cost_nanousd / 1e9);
}

void telemetry_saved(struct telemetry *telemetry, uint64_t saved_nanousd)
{
    metric_add(series(telemetry, SAVED, NULL), (double)saved_nanousd / 1e9);
}

void telemetry_fill_dropped(struct telemetry *telemetry)
{
    metric_add(series(telemetry, FILLS_DROPPED, NULL), 1);
}

void telemetry_key_mismatch(struct telemetry *telemetry)
{
    metric_add(series(telemetry, KEY_MISMATCHES, NULL), 1);
}

void telemetry_protocol_error(struct telemetry *telemetry, const char *kind)
{
    metric_add(series(telemetry, PROTOCOL_ERRORS, &kind), 1);
}

void telemetry_disconnected(struct telemetry *telemetry, const char *link, const char *reason)
{
    const char *const values[] = {link, reason};
    metric_add(series(telemetry, DISCONNECTED, values), 1);
}

void telemetry_answers_dropped(struct telemetry *telemetry, uint64_t count)
{
    metric_add(series(telemetry, ANSWERS_DROPPED, NULL), (double)count);
}

void telemetry_chunk_dropped(struct telemetry *telemetry)
{
    metric_add(series(telemetry, CHUNKS_DROPPED, NULL), 1);
}

void telemetry_upstream(struct telemetry *telemetry, const char *provider, const char *model,
                        const char *state)
{
    const char *const values[] = {provider, model, state};
    metric_add(series(telemetry, UPSTREAM_CHANGES, values), 1);
}

void telemetry_answered_again(struct telemetry *telemetry)
{
    metric_add(series(telemetry, ANSWERED_AGAIN, NULL), 1);
}

/* 0 when /proc does not say. */
static double resident_bytes(void)
{
    unsigned long size = 0;
    unsigned long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return 0;
    }
    if (fscanf(file, "%lu %lu", &size, &resident) !=
        2) { /* NOLINT(cert-err34-c): our kernel's own figures */
        resident = 0;
    }
    (void)fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) < 0) {
        return 0;
    }
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void telemetry_set_gauges(struct telemetry *telemetry, const struct telemetry_gauges *gauges)
{
    const uint64_t values[] = {
        gauges->slots,          gauges->in_flight,          gauges->brokers_joined,
        gauges->answers,        gauges->answers_bytes,      gauges->cache_entries,
        gauges->cache_bytes,    gauges->cache_memory_bytes, gauges->cache_evictions,
        gauges->cache_fills,    gauges->cache_fills_failed, gauges->cache_is_broken,
        gauges->cache_is_building, gauges->cache_set_aside, gauges->cache_damaged,
        gauges->cache_indexed,  gauges->cache_searches_cut, gauges->cache_wanted,
        gauges->embedder_is_down, gauges->embedder_texts, gauges->embedder_texts_cached,
        gauges->embedder_requests, gauges->embedder_failures, gauges->upstreams_open,
    };
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        metric_set(series(telemetry, (enum family)(SLOTS + i), NULL), (double)values[i]);
    }
    metric_set(series(telemetry, RESIDENT_BYTES, NULL), resident_bytes());
    metric_set(series(telemetry, CPU_SECONDS, NULL), cpu_seconds());
}
