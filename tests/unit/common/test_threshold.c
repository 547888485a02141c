#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/threshold.h"

enum { TOP = THRESHOLD_BINS - 1 };

static struct threshold_seed seed;
static struct threshold_evidence evidence;
static const struct threshold_policy two_percent = {.max_error = 0.02};

/* Scores from −4 to 4; the seed says: 0.5 % wrong in the upper half, half of them in the lower. */
static void begin(void)
{
    threshold_scale_even(-4, 4, &seed.scale);
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        seed.right[i] = i >= THRESHOLD_BINS / 2 ? 995 : 500;
        seed.wrong[i] = 1000 - seed.right[i];
    }
    seed.weight = 2000;
    threshold_init(&seed.scale, &evidence);
}

static void begin_without_seed(void)
{
    begin();
    memset(seed.right, 0, sizeof(seed.right));
    memset(seed.wrong, 0, sizeof(seed.wrong));
}

TestSuite(threshold, .init = begin);

/* Of n lookups with this score, `wrong` prove wrong; all are misses that were compared. */
static void meet(uint64_t epoch, double score, unsigned n, unsigned wrong)
{
    for (unsigned i = 0; i < n; i++) {
        threshold_add_lookup(&evidence, &seed.scale, epoch, score, false);
        threshold_add(&evidence, &seed.scale, epoch, score, THRESHOLD_MISS, i >= wrong, 0);
    }
}

static struct threshold_verdict decide(const struct threshold_policy *policy)
{
    struct threshold_verdict verdict;
    threshold_decide(&evidence, &seed, policy, &verdict);
    return verdict;
}

static unsigned make_seed(void)
{
    const char *given = getenv("TEST_SEED");
    const unsigned number =
        given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    cr_log_info("seed %u", number);
    return number;
}

static double random_score(void)
{
    return (double)rand() / RAND_MAX * 10 - 5;
}

static void add_random(struct threshold_evidence *to, uint64_t epoch)
{
    const double score = random_score();
    const bool is_served = rand() % 2 == 0;
    threshold_add_lookup(to, &seed.scale, epoch, score, is_served);
    threshold_add(to, &seed.scale, epoch, score, (enum threshold_kind)(rand() % 3), rand() % 5 > 0,
                  1 + (uint32_t)rand() % 1000);
}

Test(threshold, the_seed_alone_never_opens)
{
    seed.weight = 1e9;
    for (double max_error = 0.001; max_error < 0.9; max_error += 0.01) {
        const struct threshold_policy policy = {.max_error = max_error};
        const struct threshold_verdict verdict = decide(&policy);
        cr_assert_eq(verdict.state, THRESHOLD_CLOSED_THIN, "at %g: %s", max_error, verdict.reason);
        cr_assert(isinf(verdict.threshold) && verdict.threshold > 0);
    }
}

Test(threshold, with_a_seed_that_fits_it_opens_within_a_hundred_labels)
{
    meet(0, 3, 50, 0);
    meet(0, 1, 50, 1);
    const struct threshold_verdict verdict = decide(&two_percent);
    cr_assert_eq(verdict.state, THRESHOLD_OPEN, "%s", verdict.reason);
    cr_assert_lt(verdict.threshold, 1);
    cr_assert_leq(verdict.bound, 0.02);
    cr_assert_leq(verdict.expected, verdict.bound);
}

Test(threshold, a_bound_stricter_than_the_seed_bears_stays_closed_until_own_labels_bear_it)
{
    const struct threshold_policy strict = {.max_error = 0.001};
    meet(0, 3, 200, 0);
    cr_assert_neq(decide(&strict).state, THRESHOLD_OPEN);
    meet(0, 3, 20000, 0);
    cr_assert_eq(decide(&strict).state, THRESHOLD_OPEN);
}

