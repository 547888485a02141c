/*
 * near_policy: from which score on a near hit may be served, for each class of tenant, tier, embedder and judge.
 *
 * What is known of a class is the sum that its broker sends (threshold.h); what is observed here goes there as a delta, at most once in
 * NEAR_POLICY_FLUSH_MS, and is kept until it can be sent. A tenant has one broker at a time, from which its jobs come: that one counts for
 * its classes, and sums of others are passed over, since each numbers epochs by itself. When jobs come from another and the former cannot be reached,
 * or when NEAR_POLICY_STRANGERS observations in a row are for jobs of others, the class moves: it has no sum until the new one tells its own, and
 * what the former did not get counts there as of epoch 0. A verdict is made anew when the sum, or the rules, have changed. Without a sum there is
 * the seed alone, and the class is closed. At most NEAR_POLICY_CLASSES_MAX classes, the least recently used goes; one that was only heard of takes
 * the place of none that was used. Belongs to the loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/threshold.h"
#include "proto/wire.pb-c.h"

struct near_policy;
struct broker_link; /* a broker, by its address alone */

enum {
    NEAR_POLICY_CLASSES_MAX = 256, /* of 70 KB */
    NEAR_POLICY_FLUSH_MS = 1000,
    NEAR_POLICY_STRANGERS = 32,
};

/* Fills in what the configuration says of a class; max_error 0: near hits are off. */
typedef void near_policy_rules_fn(void *context, const char *tenant, const char *tier, struct threshold_policy *ret_policy);
/* A delta that is to go to this broker. Borrowed. False: it cannot be sent now. */
typedef bool near_policy_send_fn(void *context, struct broker_link *broker, const Wire__CacheEvidence *evidence);

/* `embedder`: id, version and judge; copied. The seed must live as long. Errors: -ENOMEM. */
MUST_USE int near_policy_create(const char *embedder, const struct threshold_seed *seed, near_policy_rules_fn *rules,
                                void *context, struct near_policy **ret_policy);
void near_policy_destroy(struct near_policy **policy);

/* A broker's sum. One of another embedder or judge, or damaged, is passed over. */
void near_policy_take(struct near_policy *policy, struct broker_link *broker, const Wire__CacheEvidence *evidence);
/* The configuration has changed. */
void near_policy_reconfigure(struct near_policy *policy);

/* The threshold now; INFINITY: closed, or off. `ret_verdict` may be NULL. */
double near_policy_threshold(struct near_policy *policy, const char *tenant, const char *tier,
                             struct threshold_verdict *ret_verdict);

/* The same, for somebody who only wants to know: it is no use of the class, and makes none. */
double near_policy_shown_threshold(struct near_policy *policy, const char *tenant, const char *tier);
/* Whether the configuration lets the class have near hits at all. */
bool near_policy_is_on(struct near_policy *policy, const char *tenant, const char *tier);

/*
 * Whether the bin of a score reaches `least`, or lies above it. Who labels a part of the scores alone goes by this: a bin of which
 * only the better half was labelled would look better than it is.
 */
bool near_policy_reaches(const struct near_policy *policy, double score, double least);

/*
 * From which score on an entry that proved wrong for a text is to answer near texts no more: the latest threshold that the class was
 * open from; INFINITY: it never was.
 */
double near_policy_doubt(struct near_policy *policy, const char *tenant, const char *tier);

/* A near lookup that had a candidate, for a job of this broker. */
void near_policy_looked(struct near_policy *policy, struct broker_link *broker, const char *tenant, const char *tier, double score, bool is_served);
/* What became known of one. */
void near_policy_learned(struct near_policy *policy, struct broker_link *broker, const char *tenant, const char *tier, double score,
                         enum threshold_kind kind, bool is_right, uint32_t probability_permille);

/* Sends what was observed, if it is time. Returns when it will be; INT64_MAX: there is nothing that could be sent. */
int64_t near_policy_flush(struct near_policy *policy, int64_t now_ms, near_policy_send_fn *send, void *context);

struct near_policy_view {
    const char *tenant, *tier;
    const struct threshold_verdict *verdict;
    struct threshold_rate rate;
};
void near_policy_visit(struct near_policy *policy, void (*visit)(void *context, const struct near_policy_view *view),
                       void *context);
