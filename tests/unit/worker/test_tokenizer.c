/*
 * Small files of each kind; the expected tokens follow from the rules of
 * github.com/huggingface/tokenizers, and some cases are its own examples.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/tokenizer.h"

#define BERT "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true," \
             "\"strip_accents\":null,\"lowercase\":true},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
#define WORDS "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\"," \
              "\"max_input_chars_per_word\":10,\"vocab\":{\"[PAD]\":0,\"[UNK]\":1,\"hello\":2,\"world\":3,\"##ing\":4," \
              "\"play\":5,\"!\":6,\"cafe\":7,\"\xe4\xb8\xad\":8,\"\xe5\x9b\xbd\":9,\"a\":10,\"##a\":11,\"##b\":12,\"un\":13," \
              "\"##aff\":14,\"##able\":15,\"playin\":16}}"

static struct tokenizer *read_good(const char *json)
{
    char error[REFUSAL_BYTES] = "";
    struct tokenizer *tokenizer = NULL;
    cr_assert_eq(tokenizer_read(json, strlen(json), &tokenizer, error), 0, "%s: %s", error, json);
    return tokenizer;
}

/* The tokens as "2 3 6". */
static const char *encode(struct tokenizer *tokenizer, const char *text)
{
    static char out[1024];
    uint32_t ids[64];
    size_t length = 0;
    out[0] = '\0';
    cr_assert_eq(tokenizer_encode(tokenizer, text, strlen(text), ids, 64, &length), 0);
    for (size_t i = 0; i < length; i++) {
        snprintf(out + strlen(out), sizeof(out) - strlen(out), "%s%u", i == 0 ? "" : " ", ids[i]);
    }
    return out;
}

static void expect_tokens(const char *json, const char *text, const char *tokens)
{
    struct tokenizer *tokenizer = read_good(json);
    const char *found = encode(tokenizer, text);
    cr_expect_str_eq(found, tokens, "\"%s\": %s, not %s", text, found, tokens);
    tokenizer_destroy(&tokenizer);
}

Test(tokenizer, word_pieces_take_the_longest_token_first)
{
    static const struct { const char *text, *tokens; } cases[] = {
        {"Hello, WORLD!", "2 3 6"},         /* "," is unknown and left out */
        {"unaffable", "13 14 15"},          /* BERT's own example */
        {"playing", ""},                    /* "playin" is longest, then "##g" is not there: unknown as a whole */
        {"play aab", "5 10 11 12"},
        {"caf\xc3\xa9 CAF\xc3\x89", "7 7"}, /* accents go with lower case */
        {"cafe\xcc\x81", "7"},
        {"hello\xe4\xb8\xad\xe5\x9b\xbdworld", "2 8 9 3"},
        {"hel\x01lo wor\xe2\x80\x8bld", "2 3"}, /* control and format characters go */
        {"hello\tworld\xc2\xa0hello", "2 3 2"},
        {"aaaaaaaaaa", "10 11 11 11 11 11 11 11 11 11"},
        {"aaaaaaaaaaa", ""}, /* longer than a word may be */
        {"hello \xff\xfe world", "2 3"},
        {"", ""},
        {"  ", ""},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        expect_tokens("{" BERT WORDS "}", cases[i].text, cases[i].tokens);
    }
}

Test(tokenizer, special_tokens_are_found_in_the_text_as_it_is)
{
    static const char json[] =
        "{\"added_tokens\":[{\"id\":20,\"content\":\"[SEP]\",\"special\":true},{\"id\":1,\"content\":\"[UNK]\"},"
        "{\"id\":21,\"content\":\"[SEP]x\"}]," BERT WORDS "}";
    expect_tokens(json, "Hello[SEP]world", "2 20 3");
    expect_tokens(json, "hello[sep]world", "2 3");
    expect_tokens(json, "[SEP]xhello[UNK]", "21 2");
    struct tokenizer *tokenizer = read_good(json);
    cr_expect_eq(tokenizer_ids(tokenizer), 22);
    cr_expect_eq(tokenizer_median_characters(tokenizer), 4);
    tokenizer_destroy(&tokenizer);
}

Test(tokenizer, no_more_tokens_than_there_is_room_for)
{
    uint32_t ids[3] = {0, 0, 77};
    size_t length = 0;
    struct tokenizer *tokenizer = read_good("{" BERT WORDS "}");
    cr_expect_eq(tokenizer_encode(tokenizer, "hello world play", 16, ids, 2, &length), 0);
    cr_expect(length == 2 && ids[0] == 2 && ids[1] == 3 && ids[2] == 77);
    tokenizer_destroy(&tokenizer);
}

#define UNIGRAM(vocabulary) "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[" vocabulary "]}}"

