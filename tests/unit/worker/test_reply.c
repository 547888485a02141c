#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/combine/reply.h"

static const struct price price = {
    .nanousd_per_mtok = {[PRICE_INPUT] = 1000000000, [PRICE_OUTPUT] = 3000000000}, .permille = {1000, 1000, 1000, 1000}};

static void split(struct reply_call *call, const char *text, const struct reply_ask *asks, size_t length,
                  struct reply_part *parts, struct token_counts *total)
{
    json_t *answer = json_loads(text, 0, NULL);
    const struct bytes body = {.data = (char *)(uintptr_t)text, .length = strlen(text)};
    call->price = &price;
    call->answer = answer;
    call->body = &body;
    memset(parts, 0, length * sizeof(*parts));
    reply_split(call, asks, length, parts, total);
    json_decref(answer);
}

static void release(struct reply_part *parts, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        bytes_finish(&parts[i].body);
    }
}

static const struct reply_ask embeddings[] = {
    {.inputs = {.length = 1, .weight = 10}, .is_present = true},
    {.inputs = {.length = 1, .weight = 20}, .is_present = false},
    {.inputs = {.length = 2, .weight = 30}, .is_present = true},
};

Test(reply, who_has_left_pays_nothing_and_the_others_have_their_own_vectors)
{
    struct reply_call call = {.operation = OPERATION_EMBEDDINGS, .request_bytes = 100};
    struct reply_part parts[3];
    struct token_counts total;
    split(&call,
          "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,\"embedding\":[2]},{\"index\":2,\"embedding\":[3]},"
          "{\"index\":3,\"embedding\":[4]}],\"usage\":{\"prompt_tokens\":81}}",
          embeddings, 3, parts, &total);
    cr_expect_eq(total.input, 81);
    cr_expect_eq(parts[0].share.tokens.input + parts[2].share.tokens.input, 81);
    cr_expect_eq(parts[1].share.cost_nanousd, 0);
    cr_expect_eq(parts[0].share.cost_nanousd + parts[2].share.cost_nanousd, 81000);
    cr_expect_null(parts[0].why);
    cr_expect(strstr(parts[2].body.data, "{\"embedding\":[3],\"index\":0},{\"embedding\":[4],\"index\":1}") != NULL);
    release(parts, 3);
}

Test(reply, vectors_that_cannot_be_told_apart_are_paid_for_and_asked_again)
{
    struct reply_call call = {.operation = OPERATION_EMBEDDINGS, .request_bytes = 100};
    struct reply_part parts[3];
    struct token_counts total;
    split(&call, "{\"data\":[{\"index\":0,\"embedding\":[1]}],\"usage\":{\"prompt_tokens\":80}}", embeddings, 3, parts, &total);
    cr_expect_str_eq(parts[0].why, "index");
    cr_expect_str_eq(parts[2].why, "index");
    cr_expect_eq(parts[0].share.tokens.input, 20);
    cr_expect_eq(parts[2].share.tokens.input, 60);
    release(parts, 3);
}

static const struct reply_ask questions[] = {
    {.question = {.text = "Why?", .text_bytes = 4, .tag = "00000001", .seal = "aaaaaa"}, .is_present = true},
    {.question = {.text = "How?", .text_bytes = 4, .tag = "00000002", .seal = "bbbbbb"}, .is_present = true},
};

#define CUT(reason, elements)                                                                      \
    "{\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"{\\\"answers\\\":[" elements \
    "\"},\"finish_reason\":\"" reason "\"}],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":40}}"
#define ANSWER(reason, elements) CUT(reason, elements "]}")
#define WHY "{\\\"begins\\\":\\\"Why?\\\",\\\"ends\\\":\\\"Why?\\\",\\\"tag\\\":\\\"00000001\\\",\\\"text\\\":\\\"aaaaaa So. aaaaaa\\\"}"
#define HOW "{\\\"begins\\\":\\\"How?\\\",\\\"ends\\\":\\\"How?\\\",\\\"tag\\\":\\\"00000002\\\",\\\"text\\\":\\\"bbbbbb Thus. bbbbbb\\\"}"

Test(reply, an_answer_reads_as_if_it_had_been_asked_for_alone)
{
    struct reply_call call = {.are_questions = true, .operation = OPERATION_CHAT, .request_bytes = 400};
    struct reply_part parts[2];
    struct token_counts total;
    split(&call, ANSWER("stop", WHY "," HOW), questions, 2, parts, &total);
    cr_assert_null(parts[0].why);
    cr_assert_null(parts[1].why);
    json_t *body = json_loads(parts[1].body.data, 0, NULL);
    const json_t *choice = json_array_get(json_object_get(body, "choices"), 0);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(choice, "message"), "content")), "Thus.");
    cr_expect_str_eq(json_string_value(json_object_get(choice, "finish_reason")), "stop");
    cr_expect_str_eq(json_string_value(json_object_get(body, "model")), "m");
    const json_t *usage = json_object_get(body, "usage");
    cr_expect_eq(json_integer_value(json_object_get(usage, "prompt_tokens")), 50);
    json_decref(body);
    cr_expect_eq(parts[0].share.tokens.output + parts[1].share.tokens.output, 40);
    release(parts, 2);
}

