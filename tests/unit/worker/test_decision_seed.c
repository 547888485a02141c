#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "common/threshold.h"
#include "worker/cache/decision.h"
#include "worker/cache/decision_seed.h"
#include "worker/cache/embed_builtin.h"

static struct threshold_evidence evidence;
static const struct threshold_policy two_percent = {.max_error = 0.02};

static double score(const char *a, const char *b)
{
    static union profile_buffer first, second;
    static struct sparse_vector x, y;
    struct likeness likeness;
    cr_assert_gt(profile_make(a, strlen(a), &first), 0);
    cr_assert_gt(profile_make(b, strlen(b), &second), 0);
    embed_builtin(&first.profile, &x);
    embed_builtin(&second.profile, &y);
    likeness_of(&first.profile, &second.profile, sparse_vector_cosine(&x, &y), &likeness);
    return decision_score(decision_builtin(), &likeness);
}

static size_t bin_of(double value)
{
    size_t bin = 0;
    while (bin < THRESHOLD_BINS - 1 && value >= (double)decision_seed()->scale.edges[bin]) {
        bin++;
    }
    return bin;
}

/* Of what scores as much as `value` or more. */
static double wrong_share_from(double value)
{
    const struct threshold_seed *seed = decision_seed();
    double right = 0, wrong = 0;
    for (size_t i = bin_of(value); i < THRESHOLD_BINS; i++) {
        right += seed->right[i];
        wrong += seed->wrong[i];
    }
    return wrong / (right + wrong);
}

Test(decision_seed, edges_ascend)
{
    for (size_t i = 1; i < THRESHOLD_BINS - 1; i++) {
        cr_expect_gt(decision_seed()->scale.edges[i], decision_seed()->scale.edges[i - 1], "%zu",
                     i);
    }
}

Test(decision_seed, it_is_of_the_scale_that_the_decision_uses)
{
    const char *question = "How do I reset the password of my router?";
    cr_expect_lt(wrong_share_from(score(question, "hi, how do i reset the password of my router")),
                 0.01);
    const size_t other = bin_of(score(question, "How do I bake sourdough bread?"));
    cr_expect_gt(decision_seed()->wrong[other], 5 * decision_seed()->right[other]);
    cr_expect_geq(bin_of(score(question, question)), 40);
}

static enum threshold_state state_after(size_t n_right)
{
    const struct threshold_seed *seed = decision_seed();
    struct threshold_verdict verdict;
    threshold_init(&seed->scale, &evidence);
    for (size_t i = 0; i < n_right; i++) { /* over all bins from the middle up */
        const double at = (double)seed->scale.edges[44 + i % 19];
        threshold_add_lookup(&evidence, &seed->scale, 0, at, false);
        threshold_add(&evidence, &seed->scale, 0, at, THRESHOLD_MISS, true, 0);
    }
    threshold_decide(&evidence, seed, &two_percent, &verdict);
    return verdict.state;
}

Test(decision_seed, it_never_opens_alone)
{
    cr_expect_eq(state_after(0), THRESHOLD_CLOSED_THIN);
    cr_expect_eq(state_after(THRESHOLD_OWN_LABELS_MIN - 1), THRESHOLD_CLOSED_THIN);
}

Test(decision_seed, it_opens_within_hundreds_of_right_labels)
{
    cr_expect_eq(state_after(200), THRESHOLD_OPEN);
}

Test(decision_seed, wrong_labels_keep_it_closed)
{
    const struct threshold_seed *seed = decision_seed();
    struct threshold_verdict verdict;
    threshold_init(&seed->scale, &evidence);
    for (size_t i = 0; i < 400; i++) {
        const double at = (double)seed->scale.edges[44 + i % 19];
        threshold_add_lookup(&evidence, &seed->scale, 0, at, false);
        threshold_add(&evidence, &seed->scale, 0, at, THRESHOLD_MISS, i % 4 != 0, 0);
    }
    threshold_decide(&evidence, seed, &two_percent, &verdict);
    cr_expect_neq(verdict.state, THRESHOLD_OPEN);
    cr_expect(isinf(verdict.threshold));
}

/* ---- dense vectors ---- */

Test(decision_seed, dense_edges_ascend_and_are_finest_where_texts_are_the_same)
{
    struct threshold_seed seed;
    decision_seed_dense(&seed);
    const float *edges = seed.scale.edges;
    for (size_t i = 2; i < THRESHOLD_BINS - 1; i++) {
        cr_assert_gt(edges[i], edges[i - 1]);
        cr_assert_lt(edges[i] - edges[i - 1], edges[i - 1] - edges[i - 2]);
    }
    const struct likeness same = {.features = {[LIKENESS_COSINE] = 1}}, near = {.features = {[LIKENESS_COSINE] = 0.995F}};
    cr_assert_gt(decision_score_dense(&same), (double)edges[THRESHOLD_BINS - 2]);
    cr_assert_lt(decision_score_dense(&near), (double)edges[THRESHOLD_BINS - 2 - 10], "ten bins tell them apart");
}

Test(decision_seed, dense_seed_travels_to_who_merges)
{
    struct threshold_seed seed, taken;
    uint8_t bytes[THRESHOLD_SEED_BYTES];
    decision_seed_dense(&seed);
    threshold_pack_seed(&seed, bytes);
    cr_assert_eq(threshold_unpack_seed(bytes, sizeof(bytes), &taken), 0);
    cr_assert_eq(taken.weight, 0);
    cr_assert_eq(threshold_scale_fingerprint(&taken.scale), threshold_scale_fingerprint(&seed.scale));
}

Test(decision_seed, dense_class_opens_by_its_own_labels_alone)
{
    struct threshold_seed seed;
    struct threshold_verdict verdict;
    decision_seed_dense(&seed);
    threshold_init(&seed.scale, &evidence);
    threshold_decide(&evidence, &seed, &two_percent, &verdict);
    cr_assert_eq(verdict.state, THRESHOLD_CLOSED_THIN);
    for (int i = 0; i < 120; i++) {
        const bool is_same = i % 2 == 0;
        const double value = is_same ? 4.0 : -2.0;
        threshold_add_lookup(&evidence, &seed.scale, 0, value, false);
        threshold_add(&evidence, &seed.scale, 0, value, THRESHOLD_MISS, is_same, 0);
    }
    threshold_decide(&evidence, &seed, &two_percent, &verdict);
    cr_assert_neq(verdict.state, THRESHOLD_OPEN, "%s", verdict.reason);
    for (int i = 0; i < 100; i++) {
        threshold_add_lookup(&evidence, &seed.scale, 0, 4.0, false);
        threshold_add(&evidence, &seed.scale, 0, 4.0, THRESHOLD_MISS, true, 0);
    }
    threshold_decide(&evidence, &seed, &two_percent, &verdict);
    cr_assert_eq(verdict.state, THRESHOLD_OPEN, "%s", verdict.reason);
    cr_assert_gt(verdict.threshold, -2.0);
    cr_assert_leq(verdict.bound, 0.02);
}
