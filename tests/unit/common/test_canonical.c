#include <criterion/criterion.h>
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/canonical.h"

static char error[CANONICAL_ERROR_BYTES];

/* Exactly sized heap copies, so that AddressSanitizer sees a read past the end. */
static int canonicalise(const char *body, size_t bytes, char **ret_text, size_t *ret_bytes)
{
    char *exact = malloc(bytes + (bytes == 0));
    memcpy(exact, body, bytes);
    const int r = canonical_json(exact, bytes, ret_text, ret_bytes, error);
    free(exact);
    return r;
}

static void check(const char *body, const char *expected)
{
    char *text = NULL;
    size_t bytes = 0;
    cr_assert_eq(canonicalise(body, strlen(body), &text, &bytes), 0, "%s: %s", body, error);
    cr_assert_str_eq(text, expected);
    cr_assert_eq(bytes, strlen(expected));
    free(text);
}

static void check_refused(const char *body)
{
    char *text = NULL;
    size_t bytes = 0;
    error[0] = '\0';
    cr_assert_eq(canonicalise(body, strlen(body), &text, &bytes), -EINVAL, "%s", body);
    cr_assert_gt(strlen(error), 0);
    cr_assert_null(text);
}

/* RFC 8785, section 3.2.2 and 3.2.3. */
Test(canonical, follows_the_example_of_the_rfc)
{
    check("{\"numbers\": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],\n"
          " \"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\n"
          " \"literals\": [null, true, false]}",
          "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],"
          "\"string\":\"\xe2\x82\xac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}");
}

Test(canonical, texts_are_composed_and_names_are_not)
{
    check("{\"a\":\"cafe\xcc\x81\"}", "{\"a\":\"caf\xc3\xa9\"}");
    check("{\"a\":\"caf\xc3\xa9\"}", "{\"a\":\"caf\xc3\xa9\"}");
    check("{\"a\":\"\xef\xac\x81\"}", "{\"a\":\"\xef\xac\x81\"}"); /* a ligature reads otherwise */
    check("{\"e\xcc\x81\":1}", "{\"e\xcc\x81\":1}");
}

/* Hours, if its marks were ordered. */
Test(canonical, text_of_very_many_marks_is_left_as_it_is, .timeout = 10)
{
    enum { MARKS = 200000 };
    char *body = malloc(MARKS * 4 + 16);
    char *at = stpcpy(body, "{\"a\":\"x");
    for (int i = 0; i < MARKS; i++) {
        at = stpcpy(at, "\xcc\x81");
    }
    for (int i = 0; i < MARKS; i++) {
        at = stpcpy(at, "\xcc\xa3");
    }
    (void)stpcpy(at, "\"}");
    check(body, body);
    free(body);
}

Test(canonical, members_are_in_utf16_order_as_in_the_rfc)
{
    check("{\"\\u20ac\":\"Euro Sign\",\"\\r\":\"Carriage Return\",\"\\ufb33\":\"Hebrew Letter "
          "Dalet With "
          "Dagesh\",\"1\":\"One\",\"\\ud83d\\ude00\":\"Emoji: Grinning "
          "Face\",\"\\u0080\":\"Control\","
          "\"\\u00f6\":\"Latin Small Letter O With Diaeresis\"}",
          "{\"\\r\":\"Carriage "
          "Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\",\"\xc3\xb6\":\"Latin Small "
          "Letter O With Diaeresis\",\"\xe2\x82\xac\":\"Euro Sign\",\"\xf0\x9f\x98\x80\":\"Emoji: "
          "Grinning "
          "Face\",\"\xef\xac\xb3\":\"Hebrew Letter Dalet With Dagesh\"}");
}

/* RFC 8785, appendix B: numbers, and what ECMAScript writes for them. */
Test(canonical, numbers_are_those_of_the_rfc)
{
    const char *const numbers[][2] = {
        {"0.0", "0"},
        {"-0.0", "0"},
        {"5e-324", "5e-324"},
        {"-5e-324", "-5e-324"},
        {"1.7976931348623157e308", "1.7976931348623157e+308"},
        {"-1.7976931348623157e308", "-1.7976931348623157e+308"},
        {"9007199254740992.0", "9007199254740992"},
        {"-9007199254740992.0", "-9007199254740992"},
        {"295147905179352830000.0", "295147905179352830000"},
        {"9.999999999999997e22", "9.999999999999997e+22"},
        {"1e23", "1e+23"},
        {"1.0000000000000001e23", "1.0000000000000001e+23"},
        {"999999999999999700000.0", "999999999999999700000"},
        {"999999999999999900000.0", "999999999999999900000"},
        {"1e21", "1e+21"},
        {"9.999999999999997e-7", "9.999999999999997e-7"},
        {"0.000001", "0.000001"},
        {"333333333.3333332", "333333333.3333332"},
        {"333333333.33333325", "333333333.33333325"},
        {"333333333.3333333", "333333333.3333333"},
        {"333333333.3333334", "333333333.3333334"},
        {"333333333.33333343", "333333333.33333343"},
        {"-0.0000033333333333333333", "-0.0000033333333333333333"},
        {"1424953923781206.2", "1424953923781206.2"},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        char body[128], expected[128];
        (void)snprintf(body, sizeof(body), "{\"n\":%s}", numbers[i][0]);
        (void)snprintf(expected, sizeof(expected), "{\"n\":%s}", numbers[i][1]);
        check(body, expected);
    }
}

