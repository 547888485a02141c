/* Whose evidence counts for a class, and that none is lost. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "worker/cache/decision_seed.h"
#include "worker/cache/near_policy.h"

/* Brokers are known by their addresses alone. */
static char places[2];
#define BROKER(i) ((struct broker_link *)(void *)&places[i])

static struct near_policy *policy;
static struct threshold_evidence sent[2]; /* what each broker has got, added up */
static bool is_cut_off[2];
static int64_t now_ms;

static void rules(void *context, const char *tenant, const char *tier,
                  struct threshold_policy *ret_policy)
{
    (void)context;
    (void)tenant;
    (void)tier;
    *ret_policy =
        (struct threshold_policy){.max_error = 0.05, .audit_share = 0.03, .audit_share_most = 0.5};
}

static bool send(void *context, struct broker_link *broker, const Wire__CacheEvidence *evidence)
{
    struct threshold_evidence delta;
    (void)context;
    const size_t i = broker == BROKER(0) ? 0 : 1;
    if (is_cut_off[i]) {
        return false;
    }
    cr_assert_eq(threshold_unpack(evidence->counts.data, evidence->counts.len, &delta), 0);
    cr_assert_eq(threshold_merge(&sent[i], &delta), 0);
    return true;
}

static void start(void)
{
    cr_assert_eq(near_policy_create("e/equal", decision_seed(), rules, NULL, &policy), 0);
    for (size_t i = 0; i < 2; i++) {
        threshold_init(&decision_seed()->scale, &sent[i]);
    }
}

static void stop(void)
{
    near_policy_destroy(&policy);
}

TestSuite(near_policy, .init = start, .fini = stop);

static void look(size_t broker)
{
    near_policy_looked(policy, BROKER(broker), "a", "standard", 3.0, false);
}

static void flush(void)
{
    now_ms += NEAR_POLICY_FLUSH_MS;
    (void)near_policy_flush(policy, now_ms, send, NULL);
}

static uint64_t seen(size_t broker)
{
    uint64_t all = 0;
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        all += sent[broker].epochs[0].bins[i].seen;
    }
    return all;
}

/* A sum of so many right labels of misses at a high score, as a broker tells it. */
static void tell_in_epoch(size_t broker, const char *tenant, unsigned labels, uint64_t epoch)
{
    static uint8_t packed[THRESHOLD_PACKED_BYTES_MAX];
    struct threshold_evidence sum;
    threshold_init(&decision_seed()->scale, &sum);
    threshold_advance(&sum, epoch);
    for (unsigned i = 0; i < labels; i++) {
        threshold_add_lookup(&sum, &decision_seed()->scale, epoch, 100.0, false);
        threshold_add(&sum, &decision_seed()->scale, epoch, 100.0, THRESHOLD_MISS, true, 0);
    }
    Wire__CacheEvidence evidence = WIRE__CACHE_EVIDENCE__INIT;
    evidence.tenant = (char *)tenant;
    evidence.tier = "standard";
    evidence.embedder = "e/equal";
    evidence.counts = (ProtobufCBinaryData){threshold_pack(&sum, packed), packed};
    near_policy_take(policy, BROKER(broker), &evidence);
}

static void tell(size_t broker, const char *tenant, unsigned labels)
{
    tell_in_epoch(broker, tenant, labels, 0);
}

static bool is_open(const char *tenant)
{
    return isfinite(near_policy_threshold(policy, tenant, "standard", NULL));
}

Test(near_policy, what_cannot_be_sent_is_kept)
{
    is_cut_off[0] = true;
    look(0);
    now_ms += NEAR_POLICY_FLUSH_MS;
    cr_assert_eq(near_policy_flush(policy, now_ms, send, NULL), now_ms + NEAR_POLICY_FLUSH_MS,
                 "it is tried again");
    look(0);
    is_cut_off[0] = false;
    flush();
    cr_assert_eq(seen(0), 2);
    flush();
    cr_assert_eq(seen(0), 2, "once");
}

Test(near_policy, jobs_of_another_broker_count_when_the_first_is_gone)
{
    look(0);
    flush();
    look(1);
    flush();
    cr_assert_eq(seen(0), 1);
    cr_assert_eq(seen(1), 0, "the class is the first one's");
    is_cut_off[0] = true;
    look(0);
    flush();
    look(1);
    flush();
    cr_assert_eq(seen(1), 2, "with what the first one did not get");
}

Test(near_policy, class_returns_with_the_jobs)
{
    look(0);
    is_cut_off[0] = true;
    flush();
    look(1); /* while the first is gone */
    is_cut_off[0] = false;
    flush();
    for (unsigned i = 0; i < NEAR_POLICY_STRANGERS - 1; i++) {
        look(0);
    }
    look(1);
    flush();
    cr_assert_eq(seen(0), 0, "jobs come from both: the class stays");
    cr_assert_eq(seen(1), 3);
    for (unsigned i = 0; i < NEAR_POLICY_STRANGERS; i++) {
        look(0);
    }
    flush();
    cr_assert_eq(seen(0), 1, "from the one on that says that they come from there");
}

Test(near_policy, class_that_moves_has_neither_sum_nor_epochs_of_the_former)
{
    look(0);
    tell_in_epoch(0, "a", 400, 7);
    look(0);
    cr_assert(is_open("a"));
    is_cut_off[0] = true;
    flush();
    look(1);
    cr_assert_not(is_open("a"), "what the other one knows is not known yet");
    flush();
    cr_assert_eq(seen(1), 3, "all in epoch 0");
    cr_assert_eq(sent[1].newest, 0, "the other one has announced no other");
    tell(1, "a", 400);
    cr_assert(is_open("a"));
}

Test(near_policy, sum_of_another_broker_replaces_none)
{
    look(0);
    tell(0, "a", 400);
    cr_assert(is_open("a"));
    tell(1, "a", 0);
    cr_assert(is_open("a"));
    tell(0, "a", 0);
    cr_assert_not(is_open("a"));
}

Test(near_policy, broker_that_was_only_heard_of_gives_way)
{
    tell(1, "a", 400);
    cr_assert(is_open("a"));
    look(0);
    flush();
    cr_assert_eq(seen(0), 1);
    tell(0, "a", 0);
    cr_assert_not(is_open("a"));
}

Test(near_policy, what_is_heard_of_takes_no_used_class_away)
{
    char tenant[16];
    tell(0, "a", 400);
    cr_assert(is_open("a"));
    for (int i = 0; i < 4 * NEAR_POLICY_CLASSES_MAX; i++) {
        (void)snprintf(tenant, sizeof(tenant), "t%d", i);
        tell(0, tenant, 0);
    }
    cr_assert(is_open("a"));
    for (int i = 0; i < NEAR_POLICY_CLASSES_MAX - 1; i++) {
        (void)snprintf(tenant, sizeof(tenant), "u%d", i);
        (void)near_policy_threshold(policy, tenant, "standard", NULL);
    }
    cr_assert(is_open("a"), "used ones take the places of those that were only heard of");
}

Test(near_policy, who_labels_likely_scores_alone_labels_whole_bins)
{
    const float *edges = decision_seed()->scale.edges;
    const double least = ((double)edges[30] + (double)edges[31]) / 2;
    cr_assert_lt(edges[30], edges[31]);
    cr_assert(near_policy_reaches(policy, least, least));
    cr_assert(near_policy_reaches(policy, (double)edges[30], least), "in the same bin");
    cr_assert_not(near_policy_reaches(policy, nextafter((double)edges[30], -INFINITY), least));
    cr_assert(near_policy_reaches(policy, -1e9, (double)edges[0] - 1), "in the lowest bin");
}
