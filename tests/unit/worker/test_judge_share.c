#include <criterion/criterion.h>
#include "worker/cache/judge_share.h"

static struct judge_share share;

static void ask(int times, int told)
{
    for (int i = 0; i < times; i++) {
        judge_share_asked(&share);
        if (i < told) {
            judge_share_told(&share);
        }
    }
}

Test(judge_share, a_judge_that_answers_is_heard_in_full)
{
    cr_assert_eq(judge_share_of(&share), 1);
    ask(1000, 1000);
    cr_assert_eq(judge_share_of(&share), 1);
}

Test(judge_share, the_first_words_may_take_their_time)
{
    ask(JUDGE_SHARE_GRACE, 0);
    cr_assert_eq(judge_share_of(&share), 1);
    ask(1, 0);
    cr_assert_eq(judge_share_of(&share), 0);
}

Test(judge_share, one_that_is_silent_from_now_on_is_worth_nothing_soon)
{
    ask(1000, 1000);
    ask(10 * JUDGE_SHARE_ASKED, 0);
    cr_assert_lt(judge_share_of(&share), 0.001);
}

Test(judge_share, one_that_is_back_counts_again_soon)
{
    ask(1000, 0);
    ask(4 * JUDGE_SHARE_ASKED, 4 * JUDGE_SHARE_ASKED);
    cr_assert_gt(judge_share_of(&share), 0.9);
}

Test(judge_share, of_every_second_it_is_about_half)
{
    for (int i = 0; i < 1000; i++) {
        ask(2, 1);
    }
    cr_assert_float_eq(judge_share_of(&share), 0.5, 0.05);
}

/* What another worker asked. */
Test(judge_share, words_that_were_not_asked_for_are_no_store_for_later)
{
    ask(10, 10);
    for (int i = 0; i < 1000; i++) {
        judge_share_told(&share);
    }
    ask(10 * JUDGE_SHARE_ASKED, 0);
    cr_assert_lt(judge_share_of(&share), 0.001);
}
