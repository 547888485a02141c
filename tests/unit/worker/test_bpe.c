#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "worker/prompt/bpe.h"
#include "worker/prompt/token_count.h"

static void expect_pieces(enum bpe_pattern pattern, const char *text, const char *const *pieces)
{
    size_t at = 0;
    for (size_t i = 0; pieces[i] != NULL; i++) {
        const size_t bytes = bpe_splitter_next(pattern, text + at, strlen(text) - at);
        cr_assert_eq(bytes, strlen(pieces[i]), "piece %zu of \"%s\" has %zu bytes", i, text, bytes);
        cr_assert_eq(memcmp(text + at, pieces[i], bytes), 0);
        at += bytes;
    }
    cr_assert_eq(at, strlen(text));
}
#define PIECES(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(bpe_splitter, words_keep_the_blank_before_them)
{
    expect_pieces(BPE_GPT2, "It's  12345 cats", PIECES("It", "'s", " ", " 12345", " cats"));
    expect_pieces(BPE_CL100K, "IT'S  12345 cats",
                  PIECES("IT", "'S", " ", " ", "123", "45", " cats"));
    expect_pieces(BPE_QWEN, "a 12", PIECES("a", " ", "1", "2"));
}

Test(bpe_splitter, o200k_cuts_where_capitals_begin)
{
    expect_pieces(BPE_O200K, "camelCase HTTPServer don't",
                  PIECES("camel", "Case", " HTTPServer", " don't"));
    expect_pieces(BPE_O200K, "ABC", PIECES("ABC"));
    expect_pieces(BPE_O200K, "a.\n/b", PIECES("a", ".\n/", "b"));
}

Test(bpe_splitter, white_space_goes_up_to_the_last_newline)
{
    expect_pieces(BPE_CL100K, "a \n\n  b", PIECES("a", " \n\n", " ", " b"));
    expect_pieces(BPE_CL100K, "a   ", PIECES("a", "   "));
    expect_pieces(BPE_GPT2, "a \n\n  b", PIECES("a", " \n\n ", " b"));
}

Test(bpe_splitter, bytes_that_are_no_text_are_taken_one_by_one)
{
    static const char text[] = "\xff\xfe";
    cr_assert_gt(bpe_splitter_next(BPE_O200K, text, 2), 0);
    cr_assert_eq(bpe_splitter_next(BPE_O200K, text, 1), 1);
}

static struct bpe *read_good(const char *file)
{
    struct bpe *bpe = NULL;
    char error[REFUSAL_BYTES] = "";
    cr_assert_eq(bpe_read(file, strlen(file), &bpe, error), 0, "%s", error);
    return bpe;
}

static uint64_t count(const struct bpe *bpe, const char *text)
{
    return bpe_count(bpe, text, strlen(text));
}

/* a, b, c, ab, abc; not bc. */
static const char ranks[] = "YQ== 0\nYg== 1\nYw== 2\nYWI= 3\nYWJj 4\n";

Test(bpe, pairs_of_the_lowest_rank_are_joined_first)
{
    struct bpe *bpe = read_good(ranks);
    cr_assert_eq(bpe_tokens(bpe), 5);
    cr_assert_eq(count(bpe, ""), 0);
    cr_assert_eq(count(bpe, "abc"), 1);
    cr_assert_eq(count(bpe, "bc"), 2);
    cr_assert_eq(count(bpe, "abcab"), 2);
    cr_assert_eq(count(bpe, "aabb"), 3);
    cr_assert_eq(count(bpe, "xyz"), 3); /* no token: a byte each */
    bpe_destroy(&bpe);
}

Test(bpe, a_word_without_an_end_is_counted_in_parts)
{
    enum { BYTES = 100000 };
    struct bpe *bpe = read_good(ranks);
    char *text = malloc(BYTES);
    memset(text, 'a', BYTES);
    cr_assert_eq(bpe_count(bpe, text, BYTES), BYTES);
    free(text);
    bpe_destroy(&bpe);
}

/* U+0120 is the blank. "b" and "c" may join, "a" and "bc" may not. */
static const char tokenizer[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3,\"bc\":4,"
    "\"\\u0120a\":5,\"abc\":6},"
    "\"merges\":[\"b c\",[\"\\u0120\",\"a\"]]},\"normalizer\":null,"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}}";

Test(bpe, only_the_pairs_of_a_tokenizer_json_are_joined)
{
    struct bpe *bpe = read_good(tokenizer);
    cr_assert_eq(bpe_pattern_of(bpe), BPE_GPT2);
    cr_assert_eq(count(bpe, "bc"), 1);
    cr_assert_eq(count(bpe, "a a"), 2);
    cr_assert_eq(count(bpe, "abc abc"), 3); /* "abc" is a token itself; " a" and "bc" are two */
    bpe_destroy(&bpe);
}

Test(bpe, what_is_no_vocabulary_is_refused_with_words)
{
    static const char *const bad[] = {
        "",
        "\n",
        "YQ==\n",
        "YQ== x\n",
        "YQ== 1 2\n",
        "*** 1\n",
        "YQ== 0\nYQ== 1\n",
        " 0\n",
        "{",
        "{}",
        "{\"model\":{\"type\":\"Unigram\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a "
        "b\"]},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a "
        "a\"]},\"pre_tokenizer\":{\"type\":\"Metaspace\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a "
        "a\"]},\"normalizer\":{\"type\":\"NFKC\"},"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct bpe *bpe = NULL;
        char error[REFUSAL_BYTES] = "";
        cr_assert_eq(bpe_read(bad[i], strlen(bad[i]), &bpe, error), -EINVAL, "%s", bad[i]);
        cr_assert_str_neq(error, "");
        cr_assert_null(bpe);
    }
}

Test(bpe, a_file_that_is_not_there_is_an_error_in_words)
{
    struct bpe *bpe = NULL;
    char error[REFUSAL_BYTES] = "";
    cr_assert_eq(bpe_read_file("/nonexistent/ranks", &bpe, error), -ENOENT);
    cr_assert_str_neq(error, "");
    cr_assert_eq(bpe_read_file("/", &bpe, error), -EINVAL);
}

/* Counted with o200k_base. */
Test(token_count, the_estimate_is_near_what_a_vocabulary_counts)
{
    static const struct {
        const char *text;
        uint64_t tokens;
    } known[] = {
        {"The quick brown fox jumps over the lazy dog, again and again.", 14},
        {"\xE4\xBA\xBA\xE5\xB7\xA5\xE6\x99\xBA\xE8\x83\xBD\xE6\xAD\xA3\xE5\x9C\xA8\xE6\x94\xB9\xE5"
         "\x8F\x98",
         4},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        const uint64_t tokens = token_count(NULL, known[i].text, strlen(known[i].text));
        cr_assert_geq(tokens, known[i].tokens * 3 / 4);
        cr_assert_leq(tokens, known[i].tokens * 3 / 2);
    }
    cr_assert_eq(token_count_estimate("", 0), 0);
}
