#include <criterion/criterion.h>

#include "worker/combine/caution.h"

Test(caution, failures_in_a_row_forbid_for_a_while_and_one_more_try_decides)
{
    struct caution caution = {.next = 0};
    const uint64_t upstream = caution_upstream(true, "a", "m");
    for (int i = 0; i < CAUTION_FAILURES; i++) {
        cr_expect(!caution_forbids(&caution, upstream, 10));
        caution_learn(&caution, upstream, false, 10);
    }
    cr_expect(caution_forbids(&caution, upstream, 10));
    cr_expect(!caution_forbids(&caution, upstream, 10 + CAUTION_MS));
    caution_learn(&caution, upstream, false, 10 + CAUTION_MS);
    cr_expect(caution_forbids(&caution, upstream, 10 + CAUTION_MS));
    caution_learn(&caution, upstream, true, 10 + 2 * CAUTION_MS);
    cr_expect(!caution_forbids(&caution, upstream, 10 + 2 * CAUTION_MS));
}

Test(caution, an_answer_in_between_forgives)
{
    struct caution caution = {.next = 0};
    const uint64_t upstream = caution_upstream(true, "a", "m");
    for (int i = 0; i < 10; i++) {
        caution_learn(&caution, upstream, i % CAUTION_FAILURES == 2, 10);
    }
    cr_expect(!caution_forbids(&caution, upstream, 10));
}

Test(caution, upstreams_and_kinds_are_told_apart_and_the_oldest_is_forgotten)
{
    struct caution caution = {.next = 0};
    const uint64_t first = caution_upstream(true, "a", "m");
    cr_expect_neq(first, caution_upstream(false, "a", "m"));
    cr_expect_neq(first, caution_upstream(true, "am", ""));
    for (int i = 0; i < CAUTION_FAILURES; i++) {
        caution_learn(&caution, first, false, 10);
    }
    for (uint64_t i = 1; i < CAUTION_UPSTREAMS; i++) {
        caution_learn(&caution, 2 * i + 1, false, 10);
    }
    cr_expect(caution_forbids(&caution, first, 10));
    caution_learn(&caution, 999999, false, 10);
    cr_expect(!caution_forbids(&caution, first, 10));
}
