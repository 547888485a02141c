/* Evidence from a worker: what is read is written again as the same evidence, adds up, and bears a
 * verdict that holds together. */
#include <math.h>
#include <string.h>
#include "common/threshold.h"
#include "tests/fuzz/fuzz.h"

static void check_verdict(const struct threshold_evidence *evidence)
{
    struct threshold_seed seed = {.weight = 0};
    const struct threshold_policy policy = {.max_error = 0.02};
    struct threshold_verdict verdict;
    threshold_scale_even(-8, 8, &seed.scale);
    threshold_decide(evidence, &seed, &policy, &verdict);
    must_hold((verdict.state == THRESHOLD_OPEN) == (verdict.threshold < INFINITY));
    must_hold(verdict.bound >= 0 && verdict.bound <= 0.02 + 1e-9);
    must_hold(verdict.audit_share >= 0.03 && verdict.audit_share <= 0.5);
    struct threshold_rate rate;
    threshold_measure(evidence, &policy, &rate);
    must_hold(rate.low >= 0 && rate.low <= rate.high && rate.high <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct threshold_evidence evidence, again;
    static uint8_t packed[THRESHOLD_PACKED_BYTES_MAX];
    if (threshold_unpack(data, bytes, &evidence) < 0) {
        return 0;
    }
    const size_t length = threshold_pack(&evidence, packed);
    must_hold(length <= sizeof(packed));
    must_hold(threshold_unpack(packed, length, &again) == 0);
    must_hold(threshold_pack(&again, packed) == length);
    check_verdict(&evidence);
    must_hold(threshold_merge(&again, &evidence) == 0);
    check_verdict(&again);
    return 0;
}
