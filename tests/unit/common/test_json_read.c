/* What it promises is jansson's result, so each text is read by both. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "common/json_read.h"

static const size_t flag_sets[] = {0, JSON_REJECT_DUPLICATES, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL,
                                   JSON_ALLOW_NUL, JSON_DECODE_ANY};

/* Texts as bytes, and reals to the last bit. */
static char *shown(const json_t *value)
{
    return value == NULL ? strdup("refused") : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}

/* An exactly sized heap copy, so that AddressSanitizer sees a read past the end. */
static void check(const char *text, size_t bytes)
{
    char *exact = malloc(bytes + (bytes == 0));
    memcpy(exact, text, bytes);
    for (size_t i = 0; i < sizeof(flag_sets) / sizeof(flag_sets[0]); i++) {
        json_error_t ours = {.text = ""}, theirs = {.text = ""};
        json_t *read = json_read(exact, bytes, flag_sets[i], &ours);
        json_t *loaded = json_loadb(exact, bytes, flag_sets[i], &theirs);
        char *a = shown(read), *b = shown(loaded);
        cr_assert_eq(json_equal(read, loaded), json_equal(loaded, loaded), "%.*s", (int)bytes, text);
        cr_assert_str_eq(a, b, "%.*s", (int)bytes, text);
        cr_assert(loaded != NULL || strcmp(ours.text, theirs.text) == 0, "%s: %s", ours.text, theirs.text);
        free(a);
        free(b);
        json_decref(read);
        json_decref(loaded);
    }
    free(exact);
}

static void check_text(const char *text)
{
    check(text, strlen(text));
}

static const char answer[] =
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1764171000,\"model\":\"m\", \"choices\" : [ "
    "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a \\\"b\\\"\\n\\tc \\u00e9\\u20ac/\\/ \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\","
    "\"refusal\":null},\"logprobs\":[-0.0069292834,1.5,-0.0,0.1,123456.7890123],\"finish_reason\":\"stop\",\"x\":[[],{},[{}]]}],\r\n"
    "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":-0,\"total_tokens\":999999999999999999,\"ok\":true,\"no\":false}}\n";

Test(json_read, gives_what_jansson_gives)
{
    static const char *const texts[] = {
        "", " ", "{}", "[]", " [ ] ", "{\"a\":1}", "[1,2,3]", "[[[]]]", "{\"a\":{\"a\":{}}}", "null", "1", "\"a\"",
        "[1,]", "[,1]", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "[1 2]", "[1}", "{\"a\":1]", "[", "{", "[1", "{\"a\"", "{\"a\":",
        "[]]", "[] []", "{\"a\":1,\"a\":2}", "{\"a\":{\"b\":1},\"a\":{\"c\":2},\"d\":1}", "{\"\":0}", "{\"a\n\":1}", "{\"a\t\" :1}", "{\"\\u0061\":1}",
        "{\"\xc3\xa9\":1}", "{\"\xff\":1}", "[\"\xff\"]", "[\"\xc0\x80\"]", "[\"\xed\xa0\x80\"]", "[\"\xf4\x90\x80\x80\"]", "[\"\xc3\"]",
        "[\"a\nb\"]", "[\"\\\"]", "[\"\\x\"]", "[\"\\u12\"]", "[\"\\u00zz\"]", "[\"\\u0000\"]", "[\"a\\ud83d\\ude00b\"]", "[\"\\ud83d\"]", "[\"\\udc00\"]",
        "[\"\\uFFFF\\uABcd\"]", "[\"\\", "[\"\\u", "[\"a", "[\"\\n", "[tru]", "[true,false,null]", "[nullx]", "[truefalse]", "[-]", "[+1]", "[01]", "[-01]",
        "[00.5]", "[0]", "[-0]", "[-0.0]", "[1.]", "[.5]", "[1.5]", "[1e5]", "[1.5E-3]", "[1.5e]", "[12abc]", "[1.5.5]", "[0.1,0.2,0.3]",
        "[123456789012345]", "[123456789012345678]", "[1234567890123456789]", "[9223372036854775807]", "[9223372036854775808]",
        "[-9223372036854775808]", "[99999999999999999999999]", "[0.123456789012345]", "[1234567.12345678]", "[1234567.123456789]",
        "[0.000000000000001]", "[0.1234567890123456789]", "[1e999]", "[-1.7976931348623157e308]", "[4.35,0.3,2.675,1.005,299792.458]",
        "\xef\xbb\xbf{}", "{\"a\":1}\v", "// c\n{}", "['a']", answer,
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        check_text(texts[i]);
    }
    check("[\"a\0b\"]", 7);
    check("{}\0", 3);
}

/* Those that it leaves to jansson for their size. */
Test(json_read, deep_values_and_long_names_are_read_too)
{
    char text[2 * JSON_READ_DEPTH_MAX + 64] = "";
    for (size_t depth = JSON_READ_DEPTH_MAX - 1; depth <= JSON_READ_DEPTH_MAX + 2; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        check(text, 2 * depth);
        check(text, 2 * depth - 1);
    }
    for (size_t bytes = JSON_READ_NAME_BYTES_MAX - 1; bytes <= JSON_READ_NAME_BYTES_MAX + 2; bytes++) {
        memset(text, 'n', sizeof(text));
        memcpy(text, "{\"", 2);
        memcpy(text + 2 + bytes, "\":1}", 5);
        check_text(text);
    }
}

Test(json_read, every_beginning_of_an_answer_is_refused)
{
    for (size_t bytes = 0; bytes < sizeof(answer); bytes++) {
        check(answer, bytes);
    }
}

/* One or two bytes at a time become others, most of them such as mean something. */
Test(json_read, damaged_answers_are_read_or_refused_alike)
{
    static const char bytes[] = "{}[]\",:\\u/0123456789.-+eE \n\ttrufalsn\x01\x80\xc3\xe2\xf0\xff";
    const unsigned seed = 20261126;
    srand(seed);
    for (size_t round = 0; round < 20000; round++) {
        char text[sizeof(answer)];
        memcpy(text, answer, sizeof(answer));
        for (int left = 1 + rand() % 2; left > 0; left--) {
            text[(size_t)rand() % (sizeof(answer) - 1)] = bytes[(size_t)rand() % (sizeof(bytes) - 1)];
        }
        check(text, sizeof(answer) - 1);
    }
}
