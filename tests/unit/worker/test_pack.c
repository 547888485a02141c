#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/attributes.h"
#include "worker/combine/pack.h"

/* ---- what may be asked together ---- */

static bool may_be_packed(const char *body)
{
    struct question question;
    json_t *root = json_loads(body, 0, NULL);
    cr_assert_not_null(root, "%s", body);
    const bool is_good = pack_read(root, &question);
    json_decref(root);
    return is_good;
}

#define USER "{\"role\":\"user\",\"content\":\"Why?\"}"

Test(pack, short_chats_of_one_question_can_be_asked_together)
{
    static const char *const bodies[] = {
        "{\"messages\":[" USER "]}",
        "{\"messages\":[{\"role\":\"system\",\"content\":\"Be kind.\"}," USER "],\"temperature\":0,\"max_tokens\":9}",
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"\"}," USER "],\"n\":1,\"stream\":false,\"stop\":null}",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(bodies); i++) {
        cr_expect(may_be_packed(bodies[i]), "%s", bodies[i]);
    }
}

Test(pack, what_would_mean_another_thing_goes_alone)
{
    static const char *const bodies[] = {
        "{}",
        "{\"messages\":[]}",
        "{\"messages\":[" USER "," USER "]}",
        "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}," USER "]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"b\"}]}",
        "{\"messages\":[" USER "],\"n\":2}",
        "{\"messages\":[" USER "],\"stop\":[\"x\"]}",
        "{\"messages\":[" USER "],\"tools\":[]}",
        "{\"messages\":[" USER "],\"logprobs\":true}",
        "{\"messages\":[" USER "],\"stream\":true}",
        "{\"messages\":[" USER "],\"response_format\":{\"type\":\"text\"}}",
        "{\"messages\":[" USER "],\"presence_penalty\":1}",
        "{\"messages\":[" USER "],\"of_tomorrow\":1}",
        "{\"messages\":[" USER "],\"max_tokens\":0}",
        "{\"messages\":[" USER "],\"max_tokens\":5000}",
        "{\"messages\":[" USER "],\"max_tokens\":5,\"max_completion_tokens\":5}",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(bodies); i++) {
        cr_expect(!may_be_packed(bodies[i]), "%s", bodies[i]);
    }
}

Test(pack, marks_are_all_different)
{
    static struct question questions[PACK_QUESTIONS_MAX];
    cr_assert_eq(pack_mark(questions, PACK_QUESTIONS_MAX), 0);
    for (size_t i = 0; i < PACK_QUESTIONS_MAX; i++) {
        cr_expect_eq(strlen(questions[i].tag), PACK_TAG_BYTES - 1);
        cr_expect_eq(strlen(questions[i].seal), PACK_SEAL_BYTES - 1);
        for (size_t k = 0; k < i; k++) {
            cr_expect_str_neq(questions[i].tag, questions[k].tag);
            cr_expect_str_neq(questions[i].seal, questions[k].seal);
        }
    }
}

/* ---- the prompt ---- */

static const struct question pair[] = {
    {.system = "Be kind.", .system_role = "system", .text = "What is a queue, in short?", .text_bytes = 26,
     .bound = "max_tokens", .tokens_max = 10, .tag = "00000001", .seal = "aaaaaa"},
    {.system = "Be kind.", .system_role = "system", .text = "What is a stack, in short?", .text_bytes = 26,
     .bound = "max_tokens", .tokens_max = 20, .tag = "00000002", .seal = "bbbbbb"},
};

Test(pack, a_prompt_has_the_system_prompt_as_it_was_and_a_line_for_each)
{
    const char *body = "{\"messages\":[],\"temperature\":0.7,\"max_tokens\":10}";
    struct bytes out = {.bytes_max = 65536};
    cr_assert_eq(pack_write(body, strlen(body), pair, 2, &out), 0);
    json_t *request = json_loads(out.data, 0, NULL);
    const json_t *messages = json_object_get(request, "messages");
    cr_assert_eq(json_array_size(messages), 2);
    cr_expect_str_eq(json_string_value(json_object_get(json_array_get(messages, 0), "content")), "Be kind.");
    const char *text = json_string_value(json_object_get(json_array_get(messages, 1), "content"));
    cr_expect(strstr(text, "{\"tag\":\"00000002\",\"seal\":\"bbbbbb\",\"question\":\"What is a stack, in short?\",\"tokens_max\":20}\n") != NULL,
              "%s", text);
    cr_expect(strstr(out.data, "\"temperature\":0.7") != NULL);
    cr_expect_eq(json_integer_value(json_object_get(request, "max_tokens")), 30 + 2 * PACK_TOKENS_A_QUESTION);
    json_decref(request);
    bytes_finish(&out);
}

/* ---- the answers ---- */

#define E(begins, ends, tag, text)                                                                 \
    "{\"begins\":\"" begins "\",\"ends\":\"" ends "\",\"tag\":\"" tag "\",\"text\":\"" text "\"}"
