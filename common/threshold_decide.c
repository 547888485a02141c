/*
 * What follows from counts. Three steps: has the evidence turned, and since when; a view, that is,
 * labels and lookups by bin, weighed by age, with the seed among them; the least threshold whose
 * bound holds.
 */
#include "common/threshold.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * Low for so many looks: in the stream benchmark it is mistaken once in about 50,000 queries. That
 * costs little: a closed class labels every lookup, so that what was chance is soon seen as such,
 * and the older evidence counts again.
 */
const double THRESHOLD_ALARM = 3.0;

static const double HALF_LIFE_EPOCHS = 16;
/* Of labels: below that many a pool's share says nothing. */
static const double POOL_LABELS_MIN = 100;
/* Bins with more wrong ones say little of a drift, and change by themselves as the cache grows. */
static const double DRIFT_SHARE_MAX = 0.25;
static const double BASELINE_LABELS_MIN = 50;

struct view {
    double seen[THRESHOLD_BINS];
    double right[THRESHOLD_BINS];
    double wrong[THRESHOLD_BINS];
    double own[THRESHOLD_BINS]; /* labels of the class itself, among right and wrong */
};

/* Neighbouring bins that count as one. */
struct pool {
    size_t first, last;
    double right, wrong;
};

struct pools {
    struct pool list[THRESHOLD_BINS]; /* from the highest scores down */
    size_t length;
    bool begins_group[THRESHOLD_BINS]; /* a threshold may lie at the lower edge of this bin */
};

/* ------------------------------------------------------------------------- numbers */

/*
 * Continued fraction of the incomplete beta function, by Lentz's method.
 * Source: DLMF 8.17.22; Lentz, Appl. Opt. 15, 1976.
 */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1;
    double d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double value = d;
    for (int m = 1; m <= 300; m++) {
        const double terms[2] = {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                                 -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))};
        double change = 1;
        for (int i = 0; i < 2; i++) {
            d = 1 + terms[i] * d;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = 1 + terms[i] / c;
            c = fabs(c) < tiny ? tiny : c;
            change = c * d;
            value *= change;
        }
        if (fabs(change - 1) < 1e-10) {
            break;
        }
    }
    return value;
}

