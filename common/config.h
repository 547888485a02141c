/*
 * config: tiermq.yaml, the one configuration file of all programs.
 *
 * One table of keys (config_keys.c: path, type, unit, default, range, text, reloadable) is the source for parsing,
 * checking, `tiermq config show` and docs/configuration.md. libyaml gives each node its line and column, so every
 * error names file, line, column, key, value and remedy; all errors are reported at once. `${NAME}` in a scalar is
 * replaced from the environment after parsing (an unset variable is an error unless `${NAME:-default}`).
 * Durations are written 250ms, 30s, 10m, 24h, 7d; sizes 512, 64KiB, 32MiB, 1GiB; money in USD with decimals.
 * A configuration is immutable: a reload makes a new one, and config_diff_restart() tells which changes need a restart.
 * Anchors, aliases, tags, a second document, nesting deeper than any key needs, and files over 1 MiB are refused.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "common/attributes.h"

enum {
    CONFIG_TIERS_MAX = 16,
    CONFIG_POOLS_MAX = 64,
    CONFIG_RESIDENCIES_MAX = 30, /* different labels of all providers */
    CONFIG_CANDIDATES_MAX = 16,  /* models at providers that may serve one route in one tier */
    CONFIG_NAME_BYTES_MAX = 64, /* tier, pool, tenant, model, provider, route: [A-Za-z0-9._:/@-]+ */
};

enum config_durability { DURABILITY_NONE, DURABILITY_FSYNC };
enum config_store { STORE_ROCKSDB, STORE_MEMORY };
enum config_cache_mode { CACHE_OFF, CACHE_EXACT, CACHE_NEAR };
enum config_provider_type {
    PROVIDER_OPENAI,
    PROVIDER_ANTHROPIC,
    PROVIDER_GEMINI,
    PROVIDER_AZURE,
    PROVIDER_OPENAI_RESPONSES,
};
enum config_embedder_kind { EMBEDDER_BUILTIN, EMBEDDER_STATIC, EMBEDDER_HTTP };
enum config_switch { SWITCH_OFF, SWITCH_ON };
enum config_choice { CHOICE_SCORED, CHOICE_LISTED };
enum config_judge { CONFIG_JUDGE_EQUAL, CONFIG_JUDGE_JSON, CONFIG_JUDGE_EMBEDDING, CONFIG_JUDGE_MODEL };

enum { CONFIG_COMBINE_LINGER_MS_MAX = 1000, CONFIG_COMBINE_JOBS_MAX = 256 };

/*
 * tiers[]: a position among latency, cost, reliability and quality. Default set: realtime, standard, background. A given
 * list replaces the set; an entry with the name of a default one starts from that one's values, any other from those of
 * standard without a guaranteed share.
 */
struct config_tier {
    char *name;
    uint32_t weight;                /* share of dispatch: 60 / 30 / 10 */
    uint32_t share_min_percent;     /* guaranteed share of dispatch while it has work: 0 / 10 / 5 */
    uint32_t slots_reserved_percent; /* of each worker's slots, for this tier alone: 25 / 0 / 0 */
    enum config_durability durability;
    char *pool;                     /* default "default" */
    int64_t deadline_ms;            /* when a job names none: 30 s / 10 min / 24 h */
    uint32_t attempts_max;          /* 3 / 5 / 10 */
    int64_t backoff_first_ms;       /* 100 ms / 1 s / 10 s */
    int64_t backoff_max_ms;         /* 2 s / 60 s / 10 min */
    uint64_t jobs_max;              /* 20 000 / 1 000 000 / 10 000 000 */
    uint64_t bytes_max;             /* payload bytes waiting: 256 MiB / 16 GiB / 64 GiB */
    int64_t cache_ttl_ms;           /* 24 h */
    int64_t cache_stale_while_revalidate_ms; /* 0 */
    int64_t cache_stale_if_error_ms;         /* 1 h */
    enum config_switch cache_stale_at_once;  /* at the first failure: on / off / off */
    uint32_t cache_max_error_permille;       /* wrong share of near hits: 20; 0: none are served */
    uint32_t quality_min;           /* no model of a lower grade is chosen or stands in for another: 0 */
    uint32_t weight_quality, weight_price, weight_latency; /* of a choice between models, of 100: common/choice.h */
    uint32_t hedge_share_permille;  /* second attempts as a share of calls, and of their cost: 50 / 0 / 0 */
    /* What may be left out of a prompt: worker/prompt/optimise.h. */
    enum config_switch prompt_space;   /* off / on / on */
    enum config_switch prompt_repeats; /* off */
    enum config_switch prompt_prefix;  /* off / on / on */
    uint64_t prompt_history_tokens_max;  /* 0: all is sent */
    uint64_t prompt_passages_tokens_max; /* 0: all are sent */
    int64_t combine_linger_ms;      /* how long a job may wait for others to share its call: 0; at most 1 s */
    uint32_t combine_jobs_max;      /* of one call: 16 */
    int64_t shed_target_ms;         /* CoDel: waits above it for long shed jobs; 0 never. Tiers without durability only */
};

