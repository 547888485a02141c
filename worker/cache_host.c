#include "worker/cache_host.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/near_rules.h"
#include "worker/broker_link.h"
#include "worker/cache/ask_json.h"
#include "worker/cache/cache.h"
#include "worker/cache/cache_checks.h"
#include "worker/cache/cache_counts.h"
#include "worker/cache/decision.h"
#include "worker/cache/decision_seed.h"
#include "worker/cache/embed_builtin.h"
#include "worker/cache/lately.h"
#include "worker/cache/near_aside.h"
#include "worker/cache/near_policy.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache/wanted_errand.h"
#include "worker/cache_mail.h"
#include "worker/telemetry.h"

enum { CLASS_BYTES = TEXT_EMBEDDER_NAME_BYTES + 32, LINKS_MAX = 64, QUESTIONS_MAX = 64 };

/* A question for which the vectors of two texts are waited for. */
struct explanation {
    struct list_link list;
    struct cache_host *host;
    struct broker_link *link;
    uint64_t number; /* the broker's */
    json_t *argument;
    struct text_embedder_call *call;
};

struct cache_host {
    struct services *services;
    struct id_source ids;
    struct cache_counts counts;
    struct lately lately;
    char embedder[CLASS_BYTES];      /* of the class: embedder, versions, judge */
    char class_name[CLASS_BYTES];    /* the embedder's part of it */
    char judge[JUDGE_TEXT_BYTES];    /* the judge's */
    const struct threshold_seed *class_seed;
    char name[TEXT_EMBEDDER_NAME_BYTES]; /* of services.text_embedder */
    char *labels[EMBEDDER_LABELS_MAX];   /* its own: copies, since a reload replaces the configuration */
    size_t labels_length;
    struct threshold_seed dense_seed;
    struct wanted_errands *errands; /* NULL: vectors are not brought */
    struct list explanations;
    struct loop_timer *timer; /* until evidence is to be sent */
    struct broker_link *links[LINKS_MAX];
    size_t links_length;
    struct question {
        struct broker_link *link; /* NULL: free */
        uint64_t number;          /* the broker's */
    } questions[QUESTIONS_MAX];   /* asked of the cache, by number */
};

/* ---- what the cache tells ---- */

static struct broker_link *link_of(const struct cache_host *host, const char *endpoint)
{
    for (size_t i = 0; i < host->links_length; i++) {
        if (strcmp(broker_link_endpoint(host->links[i]), endpoint) == 0) {
            return host->links[i];
        }
    }
    return NULL;
}

static void failed(struct cache_host *host, const char *what, int r)
{
    log_at(host->services->log, LOG_ERROR, "the broker cannot be told", log_text("what", what),
           log_text("error", strerror(-r)));
}

static void applied(void *context, const char *endpoint, const uint8_t epoch[CACHE_EPOCH_BYTES],
                    uint64_t sequence, const Wire__CacheSelector *selector, uint64_t entries,
                    uint64_t bytes)
{
    struct cache_host *host = context;
    struct broker_link *link = link_of(host, endpoint);
    json_t *asked_for = ask_selector_object(selector);
    char *text = json_dumps(asked_for, JSON_COMPACT | JSON_REAL_PRECISION(10));
    log_at(host->services->log, LOG_INFO, "cache invalidated", log_text("broker", endpoint),
           log_int("sequence", sequence), log_text("selector", text), log_int("entries", entries),
           log_int("bytes", bytes));
    free(text);
    json_decref(asked_for);
    int r = link == NULL ? 0 : cache_mail_applied(broker_link_mail(link), epoch, sequence, entries, bytes);
    if (r < 0) {
        failed(host, "applied", r);
    }
    loop_again(host->services->loop);
}

/* The comparison has waited at the cache's thread: its broker may be gone. NULL: it is. */
static struct broker_link *link_known(const struct cache_host *host, struct broker_link *link)
{
    for (size_t i = 0; i < host->links_length; i++) {
        if (host->links[i] == link) {
            return link;
        }
    }
    return NULL;
}

/* A reload may have come while it waited: what another judge says is nothing for the class of now.
 */
