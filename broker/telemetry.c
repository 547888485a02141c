#include "broker/telemetry.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <dirent.h>
#include <unistd.h>
#include "broker/denials.h"
#include "broker/evidence.h"
#include "broker/names.h"
#include "common/config.h"
#include "common/link_end.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/near_rules.h"

static const double NANOUSD = 1e-9;

enum family {
    QUEUE_DEPTH,
    QUEUE_OLDEST,
    QUEUE_BYTES,
    QUEUE_WAIT,
    DRAIN_RATE,
    SUBMITTED,
    ACCEPTED,
    DUPLICATES,
    REJECTED,
    DISPATCHED,
    JOBS,
    SHED,
    ATTEMPTS_FAILED,
    LEASES_LOST,
    REDELIVERED,
    LATE_RESULTS,
    DUPLICATE_RESULTS,
    LATE_COST,
    FOLLOWERS_JOINED,
    FOLLOWERS_CONCLUDED,
    FOLLOWERS_PROMOTED,
    FLIGHTS_SPLIT,
    COST,
    COST_SAVED,
    TOKENS,
    CACHE,
    QUALITY_LOST,
    QUALITY_LOST_JOBS,
    COST_SPENT,
    COST_ESTIMATED,
    COST_LATE,
    LEDGER_SAVED,
    LEDGER_SAVED_SECONDS,
    COST_TOKENS,
    BUDGET_EVENTS,
    EVIDENCE_CLASSES,
    EVIDENCE_REFUSED,
    NEAR_FEEDBACK,
    FEEDBACK_DROPPED,
    FEEDBACK,
    EXPLORED,
    FEEDBACK_SCORE_SUM,
    FEEDBACK_SCORE_COUNT,
    INVALIDATIONS_REFUSED,
    DENIALS_TOLD,
    DENIALS_DROPPED,
    FALSE_HITS,
    FALSE_HITS_LOW,
    FALSE_HITS_HIGH,
    FALSE_HITS_MAX,
    RESULTS_KEPT,
    RESULTS_BYTES,
    DEAD_LETTERS,
    DEAD_KEPT,
    DEAD_DIED,
    DEAD_LEFT,
    CONCLUDED_IDS,
    CORE_BYTES,
    CLIENTS,
    WORKERS,
    SLOTS,
    SLOTS_FREE,
    STREAMS,
    STREAMS_HELD,
    STREAM_RESTS,
    STREAM_BYTES,
    DRAINING,
    STORE_UP,
    COMMIT_SECONDS,
    STORE_COMMITS,
    STORE_RECORDS,
    STORE_BYTES,
    STORE_FAILURES,
    STORE_READ_FAILURES,
    STORE_LOST,
    STORE_PENDING,
    STORE_DISK,
    STORE_MEMORY_BYTES,
    ANSWERS_HELD,
    MESSAGES_SENT,
    RETRIES,
    RETRIES_HELD,
    FAILOVERS,
    HEDGES,
    HEDGES_REFUSED,
    HEDGE_COST,
    ATTEMPTS_SPARED,
    UPSTREAM_STATE,
    UPSTREAM_CALLS,
    UPSTREAM_DISPATCHED,
    UPSTREAM_PROBES,
    UPSTREAM_OPENED,
    UPSTREAM_BLOCKED,
    UPSTREAM_PACE,
    UPSTREAM_LIMIT,
    QUEUES_PAUSED,
    PROTOCOL_ERRORS,
    PEERS_LOST,
    DISCONNECTED,
    PROCESS_RSS,
    PROCESS_CPU,
    PROCESS_FDS,
    FAMILIES,
};

