#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "worker/cache/words.h"

/* The words of a text with a space after each. */
static const char *read_all(const char *text, char *ret_words, size_t bytes)
{
    struct words words;
    struct word word;
    ret_words[0] = '\0';
    words_init(&words, text, strlen(text));
    while (words_next(&words, &word)) {
        const size_t length = strlen(ret_words);
        snprintf(ret_words + length, bytes - length, "%.*s ", word.bytes, word.text);
    }
    return ret_words;
}

static void expect_words(const char *text, const char *expected)
{
    char words[512];
    cr_expect_str_eq(read_all(text, words, sizeof(words)), expected, "\"%s\" became \"%s\"", text,
                     words);
}

static void expect_same(const char *a, const char *b)
{
    cr_expect_eq(words_hash(a), words_hash(b), "%s, %s", a, b);
}

static void expect_different(const char *a, const char *b)
{
    cr_expect_neq(words_hash(a), words_hash(b), "%s, %s", a, b);
}

Test(words, case_and_punctuation_do_not_count)
{
    expect_words("Hello,  WORLD!", "hello world ");
    expect_words("don't; what's they're", "dont what they ");
    expect_words("don\xe2\x80\x99t", "dont ");
}

Test(words, forms_of_a_word_meet)
{
    expect_same("cities", "city");
    expect_same("booking", "books");
    expect_same("stopped", "stop");
    expect_same("making", "make");
    expect_same("boxes", "box");
    expect_different("news", "new");
    expect_different("bus", "bu");
    expect_different("class", "clas");
}

Test(words, composed_and_decomposed_accents_meet_and_still_count)
{
    expect_same("caf\xc3\xa9", "cafe\xcc\x81");
    expect_same("\xc3\x89t\xc3\xa9", "e\xcc\x81te\xcc\x81");
    expect_same("\xd0\x99", "\xd0\xb8\xcc\x86");                         /* Й */
    expect_same("\xc5\x81\xc3\xb3\xc4\x91", "\xc5\x82\xc3\xb3\xc4\x91"); /* Łóđ */
    expect_same("\xce\xa3", "\xcf\x82");                                 /* Σ, ς */
    expect_different("a\xc3\xb1os", "anos");
}

Test(words, numbers_are_plain)
{
    expect_words("1,000 007 10.00 7:00 the 7th 3.10", "1000 7 10 7 the 7 3.10 ");
    expect_words("-5 and 3-4", "-5 and 3 4 ");
    expect_words("1,2,3 or 1,0000", "1 2 3 or 1 0 ");
    expect_words("\xef\xbc\x91\xef\xbc\x92", "12 "); /* full width */
}

Test(words, digits_and_letters_are_two_words)
{
    expect_words("10km ps5 b2b", "10 km ps 5 b 2 b ");
}

Test(words, money_and_operators_are_words)
{
    expect_words("$5, \xe2\x82\xac"
                 "6 and 7%",
                 "usd 5 euro 6 and 7 percent ");
    expect_words("12 + 5", "12 + 5 ");
    expect_words("12 - 5 well-known and/or", "12 - 5 well known and or ");
    expect_different("C++", "C");
    expect_different("C#", "C");
}

Test(words, ideographs_stand_alone)
{
    expect_words("\xe6\x9d\xb1\xe4\xba\xac", "\xe6\x9d\xb1 \xe4\xba\xac ");
}

Test(words, invalid_utf8_separates)
{
    expect_words("one\xfftwo\xc3", "one two ");
    expect_words("a\xed\xa0\x80z", "a z "); /* a surrogate */
    expect_words("a\xc0\xafz", "a z ");     /* overlong */
}

Test(words, letters_without_room_still_count)
{
    char a[101];
    char b[101];
    memset(a, 'x', 100);
    memset(b, 'x', 100);
    b[99] = 'y';
    a[100] = b[100] = '\0';
    expect_different(a, b);
}

Test(words, capitals_and_quotations_are_marked)
{
    struct words words;
    struct word word;
    const char *text = "Ask Anna. Then 'say it' to \"Bob\"";
    static const uint8_t expected[] = {
        0, WORD_CAPITAL, WORD_PAUSE, WORD_QUOTED, WORD_QUOTED, 0, WORD_CAPITAL | WORD_QUOTED};
    words_init(&words, text, strlen(text));
    for (size_t i = 0; i < sizeof(expected); i++) {
        cr_assert(words_next(&words, &word));
        cr_expect_eq(word.marks, expected[i], "%.*s: %d", word.bytes, word.text, word.marks);
    }
    cr_assert_not(words_next(&words, &word));
}