Test(threshold, without_a_seed_own_labels_alone_open_it, .init = begin_without_seed)
{
    /* 0.98^n <= 0.2: at least 80 right ones for 2 % at a confidence of 80 %. */
    meet(0, 3, 79, 0);
    cr_assert_eq(decide(&two_percent).state, THRESHOLD_CLOSED_THIN);
    meet(0, 3, 400, 0);
    const struct threshold_verdict verdict = decide(&two_percent);
    cr_assert_eq(verdict.state, THRESHOLD_OPEN, "%s", verdict.reason);
    cr_assert_lt(verdict.bound, 0.02);
}

Test(threshold, it_serves_no_region_that_it_knows_to_be_wrong)
{
    meet(0, 3, 2000, 2);
    meet(0, -2, 2000, 900);
    const struct threshold_verdict verdict = decide(&two_percent);
    cr_assert_eq(verdict.state, THRESHOLD_OPEN);
    cr_assert_gt(verdict.threshold, -2);
}

Test(threshold, too_many_wrong_at_every_score_is_a_reason_of_its_own, .init = begin_without_seed)
{
    meet(0, 3, 1000, 100);
    const struct threshold_verdict verdict = decide(&two_percent);
    cr_assert_eq(verdict.state, THRESHOLD_CLOSED_WRONG, "%s", verdict.reason);
    cr_assert_not_null(strstr(verdict.reason, "10 % wrong"), "%s", verdict.reason);
}

Test(threshold, more_right_labels_never_raise_the_bound_and_wrong_ones_never_lower_it,
     .init = begin_without_seed)
{
    const unsigned number = make_seed();
    srand(number);
    for (int round = 0; round < 50; round++) {
        threshold_init(&seed.scale, &evidence);
        meet(0, 3, 500 + (unsigned)rand() % 1000, (unsigned)rand() % 4);
        const struct threshold_verdict before = decide(&two_percent);
        cr_assert_eq(before.state, THRESHOLD_OPEN, "seed %u: %s", number, before.reason);
        meet(0, 3, 100, 0);
        const struct threshold_verdict more = decide(&two_percent);
        cr_assert_leq(more.bound, before.bound, "seed %u", number);
        threshold_add(&evidence, &seed.scale, 0, 3, THRESHOLD_FEEDBACK, false, 0);
        const struct threshold_verdict reported = decide(&two_percent);
        cr_assert(reported.state != THRESHOLD_OPEN || reported.bound > more.bound, "seed %u",
                  number);
    }
}

Test(threshold, a_laxer_bound_never_serves_less)
{
    const unsigned number = make_seed();
    srand(number);
    for (int round = 0; round < 20; round++) {
        threshold_init(&seed.scale, &evidence);
        for (int i = 0; i < 40; i++) {
            const double score = random_score();
            meet(0, score, 20, score > 0 ? (unsigned)rand() % 2 : 10);
        }
        double last = INFINITY;
        for (double max_error = 0.005; max_error < 0.3; max_error *= 1.3) {
            const struct threshold_policy policy = {.max_error = max_error};
            const double threshold = decide(&policy).threshold;
            cr_assert_leq(threshold, last, "seed %u, at %g", number, max_error);
            last = threshold;
        }
    }
}

Test(threshold, praise_of_users_counts_for_nothing)
{
    const struct threshold_evidence before = evidence;
    for (int i = 0; i < 1000; i++) {
        threshold_add(&evidence, &seed.scale, 0, 3, THRESHOLD_FEEDBACK, true, 0);
    }
    cr_assert_arr_eq(&evidence, &before, sizeof(before));
}

Test(threshold, complaints_close_it)
{
    meet(0, 3, 200, 0);
    cr_assert_eq(decide(&two_percent).state, THRESHOLD_OPEN);
    for (int i = 0; i < 40; i++) {
        threshold_add(&evidence, &seed.scale, 0, 3, THRESHOLD_FEEDBACK, false, 0);
    }
    cr_assert_neq(decide(&two_percent).state, THRESHOLD_OPEN);
}

