/*
 * The keys. A key is called like its field without the unit that its value is written with:
 * lease_ms is `lease: 15s`, temperature_max_permille is `temperature_max: 0.5`; sizes keep `_bytes`.
 */
#include "common/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/choice.h"
#include "common/complexity.h"
#include "common/config_schema.h"
#include "common/log.h"

#define FIELD(struct_, field_)                                                                     \
    .offset = offsetof(struct struct_, field_), .bytes = sizeof(((struct struct_ *)0)->field_)
#define LIST(struct_, field_)                                                                      \
    FIELD(struct_, field_), .length_offset = offsetof(struct struct_, field_##_length)
#define SCHEMA(struct_, keys_)                                                                     \
    .keys = keys_, .length = ARRAY_LENGTH(keys_), .bytes = sizeof(struct struct_)

static const char *const words_log_level[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug", NULL};
static const char *const words_durability[] = {
    [DURABILITY_NONE] = "none", [DURABILITY_FSYNC] = "fsync", NULL};
static const char *const words_store[] = {
    [STORE_ROCKSDB] = "rocksdb", [STORE_MEMORY] = "memory", NULL};
static const char *const words_cache_mode[] = {
    [CACHE_OFF] = "off", [CACHE_EXACT] = "exact", [CACHE_NEAR] = "near", NULL};
static const char *const words_provider_type[] = {
    [PROVIDER_OPENAI] = "openai",
    [PROVIDER_ANTHROPIC] = "anthropic",
    [PROVIDER_GEMINI] = "gemini",
    [PROVIDER_AZURE] = "azure",
    [PROVIDER_OPENAI_RESPONSES] = "openai-responses",
    NULL};
static const char *const words_embedder[] = {[EMBEDDER_BUILTIN] = "builtin",
                                             [EMBEDDER_STATIC] = "static",
                                             [EMBEDDER_HTTP] = "http",
                                             NULL};
static const char *const words_judge[] = {[CONFIG_JUDGE_EQUAL] = "equal",
                                          [CONFIG_JUDGE_JSON] = "json",
                                          [CONFIG_JUDGE_EMBEDDING] = "embedding",
                                          [CONFIG_JUDGE_MODEL] = "model",
                                          NULL};
static const char *const words_choice[] = {
    [CHOICE_SCORED] = "scored", [CHOICE_LISTED] = "listed", NULL};
static const char *const words_switch[] = {[SWITCH_OFF] = "off", [SWITCH_ON] = "on", NULL};

#define MILLISECOND_MAX    INT64_C(31536000000) /* a year: what is longer is a mistake */
#define DURATIONS(min_)    .kind = KIND_DURATION, .min = (min_), .max = MILLISECOND_MAX
#define COUNTS(min_, max_) .kind = KIND_INTEGER, .min = (min_), .max = (max_)
#define SIZES(min_, max_)  .kind = KIND_SIZE, .min = (min_), .max = (max_)
#define KIB                INT64_C(1024)
#define MIB                (1024 * KIB)
#define GIB                (1024 * MIB)
#define TIB                (1024 * GIB)
#define MULTIPLIERS        .kind = KIND_FRACTION, .min = 0, .max = 100000, .is_live = true
#define MONEYS             .kind = KIND_MONEY, .min = 0, .max = INT64_C(1000000000000000000) /* a billion dollars */
#define PRICES                                                                                     \
    .kind = KIND_MONEY, .min = 0, .max = INT64_C(1000000000000000) /* a million dollars */

/* ---------------------------------------------------------------------------------- sections */

static const struct config_key log_keys[] = {
    {"level", KIND_ENUM, .words = words_log_level, FIELD(config_log, level), .is_live = true,
     .preset = "info", .text = "The least important messages that are written."},
};
static const struct config_schema log_schema = {SCHEMA(config_log, log_keys)};

static bool broker_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_broker *broker = object;
    if (broker->heartbeat_ms * 2 > broker->lease_ms) {
        ret_complaint->key = "heartbeat";
        snprintf(ret_complaint->text, sizeof(ret_complaint->text),
                 "is more than half of broker.lease, so that one late heartbeat loses every lease; "
                 "write at most "
                 "%" PRId64 "ms",
                 broker->lease_ms / 2);
        return false;
    }
    const char *const listen[] = {broker->listen_clients, broker->listen_workers,
                                  broker->listen_events};
    static const char *const names[] = {"listen_clients", "listen_workers", "listen_events"};
    for (size_t i = 1; i < ARRAY_LENGTH(listen); i++) {
        for (size_t j = 0; j < i; j++) {
            const size_t bytes = strlen(listen[i]);
            const bool is_any_port = bytes > 2 && (strcmp(listen[i] + bytes - 2, ":0") == 0 ||
                                                   strcmp(listen[i] + bytes - 2, ":*") == 0);
            if (!is_any_port && strcmp(listen[i], listen[j]) == 0) {
                ret_complaint->key = names[i];
                snprintf(ret_complaint->text, sizeof(ret_complaint->text),
                         "is the same endpoint as broker.%s; give each its own port", names[j]);
                return false;
            }
        }
    }
    return true;
}

static const struct config_key broker_keys[] = {
    {"name", KIND_NAME, FIELD(config_broker, name), .preset = "broker",
     .text = "What the broker calls itself to clients and workers; different for each broker of a "
             "cluster."},
    {"listen_clients", KIND_BIND, FIELD(config_broker, listen_clients),
     .preset = "tcp://127.0.0.1:7700",
     .text = "Where clients connect. `tcp://*:7700` listens on every interface, port `0` takes any "
             "free one."},
    {"listen_workers", KIND_BIND, FIELD(config_broker, listen_workers),
     .preset = "tcp://127.0.0.1:7701", .text = "Where workers connect."},
    {"listen_events", KIND_BIND, FIELD(config_broker, listen_events),
     .preset = "tcp://127.0.0.1:7702",
     .text = "Where workers and observers subscribe to announcements."},
    {"admin", KIND_HTTP_ADDRESS, FIELD(config_broker, admin), .preset = "127.0.0.1:7710",
     .text = "Health, metrics and the operator's HTTP interface: `host:port` or `unix:/path`. "
             "Calls that change "
             "something are answered on loopback and unix sockets only."},
    {"data_dir", KIND_PATH, FIELD(config_broker, data_dir), .preset = "/var/lib/tiermq/broker",
     .text = "The database. Belongs to one broker at a time."},
    {"store", KIND_ENUM, .words = words_store, FIELD(config_broker, store), .preset = "rocksdb",
     .text = "Where jobs are kept. `memory` keeps nothing over a restart, whatever a tier's "
             "durability says."},
    {"payload_bytes_max", SIZES(KIB, 256 * MIB), FIELD(config_broker, payload_bytes_max),
     .preset = "8MiB", .text = "The largest request or answer; larger ones are refused."},
    {"memory_payload_bytes_max", SIZES(MIB, TIB), FIELD(config_broker, memory_payload_bytes_max),
     .is_live = true, .preset = "64MiB",
     .text = "Payloads of waiting durable jobs that are kept in memory as well; others are loaded "
             "before dispatch."},
    {"lease", DURATIONS(100), FIELD(config_broker, lease_ms), .preset = "15s",
     .text = "A worker that is silent for so long loses its jobs to others."},
    {"heartbeat", DURATIONS(10), FIELD(config_broker, heartbeat_ms), .preset = "3s",
     .text = "How often workers and clients say that they live; at most half of `lease`."},
    {"reclaim", DURATIONS(0), FIELD(config_broker, reclaim_ms), .preset = "2s",
     .text = "After a restart, recovered jobs wait so long for the workers that had them; those whose lease was on "
             "disk, a whole `lease`."},
    {"result_ttl", DURATIONS(1000), FIELD(config_broker, result_ttl_ms), .is_live = true,
     .preset = "1h", .text = "How long results wait to be collected."},
    {"results_bytes_max", SIZES(MIB, 1024 * TIB), FIELD(config_broker, results_bytes_max),
     .is_live = true, .preset = "4GiB",
     .text = "Results kept on disk; with more, the oldest go early."},
    {"results_memory_bytes_max", SIZES(MIB, TIB), FIELD(config_broker, results_memory_bytes_max),
     .is_live = true, .preset = "64MiB",
     .text =
         "Results of tiers without durability, kept in memory; with more, the oldest go early."},
    {"dedup_window", DURATIONS(1000), FIELD(config_broker, dedup_window_ms), .is_live = true,
     .preset = "1h",
     .text = "How long the ids and idempotency keys of concluded jobs are remembered, so that a "
             "resubmission is "
             "recognised."},
    {"dedup_ids_max", COUNTS(1000, INT64_C(1000000000)), FIELD(config_broker, dedup_ids_max),
     .preset = "500000",
     .text = "How many of them; with more, the window gets shorter. Each takes about 60 bytes of "
             "memory."},
    {"dead_letters_max", COUNTS(0, INT64_C(1000000000)), FIELD(config_broker, dead_letters_max),
     .is_live = true, .preset = "100000", .text = "Dead letters kept; with more, the oldest go."},
    {"drain_timeout", DURATIONS(0), FIELD(config_broker, drain_timeout_ms), .is_live = true,
     .preset = "10s",
     .text = "At shutdown, how long jobs that are being worked on may still conclude."},
    {"clients_max", COUNTS(1, 1000000), FIELD(config_broker, clients_max), .is_live = true,
     .preset = "10000", .text = "Client connections; more are refused."},
    {"workers_max", COUNTS(1, 1000000), FIELD(config_broker, workers_max), .is_live = true,
     .preset = "4096", .text = "Worker connections; more are refused."},
    {"losses_max", COUNTS(1, 1000), FIELD(config_broker, losses_max), .is_live = true,
     .preset = "5",
     .text = "A job whose worker was lost so often is taken for what ends workers, and becomes a "
             "dead letter."},
    {"stream_log_bytes_max", SIZES(0, GIB), FIELD(config_broker, stream_log_bytes_max),
     .is_live = true, .preset = "256KiB",
     .text = "What is kept of a running stream, so that who joins it late gets it from the start."},
    {"rocksdb_write_buffer_bytes", SIZES(MIB, GIB),
     FIELD(config_broker, rocksdb_write_buffer_bytes), .preset = "16MiB",
     .text = "RocksDB's memory for fresh writes. Larger was measured slower."},
    {"rocksdb_block_cache_bytes", SIZES(MIB, TIB), FIELD(config_broker, rocksdb_block_cache_bytes),
     .preset = "8MiB", .text = "RocksDB's memory for blocks read."},
};
static const struct config_schema broker_schema = {SCHEMA(config_broker, broker_keys),
                                                   .check = broker_check};

static bool worker_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_worker *worker = object;
    if (worker->brokers_length == worker->events_length) {
        return true;
    }
    ret_complaint->key = "events";
    snprintf(ret_complaint->text, sizeof(ret_complaint->text),
             "has %zu endpoints and worker.brokers has %zu; write one for each broker, in the same "
             "order",
             worker->events_length, worker->brokers_length);
    return false;
}

