#include <criterion/criterion.h>
#include <string.h>

#include "worker/cache/embed_builtin.h"
#include "worker/cache/likeness.h"

static struct likeness compare(const char *a, const char *b)
{
    union profile_buffer first;
    union profile_buffer second;
    struct sparse_vector x;
    struct sparse_vector y;
    struct likeness likeness;
    struct likeness reverse;
    cr_assert_gt(profile_make(a, strlen(a), &first), 0);
    cr_assert_gt(profile_make(b, strlen(b), &second), 0);
    embed_builtin(&first.profile, &x);
    embed_builtin(&second.profile, &y);
    const double cosine = sparse_vector_cosine(&x, &y);
    likeness_of(&first.profile, &second.profile, cosine, &likeness);
    likeness_of(&second.profile, &first.profile, cosine, &reverse);
    for (size_t i = 0; i < LIKENESS_FEATURES; i++) {
        cr_expect_float_eq(likeness.features[i], reverse.features[i], 1e-5,
                           "%s is not symmetric: %s | %s",
                           likeness_feature_name((enum likeness_feature)i), a, b);
    }
    return likeness;
}

/* That this guard speaks. */
static void expect_guard(enum likeness_feature guard, const char *a, const char *b)
{
    const struct likeness likeness = compare(a, b);
    cr_expect_gt(likeness.features[guard], 0, "%s is silent: %s | %s", likeness_feature_name(guard),
                 a, b);
}

static void expect_no_guard(const char *a, const char *b)
{
    const struct likeness likeness = compare(a, b);
    for (size_t i = 0; i < LIKENESS_GUARDS; i++) {
        cr_expect_eq(likeness.features[i], 0, "%s speaks: %s | %s",
                     likeness_feature_name((enum likeness_feature)i), a, b);
    }
}

Test(likeness, guards_speak)
{
    expect_guard(LIKENESS_NUMBERS_BOTH, "laws of 1914", "laws of 1941");
    expect_guard(LIKENESS_NUMBERS_ONE, "flights to Rome", "3 flights to Rome");
    expect_guard(LIKENESS_NAMES_BOTH, "who is Anna", "who is Peter");
    expect_guard(LIKENESS_NAMES_ONE, "who is Anna", "who is Anna Peters");
    expect_guard(LIKENESS_NEGATION, "what can dogs eat", "what can't dogs eat");
    expect_guard(LIKENESS_OPPOSITE, "enable the firewall", "disable the firewall");
    expect_guard(LIKENESS_OPPOSITE, "is it legal here", "is it illegal here");
    expect_guard(LIKENESS_CHOICE_BOTH, "open on monday", "open on tuesday");
    expect_guard(LIKENESS_CHOICE_BOTH, "5 km run", "5 mile run");
    expect_guard(LIKENESS_CHOICE_ONE, "weather in rome", "weather in rome on monday");
    expect_guard(LIKENESS_QUESTION, "when was he born", "where was he born");
    expect_guard(LIKENESS_QUOTED_BOTH, "print \"foo\"", "print \"bar\"");
    expect_guard(LIKENESS_QUOTED_ONE, "print the word", "print the word \"bar\"");
    expect_guard(LIKENESS_SYMBOLS, "what is 3 + 4", "what is 3 * 4");
    expect_guard(LIKENESS_ROLES, "fly from oslo to rome", "fly from rome to oslo");
    expect_guard(LIKENESS_ORDER, "does smoking cause stress", "does stress cause smoking");
}

Test(likeness, guards_are_silent_about_rewording)
{
    expect_no_guard("How do I reset my router?", "please tell me how to reset my router");
    expect_no_guard("fly from oslo to rome", "fly to rome from oslo");
    expect_no_guard("in summer, is CS 588 offered", "is cs 588 offered in summer");
    expect_no_guard("compare cats and dogs", "compare dogs and cats");
    expect_no_guard("What is two plus two?", "what is 2 plus 2");
    expect_no_guard("Who is Marie Curie?", "who is marie curie");
}

Test(likeness, equal_words_share_everything)
{
    const struct likeness likeness =
        compare("Who painted the Mona Lisa?", "who painted the mona lisa");
    cr_expect_float_eq(likeness.features[LIKENESS_SHARED], 1, 1e-6);
    cr_expect_float_eq(likeness.features[LIKENESS_COVERED], 1, 1e-6);
    cr_expect_float_eq(likeness.features[LIKENESS_WORDS], 1, 1e-6);
    cr_expect_float_eq(likeness.features[LIKENESS_PAIRS], 1, 1e-6);
    cr_expect_float_eq(likeness.features[LIKENESS_COSINE], 1, 1e-6);
    cr_expect_eq(likeness.features[LIKENESS_RARE_MOST], 0);
}

Test(likeness, a_slip_in_a_known_word_is_nearly_that_word)
{
    const struct likeness likeness =
        compare("how many children has he", "how many chilrden has he");
    cr_expect_eq(likeness.features[LIKENESS_RARE_MOST], 0);
    cr_expect_gt(likeness.features[LIKENESS_SHARED], 0.85);
}

Test(likeness, two_unknown_words_that_look_alike_stay_doubtful)
{
    const struct likeness likeness = compare("abduction of the arm", "adduction of the arm");
    cr_expect_gt(likeness.features[LIKENESS_RARE_MOST], 0.4);
}

Test(likeness, a_word_between_the_same_neighbours_is_replaced)
{
    cr_expect_gt(compare("places with tacos in chicago", "places with sushi in chicago")
                     .features[LIKENESS_REPLACED],
                 0.5);
    cr_expect_eq(compare("places with tacos in chicago", "places in chicago with good tacos")
                     .features[LIKENESS_REPLACED],
                 0);
}

Test(likeness, single_words_are_compared_too)
{
    cr_expect_float_eq(compare("jazz", "Jazz!").features[LIKENESS_SHARED], 1, 1e-6);
    cr_expect_eq(compare("jazz", "is the").features[LIKENESS_SHARED], 0);
}