Test(threshold, a_judge_that_errs_as_much_as_the_bound_keeps_it_closed_and_it_says_so)
{
    meet(0, 3, 5000, 0);
    const struct threshold_policy accepts = {.max_error = 0.02, .judge_false_accept = 0.02};
    const struct threshold_policy rejects = {.max_error = 0.02, .judge_false_reject = 0.03};
    cr_assert_eq(decide(&accepts).state, THRESHOLD_CLOSED_JUDGE);
    cr_assert_not_null(strstr(decide(&accepts).reason, "accepts 2 %"));
    cr_assert_eq(decide(&rejects).state, THRESHOLD_CLOSED_JUDGE);
    cr_assert_not_null(strstr(decide(&rejects).reason, "rejects 3 %"));
}

Test(threshold, the_bound_includes_what_the_judge_misses, .init = begin_without_seed)
{
    meet(0, 3, 2000, 10);
    const struct threshold_policy perfect = {.max_error = 0.2};
    const struct threshold_policy errs = {.max_error = 0.2, .judge_false_accept = 0.1};
    cr_assert_float_eq(decide(&errs).bound, decide(&perfect).bound / 0.9, 1e-9);
    cr_assert_float_eq(decide(&errs).expected, decide(&perfect).expected / 0.9, 1e-9);
}

/* Hits of which a fifth are audited: the labels that are left once it is open. */
static unsigned serve_until_closed(uint64_t *epoch, unsigned n, unsigned wrong_permille)
{
    for (unsigned i = 0; i < n; i++) {
        if (threshold_epoch_is_full(&evidence)) {
            threshold_advance(&evidence, ++*epoch);
        }
        threshold_add_lookup(&evidence, &seed.scale, *epoch, 3, true);
        if (i % 5 == 0) {
            const bool is_right = (unsigned)rand() % 1000 >= wrong_permille;
            threshold_add(&evidence, &seed.scale, *epoch, 3, THRESHOLD_AUDIT, is_right, 200);
        }
        if (i % 20 == 0 && decide(&two_percent).state != THRESHOLD_OPEN) {
            return i;
        }
    }
    return n;
}

Test(threshold, it_closes_when_answers_change_and_opens_again_by_new_evidence)
{
    srand(11);
    uint64_t epoch = 0;
    meet(epoch, 3, 200, 0);
    cr_assert_eq(serve_until_closed(&epoch, 4000, 3), 4000);
    const unsigned closed_after = serve_until_closed(&epoch, 4000, 120);
    cr_assert_lt(closed_after, 600, "after %u hits", closed_after);
    for (int i = 0; i < 2; i++) {
        meet(epoch, 3, 100, 12);
        threshold_advance(&evidence, ++epoch);
    }
    const struct threshold_verdict closed = decide(&two_percent);
    cr_assert_eq(closed.state, THRESHOLD_CLOSED_TURNED, "%s", closed.reason);
    cr_assert(closed.has_turned && closed.turned_epoch > 0);
    cr_assert_float_eq(closed.audit_share, 0.5, 1e-9, "audits as many as may be");
    for (int i = 0; i < 2 * THRESHOLD_EPOCHS; i++) {
        meet(epoch, 3, THRESHOLD_EPOCH_LOOKUPS, 0);
        threshold_advance(&evidence, ++epoch);
    }
    cr_assert_eq(decide(&two_percent).state, THRESHOLD_OPEN);
}

Test(threshold, a_seed_that_own_labels_contradict_is_given_up)
{
    seed.weight = 4000;
    meet(0, 3, 300, 15); /* 5 %, where the seed says 0.5 % */
    const struct threshold_verdict verdict = decide(&two_percent);
    cr_assert_neq(verdict.state, THRESHOLD_OPEN, "%s", verdict.reason);
}

Test(threshold, evidence_of_epochs_long_past_is_forgotten)
{
    meet(0, 3, 1000, 0);
    cr_assert_eq(decide(&two_percent).state, THRESHOLD_OPEN);
    threshold_advance(&evidence, THRESHOLD_EPOCHS);
    cr_assert_eq(decide(&two_percent).state, THRESHOLD_CLOSED_THIN);
    threshold_add(&evidence, &seed.scale, 0, 3, THRESHOLD_MISS, true, 0);
    cr_assert_eq(evidence.epochs[0].bins[TOP].right, 0);
}