/* tenants[]: who pays. Default: one tenant "default". */
struct config_tenant {
    char *name;
    uint32_t weight;     /* share among tenants of a queue: 1 to 1000, default 1 */
    uint64_t jobs_max;   /* over all tiers; default 5 000 000 */
    uint64_t bytes_max;  /* default 32 GiB */
    uint32_t cache_max_error_permille; /* default 1000: the tier's */
    char **models;       /* that may answer it; none: all */
    size_t models_length;
    char *residency;     /* label that a provider must have; empty: any will do */
};

/* providers[].paths: what stands behind the base address instead of the type's path; "": the type's. {model} is the model. */
struct config_paths {
    char *chat;
    char *completions;
    char *embeddings;
    char *responses;
};

/* providers[]: an endpoint with credentials. */
struct config_provider {
    char *name;
    enum config_provider_type type; /* openai speaks to every compatible server */
    char *base_url;                 /* http://127.0.0.1:7790/v1 */
    char *api_key;                  /* usually ${OPENAI_API_KEY}; empty: none is sent */
    char *key_header;               /* that carries the key; empty: what the type uses */
    char **headers;                 /* "Name: value", sent with each call */
    size_t headers_length;
    char *query;                    /* "a=b&c=d", behind each address; default: what the type needs */
    struct config_paths paths;
    int64_t connect_timeout_ms;     /* 5 s */
    int64_t timeout_ms;             /* whole call: 120 s */
    int64_t first_token_timeout_ms; /* of a stream, from its call's beginning: 30 s */
    int64_t idle_timeout_ms;        /* of a stream, from one piece to the next: 30 s */
    uint32_t connections_max;       /* open at once: 256 */
    uint64_t requests_per_min;      /* over all workers; 0: no limit known */
    uint64_t tokens_per_min;        /* over all workers; 0: no limit known */
    char **residency;               /* labels of where data stays: eu, us, … */
    size_t residency_length;
    enum config_switch prompt_cache; /* prefixes are marked for its own cache: off */
};

/* models[]: something a provider serves; given wherever providers are given. Prices are nano-dollars per million tokens (USD 0.15 = 150 000 000). */
struct config_model {
    char *name;           /* also a route */
    char *provider;       /* name of a provider */
    char **failover;      /* further providers of the same model, in order */
    size_t failover_length;
    char **fallback;      /* models that may stand in for it when a job names it; none: only itself may */
    size_t fallback_length;
    char *provider_model; /* what the provider calls it; default: name */
    uint64_t input_nanousd_per_mtok;
    uint64_t cached_input_nanousd_per_mtok; /* default: as input */
    uint64_t cache_write_nanousd_per_mtok, cache_write_long_nanousd_per_mtok;
    uint64_t output_nanousd_per_mtok;
    uint64_t request_nanousd; /* of a call */
    uint32_t batch_permille, flex_permille, priority_permille; /* of all that, by service tier: 500, 500, 2000 */
    uint32_t quality;     /* 0 to 100, operator's grade; default 50 */
    uint32_t max_tokens_default; /* assumed output bound when a request names none: 1024 */
    char **abilities;     /* names of common/choice.h; none: all */
    size_t abilities_length;
    uint64_t context_tokens; /* 0: not known */
    char *vocabulary;     /* a file to count its tokens by; none: they are estimated */
};

