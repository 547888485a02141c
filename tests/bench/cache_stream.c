/*
 * Does the learned threshold keep its bound, and what does it cost against the best static one that
 * is chosen when all is known?
 *
 *   bench-cache-stream clusters DATA fit|stream         names of one side's clusters
 *   bench-cache-stream counts DATA FIT_MODEL STREAM_MODEL QUERIES   counts for the product's seed,
 * as C bench-cache-stream run DATA FIT_MODEL QUERIES FIRST_SEED LAST_SEED a line of JSON for each
 * policy and seed
 *
 * A model is a line of bias and coefficients, made by tools/cache-fit from one side's clusters.
 *
 * A query whose text is kept is an exact hit and counts for nothing here. Another one meets, of the
 * 8 kept texts nearest to it, the one of the best score; it is served, or executed and kept. An
 * audited hit is executed, too, and kept only if its answer differs. An entry whose answer was
 * found different where it was, or would have been, served is an exact hit only from then on
 * (learned).
 */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/attributes.h"
#include "common/threshold.h"
#include "tests/bench/cache_stream/corpus.h"
#include "tests/bench/cache_stream/stream.h"
#include "tests/bench/cache_stream/vcache.h"
#include "worker/cache/decision_seed.h"
#include "worker/cache/lexical_index.h"

enum {
    NEAREST = 8,
    DECIDE_EVERY = 25,
    SETTLING_QUERIES = 1000,
    STATIC_STEPS = 100,
    FIT_STREAMS = 4,
    LATE_EPOCHS = 4,
    LIKEST_BINS = THRESHOLD_BINS / 16
};
static const double DRIFT_SHARE = 0.1;
static const double SAMPLED_SCORE_MIN = -2; /* as in cache_checks.c */
static const uint8_t one_scope[LEXICAL_SCOPE_BYTES] = {1};

struct tally {
    uint64_t exact, right, wrong, missed;
    uint64_t audits;
    uint64_t compared;                     /* of the missed */
    uint64_t settled_right, settled_wrong; /* of the near hits past the drift and its settling */
    int64_t opened_at;                     /* query of the first near hit; -1: none */
};

struct scenario {
    const char *name;
    double max_error;
    double judge_error;
    bool drifts;
    bool is_indexed; /* the nearest are found by the product's index */
    bool seed_errs;  /* four in five of its wrong answers were counted as right */
    bool is_sampled; /* comparing costs a call: cache_checks_judges_miss() */
};

struct entry {
    uint32_t cluster;
    bool is_kept;
    bool is_doubted;     /* its answer was found wrong for a near query: no longer served to such */
    bool is_after_drift; /* its answer is that of a cluster that has changed, after the change */
};

/* What a query meets. */
struct likest {
    uint32_t text;
    double score;
};

struct world;
typedef bool serve_fn(struct world *world, uint32_t candidate, double score);
typedef void label_fn(struct world *world, uint32_t candidate, double score, bool is_served,
                      bool is_right);

struct world {
    const struct stream *stream;
    const struct scenario *scenario;
    struct entry *entries; /* by text */
    struct tally tally;
    uint64_t random;
    uint64_t at; /* query */
    serve_fn *serves;
    label_fn *learns;
    double audit_share;
    struct lexical_index *index; /* NULL: the nearest by an exact scan made beforehand */

    double fixed; /* the static policy */

    const struct threshold_seed *seed; /* the learned one */
    struct threshold_evidence *evidence;
    struct threshold_policy policy;
    struct threshold_verdict verdict;
    double doubt_from; /* an answer that differed at this score or more is served nearly no more */
    uint64_t lookups;
    double alarm_most; /* before the middle */
    int64_t turned_at;
    double stated_bound_most; /* while open */

    struct vcache_entry *observed; /* vCache, by text */
};

static void *must(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return memory;
}

static void must_be_0(int r)
{
    if (r != 0) {
        fprintf(stderr, "%s\n", strerror(-r));
        exit(1);
    }
}

/* ------------------------------------------------------------------------- replay */