static bool is_of_this_judge(const struct cache_host *host,
                             const struct cache_comparison *comparison)
{
    char judge[JUDGE_TEXT_BYTES];
    judge_describe(comparison->judge, comparison->judge_cosine_min, host->services->judge_model,
                   host->services->judge_prompt, judge);
    return strcmp(judge, host->judge) == 0;
}

static void compared(void *context, const struct cache_comparison *comparison, enum judge_verdict verdict)
{
    struct cache_host *host = context;
    verdict = is_of_this_judge(host, comparison) ? verdict : JUDGE_UNKNOWN;
    telemetry_cache_check(host->services->telemetry, "miss",
                          verdict == JUDGE_SAME        ? "same"
                          : verdict == JUDGE_DIFFERENT ? "different"
                                                       : "unknown");
    if (verdict == JUDGE_DIFFERENT &&
        comparison->score >=
            near_policy_doubt(host->services->near_policy, comparison->tenant, comparison->tier)) {
        cache_checks_deny(host->services, link_known(host, comparison->broker), comparison->key);
    }
    if (verdict != JUDGE_UNKNOWN) {
        near_policy_learned(host->services->near_policy, comparison->broker, comparison->tenant, comparison->tier,
                            comparison->score, THRESHOLD_MISS, verdict == JUDGE_SAME, 0);
    }
}

static void wanted(void *context, struct wanted *wanted)
{
    struct cache_host *host = context;
    wanted_errands_add(host->errands, &wanted);
}

static void brought(void *context, struct wanted **wanted)
{
    struct cache_host *host = context;
    cache_bring(host->services->cache, wanted);
}

/* ---- the embedder ---- */

static void rules_of(void *context, const char *tenant, const char *tier, struct threshold_policy *ret_policy)
{
    const struct cache_host *host = context;
    near_rules(host->services->config, tenant, tier, ret_policy);
}

/* The class of what is learned: whose vectors, the lexicon of the guards, the coefficients, the judge. What was learned and not sent is lost. */
static int renew_class(struct cache_host *host)
{
    struct near_policy *policy = NULL;
    (void)snprintf(host->embedder, sizeof(host->embedder), "%s/%u.%d/%s", host->class_name,
                   embed_builtin_version(), DECISION_VERSION, host->judge);
    int r = near_policy_create(host->embedder, host->class_seed, rules_of, host, &policy);
    if (r == 0) {
        near_policy_destroy(&host->services->near_policy);
        host->services->near_policy = policy;
    }
    return r;
}

static void describe_judge(const struct services *services, char ret_text[JUDGE_TEXT_BYTES])
{
    judge_describe(services->judge, services->judge_cosine_min, services->judge_model,
                   services->judge_prompt, ret_text);
}

static int set_class(struct cache_host *host, const char *name, const struct threshold_seed *seed)
{
    (void)snprintf(host->class_name, sizeof(host->class_name), "%s", name);
    host->class_seed = seed;
    describe_judge(host->services, host->judge);
    return renew_class(host);
}

/* Until then nothing near was asked, so nothing is lost. Without memory it stays without a class that any evidence is for. */
static void model_read(void *context, const char *name)
{
    struct cache_host *host = context;
    int r = set_class(host, name, &host->dense_seed);
    if (r < 0) {
        failed(host, "class", r);
    }
}

static int copy_labels(struct cache_host *host, const struct config_embedder *config)
{
    for (size_t i = 0; i < config->residency_length; i++) {
        host->labels[i] = strdup(config->residency[i]);
        if (host->labels[i] == NULL) {
            return -ENOMEM;
        }
        host->labels_length++;
    }
    return 0;
}

static int open_http(struct cache_host *host)
{
    char error[TEXT_EMBEDDER_ERROR_BYTES] = "";
    struct services *services = host->services;
    int r = text_embedder_create(&services->config->cache.embedder, services->loop, services->log,
                                 &services->text_embedder, error);
    if (r < 0) {
        return r;
    }
    text_embedder_name(services->text_embedder, host->name);
    r = copy_labels(host, &services->config->cache.embedder);
    r = r < 0 ? r : wanted_errands_create(services->loop, services->text_embedder, brought, host, &host->errands);
    r = r < 0 ? r : near_asides_create(services, &services->near_asides);
    return r < 0 ? r : set_class(host, host->name, &host->dense_seed);
}