/* routes[]: an alias: the models that may serve it, by tier. `auto` exists always (all models in their order, unless given). */
struct config_route {
    char *name;
    char **models;        /* preferred first, for tiers without a list of their own */
    size_t models_length;
    struct config_route_tier {
        char *tier;
        char **models;
        size_t models_length;
    } *tiers;             /* routes[].tiers: {realtime: [small, big], …} */
    size_t tiers_length;
    enum config_choice choice; /* scored */
};

struct config_broker {
    char *name;                  /* default "broker" */
    char *listen_clients;        /* tcp://127.0.0.1:7700 */
    char *listen_workers;        /* tcp://127.0.0.1:7701 */
    char *listen_events;         /* tcp://127.0.0.1:7702 */
    char *admin;                 /* 127.0.0.1:7710 or unix:/path */
    char *data_dir;              /* /var/lib/tiermq/broker */
    enum config_store store;     /* rocksdb */
    uint64_t payload_bytes_max;  /* 8 MiB */
    uint64_t memory_payload_bytes_max; /* payloads of waiting durable jobs kept in memory: 64 MiB */
    int64_t lease_ms;            /* 15 s: a worker silent for so long loses its jobs */
    int64_t heartbeat_ms;        /* 3 s */
    int64_t reclaim_ms;          /* after a restart, recovered jobs wait so long for their workers: 2 s */
    int64_t result_ttl_ms;       /* 1 h */
    uint64_t results_bytes_max;  /* 4 GiB on disk */
    uint64_t results_memory_bytes_max; /* results of tiers without durability: 64 MiB */
    int64_t dedup_window_ms;     /* 1 h */
    uint64_t dedup_ids_max;      /* 500 000: with more, the window gets shorter */
    uint64_t dead_letters_max;   /* 100 000 */
    int64_t drain_timeout_ms;    /* grace for leases at shutdown: 10 s */
    uint64_t clients_max;        /* 10 000 */
    uint64_t workers_max;        /* 4 096 */
    uint32_t losses_max;         /* leases that a job may lose with their workers: 5 */
    uint64_t stream_log_bytes_max; /* of one stream, for those who join it late: 256 KiB */
    uint64_t rocksdb_write_buffer_bytes; /* 16 MiB */
    uint64_t rocksdb_block_cache_bytes;  /* 8 MiB */
};

/* When an upstream (a model at a provider) is taken to be down, and how it comes back. */
struct config_breaker {
    uint32_t failures;            /* in a row: 5 */
    uint32_t failure_share_permille; /* of the calls in the window: 0.5 */
    uint32_t calls_min;           /* before a share counts: 20 */
    int64_t window_ms;            /* 10 s */
    int64_t slow_call_ms;         /* a call that takes longer is slow; 0: none is */
    uint32_t slow_share_permille; /* of the calls in the window: 0.8 */
    int64_t open_first_ms;        /* until the first probe: 1 s; doubles with each that fails */
    int64_t open_max_ms;          /* 10 s */
    uint32_t slow_start_per_s;    /* dispatches a second after reopening; doubles each second: 20 */
};

/* Retries as a share of traffic, by route. */
struct config_retries {
    uint32_t share_permille;      /* of first attempts: 0.1 */
    uint32_t least_per_min;       /* granted whatever the traffic: 60 */
    uint32_t burst;               /* saved up at most: 20 */
};

/* What money is reckoned with. */
/* cost.pools[]: what the workers of a pool cost. */
struct config_cost_pool {
    char *name;
    uint64_t worker_nanousd_per_hour, gpu_nanousd_per_hour; /* UINT64_MAX: as those of `cost` */
};

struct config_cost {
    char *reference_model;        /* what routing is compared with; empty: nothing */
    uint32_t keep_days;           /* of the ledger: 92 */
    uint64_t rows_max;            /* of it: 20 000 */
    uint64_t worker_nanousd_per_hour, gpu_nanousd_per_hour; /* of pools that are not below: 0 */
    uint64_t storage_nanousd_per_gb_month, traffic_nanousd_per_gb; /* 0 */
    struct config_cost_pool *pools;
    size_t pools_length;
};

/* budgets[]: what may be spent, by a tenant, in a tier, or by a tenant in a tier. Unlimited: UINT64_MAX. */
struct config_budget {
    char *name;
    char *tenant, *tier;          /* empty: all */
    uint64_t daily_nanousd, monthly_nanousd;
    uint32_t soft_permille;       /* from which on cheaper models are taken: 1000, never */
};