static bool has_changed(const struct world *world, uint32_t cluster)
{
    uint64_t state = cluster * UINT64_C(0x9e3779b9) + 7;
    return world->scenario->drifts && world->at >= world->stream->n_queries / 2 &&
           random_unit(&state) < DRIFT_SHARE;
}

/* As the cache does it: of the nearest that are kept, the one of the best score. */
static bool likest_scanned(const struct world *world, const struct stream_query *query,
                           struct likest *ret_likest)
{
    size_t n_nearest = 0;
    for (size_t i = 0; i < query->n_candidates && n_nearest < NEAREST; i++) {
        struct stream_candidate *candidate = &query->candidates[i];
        const struct entry *entry = &world->entries[candidate->text];
        if (entry->is_kept && !entry->is_doubted) {
            const double score = stream_score(world->stream, query, candidate);
            if (n_nearest++ == 0 || score > ret_likest->score) {
                *ret_likest = (struct likest){.text = candidate->text, .score = score};
            }
        }
    }
    return n_nearest > 0;
}

static bool likest_indexed(const struct world *world, const struct stream_query *query,
                           struct likest *ret_likest)
{
    const struct sparse_vector *vector = world->stream->texts[query->text].vector;
    struct lexical_hit hits[LEXICAL_HITS_MAX];
    size_t n_hits = 0;
    if (vector == NULL) {
        return false;
    }
    must_be_0(lexical_index_best(world->index, one_scope, vector, STREAM_COSINE_MIN, NEAREST, hits,
                                 &n_hits));
    for (size_t i = 0; i < n_hits; i++) {
        uint32_t text;
        memcpy(&text, hits[i].note, sizeof(text));
        const double score = stream_score_of(world->stream, query->text, text, hits[i].cosine);
        if (i == 0 || score > ret_likest->score) {
            *ret_likest = (struct likest){.text = text, .score = score};
        }
    }
    return n_hits > 0;
}

static bool likest_kept(const struct world *world, const struct stream_query *query,
                        struct likest *ret_likest)
{
    return world->index != NULL ? likest_indexed(world, query, ret_likest)
                                : likest_scanned(world, query, ret_likest);
}

static void key_of(uint32_t text, uint8_t ret_key[LEXICAL_KEY_BYTES])
{
    const XXH128_hash_t hash = XXH3_128bits(&text, sizeof(text));
    memcpy(ret_key, &hash, LEXICAL_KEY_BYTES);
}

static void keep(struct world *world, const struct stream_query *query)
{
    world->entries[query->text] =
        (struct entry){.cluster = query->cluster,
                       .is_kept = true,
                       .is_after_drift = has_changed(world, query->cluster)};
    const struct sparse_vector *vector = world->stream->texts[query->text].vector;
    if (world->index != NULL && vector != NULL) {
        uint8_t key[LEXICAL_KEY_BYTES];
        key_of(query->text, key);
        must_be_0(lexical_index_add(world->index, one_scope, key, vector, &query->text,
                                    sizeof(query->text)));
    }
}

/* From now on it answers its own text alone. */
static void doubt(struct world *world, uint32_t text)
{
    world->entries[text].is_doubted = true;
    if (world->index != NULL) {
        uint8_t key[LEXICAL_KEY_BYTES];
        key_of(text, key);
        lexical_index_remove(world->index, key);
    }
}

static void tally_hit(struct world *world, bool is_right)
{
    struct tally *tally = &world->tally;
    const bool is_settled = world->at >= world->stream->n_queries / 2 + SETTLING_QUERIES;
    tally->right += is_right;
    tally->wrong += !is_right;
    tally->settled_right += is_settled && is_right;
    tally->settled_wrong += is_settled && !is_right;
    if (tally->opened_at < 0) {
        tally->opened_at = (int64_t)world->at;
    }
}

/* Its word on an answer: right of itself, but for its error, the same to either side. */
static bool judged(struct world *world, bool is_right)
{
    return (random_unit(&world->random) < world->scenario->judge_error) != is_right;
}