Test(canonical, one_number_has_one_form)
{
    check("{\"a\":1}", "{\"a\":1}");
    check("{\"a\":1.0}", "{\"a\":1}");
    check("{\"a\":10e-1}", "{\"a\":1}");
    check("{\"a\":-0}", "{\"a\":0}");
    check("{\"a\":1e3}", "{\"a\":1000}");
    check("{\"a\":0.70}", "{\"a\":0.7}");
}

Test(canonical, long_integers_keep_all_their_digits)
{
    check("{\"seed\":9007199254740993}", "{\"seed\":9007199254740993}");
    check("{\"seed\":-9223372036854775808}", "{\"seed\":-9223372036854775808}");
}

Test(canonical, what_does_not_change_an_answer_is_left_out_at_the_top_only)
{
    check("{\"stream\":true,\"stream_options\":{},\"user\":\"u\",\"metadata\":{\"a\":1},\"store\":"
          "false,\"model\":\"m\","
          "\"messages\":[{\"user\":\"kept\",\"store\":1}]}",
          "{\"messages\":[{\"store\":1,\"user\":\"kept\"}],\"model\":\"m\"}");
    check("{}", "{}");
    check("{\"user\":1}", "{}");
}

Test(canonical, spaces_order_and_escapes_make_no_difference)
{
    const char *expected = "{\"a\":[{},[],\"\xc3\xa9/\"],\"b\":{\"c\":1,\"d\":2}}";
    check("{\"a\":[{},[],\"\xc3\xa9/\"],\"b\":{\"c\":1,\"d\":2}}", expected);
    check(" {\n\"b\" : { \"d\":2 ,\"c\":1.0 } ,\t\"a\" : [ { } , [ ] , \"\\u00e9\\/\" ] }\r\n",
          expected);
}

Test(canonical, zero_bytes_in_texts_are_kept)
{
    check("{\"a\":\"x\\u0000y\"}", "{\"a\":\"x\\u0000y\"}");
}

Test(canonical, other_bodies_are_refused_with_a_reason)
{
    const char *const bodies[] = {
        "",
        " ",
        "[]",
        "1",
        "\"text\"",
        "null",
        "{",
        "{}{}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":NaN}",
        "{\"a\":01}",
        "{\"a\":1,\"a\":2}",
        "{\"b\":{\"a\":1,\"\\u0061\":2}}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":1e999}",
        "{\"a\":92233720368547758080}",
        "\xef\xbb\xbf{}",
    };
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        check_refused(bodies[i]);
    }
}

static char *nested(size_t arrays)
{
    char *body = malloc(2 * arrays + 16);
    char *at = body + sprintf(body, "{\"a\":");
    memset(at, '[', arrays);
    memset(at + arrays, ']', arrays);
    strcpy(at + 2 * arrays, "}");
    return body;
}

Test(canonical, depth_is_bounded)
{
    char *deepest = nested(CANONICAL_DEPTH_MAX - 1);
    check(deepest, deepest);
    char *deeper = nested(CANONICAL_DEPTH_MAX);
    check_refused(deeper);
    char *abyss = nested(100000);
    check_refused(abyss);
    free(deepest);
    free(deeper);
    free(abyss);
}

/* A program that embeds the client may have a locale whose decimal point is a comma. */
Test(canonical, the_locale_makes_no_difference)
{
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL &&
        setlocale(LC_NUMERIC, "fr_FR.UTF-8") == NULL) {
        cr_skip_test("no locale with a decimal comma is installed");
    }
    check("{\"a\":0.7,\"b\":1e-7,\"c\":12.5}", "{\"a\":0.7,\"b\":1e-7,\"c\":12.5}");
}

Test(canonical, canonical_text_is_its_own_canonical_form_whatever_comes)
{
    static const char *const pieces[] = {
        "{",   "}",    "[",        "]",    ",",      ":",       "\"a\"", "\"b\"",
        "1",   "-2.5", "1e-9",     "true", "null",   "\"\\n\"", " ",     "\"\xc3\xa9\"",
        "\"x", "\\",   "\xf0\x9f", "{}",   "\"c\":", "\"d\":[", "]}",    "0"};
    const unsigned seed = 4711;
    srand(seed);
    for (int round = 0; round < 20000; round++) {
        char body[256] = "{\"k\":";
        size_t length = strlen(body);
        for (int i = rand() % 8; i >= 0; i--) {
            const char *piece = pieces[(size_t)rand() % (sizeof(pieces) / sizeof(pieces[0]))];
            strcpy(body + length, piece);
            length += strlen(piece);
        }
        strcpy(body + length, "}");
        char *text = NULL;
        size_t bytes = 0;
        if (canonicalise(body, strlen(body), &text, &bytes) == 0) {
            check(text, text);
            free(text);
        }
    }
}

