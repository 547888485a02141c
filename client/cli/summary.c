#include "client/cli/summary.h"
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "common/exit_codes.h"

static const char *const outcome_names[OUTCOMES] = {
    [OUTCOME_SUCCEEDED] = "succeeded", [OUTCOME_ACCEPTED] = "accepted",
    [OUTCOME_DEAD] = "dead",           [OUTCOME_CANCELLED] = "cancelled",
    [OUTCOME_EXPIRED] = "expired",     [OUTCOME_REJECTED] = "rejected",
    [OUTCOME_INVALID] = "invalid",     [OUTCOME_LOST] = "lost",
    [OUTCOME_PENDING] = "pending",
};

enum outcome summary_outcome(enum tiermq_state state)
{
    switch (state) {
    case TIERMQ_SUCCEEDED:
        return OUTCOME_SUCCEEDED;
    case TIERMQ_DEAD:
        return OUTCOME_DEAD;
    case TIERMQ_CANCELLED:
        return OUTCOME_CANCELLED;
    case TIERMQ_EXPIRED:
        return OUTCOME_EXPIRED;
    case TIERMQ_REJECTED:
        return OUTCOME_REJECTED;
    case TIERMQ_PENDING:
        return OUTCOME_PENDING;
    case TIERMQ_UNKNOWN:
    case TIERMQ_COLLECTED:
    case TIERMQ_LOST:
        break;
    }
    return OUTCOME_LOST; /* whoever collected it, we do not have the answer */
}

const char *summary_outcome_name(enum outcome outcome)
{
    return outcome_names[outcome];
}

/* Errors: -ENOMEM, -ENOBUFS. */
static int find_tier(struct summary *summary, const char *name, struct summary_tier **ret_tier)
{
    for (size_t i = 0; i < summary->tiers_length; i++) {
        if (strcmp(summary->tiers[i]->name, name) == 0) {
            *ret_tier = summary->tiers[i];
            return 0;
        }
    }
    if (summary->tiers_length == SUMMARY_TIERS_MAX) {
        return -ENOBUFS;
    }
    struct summary_tier *tier = calloc(1, sizeof(*tier));
    char *kept = strdup(name);
    if (tier == NULL || kept == NULL) {
        free(tier);
        free(kept);
        return -ENOMEM;
    }
    tier->name = kept;
    histogram_init(&tier->latency_us);
    summary->tiers[summary->tiers_length++] = tier;
    *ret_tier = tier;
    return 0;
}

int summary_add(struct summary *summary, const char *tier_name, enum outcome outcome,
                const struct tiermq_answer *answer)
{
    summary->jobs++;
    summary->outcomes[outcome]++;
    struct summary_tier *tier = NULL;
    int r = find_tier(summary, tier_name, &tier);
    if (r < 0) {
        return r;
    }
    tier->jobs++;
    tier->outcomes[outcome]++;
    if (answer == NULL) {
        return 0;
    }
    tier->cache[answer->cache]++;
    tier->input_tokens += answer->input_tokens;
    tier->output_tokens += answer->output_tokens;
    tier->cost_nanousd += answer->cost_nanousd;
    tier->saved_nanousd += answer->saved_nanousd;
    if (outcome == OUTCOME_SUCCEEDED) {
        histogram_record(&tier->latency_us, (uint64_t)answer->total_us);
    }
    return 0;
}

/* ----------------------------------------------------------------------------------------------
 * the table */

static void print_latency(FILE *out, uint64_t us)
{
    if (us == 0) {
        fprintf(out, " %10s", "-");
    } else if (us < 10000) {
        fprintf(out, " %7.2f ms", (double)us / 1e3);
    } else if (us < 10000000) {
        fprintf(out, " %7.0f ms", (double)us / 1e3);
    } else {
        fprintf(out, " %8.1f s", (double)us / 1e6);
    }
}

static bool is_shown(const struct summary *summary, enum outcome outcome)
{
    return outcome == OUTCOME_SUCCEEDED || summary->outcomes[outcome] > 0;
}

static void print_head(const struct summary *summary, FILE *out)
{
    fprintf(out, "%-12s %9s", "tier", "jobs");
    for (size_t i = 0; i < OUTCOMES; i++) {
        if (is_shown(summary, (enum outcome)i)) {
            fprintf(out, " %9s", outcome_names[i]);
        }
    }
    fprintf(out, " %10s %10s %10s %7s %6s %6s %10s %10s %12s %12s\n", "p50", "p95", "p99", "hits",
            "near", "stale", "tokens in", "out", "cost", "saved");
}

static void print_tier(const struct summary *summary, const struct summary_tier *tier, FILE *out)
{
    fprintf(out, "%-12s %9llu", tier->name, (unsigned long long)tier->jobs);
    for (size_t i = 0; i < OUTCOMES; i++) {
        if (is_shown(summary, (enum outcome)i)) {
            fprintf(out, " %9llu", (unsigned long long)tier->outcomes[i]);
        }
    }
    print_latency(out, histogram_quantile(&tier->latency_us, 0.50));
    print_latency(out, histogram_quantile(&tier->latency_us, 0.95));
    print_latency(out, histogram_quantile(&tier->latency_us, 0.99));
    fprintf(out, " %7llu %6llu %6llu %10llu %10llu %12.6f %12.6f\n",
            (unsigned long long)tier->cache[TIERMQ_CACHE_HIT],
            (unsigned long long)tier->cache[TIERMQ_CACHE_NEAR_HIT],
            (unsigned long long)tier->cache[TIERMQ_CACHE_STALE_HIT],
            (unsigned long long)tier->input_tokens, (unsigned long long)tier->output_tokens,
            (double)tier->cost_nanousd / 1e9, (double)tier->saved_nanousd / 1e9);
}