static int open_embedder(struct cache_host *host)
{
    decision_seed_dense(&host->dense_seed);
    if (host->services->cache_mode != CACHE_NEAR) {
        return set_class(host, "builtin", decision_seed());
    }
    switch (host->services->config->cache.embedder.kind) {
    case EMBEDDER_BUILTIN:
        return set_class(host, "builtin", decision_seed());
    case EMBEDDER_STATIC: /* its name is known when the cache has read it */
        return set_class(host, "static", &host->dense_seed);
    case EMBEDDER_HTTP:
        return open_http(host);
    }
    return -EINVAL;
}

/* ---- opening ---- */

/* Makes the directory and those above it. What cannot be made shows when the cache opens. */
static void make_directories(const char *path)
{
    char *copy = strdup(path);
    for (char *at = copy; copy != NULL && (at = strchr(at + 1, '/')) != NULL;) {
        *at = '\0';
        (void)mkdir(copy, 0755);
        *at = '/';
    }
    (void)mkdir(path, 0755);
    free(copy);
}

static int open_cache(struct cache_host *host)
{
    struct services *services = host->services;
    const struct config_cache *config = &services->config->cache;
    const struct cache_handler handler = {.on_applied = applied,
                                          .on_compared = compared,
                                          .on_model = model_read,
                                          .on_wanted = host->errands == NULL ? NULL : wanted};
    const bool is_near = config->mode == CACHE_NEAR;
    char *path;
    if (asprintf(&path, "%s/cache", services->config->worker.data_dir) < 0) {
        return -ENOMEM;
    }
    make_directories(services->config->worker.data_dir);
    struct cache_options options = {
        .keeper = {.store = {.path = path,
                             .write_buffer_bytes = config->rocksdb_write_buffer_bytes,
                             .block_cache_bytes = config->rocksdb_block_cache_bytes},
                   .is_near = is_near,
                   .entries_max = config->entries_max,
                   .bytes_max = config->bytes_max,
                   .memory_bytes_max = config->memory_bytes_max},
        .static_folder = is_near && config->embedder.kind == EMBEDDER_STATIC ? config->embedder.path : NULL,
        .endpoints = (const char *const *)services->config->worker.brokers,
        .endpoints_length = services->config->worker.brokers_length,
    };
    if (services->text_embedder != NULL) {
        options.keeper.embedder =
            (struct keeper_embedder){.name = host->name,
                                     .dimensions = services->text_embedder->dim,
                                     .labels = host->labels,
                                     .labels_length = host->labels_length};
    }
    int r = cache_create(services->loop, services->log, &options, &handler, host, &services->cache);
    free(path);
    return r;
}

/* Its turn is all that it has to bring about. */
static void timer_due(void *context)
{
    (void)context;
}

int cache_host_open(struct services *services, struct cache_host **ret_host)
{
    services->cache_mode = services->config->cache.mode;
    *ret_host = NULL;
    if (services->cache_mode == CACHE_OFF) {
        return 0;
    }
    CLEANUP(cache_host_close) struct cache_host *host = calloc(1, sizeof(*host));
    if (host == NULL) {
        return -ENOMEM;
    }
    host->services = services;
    list_init(&host->explanations);
    services->embedder = host->embedder;
    services->began_unix_ms = clock_unix_ms();
    services->ids = &host->ids;
    cache_counts_init(&host->counts);
    services->cache_counts = &host->counts;
    services->lately = &host->lately;
    cache_host_set_judge(services);
    int r = id_source_init(&host->ids);
    r = r < 0 ? r : loop_timer_create(services->loop, timer_due, host, &host->timer);
    r = r < 0 ? r : open_embedder(host);
    r = r < 0 ? r : open_cache(host);
    if (r < 0) {
        return r;
    }
    *ret_host = TAKE(host);
    return 0;
}