/* P(X <= x) for X of the beta distribution. */
static double beta_below(double a, double b, double x)
{
    if (x <= 0 || x >= 1) {
        return x >= 1;
    }
    const double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                     : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* Whether Clopper and Pearson's upper limit for a share of n labels is at most x. */
static bool limit_is_within(double share, double n, double confidence, double x)
{
    return n > 0 && beta_below(share * n + 1, fmax(n - share * n, 1e-9), x) >= confidence;
}

static double upper_limit(double share, double n, double confidence)
{
    double low = share;
    double high = 1;
    for (int i = 0; i < 40; i++) {
        const double middle = (low + high) / 2;
        if (limit_is_within(share, n, confidence, middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return high;
}

/* Of the normal distribution, by bisection: asked for once a verdict. */
static double normal_quantile(double p)
{
    double low = -10;
    double high = 10;
    for (int i = 0; i < 60; i++) {
        const double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / M_SQRT2) < p) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* ------------------------------------------------------------------------- policy */

struct rule {
    double max_error;
    double confidence;
    double seen_of_wrong; /* share of the wrong answers that the judge sees, at least */
    double observed_max;  /* wrong share among labels at which max_error is reached */
    double audit_share;
    double audit_share_most;
};

static double or_else(double given, double otherwise)
{
    return given > 0 ? given : otherwise;
}

/*
 * The judge calls at least (1 − false_accept) of the wrong answers wrong, so the true share is at
 * most the observed one divided by that. Same answers that it calls different are not taken off the
 * observed share: that rate is a limit, and what is subtracted wrongly would widen.
 */
static struct rule rule_of(const struct threshold_policy *policy)
{
    struct rule rule = {
        .max_error = policy->max_error,
        .confidence = or_else(policy->confidence, 0.8),
        .seen_of_wrong = fmax(1 - policy->judge_false_accept, 1e-6),
        .audit_share = or_else(policy->audit_share, 0.03),
        .audit_share_most = or_else(policy->audit_share_most, 0.5),
    };
    rule.observed_max = rule.max_error * rule.seen_of_wrong;
    rule.audit_share_most = fmax(rule.audit_share_most, rule.audit_share);
    return rule;
}

/* ------------------------------------------------------------------------- views */

static bool is_kept(const struct threshold_evidence *evidence, const struct threshold_epoch *epoch)
{
    return evidence->newest - epoch->number < THRESHOLD_EPOCHS;
}

/*
 * As the judge would have seen it: it was counted without error. `trust`: 0 to 1, the part of its
 * weight that it keeps.
 */
static void add_seed(struct view *view, const struct threshold_seed *seed,
                     const struct threshold_policy *judge, double trust)
{
    double total = 0;
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        total += (double)seed->right[i] + seed->wrong[i];
    }
    const double share = total > 0 ? trust * fmin(seed->weight / total, 1) : 0;
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        const double labels = (double)seed->right[i] + seed->wrong[i];
        const double wrong = seed->wrong[i] * (1 - judge->judge_false_accept) +
                             seed->right[i] * judge->judge_false_reject;
        view->right[i] += share * (labels - wrong);
        view->wrong[i] += share * wrong;
        view->seen[i] += share * labels;
    }
}

static void add_epoch(struct view *view, const struct threshold_epoch *epoch, double weight)
{
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        const struct threshold_bin *bin = &epoch->bins[i];
        const double wrong = (double)bin->wrong + bin->reported;
        view->seen[i] += weight * fmax(bin->seen, bin->right + wrong);
        view->right[i] += weight * bin->right;
        view->wrong[i] += weight * wrong;
        view->own[i] += weight * (bin->right + wrong);
    }
}

/* Epochs in [from, to), younger ones counting for more if `is_weighed`. */
static void add_epochs(struct view *view, const struct threshold_evidence *evidence, uint64_t from,
                       uint64_t to, bool is_weighed)
{
    for (size_t i = 0; i < THRESHOLD_EPOCHS; i++) {
        const struct threshold_epoch *epoch = &evidence->epochs[i];
        if (is_kept(evidence, epoch) && epoch->number >= from && epoch->number < to) {
            const double age = (double)(evidence->newest - epoch->number);
            add_epoch(view, epoch, is_weighed ? exp2(-age / HALF_LIFE_EPOCHS) : 1);
        }
    }
}

static double labels_of(const struct pool *pool)
{
    return pool->right + pool->wrong;
}

/* Whether the lower of two neighbours has the lesser share of wrong ones, which cannot be. */
static bool are_out_of_order(const struct pool *upper, const struct pool *lower)
{
    return lower->wrong * labels_of(upper) < upper->wrong * labels_of(lower);
}

static void pool_last_two(struct pools *pools)
{
    struct pool *into = &pools->list[pools->length - 2];
    const struct pool *from = &pools->list[pools->length - 1];
    into->first = from->first;
    into->right += from->right;
    into->wrong += from->wrong;
    pools->length--;
}

/* From the top down: groups of labels enough, then groups out of order are pooled. */
static void pool_bins(const struct view *view, double labels_min, struct pools *ret_pools)
{
    *ret_pools = (struct pools){0};
    struct pool group = {.last = THRESHOLD_BINS - 1};
    for (size_t i = THRESHOLD_BINS; i-- > 0;) {
        group.first = i;
        group.right += view->right[i];
        group.wrong += view->wrong[i];
        if (labels_of(&group) < labels_min && i > 0) {
            continue;
        }
        ret_pools->begins_group[i] = labels_of(&group) >= labels_min;
        ret_pools->list[ret_pools->length++] = group;
        group = (struct pool){.last = i - 1};
        while (ret_pools->length > 1 && are_out_of_order(&ret_pools->list[ret_pools->length - 2],
                                                         &ret_pools->list[ret_pools->length - 1])) {
            pool_last_two(ret_pools);
        }
    }
}

/* ------------------------------------------------------------------------- drift */

struct turn {
    double alarm;
    uint64_t epoch;
    double seed_trust; /* how far the class' own labels leave the seed believable */
};

/* Of the ratio between a drift from the seed and none: doubt begins at 1 : e^1.5, and is full at 1
 * : e^4. */
static double trust_at(double ratio)
{
    return fmin(fmax((4 - ratio) / (4 - 1.5), 0), 1);
}

/* The greatest log likelihood ratio over sizes of the drift. */
static double ratio_of(const struct view *before, const struct view *since)
{
    static const double drifts[] = {0.03, 0.06, 0.12, 0.25, 0.5};
    struct pools pools;
    pool_bins(before, BASELINE_LABELS_MIN, &pools);
    double greatest = 0;
    for (size_t d = 0; d < ARRAY_LENGTH(drifts); d++) {
        double sum = 0;
        for (size_t i = 0; i < pools.length; i++) {
            const struct pool *pool = &pools.list[i];
            const double share = (pool->wrong + 1) / (labels_of(pool) + 2);
            const double drifted = share + drifts[d] * (1 - share);
            for (size_t b = pool->first; b <= pool->last && share <= DRIFT_SHARE_MAX; b++) {
                sum += since->wrong[b] * log(drifted / share) +
                       since->right[b] * log((1 - drifted) / (1 - share));
            }
        }
        greatest = fmax(greatest, sum);
    }
    return greatest;
}

static double total_of(const double values[THRESHOLD_BINS], size_t from)
{
    double total = 0;
    for (size_t i = from; i < THRESHOLD_BINS; i++) {
        total += values[i];
    }
    return total;
}

static struct turn find_turn(const struct threshold_evidence *evidence,
                             const struct threshold_seed *seed,
                             const struct threshold_policy *policy)
{
    struct turn turn = {.seed_trust = 1};
    const uint64_t newest = evidence->newest;
    const uint64_t oldest = newest < THRESHOLD_EPOCHS ? 0 : newest - THRESHOLD_EPOCHS + 1;
    struct view before = {0};
    add_seed(&before, seed, policy, 1);
    for (uint64_t epoch = oldest; epoch <= newest; epoch++) {
        struct view since = {0};
        add_epochs(&before, evidence, epoch == oldest ? epoch : epoch - 1, epoch, false);
        add_epochs(&since, evidence, epoch, newest + 1, false);
        if (total_of(before.right, 0) + total_of(before.wrong, 0) < BASELINE_LABELS_MIN) {
            continue;
        }
        const double alarm = ratio_of(&before, &since);
        if (alarm > turn.alarm) {
            turn.alarm = alarm;
            turn.epoch = epoch;
        }
    }
    struct view beforehand = {0};
    struct view own = {0};
    add_seed(&beforehand, seed, policy, 1);
    add_epochs(&own, evidence, oldest, newest + 1, false);
    turn.seed_trust = turn.alarm > THRESHOLD_ALARM ? 0 : trust_at(ratio_of(&beforehand, &own));
    return turn;
}

/* ------------------------------------------------------------------------- the bound */

struct bound {
    double share;  /* wrong ones among labels, expected */
    double labels; /* as which the whole counts */
    double own;    /* of the class itself, above the threshold */
    double traffic;
};

/* What would be served from bin `from` on: see "The bound" in the header. */
static struct bound bound_from(const struct view *view, const struct pools *pools, size_t from)
{
    const double traffic = total_of(view->seen, from);
    double share = 0;
    double smooth = 0;
    double variance = 0;
    for (size_t i = 0; i < pools->length && pools->list[i].last >= from && traffic > 0; i++) {
        const struct pool *pool = &pools->list[i];
        double weight = 0;
        for (size_t b = pool->first < from ? from : pool->first; b <= pool->last; b++) {
            weight += view->seen[b] / traffic;
        }
        const double n = labels_of(pool);
        const double p = (pool->wrong + 0.5) / (n + 1);
        share += weight * (n > 0 ? pool->wrong / n : 1);
        smooth += weight * p;
        variance += weight * weight * p * (1 - p) / (n + 1);
    }
    return (struct bound){.share = share,
                          .labels = variance > 0 ? smooth * (1 - smooth) / variance : 0,
                          .own = total_of(view->own, from),
                          .traffic = traffic};
}

/* More while own labels are fewer than what the bound needs at least, or when they turn. */
static double audit_share_of(const struct rule *rule, const struct threshold_evidence *evidence,
                             const struct view *view, const struct bound *bound, double alarm)
{
    const double needed = -log1p(-rule->confidence) / rule->observed_max;
    if (bound->own < needed || alarm > THRESHOLD_ALARM / 2.5) {
        return rule->audit_share_most;
    }
    struct view recent = {0};
    const uint64_t n_recent = evidence->newest < 4 ? evidence->newest : 4;
    add_epochs(&recent, evidence, evidence->newest - n_recent, evidence->newest, false);
    const double lookups =
        n_recent > 0 ? total_of(recent.seen, 0) / (double)n_recent : THRESHOLD_EPOCH_LOOKUPS;
    const double hits = lookups * bound->traffic / fmax(total_of(view->seen, 0), 1);
    const double share = THRESHOLD_EPOCH_AUDITS / fmax(hits, 1);
    return fmin(fmax(share, rule->audit_share), rule->audit_share_most);
}

/* ------------------------------------------------------------------------- the verdict */

PRINTF_LIKE(2, 3)
static void say(struct threshold_verdict *verdict, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(verdict->reason, sizeof(verdict->reason), format, arguments);
    va_end(arguments);
}

static void close_for_judge(const struct threshold_policy *policy,
                            struct threshold_verdict *verdict)
{
    const bool accepts = policy->judge_false_accept >= policy->max_error;
    verdict->state = THRESHOLD_CLOSED_JUDGE;
    say(verdict, "closed: the judge wrongly %s %.2g %% of the answers, max_error is %.2g %%",
        accepts ? "accepts" : "rejects",
        100 * (accepts ? policy->judge_false_accept : policy->judge_false_reject),
        100 * policy->max_error);
}

/* Why no threshold bears the bound: the labels' number, or what they say? */
static void close_for_evidence(const struct rule *rule, const struct view *view,
                               const struct pools *pools, struct threshold_verdict *verdict)
{
    double best = -1; /* no group is large enough to tell */
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        if (pools->begins_group[i]) {
            const double share = bound_from(view, pools, i).share;
            best = best < 0 ? share : fmin(best, share);
        }
    }
    const double own = total_of(view->own, 0);
    if (verdict->has_turned) {
        verdict->state = THRESHOLD_CLOSED_TURNED;
        say(verdict,
            "closed: the evidence turned in epoch %llu; since then %.0f labels, too few or "
            "too many wrong",
            (unsigned long long)verdict->turned_epoch, own);
    } else if (best >= rule->observed_max && own >= THRESHOLD_OWN_LABELS_MIN) {
        verdict->state = THRESHOLD_CLOSED_WRONG;
        say(verdict, "closed: at least %.2g %% wrong at any score, max_error is %.2g %%",
            100 * best / rule->seen_of_wrong, 100 * rule->max_error);
    } else {
        verdict->state = THRESHOLD_CLOSED_THIN;
        say(verdict, "closed: %.0f labels are too few for %.2g %% at a confidence of %.0f %%", own,
            100 * rule->max_error, 100 * rule->confidence);
    }
}