Test(threshold, audits_grow_when_the_evidence_is_thin_and_shrink_to_the_least_with_much_of_it)
{
    meet(0, 3, 60, 0);
    cr_assert_float_eq(decide(&two_percent).audit_share, 0.5, 1e-9);
    for (uint64_t epoch = 0; epoch < 8; epoch++) {
        meet(epoch, 3, 5000, 10);
    }
    const struct threshold_verdict verdict = decide(&two_percent);
    cr_assert_eq(verdict.state, THRESHOLD_OPEN);
    cr_assert_float_eq(verdict.audit_share, 0.03, 1e-9, "%g", verdict.audit_share);
}

Test(threshold, merging_in_any_order_and_grouping_is_as_if_counted_in_one)
{
    enum { WORKERS = 6 };
    static struct threshold_evidence deltas[WORKERS], one, left, right;
    const unsigned number = make_seed();
    srand(number);
    for (int round = 0; round < 30; round++) {
        threshold_init(&seed.scale, &one);
        threshold_init(&seed.scale, &left);
        threshold_init(&seed.scale, &right);
        for (int i = 0; i < WORKERS; i++) {
            threshold_init(&seed.scale, &deltas[i]);
            for (int n = 0; n < 300; n++) {
                const unsigned state = (unsigned)rand();
                const uint64_t epoch = (uint64_t)rand() % (3 * THRESHOLD_EPOCHS);
                srand(state);
                add_random(&deltas[i], epoch);
                srand(state);
                add_random(&one, epoch);
            }
        }
        for (int i = 0; i < WORKERS; i++) {
            cr_assert_eq(threshold_merge(&left, &deltas[i]), 0);
        }
        for (int i = 0; i < WORKERS; i += 2) { /* pairs first, from the last */
            static struct threshold_evidence pair;
            pair = deltas[WORKERS - 1 - i];
            cr_assert_eq(threshold_merge(&pair, &deltas[WORKERS - 2 - i]), 0);
            cr_assert_eq(threshold_merge(&right, &pair), 0);
        }
        cr_assert_arr_eq(&left, &right, sizeof(left), "seed %u", number);
        cr_assert_arr_eq(&left, &one, sizeof(left), "seed %u", number);
    }
}

Test(threshold, counts_of_another_scale_are_refused)
{
    static struct threshold_evidence other;
    struct threshold_scale scale;
    threshold_scale_even(0, 1, &scale);
    threshold_init(&scale, &other);
    const struct threshold_evidence before = evidence;
    cr_assert_eq(threshold_merge(&evidence, &other), -EINVAL);
    cr_assert_arr_eq(&evidence, &before, sizeof(before));
}

Test(threshold, an_epoch_is_full_after_its_lookups)
{
    meet(3, 0, THRESHOLD_EPOCH_LOOKUPS - 1, 0);
    cr_assert_not(threshold_epoch_is_full(&evidence));
    meet(3, 0, 1, 0);
    cr_assert(threshold_epoch_is_full(&evidence));
    threshold_advance(&evidence, 4);
    cr_assert_not(threshold_epoch_is_full(&evidence));
}

Test(threshold, scores_at_and_beyond_the_ends_have_bins)
{
    const double scores[] = {-INFINITY, -4.1, -4, 4, INFINITY, NAN};
    const size_t bins[] = {0, 0, 1, TOP, TOP, 0};
    for (size_t i = 0; i < ARRAY_LENGTH(scores); i++) {
        threshold_init(&seed.scale, &evidence);
        threshold_add_lookup(&evidence, &seed.scale, 0, scores[i], false);
        cr_assert_eq(evidence.epochs[0].bins[bins[i]].seen, 1, "%g", scores[i]);
    }
}

