#include <criterion/criterion.h>
#include <string.h>
#include "worker/cache/lately.h"

static struct lately lately;
static const uint8_t KEY[LATELY_KEY_BYTES] = {1, 2, 3}, OTHER[LATELY_KEY_BYTES] = {1, 2, 3, 0, 0, 0, 0, 0, 9};

Test(lately, what_was_said_is_not_said_again_for_a_while)
{
    cr_assert_not(lately_said(&lately, KEY, 7, 1000));
    cr_assert_not(lately_said(&lately, KEY, 7, 1000), "it was only asked for");
    lately_note(&lately, KEY, 7, 1000);
    cr_assert(lately_said(&lately, KEY, 7, 1001));
    cr_assert(lately_said(&lately, KEY, 7, 1000 + LATELY_MS - 1));
    cr_assert_not(lately_said(&lately, KEY, 7, 1000 + LATELY_MS));
}

Test(lately, nothing_is_taken_for_something_else)
{
    lately_note(&lately, KEY, 7, 1000);
    cr_assert_not(lately_said(&lately, KEY, 7 + LATELY_SLOTS, 1000), "another thing in the same slot");
    lately_note(&lately, KEY, 8, 1000);
    cr_assert_not(lately_said(&lately, OTHER, 8, 1000), "another entry in the same slot");
    lately_note(&lately, OTHER, 8, 1000);
    cr_assert_not(lately_said(&lately, KEY, 8, 1000), "it was displaced");
}