/* As near_policy_reaches(): by whole bins. */
static bool is_likely(const struct threshold_scale *scale, double score)
{
    double from = -INFINITY;
    for (size_t i = 0; i < THRESHOLD_BINS - 1 && (double)scale->edges[i] <= SAMPLED_SCORE_MIN;
         i++) {
        from = (double)scale->edges[i];
    }
    return score >= from;
}

/* Whether a miss is compared. */
static bool is_compared(struct world *world, double score)
{
    return !world->scenario->is_sampled || (is_likely(&world->seed->scale, score) &&
                                            random_unit(&world->random) < world->audit_share);
}

static void meet(struct world *world, const struct stream_query *query,
                 const struct likest *candidate)
{
    const struct entry *entry = &world->entries[candidate->text];
    const bool is_right = entry->cluster == query->cluster &&
                          entry->is_after_drift == has_changed(world, query->cluster);
    const double score = candidate->score;
    const bool is_served = world->serves(world, candidate->text, score);
    if (is_served) {
        tally_hit(world, is_right);
        if (random_unit(&world->random) >= world->audit_share) {
            return;
        }
        world->tally.audits++;
    } else {
        world->tally.missed++;
        if (!is_compared(world, score)) {
            keep(world, query);
            return;
        }
        world->tally.compared++;
    }
    const bool is_same = judged(world, is_right);
    world->learns(world, candidate->text, score, is_served, is_same);
    if (!is_same && score >= world->doubt_from) {
        doubt(world, candidate->text);
    }
    if (!is_served || !is_same) {
        keep(world, query);
    }
}

static void replay(struct world *world)
{
    const struct stream *stream = world->stream;
    memset(world->entries, 0, stream->n_texts * sizeof(world->entries[0]));
    world->tally = (struct tally){.opened_at = -1};
    for (world->at = 0; world->at < stream->n_queries; world->at++) {
        const struct stream_query *query = &stream->queries[world->at];
        if (world->entries[query->text].is_kept) {
            world->tally.exact++;
            continue;
        }
        struct likest likest;
        if (likest_kept(world, query, &likest)) {
            meet(world, query, &likest);
        } else {
            world->tally.missed++;
            keep(world, query);
        }
    }
}

/* ------------------------------------------------------------------------- policies */

static void learn_nothing(struct world *world, uint32_t candidate, double score, bool is_served,
                          bool is_right)
{
    (void)world, (void)candidate, (void)score, (void)is_served, (void)is_right;
}

static bool serve_fixed(struct world *world, uint32_t candidate, double score)
{
    (void)candidate;
    return score >= world->fixed;
}

static void decide(struct world *world)
{
    struct threshold_verdict *verdict = &world->verdict;
    threshold_decide(world->evidence, world->seed, &world->policy, verdict);
    world->audit_share = round(verdict->audit_share * 1000) / 1000;
    if (world->at < world->stream->n_queries / 2) {
        world->alarm_most = fmax(world->alarm_most, verdict->alarm);
    }
    if (verdict->has_turned && world->turned_at < 0) {
        world->turned_at = (int64_t)world->at;
    }
    if (verdict->state == THRESHOLD_OPEN) {
        world->doubt_from = verdict->threshold;
        world->stated_bound_most = fmax(world->stated_bound_most, verdict->bound);
    }
}

static bool serve_learned(struct world *world, uint32_t candidate, double score)
{
    (void)candidate;
    if (threshold_epoch_is_full(world->evidence)) {
        threshold_advance(world->evidence, world->evidence->newest + 1);
    }
    if (world->lookups++ % DECIDE_EVERY == 0) {
        decide(world);
    }
    const bool is_served = score >= world->verdict.threshold;
    threshold_add_lookup(world->evidence, &world->seed->scale, world->evidence->newest, score,
                         is_served);
    return is_served;
}