static void explanation_release(struct explanation *explanation)
{
    list_remove(&explanation->host->explanations, &explanation->list);
    text_embedder_cancel(&explanation->call);
    json_decref(explanation->argument);
    free(explanation);
}

void cache_host_close(struct cache_host **host)
{
    struct cache_host *old = TAKE(*host);
    if (old == NULL) {
        return;
    }
    near_asides_destroy(&old->services->near_asides);
    cache_destroy(&old->services->cache);
    wanted_errands_destroy(&old->errands);
    while (!list_is_empty(&old->explanations)) {
        explanation_release(CONTAINER_OF(list_first(&old->explanations), struct explanation, list));
    }
    text_embedder_destroy(&old->services->text_embedder);
    for (size_t i = 0; i < old->labels_length; i++) {
        free(old->labels[i]);
    }
    near_policy_destroy(&old->services->near_policy);
    cache_counts_finish(&old->counts);
    loop_timer_destroy(&old->timer);
    free(old);
}

void cache_host_position(struct cache_host *host, size_t index, uint8_t ret_epoch[16], uint64_t *ret_sequence)
{
    *ret_sequence = 0;
    if (host != NULL && !cache_position(host->services->cache, index, ret_epoch, ret_sequence)) {
        /* Not known: as of another store, so that the broker says that this worker is behind. */
        memset(ret_epoch, 0xFF, CACHE_EPOCH_BYTES);
        *ret_sequence = 1;
    }
}

void cache_host_add(struct cache_host *host, struct broker_link *link)
{
    if (host != NULL && host->links_length < LINKS_MAX) {
        host->links[host->links_length++] = link;
    }
}

static double share_of(uint32_t permille)
{
    return (double)permille / 1000.0;
}

static enum judge_kind judge_of(enum config_judge judge)
{
    switch (judge) {
    case CONFIG_JUDGE_EQUAL:
        return JUDGE_EQUAL;
    case CONFIG_JUDGE_JSON:
        return JUDGE_JSON;
    case CONFIG_JUDGE_EMBEDDING:
        return JUDGE_EMBEDDING;
    case CONFIG_JUDGE_MODEL:
        return JUDGE_MODEL;
    }
    return JUDGE_EQUAL;
}

/* Its strings are those of the configuration. */
void cache_host_set_judge(struct services *services)
{
    const struct config_cache *cache = &services->config->cache;
    services->judge = judge_of(cache->judge);
    services->judge_cosine_min = share_of(cache->judge_cosine_min_permille);
    services->judge_model = cache->judge_model;
    services->judge_prompt = cache->judge_prompt;
}

/* Another one gives other labels. Without memory those of the former go on. */
static void judge_changed(struct cache_host *host)
{
    char judge[JUDGE_TEXT_BYTES];
    describe_judge(host->services, judge);
    if (strcmp(judge, host->judge) != 0) {
        (void)snprintf(host->judge, sizeof(host->judge), "%s", judge);
        host->services->judge_share = (struct judge_share){0};
        int r = renew_class(host);
        if (r < 0) {
            failed(host, "class", r);
        }
    }
}

void cache_host_reconfigure(struct cache_host *host)
{
    if (host != NULL) {
        cache_host_set_judge(host->services);
        near_policy_reconfigure(host->services->near_policy);
        judge_changed(host);
    }
}

/* ---- what brokers say ---- */

void cache_host_invalidate(struct cache_host *host, struct broker_link *link,
                           const Wire__CacheInvalidation *invalidation)
{
    static const uint8_t no_epoch[CACHE_EPOCH_BYTES] = {0};
    const bool has_epoch = invalidation->epoch.len == CACHE_EPOCH_BYTES;
    const uint8_t *epoch = has_epoch ? invalidation->epoch.data : no_epoch;
    if (host == NULL) { /* nothing is cached: it is applied */
        (void)!cache_mail_applied(broker_link_mail(link), epoch, invalidation->sequence, 0, 0);
        return;
    }
    cache_invalidate(host->services->cache, broker_link_endpoint(link), epoch, invalidation->sequence,
                     invalidation->selector);
}

