/*
 * Does the learned threshold keep its bound, and what does it cost against the best static one that
 * is chosen when all is known?
 *
 *   bench-cache-stream DATA QUERIES FIRST_SEED LAST_SEED   one line of JSON for each policy and
 * seed bench-cache-stream --fit DATA QUERIES                  counts for a seed, as C
 *
 * A query whose text is kept is an exact hit and counts for nothing here. Another one meets its
 * likest kept text; it is served, or executed and kept. An
 * audited hit is executed, too, and kept if its answer differs. An entry whose answer was found
 * different where it was, or would have been, served is an exact hit only from then on (learned).
 */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "common/threshold.h"
#include "tests/bench/cache_stream/corpus.h"
#include "tests/bench/cache_stream/stream.h"
#include "tests/bench/cache_stream/vcache.h"

enum { DECIDE_EVERY = 25, SETTLING_QUERIES = 1000, STATIC_STEPS = 100, FIT_STREAMS = 4 };
static const double DRIFT_SHARE = 0.1;
static const double SEED_WEIGHT = 6000; /* labels, of some 58,000 that were counted */

struct tally {
    uint64_t exact, right, wrong, missed;
    uint64_t audits;
    uint64_t settled_right, settled_wrong; /* of the near hits past the drift and its settling */
    int64_t opened_at;                     /* query of the first near hit; -1: none */
};

struct scenario {
    const char *name;
    double max_error;
    double judge_error;
    bool drifts;
    bool seed_errs; /* four in five of its wrong answers were counted as right */
};