static void learn_threshold(struct world *world, uint32_t candidate, double score, bool is_served,
                            bool is_right)
{
    (void)candidate;
    threshold_add(world->evidence, &world->seed->scale, world->evidence->newest, score,
                  is_served ? THRESHOLD_AUDIT : THRESHOLD_MISS, is_right,
                  (uint32_t)lround(fmax(world->audit_share, 0.001) * 1000));
}

static double similarity_of(double score)
{
    return 1 / (1 + exp(-score));
}

static bool serve_vcache(struct world *world, uint32_t candidate, double score)
{
    return vcache_serves(&world->observed[candidate], similarity_of(score),
                         world->scenario->max_error, random_unit(&world->random));
}

static void learn_vcache(struct world *world, uint32_t candidate, double score, bool is_served,
                         bool is_right)
{
    (void)is_served;
    vcache_observe(&world->observed[candidate], similarity_of(score), is_right);
}

/* ------------------------------------------------------------------------- the seed */

struct observation {
    float score;
    bool is_right;
};

struct observations {
    struct observation *list;
    size_t length;
};

static int by_score(const void *a, const void *b)
{
    const float left = ((const struct observation *)a)->score;
    const float right = ((const struct observation *)b)->score;
    return (left > right) - (left < right);
}

static struct observations *fitting; /* of the one replay that observes everything */

static void learn_all(struct world *world, uint32_t candidate, double score, bool is_served,
                      bool is_right)
{
    (void)world, (void)candidate, (void)is_served;
    fitting->list[fitting->length++] =
        (struct observation){.score = (float)score, .is_right = is_right};
}

static void observe_all(const struct stream *stream, struct observations *into)
{
    static const struct scenario plain = {.name = "fit"};
    struct world world = {.stream = stream,
                          .scenario = &plain,
                          .serves = serve_fixed,
                          .learns = learn_all,
                          .fixed = INFINITY,
                          .doubt_from = INFINITY};
    world.entries = must(calloc(stream->n_texts, sizeof(world.entries[0])));
    fitting = into;
    replay(&world);
    free(world.entries);
}

/* Every query of some streams over one side, none served. */
static void observe_side(const char *directory, enum corpus_side side,
                         const struct decision_model *model, size_t n_queries,
                         struct observations *into)
{
    struct corpus corpus;
    corpus_load(directory, side, &corpus);
    into->list = must(
        reallocarray(into->list, into->length + FIT_STREAMS * n_queries, sizeof(into->list[0])));
    for (uint64_t i = 0; i < FIT_STREAMS; i++) {
        struct stream stream;
        stream_make(&corpus, model, n_queries, 1000 + i, &stream);
        observe_all(&stream, into);
        stream_finish(&stream);
    }
    corpus_finish(&corpus);
}

/* Quantiles of the scores; where many are equal, the next greater one. */
static void set_edges(const struct observations *all, struct threshold_scale *ret_scale)
{
    size_t at = 0;
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        const size_t quantile = (i + 1) * all->length / THRESHOLD_BINS;
        at = quantile > at ? quantile : at;
        while (i > 0 && at + 1 < all->length && all->list[at].score <= ret_scale->edges[i - 1]) {
            at++;
        }
        ret_scale->edges[i] = all->list[at].score;
    }
}

/* Frees the observations. */
static void count_seed(struct observations *all, struct threshold_seed *ret_seed)
{
    qsort(all->list, all->length, sizeof(all->list[0]), by_score);
    *ret_seed = (struct threshold_seed){.weight = DECISION_SEED_WEIGHT};
    set_edges(all, &ret_seed->scale);
    for (size_t i = 0, bin = 0; i < all->length; i++) {
        while (bin < THRESHOLD_BINS - 1 && all->list[i].score >= ret_seed->scale.edges[bin]) {
            bin++;
        }
        (all->list[i].is_right ? ret_seed->right : ret_seed->wrong)[bin]++;
    }
    free(all->list);
    *all = (struct observations){0};
}

/* ------------------------------------------------------------------------- the program */

static double share_of(uint64_t part, uint64_t rest)
{
    return part + rest > 0 ? (double)part / (double)(part + rest) : 0;
}