#define LABELS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct family_row {
    enum metric_type type;
    const char *name, *help;
    const char *const *labels; /* NULL: none */
} rows[FAMILIES] = {
    [QUEUE_DEPTH] = {METRIC_GAUGE, "tiermq_queue_depth", "Jobs now, by state.",
                     LABELS("tier", "state")},
    [QUEUE_OLDEST] = {METRIC_GAUGE, "tiermq_queue_oldest_seconds", "Age of the oldest waiting job.",
                      LABELS("tier")},
    [QUEUE_BYTES] = {METRIC_GAUGE, "tiermq_queue_payload_bytes", "Payload bytes of pending jobs.",
                     LABELS("tier")},
    [QUEUE_WAIT] = {METRIC_HISTOGRAM, "tiermq_queue_wait_seconds", "From acceptance to dispatch.",
                    LABELS("tier")},
    [DRAIN_RATE] = {METRIC_GAUGE, "tiermq_queue_drain_rate", "Conclusions a second, smoothed.",
                    LABELS("tier")},
    [SUBMITTED] = {METRIC_COUNTER, "tiermq_submitted_total", "Submissions that arrived.",
                   LABELS("tier")},
    [ACCEPTED] = {METRIC_COUNTER, "tiermq_accepted_total", "Submissions accepted.", LABELS("tier")},
    [DUPLICATES] = {METRIC_COUNTER, "tiermq_duplicates_total", "Submissions known before.",
                    LABELS("tier")},
    [REJECTED] = {METRIC_COUNTER, "tiermq_rejected_total", "Submissions refused.",
                  LABELS("tier", "reason")},
    [DISPATCHED] = {METRIC_COUNTER, "tiermq_dispatched_total", "Attempts handed to workers.",
                    LABELS("tier")},
    [JOBS] = {METRIC_COUNTER, "tiermq_jobs_total", "Jobs concluded.", LABELS("tier", "outcome")},
    [SHED] = {METRIC_COUNTER, "tiermq_shed_total",
              "Jobs given up in overload; they count as expired, too.", LABELS("tier")},
    [ATTEMPTS_FAILED] = {METRIC_COUNTER, "tiermq_attempts_failed_total", "Attempts that failed.",
                         LABELS("tier")},
    [LEASES_LOST] = {METRIC_COUNTER, "tiermq_leases_lost_total",
                     "Leases that ran out or whose worker left.", LABELS("tier")},
    [REDELIVERED] = {METRIC_COUNTER, "tiermq_redelivered_total",
                     "Jobs dispatched again after a lost lease.", LABELS("tier")},
    [LATE_RESULTS] = {METRIC_COUNTER, "tiermq_late_results_total",
                      "Results of jobs already concluded.", LABELS("tier")},
    [DUPLICATE_RESULTS] = {METRIC_COUNTER, "tiermq_duplicate_results_total",
                           "Answers that had concluded their job and were sent again.",
                           LABELS("tier")},
    [LATE_COST] = {METRIC_COUNTER, "tiermq_late_cost_usd_total",
                   "Cost of late results: spent twice.", LABELS("tier")},
    [FOLLOWERS_JOINED] = {METRIC_COUNTER, "tiermq_followers_joined_total",
                          "Jobs that began to follow an identical one.", LABELS("tier")},
    [FOLLOWERS_CONCLUDED] = {METRIC_COUNTER, "tiermq_followers_concluded_total",
                             "Jobs concluded by the outcome of the one they followed.",
                             LABELS("tier")},
    [FOLLOWERS_PROMOTED] = {METRIC_COUNTER, "tiermq_followers_promoted_total",
                            "Followers that lead, since their leader ended for itself alone.",
                            LABELS("tier")},
    [FLIGHTS_SPLIT] = {METRIC_COUNTER, "tiermq_flights_split_total",
                       "Leaders whose key was not that of their payload.", LABELS("tier")},
    [COST] = {METRIC_COUNTER, "tiermq_cost_usd_total", "Cost of model calls.", LABELS("tier")},
    [COST_SAVED] = {METRIC_COUNTER, "tiermq_cost_saved_usd_total",
                    "What cache hits and shared answers would have cost.", LABELS("tier")},
    [TOKENS] = {METRIC_COUNTER, "tiermq_tokens_total", "Tokens used.", LABELS("tier", "direction")},
    [CACHE] = {METRIC_COUNTER, "tiermq_cache_lookups_total", "Results by cache status.",
               LABELS("tier", "result")},
    [EVIDENCE_CLASSES] = {METRIC_GAUGE, "tiermq_cache_evidence_classes",
                          "Classes of near hits (tenant, tier, embedder) that are known.", NULL},
    [EVIDENCE_REFUSED] = {METRIC_COUNTER, "tiermq_cache_evidence_refused_total",
                          "Counts of workers that could not be added.", NULL},
    [NEAR_FEEDBACK] = {METRIC_COUNTER, "tiermq_cache_feedback_total",
                       "Feedback on near hits that was taken, by its outcome.", LABELS("outcome")},
    [FEEDBACK] = {METRIC_COUNTER, "tiermq_feedback_total",
                  "Feedback on answers, by what became of it.", LABELS("outcome")},
    [EXPLORED] = {METRIC_COUNTER, "tiermq_explored_total",
                  "Dispatches to a model that was tried to know more of it.", LABELS("tier")},
    [FEEDBACK_SCORE_SUM] = {METRIC_COUNTER, "tiermq_feedback_score_sum",
                            "Scores of accepted feedback, 0 to 1 each, added up.",
                            LABELS("model", "tier")},
    [FEEDBACK_SCORE_COUNT] = {METRIC_COUNTER, "tiermq_feedback_score_count", "Accepted feedback.",
                              LABELS("model", "tier")},
    [FEEDBACK_DROPPED] = {METRIC_COUNTER, "tiermq_cache_feedback_dropped_total",
                          "Feedback on near hits that was not counted: said before, or too much.",
                          NULL},
    [INVALIDATIONS_REFUSED] = {METRIC_COUNTER, "tiermq_cache_invalidations_refused_total",
                               "Invalidations of clients that were refused.", NULL},
    [DENIALS_TOLD] = {METRIC_COUNTER, "tiermq_cache_denials_total",
                      "Entries that one worker found wrong for another text, told to the others.",
                      NULL},
    [DENIALS_DROPPED] = {METRIC_COUNTER, "tiermq_cache_denials_dropped_total",
                         "Such entries that were not told: too many in a second.", NULL},
    [FALSE_HITS] = {METRIC_GAUGE, "tiermq_cache_false_hit_rate",
                    "Wrong share of near hits, by audits.", LABELS("tenant", "tier", "embedder")},
    [FALSE_HITS_LOW] = {METRIC_GAUGE, "tiermq_cache_false_hit_rate_low",
                        "Lower end of its interval.", LABELS("tenant", "tier", "embedder")},
    [FALSE_HITS_HIGH] = {METRIC_GAUGE, "tiermq_cache_false_hit_rate_high",
                         "Upper end of its interval.", LABELS("tenant", "tier", "embedder")},
    [FALSE_HITS_MAX] = {METRIC_GAUGE, "tiermq_cache_false_hit_rate_max",
                        "What the configuration allows.", LABELS("tenant", "tier", "embedder")},
    [RESULTS_KEPT] = {METRIC_GAUGE, "tiermq_results_kept", "Results kept for collection.", NULL},
    [RESULTS_BYTES] = {METRIC_GAUGE, "tiermq_results_kept_bytes", "Their bytes.", NULL},
    [DEAD_LETTERS] = {METRIC_GAUGE, "tiermq_dead_letters", "Dead letters kept.", NULL},
    [DEAD_KEPT] = {METRIC_GAUGE, "tiermq_dead_letters_kept", "Dead letters kept, by error code.",
                   LABELS("tier", "code")},
    [DEAD_DIED] = {METRIC_COUNTER, "tiermq_dead_letters_total",
                   "Jobs that became dead letters, by error code.", LABELS("tier", "code")},
    [DEAD_LEFT] = {METRIC_COUNTER, "tiermq_dead_letters_left_total",
                   "Dead letters that were requeued, dropped or evicted.", LABELS("tier", "how")},
    [CONCLUDED_IDS] = {METRIC_GAUGE, "tiermq_concluded_ids", "Ids remembered for deduplication.",
                       NULL},
    [CORE_BYTES] = {METRIC_GAUGE, "tiermq_jobs_memory_bytes",
                    "Memory of pending jobs without payloads.", NULL},
    [CLIENTS] = {METRIC_GAUGE, "tiermq_clients", "Connected clients.", NULL},
    [WORKERS] = {METRIC_GAUGE, "tiermq_workers", "Connected workers.", NULL},
    [SLOTS] = {METRIC_GAUGE, "tiermq_slots", "Jobs that all workers run at once.", NULL},
    [SLOTS_FREE] = {METRIC_GAUGE, "tiermq_slots_free", "Jobs that workers would take now.", NULL},
    [STREAMS] = {METRIC_GAUGE, "tiermq_streams", "Attempts that stream now.", NULL},
    [STREAMS_HELD] = {METRIC_GAUGE, "tiermq_streams_held",
                      "Attempts whose stream waits for its readers.", NULL},
    [STREAM_RESTS] = {METRIC_GAUGE, "tiermq_stream_rests",
                      "Readers of answered streams that have not had all of them.", NULL},
    [STREAM_BYTES] = {METRIC_GAUGE, "tiermq_stream_bytes", "Kept of streams.", LABELS("of")},
    [DRAINING] = {METRIC_GAUGE, "tiermq_draining", "1 while the broker shuts down.", NULL},
    [STORE_UP] = {METRIC_GAUGE, "tiermq_store_up", "0 while the store cannot write.", NULL},
    [COMMIT_SECONDS] = {METRIC_HISTOGRAM, "tiermq_commit_seconds", "One commit with its fsync.",
                        NULL},
    [STORE_COMMITS] = {METRIC_COUNTER, "tiermq_store_commits_total", "Commits (fsyncs).", NULL},
    [STORE_RECORDS] = {METRIC_COUNTER, "tiermq_store_records_total", "Record changes written.",
                       NULL},
    [STORE_BYTES] = {METRIC_COUNTER, "tiermq_store_bytes_total", "Bytes of their keys and values.",
                     NULL},
    [STORE_FAILURES] = {METRIC_COUNTER, "tiermq_store_failures_total",
                        "Commits and openings that failed.", NULL},
    [STORE_READ_FAILURES] = {METRIC_COUNTER, "tiermq_store_read_failures_total",
                             "Reads that failed or found damage.", NULL},
    [STORE_LOST] = {METRIC_COUNTER, "tiermq_store_salvage_lost_total",
                    "Changes and ranges of keys that --salvage could not read at this start.",
                    NULL},
    [STORE_PENDING] = {METRIC_GAUGE, "tiermq_store_pending_batches",
                       "Batches handed over, not durable yet.", NULL},
    [STORE_DISK] = {METRIC_GAUGE, "tiermq_store_disk_bytes",
                    "Disk used, as the engine estimates it.", NULL},
    [STORE_MEMORY_BYTES] = {METRIC_GAUGE, "tiermq_store_memory_bytes", "Write buffers and caches.",
                            NULL},
    [ANSWERS_HELD] = {METRIC_GAUGE, "tiermq_answers_held", "Answers that wait for their batch.",
                      NULL},
    [MESSAGES_SENT] = {METRIC_COUNTER, "tiermq_messages_sent_total",
                       "Messages to clients and workers.", NULL},
    [RETRIES] = {METRIC_COUNTER, "tiermq_retries_total",
                 "Dispatches after an attempt that counted, granted by the retry budget.",
                 LABELS("tier")},
    [RETRIES_HELD] = {METRIC_COUNTER, "tiermq_retries_held_total",
                      "Times a retry had to wait for the retry budget.", LABELS("tier")},
    [QUALITY_LOST] = {METRIC_COUNTER, "tiermq_quality_lost_grades_total",
                      "Grades of quality that answers are thought to have lost.",
                      LABELS("tier", "step")},
    [QUALITY_LOST_JOBS] = {METRIC_COUNTER, "tiermq_quality_lost_jobs_total",
                           "Answers that are thought to have lost some.", LABELS("tier", "step")},
    [COST_SPENT] =
        {METRIC_GAUGE, "tiermq_ledger_cost_usd",
         "What calls to models have cost since start; falls when an estimate is corrected.", NULL},
    [COST_ESTIMATED] = {METRIC_GAUGE, "tiermq_ledger_estimated_usd",
                        "Of it, for calls of which the provider did not say all.", NULL},
    [COST_LATE] = {METRIC_GAUGE, "tiermq_ledger_late_usd",
                   "Of it, for calls that came to nothing: late, lost, cancelled or failed.", NULL},
    [LEDGER_SAVED] = {METRIC_GAUGE, "tiermq_ledger_saved_usd",
                      "What was saved since start; routing may have cost more than its reference.",
                      LABELS("by")},
    [LEDGER_SAVED_SECONDS] =
        {METRIC_COUNTER, "tiermq_ledger_saved_seconds_total",
         "Time that hits and identical jobs would have taken as calls of their own.", NULL},
    [COST_TOKENS] = {METRIC_COUNTER, "tiermq_ledger_tokens_total",
                     "Tokens that were booked, each in one class.", LABELS("class")},
    [BUDGET_EVENTS] = {METRIC_COUNTER, "tiermq_budget_events_total",
                       "What budgets have done: jobs refused, expired, put off, given a cheaper "
                       "model.",
                       LABELS("event")},
    [FAILOVERS] = {METRIC_COUNTER, "tiermq_failovers_total",
                   "Jobs sent on to another upstream at once.", LABELS("tier")},
    [HEDGES] = {METRIC_COUNTER, "tiermq_hedges_total",
                "Second calls beside slow ones, by what came of them.", LABELS("tier", "outcome")},
    [HEDGES_REFUSED] = {METRIC_COUNTER, "tiermq_hedges_refused_total",
                        "Second calls that were asked for and not granted.",
                        LABELS("tier", "reason")},
    [HEDGE_COST] = {METRIC_COUNTER, "tiermq_hedge_cost_usd_total",
                    "Cost of second calls, whatever came of them.", LABELS("tier")},
    [ATTEMPTS_SPARED] = {METRIC_COUNTER, "tiermq_attempts_spared_total",
                         "Attempts that failed with their upstream down or limiting: not counted.",
                         LABELS("tier")},
    [UPSTREAM_STATE] = {METRIC_GAUGE, "tiermq_upstream_state",
                        "0 closed, 1 open, 2 half open, 3 slow start.",
                        LABELS("provider", "model")},
    [UPSTREAM_CALLS] = {METRIC_COUNTER, "tiermq_upstream_calls_total",
                        "Calls as workers reported them.", LABELS("provider", "model", "outcome")},
    [UPSTREAM_DISPATCHED] = {METRIC_COUNTER, "tiermq_upstream_dispatched_total",
                             "Dispatches that may call it.", LABELS("provider", "model")},
    [UPSTREAM_PROBES] = {METRIC_COUNTER, "tiermq_upstream_probes_total",
                         "Dispatches that tell whether it has recovered.",
                         LABELS("provider", "model")},
    [UPSTREAM_OPENED] = {METRIC_COUNTER, "tiermq_upstream_opened_total",
                         "Times it was taken to be down.", LABELS("provider", "model")},
    [UPSTREAM_BLOCKED] = {METRIC_GAUGE, "tiermq_upstream_blocked_seconds",
                          "Until it may be called or probed.", LABELS("provider", "model")},
    [UPSTREAM_PACE] = {METRIC_GAUGE, "tiermq_upstream_pace",
                       "Calls a second that it is given; 0 while it is not paced.",
                       LABELS("provider", "model")},
    [UPSTREAM_LIMIT] = {METRIC_GAUGE, "tiermq_upstream_limit_per_minute",
                        "Its limit, configured or learned; 0: none.",
                        LABELS("provider", "model", "unit")},
    [QUEUES_PAUSED] = {METRIC_GAUGE, "tiermq_queues_paused",
                       "Queues that nobody can serve now: their upstreams are down.", NULL},
    [PROTOCOL_ERRORS] = {METRIC_COUNTER, "tiermq_protocol_errors_total", "Messages refused.",
                         LABELS("side", "kind")},
    [PEERS_LOST] = {METRIC_COUNTER, "tiermq_peers_lost_total", "Peers that could not be sent to.",
                    LABELS("side")},
    [DISCONNECTED] = {METRIC_COUNTER, "tiermq_connections_ended_total",
                      "Connections of peers that have ended, by why.", LABELS("side", "reason")},
    [PROCESS_RSS] = {METRIC_GAUGE, "process_resident_memory_bytes", "Resident memory.", NULL},
    [PROCESS_CPU] = {METRIC_COUNTER, "process_cpu_seconds_total", "User and system CPU time.",
                     NULL},
    [PROCESS_FDS] = {METRIC_GAUGE, "process_open_fds", "Open file descriptors.", NULL},
};