static const struct config_key worker_keys[] = {
    {"brokers", KIND_LIST, KIND_CONNECT, LIST(config_worker, brokers), .min = 1, .max = 256,
     .preset = "tcp://127.0.0.1:7701",
     .text = "The brokers' `listen_workers`; a worker serves all of them."},
    {"events", KIND_LIST, KIND_CONNECT, LIST(config_worker, events), .min = 1, .max = 256,
     .preset = "tcp://127.0.0.1:7702",
     .text = "The brokers' `listen_events`, in the order of `brokers`."},
    {"name", KIND_NAME, FIELD(config_worker, name), .otherwise = "host name and process id",
     .text = "What the worker calls itself; different for each worker. Best left out."},
    {"pools", KIND_LIST, KIND_NAME, NAMES_POOLS, LIST(config_worker, pools), .min = 1,
     .max = CONFIG_POOLS_MAX, .preset = "default", .text = "The pools that the worker belongs to."},
    {"slots", COUNTS(1, 65536), FIELD(config_worker, slots), .preset = "256",
     .text = "Jobs that the worker takes at once. They wait for models, so many fit on one core."},
    {"gpus", COUNTS(0, 1024), FIELD(config_worker, gpus), .preset = "0",
     .text = "GPUs that the worker's pool has by it, in it or in the model server beside it: what "
             "they cost is reckoned with `cost.gpu_usd_per_hour`."},
    {"admin", KIND_HTTP_ADDRESS, FIELD(config_worker, admin), .preset = "127.0.0.1:7720",
     .text =
         "Health and metrics over HTTP: `host:port` or `unix:/path`; port `0` takes any free one."},
    {"data_dir", KIND_PATH, FIELD(config_worker, data_dir), .preset = "/var/lib/tiermq/worker",
     .text = "The cache's database. Belongs to one worker at a time."},
    {"drain_timeout", DURATIONS(0), FIELD(config_worker, drain_timeout_ms), .is_live = true,
     .preset = "30s",
     .text = "At shutdown, how long jobs in work may still be answered; what remains goes back to "
             "the queue."},
    {"answers_ttl", DURATIONS(1000), FIELD(config_worker, answers_ttl_ms), .preset = "10m",
     .text = "How long an answer is kept that no broker has confirmed."},
    {"answers_bytes_max", SIZES(MIB, TIB), FIELD(config_worker, answers_bytes_max),
     .preset = "64MiB",
     .text = "Memory for such answers; with more, no new jobs are taken."},
};
static const struct config_schema worker_schema = {SCHEMA(config_worker, worker_keys),
                                                   .check = worker_check};

static bool breaker_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_breaker *breaker = object;
    if (breaker->open_first_ms <= breaker->open_max_ms) {
        return true;
    }
    ret_complaint->key = "open_max";
    snprintf(ret_complaint->text, sizeof(ret_complaint->text),
             "is shorter than open_first (%" PRId64 "ms); write at least that",
             breaker->open_first_ms);
    return false;
}

static const struct config_key breaker_keys[] = {
    {"failures", COUNTS(1, 10000), FIELD(config_breaker, failures), .is_live = true, .preset = "5",
     .text = "So many failed calls in a row open it. Rate limits are no failures."},
    {"failure_share", KIND_FRACTION, .min = 1, .max = 1000,
     FIELD(config_breaker, failure_share_permille), .is_live = true, .preset = "0.5",
     .text = "So many of the calls in `window`, when there were `calls_min`, open it."},
    {"calls_min", COUNTS(1, 1000000), FIELD(config_breaker, calls_min), .is_live = true,
     .preset = "20", .text = "Fewer calls in `window` say nothing about a share."},
    {"window", DURATIONS(100), FIELD(config_breaker, window_ms), .is_live = true, .preset = "10s",
     .text = "How far back calls are counted."},
    {"slow_call", DURATIONS(0), FIELD(config_breaker, slow_call_ms), .is_live = true,
     .preset = "0s", .text = "A call that takes longer is slow; `0s`: none is."},
    {"slow_share", KIND_FRACTION, .min = 1, .max = 1000,
     FIELD(config_breaker, slow_share_permille), .is_live = true, .preset = "0.8",
     .text = "So many slow calls in `window` open it."},
    {"open_first", DURATIONS(1), FIELD(config_breaker, open_first_ms), .is_live = true,
     .preset = "1s", .text = "Until the first probe; doubles with each probe that fails."},
    {"open_max", DURATIONS(1), FIELD(config_breaker, open_max_ms), .is_live = true,
     .preset = "10s", .text = "The longest time between probes."},
    {"slow_start_per_s", COUNTS(1, 1000000), FIELD(config_breaker, slow_start_per_s),
     .is_live = true, .preset = "20",
     .text = "Calls a second just after it has closed again; doubles each second up to the rate "
             "before, then grows slowly."},
};
static const struct config_schema breaker_schema = {SCHEMA(config_breaker, breaker_keys),
                                                    .check = breaker_check};