static void print_tally(const struct world *world, const char *policy, uint64_t seed)
{
    const struct tally *tally = &world->tally;
    printf("{\"policy\": \"%s\", \"scenario\": \"%s\", \"seed\": %" PRIu64
           ", \"max_error\": %g, \"exact\": %" PRIu64 ", \"right\": %" PRIu64
           ", \"wrong\": %" PRIu64 ", \"missed\": %" PRIu64 ", \"audits\": %" PRIu64
           ", \"compared\": %" PRIu64 ", \"wrong_share\": %.5f, \"settled_hits\": %" PRIu64
           ", \"settled_wrong_share\": %.5f, \"opened_at\": %" PRId64,
           policy, world->scenario->name, seed, world->scenario->max_error, tally->exact,
           tally->right, tally->wrong, tally->missed, tally->audits, tally->compared,
           share_of(tally->wrong, tally->right), tally->settled_right + tally->settled_wrong,
           share_of(tally->settled_wrong, tally->settled_right), tally->opened_at);
}

/* Of what became known in the latest epochs, among the likest candidates: could it open? */
static void print_late(const struct threshold_evidence *evidence)
{
    uint64_t right = 0;
    uint64_t wrong = 0;
    for (uint64_t age = 0; age < LATE_EPOCHS && age <= evidence->newest; age++) {
        const struct threshold_epoch *epoch =
            &evidence->epochs[(evidence->newest - age) % THRESHOLD_EPOCHS];
        for (size_t i = THRESHOLD_BINS - LIKEST_BINS; i < THRESHOLD_BINS; i++) {
            right += epoch->bins[i].right;
            wrong += epoch->bins[i].wrong;
        }
    }
    printf(", \"late_labels\": %" PRIu64 ", \"late_wrong\": %" PRIu64, right + wrong, wrong);
}

static void run_learned(const struct stream *stream, const struct scenario *scenario,
                        const struct threshold_seed *seed, uint64_t number)
{
    const struct lexical_index_options room = {.entries_max = 1 << 20, .bytes_max = 1 << 30};
    struct world world = {.stream = stream,
                          .scenario = scenario,
                          .random = number * 31 + 5,
                          .serves = serve_learned,
                          .learns = learn_threshold,
                          .seed = seed,

                          .turned_at = -1,
                          .doubt_from = INFINITY,
                          .policy = {.max_error = scenario->max_error,
                                     .judge_false_accept = scenario->judge_error,
                                     .judge_false_reject = scenario->judge_error}};
    world.entries = must(calloc(stream->n_texts, sizeof(world.entries[0])));
    world.evidence = must(calloc(1, sizeof(*world.evidence)));
    if (scenario->is_indexed) {
        must_be_0(lexical_index_create(&room, &world.index));
    }
    threshold_init(&seed->scale, world.evidence);
    replay(&world);
    decide(&world);
    struct threshold_rate rate;
    threshold_measure(world.evidence, &world.policy, &rate);
    print_tally(&world, "learned", number);
    print_late(world.evidence);
    printf(
        ", \"threshold\": %.3f, \"stated_bound_most\": %.5f, \"live\": %.5f, \"live_low\": %.5f, "
        "\"live_high\": %.5f, \"state\": %d, \"turned\": %s, \"alarm\": %.2f, \"turned_at\": "
        "%" PRId64 ", \"reason\": \"%s\"}\n",
        isfinite(world.verdict.threshold) ? world.verdict.threshold : 1e9, world.stated_bound_most,
        rate.estimate, rate.low, rate.high, (int)world.verdict.state,
        world.verdict.has_turned ? "true" : "false", world.alarm_most, world.turned_at,
        world.verdict.reason);
    lexical_index_destroy(&world.index);
    free(world.entries);
    free(world.evidence);
}

