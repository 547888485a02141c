/*
 * threshold: from which score on a near hit may be served so that the wrong share of the near hits
 * stays within max_error, and what is known about that. For one policy class: tenant, tier,
 * embedder id and version, judge.
 *
 * Evidence is counts over bins of the score and over epochs; it adds up: workers send what they
 * counted, the broker merges it, in any order and grouping, with the same result. Counts are exact
 * integers; age is weighed only when a verdict is asked for, so decay commutes with merging.
 * Epochs are numbered by whoever merges (the broker) and announced with the threshold; an
 * observation belongs to the epoch its worker knew when it made it. An epoch holds at least
 * THRESHOLD_EPOCH_LOOKUPS near lookups, and lasts at least a quarter of the time for which a drift
 * may go unnoticed: that time, not the traffic, says how many audits there must be.
 *
 * The bound. Every near lookup is counted in the bin of its best candidate's score, whether or not
 * its truth becomes known; within a bin and an epoch it becomes known independently of the truth
 * (of misses all are compared, or as many of each score as chance draws; audits are drawn by
 * chance). So the wrong share of what would be served
 * from bin t on is the stratified mean M = Σ w_b·p_b, w the shares of the bins in the traffic, p
 * the wrong shares among the labels: each label counts for the lookups of its bin, that is, by
 * 1/probability of being observed. Its variance Σ w_b²·p_b·(1−p_b)/n_b gives a number of labels N
 * as which the whole counts, and Clopper and Pearson's upper limit (Biometrika 26, 1934) for M·N
 * wrong of N is the bound. p is fitted to fall with the score (pool adjacent violators: Ayer et
 * al., Ann. Math. Stat. 26, 1955), and bins are pooled until each pool has labels enough.
 *
 * The seed is what was counted beforehand on other questions, shrunk to the weight of `weight`
 * labels. It never opens alone: THRESHOLD_OWN_LABELS_MIN labels of the class itself must lie above
 * the threshold.
 *
 * Drift. For every epoch j the labels since j are compared with what was known before: the log of
 * the likelihood ratio that a share δ of the right answers became wrong, the greatest over j and δ
 * (Page's CUSUM, Biometrika 41, 1954, in the generalised form of Lorden, Ann. Math. Stat. 42,
 * 1971). Past THRESHOLD_ALARM only the labels since j count, without the seed, which closes the
 * class until they bear a bound again.
 *
 * Not a guarantee against everything: labels of one popular question are not independent; the
 * judge's stated rates are believed. Pure: no I/O, no clock, no memory taken.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum {
    THRESHOLD_BINS = 64,
    THRESHOLD_EPOCHS = 32,         /* that are kept; older ones are forgotten */
    THRESHOLD_EPOCH_LOOKUPS = 250, /* an epoch is not over before */
    THRESHOLD_EPOCH_AUDITS = 20,   /* of hits in an epoch, as far as audit_share_most lets: a drift
                                      of a tenth shows in about three epochs */
    THRESHOLD_OWN_LABELS_MIN = 20,
    THRESHOLD_REASON_BYTES = 160,
    THRESHOLD_PACKED_BYTES_MAX = 65536,
    THRESHOLD_SEED_BYTES = 1 + (THRESHOLD_BINS - 1) * 4 + 2 * THRESHOLD_BINS * 4 + 8,
};

/* Lower edges of the bins 1 to 63, ascending; a score below all of them is in bin 0. */
struct threshold_scale {
    float edges[THRESHOLD_BINS - 1];
};

/* Counts of a scorer on other questions, best made with the quantiles of its scores as edges. */
struct threshold_seed {
    struct threshold_scale scale;
    uint32_t right[THRESHOLD_BINS];
    uint32_t wrong[THRESHOLD_BINS];
    double weight; /* labels as which all of it counts; 0: only the scale is used */
};

struct threshold_bin {
    uint32_t seen;  /* near lookups whose best candidate scored here */
    uint32_t right; /* of those whose truth became known */
    uint32_t wrong;
    uint32_t reported; /* wrong, say users */
};

struct threshold_epoch {
    uint64_t number;
    uint64_t hits;   /* near hits served */
    uint64_t audits; /* of them executed and compared */
    uint64_t audits_wrong;
    uint64_t weight;        /* Σ of the audits' 1/probability, in 1/256 */
    uint64_t weight_wrong;  /* of those found wrong */
    uint64_t weight_square; /* Σ of the squares, in 1/256 */
    struct threshold_bin bins[THRESHOLD_BINS];
};

/* Plain data: may be copied, and kept. About 34 KB. */
struct threshold_evidence {
    uint32_t scale;  /* fingerprint of the edges: counts of other edges are never added */
    uint64_t newest; /* number of the newest epoch */
    struct threshold_epoch epochs[THRESHOLD_EPOCHS]; /* by number modulo */
};

/* How a label came about. */
enum threshold_kind {
    THRESHOLD_MISS,     /* a fresh answer, compared with the candidate's */
    THRESHOLD_AUDIT,    /* a hit that was served, executed in the background and compared */
    THRESHOLD_FEEDBACK, /* a user's word on a hit. Who speaks is not drawn by chance: "wrong" counts
                           as a label, "right" as none, so it can close and never opens */
};

