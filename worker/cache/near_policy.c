#include "worker/cache/near_policy.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/list.h"

enum { BUCKETS = NEAR_POLICY_CLASSES_MAX };

struct class {
    struct list_link link; /* the least recently used first */
    struct class *next;    /* in its bucket */
    char *tenant, *tier;
    struct broker_link *broker;      /* that counts; NULL: not known yet */
    bool is_observed;                /* for a job of that one; else it was only heard of */
    bool is_cut_off;                 /* its broker could not be sent to, the last time */
    uint32_t strangers;              /* observed for others since the last time for its own */
    struct threshold_evidence sum;   /* of the broker */
    struct threshold_evidence delta; /* not sent yet */
    bool has_delta;
    bool is_decided;
    double open_from; /* the latest threshold; INFINITY: never open */
    struct threshold_verdict verdict;
    struct threshold_policy rules;
};

struct near_policy {
    char *embedder;
    const struct threshold_seed *seed;
    near_policy_rules_fn *rules;
    void *context;
    struct list classes;
    struct class *buckets[BUCKETS]; /* by tenant and tier */
    int64_t flush_at_ms;
    bool has_delta;
};

int near_policy_create(const char *embedder, const struct threshold_seed *seed,
                       near_policy_rules_fn *rules, void *context, struct near_policy **ret_policy)
{
    struct near_policy *policy = calloc(1, sizeof(*policy));
    char *copy = strdup(embedder);
    if (policy == NULL || copy == NULL) {
        free(policy);
        free(copy);
        return -ENOMEM;
    }
    policy->embedder = copy;
    policy->seed = seed;
    policy->rules = rules;
    policy->context = context;
    list_init(&policy->classes);
    *ret_policy = policy;
    return 0;
}

static struct class **bucket_of(struct near_policy *policy, const char *tenant, const char *tier)
{
    const uint64_t hash = XXH3_64bits(tenant, strlen(tenant));
    return &policy->buckets[XXH3_64bits_withSeed(tier, strlen(tier), hash) % BUCKETS];
}

static void class_destroy(struct near_policy *policy, struct class *class)
{
    struct class **at = bucket_of(policy, class->tenant, class->tier);
    while (*at != class) {
        at = &(*at)->next;
    }
    *at = class->next;
    list_remove(&policy->classes, &class->link);
    free(class->tenant);
    free(class->tier);
    free(class);
}

void near_policy_destroy(struct near_policy **policy)
{
    struct near_policy *old = TAKE(*policy);
    while (old != NULL && !list_is_empty(&old->classes)) {
        class_destroy(old, CONTAINER_OF(list_first(&old->classes), struct class, link));
    }
    if (old != NULL) {
        free(old->embedder);
    }
    free(old);
}

/* ---- classes ---- */

static struct class *find(struct near_policy *policy, const char *tenant, const char *tier)
{
    struct class *class = *bucket_of(policy, tenant, tier);
    while (class != NULL &&
           (strcmp(class->tenant, tenant) != 0 || strcmp(class->tier, tier) != 0)) {
        class = class->next;
    }
    return class;
}

/* As the least recently used one. NULL: no memory. */
static struct class *make(struct near_policy *policy, const char *tenant, const char *tier)
{
    struct class *class = calloc(1, sizeof(*class));
    if (class == NULL) {
        return NULL;
    }
    class->tenant = strdup(tenant);
    class->tier = strdup(tier);
    if (class->tenant == NULL || class->tier == NULL) {
        free(class->tenant);
        free(class->tier);
        free(class);
        return NULL;
    }
    threshold_init(&policy->seed->scale, &class->sum);
    threshold_init(&policy->seed->scale, &class->delta);
    class->open_from = INFINITY;
    list_prepend(&policy->classes, &class->link);
    struct class **bucket = bucket_of(policy, tenant, tier);
    class->next = *bucket;
    *bucket = class;
    return class;
}

/* One that is used. NULL: no memory. */
static struct class *class_of(struct near_policy *policy, const char *tenant, const char *tier)
{
    struct class *class = find(policy, tenant, tier);
    if (class == NULL && policy->classes.length >= NEAR_POLICY_CLASSES_MAX) {
        class_destroy(policy, CONTAINER_OF(list_first(&policy->classes), struct class, link));
    }
    class = class == NULL ? make(policy, tenant, tier) : class;
    if (class != NULL) {
        list_remove(&policy->classes, &class->link);
        list_append(&policy->classes, &class->link);
    }
    return class;
}