static const struct config_key retries_keys[] = {
    {"share", KIND_FRACTION, .min = 0, .max = 1000, FIELD(config_retries, share_permille),
     .is_live = true, .preset = "0.1",
     .text = "Retries and failovers of a route, as a share of its first attempts; beyond it jobs "
             "wait."},
    {"least_per_min", COUNTS(0, 1000000), FIELD(config_retries, least_per_min), .is_live = true,
     .preset = "60", .text = "Granted besides, however little traffic there is."},
    {"burst", COUNTS(1, 1000000), FIELD(config_retries, burst), .is_live = true, .preset = "20",
     .text = "As many are saved up at most."},
};
static const struct config_schema retries_schema = {SCHEMA(config_retries, retries_keys)};

static bool routing_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_routing *routing = object;
    struct complexity_weights weights;
    for (size_t i = 0; i < routing->complexity_weights_length; i++) {
        if (complexity_weight_set(&weights, routing->complexity_weights[i]) < 0) {
            ret_complaint->key = "complexity_weights";
            snprintf(ret_complaint->text, sizeof(ret_complaint->text),
                     "\"%.60s\" is no feature with a number from -100 to 100; write e.g. code=3.5",
                     routing->complexity_weights[i]);
            return false;
        }
    }
    return true;
}

static const struct config_key routing_keys[] = {
    {"learn", KIND_ENUM, .words = words_switch, FIELD(config_routing, learn), .is_live = true,
     .preset = "off",
     .text = "Whether feedback changes which model is chosen, by tenant and task."},
    {"explore_share", KIND_FRACTION, .min = 0, .max = 500,
     FIELD(config_routing, explore_share_permille), .is_live = true, .preset = "0.05",
     .text = "While it learns: of the attempts of jobs with a task, the share at most that tries "
             "another model, to know more of it."},
    {"stale_grades", COUNTS(0, 100), FIELD(config_routing, stale_grades), .is_live = true,
     .preset = "5", .text = "Grades of quality that a stale answer is reckoned to have lost."},
    {"near_grades", COUNTS(0, 100), FIELD(config_routing, near_grades), .is_live = true,
     .preset = "2", .text = "Grades of quality that a near hit is reckoned to have lost."},
    {"prefix_weight", KIND_FRACTION, .min = 0, .max = 500, FIELD(config_routing, prefix_permille),
     .is_live = true, .preset = "0.05",
     .text =
         "What a score may be below the best for a job to go where those go whose prompts begin "
         "alike, among providers of the same grade and price; 0: never."},
    {"complexity_weights", KIND_LIST, KIND_TEXT, LIST(config_routing, complexity_weights),
     .is_live = true, .min = 0, .max = COMPLEXITY_FEATURES + 1, .otherwise = "none",
     .text = "Weights of a prompt's features instead of the built-in ones, such as `code=3.5`, and "
             "`bias=-4`; the names are in docs/routing.md."},
};
static const struct config_schema routing_schema = {SCHEMA(config_routing, routing_keys),
                                                    .check = routing_check};

static const struct config_key cost_pool_keys[] = {
    {"name", KIND_NAME, .refers = NAMES_POOLS, FIELD(config_cost_pool, name), .text = "The pool."},
    {"worker_usd_per_hour", PRICES, FIELD(config_cost_pool, worker_nanousd_per_hour),
     .is_live = true, .otherwise = "`cost.worker_usd_per_hour`",
     .text = "What each of its workers costs while it is there."},
    {"gpu_usd_per_hour", PRICES, FIELD(config_cost_pool, gpu_nanousd_per_hour), .is_live = true,
     .otherwise = "`cost.gpu_usd_per_hour`",
     .text = "What each of its workers' GPUs costs while its worker is there."},
};
static const struct config_schema cost_pool_schema = {SCHEMA(config_cost_pool, cost_pool_keys)};

static const struct config_key cost_keys[] = {
    {"reference_model", KIND_TEXT, .refers = NAMES_MODELS, FIELD(config_cost, reference_model),
     .is_live = true, .preset = "",
     .text = "The model that would answer all if none were chosen: what routes save is counted "
             "against its price. Empty: it is not counted."},
    {"keep_days", COUNTS(1, 3660), FIELD(config_cost, keep_days), .is_live = true, .preset = "92",
     .text = "How many days the ledger keeps."},
    {"rows_max", COUNTS(100, 1000000), FIELD(config_cost, rows_max), .is_live = true,
     .preset = "20000",
     .text = "Rows of the ledger, one a day for each tenant, tier, model and provider, of 300 bytes of "
             "memory each. Beyond, what is spent is added to a row that names nobody."},
    {"worker_usd_per_hour", PRICES, FIELD(config_cost, worker_nanousd_per_hour), .is_live = true,
     .preset = "0", .text = "What a worker costs while it is there, in US dollars."},
    {"gpu_usd_per_hour", PRICES, FIELD(config_cost, gpu_nanousd_per_hour), .is_live = true,
     .preset = "0", .text = "What each of a worker's `gpus` costs while the worker is there."},
    {"storage_usd_per_gb_month", PRICES, FIELD(config_cost, storage_nanousd_per_gb_month),
     .is_live = true, .preset = "0",
     .text = "What a gigabyte (10^9 bytes) of the broker's store costs for a month of 730 hours."},
    {"traffic_usd_per_gb", PRICES, FIELD(config_cost, traffic_nanousd_per_gb), .is_live = true,
     .preset = "0",
     .text = "What a gigabyte of messages to and from the broker costs."},
    {"pools", KIND_ITEMS, .schema = &cost_pool_schema, LIST(config_cost, pools), .is_live = true,
     .min = 0, .max = CONFIG_POOLS_MAX, .otherwise = "none",
     .text = "Pools whose workers cost something else than the others'."},
};
static const struct config_schema cost_schema = {SCHEMA(config_cost, cost_keys)};

static bool budget_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_budget *budget = object;
    const bool is_of_any = budget->tenant[0] != '\0' || budget->tier[0] != '\0';
    const bool is_limit = budget->daily_nanousd != CONFIG_PRICE_UNKNOWN ||
                          budget->monthly_nanousd != CONFIG_PRICE_UNKNOWN;
    if (is_of_any && is_limit) {
        return true;
    }
    ret_complaint->key = "";
    snprintf(ret_complaint->text, sizeof(ret_complaint->text), "%s; give one of them, or both",
             is_of_any ? "daily_usd and monthly_usd are both missing, so it limits nothing"
                       : "tenant and tier are both missing");
    return false;
}

static const struct config_key budget_keys[] = {
    {"name", KIND_NAME, FIELD(config_budget, name), .text = "What operators call it."},
    {"tenant", KIND_TEXT, .refers = NAMES_TENANTS, FIELD(config_budget, tenant), .is_live = true,
     .preset = "",
     .text = "Whose it is. Empty: all tenants' together."},
    {"tier", KIND_TEXT, .refers = NAMES_TIERS, FIELD(config_budget, tier), .is_live = true,
     .preset = "",
     .text = "What it is for. Empty: all tiers together."},
    {"daily_usd", MONEYS, FIELD(config_budget, daily_nanousd), .is_live = true,
     .otherwise = "no limit", .text = "What may be spent in a day of UTC, in US dollars."},
    {"monthly_usd", MONEYS, FIELD(config_budget, monthly_nanousd), .is_live = true,
     .otherwise = "no limit", .text = "What may be spent in a month of UTC, in US dollars."},
    {"soft_share", KIND_FRACTION, .min = 0, .max = 1000, FIELD(config_budget, soft_permille),
     .is_live = true, .preset = "1",
     .text = "The share of either from which on the cheapest model that will do is taken, where a "
             "route lets models be chosen. `1`: never."},
};
static const struct config_schema budget_schema = {SCHEMA(config_budget, budget_keys),
                                                   .check = budget_check};