struct telemetry {
    struct log *log;
    struct metrics *metrics;
    struct metric_family *families[FAMILIES];
    size_t n_tiers;
    char *tiers[CONFIG_TIERS_MAX];
    struct metric
        *queue_wait[CONFIG_TIERS_MAX]; /* looked up once: one observation for each dispatch */
    struct metric *commit_seconds;
    uint64_t commits_seen, commit_us_seen;
};

static struct metric *series(struct telemetry *telemetry, enum family family,
                             const char *const *values)
{
    return metric_series(telemetry->families[family], values);
}

static int register_all(struct telemetry *telemetry)
{
    for (size_t i = 0; i < FAMILIES; i++) {
        const int r = metrics_register(telemetry->metrics, rows[i].type, rows[i].name, rows[i].help,
                                       rows[i].labels, NULL, 0, &telemetry->families[i]);
        if (r < 0) {
            return r;
        }
    }
    telemetry->commit_seconds = series(telemetry, COMMIT_SECONDS, NULL);
    return 0;
}

static int add_tiers(struct telemetry *telemetry, const struct config *config)
{
    for (size_t i = 0; i < config->tiers_length; i++) {
        telemetry->tiers[i] = strdup(config->tiers[i].name);
        if (telemetry->tiers[i] == NULL) {
            return -ENOMEM;
        }
        telemetry->n_tiers++;
        telemetry->queue_wait[i] = series(telemetry, QUEUE_WAIT, LABELS(telemetry->tiers[i]));
    }
    return 0;
}