static void open_at(const struct rule *rule, const struct threshold_seed *seed, size_t from,
                    const struct bound *bound, struct threshold_verdict *verdict)
{
    verdict->state = THRESHOLD_OPEN;
    verdict->threshold = from > 0 ? (double)seed->scale.edges[from - 1] : -INFINITY;
    verdict->expected = fmin(bound->share / rule->seen_of_wrong, 1);
    verdict->bound =
        fmin(upper_limit(bound->share, bound->labels, rule->confidence) / rule->seen_of_wrong, 1);
    verdict->labels = bound->labels;
    say(verdict, "open from %.3f: at most %.2g %% wrong, by %.0f labels", verdict->threshold,
        100 * verdict->bound, bound->labels);
}

void threshold_decide(const struct threshold_evidence *evidence, const struct threshold_seed *seed,
                      const struct threshold_policy *policy, struct threshold_verdict *ret_verdict)
{
    const struct rule rule = rule_of(policy);
    *ret_verdict =
        (struct threshold_verdict){.threshold = INFINITY, .audit_share = rule.audit_share_most};
    if (fmax(policy->judge_false_accept, policy->judge_false_reject) >= policy->max_error) {
        close_for_judge(policy, ret_verdict);
        return;
    }
    const struct turn turn = find_turn(evidence, seed, policy);
    ret_verdict->alarm = turn.alarm;
    ret_verdict->has_turned = turn.alarm > THRESHOLD_ALARM;
    ret_verdict->turned_epoch = ret_verdict->has_turned ? turn.epoch : 0;

    struct view view = {0};
    add_seed(&view, seed, policy, turn.seed_trust);
    add_epochs(&view, evidence, ret_verdict->turned_epoch, evidence->newest + 1, true);
    struct pools pools;
    pool_bins(&view, POOL_LABELS_MIN, &pools);
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        const struct bound bound = bound_from(&view, &pools, i);
        if (pools.begins_group[i] && bound.own >= THRESHOLD_OWN_LABELS_MIN &&
            limit_is_within(bound.share, bound.labels, rule.confidence, rule.observed_max)) {
            open_at(&rule, seed, i, &bound, ret_verdict);
            ret_verdict->audit_share = audit_share_of(&rule, evidence, &view, &bound, turn.alarm);
            return;
        }
    }
    close_for_evidence(&rule, &view, &pools, ret_verdict);
}