static bool embedder_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_embedder *embedder = object;
    if (embedder->kind != EMBEDDER_HTTP || (embedder->model[0] != '\0' && embedder->dim > 0)) {
        return true;
    }
    const bool lacks_model = embedder->model[0] == '\0';
    ret_complaint->key = lacks_model ? "model" : "dim";
    snprintf(ret_complaint->text, sizeof(ret_complaint->text),
             lacks_model ? "is needed for kind http; write what the server calls the model"
                         : "is needed for kind http; write how many numbers a vector of the model "
                           "has");
    return false;
}

static const struct config_key embedder_keys[] = {
    {"kind", KIND_ENUM, .words = words_embedder, FIELD(config_embedder, kind), .preset = "builtin",
     .text = "`builtin` knows words alone and needs nothing, `static` looks vectors of words up in "
             "a model's files, `http` asks an embeddings endpoint. Vectors of one are never "
             "compared with another's."},
    {"path", KIND_PATH, FIELD(config_embedder, path), .preset = "/var/lib/tiermq/embedder",
     .text = "`static`: the folder with `model.safetensors` and `tokenizer.json`."},
    {"base_url", KIND_URL, FIELD(config_embedder, base_url), .preset = "http://127.0.0.1:11434/v1",
     .text = "`http`: up to and with the version; `/embeddings` is added."},
    {"model", KIND_TEXT, FIELD(config_embedder, model), .preset = "",
     .text = "`http`: what the server calls the model."},
    {"api_key", KIND_TEXT, .is_secret = true, FIELD(config_embedder, api_key), .preset = "",
     .text = "`http`: best from the environment: `${OPENAI_API_KEY}`. Empty: none is sent."},
    {"dim", COUNTS(0, 3072), FIELD(config_embedder, dim), .preset = "0",
     .text = "`http`: how many numbers a vector has; an answer with another number is a failure."},
    {"asks_for_dim", KIND_ENUM, .words = words_switch, FIELD(config_embedder, asks_for_dim),
     .preset = "off",
     .text = "`http`: whether `dimensions` is sent, for models that can shorten their vectors."},
    {"batch_max", COUNTS(1, 256), FIELD(config_embedder, batch_max), .preset = "16",
     .text = "`http`: texts in one request at most."},
    {"batch_wait", KIND_DURATION, .min = 0, .max = 1000, FIELD(config_embedder, batch_wait_ms),
     .preset = "2ms", .text = "`http`: how long a text waits for others to go with it."},
    {"timeout", KIND_DURATION, .min = 1, .max = 60000, FIELD(config_embedder, timeout_ms),
     .preset = "1s",
     .text = "`http`: a request that takes longer is a failure, and a lookup waits for a vector no longer: "
             "then it has exact hits only."},
    {"vectors_max", COUNTS(0, 10000000), FIELD(config_embedder, vectors_max), .preset = "10000",
     .text = "`http`: vectors kept in memory by their text, 4 bytes a dimension."},
    {"residency", KIND_LIST, KIND_NAME, LIST(config_embedder, residency), .min = 0, .max = EMBEDDER_LABELS_MAX,
     .otherwise = "none",
     .text = "`http`: labels of where data stays that is sent there. Texts of jobs that need another label "
             "are not sent, and have exact hits only (docs/routing.md)."},
};
static const struct config_schema embedder_schema = {SCHEMA(config_embedder, embedder_keys),
                                                     .check = embedder_check};

static const struct config_key cache_keys[] = {
    {"mode", KIND_ENUM, .words = words_cache_mode, FIELD(config_cache, mode), .preset = "exact",
     .text = "`exact` answers from the cache when the request is the same in canonical form, "
             "`near` also when it is "
             "similar enough, `off` never."},
    {"judge", KIND_ENUM, .words = words_judge, FIELD(config_cache, judge), .is_live = true, .preset = "equal",
     .text = "Who says whether two answers are the same: `equal` (but for case, spaces, punctuation), `json` (same content), "
             "`embedding` (near enough), `model` (judge_model is asked)."},
    {"judge_cosine_min", KIND_FRACTION, .min = 1, .max = 1000, FIELD(config_cache, judge_cosine_min_permille),
     .is_live = true, .preset = "0.95", .text = "Judge `embedding`: from which cosine on two answers are the same."},
    {"judge_false_accept", KIND_FRACTION, .min = 0, .max = 500, FIELD(config_cache, judge_false_accept_permille),
     .is_live = true, .preset = "0",
     .text = "How often the judge takes different answers for the same, at most. It is added to what is promised; a judge that errs "
             "more than cache_max_error keeps near hits off."},
    {"judge_false_reject", KIND_FRACTION, .min = 0, .max = 500, FIELD(config_cache, judge_false_reject_permille),
     .is_live = true, .preset = "0", .text = "How often it takes the same for different, at most."},
    {"judge_model", KIND_NAME, .refers = NAMES_ROUTES, FIELD(config_cache, judge_model), .is_live = true, .preset = "auto",
     .text = "Judge `model`: the route, or the model, of the jobs that ask it, in audit_tier."},
    {"judge_prompt", KIND_TEXT, FIELD(config_cache, judge_prompt), .is_live = true,
     .preset = "Do these two answers say the same to the one who asked? Reply with yes or no.",
     .text = "Judge `model`: what it is asked; both answers follow. Its reply must begin with yes or no."},
    {"audit_share", KIND_FRACTION, .min = 1, .max = 1000, FIELD(config_cache, audit_share_permille), .is_live = true,
     .preset = "0.03", .text = "The least share of near hits that are asked anew in the background and compared."},
    {"audit_share_max", KIND_FRACTION, .min = 1, .max = 1000, FIELD(config_cache, audit_share_max_permille),
     .is_live = true, .preset = "0.5", .text = "The greatest: while little is known, or the answers seem to change."},
    {"strict", KIND_ENUM, .words = words_switch, FIELD(config_cache, is_strict), .is_live = true, .preset = "off",
     .text = "Mode `near`: whatever the score, nothing is answered by an entry that differs in a "
             "number, a name, a negation, an order … (docs/cache.md)."},
    {"audit_tier", KIND_NAME, .refers = NAMES_TIERS_OR_NONE, FIELD(config_cache, audit_tier),
     .otherwise = "`background` if there is such a tier, else `none`",
     .text = "The tier of the jobs that refresh stale entries and check near hits; `none`: none are made."},
    {"entries_max", COUNTS(1, INT64_C(1000000000)), FIELD(config_cache, entries_max),
     .preset = "1000000", .text = "Entries kept; with more, those worth least go."},
    {"bytes_max", SIZES(MIB, 1024 * TIB), FIELD(config_cache, bytes_max), .preset = "4GiB",
     .text = "Entries kept on disk; with more, those worth least go."},
    {"memory_bytes_max", SIZES(MIB, TIB), FIELD(config_cache, memory_bytes_max), .preset = "256MiB",
     .text = "Mode `near`: memory for the index of texts: an entry takes about 1.3 KiB with the built-in "
             "embedder, 0.6 KiB and a byte a dimension with others."},
    {"lookup_timeout", DURATIONS(1), FIELD(config_cache, lookup_timeout_ms), .is_live = true,
     .preset = "5ms", .text = "A lookup that takes longer is a miss. Waiting for the vector of an embedder of kind `http` "
             "has its own time, cache.embedder.timeout."},
    {"temperature_max", KIND_FRACTION, .min = 0, .max = 10000,
     FIELD(config_cache, temperature_max_permille), .is_live = true, .preset = "0.5",
     .text = "Requests with a higher temperature are neither answered from the cache nor kept, unless they ask for it."},
    {"key_secret", KIND_TEXT, .is_secret = true, FIELD(config_cache, key_secret), .preset = "",
     .text = "Keys and scopes of entries are made with it, usually `${TIERMQ_CACHE_SECRET}`; the same at all workers. With another one, "
             "entries are not found any more (docs/cache.md); empty: plain hashes."},
    {"time_words_ttl", DURATIONS(0), FIELD(config_cache, time_words_ttl_ms), .is_live = true, .preset = "60s",
     .text = "Answers to texts with a word like today, now, latest, current or yesterday are served no longer than this, unless the "
             "request names a time itself; `0s`: as long as others."},
    {"embedder", KIND_SECTION, .schema = &embedder_schema, FIELD(config_cache, embedder),
     .text = "Mode `near`: who makes the vectors by which requests are similar."},
    {"rocksdb_write_buffer_bytes", SIZES(MIB, GIB), FIELD(config_cache, rocksdb_write_buffer_bytes),
     .preset = "8MiB", .text = "RocksDB's memory for fresh writes."},
    {"rocksdb_block_cache_bytes", SIZES(MIB, TIB), FIELD(config_cache, rocksdb_block_cache_bytes),
     .preset = "8MiB", .text = "RocksDB's memory for blocks read."},
};
static const struct config_schema cache_schema = {SCHEMA(config_cache, cache_keys)};