int telemetry_create(const struct config *config, struct log *log, struct telemetry **ret_telemetry)
{
    CLEANUP(telemetry_destroy) struct telemetry *telemetry = calloc(1, sizeof(*telemetry));
    if (telemetry == NULL) {
        return -ENOMEM;
    }
    telemetry->log = log;
    int r = metrics_create(&telemetry->metrics);
    if (r == 0) {
        r = register_all(telemetry);
    }
    if (r == 0) {
        r = add_tiers(telemetry, config);
    }
    if (r < 0) {
        return r;
    }
    *ret_telemetry = TAKE(telemetry);
    return 0;
}

void telemetry_destroy(struct telemetry **telemetry)
{
    struct telemetry *gone = TAKE(*telemetry);
    if (gone == NULL) {
        return;
    }
    for (size_t i = 0; i < gone->n_tiers; i++) {
        free(gone->tiers[i]);
    }
    metrics_destroy(&gone->metrics);
    free(gone);
}

struct metrics *telemetry_metrics(struct telemetry *telemetry)
{
    return telemetry->metrics;
}

/* ---- copied when asked ---- */

static void set(struct telemetry *telemetry, enum family family, double value)
{
    metric_set(series(telemetry, family, NULL), value);
}

static void set_for(struct telemetry *telemetry, enum family family, const char *tier,
                    const char *word, double value)
{
    metric_set(series(telemetry, family, LABELS(tier, word)), value);
}