/* One that a broker tells of. NULL: no memory, or all places are taken. */
static struct class *class_heard_of(struct near_policy *policy, const char *tenant,
                                    const char *tier)
{
    struct class *class = find(policy, tenant, tier);
    return class == NULL && policy->classes.length < NEAR_POLICY_CLASSES_MAX
               ? make(policy, tenant, tier)
               : class;
}

/* Epochs of the former broker are none of this one's. */
static void move(struct near_policy *policy, struct class *class, struct broker_link *broker)
{
    class->broker = broker;
    class->is_cut_off = false;
    class->strangers = 0;
    class->is_decided = false;
    threshold_init(&policy->seed->scale, &class->sum);
    threshold_restart(&class->delta);
}

/* Whether what is observed for a job of this broker counts for the class. */
static bool counts_for(struct near_policy *policy, struct class *class, struct broker_link *broker)
{
    class->strangers = class->broker == broker ? 0 : class->strangers + 1;
    const bool is_left = class->is_cut_off || class->strangers >= NEAR_POLICY_STRANGERS;
    if (class->broker != broker && (!class->is_observed || is_left)) {
        move(policy, class, broker);
    }
    class->is_observed |= class->broker == broker;
    return class->broker == broker;
}

/* ---- the verdict ---- */

void near_policy_take(struct near_policy *policy, struct broker_link *broker,
                      const Wire__CacheEvidence *evidence)
{
    struct class *class = strcmp(evidence->embedder, policy->embedder) == 0
                              ? class_heard_of(policy, evidence->tenant, evidence->tier)
                              : NULL;
    if (class != NULL && class->broker == NULL) {
        class->broker = broker;
    }
    const bool is_good = class != NULL && class->broker == broker;
    struct threshold_evidence *sum = is_good ? malloc(sizeof(*sum)) : NULL;
    if (sum != NULL && threshold_unpack(evidence->counts.data, evidence->counts.len, sum) == 0 &&
        sum->scale == class->sum.scale) {
        class->sum = *sum;
        class->is_decided = false;
        if (class->delta.newest < sum->newest) {
            threshold_advance(&class->delta, sum->newest);
        }
    }
    free(sum);
}

void near_policy_reconfigure(struct near_policy *policy)
{
    list_for_each (&policy->classes, link) {
        CONTAINER_OF(link, struct class, link)->is_decided = false;
    }
}

static const struct threshold_verdict *verdict_of(struct near_policy *policy, struct class *class)
{
    if (class->is_decided) {
        return &class->verdict;
    }
    class->is_decided = true;
    class->rules = (struct threshold_policy){.max_error = 0};
    policy->rules(policy->context, class->tenant, class->tier, &class->rules);
    if (class->rules.max_error > 0) {
        threshold_decide(&class->sum, policy->seed, &class->rules, &class->verdict);
        class->open_from =
            class->verdict.state == THRESHOLD_OPEN ? class->verdict.threshold : class->open_from;
    } else {
        class->verdict = (struct threshold_verdict){.state = THRESHOLD_CLOSED_THIN,
                                                    .threshold = INFINITY,
                                                    .reason = "near hits are off: max_error is 0"};
    }
    return &class->verdict;
}

static double threshold_of(struct near_policy *policy, struct class *class)
{
    if (class == NULL) {
        return INFINITY;
    }
    const struct threshold_verdict *verdict = verdict_of(policy, class);
    return verdict->state == THRESHOLD_OPEN ? verdict->threshold : INFINITY;
}

double near_policy_threshold(struct near_policy *policy, const char *tenant, const char *tier,
                             struct threshold_verdict *ret_verdict)
{
    struct class *class = class_of(policy, tenant, tier);
    const double threshold = threshold_of(policy, class);
    if (class != NULL && ret_verdict != NULL) {
        *ret_verdict = class->verdict;
    }
    return threshold;
}

double near_policy_shown_threshold(struct near_policy *policy, const char *tenant, const char *tier)
{
    return threshold_of(policy, find(policy, tenant, tier));
}

bool near_policy_is_on(struct near_policy *policy, const char *tenant, const char *tier)
{
    struct class *class = class_of(policy, tenant, tier);
    if (class == NULL) {
        return false;
    }
    (void)verdict_of(policy, class);
    return class->rules.max_error > 0;
}

