/*
 * telemetry: what a worker counts. The names and their meaning are listed in docs/metrics.md,
 * "Worker".
 *
 * The gen_ai_* families follow OpenTelemetry's conventions for generative AI, as Prometheus writes
 * them, so that dashboards made for them work. A tenant is never a label.
 */
#pragma once
#include <stdint.h>
#include "common/attributes.h"

struct attempt;
struct call_report;
struct token_counts;
struct metrics;
struct telemetry;

/* Registers the families. Errors: -EEXIST, -ENOMEM. */
MUST_USE int telemetry_create(struct metrics *metrics, struct telemetry **ret_telemetry);
void telemetry_destroy(struct telemetry **telemetry);

void telemetry_attempt(struct telemetry *telemetry, const struct attempt *attempt); /* concluded */
/* A provider call of the attempt has ended: its upstream, and what came of it. */
void telemetry_call(struct telemetry *telemetry, const struct attempt *attempt,
                    const char *provider, const char *model, const struct call_report *report);
void telemetry_first_token(struct telemetry *telemetry, const struct attempt *attempt,
                           double seconds); /* of a stream, since its call began */
void telemetry_next_token(struct telemetry *telemetry, const struct attempt *attempt,
                          double seconds); /* since the one before */
void telemetry_usage(struct telemetry *telemetry,
                     const struct attempt *attempt); /* its tokens and cost are known */
/* What its overtaken call is thought to have used. */
void telemetry_overtaken(struct telemetry *telemetry, const char *provider, const char *model,
                         const struct token_counts *tokens, uint64_t cost_nanousd);
/* Its prompt was looked at: changed, unchanged, too_large, failed; and what that saved. */
void telemetry_optimised(struct telemetry *telemetry, const struct attempt *attempt,
                         const char *result);
/* Jobs that the cache makes (refresh, audit, judge), and what came of audits: made, dropped, same, different, unknown. */
void telemetry_cache_check(struct telemetry *telemetry, const char *why, const char *result);
/* What such a job cost. */
void telemetry_cache_check_cost(struct telemetry *telemetry, const char *why, uint64_t cost_nanousd);
/* One call for so many jobs, of which it has answered some. `kind`: embeddings, questions. */
void telemetry_combined(struct telemetry *telemetry, const char *kind, size_t jobs, size_t answered);
/* Tokens of prompt: what those that were answered would have sent alone, and what was sent. */
void telemetry_combine_tokens(struct telemetry *telemetry, uint64_t lone, uint64_t sent);
void telemetry_combine_redone(struct telemetry *telemetry, const char *kind, const char *why);
/* What an attempt has paid for a call that did not answer it. */
void telemetry_lost_share(struct telemetry *telemetry, const struct attempt *attempt);
void telemetry_cache(
    struct telemetry *telemetry,
    const char *result); /* exact, near, miss, embedder, memory, timeout, busy, broken */
void telemetry_saved(struct telemetry *telemetry, uint64_t saved_nanousd);
void telemetry_fill_dropped(struct telemetry *telemetry);
void telemetry_key_mismatch(struct telemetry *telemetry);
void telemetry_protocol_error(struct telemetry *telemetry, const char *kind);
/* A connection to a broker has ended. `link`: jobs, events. */
void telemetry_disconnected(struct telemetry *telemetry, const char *link, const char *reason);
void telemetry_answers_dropped(struct telemetry *telemetry, uint64_t count);
void telemetry_chunk_dropped(struct telemetry *telemetry);
void telemetry_upstream(struct telemetry *telemetry, const char *provider, const char *model,
                        const char *state); /* a broker's breaker has changed */
void telemetry_answered_again(struct telemetry *telemetry);

/* Figures that are read when somebody looks. */
struct telemetry_gauges {
    uint64_t slots, in_flight, brokers_joined;
    uint64_t answers, answers_bytes;
    uint64_t cache_entries, cache_bytes, cache_memory_bytes, cache_evictions, cache_fills,
        cache_fills_failed;
    uint64_t cache_is_broken, cache_is_building;
    uint64_t cache_set_aside, cache_damaged;
    uint64_t cache_indexed, cache_searches_cut, cache_wanted;
    uint64_t embedder_is_down, embedder_texts, embedder_texts_cached, embedder_requests, embedder_failures;
    uint64_t upstreams_open;
};
void telemetry_set_gauges(struct telemetry *telemetry, const struct telemetry_gauges *gauges);