Test(reply, what_else_is_said_of_a_reply_is_told_nobody)
{
    struct reply_call call = {.are_questions = true, .operation = OPERATION_CHAT, .request_bytes = 400};
    struct reply_part parts[2];
    struct token_counts total;
    static const char more[] = "{\"citations\":[\"of all\"],\"system_fingerprint\":\"f\",\"created\":5,\"service_tier\":\"";
    char *text = NULL;
    char *long_name = calloc(1, 100001);
    memset(long_name, 'x', 100000);
    cr_assert_gt(asprintf(&text, "%s%s\",%s", more, long_name, ANSWER("stop", WHY "," HOW) + 1), 0);
    split(&call, text, questions, 2, parts, &total);
    for (size_t i = 0; i < 2; i++) {
        cr_assert_null(parts[i].why);
        cr_expect_lt(parts[i].body.length, 1000);
        json_t *body = json_loads(parts[i].body.data, 0, NULL);
        cr_expect_null(json_object_get(body, "citations"));
        cr_expect_null(json_object_get(body, "service_tier"));
        cr_expect_str_eq(json_string_value(json_object_get(body, "system_fingerprint")), "f");
        cr_expect_eq(json_integer_value(json_object_get(body, "created")), 5);
        json_decref(body);
    }
    release(parts, 2);
    free(text);
    free(long_name);
}

Test(reply, a_call_of_its_own_would_have_had_the_answer_without_the_marks)
{
    struct reply_ask asks[2] = {questions[0], questions[1]};
    struct reply_call call = {.are_questions = true, .operation = OPERATION_CHAT, .request_bytes = 400};
    struct reply_part parts[2];
    struct token_counts total;
    asks[0].request_bytes = asks[1].request_bytes = 100;
    split(&call, ANSWER("stop", WHY "," HOW), asks, 2, parts, &total);
    const uint64_t input_nanousd = UINT64_C(100) * 100 / 401 * 1000;
    cr_expect_gt(parts[1].lone_nanousd, input_nanousd);
    /* "Thus." is one or two tokens of the 40 that were written. */
    cr_expect_leq(parts[1].lone_nanousd, input_nanousd + 2 * 3000);
    cr_expect_lt(parts[1].lone_nanousd, input_nanousd + parts[1].share.tokens.output * 3000);
    release(parts, 2);
}

Test(reply, an_answer_that_was_cut_serves_those_it_has_reached)
{
    struct reply_call call = {.are_questions = true, .operation = OPERATION_CHAT, .request_bytes = 400};
    struct reply_part parts[2];
    struct token_counts total;
    split(&call, CUT("length", WHY ","), questions, 2, parts, &total);
    cr_expect_null(parts[0].why);
    cr_expect_str_eq(parts[1].why, "cut");
    cr_expect_eq(parts[0].share.tokens.output, 40);
    cr_expect_eq(parts[1].share.tokens.output, 0);
    release(parts, 2);
}

Test(reply, a_question_that_is_missing_in_a_whole_list_takes_all_along_whatever_ended_it)
{
    static const char *const texts[] = {ANSWER("stop", WHY), ANSWER("length", WHY),
                                        ANSWER("tool_calls", WHY)};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct reply_call call = {.are_questions = true, .operation = OPERATION_CHAT, .request_bytes = 400};
        struct reply_part parts[2];
        struct token_counts total;
        split(&call, texts[i], questions, 2, parts, &total);
        cr_expect_str_eq(parts[0].why, "missing");
        cr_expect_str_eq(parts[1].why, "missing");
        release(parts, 2);
    }
}

Test(reply, who_has_left_pays_nothing_of_a_text_that_serves_nobody_either)
{
    struct reply_call call = {.are_questions = true, .operation = OPERATION_CHAT, .request_bytes = 400};
    const struct reply_ask asks[] = {questions[0], {.question = questions[1].question}, questions[1]};
    struct reply_part parts[3];
    struct token_counts total;
    split(&call, ANSWER("stop", ""), asks, 3, parts, &total);
    cr_expect_eq(parts[0].share.tokens.output, 20);
    cr_expect_eq(parts[1].share.tokens.output, 0);
    cr_expect_eq(parts[1].share.cost_nanousd, 0);
    cr_expect_eq(parts[2].share.tokens.output, 20);
    cr_expect_eq(parts[0].share.cost_nanousd + parts[2].share.cost_nanousd, 100000 + 3 * 40000);
    release(parts, 3);
    reply_share_cut(&call, asks, 3, parts, &total);
    cr_expect_eq(parts[1].share.cost_nanousd, 0);
    cr_expect_eq(parts[0].share.tokens.input + parts[2].share.tokens.input, total.input);
}

Test(reply, an_answer_without_text_serves_nobody)
{
    struct reply_call call = {.are_questions = true, .operation = OPERATION_CHAT, .request_bytes = 400};
    struct reply_part parts[2];
    struct token_counts total;
    split(&call, "{\"choices\":[{\"message\":{\"content\":null},\"finish_reason\":\"stop\"}]}", questions, 2, parts, &total);
    cr_expect_str_eq(parts[0].why, "not_json");
    cr_expect_str_eq(parts[1].why, "not_json");
    release(parts, 2);
}