struct threshold_policy {
    double max_error;  /* greatest wrong share of near hits, in (0, 1) */
    double confidence; /* of the bound, in (0, 1); 0: 0.8 */
    double
        judge_false_accept; /* share of differing answers that the judge calls the same, at most */
    double judge_false_reject; /* share of same answers that the judge calls different, at most */
    double audit_share;        /* least, of the hits; 0: 0.03 */
    double audit_share_most;   /* 0: 0.5 */
};

enum threshold_state {
    THRESHOLD_OPEN,
    THRESHOLD_CLOSED_JUDGE,  /* errs more than max_error */
    THRESHOLD_CLOSED_THIN,   /* too few labels for this max_error */
    THRESHOLD_CLOSED_WRONG,  /* labels enough, and too many of them wrong at any score */
    THRESHOLD_CLOSED_TURNED, /* the evidence turned: see turned_epoch; new labels are too few yet */
};

struct threshold_verdict {
    enum threshold_state state;
    double threshold;   /* open: least score that may be served; else INFINITY */
    double expected;    /* open: wrong share expected of near hits, the judge's misses included */
    double bound;       /* open: its upper limit at `confidence`, the judge's misses included */
    double labels;      /* open: labels as which the evidence above the threshold counts */
    double audit_share; /* of the hits to be audited from now on */
    bool has_turned;    /* the evidence before turned_epoch contradicts what came since */
    uint64_t turned_epoch;
    double alarm; /* log likelihood ratio of a drift; turned past THRESHOLD_ALARM */
    char reason[THRESHOLD_REASON_BYTES]; /* in words */
};

/* The wrong share of the near hits served, measured by audits alone, each weighed by 1/probability.
 */
struct threshold_rate {
    uint64_t audits;
    uint64_t audits_wrong; /* as the judge saw them */
    double estimate;       /* 0 without audits */
    double low, high;      /* Wilson's interval, at the policy's confidence, two-sided */
};

extern const double THRESHOLD_ALARM;

/* Even bins from `low` to `high`, for a scorer without a seed. */
void threshold_scale_even(double low, double high, struct threshold_scale *ret_scale);
uint32_t threshold_scale_fingerprint(const struct threshold_scale *scale);

void threshold_init(const struct threshold_scale *scale, struct threshold_evidence *ret_evidence);

/*
 * Counts a near lookup that had a candidate: once for each, served or not. Observations of epochs
 * that are no longer kept are dropped.
 */
void threshold_add_lookup(struct threshold_evidence *evidence, const struct threshold_scale *scale,
                          uint64_t epoch, double score, bool is_served);
/*
 * Counts what became known of one. probability_permille: of an audit, with which chance it was
 * drawn (audit_share when it was), 1 to 1000; of others it is not used.
 */
void threshold_add(struct threshold_evidence *evidence, const struct threshold_scale *scale,
                   uint64_t epoch, double score, enum threshold_kind kind, bool is_right,
                   uint32_t probability_permille);

/*
 * Adds. Commutative and associative: the sum over the epochs that the newest of both leaves.
 * The caller refuses what claims an epoch newer than it has announced: that would forget the
 * others. Errors: -EINVAL counts of another scale; *into is untouched.
 */
MUST_USE int threshold_merge(struct threshold_evidence *into,
                             const struct threshold_evidence *from);

/* Whether the newest epoch has lookups enough for the next to begin. */
bool threshold_epoch_is_full(const struct threshold_evidence *evidence);
/* Makes `epoch` the newest, if it is newer. */
void threshold_advance(struct threshold_evidence *evidence, uint64_t epoch);
/* Makes all of it that of epoch 0: for another who merges, whose numbers are not known yet. */
void threshold_restart(struct threshold_evidence *evidence);

/* About 0.2 ms: to be asked for once in many lookups. Seed and evidence have the same scale. */
void threshold_decide(const struct threshold_evidence *evidence, const struct threshold_seed *seed,
                      const struct threshold_policy *policy, struct threshold_verdict *ret_verdict);
void threshold_measure(const struct threshold_evidence *evidence,
                       const struct threshold_policy *policy, struct threshold_rate *ret_rate);

/*
 * As bytes: varints, empty bins and epochs left out; a worker's delta takes a few hundred.
 * Returns the length. `ret_bytes` has room for THRESHOLD_PACKED_BYTES_MAX.
 */
size_t threshold_pack(const struct threshold_evidence *evidence, uint8_t *ret_bytes);
/* Errors: -EBADMSG not what threshold_pack() writes; *ret_evidence is untouched. */
MUST_USE int threshold_unpack(const uint8_t *bytes, size_t length,
                              struct threshold_evidence *ret_evidence);

/*
 * A seed as bytes of fixed length, so that who merges can bin what users report, and give the
 * verdict that workers give.
 */
void threshold_pack_seed(const struct threshold_seed *seed, uint8_t ret_bytes[THRESHOLD_SEED_BYTES]);
/* Errors: -EBADMSG of another length or version, edges that do not ascend, a weight that is none. */
MUST_USE int threshold_unpack_seed(const uint8_t *bytes, size_t length,
                                   struct threshold_seed *ret_seed);