void cache_host_behind(struct cache_host *host, struct broker_link *link, const uint8_t *epoch, uint64_t sequence)
{
    static const uint8_t no_epoch[CACHE_EPOCH_BYTES] = {0};
    if (host == NULL) {
        return;
    }
    log_at(host->services->log, LOG_WARN,
           "the broker cannot say what was invalidated while this worker was away: its cache is cleared",
           log_text("broker", broker_link_endpoint(link)));
    cache_invalidate(host->services->cache, broker_link_endpoint(link), epoch == NULL ? no_epoch : epoch,
                     sequence, NULL);
}

void cache_host_evidence(struct cache_host *host, struct broker_link *link, const Wire__CacheEvidence *evidence)
{
    if (host != NULL) {
        near_policy_take(host->services->near_policy, link, evidence);
    }
}

void cache_host_denial(struct cache_host *host, const Wire__CacheDenial *denial)
{
    if (host != NULL) {
        cache_checks_denied(host->services, denial);
    }
}

/* ---- questions ---- */

static void answer(struct cache_host *host, struct broker_link *link, uint64_t number, const char *text,
                   const char *error)
{
    int r = cache_mail_answer(broker_link_mail(link), number, text == NULL ? "" : text, error);
    if (r < 0) {
        failed(host, "answer", r);
    }
    loop_again(host->services->loop);
}

static void asked(void *context, uint64_t number, const char *text, const char *error)
{
    struct cache_host *host = context;
    struct question *question = &host->questions[number];
    answer(host, question->link, question->number, text, error);
    question->link = NULL;
}

struct classes {
    const struct cache_host *host;
    json_t *list;
};

static void add_class(void *context, const struct near_policy_view *view)
{
    const struct classes *classes = context;
    const struct threshold_verdict *verdict = view->verdict;
    const bool is_open = verdict->state == THRESHOLD_OPEN;
    json_t *class = json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:I, s:f, s:f}", "tenant", view->tenant, "tier",
                              view->tier, "embedder", classes->host->embedder, "why_closed", is_open ? "" : verdict->reason, "false_hit_rate", view->rate.estimate,
                              "false_hit_low", view->rate.low, "false_hit_high", view->rate.high, "evidence",
                              (json_int_t)view->rate.audits, "audit_share", verdict->audit_share, "labels",
                              is_open ? verdict->labels : 0.0);
    (void)json_object_set_new(class, "threshold", is_open ? json_real(verdict->threshold) : json_null());
    (void)json_object_set_new(class, "bound", is_open ? json_real(verdict->bound) : json_null());
    (void)json_array_append_new(classes->list, class);
}

void cache_host_read_embedder(struct cache_host *host, struct text_embedder_stats *ret_stats, bool *ret_is_down)
{
    struct cache_stats cache;
    *ret_stats = (struct text_embedder_stats){.texts = 0};
    *ret_is_down = false;
    if (host == NULL) {
        return;
    }
    if (host->services->text_embedder != NULL) {
        text_embedder_read_stats(host->services->text_embedder, ret_stats);
        *ret_is_down = ret_stats->is_open;
        return;
    }
    cache_read_stats(host->services->cache, &cache);
    ret_stats->texts = cache.keeper.texts;
    *ret_is_down = cache.lacks_model;
    (void)snprintf(ret_stats->error, sizeof(ret_stats->error), "%s", cache.model_error);
}

/* What is in a model's files may be in it, and be no UTF-8. */
static json_t *error_of(const struct text_embedder_stats *stats)
{
    json_t *error = json_string(stats->error);
    return error != NULL ? error : json_string("see the worker's log");
}

static json_t *embedding_of(struct cache_host *host)
{
    struct text_embedder_stats stats;
    bool is_down;
    cache_host_read_embedder(host, &stats, &is_down);
    const uint64_t refused = stats.refused + stats.dropped;
    return json_pack("{s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "down", is_down, "error", error_of(&stats), "texts", (json_int_t)stats.texts, "cached",
                     (json_int_t)stats.texts_cached, "requests", (json_int_t)stats.requests, "failures",
                     (json_int_t)stats.failures, "refused", (json_int_t)refused, "waiting",
                     (json_int_t)stats.texts_waiting);
}