Test(threshold, the_live_rate_weighs_an_audit_by_how_rarely_it_is_drawn)
{
    for (int i = 0; i < 100; i++) {
        threshold_add(&evidence, &seed.scale, 0, 3, THRESHOLD_AUDIT, true, 1000);
        threshold_add(&evidence, &seed.scale, 0, 2, THRESHOLD_AUDIT, i >= 10, 100);
    }
    struct threshold_rate rate;
    threshold_measure(&evidence, &two_percent, &rate);
    cr_assert_eq(rate.audits, 200);
    cr_assert_eq(rate.audits_wrong, 10);
    cr_assert_float_eq(rate.estimate, 100.0 / 1100, 1e-3);
    cr_assert(rate.low < rate.estimate && rate.estimate < rate.high);
}

Test(threshold, wilsons_interval_is_his)
{
    for (int i = 0; i < 100; i++) {
        threshold_add(&evidence, &seed.scale, 0, 3, THRESHOLD_AUDIT, i >= 5, 500);
    }
    const struct threshold_policy policy = {.max_error = 0.05, .confidence = 0.95};
    struct threshold_rate rate;
    threshold_measure(&evidence, &policy, &rate);
    cr_assert_float_eq(rate.low, 0.02154, 1e-4, "%g", rate.low); /* 5 of 100, z = 1.96 */
    cr_assert_float_eq(rate.high, 0.11175, 1e-4, "%g", rate.high);
}

Test(threshold, without_audits_the_live_rate_may_be_anything)
{
    struct threshold_rate rate;
    threshold_measure(&evidence, &two_percent, &rate);
    cr_assert(rate.low == 0 && rate.high == 1 && rate.audits == 0);
}

Test(threshold, what_is_packed_comes_out_again)
{
    static uint8_t bytes[THRESHOLD_PACKED_BYTES_MAX];
    static struct threshold_evidence other;
    const unsigned number = make_seed();
    srand(number);
    for (int round = 0; round < 50; round++) {
        threshold_init(&seed.scale, &evidence);
        for (int i = rand() % 2000; i > 0; i--) {
            add_random(&evidence, (uint64_t)rand() % 50);
        }
        const size_t length = threshold_pack(&evidence, bytes);
        cr_assert_leq(length, sizeof(bytes));
        memset(&other, 0xff, sizeof(other));
        cr_assert_eq(threshold_unpack(bytes, length, &other), 0, "seed %u", number);
        cr_assert_arr_eq(&other, &evidence, sizeof(other), "seed %u", number);
    }
}

Test(threshold, bytes_that_are_cut_or_too_long_are_refused)
{
    static uint8_t bytes[THRESHOLD_PACKED_BYTES_MAX + 1];
    static struct threshold_evidence other, before;
    meet(7, 3, 5, 1);
    const size_t length = threshold_pack(&evidence, bytes);
    for (size_t cut = 0; cut < length; cut++) {
        cr_assert_eq(threshold_unpack(bytes, cut, &other), -EBADMSG, "at %zu", cut);
    }
    cr_assert_eq(threshold_unpack(bytes, length + 1, &other), -EBADMSG);
    cr_assert_arr_eq(&other, &before, sizeof(other));
}

Test(threshold, the_fullest_evidence_fits_the_room_and_counts_do_not_wrap)
{
    static uint8_t bytes[THRESHOLD_PACKED_BYTES_MAX];
    for (uint64_t epoch = 0; epoch < THRESHOLD_EPOCHS; epoch++) {
        threshold_add(&evidence, &seed.scale, epoch, 0, THRESHOLD_MISS, true, 0);
        struct threshold_epoch *slot = &evidence.epochs[epoch];
        memset(slot->bins, 0xff, sizeof(slot->bins));
    }
    cr_assert_leq(threshold_pack(&evidence, bytes), sizeof(bytes));
    static struct threshold_evidence twice;
    twice = evidence;
    cr_assert_eq(threshold_merge(&twice, &evidence), 0);
    cr_assert_eq(twice.epochs[3].bins[TOP].seen, UINT32_MAX);
    cr_assert_neq(decide(&two_percent).state, THRESHOLD_OPEN);
}