struct entry {
    uint32_t cluster;
    bool is_kept;
    bool is_doubted;     /* its answer was found wrong for a near query: no longer served to such */
    bool is_after_drift; /* its answer is that of a cluster that has changed, after the change */
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

/* ------------------------------------------------------------------------- replay */

static bool has_changed(const struct world *world, uint32_t cluster)
{
    uint64_t state = cluster * UINT64_C(0x9e3779b9) + 7;
    return world->scenario->drifts && world->at >= world->stream->n_queries / 2 &&
           random_unit(&state) < DRIFT_SHARE;
}

static const struct stream_candidate *likest_kept(const struct world *world, uint32_t text)
{
    const struct stream_text *of = &world->stream->texts[text];
    for (size_t i = 0; i < of->n_candidates; i++) {
        const struct entry *entry = &world->entries[of->candidates[i].text];
        if (entry->is_kept && !entry->is_doubted) {
            return &of->candidates[i];
        }
    }
    return NULL;
}

static void keep(struct world *world, const struct stream_query *query)
{
    world->entries[query->text] =
        (struct entry){.cluster = query->cluster,
                       .is_kept = true,
                       .is_after_drift = has_changed(world, query->cluster)};
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

static void meet(struct world *world, const struct stream_query *query,
                 const struct stream_candidate *candidate)
{
    const struct entry *entry = &world->entries[candidate->text];
    const bool is_right = entry->cluster == query->cluster &&
                          entry->is_after_drift == has_changed(world, query->cluster);
    const double score = (double)candidate->score;
    const bool is_served = world->serves(world, candidate->text, score);
    if (is_served) {
        tally_hit(world, is_right);
        if (random_unit(&world->random) >= world->audit_share) {
            return;
        }
        world->tally.audits++;
    } else {
        world->tally.missed++;
    }
    const bool is_same = judged(world, is_right);
    world->learns(world, candidate->text, score, is_served, is_same);
    if (!is_same && score >= world->doubt_from) {
        world->entries[candidate->text].is_doubted = true;
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
        const struct stream_candidate *candidate = likest_kept(world, query->text);
        if (candidate != NULL) {
            meet(world, query, candidate);
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

static void fit_seed(const char *directory, size_t n_queries, struct threshold_seed *ret_seed)
{
    struct corpus corpus;
    corpus_load(directory, CORPUS_FIT, &corpus);
    struct observations all = {.list = must(calloc(FIT_STREAMS * n_queries, sizeof(all.list[0])))};
    for (uint64_t i = 0; i < FIT_STREAMS; i++) {
        struct stream stream;
        stream_make(&corpus, n_queries, 1000 + i, &stream);
        observe_all(&stream, &all);
        stream_finish(&stream);
    }
    corpus_finish(&corpus);
    qsort(all.list, all.length, sizeof(all.list[0]), by_score);
    *ret_seed = (struct threshold_seed){.weight = SEED_WEIGHT};
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        ret_seed->scale.edges[i] = all.list[(i + 1) * all.length / THRESHOLD_BINS].score;
    }
    for (size_t i = 0, bin = 0; i < all.length; i++) {
        while (bin < THRESHOLD_BINS - 1 && all.list[i].score >= ret_seed->scale.edges[bin]) {
            bin++;
        }
        (all.list[i].is_right ? ret_seed->right : ret_seed->wrong)[bin]++;
    }
    free(all.list);
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
           ", \"wrong_share\": %.5f, \"settled_hits\": %" PRIu64
           ", \"settled_wrong_share\": %.5f, \"opened_at\": %" PRId64,
           policy, world->scenario->name, seed, world->scenario->max_error, tally->exact,
           tally->right, tally->wrong, tally->missed, tally->audits,
           share_of(tally->wrong, tally->right), tally->settled_right + tally->settled_wrong,
           share_of(tally->settled_wrong, tally->settled_right), tally->opened_at);
}

static void run_learned(const struct stream *stream, const struct scenario *scenario,
                        const struct threshold_seed *seed, uint64_t number)
{
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
    threshold_init(&seed->scale, world.evidence);
    replay(&world);
    decide(&world);
    struct threshold_rate rate;
    threshold_measure(world.evidence, &world.policy, &rate);
    print_tally(&world, "learned", number);
    printf(
        ", \"threshold\": %.3f, \"stated_bound_most\": %.5f, \"live\": %.5f, \"live_low\": %.5f, "
        "\"live_high\": %.5f, \"state\": %d, \"turned\": %s, \"alarm\": %.2f, \"turned_at\": "
        "%" PRId64 ", \"reason\": \"%s\"}\n",
        isfinite(world.verdict.threshold) ? world.verdict.threshold : 1e9, world.stated_bound_most,
        rate.estimate, rate.low, rate.high, (int)world.verdict.state,
        world.verdict.has_turned ? "true" : "false", world.alarm_most, world.turned_at,
        world.verdict.reason);
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

static void run_seed(const struct corpus *corpus, size_t n_queries, uint64_t number,
                     const struct threshold_seed *seed)
{
    static const struct scenario plain[] = {
        {.name = "plain", .max_error = 0.01},
        {.name = "plain", .max_error = 0.02},
        {.name = "plain", .max_error = 0.05},
    };
    static const struct scenario others[] = {
        {.name = "drift", .max_error = 0.01, .drifts = true},
        {.name = "drift", .max_error = 0.02, .drifts = true},
        {.name = "drift", .max_error = 0.05, .drifts = true},
        {.name = "seed errs", .max_error = 0.02, .seed_errs = true},
        {.name = "seed errs", .max_error = 0.05, .seed_errs = true},
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
    stream_make(corpus, n_queries, number, &stream);
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

static void print_seed(const struct threshold_seed *seed)
{
    printf("    .weight = %g,\n    .scale = {.edges = {", seed->weight);
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        printf("%s%.5fF,", i % 8 == 0 ? "\n        " : " ", (double)seed->scale.edges[i]);
    }
    printf("\n    }},\n    .right = {");
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        printf("%s%" PRIu32 ",", i % 12 == 0 ? "\n        " : " ", seed->right[i]);
    }
    printf("\n    },\n    .wrong = {");
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        printf("%s%" PRIu32 ",", i % 12 == 0 ? "\n        " : " ", seed->wrong[i]);
    }
    printf("\n    },\n");
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--fit") == 0) {
        struct threshold_seed seed;
        fit_seed(argv[2], strtoul(argv[3], NULL, 10), &seed);
        print_seed(&seed);
        return 0;
    }
    if (argc != 5) {
        fprintf(stderr, "usage: %s DATA QUERIES FIRST_SEED LAST_SEED | --fit DATA QUERIES\n",
                argv[0]);
        return 2;
    }
    const size_t n_queries = strtoul(argv[2], NULL, 10);
    struct threshold_seed seed;
    fit_seed(argv[1], n_queries, &seed);
    struct corpus corpus;
    corpus_load(argv[1], CORPUS_STREAM, &corpus);
    for (uint64_t number = strtoul(argv[3], NULL, 10); number <= strtoul(argv[4], NULL, 10);
         number++) {
        run_seed(&corpus, n_queries, number, &seed);
    }
    corpus_finish(&corpus);
    return 0;
}