Test(canonical, what_holds_anyway_need_not_be_said)
{
    check(
        "{\"temperature\":1.0,\"top_p\":1,\"n\":1,\"presence_penalty\":0,\"frequency_penalty\":0.0,"
        "\"logprobs\":false,\"stop\":null,\"stream\":false,\"a\":1}",
        "{\"a\":1}");
    check("{\"temperature\":0,\"n\":2}", "{\"n\":2,\"temperature\":0}");
    check("{\"top_p\":0.9,\"logprobs\":true,\"presence_penalty\":1}",
          "{\"logprobs\":true,\"presence_penalty\":1,\"top_p\":0.9}");
    check("{\"a\":{\"n\":1,\"b\":null}}", "{\"a\":{\"b\":null,\"n\":1}}");
}

Test(canonical, keys_depend_on_every_field_and_on_nothing_else)
{
    uint8_t key[CANONICAL_KEY_BYTES], other[CANONICAL_KEY_BYTES];
    canonical_key(NULL, "t", "", "chat", "auto", "{}", 2, key);
    canonical_key(NULL, "t", "", "chat", "auto", "{}", 2, other);
    cr_assert_arr_eq(key, other, CANONICAL_KEY_BYTES);
    const char *const fields[][5] = {
        {"u", "", "chat", "auto", "{}"}, {"t", "n", "chat", "auto", "{}"},
        {"t", "", "chap", "auto", "{}"}, {"t", "", "chat", "autp", "{}"},
        {"t", "", "chat", "auto", "[]"}, {"tc", "", "hat", "auto", "{}"},
        {"t", "", "chata", "uto", "{}"}, {"", "t", "chat", "auto", "{}"},
        {"t", "chat", "", "auto", "{}"},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        canonical_key(NULL, fields[i][0], fields[i][1], fields[i][2], fields[i][3], fields[i][4], 2,
                      other);
        cr_assert_arr_neq(key, other, CANONICAL_KEY_BYTES, "case %zu", i);
    }
}

/* The keys lie on disks and travel between versions: they may not change unnoticed. */
Test(canonical, keys_are_stable)
{
    const char *const keys[][2] = {{"", "6bbccf50b14c1dded9a4a3790c046464"},
                                   {"docs", "f5e317b74872b114282b95467a2dfc56"}};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        uint8_t key[CANONICAL_KEY_BYTES];
        canonical_key(NULL, "default", keys[i][0], "chat.completions", "auto", "{\"a\":1}", 7, key);
        char text[2 * CANONICAL_KEY_BYTES + 1];
        for (size_t j = 0; j < CANONICAL_KEY_BYTES; j++) {
            (void)sprintf(text + 2 * j, "%02x", key[j]);
        }
        cr_assert_str_eq(text, keys[i][1]);
    }
}

Test(canonical, keys_depend_on_the_secret)
{
    struct canonical_secret none, secret, other;
    uint8_t plain[CANONICAL_KEY_BYTES], key[CANONICAL_KEY_BYTES], again[CANONICAL_KEY_BYTES];
    canonical_secret_of("", &none);
    canonical_secret_of("correct horse", &secret);
    canonical_secret_of("correct house", &other);
    canonical_key(NULL, "t", "", "chat", "auto", "{}", 2, plain);
    canonical_key(&none, "t", "", "chat", "auto", "{}", 2, key);
    cr_assert_arr_eq(plain, key, CANONICAL_KEY_BYTES, "an empty secret is none");
    canonical_key(&secret, "t", "", "chat", "auto", "{}", 2, key);
    canonical_key(&secret, "t", "", "chat", "auto", "{}", 2, again);
    cr_assert_arr_neq(plain, key, CANONICAL_KEY_BYTES);
    cr_assert_arr_eq(key, again, CANONICAL_KEY_BYTES);
    canonical_key(&other, "t", "", "chat", "auto", "{}", 2, again);
    cr_assert_arr_neq(key, again, CANONICAL_KEY_BYTES);
}

Test(canonical, labels_make_another_key_each_and_none_the_same)
{
    static char *eu_ch[] = {"eu", "ch"}, *ch_eu[] = {"ch", "eu"}, *euch[] = {"euch"};
    struct canonical_secret secret;
    canonical_secret_of("secret", &secret);
    uint8_t keys[6][CANONICAL_KEY_BYTES];
    for (size_t i = 0; i < 6; i++) {
        canonical_key(NULL, "t", "", "chat", "auto", "{}", 2, keys[i]);
    }
    canonical_key_narrow(NULL, NULL, 0, keys[0]);
    cr_assert_arr_eq(keys[0], keys[5], CANONICAL_KEY_BYTES);
    canonical_key_narrow(NULL, eu_ch, 1, keys[0]);
    canonical_key_narrow(NULL, eu_ch, 2, keys[1]);
    canonical_key_narrow(NULL, ch_eu, 2, keys[2]);
    canonical_key_narrow(NULL, euch, 1, keys[3]);
    canonical_key_narrow(&secret, eu_ch, 1, keys[4]);
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < i; j++) {
            cr_assert_arr_neq(keys[i], keys[j], CANONICAL_KEY_BYTES, "%zu, %zu", i, j);
        }
    }
}