#define QUEUE(text) E("What is a queue, in", "is a queue, in short?", "00000001", text)
#define STACK(text) E("What is a stack, in", "is a stack, in short?", "00000002", text)
#define IN(elements) "{\"answers\":[" elements "]}"
#define GOOD_QUEUE   QUEUE("aaaaaa First come. aaaaaa")
#define GOOD_STACK   STACK("bbbbbb Last come. bbbbbb")

static void expect(const char *content, enum pack_verdict queue, enum pack_verdict stack)
{
    struct pack_result results[2];
    cr_assert_eq(pack_split(content, strlen(content), pair, 2, results), 0);
    cr_expect_eq(results[0].verdict, queue, "%s: %s", content, pack_verdict_name(results[0].verdict));
    cr_expect_eq(results[1].verdict, stack, "%s: %s", content, pack_verdict_name(results[1].verdict));
    for (size_t i = 0; i < 2; i++) {
        cr_expect_eq(results[i].text != NULL, results[i].verdict == PACK_GOOD);
        cr_expect(results[i].text == NULL || strcmp(results[i].text, i == 0 ? "First come." : "Last come.") == 0);
        free(results[i].text);
    }
}

Test(pack, answers_are_found_in_any_order_and_wrapping)
{
    expect(IN(GOOD_QUEUE "," GOOD_STACK), PACK_GOOD, PACK_GOOD);
    expect(IN(GOOD_STACK " , " GOOD_QUEUE), PACK_GOOD, PACK_GOOD);
    expect("Sure:\n```json\n" IN(GOOD_QUEUE "," GOOD_STACK) "\n```\n", PACK_GOOD, PACK_GOOD);
    expect("{\"note\":[1],\"answers\":[" GOOD_QUEUE "," GOOD_STACK "]}", PACK_GOOD, PACK_GOOD);
    expect(IN(E("\\\"what is a QUEUE", "queue... in short", "00000001", "aaaaaa First come. aaaaaa") "," GOOD_STACK),
           PACK_GOOD, PACK_GOOD);
}

Test(pack, a_swap_is_found_by_words_and_by_seals)
{
    expect(IN(E("What is a stack, in", "a stack, in short?", "00000001", "bbbbbb Last come. bbbbbb") ","
              E("What is a queue, in", "a queue, in short?", "00000002", "aaaaaa First come. aaaaaa")),
           PACK_WRONG_WORDS, PACK_WRONG_WORDS);
    expect(IN(QUEUE("bbbbbb Last come. bbbbbb") "," STACK("aaaaaa First come. aaaaaa")),
           PACK_WRONG_SEAL, PACK_WRONG_SEAL);
    expect(IN(QUEUE("Last come.") "," GOOD_STACK), PACK_WRONG_SEAL, PACK_GOOD);
    expect(IN(QUEUE("aaaaaa First come.") "," GOOD_STACK), PACK_WRONG_SEAL, PACK_GOOD);
}

static enum pack_verdict verdict_on_ends(const char *text, const char *ends)
{
    const struct question question = {.text = text, .text_bytes = strlen(text), .tag = "00000001", .seal = "aaaaaa"};
    struct pack_result result;
    char *content = NULL;
    cr_assert(asprintf(&content, IN("{\"begins\":\"%s\",\"ends\":\"%s\",\"tag\":\"00000001\",\"text\":\"aaaaaa x aaaaaa\"}"),
                       text, ends) > 0);
    cr_assert_eq(pack_split(content, strlen(content), &question, 1, &result), 0);
    free(result.text);
    free(content);
    return result.verdict;
}

Test(pack, words_that_a_question_ends_with_are_few_only_where_it_has_no_more)
{
    cr_expect_eq(verdict_on_ends("  Why?", "Why?"), PACK_GOOD);
    cr_expect_eq(verdict_on_ends("Why?  ", "Why?"), PACK_GOOD);
    cr_expect_eq(verdict_on_ends("?? \xc3\xa9 ??", "\xc3\xa9"), PACK_GOOD);
    cr_expect_eq(verdict_on_ends("1+2=????????", "1+2"), PACK_GOOD);
    cr_expect_eq(verdict_on_ends("1+2=????????", "2"), PACK_WRONG_WORDS);
    cr_expect_eq(verdict_on_ends("???????? 1+2", "2"), PACK_WRONG_WORDS);
}

Test(pack, one_that_is_missing_takes_all_along_since_it_may_be_in_another)
{
    expect(IN(GOOD_QUEUE), PACK_MISSING, PACK_MISSING);
    expect(IN(QUEUE("aaaaaa First come. Last come. aaaaaa")), PACK_MISSING, PACK_MISSING);
    expect(IN(GOOD_QUEUE "," E("What is a stack", "in short?", "00000009", "bbbbbb x bbbbbb")),
           PACK_MISSING, PACK_MISSING);
    expect(IN(""), PACK_MISSING, PACK_MISSING);
}

Test(pack, what_was_not_reached_leaves_the_others)
{
    expect("{\"answers\":[" GOOD_QUEUE ",{\"begins\":\"What", PACK_GOOD, PACK_CUT);
    expect("{\"answers\":[" GOOD_QUEUE ",", PACK_GOOD, PACK_CUT);
    expect("{\"answ", PACK_NOT_JSON, PACK_NOT_JSON);
}