static void collect_states(struct telemetry *telemetry, const struct core_tier_stats *tier)
{
    for (int state = WIRE__JOB_STATE__JOB_STATE_QUEUED; state <= WIRE__JOB_STATE__JOB_STATE_PARKED;
         state++) {
        set_for(telemetry, QUEUE_DEPTH, tier->name, name_of_state((Wire__JobState)state),
                (double)tier->states[state]);
    }
    for (int state = WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
         state <= WIRE__JOB_STATE__JOB_STATE_EXPIRED; state++) {
        set_for(telemetry, JOBS, tier->name, name_of_state((Wire__JobState)state),
                (double)tier->concluded[state]);
    }
}

static void collect_counts(struct telemetry *telemetry, const struct core_tier_stats *tier)
{
    const struct {
        enum family family;
        double value;
    } values[] = {
        {QUEUE_OLDEST, (double)tier->oldest_ms / 1000},
        {QUEUE_BYTES, (double)tier->payload_bytes},
        {DRAIN_RATE, tier->drain_per_s},
        {SUBMITTED, (double)tier->submitted},
        {ACCEPTED, (double)tier->accepted},
        {DUPLICATES, (double)tier->duplicates},
        {DISPATCHED, (double)tier->dispatched},
        {EXPLORED, (double)tier->explored},
        {SHED, (double)tier->shed},
        {ATTEMPTS_FAILED, (double)tier->attempts_failed},
        {LEASES_LOST, (double)tier->leases_lost},
        {REDELIVERED, (double)tier->redelivered},
        {RETRIES, (double)tier->retries},
        {RETRIES_HELD, (double)tier->retries_held},
        {FAILOVERS, (double)tier->failovers},
        {ATTEMPTS_SPARED, (double)tier->attempts_spared},
        {LATE_RESULTS, (double)tier->late_results},
        {DUPLICATE_RESULTS, (double)tier->duplicate_results},
        {LATE_COST, (double)tier->late_cost_nanousd * NANOUSD},
        {FOLLOWERS_JOINED, (double)tier->followers_joined},
        {FOLLOWERS_CONCLUDED, (double)tier->followers_concluded},
        {FOLLOWERS_PROMOTED, (double)tier->followers_promoted},
        {FLIGHTS_SPLIT, (double)tier->flights_split},
        {COST, (double)tier->cost_nanousd * NANOUSD},
        {HEDGE_COST, (double)tier->hedge_cost_nanousd * NANOUSD},
        {COST_SAVED, (double)tier->saved_nanousd * NANOUSD},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        metric_set(series(telemetry, values[i].family, LABELS(tier->name)), values[i].value);
    }
}

static void collect_hedges(struct telemetry *telemetry, const struct core_tier_stats *tier)
{
    for (size_t i = 0; i < CORE_HEDGE_OUTCOMES; i++) {
        set_for(telemetry, HEDGES, tier->name, core_hedge_outcome_name(i), (double)tier->hedges[i]);
    }
    for (size_t i = 0; i < CORE_HEDGE_REFUSALS; i++) {
        set_for(telemetry, HEDGES_REFUSED, tier->name, core_hedge_refusal_name(i),
                (double)tier->hedges_refused[i]);
    }
}

static void collect_tier(struct telemetry *telemetry, const struct core_tier_stats *tier)
{
    collect_states(telemetry, tier);
    collect_counts(telemetry, tier);
    collect_hedges(telemetry, tier);
    set_for(telemetry, TOKENS, tier->name, "input", (double)tier->input_tokens);
    set_for(telemetry, TOKENS, tier->name, "output", (double)tier->output_tokens);
    set_for(telemetry, CACHE, tier->name, "hit", (double)tier->cache_hits);
    set_for(telemetry, CACHE, tier->name, "near_hit", (double)tier->cache_near_hits);
    set_for(telemetry, CACHE, tier->name, "stale_hit", (double)tier->cache_stale_hits);
    set_for(telemetry, CACHE, tier->name, "miss", (double)tier->cache_misses);
    for (size_t i = 0; i < CORE_STEPS; i++) {
        const struct core_quality_lost *lost = &tier->quality_lost[i];
        set_for(telemetry, QUALITY_LOST, tier->name, core_step_name(i), (double)lost->grades);
        set_for(telemetry, QUALITY_LOST_JOBS, tier->name, core_step_name(i), (double)lost->jobs);
    }
}

static void collect_dead(struct telemetry *telemetry, const struct core_stats *core,
                         const struct core_tier_stats *tier)
{
    for (size_t i = 0; i < core->dead_codes_length; i++) {
        const char *code = core->dead_codes[i];
        set_for(telemetry, DEAD_DIED, tier->name, code, (double)tier->died[i]);
        set_for(telemetry, DEAD_KEPT, tier->name, code, (double)tier->dead_letters[i]);
    }
    set_for(telemetry, DEAD_LEFT, tier->name, "requeued", (double)tier->dead_requeued);
    set_for(telemetry, DEAD_LEFT, tier->name, "dropped", (double)tier->dead_dropped);
    set_for(telemetry, DEAD_LEFT, tier->name, "evicted", (double)tier->dead_evicted);
}