/* Null where no model judges. */
static json_t *judging_of(const struct cache_host *host)
{
    const struct services *services = host->services;
    return services->judge != JUDGE_MODEL
               ? json_null()
               : json_pack("{s:s, s:f}", "model", services->judge_model, "share",
                           judge_share_of(&services->judge_share));
}

static json_t *stats_of(struct cache_host *host)
{
    struct cache_stats stats;
    cache_read_stats(host->services->cache, &stats);
    const struct keeper_stats *keeper = &stats.keeper;
    struct classes classes = {.host = host, .list = json_array()};
    near_policy_visit(host->services->near_policy, add_class, &classes);
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I, "
        "s:I, s:s, s:o, s:o, s:o, s:o}",
        "entries", (json_int_t)keeper->store.entries, "bytes", (json_int_t)keeper->store.bytes,
        "memory_bytes", (json_int_t)keeper->memory_bytes, "indexed", (json_int_t)keeper->indexed,
        "searches_cut", (json_int_t)keeper->searches_cut,
        "building", keeper->is_building, "wanted", (json_int_t)keeper->wanted, "without_vector",
        (json_int_t)keeper->without_vector, "evictions", (json_int_t)keeper->evictions, "expired",
        (json_int_t)keeper->expired, "invalidated", (json_int_t)keeper->invalidated,
        "dropped_fills", (json_int_t)keeper->dropped_fills, "damaged",
        (json_int_t)keeper->store.damaged, "broken", stats.is_broken, "set_aside",
        (json_int_t)stats.set_aside, "fills", (json_int_t)stats.fills, "fills_failed",
        (json_int_t)stats.fills_failed, "late", (json_int_t)stats.late, "invalidations_pending",
        (json_int_t)stats.invalidations_pending, "embedder", host->embedder, "embedding",
        embedding_of(host), "judging", judging_of(host), "classes", classes.list, "lookups", cache_counts_list(&host->counts));
}

static void answer_stats(struct cache_host *host, struct broker_link *link, uint64_t number)
{
    json_t *stats = stats_of(host);
    char *text = stats == NULL ? NULL : json_dumps(stats, JSON_COMPACT | JSON_REAL_PRECISION(10));
    answer(host, link, number, text, text == NULL ? "out of memory" : "");
    free(text);
    json_decref(stats);
}

static const char *tier_of(const json_t *argument)
{
    const char *tier = json_string_value(json_object_get(argument, "tier"));
    return tier == NULL ? "standard" : tier; /* as with submissions */
}

/* What only the loop knows goes along: the threshold of the class. */
static void add_threshold(struct cache_host *host, json_t *argument)
{
    const struct config *config = host->services->config;
    const char *tenant = json_string_value(json_object_get(argument, "tenant"));
    const double threshold = near_policy_shown_threshold(
        host->services->near_policy, tenant == NULL ? config->client.tenant : tenant, tier_of(argument));
    if (config->cache.is_strict == SWITCH_ON) {
        (void)json_object_set_new(argument, "strict", json_true());
    }
    if (isfinite(threshold)) {
        (void)json_object_set_new(argument, "threshold", json_real(threshold));
    }
}

static void ask_cache(struct cache_host *host, struct broker_link *link, uint64_t asked_number, const char *what,
                      const json_t *argument)
{
    char *text = argument == NULL ? strdup("{}") : json_dumps(argument, JSON_COMPACT);
    size_t free_one = 0;
    while (free_one < QUESTIONS_MAX && host->questions[free_one].link != NULL) {
        free_one++;
    }
    int r = text == NULL                ? -ENOMEM
            : free_one == QUESTIONS_MAX ? -EAGAIN
                                        : cache_ask(host->services->cache, what, text, asked, host, free_one);
    free(text);
    if (r < 0) {
        answer(host, link, asked_number, NULL, "the cache has too much to do; ask again later");
        return;
    }
    host->questions[free_one] = (struct question){.link = link, .number = asked_number};
}