bool near_policy_reaches(const struct near_policy *policy, double score, double least)
{
    const float *edges = policy->seed->scale.edges; /* ascending */
    double from = -INFINITY;
    for (size_t i = 0; i < THRESHOLD_BINS - 1 && (double)edges[i] <= least; i++) {
        from = (double)edges[i];
    }
    return score >= from;
}

double near_policy_doubt(struct near_policy *policy, const char *tenant, const char *tier)
{
    struct class *class = class_of(policy, tenant, tier);
    if (class == NULL) {
        return INFINITY;
    }
    (void)verdict_of(policy, class);
    return class->open_from;
}

/* ---- what is observed ---- */

/* NULL: no memory, or another broker counts. */
static struct class *observe(struct near_policy *policy, struct broker_link *broker,
                             const char *tenant, const char *tier)
{
    struct class *class = class_of(policy, tenant, tier);
    if (class != NULL && !counts_for(policy, class, broker)) {
        return NULL;
    }
    if (class != NULL) {
        class->has_delta = policy->has_delta = true;
    }
    return class;
}

void near_policy_looked(struct near_policy *policy, struct broker_link *broker, const char *tenant,
                        const char *tier, double score, bool is_served)
{
    struct class *class = observe(policy, broker, tenant, tier);
    if (class != NULL) {
        threshold_add_lookup(&class->delta, &policy->seed->scale, class->sum.newest, score,
                             is_served);
    }
}

void near_policy_learned(struct near_policy *policy, struct broker_link *broker, const char *tenant,
                         const char *tier, double score, enum threshold_kind kind, bool is_right,
                         uint32_t probability_permille)
{
    struct class *class = observe(policy, broker, tenant, tier);
    if (class != NULL) {
        threshold_add(&class->delta, &policy->seed->scale, class->sum.newest, score, kind, is_right,
                      probability_permille);
    }
}

/* False: it is kept. */
static bool send_delta(struct near_policy *policy, struct class *class, uint8_t *packed,
                       near_policy_send_fn *send, void *context)
{
    Wire__CacheEvidence evidence = WIRE__CACHE_EVIDENCE__INIT;
    evidence.tenant = class->tenant;
    evidence.tier = class->tier;
    evidence.embedder = policy->embedder;
    evidence.counts = (ProtobufCBinaryData){threshold_pack(&class->delta, packed), packed};
    uint8_t seed[THRESHOLD_SEED_BYTES];
    threshold_pack_seed(policy->seed, seed);
    evidence.seed = (ProtobufCBinaryData){sizeof(seed), seed};
    class->is_cut_off = !send(context, class->broker, &evidence);
    if (class->is_cut_off) {
        return false;
    }
    const uint64_t newest = class->sum.newest;
    threshold_init(&policy->seed->scale, &class->delta);
    threshold_advance(&class->delta, newest);
    class->has_delta = false;
    return true;
}

int64_t near_policy_flush(struct near_policy *policy, int64_t now_ms, near_policy_send_fn *send,
                          void *context)
{
    if (!policy->has_delta) {
        return INT64_MAX;
    }
    if (now_ms < policy->flush_at_ms) {
        return policy->flush_at_ms;
    }
    uint8_t *packed = malloc(THRESHOLD_PACKED_BYTES_MAX);
    bool has_delta = packed == NULL;
    list_for_each (&policy->classes, link) {
        struct class *class = CONTAINER_OF(link, struct class, link);
        if (class->has_delta && packed != NULL) {
            has_delta |= !send_delta(policy, class, packed, send, context);
        }
    }
    free(packed);
    policy->has_delta = has_delta;
    policy->flush_at_ms = now_ms + NEAR_POLICY_FLUSH_MS;
    return has_delta ? policy->flush_at_ms : INT64_MAX;
}

void near_policy_visit(struct near_policy *policy,
                       void (*visit)(void *context, const struct near_policy_view *view),
                       void *context)
{
    list_for_each (&policy->classes, link) {
        struct class *class = CONTAINER_OF(link, struct class, link);
        struct near_policy_view view = {
            .tenant = class->tenant, .tier = class->tier, .verdict = verdict_of(policy, class)};
        threshold_measure(&class->sum, &class->rules, &view.rate);
        visit(context, &view);
    }
}