/* How the broker learns which model is good enough, and what a step down costs. */
struct config_routing {
    enum config_switch learn;        /* from feedback: off */
    uint32_t explore_share_permille; /* of the choices that try another model for that: 0.05 */
    uint32_t stale_grades;           /* that a stale answer is thought to be worse: 5 */
    uint32_t near_grades;            /* that a near hit is: 2 */
    uint32_t prefix_permille;        /* of a score, for a provider that has the prompt's beginning: 0.05 */
    char **complexity_weights;       /* "feature=number" instead of built-in ones; none */
    size_t complexity_weights_length;
};

struct config_worker {
    char **brokers;              /* tcp://127.0.0.1:7701 … one connection each */
    size_t brokers_length;
    char **events;               /* tcp://127.0.0.1:7702 … in the order of brokers */
    size_t events_length;
    char *name;                  /* default: host name and process id */
    char **pools;                /* [default] */
    size_t pools_length;
    uint32_t slots;              /* jobs at once: 256 */
    uint32_t gpus;               /* that the pool has by it, for what it costs: 0 */
    char *admin;                 /* 127.0.0.1:7720 */
    char *data_dir;              /* /var/lib/tiermq/worker */
    int64_t drain_timeout_ms;    /* 30 s */
    int64_t answers_ttl_ms;      /* how long unconcluded answers are kept: 10 min */
    uint64_t answers_bytes_max;  /* 64 MiB */
};

enum { EMBEDDER_LABELS_MAX = 16 };
/* cache.embedder: who makes the vectors by which requests are similar. */
struct config_embedder {
    enum config_embedder_kind kind; /* builtin */
    char *path;                  /* static: the folder of the model: /var/lib/tiermq/embedder */
    char *base_url;              /* http: http://127.0.0.1:11434/v1 */
    char *model;                 /* http: what the server calls it */
    char *api_key;               /* http: usually ${OPENAI_API_KEY}; empty: none is sent */
    uint32_t dim;                /* http: of its vectors; 0 otherwise */
    enum config_switch asks_for_dim; /* http: sends `dimensions`: off */
    uint32_t batch_max;          /* http: texts in a request: 16 */
    int64_t batch_wait_ms;       /* http: for others to go with a text: 2 ms */
    int64_t timeout_ms;          /* http: of a request: 1 s */
    uint64_t vectors_max;        /* http: kept in memory by text: 10 000 */
    char **residency;            /* http: labels, as a provider's; EMBEDDER_LABELS_MAX at most */
    size_t residency_length;
};

struct config_cache {
    enum config_cache_mode mode; /* exact */
    enum config_switch is_strict; /* guards alone forbid near hits: off */
    enum config_judge judge;     /* equal */
    uint32_t judge_cosine_min_permille;   /* judge embedding: 950 */
    uint32_t judge_false_accept_permille; /* 0 */
    uint32_t judge_false_reject_permille; /* 0 */
    char *judge_model, *judge_prompt;     /* judge model */
    uint32_t audit_share_permille, audit_share_max_permille; /* 30, 500 */
    char *audit_tier;            /* of the jobs that workers make: background; none: they make none */
    uint64_t entries_max;        /* 1 000 000 */
    uint64_t bytes_max;          /* 4 GiB on disk */
    uint64_t memory_bytes_max;   /* vectors: 256 MiB */
    int64_t lookup_timeout_ms;   /* later is a miss: 50 ms */
    uint32_t temperature_max_permille; /* not cached above: 500 */
    char *key_secret;                  /* usually ${TIERMQ_CACHE_SECRET}; empty: keys are plain hashes */
    int64_t time_words_ttl_ms;         /* 60 s; 0: they mean nothing */
    struct config_embedder embedder;
    uint64_t rocksdb_write_buffer_bytes; /* 8 MiB */
    uint64_t rocksdb_block_cache_bytes;  /* 8 MiB */
};

struct config_client {
    char **brokers;              /* tcp://127.0.0.1:7700 … */
    size_t brokers_length;
    char *tenant;                /* default "default" */
};

