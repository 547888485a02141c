#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "broker/text.h"

Test(text, only_utf8_is_utf8)
{
    static const char *const good[] = {"",
                                       "plain",
                                       "grüße",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xed\x9f\xbf",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {
        "\x80",         "\xc3",         "\xc0\xaf",         "\xe0\x80\xaf",
        "\xed\xa0\x80", "\xf0\x80\x80", "\xf4\x90\x80\x80", "\xff",
        "a\xe2\x82",    "\xc1\xbf"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_assert(text_is_utf8(good[i]), "%s", good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_not(text_is_utf8(bad[i]), "number %zu", i);
    }
}

Test(text, a_limit_counts_bytes)
{
    cr_assert(text_is_good("abc", 3));
    cr_assert_not(text_is_good("abcd", 3));
    cr_assert_not(text_is_good("\xff", 3));
}

Test(text, cleaning_cuts_between_characters)
{
    char text[] = "ab\xe2\x82\xac!";
    text_clean(text, 4);
    cr_assert_str_eq(text, "ab");
}

Test(text, whatever_is_cleaned_is_good)
{
    const unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 20000; round++) {
        char text[64];
        const size_t length = (size_t)rand() % (sizeof(text) - 1);
        for (size_t i = 0; i < length; i++) {
            text[i] = (char)(rand() % 4 == 0 ? 'a' + rand() % 26 : 1 + rand() % 255);
        }
        text[length] = '\0';
        const size_t bytes_max = (size_t)rand() % sizeof(text);
        text_clean(text, bytes_max);
        cr_assert(text_is_good(text, bytes_max));
    }
}