Test(tokenizer, unigram_takes_the_path_with_the_highest_score)
{
    /* The example of the reference implementation: abcdacdxx is abcd, a, cd, and unknown. */
    static const char json[] = "{" UNIGRAM("[\"<unk>\",0.0],[\"a\",0.0],[\"b\",0.0],[\"c\",0.0],[\"d\",0.0],[\"cd\",1.0],"
                                           "[\"ab\",2.0],[\"abc\",5.0],[\"abcd\",10.0]");
    expect_tokens(json, "abcdacdxx", "8 1 5");
    expect_tokens(json, "xabx", "6");
    expect_tokens(json, "abcbcd", "7 2 5");
}

#define METASPACE(options) "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"" options "},"
#define SPM UNIGRAM("[\"<unk>\",0],[\"\xe2\x96\x81hey\",-1],[\"hey\",-1.5],[\"\xe2\x96\x81you\",-1],[\"\xe2\x96\x81\",-2],[\"y\",-3]," \
                    "[\"\xe2\x96\x81hey\xe2\x96\x81you\",-1.5],[\",\",-2]")

Test(tokenizer, metaspace_marks_where_words_begin)
{
    expect_tokens("{" METASPACE("") SPM, "hey you", "1 3");
    expect_tokens("{" METASPACE("") SPM, " hey  you", "1 4 3");
    /* Without splitting a token may span words. */
    expect_tokens("{" METASPACE(",\"split\":false") SPM, "hey you", "6");
    expect_tokens("{" METASPACE(",\"prepend_scheme\":\"never\"") SPM, "hey you", "2 3");
    expect_tokens("{" METASPACE(",\"add_prefix_space\":false") SPM, "hey you", "2 3");
    expect_tokens("{" METASPACE(",\"prepend_scheme\":\"first\"") "\"added_tokens\":[{\"id\":9,\"content\":\"<s>\"}]," SPM,
                  "hey<s>hey", "1 9 2");
}

Test(tokenizer, a_distilled_models_normalizers_are_followed)
{
    /* As model2vec writes them: blanks around punctuation, runs of blanks to one, the end stripped. */
    static const char json[] =
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},"
        "{\"type\":\"Lowercase\"}]},{\"type\":\"Replace\",\"pattern\":{\"String\":\",\"},\"content\":\" , \"},"
        "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\" \"},{\"type\":\"Strip\",\"strip_left\":false,"
        "\"strip_right\":true}]}," METASPACE(",\"split\":false")
        UNIGRAM("[\"<unk>\",0],[\"\xe2\x96\x81hey\",-1],[\"\xe2\x96\x81,\",-1],[\"\xe2\x96\x81you\",-1],[\"\xe2\x96\x81\",-5]");
    expect_tokens(json, "Hey,you  ", "1 2 3");
    expect_tokens(json, "\xef\xbc\xa8\xef\xbd\x85\xef\xbd\x99 \n ,\tYOU", "1 2 3"); /* full width */
}

Test(tokenizer, characters_are_replaced_as_the_charsmap_says)
{
    /*
     * A trie of two entries, made by hand: "A" (0x41) → "b" at 0, "B" (0x42) → "" at 1. The root
     * leads to offset 0x80; the units at 0x80 ^ byte have their byte as label, a leaf and an offset
     * to themselves ^ 1 shifted, where the values are.
     */
    uint32_t units[512] = {0};
    uint8_t blob[4 + sizeof(units) + 3];
    units[0] = 0x100U << 10;
    units[0x100 ^ 0x41] = 0x41 | 1U << 8 | (0x0c0U ^ 0x001U) << 10;
    units[(0x100 ^ 0x41) ^ (0x0c0U ^ 0x001U)] = 1U << 31 | 0;
    units[0x100 ^ 0x42] = 0x42 | 1U << 8 | (0x0c0U ^ 0x009U) << 10;
    units[(0x100 ^ 0x42) ^ (0x0c0U ^ 0x009U)] = 1U << 31 | 2;
    const uint32_t trie_bytes = sizeof(units);
    memcpy(blob, &trie_bytes, 4);
    memcpy(blob + 4, units, sizeof(units));
    memcpy(blob + 4 + sizeof(units), "b\0", 3);
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char base64[4096] = "";
    size_t at = 0;
    for (size_t i = 0; i < sizeof(blob); i += 3) {
        const size_t left = sizeof(blob) - i;
        const uint32_t group = (uint32_t)blob[i] << 16 | (left > 1 ? (uint32_t)blob[i + 1] << 8 : 0) | (left > 2 ? blob[i + 2] : 0);
        base64[at++] = digits[group >> 18];
        base64[at++] = digits[group >> 12 & 63];
        base64[at++] = left > 1 ? digits[group >> 6 & 63] : '=';
        base64[at++] = left > 2 ? digits[group & 63] : '=';
    }
    char json[8192];
    snprintf(json, sizeof(json),
             "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"%s\"},%s", base64,
             UNIGRAM("[\"<unk>\",0],[\"b\",-1],[\"c\",-1],[\"A\",-1]"));
    expect_tokens(json, "AcBbA", "1 2 1 1");
}