static void add_up(const struct summary *summary, struct summary_tier *total)
{
    histogram_init(&total->latency_us);
    for (size_t i = 0; i < summary->tiers_length; i++) {
        const struct summary_tier *tier = summary->tiers[i];
        total->jobs += tier->jobs;
        for (size_t j = 0; j < OUTCOMES; j++) {
            total->outcomes[j] += tier->outcomes[j];
        }
        for (size_t j = 0; j <= TIERMQ_CACHE_STALE_HIT; j++) {
            total->cache[j] += tier->cache[j];
        }
        total->input_tokens += tier->input_tokens;
        total->output_tokens += tier->output_tokens;
        total->cost_nanousd += tier->cost_nanousd;
        total->saved_nanousd += tier->saved_nanousd;
        histogram_merge(&total->latency_us, &tier->latency_us);
    }
}

void summary_print(const struct summary *summary, double seconds, FILE *out)
{
    struct summary_tier total = {.name = "all"};
    add_up(summary, &total);
    print_head(summary, out);
    for (size_t i = 0; i < summary->tiers_length; i++) {
        print_tier(summary, summary->tiers[i], out);
    }
    if (summary->tiers_length > 1) {
        print_tier(summary, &total, out);
    }
    fprintf(out, "%llu jobs in %.1f s (%.0f/s); cost and saved in USD\n",
            (unsigned long long)summary->jobs, seconds,
            seconds > 0 ? (double)summary->jobs / seconds : 0.0);
}

/* --------------------------------------------------------------------------------------------------
 * as JSON */

static json_int_t integer(uint64_t number)
{
    return (json_int_t)number;
}

static json_t *latency_json(const struct histogram *latency_us)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "p50", integer(histogram_quantile(latency_us, 0.50)),
                     "p95", integer(histogram_quantile(latency_us, 0.95)), "p99",
                     integer(histogram_quantile(latency_us, 0.99)), "max",
                     integer(latency_us->max));
}

static json_t *cache_json(const uint64_t cache[])
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "none", integer(cache[TIERMQ_CACHE_NONE]), "miss",
                     integer(cache[TIERMQ_CACHE_MISS]), "hit", integer(cache[TIERMQ_CACHE_HIT]),
                     "near_hit", integer(cache[TIERMQ_CACHE_NEAR_HIT]), "stale_hit",
                     integer(cache[TIERMQ_CACHE_STALE_HIT]));
}

static json_t *tier_json(const struct summary_tier *tier)
{
    json_t *outcomes = json_object();
    for (size_t i = 0; i < OUTCOMES; i++) {
        if (tier->outcomes[i] > 0) {
            json_object_set_new(outcomes, outcome_names[i],
                                json_integer((json_int_t)tier->outcomes[i]));
        }
    }
    json_t *json = json_pack("{s:s, s:I, s:o}", "tier", tier->name, "jobs", integer(tier->jobs),
                             "outcomes", outcomes);
    if (json == NULL) {
        return NULL;
    }
    json_object_set_new(json, "latency_us", latency_json(&tier->latency_us));
    json_object_set_new(json, "cache", cache_json(tier->cache));
    json_object_set_new(json, "input_tokens", json_integer(integer(tier->input_tokens)));
    json_object_set_new(json, "output_tokens", json_integer(integer(tier->output_tokens)));
    json_object_set_new(json, "cost_nanousd", json_integer(integer(tier->cost_nanousd)));
    json_object_set_new(json, "saved_nanousd", json_integer(integer(tier->saved_nanousd)));
    return json;
}

json_t *summary_json(const struct summary *summary, double seconds)
{
    struct summary_tier total = {.name = "all"};
    add_up(summary, &total);
    json_t *tiers = json_array();
    for (size_t i = 0; i < summary->tiers_length; i++) {
        json_array_append_new(tiers, tier_json(summary->tiers[i]));
    }
    return json_pack("{s:o, s:o, s:I}", "tiers", tiers, "all", tier_json(&total), "run_ms",
                     (json_int_t)(seconds * 1e3));
}

int summary_exit_code(const struct summary *summary)
{
    const uint64_t *n = summary->outcomes;
    if (n[OUTCOME_DEAD] + n[OUTCOME_CANCELLED] + n[OUTCOME_EXPIRED] + n[OUTCOME_LOST] +
            n[OUTCOME_PENDING] >
        0) {
        return EXIT_NOT_SUCCEEDED;
    }
    return n[OUTCOME_REJECTED] + n[OUTCOME_INVALID] > 0 ? EXIT_REJECTED : EXIT_OK;
}

void summary_finish(struct summary *summary)
{
    for (size_t i = 0; i < summary->tiers_length; i++) {
        free(summary->tiers[i]->name);
        free(summary->tiers[i]);
    }
    summary->tiers_length = 0;
}
