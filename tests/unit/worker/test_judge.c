/* When two answers say the same, by each judge. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/cache/judge.h"

/* Exactly sized: a read past the end shows. */
static char *answer(const char *text, size_t *ret_bytes)
{
    json_t *body = json_pack("{s:[{s:{s:s}}]}", "choices", "message", "content", text);
    char *packed = json_dumps(body, JSON_COMPACT);
    *ret_bytes = strlen(packed);
    char *exact = malloc(*ret_bytes);
    memcpy(exact, packed, *ret_bytes);
    free(packed);
    json_decref(body);
    return exact;
}

static enum judge_verdict of(enum judge_kind kind, const char *a, const char *b)
{
    size_t a_bytes, b_bytes;
    char *left = answer(a, &a_bytes), *right = answer(b, &b_bytes);
    const enum judge_verdict verdict = judge(kind, 0.9, left, a_bytes, right, b_bytes);
    cr_assert_eq(judge(kind, 0.9, right, b_bytes, left, a_bytes), verdict, "%s / %s", a, b);
    free(left);
    free(right);
    return verdict;
}

static void same(enum judge_kind kind, const char *a, const char *b)
{
    cr_assert_eq(of(kind, a, b), JUDGE_SAME, "%s / %s", a, b);
}

static void different(enum judge_kind kind, const char *a, const char *b)
{
    cr_assert_eq(of(kind, a, b), JUDGE_DIFFERENT, "%s / %s", a, b);
}

Test(judge, equal_but_for_case_spaces_and_punctuation)
{
    same(JUDGE_EQUAL, "Paris.", "paris");
    same(JUDGE_EQUAL, "Yes, of  course!", "yes of course");
    same(JUDGE_EQUAL, "Don't.", "dont");
    same(JUDGE_EQUAL, "It ends. Then it begins", "it ends then it begins");
    different(JUDGE_EQUAL, "Paris", "Rome");
    different(JUDGE_EQUAL, "now here", "nowhere");
    different(JUDGE_EQUAL, "1.5 percent", "15 percent");
    different(JUDGE_EQUAL, "-5", "5");
    different(JUDGE_EQUAL, "5%", "5");
    different(JUDGE_EQUAL, "", "Paris");
}

Test(judge, json_by_content)
{
    same(JUDGE_JSON, "{\"a\":1,\"b\":[1.0,2]}", "{ \"b\": [1, 2e0], \"a\": 1.0 }");
    same(JUDGE_JSON, "Not JSON.", "not json");
    different(JUDGE_JSON, "{\"a\":1}", "{\"a\":2}");
    different(JUDGE_JSON, "{\"a\":[1,2]}", "{\"a\":[2,1]}");
    different(JUDGE_JSON, "{\"a\":1}", "{\"a\":1,\"b\":null}");
    different(JUDGE_JSON, "{\"a\":\"1\"}", "{\"a\":1}");
    /* No double can tell these. */
    different(JUDGE_JSON, "{\"id\":9007199254740993}", "{\"id\":9007199254740992}");
}

Test(judge, embedding_when_near_and_no_guard_speaks)
{
    same(JUDGE_EMBEDDING, "You can cancel the order in your account settings.",
         "You can cancel an order in your account settings");
    different(JUDGE_EMBEDDING, "You can cancel the order in your account settings.",
              "You cannot cancel the order in your account settings.");
    different(JUDGE_EMBEDDING, "The train leaves at 10.", "The train leaves at 11.");
    different(JUDGE_EMBEDDING, "The train leaves at 10.", "Bananas are yellow.");
}

/* Were they unknown, only those that are equal would be labels. */
Test(judge, embedding_takes_long_answers_for_different_unless_they_are_equal)
{
    char text[129 * 5 + 32] = "", equal[sizeof(text)], other[sizeof(text)];
    for (size_t i = 0; i < 129; i++) {
        strcat(text, "word ");
    }
    (void)snprintf(equal, sizeof(equal), "%s.", text);
    (void)snprintf(other, sizeof(other), "%sotherwise", text);
    same(JUDGE_EMBEDDING, text, equal);
    different(JUDGE_EMBEDDING, text, other);
    different(JUDGE_EMBEDDING, text, "word");
    different(JUDGE_EMBEDDING, "!", "word");
}