Test(tokenizer, bytes_are_written_as_gpt_2_writes_them)
{
#define LEVEL(options, vocabulary) "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"" options "},\"model\":{\"type\":\"WordLevel\",\"vocab\":{" vocabulary "}}}"
    static const char words[] =
        LEVEL(",\"add_prefix_space\":false", "\"I\":1,\"'m\":2,\"\xc4\xa0" "50\":3,\"\xc4\xa0\":4,\"\xc4\xa0years\":5,\"!!\":6,\"\xc4\x8a\":7,\"ok\":8,"
              "\"\xc4\xa0\xc4\xa0\":9,\"\xc3\x83\xc2\xa9\":10");
    expect_tokens(words, "I'm 50 years!!", "1 2 3 5 6");
    expect_tokens(words, "I   50\nok  ", "1 9 3 7 8 9");
    expect_tokens(words, "\xc3\xa9", "10");
    expect_tokens(LEVEL("", "\"\xc4\xa0I\":1"), "I", "1");
    expect_tokens(LEVEL(",\"use_regex\":false", "\"\xc4\xa0I\xc4\xa0" "am\":1"), "I am", "1");
}

Test(tokenizer, other_splitters_split_as_they_say)
{
#define LEVELS(splitter) "{\"pre_tokenizer\":" splitter ",\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0," \
                         "\"a_b\":1,\"!?\":2,\"c\":3,\"a_b!?\":4,\"12\":5,\"1\":6,\"2\":7,\"!\":8}}}"
    expect_tokens(LEVELS("{\"type\":\"Whitespace\"}"), "a_b!? c", "1 2 3");
    expect_tokens(LEVELS("{\"type\":\"WhitespaceSplit\"}"), "a_b!? c", "4 3");
    expect_tokens(LEVELS("{\"type\":\"Punctuation\"}"), "c!c", "3 8 3");
    expect_tokens(LEVELS("{\"type\":\"Digits\"}"), "c12c", "3 5 3");
    expect_tokens(LEVELS("{\"type\":\"Digits\",\"individual_digits\":true}"), "c12c", "3 6 7 3");
    expect_tokens(LEVELS("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":\"Digits\"}]}"), "c12 c",
                  "3 5 3");
    expect_tokens(LEVELS("null"), "c", "3");
}

Test(tokenizer, unknown_characters_may_be_written_in_bytes)
{
    static const char json[] = "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"<unk>\",0],"
                               "[\"a\",-1],[\"<0xC3>\",-2],[\"<0xA9>\",-2]]}}";
    expect_tokens(json, "a\xc3\xa9", "1 2 3");
}

Test(tokenizer, what_is_not_known_is_refused_by_name)
{
    static const struct { const char *json, *why; } cases[] = {
        {"[]", "no JSON object"},
        {"{", "no JSON object"},
        {"{}", "the model \"\" is not known"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "the model \"BPE\" is not known"},
        {"{\"normalizer\":{\"type\":\"Nmt\"}," WORDS "}", "the normalizer \"Nmt\" is not known"},
        {"{\"normalizer\":5," WORDS "}", "no type"},
        {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a|b\"},\"content\":\"\"}," WORDS "}", "the pattern \"a|b\""},
        {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}," WORDS "}", "is empty"},
        {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"***\"}," WORDS "}", "no base64"},
        {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"CAAAAA==\"}," WORDS "}", "a trie that cannot be"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\"}," WORDS "}", "the pre-tokenizer \"Split\" is not known"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}," WORDS "}", "not one character"},
        {"{\"pre_tokenizer\":{\"type\":\"Punctuation\",\"behavior\":\"Removed\"}," WORDS "}", "the behavior \"Removed\""},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "no or more than"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":-1}}}", "no number below"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":4194304}}}", "no number below"},
        {"{\"model\":{\"type\":\"WordPiece\",\"max_input_chars_per_word\":0,\"vocab\":{\"a\":0}}}", "max_input_chars_per_word"},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}", "unk_id"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "vocab[0]"},
        {"{\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]," WORDS "}", "added token"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"x\",\"single_word\":true}]," WORDS "}", "single word"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char error[REFUSAL_BYTES] = "";
        struct tokenizer *tokenizer = NULL;
        cr_expect_eq(tokenizer_read(cases[i].json, strlen(cases[i].json), &tokenizer, error), -EINVAL, "%s", cases[i].json);
        cr_expect_not_null(strstr(error, cases[i].why), "%s: %s", cases[i].json, error);
    }
}

Test(tokenizer, a_text_that_its_steps_blow_up_is_too_large)
{
    uint32_t ids[4];
    size_t length = 0;
    char *text = malloc(30000);
    memset(text, 'a', 30000);
    struct tokenizer *tokenizer =
        read_good("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":"
                  "\"0123456789012345678901234567890123456789\"}," WORDS "}");
    cr_expect_eq(tokenizer_encode(tokenizer, text, 30000, ids, 4, &length), -EMSGSIZE);
    cr_expect_eq(tokenizer_encode(tokenizer, text, 300, ids, 4, &length), 0, "and the next text is as if nothing had been");
    tokenizer_destroy(&tokenizer);
    free(text);
}
