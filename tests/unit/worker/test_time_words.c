#include <criterion/criterion.h>
#include "worker/cache/time_words.h"

Test(time_words, are_found_as_whole_words_in_any_case)
{
    cr_assert(time_words_are_in("What is the weather today?"));
    cr_assert(time_words_are_in("TODAY's news, please"));
    cr_assert(time_words_are_in("Who is the current president"));
    cr_assert(time_words_are_in("show the (latest) build"));
    cr_assert(time_words_are_in("now"));
}

Test(time_words, are_not_found_within_others)
{
    cr_assert_not(time_words_are_in(""));
    cr_assert_not(time_words_are_in("What do you know of electric currents?"));
    cr_assert_not(time_words_are_in("snow, nowhere, now_playing, n\xc3\xb6w"));
    cr_assert_not(time_words_are_in("Who was president in 1990?"));
}