static void collect_core(struct telemetry *telemetry, const struct core_stats *core)
{
    for (size_t i = 0; i < core->tiers_length; i++) {
        collect_tier(telemetry, &core->tiers[i]);
        collect_dead(telemetry, core, &core->tiers[i]);
    }
    set(telemetry, RESULTS_KEPT, (double)core->results);
    set(telemetry, RESULTS_BYTES, (double)core->results_bytes);
    set(telemetry, DEAD_LETTERS, (double)core->dead_letters);
    set(telemetry, CONCLUDED_IDS, (double)core->concluded_ids);
    set(telemetry, CORE_BYTES, (double)core->jobs_bytes);
    set(telemetry, CLIENTS, (double)core->clients);
    set(telemetry, WORKERS, (double)core->workers);
    set(telemetry, SLOTS, (double)core->slots);
    set(telemetry, SLOTS_FREE, (double)core->slots_free);
    set(telemetry, STREAMS, (double)core->streams);
    set(telemetry, STREAMS_HELD, (double)core->streams_held);
    set(telemetry, STREAM_RESTS, (double)core->stream_rests);
    metric_set(series(telemetry, STREAM_BYTES, LABELS("log")), (double)core->stream_log_bytes);
    metric_set(series(telemetry, STREAM_BYTES, LABELS("rest")), (double)core->stream_rest_bytes);
    set(telemetry, DRAINING, core->is_draining ? 1 : 0);
    set(telemetry, STORE_UP, core->store_is_down ? 0 : 1);
}

static void collect_upstream(void *context, const struct core_upstream_view *view)
{
    struct telemetry *telemetry = context;
    const struct core_upstream_counts *counts = &view->counts;
    const char *const *const name = LABELS(view->provider, view->model);
    const struct {
        enum family family;
        double value;
    } values[] = {
        {UPSTREAM_STATE, view->state},
        {UPSTREAM_DISPATCHED, (double)counts->dispatched},
        {UPSTREAM_PROBES, (double)counts->probes},
        {UPSTREAM_OPENED, (double)counts->opened},
        {UPSTREAM_BLOCKED, (double)view->blocked_ms / 1000},
        {UPSTREAM_PACE, view->pace_per_s},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        metric_set(series(telemetry, values[i].family, name), values[i].value);
    }
    const struct {
        const char *outcome;
        uint64_t calls;
    } calls[] = {{"answered", counts->answered},
                 {"unavailable", counts->failed},
                 {"rate_limited", counts->rate_limited},
                 {"rejected", counts->rejected}};
    for (size_t i = 0; i < ARRAY_LENGTH(calls); i++) {
        metric_set(series(telemetry, UPSTREAM_CALLS,
                          LABELS(view->provider, view->model, calls[i].outcome)),
                   (double)calls[i].calls);
    }
    metric_set(series(telemetry, UPSTREAM_LIMIT, LABELS(view->provider, view->model, "requests")),
               (double)view->requests_per_min);
    metric_set(series(telemetry, UPSTREAM_LIMIT, LABELS(view->provider, view->model, "tokens")),
               (double)view->tokens_per_min);
}

static void count_blocked(void *context, const struct core_queue_view *view)
{
    *(size_t *)context += view->is_blocked;
}

static void collect_upstreams(struct telemetry *telemetry, const struct core *core,
                              struct core_time now)
{
    size_t blocked = 0;
    core_visit_upstreams(core, now, collect_upstream, telemetry);
    core_visit_queues(core, count_blocked, &blocked);
    set(telemetry, QUEUES_PAUSED, (double)blocked);
}

struct evidence_page {
    struct telemetry *telemetry;
    const struct config *config;
};

/* The rate of a class without audits is not known: it has no series. */
static void collect_class(void *context, const struct core_evidence_view *view)
{
    const struct evidence_page *page = context;
    const char *const *const name = LABELS(view->tenant, view->tier, view->embedder);
    struct threshold_policy policy;
    struct threshold_rate rate;
    near_rules(page->config, view->tenant, view->tier, &policy);
    threshold_measure(view->sum, &policy, &rate);
    if (rate.audits == 0) {
        return;
    }
    metric_set(series(page->telemetry, FALSE_HITS, name), rate.estimate);
    metric_set(series(page->telemetry, FALSE_HITS_LOW, name), rate.low);
    metric_set(series(page->telemetry, FALSE_HITS_HIGH, name), rate.high);
    metric_set(series(page->telemetry, FALSE_HITS_MAX, name), policy.max_error);
}

static void collect_near_feedback(struct telemetry *telemetry,
                                  const struct core_near_feedback *feedback)
{
    metric_set(series(telemetry, NEAR_FEEDBACK, LABELS("right")), (double)feedback->right);
    metric_set(series(telemetry, NEAR_FEEDBACK, LABELS("wrong")), (double)feedback->wrong);
    metric_set(series(telemetry, NEAR_FEEDBACK, LABELS("unclassed")), (double)feedback->unclassed);
    set(telemetry, FEEDBACK_DROPPED, (double)feedback->dropped);
}

static double usd(uint64_t nanousd)
{
    return (double)nanousd / 1e9;
}

static void collect_saved(struct telemetry *telemetry, const struct core_cost *total)
{
    const struct {
        const char *by;
        double usd;
    } saved[] = {
        {"cache", usd(total->saved_cache_nanousd)},
        {"identical_jobs", usd(total->saved_followers_nanousd)},
        {"prompt_cache", usd(total->saved_prompt_cache_nanousd)},
        {"batching", usd(total->saved_batching_nanousd)},
        {"prompt_optimisation", usd(total->saved_optimising_nanousd)},
        {"routing", (double)total->saved_routing_nanousd / 1e9},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(saved); i++) {
        metric_set(series(telemetry, LEDGER_SAVED, LABELS(saved[i].by)), saved[i].usd);
    }
    set(telemetry, LEDGER_SAVED_SECONDS,
        (double)(total->saved_cache_ms + total->saved_followers_ms) / 1000.0);
}