static void run_vcache(const struct stream *stream, const struct scenario *scenario,
                       uint64_t number)
{
    struct world world = {.stream = stream,
                          .scenario = scenario,
                          .random = number * 31 + 5,
                          .doubt_from = INFINITY,
                          .serves = serve_vcache,
                          .learns = learn_vcache};
    world.entries = must(calloc(stream->n_texts, sizeof(world.entries[0])));
    world.observed = must(calloc(stream->n_texts, sizeof(world.observed[0])));
    replay(&world);
    print_tally(&world, "vcache", number);
    printf("}\n");
    free(world.entries);
    free(world.observed);
}

/* Over thresholds at quantiles of the scores: the most right hits with a wrong share in bounds. */
static void run_hindsight(const struct stream *stream, const struct scenario *scenarios,
                          size_t n_scenarios, uint64_t number)
{
    struct observations all = {.list = must(calloc(stream->n_queries, sizeof(all.list[0])))};
    observe_all(stream, &all);
    qsort(all.list, all.length, sizeof(all.list[0]), by_score);
    struct world world = {
        .stream = stream, .serves = serve_fixed, .learns = learn_nothing, .doubt_from = INFINITY};
    world.entries = must(calloc(stream->n_texts, sizeof(world.entries[0])));
    struct tally best[8] = {0};
    double thresholds[8] = {0};
    for (size_t step = 0; step < STATIC_STEPS; step++) {
        /* The lower half is wrong far too often, whatever the scorer. */
        world.fixed =
            (double)all.list[all.length / 2 + step * (all.length / 2) / STATIC_STEPS].score;
        world.scenario = &scenarios[0];
        replay(&world);
        for (size_t i = 0; i < n_scenarios; i++) {
            if (share_of(world.tally.wrong, world.tally.right) <= scenarios[i].max_error &&
                world.tally.right > best[i].right) {
                best[i] = world.tally;
                thresholds[i] = world.fixed;
            }
        }
    }
    for (size_t i = 0; i < n_scenarios; i++) {
        world.scenario = &scenarios[i];
        world.tally = best[i];
        print_tally(&world, "hindsight", number);
        printf(", \"threshold\": %.3f}\n", thresholds[i]);
    }
    free(world.entries);
    free(all.list);
}

static void run_seed(const struct corpus *corpus, const struct decision_model *model,
                     size_t n_queries, uint64_t number, const struct threshold_seed *seed)
{
    static const struct scenario plain[] = {
        {.name = "plain", .max_error = 0.01},
        {.name = "plain", .max_error = 0.02},
        {.name = "plain", .max_error = 0.05},
    };
    static const struct scenario others[] = {
        {.name = "index", .max_error = 0.02, .is_indexed = true},
        {.name = "drift", .max_error = 0.01, .drifts = true},
        {.name = "drift", .max_error = 0.02, .drifts = true},
        {.name = "drift", .max_error = 0.05, .drifts = true},
        {.name = "seed errs", .max_error = 0.02, .seed_errs = true},
        {.name = "seed errs", .max_error = 0.05, .seed_errs = true},
        {.name = "misses sampled", .max_error = 0.01, .is_sampled = true},
        {.name = "misses sampled", .max_error = 0.02, .is_sampled = true},
        {.name = "misses sampled", .max_error = 0.05, .is_sampled = true},
        {.name = "judge 1 %", .max_error = 0.02, .judge_error = 0.01},
        {.name = "judge 3 %", .max_error = 0.02, .judge_error = 0.03},
        {.name = "judge 2 %", .max_error = 0.05, .judge_error = 0.02},
        {.name = "judge 6 %", .max_error = 0.05, .judge_error = 0.06},
    };
    struct threshold_seed flattering = *seed;
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        flattering.wrong[i] = seed->wrong[i] / 5;
        flattering.right[i] += seed->wrong[i] - flattering.wrong[i];
    }
    struct stream stream;
    stream_make(corpus, model, n_queries, number, &stream);
    run_hindsight(&stream, plain, ARRAY_LENGTH(plain), number);
    for (size_t i = 0; i < ARRAY_LENGTH(plain); i++) {
        run_learned(&stream, &plain[i], seed, number);
        run_vcache(&stream, &plain[i], number);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(others); i++) {
        run_learned(&stream, &others[i], others[i].seed_errs ? &flattering : seed, number);
    }
    stream_finish(&stream);
    fflush(stdout);
}