struct config_log {
    int level;                   /* enum log_level: info */
};

struct config {
    struct config_log log;
    struct config_broker broker;
    struct config_tier *tiers;
    size_t tiers_length;
    char **pools;                /* [default] */
    size_t pools_length;
    struct config_tenant *tenants;
    size_t tenants_length;
    struct config_provider *providers;
    size_t providers_length;
    struct config_model *models;
    size_t models_length;
    struct config_route *routes; /* without the models' own names; `auto` is always there */
    size_t routes_length;
    struct config_breaker breaker;
    struct config_retries retries;
    struct config_routing routing;
    struct config_cost cost;
    struct config_budget *budgets;
    size_t budgets_length;
    struct config_worker worker;
    struct config_cache cache;
    struct config_client client;
};

/* All errors of one reading (at most 100), in the order of the file. */
struct config_errors {
    struct config_error {
        char *text; /* "tiermq.yaml:12:5: broker.lease: \"5 parsecs\" is not a duration; write e.g. 15s" */
        size_t line, column;
    } *items;
    size_t length;
};
void config_errors_finish(struct config_errors *errors);

/*
 * The file to read: `argument` (of --config), else $TIERMQ_CONFIG, else ./tiermq.yaml or /etc/tiermq/tiermq.yaml where
 * there is one.
 * Gives: *ret_path, to be freed; NULL: none, so the defaults hold. Errors: -ENOMEM.
 */
MUST_USE int config_locate(const char *argument, char **ret_path);

/*
 * Reads and checks a file; path NULL: all defaults (with a provider and a model of the simulator at its usual port,
 * as deploy/tiermq.yaml has them).
 * Gives: *ret_config. On -EINVAL ret_errors has at least one item.
 * Errors: -EINVAL the file's content; -ENOENT, -EACCES … the file itself (one item as well); -ENOMEM.
 */
MUST_USE int config_read(const char *path, struct config **ret_config, struct config_errors *ret_errors);
/* The same from text; `name` stands for the file in messages. Used by tests and the fuzzer. */
MUST_USE int config_read_text(const char *text, size_t bytes, const char *name, struct config **ret_config,
                              struct config_errors *ret_errors);
void config_destroy(struct config **config);

/* Every key with its effective value as YAML that can be read again; secrets are written as "***" (api keys). */
MUST_USE int config_write(const struct config *config, FILE *out);
/* The reference: every key with type, unit, default, range, text, and whether SIGHUP changes it. Markdown. */
MUST_USE int config_write_reference(FILE *out);
/*
 * Which differences need a restart: writes one key path a line into `out` (may be NULL).
 * Returns their number.
 */
size_t config_diff_restart(const struct config *before, const struct config *after, FILE *out);
/*
 * The second half of a reload: puts what needs a restart from `running` into `next`, so that next holds what is in force.
 * Values are exchanged, not copied: who borrows such a text from `running` may go on, and `running` is only to be destroyed
 * (or restored by exchanging them again).
 */
void config_carry_over(struct config *running, struct config *next);

const struct config_model *config_find_model(const struct config *config, const char *name);
const struct config_provider *config_find_provider(const struct config *config, const char *name);
const struct config_route *config_find_route(const struct config *config, const char *name);
const struct config_tier *config_find_tier(const struct config *config, const char *name);

/* Of models' names; not owned. */
struct config_route_list {
    char *const *models;
    size_t length;
    bool is_of_tier; /* its own, not the route's for all */
};
/* The models of a route for a tier: those that it lists for that one, else those that it lists for all. */
struct config_route_list config_route_list(const struct config_route *route, const char *tier);

/* Bits of common/choice.h. */
uint32_t config_abilities(const struct config_model *model);
/*
 * The models that may answer a job of this tier on a route (a model's name or an alias), in order: the model itself and its fallbacks, or those
 * of the alias. Those below the tier's floor are left out, but for the one that is asked for by its name, and the first of a list that is not
 * scored; if it leaves none, which no configuration that was read has, the first is taken. Fills at most models_max; *ret_is_scored: the best is chosen, else the first. Returns how many.
 */
size_t config_candidates(const struct config *config, const char *route, const char *tier, uint32_t quality_min,
                         const struct config_model **ret_models, size_t models_max, bool *ret_is_scored);