Test(judge, model_is_asked_when_the_texts_differ)
{
    cr_assert_eq(of(JUDGE_MODEL, "Paris", "The capital is Paris"), JUDGE_UNKNOWN);
    same(JUDGE_MODEL, "Paris", "paris.");
}

/* `text` NULL: nothing. */
static void says(const char *body, const char *text)
{
    json_t *answer = json_loads(body, 0, NULL);
    const char *said = judge_text_of(answer);
    cr_assert(text == NULL ? said == NULL : said != NULL && strcmp(said, text) == 0, "%s", body);
    json_decref(answer);
}

Test(judge, a_model_is_shown_what_the_first_choice_says)
{
    says("{\"choices\":[{\"message\":{\"content\":\"chat\"}},{}]}", "chat");
    says("{\"choices\":[{\"text\":\"completion\"}]}", "completion");
    says("{\"choices\":[{\"message\":{\"content\":null}}]}", NULL);
    says("{\"choices\":[]}", NULL);
}

Test(judge, what_cannot_be_read_says_nothing)
{
    size_t bytes;
    char *good = answer("Paris", &bytes);
    cr_assert_eq(judge(JUDGE_EQUAL, 0.9, good, bytes, "{", 1), JUDGE_UNKNOWN);
    cr_assert_eq(judge(JUDGE_EQUAL, 0.9, good, bytes, NULL, 0), JUDGE_UNKNOWN);
    cr_assert_eq(judge(JUDGE_EQUAL, 0.9, "{}", 2, "{}", 2), JUDGE_UNKNOWN);
    cr_assert_eq(judge(JUDGE_EQUAL, 0.9, good, bytes, "{}", 2), JUDGE_DIFFERENT, "it says something else than nothing");
    free(good);
}

static void describe(enum judge_kind kind, double cosine_min, const char *prompt, char *ret_text)
{
    judge_describe(kind, cosine_min, "m", prompt, ret_text);
}

Test(judge, whatever_decides_otherwise_has_another_name)
{
    char names[6][JUDGE_TEXT_BYTES];
    describe(JUDGE_EQUAL, 0.9, "p", names[0]);
    describe(JUDGE_JSON, 0.9, "p", names[1]);
    describe(JUDGE_EMBEDDING, 0.9, "p", names[2]);
    describe(JUDGE_EMBEDDING, 0.95, "p", names[3]);
    describe(JUDGE_MODEL, 0.9, "p", names[4]);
    describe(JUDGE_MODEL, 0.9, "q", names[5]);
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < i; j++) {
            cr_assert_str_neq(names[i], names[j]);
        }
    }
}

static enum judge_verdict of_calls(const char *id, const char *arguments, const char *other_id,
                                   const char *other_arguments)
{
    const char *const ids[] = {id, other_id}, *const texts[] = {arguments, other_arguments};
    char *packed[2];
    for (size_t i = 0; i < 2; i++) {
        json_t *body = json_pack("{s:[{s:{s:n, s:[{s:s, s:s, s:{s:s, s:s}}]}}]}", "choices",
                                 "message", "content", "tool_calls", "id", ids[i], "type",
                                 "function", "function", "name", "weather", "arguments", texts[i]);
        packed[i] = json_dumps(body, JSON_COMPACT);
        json_decref(body);
    }
    const enum judge_verdict verdict =
        judge(JUDGE_EQUAL, 0, packed[0], strlen(packed[0]), packed[1], strlen(packed[1]));
    free(packed[0]);
    free(packed[1]);
    return verdict;
}

/* A provider makes up another one each time. */
Test(judge, calls_of_tools_are_the_same_whatever_their_ids)
{
    cr_assert_eq(of_calls("call_a", "{\"in\":\"Rome\"}", "call_b", "{\"in\":\"Rome\"}"),
                 JUDGE_SAME);
    cr_assert_eq(of_calls("call_a", "{\"in\":\"Rome\"}", "call_a", "{\"in\":\"Bonn\"}"),
                 JUDGE_DIFFERENT);
}
