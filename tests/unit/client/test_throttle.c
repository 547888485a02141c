/* What share of resubmissions is held back. */
#include <criterion/criterion.h>
#include "client/throttle.h"

Test(throttle, nothing_is_held_back_while_half_is_accepted)
{
    struct throttle throttle = {0};
    cr_assert_eq(throttle_share(&throttle, 1000), 0);
    for (int i = 0; i < 100; i++) {
        throttle_note_request(&throttle, 1000 + i);
        if (i % 2 == 0) {
            throttle_note_accept(&throttle, 1000 + i);
        }
        cr_assert_eq(throttle_share(&throttle, 1000 + i), 0);
    }
}

Test(throttle, the_more_is_refused_the_more_is_held_back)
{
    uint32_t before = 0;
    for (int accepts = 42; accepts >= 0; accepts -= 7) {
        struct throttle throttle = {0};
        for (int i = 0; i < 100; i++) {
            throttle_note_request(&throttle, 1000);
        }
        for (int i = 0; i < accepts; i++) {
            throttle_note_accept(&throttle, 1000);
        }
        const uint32_t share = throttle_share(&throttle, 1000);
        cr_assert_gt(share, before);
        cr_assert_lt(share, THROTTLE_ALL);
        before = share;
    }
    cr_assert_gt(before, 880); /* none accepted */
}

Test(throttle, few_refusals_hold_nothing_and_many_are_forgotten)
{
    struct throttle throttle = {0};
    for (int i = 0; i < THROTTLE_FREE; i++) {
        throttle_note_request(&throttle, 1000);
        cr_assert_eq(throttle_share(&throttle, 1000), 0);
    }
    for (int i = 0; i < 100; i++) {
        throttle_note_request(&throttle, 1000);
    }
    cr_assert_gt(throttle_share(&throttle, 1000), 0);
    cr_assert_eq(throttle_share(&throttle, 1000 + 3 * THROTTLE_FADE_MS), 0);
}