static void print_counts(const char *name, const uint32_t counts[THRESHOLD_BINS])
{
    printf(".%s = {", name);
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        printf("%s%" PRIu32, i == 0 ? "" : i % 12 == 0 ? ",\n    " : ", ", counts[i]);
    }
    printf("},\n");
}

static void print_seed(const struct threshold_seed *seed)
{
    printf("/* Made by tools/cache-fit: a threshold_seed (common/threshold.h) without its weight: "
           "what "
           "the\n * queries of the stream benchmark met, scored by coefficients fitted on other "
           "clusters. */\n.scale = {.edges = {");
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        printf("%s%.5fF",
               i == 0       ? ""
               : i % 8 == 0 ? ",\n    "
                            : ", ",
               (double)seed->scale.edges[i]);
    }
    printf("}},\n");
    print_counts("right", seed->right);
    print_counts("wrong", seed->wrong);
}

/* Bias and weights, one line. */
static struct decision_model read_model(const char *path)
{
    struct decision_model model = {.embedder = "builtin"};
    FILE *file = fopen(path, "re");
    bool is_whole = file != NULL && fscanf(file, "%lf", &model.bias) == 1;
    for (size_t i = 0; i < LIKENESS_FEATURES && is_whole; i++) {
        is_whole = fscanf(file, "%lf", &model.weights[i]) == 1;
    }
    if (!is_whole) {
        fprintf(stderr, "%s: no model\n", path);
        exit(1);
    }
    fclose(file);
    return model;
}

static void run_seeds(const char *directory, const char *model_path, size_t n_queries,
                      uint64_t first, uint64_t last)
{
    const struct decision_model model = read_model(model_path);
    struct observations all = {0};
    struct threshold_seed seed;
    observe_side(directory, CORPUS_FIT, &model, n_queries, &all);
    count_seed(&all, &seed);
    struct corpus corpus;
    corpus_load(directory, CORPUS_STREAM, &corpus);
    for (uint64_t number = first; number <= last; number++) {
        run_seed(&corpus, &model, n_queries, number, &seed);
    }
    corpus_finish(&corpus);
}

static void print_clusters(const char *directory, enum corpus_side side)
{
    struct corpus corpus;
    corpus_load(directory, side, &corpus);
    for (size_t i = 0; i < corpus.n_clusters; i++) {
        puts(corpus.clusters[i].name);
    }
    corpus_finish(&corpus);
}

/* Each side by the model that was fitted on the other. */
static void count_both(const char *directory, const char *fit_path, const char *stream_path,
                       size_t n_queries)
{
    const struct decision_model fit = read_model(fit_path);
    const struct decision_model stream = read_model(stream_path);
    struct observations all = {0};
    struct threshold_seed seed;
    observe_side(directory, CORPUS_FIT, &stream, n_queries, &all);
    observe_side(directory, CORPUS_STREAM, &fit, n_queries, &all);
    count_seed(&all, &seed);
    print_seed(&seed);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "clusters") == 0) {
        print_clusters(argv[2], strcmp(argv[3], "fit") == 0 ? CORPUS_FIT : CORPUS_STREAM);
    } else if (argc == 6 && strcmp(argv[1], "counts") == 0) {
        count_both(argv[2], argv[3], argv[4], strtoul(argv[5], NULL, 10));
    } else if (argc == 7 && strcmp(argv[1], "run") == 0) {
        run_seeds(argv[2], argv[3], strtoul(argv[4], NULL, 10), strtoul(argv[5], NULL, 10),
                  strtoul(argv[6], NULL, 10));
    } else {
        fprintf(stderr,
                "usage: %s clusters DATA fit|stream | counts DATA FIT_MODEL STREAM_MODEL QUERIES | "
                "run DATA FIT_MODEL QUERIES FIRST_SEED LAST_SEED\n",
                argv[0]);
        return 2;
    }
    return 0;
}