static const struct config_key client_keys[] = {
    {"brokers", KIND_LIST, KIND_CONNECT, LIST(config_client, brokers), .min = 1, .max = 256,
     .preset = "tcp://127.0.0.1:7700",
     .text = "The brokers' `listen_clients`."},
    {"tenant", KIND_NAME, FIELD(config_client, tenant), .preset = "default",
     .text = "Who pays for their jobs."},
};
static const struct config_schema client_schema = {SCHEMA(config_client, client_keys)};

/* ------------------------------------------------------------------------------------- lists */

static bool tier_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_tier *tier = object;
    if (tier->backoff_first_ms <= tier->backoff_max_ms) {
        return true;
    }
    ret_complaint->key = "backoff_max";
    snprintf(ret_complaint->text, sizeof(ret_complaint->text),
             "is shorter than backoff_first (%" PRId64 "ms); write at "
             "least that",
             tier->backoff_first_ms);
    return false;
}

static const struct config_key tier_keys[] = {
    {"name", KIND_NAME, FIELD(config_tier, name), .text = "What jobs ask for."},
    {"weight", COUNTS(1, 1000), FIELD(config_tier, weight), .is_live = true, .preset = "30",
     .text = "Share of dispatch against the other tiers that have work."},
    {"share_min_percent", COUNTS(0, 100), FIELD(config_tier, share_min_percent), .is_live = true,
     .preset = "0",
     .text = "Share of dispatch that is guaranteed while the tier has work; over all tiers at most "
             "100."},
    {"slots_reserved_percent", COUNTS(0, 100), FIELD(config_tier, slots_reserved_percent),
     .is_live = true, .preset = "0",
     .text = "Share of each worker's slots kept free for this tier; over all tiers at most 100."},
    {"durability", KIND_ENUM, .words = words_durability, FIELD(config_tier, durability),
     .preset = "fsync",
     .text = "`fsync`: a job is on disk before it is acknowledged; `none`: in memory alone."},
    {"pool", KIND_NAME, .refers = NAMES_POOLS, FIELD(config_tier, pool), .preset = "default",
     .text = "Workers that serve the tier, unless a job names others."},
    {"deadline", DURATIONS(1), FIELD(config_tier, deadline_ms), .is_live = true, .preset = "10m",
     .text = "For jobs that name none: a job that has no outcome by then is expired."},
    {"attempts_max", COUNTS(1, 1000), FIELD(config_tier, attempts_max), .is_live = true,
     .preset = "5", .text = "After so many failed attempts a job becomes a dead letter."},
    {"backoff_first", DURATIONS(1), FIELD(config_tier, backoff_first_ms), .is_live = true,
     .preset = "1s",
     .text =
         "Wait before the second attempt, on average half of it (full jitter); doubles with each."},
    {"backoff_max", DURATIONS(1), FIELD(config_tier, backoff_max_ms), .is_live = true,
     .preset = "60s", .text = "The longest such wait."},
    {"jobs_max", COUNTS(1, INT64_C(1000000000)), FIELD(config_tier, jobs_max), .is_live = true,
     .preset = "1000000",
     .text = "Pending jobs; more are refused with a time to retry. Each takes about 250 bytes of "
             "memory."},
    {"bytes_max", SIZES(MIB, 1024 * TIB), FIELD(config_tier, bytes_max), .is_live = true,
     .preset = "16GiB",
     .text = "Payload bytes of pending jobs; more are refused. In memory when durability is "
             "`none`, else on disk."},
    {"cache_ttl", DURATIONS(0), FIELD(config_tier, cache_ttl_ms), .is_live = true, .preset = "24h",
     .text = "How long answers to its jobs may be served from the cache; `0s`: they are not kept."},
    {"cache_max_error", KIND_FRACTION, .min = 0, .max = 1000, FIELD(config_tier, cache_max_error_permille),
     .is_live = true, .preset = "0.02",
     .text = "The greatest share of near hits that may be wrong; `0`: none are served."},
    {"cache_stale_while_revalidate", DURATIONS(0),
     FIELD(config_tier, cache_stale_while_revalidate_ms), .is_live = true, .preset = "0s",
     .text = "How long after its time an answer is still served, while a job in the background asks anew."},
    {"cache_stale_if_error", DURATIONS(0), FIELD(config_tier, cache_stale_if_error_ms),
     .is_live = true, .preset = "1h",
     .text = "How long after its time an answer is still served while the upstream is down, or to a "
             "job whose last attempt has failed."},
    {"cache_stale_at_once", KIND_ENUM, .words = words_switch,
     FIELD(config_tier, cache_stale_at_once), .is_live = true, .preset = "off",
     .text = "`on`: such an answer is served as soon as a call fails and no other upstream would be "
             "called now; `off`: the job is tried again, until the upstream is taken to be down."},
    {"quality_min", COUNTS(0, 100), FIELD(config_tier, quality_min), .is_live = true,
     .preset = "0",
     .text = "The quality floor: no model of a lower grade is chosen, or stands in for one that cannot "
             "serve. A route whose models for the tier are all below it is an error."},
    {"weight_quality", COUNTS(0, 100), FIELD(config_tier, weight_quality), .is_live = true,
     .preset = "60",
     .text = "What the chance of a good answer weighs where a model is chosen, of 100."},
    {"weight_price", COUNTS(0, 100), FIELD(config_tier, weight_price), .is_live = true,
     .preset = "30", .text = "What the price weighs there."},
    {"weight_latency", COUNTS(0, 100), FIELD(config_tier, weight_latency), .is_live = true,
     .preset = "10",
     .text = "What the time that a model takes weighs there, against the time that is left."},
    {"hedge_share", KIND_FRACTION, .min = 0, .max = 500, FIELD(config_tier, hedge_share_permille),
     .is_live = true, .preset = "0",
     .text = "Second calls at another provider, beside one that takes longer than 95 of 100, as a "
             "share of the calls, and of what they cost; `0`: none."},
    {"prompt_space", KIND_ENUM, .words = words_switch, FIELD(config_tier, prompt_space),
     .is_live = true, .preset = "on",
     .text = "White space and drawn lines that no answer hangs on are left out of the prompts of its "
             "chats (docs/prompts.md, as for the next four)."},
    {"prompt_repeats", KIND_ENUM, .words = words_switch, FIELD(config_tier, prompt_repeats),
     .is_live = true, .preset = "off",
     .text = "Messages and long paragraphs that have stood before in the same prompt are left out, with a "
             "note in the place of a paragraph."},
    {"prompt_prefix", KIND_ENUM, .words = words_switch, FIELD(config_tier, prompt_prefix),
     .is_live = true, .preset = "on",
     .text = "Tools are sent in the order of their names, and a long beginning is named, so that a provider "
             "with `prompt_cache` finds it again."},
    {"prompt_history_tokens_max", COUNTS(0, INT64_C(1000000000)),
     FIELD(config_tier, prompt_history_tokens_max), .is_live = true, .preset = "0",
     .text = "Tokens of a conversation; the oldest turns of a longer one are left out, never the system's "
             "messages and the latest turns. `0`: none is."},
    {"prompt_passages_tokens_max", COUNTS(0, INT64_C(1000000000)),
     FIELD(config_tier, prompt_passages_tokens_max), .is_live = true, .preset = "0",
     .text = "Tokens of all retrieved passages in a prompt; of more, those that share least with the "
             "question are left out. `0`: none is."},
    {"combine_linger", .kind = KIND_DURATION, .min = 0, .max = CONFIG_COMBINE_LINGER_MS_MAX,
     FIELD(config_tier, combine_linger_ms), .is_live = true, .preset = "0s",
     .text = "How long a job may wait at its worker for others to share its call: embeddings, and "
             "questions that are marked `batchable`. `0s`: each makes its own."},
    {"combine_jobs_max", COUNTS(2, CONFIG_COMBINE_JOBS_MAX), FIELD(config_tier, combine_jobs_max), .is_live = true,
     .preset = "16", .text = "Jobs that share one call at most."},
    {"shed_target", DURATIONS(0), FIELD(config_tier, shed_target_ms), .is_live = true,
     .preset = "0s",
     .text = "Where all jobs have waited longer than this for twice as long, some are shed, so that "
             "the others are in time; none is served that has waited twice as long. `0s`: none is "
             "shed. It has no effect with `durability: fsync`."},
};
static const struct config_schema tier_schema = {SCHEMA(config_tier, tier_keys),
                                                 .check = tier_check};