Test(pack, one_that_was_passed_over_is_missing_in_a_list_that_was_cut_too)
{
    expect("{\"answers\":[" GOOD_STACK ",{\"begins\":\"What", PACK_MISSING, PACK_MISSING);
    expect("{\"answers\":[" GOOD_STACK "," GOOD_QUEUE ",", PACK_GOOD, PACK_GOOD);
}

Test(pack, merged_and_doubled_answers_are_refused)
{
    expect(IN(QUEUE("aaaaaa First come. aaaaaa bbbbbb Last come. bbbbbb aaaaaa") "," GOOD_STACK),
           PACK_MERGED, PACK_GOOD);
    expect(IN(QUEUE("aaaaaa First come. 00000002 Last come. aaaaaa") "," GOOD_STACK),
           PACK_MERGED, PACK_GOOD);
    expect(IN(QUEUE("aaaaaa First come. BBBBBB Last come. aaaaaa") "," GOOD_STACK),
           PACK_MERGED, PACK_GOOD);
    expect(IN(GOOD_QUEUE "," GOOD_STACK "," GOOD_QUEUE), PACK_TWICE, PACK_GOOD);
    expect(IN(GOOD_QUEUE "," GOOD_STACK "," GOOD_QUEUE "," GOOD_QUEUE), PACK_TWICE, PACK_GOOD);
}

Test(pack, what_is_no_answer_is_refused)
{
    expect("", PACK_NOT_JSON, PACK_NOT_JSON);
    expect("I am sorry.", PACK_NOT_JSON, PACK_NOT_JSON);
    expect("{\"answers\":{}}", PACK_NOT_JSON, PACK_NOT_JSON);
    expect(IN(QUEUE("aaaaaa  aaaaaa") "," GOOD_STACK), PACK_EMPTY, PACK_GOOD);
    expect(IN(QUEUE("aaaaaa") "," GOOD_STACK), PACK_WRONG_SEAL, PACK_GOOD);
    expect(IN("{\"tag\":\"00000001\",\"text\":\"aaaaaa First come. aaaaaa\"}," GOOD_STACK),
           PACK_MALFORMED, PACK_GOOD);
    expect(IN(E("", "", "00000001", "aaaaaa First come. aaaaaa") "," GOOD_STACK),
           PACK_WRONG_WORDS, PACK_GOOD);
    expect(IN("{\"text\":\"aaaaaa First come. aaaaaa\",\"tag\":\"00000001\",\"begins\":\"What is a queue\","
              "\"ends\":\"in short\"}," GOOD_STACK),
           PACK_MALFORMED, PACK_GOOD);
}

/* What it takes to look for the marks of so many questions in long answers to some of them. */
static double seconds_of(struct question *questions, size_t length)
{
    enum { ELEMENTS = 8, TEXT_BYTES = 200000 };
    static struct pack_result results[PACK_QUESTIONS_MAX];
    struct bytes content = {.bytes_max = SIZE_MAX / 2};
    char *text = malloc(TEXT_BYTES + 1);
    cr_assert_not_null(text);
    memset(text, 'f', TEXT_BYTES);
    text[TEXT_BYTES] = '\0';
    cr_assert_eq(bytes_append_text(&content, "{\"answers\":["), 0);
    for (size_t i = 0; i < ELEMENTS; i++) {
        char *element = NULL;
        cr_assert_gt(asprintf(&element, "{\"begins\":\"Why?\",\"ends\":\"Why?\",\"tag\":\"%s\",\"text\":\"%s %s %s\"},",
                              questions[i].tag, questions[i].seal, text, questions[i].seal), 0);
        cr_assert_eq(bytes_append_text(&content, element), 0);
        free(element);
    }
    const clock_t begin = clock();
    cr_assert_eq(pack_split(content.data, content.length, questions, length, results), 0);
    const double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    for (size_t i = 0; i < length; i++) {
        cr_assert_eq(results[i].verdict, i < ELEMENTS ? PACK_GOOD : PACK_CUT);
        free(results[i].text);
    }
    bytes_finish(&content);
    free(text);
    return seconds;
}

Test(pack, marks_of_many_questions_are_looked_for_at_once)
{
    static struct question questions[PACK_QUESTIONS_MAX];
    for (size_t i = 0; i < PACK_QUESTIONS_MAX; i++) {
        questions[i] = (struct question){.text = "Why?", .text_bytes = 4};
        (void)snprintf(questions[i].tag, PACK_TAG_BYTES, "0%07zx", i);
        (void)snprintf(questions[i].seal, PACK_SEAL_BYTES, "ffff%02zx", i == 255 ? 0 : i);
        questions[i].seal[0] = 'e';
    }
    const double few = seconds_of(questions, 8);
    const double many = seconds_of(questions, PACK_QUESTIONS_MAX);
    cr_assert_lt(many, 0.1 + 8 * few, "%f s of %f s", many, few); /* one by one: 32 times */
}
