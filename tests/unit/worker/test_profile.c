#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "worker/cache/profile.h"

static const struct profile *make(const char *text, union profile_buffer *buffer)
{
    const size_t length = profile_make(text, strlen(text), buffer);
    cr_assert_gt(length, 0, "%s", text);
    cr_assert_eq(length, buffer->profile.length);
    return &buffer->profile;
}

static void expect_equal_words(const char *a, const char *b)
{
    union profile_buffer first;
    union profile_buffer second;
    const struct profile *x = make(a, &first);
    const struct profile *y = make(b, &second);
    cr_assert_eq(x->length, y->length, "%s | %s: %d, %d", a, b, x->length, y->length);
    for (size_t i = 0; i < x->length; i++) {
        cr_expect_eq(x->words[i].hash, y->words[i].hash, "%s | %s: word %zu", a, b, i);
    }
}

static void expect_kinds(const char *text, const uint8_t *kinds, size_t length)
{
    union profile_buffer buffer;
    const struct profile *profile = make(text, &buffer);
    cr_assert_eq(profile->length, length, "%s", text);
    for (size_t i = 0; i < length; i++) {
        cr_expect_eq(profile->words[i].kind, kinds[i], "%s: word %zu is %d", text, i,
                     profile->words[i].kind);
    }
}

Test(profile, politeness_and_introductions_do_not_count)
{
    expect_equal_words("Hi, please play jazz, thanks", "play jazz");
    expect_equal_words("quick question: who wrote Hamlet", "who wrote hamlet");
    expect_equal_words("Could you please answer: who wrote Hamlet?", "who wrote hamlet");
}

Test(profile, a_colon_within_a_question_stays)
{
    union profile_buffer buffer;
    cr_assert_eq(make("translate to French: good night", &buffer)->length, 5);
}

Test(profile, politeness_alone_is_a_text)
{
    expect_equal_words("Thanks!", "thank");
}

Test(profile, number_words_units_and_weekdays_meet_their_other_forms)
{
    expect_equal_words("two kilometers on Mon", "2 km on Monday");
    expect_equal_words("5 dollars", "5 usd");
}

Test(profile, kinds_are_told_apart)
{
    static const uint8_t kinds[] = {PROFILE_QUESTION, PROFILE_NEGATION, PROFILE_CONTENT,
                                    PROFILE_NUMBER,   PROFILE_SYMBOL,   PROFILE_NUMBER,
                                    PROFILE_JOINER,   PROFILE_FUNCTION};
    expect_kinds("why not multiply 3 + 4 and the", kinds, sizeof(kinds));
}

Test(profile, a_verb_asks_only_where_a_sentence_begins)
{
    static const uint8_t asks[] = {PROFILE_QUESTION, PROFILE_CONTENT, PROFILE_CONTENT};
    static const uint8_t tells[] = {PROFILE_CONTENT, PROFILE_FUNCTION, PROFILE_CONTENT};
    expect_kinds("is water wet", asks, sizeof(asks));
    expect_kinds("water is wet", tells, sizeof(tells));
}

Test(profile, a_preposition_gives_the_words_after_it_a_role)
{
    union profile_buffer first;
    union profile_buffer second;
    const struct profile *a = make("fly from Oslo to Rome", &first);
    const struct profile *b = make("fly to Rome from Oslo", &second);
    cr_assert_neq(a->words[2].role, 0);
    cr_assert_neq(a->words[2].role, a->words[4].role);
    cr_assert_eq(a->words[2].role, b->words[4].role);
    cr_assert_eq(a->words[0].role, 0);
}

Test(profile, titles_and_shouting_name_nobody)
{
    union profile_buffer buffer;
    const struct profile *profile = make("PLAY SOME JAZZ MUSIC NOW", &buffer);
    for (size_t i = 0; i < profile->length; i++) {
        cr_expect_eq(profile->words[i].marks & WORD_CAPITAL, 0);
    }
}

Test(profile, empty_and_long_texts_say_so)
{
    union profile_buffer buffer;
    char text[4000] = "";
    cr_assert_eq(profile_make("", 0, &buffer), 0);
    cr_assert_eq(profile_make(" ?! ", 4, &buffer), 0);
    for (int i = 0; i <= PROFILE_WORDS_MAX; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "jazz ");
    }
    cr_assert_eq(profile_make(text, strlen(text), &buffer), PROFILE_WORDS_MAX + 1);
    cr_assert_eq(profile_make(text, strlen(text) - 5, &buffer), PROFILE_WORDS_MAX);
}

Test(profile, only_a_whole_blob_of_this_version_is_valid)
{
    union profile_buffer buffer;
    const size_t bytes = make("how far is the moon", &buffer)->bytes;
    cr_assert(profile_is_valid(&buffer, bytes));
    cr_assert_not(profile_is_valid(&buffer, bytes - 1));
    cr_assert_not(profile_is_valid(&buffer, 3));
    buffer.profile.version++;
    cr_assert_not(profile_is_valid(&buffer, bytes));
    buffer.profile.version--;
    buffer.profile.words[1].text_at = UINT16_MAX;
    cr_assert_not(profile_is_valid(&buffer, bytes));
}