static const struct config_key tenant_keys[] = {
    {"name", KIND_NAME, FIELD(config_tenant, name), .text = "Who pays. Nothing crosses tenants."},
    {"weight", COUNTS(1, 1000), FIELD(config_tenant, weight), .preset = "1",
     .text = "Share of a queue against the other tenants that wait in it."},
    {"jobs_max", COUNTS(1, INT64_C(1000000000)), FIELD(config_tenant, jobs_max),
     .preset = "5000000",
     .text = "Pending jobs over all tiers; more are refused with a time to retry."},
    {"bytes_max", SIZES(KIB, 1024 * TIB), FIELD(config_tenant, bytes_max), .preset = "32GiB",
     .text = "Payload bytes of pending jobs over all tiers."},
    {"cache_max_error", KIND_FRACTION, .min = 0, .max = 1000, FIELD(config_tenant, cache_max_error_permille),
     .is_live = true, .preset = "1",
     .text = "The greatest share of its near hits that may be wrong, where that of the tier is larger; `0`: none are served."},
    {"models", KIND_LIST, KIND_NAME, NAMES_MODELS, LIST(config_tenant, models), .is_live = true,
     .min = 0, .max = 64, .otherwise = "all",
     .text = "The models that may answer its jobs."},
    {"residency", KIND_TEXT, FIELD(config_tenant, residency), .is_live = true, .preset = "",
     .text = "A label of `providers[].residency`: only those that have it are asked; one that none has is an "
             "error. A job may demand another one besides. Empty: any."},
};
static const struct config_schema tenant_schema = {SCHEMA(config_tenant, tenant_keys)};