static void collect_cost(struct telemetry *telemetry, const struct core *core)
{
    const struct core_cost *total = core_cost_total(core);
    const struct core_budget_counts *budgets = core_budget_counts(core);
    set(telemetry, COST_SPENT, usd(total->cost_nanousd));
    set(telemetry, COST_ESTIMATED, usd(total->estimated_nanousd));
    set(telemetry, COST_LATE, usd(total->late_nanousd));
    for (size_t i = 0; i < PRICE_CLASSES; i++) {
        metric_set(series(telemetry, COST_TOKENS, LABELS(price_class_name(i))),
                   (double)total->tokens[i]);
    }
    collect_saved(telemetry, total);
    const struct {
        const char *event;
        uint64_t count;
    } events[] = {{"refused", budgets->refused},
                  {"expired", budgets->expired},
                  {"put_off", budgets->waited},
                  {"downgraded", budgets->downgraded}};
    for (size_t i = 0; i < ARRAY_LENGTH(events); i++) {
        metric_set(series(telemetry, BUDGET_EVENTS, LABELS(events[i].event)),
                   (double)events[i].count);
    }
}

static void collect_evidence(struct telemetry *telemetry, const struct telemetry_sources *sources)
{
    struct evidence_page page = {.telemetry = telemetry, .config = sources->config};
    set(telemetry, EVIDENCE_CLASSES,
        (double)core_visit_evidence(sources->queue, 0, METRICS_SERIES_MAX, collect_class, &page));
    set(telemetry, EVIDENCE_REFUSED, (double)core_evidence_refused(sources->queue));
    collect_near_feedback(telemetry, core_near_feedback(sources->queue));
    set(telemetry, INVALIDATIONS_REFUSED, (double)core_invalidations_refused(sources->queue));
    set(telemetry, DENIALS_TOLD, (double)sources->denials->told);
    set(telemetry, DENIALS_DROPPED, (double)sources->denials->dropped);
}

static void collect_total(void *context, const struct core_quality_view *view)
{
    struct telemetry *telemetry = context;
    const char *const *const name = LABELS(view->model, view->tier);
    metric_set(series(telemetry, FEEDBACK_SCORE_SUM, name), view->score);
    metric_set(series(telemetry, FEEDBACK_SCORE_COUNT, name), (double)view->count);
}

static void collect_feedback(struct telemetry *telemetry, const struct core *core)
{
    for (int i = 1; i < CORE_FEEDBACK_OUTCOMES; i++) {
        const Wire__FeedbackOutcome outcome = (Wire__FeedbackOutcome)i;
        metric_set(series(telemetry, FEEDBACK, LABELS(name_of_feedback(outcome))),
                   (double)core_feedback_count(core, outcome));
    }
    core_visit_quality_totals(core, collect_total, telemetry);
}

static void collect_store(struct telemetry *telemetry, const struct store_stats *store)
{
    set(telemetry, STORE_COMMITS, (double)store->commits);
    set(telemetry, STORE_RECORDS, (double)store->records);
    set(telemetry, STORE_BYTES, (double)store->bytes);
    set(telemetry, STORE_FAILURES, (double)store->failures);
    set(telemetry, STORE_READ_FAILURES, (double)store->read_failures);
    set(telemetry, STORE_PENDING, (double)store->pending_batches);
    set(telemetry, STORE_DISK, (double)store->disk_bytes);
    set(telemetry, STORE_MEMORY_BYTES, (double)store->memory_bytes);
}

static double resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return 0;
    }
    unsigned long pages = 0;
    const int n = fscanf(file, "%*u %lu", &pages);
    (void)fclose(file);
    return n == 1 ? (double)pages * (double)sysconf(_SC_PAGESIZE) : 0;
}

static double open_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL) {
        return 0;
    }
    double n = -3; /* ".", "..", and the one it is read through */
    while (readdir(folder) != NULL) {
        n++;
    }
    (void)closedir(folder);
    return n;
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void collect_process(struct telemetry *telemetry)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        set(telemetry, PROCESS_CPU, seconds(usage.ru_utime) + seconds(usage.ru_stime));
    }
    set(telemetry, PROCESS_RSS, resident_bytes());
    set(telemetry, PROCESS_FDS, open_descriptors());
}

void telemetry_collect(struct telemetry *telemetry, const struct telemetry_sources *sources)
{
    collect_core(telemetry, &sources->core);
    collect_upstreams(telemetry, sources->queue, sources->now);
    collect_evidence(telemetry, sources);
    collect_feedback(telemetry, sources->queue);
    collect_cost(telemetry, sources->queue);
    collect_store(telemetry, &sources->store);
    collect_process(telemetry);
    set(telemetry, MESSAGES_SENT, (double)sources->messages_sent);
    set(telemetry, ANSWERS_HELD, (double)sources->answers_held);
    set(telemetry, STORE_LOST, (double)sources->salvage_lost);
}

/* ---- as it happens ---- */

static const char *side_word(enum peer_side side)
{
    return side == PEER_CLIENT ? "client" : "worker";
}

void telemetry_protocol_error(struct telemetry *telemetry, enum peer_side side,
                              Wire__ProtocolError__Code code, const char *text)
{
    metric_add(
        series(telemetry, PROTOCOL_ERRORS, LABELS(side_word(side), name_of_protocol_error(code))),
        1);
    /* After every restart all peers are told to say hello: no news. */
    const bool is_usual = code == WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED;
    log_at(telemetry->log, is_usual ? LOG_DEBUG : LOG_WARN, "a message was refused",
           log_text("side", side_word(side)), log_text("kind", name_of_protocol_error(code)),
           log_text("reason", text));
}

void telemetry_peer_lost(struct telemetry *telemetry, const struct peer *peer, int error)
{
    metric_add(series(telemetry, PEERS_LOST, LABELS(side_word(peer->side))), 1);
    log_at(telemetry->log, LOG_INFO, "a peer cannot be sent to and has to say hello again",
           log_text("side", side_word(peer->side)), log_text("name", peer->name),
           log_text("reason", strerror(-error)));
}

/* Whoever connects and speaks something else can do so as often as it likes: the log bounds that.
 */