static void explanation_fails(struct explanation *explanation, int r)
{
    char error[512];
    struct text_embedder_stats stats;
    text_embedder_read_stats(explanation->host->services->text_embedder, &stats);
    (void)snprintf(error, sizeof(error), "the embedder gives no vectors, so there are no near hits: %s%s%s",
                   strerror(-r), stats.error[0] == '\0' ? "" : "; its latest failure: ", stats.error);
    answer(explanation->host, explanation->link, explanation->number, NULL, error);
    explanation_release(explanation);
}

/* Both vectors are of length 1, or zeros. */
static void explanation_has_vectors(void *context, int result, const float *vectors)
{
    struct explanation *explanation = context;
    const size_t dim = explanation->host->services->text_embedder->dim;
    double cosine = 0;
    explanation->call = NULL;
    if (result < 0) {
        explanation_fails(explanation, result);
        return;
    }
    for (size_t i = 0; i < dim; i++) {
        cosine += (double)vectors[i] * (double)vectors[dim + i];
    }
    (void)json_object_set_new(explanation->argument, "cosine", json_real(cosine));
    ask_cache(explanation->host, explanation->link, explanation->number, "cache.explain", explanation->argument);
    explanation_release(explanation);
}

/* Asks for the vectors of both texts first. */
static void explain(struct cache_host *host, struct broker_link *link, uint64_t number, json_t *argument)
{
    const char *a = json_string_value(json_object_get(argument, "a"));
    const char *b = json_string_value(json_object_get(argument, "b"));
    struct explanation *explanation = a == NULL || b == NULL ? NULL : calloc(1, sizeof(*explanation));
    if (explanation == NULL) {
        ask_cache(host, link, number, "cache.explain", argument); /* it says what is missing */
        return;
    }
    const struct text_view texts[] = {{.text = a, .bytes = strlen(a)}, {.text = b, .bytes = strlen(b)}};
    *explanation = (struct explanation){
        .host = host, .link = link, .number = number, .argument = json_incref(argument)};
    list_append(&host->explanations, &explanation->list);
    int r = text_embedder_start(host->services->text_embedder, texts, 2, explanation_has_vectors, explanation,
                                &explanation->call);
    if (r < 0) {
        explanation_fails(explanation, r);
    }
}

void cache_host_query(struct cache_host *host, struct broker_link *link, const Wire__WorkerQuery *query)
{
    if (host == NULL) {
        (void)!cache_mail_answer(broker_link_mail(link), query->number, "", "the cache is off: cache.mode");
        return;
    }
    if (strcmp(query->what, "cache.stats") == 0) {
        answer_stats(host, link, query->number);
        return;
    }
    json_t *argument = json_loads(query->argument, 0, NULL);
    const bool is_explain = strcmp(query->what, "cache.explain") == 0;
    if (is_explain && config_find_tier(host->services->config, tier_of(argument)) == NULL) {
        char error[128];
        (void)snprintf(error, sizeof(error), "there is no tier \"%.64s\"; name one with tier", tier_of(argument));
        answer(host, link, query->number, NULL, error);
        json_decref(argument);
        return;
    }
    if (is_explain) {
        add_threshold(host, argument);
    }
    if (is_explain && host->services->text_embedder != NULL) {
        explain(host, link, query->number, argument);
    } else {
        ask_cache(host, link, query->number, query->what, argument);
    }
    json_decref(argument);
}

/* ---- the turn ---- */

static bool send_evidence(void *context, struct broker_link *broker, const Wire__CacheEvidence *evidence)
{
    (void)context;
    return broker_link_is_joined(broker) && cache_mail_evidence(broker_link_mail(broker), evidence) == 0;
}

void cache_host_turn(struct cache_host *host)
{
    if (host == NULL) {
        return;
    }
    const int64_t at_ms =
        near_policy_flush(host->services->near_policy, clock_monotonic_ms(), send_evidence, NULL);
    if (at_ms != INT64_MAX) {
        loop_timer_set(host->timer, at_ms);
    }
}