/* Rogan and Gladen, Am. J. Epidemiol. 107, 1978: what the judge saw, freed of its stated error. */
static double freed_of_judge(const struct threshold_policy *policy, double observed)
{
    const double seen = 1 - policy->judge_false_accept - policy->judge_false_reject;
    return seen > 0 ? fmin(fmax((observed - policy->judge_false_reject) / seen, 0), 1) : observed;
}

/* Wilson, J. Am. Stat. Assoc. 22, 1927; for weighted audits with Kish's number of them. */
void threshold_measure(const struct threshold_evidence *evidence,
                       const struct threshold_policy *policy, struct threshold_rate *ret_rate)
{
    double weight = 0;
    double wrong = 0;
    double square = 0;
    *ret_rate = (struct threshold_rate){.high = 1};
    for (size_t i = 0; i < THRESHOLD_EPOCHS; i++) {
        const struct threshold_epoch *epoch = &evidence->epochs[i];
        ret_rate->audits += epoch->audits;
        ret_rate->audits_wrong += epoch->audits_wrong;
        weight += (double)epoch->weight / 256;
        wrong += (double)epoch->weight_wrong / 256;
        square += (double)epoch->weight_square / 256;
    }
    if (!(square > 0)) {
        return;
    }
    const double n = weight * weight / square;
    const double p = wrong / weight;
    const double z = normal_quantile(0.5 + rule_of(policy).confidence / 2);
    const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
    const double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n);
    ret_rate->estimate = freed_of_judge(policy, p);
    ret_rate->low = freed_of_judge(policy, fmax(centre - half, 0));
    ret_rate->high = fmin((centre + half) / fmax(1 - policy->judge_false_accept, 1e-6), 1);
}