void telemetry_disconnected(struct telemetry *telemetry, const char *side, const char *name,
                            const struct link_ending *ending)
{
    const char *end = link_end_name(ending->end);
    metric_add(series(telemetry, DISCONNECTED, LABELS(side, end)), 1);
    log_at(telemetry->log, link_end_level(ending->end), "a connection has ended",
           log_text("side", side), log_text("name", name), log_text("address", ending->address),
           log_text("end", end), log_text("reason", ending->reason),
           log_text("stage", ending->was_open ? "open" : "handshake"));
}

void telemetry_dispatched(struct telemetry *telemetry, uint8_t tier, int64_t queue_ms)
{
    if (tier < telemetry->n_tiers) {
        metric_observe(telemetry->queue_wait[tier], (double)queue_ms / 1000);
    }
}

void telemetry_rejected(struct telemetry *telemetry, uint8_t tier, Wire__RejectReason reason)
{
    const char *name = tier < telemetry->n_tiers ? telemetry->tiers[tier] : "unknown";
    metric_add(series(telemetry, REJECTED, LABELS(name, name_of_reject_reason(reason))), 1);
}

/* Several commits may be behind one report: each counts with their mean. */
void telemetry_committed(struct telemetry *telemetry, const struct store_stats *stats)
{
    const uint64_t n = stats->commits - telemetry->commits_seen;
    const uint64_t us = stats->commit_us_total - telemetry->commit_us_seen;
    for (uint64_t i = 0; i < n; i++) {
        metric_observe(telemetry->commit_seconds, (double)us / (double)n / 1e6);
    }
    telemetry->commits_seen = stats->commits;
    telemetry->commit_us_seen = stats->commit_us_total;
}

/* ---- notes ---- */

static enum log_level note_level(enum note_kind note)
{
    switch (note) {
    case NOTE_STORE_DOWN:
    case NOTE_RECORD_DAMAGED:
        return LOG_ERROR;
    case NOTE_LEASE_LOST:
    case NOTE_DEAD_LETTER:
    case NOTE_BOUND_REACHED:
    case NOTE_UPSTREAM_DOWN:
    case NOTE_QUEUE_PAUSED:
    case NOTE_WORKER_SET_ASIDE:
    case NOTE_SHED:
    case NOTE_BUDGET_SOFT:
        return LOG_WARN;
    case NOTE_LATE_RESULT:
    case NOTE_ATTEMPT_FAILED:
    case NOTE_EXPIRED:
    case NOTE_DEAD_REQUEUED:
    case NOTE_DEAD_DROPPED:
    case NOTE_DEAD_SWEEP:
    case NOTE_WORKER_JOINED:
    case NOTE_WORKER_LEFT:
    case NOTE_PAUSED:
    case NOTE_RESUMED:
    case NOTE_STORE_UP:
    case NOTE_UPSTREAM_UP:
    case NOTE_UPSTREAM_RESET:
    case NOTE_QUEUE_RESUMED:
    case NOTE_CACHE_INVALIDATED:
    case NOTE_FEEDBACK:
    case NOTE_BUDGET_WIDE:
        return LOG_INFO;
    }
    return LOG_INFO;
}

static const char *note_message(enum note_kind note)
{
    switch (note) {
    case NOTE_LEASE_LOST:
        return "lease lost";
    case NOTE_DEAD_LETTER:
        return "dead letter";
    case NOTE_LATE_RESULT:
        return "late result";
    case NOTE_ATTEMPT_FAILED:
        return "attempt failed";
    case NOTE_EXPIRED:
        return "job expired";
    case NOTE_DEAD_REQUEUED:
        return "dead letter requeued";
    case NOTE_DEAD_DROPPED:
        return "dead letter dropped";
    case NOTE_DEAD_SWEEP:
        return "dead letter sweep";
    case NOTE_SHED:
        return "jobs shed";
    case NOTE_WORKER_JOINED:
        return "worker joined";
    case NOTE_WORKER_LEFT:
        return "worker left";
    case NOTE_PAUSED:
        return "paused";
    case NOTE_RESUMED:
        return "resumed";
    case NOTE_STORE_DOWN:
        return "store down";
    case NOTE_STORE_UP:
        return "store up";
    case NOTE_RECORD_DAMAGED:
        return "record damaged";
    case NOTE_UPSTREAM_DOWN:
        return "upstream down";
    case NOTE_UPSTREAM_UP:
        return "upstream up";
    case NOTE_UPSTREAM_RESET:
        return "upstream reset";
    case NOTE_QUEUE_PAUSED:
        return "queue paused";
    case NOTE_QUEUE_RESUMED:
        return "queue resumed";
    case NOTE_WORKER_SET_ASIDE:
        return "worker set aside";
    case NOTE_CACHE_INVALIDATED:
        return "cache invalidated";
    case NOTE_FEEDBACK:
        return "feedback";
    case NOTE_BUDGET_SOFT:
        return "budget nearly spent: cheaper models are taken";
    case NOTE_BUDGET_WIDE:
        return "budget wide again";
    case NOTE_BOUND_REACHED:
        return "bound reached";
    }
    return "";
}

/* Left out when there is nothing to say. */
static struct log_field text_field(const char *key, const char *text)
{
    return log_text(key, text != NULL && text[0] != '\0' ? text : NULL);
}

void telemetry_note(struct telemetry *telemetry, const struct effect *effect)
{
    const enum note_kind note = effect->as.note.note;
    struct log_field job = log_job(&effect->as.note.job_id);
    if (!effect->as.note.has_job) {
        job = log_text("job", NULL); /* left out */
    }
    log_at(telemetry->log, note_level(note), note_message(note), job,
           text_field("tenant", effect->as.note.tenant),
           text_field("subject", effect->as.note.subject),
           text_field("reason", effect->as.note.text), log_int("number", effect->as.note.number));
}