/* The program sends these itself, or the library that it calls with. */
static bool is_own_header(const char *name, size_t bytes)
{
    static const char *const names[] = {"Content-Type", "Content-Length",  "Transfer-Encoding",
                                        "Expect",       "Idempotency-Key", "Host",
                                        "Connection",   "Accept-Encoding"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (strlen(names[i]) == bytes && strncasecmp(names[i], name, bytes) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_header(const char *line, const char *name)
{
    const size_t bytes = strlen(name);
    return strcspn(line, ":") == bytes && strncasecmp(line, name, bytes) == 0;
}

static bool refuse_header(const char *key, const char *line, const char *why,
                          struct config_complaint *ret_complaint)
{
    ret_complaint->key = key;
    snprintf(ret_complaint->text, sizeof(ret_complaint->text), "names the header %.*s %s",
             (int)strcspn(line, ":") > 64 ? 64 : (int)strcspn(line, ":"), line, why);
    return false;
}

/* Each header once, so that no server has to choose. */
static bool provider_check(const void *object, struct config_complaint *ret_complaint)
{
    static const char *const type_key_headers[] = {[PROVIDER_OPENAI] = "Authorization",
                                                   [PROVIDER_ANTHROPIC] = "x-api-key",
                                                   [PROVIDER_GEMINI] = "x-goog-api-key",
                                                   [PROVIDER_AZURE] = "api-key",
                                                   [PROVIDER_OPENAI_RESPONSES] =
                                                       "Authorization"};
    const struct config_provider *provider = object;
    const char *key_header = provider->key_header[0] == '\0' ? type_key_headers[provider->type]
                                                             : provider->key_header;
    if (is_own_header(key_header, strlen(key_header))) {
        return refuse_header("key_header", key_header, "that every call has already",
                             ret_complaint);
    }
    for (size_t i = 0; i < provider->headers_length; i++) {
        const char *line = provider->headers[i];
        if (is_own_header(line, strcspn(line, ":"))) {
            return refuse_header("headers", line, "that every call has already; leave it out",
                                 ret_complaint);
        }
        if (provider->type == PROVIDER_ANTHROPIC && is_header(line, "anthropic-version")) {
            return refuse_header("headers", line, "that this type sends itself; leave it out",
                                 ret_complaint);
        }
        if (provider->api_key[0] != '\0' && is_header(line, key_header)) {
            return refuse_header("headers", line, "that carries api_key; leave one of them out",
                                 ret_complaint);
        }
        for (size_t j = 0; j < i; j++) {
            const size_t bytes = strcspn(line, ":");
            if (strcspn(provider->headers[j], ":") == bytes &&
                strncasecmp(provider->headers[j], line, bytes) == 0) {
                return refuse_header("headers", line, "twice; leave one out", ret_complaint);
            }
        }
    }
    return true;
}

static const struct config_key paths_keys[] = {
    {"chat.completions", KIND_URL_PATH, FIELD(config_paths, chat), .preset = "",
     .text = "Such as `/deployments/{model}/chat`. A path with a `?` of its own is followed by `query` as well."},
    {"completions", KIND_URL_PATH, FIELD(config_paths, completions), .preset = "",
     .text = "Of the older operation."},
    {"embeddings", KIND_URL_PATH, FIELD(config_paths, embeddings), .preset = "",
     .text = "Of vectors."},
    {"responses", KIND_URL_PATH, FIELD(config_paths, responses), .preset = "",
     .text = "Of jobs with the operation `responses`."},
};
static const struct config_schema paths_schema = {SCHEMA(config_paths, paths_keys)};

static const struct config_key provider_keys[] = {
    {"name", KIND_NAME, FIELD(config_provider, name), .text = "What models refer to."},
    {"type", KIND_ENUM, .words = words_provider_type, FIELD(config_provider, type),
     .preset = "openai",
     .text =
         "The protocol. `openai` speaks to every compatible server (Ollama, llama.cpp, vLLM …); "
         "`anthropic` is the Messages API, `gemini` Google's Generative Language API, "
         "`azure` deployments of Azure OpenAI, `openai-responses` the Responses API for chats."},
    {"base_url", KIND_URL, FIELD(config_provider, base_url),
     .text = "Up to and with the version, such as `https://api.openai.com/v1` or "
             "`https://generativelanguage.googleapis.com/v1beta`; of `azure` the host "
             "alone, `https://RESOURCE.openai.azure.com`."},
    {"api_key", KIND_TEXT, .is_secret = true, FIELD(config_provider, api_key), .preset = "",
     .text = "Best from the environment: `${OPENAI_API_KEY}`. Empty: none is sent. `${NAME:-}` "
             "when only some of the "
             "programs that read the file have it."},
    {"key_header", KIND_HEADER_NAME, FIELD(config_provider, key_header), .preset = "",
     .text = "The header that carries the key, such as `api-key`. Empty: what the type uses. "
             "With `Authorization` the value is `Bearer KEY`, with any other the key alone."},
    {"headers", KIND_LIST, KIND_HEADER, .is_secret = true, LIST(config_provider, headers), .min = 0,
     .max = 32, .otherwise = "none",
     .text = "Further ones, sent with each call: `[\"X-Title: tests\", \"X-Token: ${TOKEN}\"]`."},
    {"query", KIND_QUERY, FIELD(config_provider, query),
     .otherwise = "`api-version=2024-10-21` for `azure`, else none",
     .text = "Put behind each address, encoded as it shall be sent: `api-version=2024-10-21`."},
    {"paths", KIND_SECTION, .schema = &paths_schema, FIELD(config_provider, paths),
     .otherwise = "those of the type",
     .text = "What stands behind `base_url` instead of the type's path, by operation. `{model}` is "
             "what the provider calls the model, percent-encoded. Empty: the type's path."},
    {"connect_timeout", DURATIONS(1), FIELD(config_provider, connect_timeout_ms), .preset = "5s",
     .text = "A connection that takes longer is a failure."},
    {"timeout", DURATIONS(1), FIELD(config_provider, timeout_ms), .preset = "120s",
     .text = "A call that takes longer is a failure; a job's deadline can end it earlier."},
    {"first_token_timeout", DURATIONS(1), FIELD(config_provider, first_token_timeout_ms),
     .preset = "30s",
     .text = "A stream whose first token takes longer is a failure, and asked for elsewhere: "
             "nothing of it was delivered."},
    {"idle_timeout", DURATIONS(1), FIELD(config_provider, idle_timeout_ms), .preset = "30s",
     .text = "A stream that has begun and brings nothing for longer is a failure."},
    {"connections_max", COUNTS(1, 65536), FIELD(config_provider, connections_max), .preset = "256",
     .text = "Connections of one worker that are open at once."},
    {"requests_per_min", COUNTS(0, INT64_C(1000000000)), FIELD(config_provider, requests_per_min),
     .preset = "0",
     .text = "What its key allows over all workers, in any minute; 0: what it says itself, if "
             "anything."},
    {"tokens_per_min", COUNTS(0, INT64_C(1000000000000)), FIELD(config_provider, tokens_per_min),
     .preset = "0", .text = "The same in tokens."},
    {"residency", KIND_LIST, KIND_NAME, LIST(config_provider, residency), .min = 0, .max = 16,
     .otherwise = "none",
     .text = "Labels of where data stays that is sent there, such as `eu`. At most 30 different ones."},
    {"prompt_cache", KIND_ENUM, .words = words_switch, FIELD(config_provider, prompt_cache),
     .preset = "off",
     .text = "Long beginnings of prompts are marked for the provider's own cache: `prompt_cache_key` for "
             "OpenAI and Azure, `cache_control` for Anthropic (docs/prompts.md). `off` for servers that "
             "refuse members they do not know."},
};
static const struct config_schema provider_schema = {SCHEMA(config_provider, provider_keys),
                                                     .check = provider_check};

static bool model_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config_model *model = object;
    for (size_t i = 0; i < model->abilities_length; i++) {
        if (choice_ability_find(model->abilities[i]) == 0) {
            ret_complaint->key = "abilities";
            snprintf(ret_complaint->text, sizeof(ret_complaint->text),
                     "\"%.40s\" is no ability; write some of tools, images, json, json_schema, "
                     "audio, logprobs, variants",
                     model->abilities[i]);
            return false;
        }
    }
    return true;
}

static const struct config_key model_keys[] = {
    {"name", KIND_NAME, FIELD(config_model, name),
     .text = "What jobs ask for; it is a route as well."},
    {"provider", KIND_NAME, .refers = NAMES_PROVIDERS, FIELD(config_model, provider),
     .text = "Who serves it."},
    {"failover", KIND_LIST, KIND_NAME, NAMES_PROVIDERS, LIST(config_model, failover), .min = 0,
     .max = 8, .otherwise = "none",
     .text = "Further providers of the same model, asked in this order when the first cannot "
             "serve."},
    {"fallback", KIND_LIST, KIND_NAME, NAMES_MODELS, LIST(config_model, fallback), .min = 0,
     .max = 8, .otherwise = "none",
     .text = "Models that may stand in when no provider can serve a job that names this one."},
    {"provider_model", KIND_TEXT, FIELD(config_model, provider_model), .otherwise = "`name`",
     .text = "What the provider calls it."},
    {"input_usd_per_mtok", PRICES, FIELD(config_model, input_nanousd_per_mtok), .preset = "0",
     .text = "Price of a million input tokens in US dollars."},
    {"cached_input_usd_per_mtok", PRICES, FIELD(config_model, cached_input_nanousd_per_mtok),
     .otherwise = "`input_usd_per_mtok`",
     .text = "Price of those that the provider had in its prompt cache."},
    {"cache_write_usd_per_mtok", PRICES, FIELD(config_model, cache_write_nanousd_per_mtok),
     .otherwise = "`input_usd_per_mtok`, at Anthropic 1.25 times that",
     .text = "Price of those that it put there for some minutes."},
    {"cache_write_long_usd_per_mtok", PRICES, FIELD(config_model, cache_write_long_nanousd_per_mtok),
     .otherwise = "`input_usd_per_mtok`, at Anthropic twice that",
     .text = "Price of those that it put there for an hour or longer."},
    {"output_usd_per_mtok", PRICES, FIELD(config_model, output_nanousd_per_mtok), .preset = "0",
     .text = "Price of a million output tokens in US dollars."},
    {"request_usd", PRICES, FIELD(config_model, request_nanousd), .preset = "0",
     .text = "Price of a call by itself in US dollars."},
    {"batch_price", MULTIPLIERS, FIELD(config_model, batch_permille), .preset = "0.5",
     .text = "What a call through the provider's batch service costs, as a part of all these prices."},
    {"flex_price", MULTIPLIERS, FIELD(config_model, flex_permille), .preset = "0.5",
     .text = "Likewise of its service tier `flex`."},
    {"priority_price", MULTIPLIERS, FIELD(config_model, priority_permille), .preset = "2",
     .text = "Likewise of its service tier `priority`."},
    {"quality", COUNTS(0, 100), FIELD(config_model, quality), .preset = "50",
     .text = "The operator's grade, against which quality floors are held."},
    {"max_tokens_default", COUNTS(1, 100000000), FIELD(config_model, max_tokens_default),
     .preset = "1024", .text = "Output tokens to reckon with when a request names no bound."},
    {"abilities", KIND_LIST, KIND_NAME, LIST(config_model, abilities), .min = 0, .max = ABILITIES,
     .otherwise = "all",
     .text = "What it can do of `tools`, `images`, `json`, `json_schema`, `audio`, `logprobs`, "
             "`variants` (several answers), `stored` (its provider has the response, conversation "
             "or prompt that a job of `responses` goes on from; never true of types without "
             "Responses); a job that needs another one is not sent to it."},
    {"context_tokens", COUNTS(0, INT64_C(1000000000)), FIELD(config_model, context_tokens),
     .preset = "0",
     .text = "The longest input; a job that is longer is not sent to it. `0`: not known."},
    {"vocabulary", KIND_TEXT, FIELD(config_model, vocabulary), .preset = "",
     .text = "A file to count tokens by where prompts are made shorter: ranks as tiktoken has them, or a "
             "`tokenizer.json` with a byte-level BPE. Read when a worker starts, or when a reload first names it, or again if it could not be read; "
             "empty: they are estimated."},
};
static const struct config_schema model_schema = {SCHEMA(config_model, model_keys),
                                                  .check = model_check};

static const struct config_key route_keys[] = {
    {"name", KIND_NAME, .refers = NAMES_NOT_MODELS, FIELD(config_route, name),
     .text = "The alias that jobs ask for; not a model's name."},
    {"models", KIND_LIST, KIND_NAME, NAMES_MODELS, LIST(config_route, models), .min = 1, .max = 64,
     .text = "The models that may serve it, preferred first."},
    {"choice", KIND_ENUM, .words = words_choice, FIELD(config_route, choice), .preset = "scored",
     .text = "`scored`: each job gets the model with the best score for it (docs/routing.md); the "
             "order decides between equals. `listed`: the first that can serve."},
    {"tiers", KIND_TIER_LISTS, .item_kind = KIND_NAME, .refers = NAMES_MODELS,
     LIST(config_route, tiers), .otherwise = "`models` for all",
     .text = "Other lists by tier: `{realtime: [small], background: [small, large]}`."},
};
static const struct config_schema route_schema = {SCHEMA(config_route, route_keys)};

/* -------------------------------------------------------------------------------------- root */

/* A job keeps the number of its label in a few bits. */
static bool residencies_check(const struct config *config, struct config_complaint *ret_complaint)
{
    const char *labels[CONFIG_RESIDENCIES_MAX];
    size_t length = 0;
    for (size_t i = 0; i < config->providers_length; i++) {
        for (size_t j = 0; j < config->providers[i].residency_length; j++) {
            size_t at = 0;
            while (at < length && strcmp(labels[at], config->providers[i].residency[j]) != 0) {
                at++;
            }
            if (at == CONFIG_RESIDENCIES_MAX) {
                ret_complaint->key = "providers";
                snprintf(ret_complaint->text, sizeof(ret_complaint->text),
                         "have more than %d different labels in residency; use fewer",
                         CONFIG_RESIDENCIES_MAX);
                return false;
            }
            if (at == length) {
                labels[length++] = config->providers[i].residency[j];
            }
        }
    }
    return true;
}

static bool root_check(const void *object, struct config_complaint *ret_complaint)
{
    const struct config *config = object;
    uint64_t share_percent = 0;
    uint64_t reserved_percent = 0;
    for (size_t i = 0; i < config->tiers_length; i++) {
        share_percent += config->tiers[i].share_min_percent;
        reserved_percent += config->tiers[i].slots_reserved_percent;
    }
    if (share_percent <= 100 && reserved_percent <= 100) {
        return residencies_check(config, ret_complaint);
    }
    ret_complaint->key = "tiers";
    snprintf(ret_complaint->text, sizeof(ret_complaint->text),
             "have a %s of %" PRIu64 " percent together; lower some to at most 100 in all",
             share_percent > 100 ? "share_min_percent" : "slots_reserved_percent",
             share_percent > 100 ? share_percent : reserved_percent);
    return false;
}

static const struct config_key root_keys[] = {
    {"log", KIND_SECTION, .schema = &log_schema, FIELD(config, log),
     .text = "The log of every daemon."},
    {"broker", KIND_SECTION, .schema = &broker_schema, FIELD(config, broker),
     .text = "`tiermq-broker`."},
    {"tiers", KIND_ITEMS, .schema = &tier_schema, .starts_from_default = true, LIST(config, tiers),
     .min = 1, .max = CONFIG_TIERS_MAX, .otherwise = "`realtime`, `standard`, `background`",
     .text = "Positions among latency, cost, reliability and quality. A list given here replaces "
             "the default set; a tier with the name of a default one starts from its values, any "
             "other from those below."},
    {"pools", KIND_LIST, KIND_NAME, LIST(config, pools), .min = 1, .max = CONFIG_POOLS_MAX,
     .preset = "default", .text = "Sets of workers with the same labels, such as regions."},
    {"tenants", KIND_ITEMS, .schema = &tenant_schema, LIST(config, tenants), .is_live = true,
     .min = 1, .max = 10000, .otherwise = "`default`", .text = "Who pays."},
    {"providers", KIND_ITEMS, .schema = &provider_schema, LIST(config, providers), .min = 1,
     .max = 256, .otherwise = "the simulator at its usual port",
     .text = "Endpoints with credentials."},
    {"models", KIND_ITEMS, .schema = &model_schema, LIST(config, models), .is_live = true, .min = 1,
     .max = 1024, .otherwise = "those of the simulator",
     .text = "What providers serve, with prices and grades. Whoever lists providers lists models "
             "as well."},
    {"routes", KIND_ITEMS, .schema = &route_schema, LIST(config, routes), .is_live = true, .min = 0,
     .max = 1024, .otherwise = "`auto`",
     .text = "Aliases of models. The route `auto` always exists: where it is not given it has all "
             "models in their order, with the default models an order for each tier."},
    {"breaker", KIND_SECTION, .schema = &breaker_schema, FIELD(config, breaker),
     .text = "When a model at a provider is taken to be down, and how it comes back."},
    {"retries", KIND_SECTION, .schema = &retries_schema, FIELD(config, retries),
     .text = "How many retries there may be, as a share of traffic."},
    {"routing", KIND_SECTION, .schema = &routing_schema, FIELD(config, routing),
     .text = "How models are chosen, and what choices are learned from."},
    {"cost", KIND_SECTION, .schema = &cost_schema, FIELD(config, cost),
     .text = "What money is reckoned with: docs/cost.md."},
    {"budgets", KIND_ITEMS, .schema = &budget_schema, LIST(config, budgets), .is_live = true,
     .min = 0, .max = 10000, .otherwise = "none", .text = "What may be spent: docs/cost.md."},
    {"worker", KIND_SECTION, .schema = &worker_schema, FIELD(config, worker),
     .text = "`tiermq-worker`."},
    {"cache", KIND_SECTION, .schema = &cache_schema, FIELD(config, cache),
     .text = "The workers' cache."},
    {"client", KIND_SECTION, .schema = &client_schema, FIELD(config, client),
     .text = "`tiermq` and other programs that use the client library through this file."},
};
const struct config_schema config_schema = {SCHEMA(config, root_keys), .check = root_check};

const char config_default_lists[] = "tiers:\n"
                                    "  - name: realtime\n"
                                    "    weight: 60\n"
                                    "    share_min_percent: 0\n"
                                    "    slots_reserved_percent: 25\n"
                                    "    durability: none\n"
                                    "    deadline: 30s\n"
                                    "    attempts_max: 3\n"
                                    "    backoff_first: 100ms\n"
                                    "    backoff_max: 2s\n"
                                    "    jobs_max: 20000\n"
                                    "    bytes_max: 256MiB\n"
                                    "    shed_target: 2s\n"
                                    "    cache_stale_at_once: on\n"
                                    "    prompt_space: off\n"
                                    "    prompt_prefix: off\n"
                                    "    weight_quality: 50\n"
                                    "    weight_price: 10\n"
                                    "    weight_latency: 40\n"
                                    "    hedge_share: 0.05\n"
                                    "  - name: standard\n"
                                    "    weight: 30\n"
                                    "    share_min_percent: 10\n"
                                    "  - name: background\n"
                                    "    weight: 10\n"
                                    "    share_min_percent: 5\n"
                                    "    deadline: 24h\n"
                                    "    attempts_max: 10\n"
                                    "    backoff_first: 10s\n"
                                    "    backoff_max: 10m\n"
                                    "    jobs_max: 10000000\n"
                                    "    bytes_max: 64GiB\n"
                                    "    weight_quality: 45\n"
                                    "    weight_price: 50\n"
                                    "    weight_latency: 5\n"
                                    "tenants:\n"
                                    "  - name: default\n"
                                    "providers:\n"
                                    "  - name: sim\n"
                                    "    base_url: http://127.0.0.1:7790/v1\n"
                                    "models:\n"
                                    "  - {name: sim-small, provider: sim, input_usd_per_mtok: "
                                    "0.15, cached_input_usd_per_mtok: 0.075, "
                                    "output_usd_per_mtok: 0.60, quality: 40}\n"
                                    "  - {name: sim-medium, provider: sim, input_usd_per_mtok: "
                                    "2.50, cached_input_usd_per_mtok: 1.25, "
                                    "output_usd_per_mtok: 10, quality: 70}\n"
                                    "  - {name: sim-large, provider: sim, input_usd_per_mtok: 10, "
                                    "cached_input_usd_per_mtok: 5, output_usd_per_mtok: 30, "
                                    "quality: 90}\n"
                                    "routes:\n"
                                    "  - name: auto\n"
                                    "    models: [sim-small, sim-medium, sim-large]\n"
                                    "    tiers:\n"
                                    "      realtime: [sim-small]\n"
                                    "      standard: [sim-medium, sim-large]\n"
                                    "      background: [sim-small]\n";
