#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "client/answer.h"

static void assert_text(const char *body, const char *expected)
{
    char *text = answer_text(body, strlen(body));
    if (expected == NULL) {
        cr_assert_null(text, "%s", body);
    } else {
        cr_assert_not_null(text, "%s", body);
        cr_assert_str_eq(text, expected);
    }
    free(text);
}

Test(answer, text_is_the_first_choices)
{
    assert_text("{\"choices\":[{\"message\":{\"content\":\"a\"}},{\"message\":{\"content\":\"b\"}}]}", "a");
    assert_text("{\"choices\":[{\"text\":\"completion\"}]}", "completion");
    assert_text("{\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"image\"},"
                "{\"type\":\"text\",\"text\":\"b\"}]}}]}",
                "ab");
}

Test(answer, body_without_text_has_none)
{
    assert_text("{\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[]}}]}", NULL);
    assert_text("{\"data\":[{\"embedding\":[0.5]}]}", NULL);
    assert_text("{\"choices\":[]}", NULL);
    assert_text("not json", NULL);
    assert_text("", NULL);
}

static void assert_chunk(const char *chunk, const char *expected)
{
    char *text = NULL;
    cr_assert_eq(tiermq_chunk_text(chunk, strlen(chunk), &text), 0);
    cr_assert_str_eq(text, expected);
    free(text);
}

Test(answer, text_of_a_chunk_is_that_of_its_events)
{
    assert_chunk("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
                 "data: {\"choices\":[{\"delta\":{\"content\":\"b\\n\"}}]}\r\n\r\n", "ab\n");
    assert_chunk("data: {\"choices\":[{\"text\":\"c\"}]}\n\ndata: [DONE]\n\n", "c");
    assert_chunk("data: {\"choices\":[],\"usage\":{}}\n\n", "");
    assert_chunk(": comment\n\ndata:\ndata", "");
    assert_chunk("", "");
}

Test(answer, copy_outlives_what_it_was_made_from)
{
    char body[] = "{\"x\":1}";
    char model[] = "sim-small";
    struct tiermq_answer answer = answer_local(TIERMQ_SUCCEEDED, "", "");
    answer.body = body;
    answer.body_bytes = strlen(body);
    answer.model = model;
    answer.cost_nanousd = 12;
    struct tiermq_answer *copy = NULL;
    cr_assert_eq(answer_copy(&answer, &copy), 0);
    memset(body, 'z', sizeof(body));
    memset(model, 'z', sizeof(model));
    cr_assert_str_eq(copy->model, "sim-small");
    cr_assert_str_eq(copy->body, "{\"x\":1}");
    cr_assert_eq(copy->body_bytes, 7);
    cr_assert_eq(copy->cost_nanousd, 12);
    tiermq_answer_free(&copy);
    cr_assert_null(copy);
}

Test(answer, near_hit_says_what_answered_and_how_alike)
{
    Wire__ModelResponse response = WIRE__MODEL_RESPONSE__INIT;
    response.near_key = (char *)"000102030405060708090a0b0c0d0e0f";
    response.near_score = 2.5;
    response.near_threshold = 2.0;
    response.embedder = (char *)"builtin/1";
    response.age_ms = 1500;
    response.cache_why = (char *)"near";
    uint8_t packed[256];
    cr_assert_leq(wire__model_response__get_packed_size(&response), sizeof(packed));
    const size_t bytes = wire__model_response__pack(&response, packed);
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.first_token_ms = 40;
    Wire__Result result = WIRE__RESULT__INIT;
    result.usage = &usage;
    result.complexity = 120;
    result.abilities = 3;
    struct answer_view view;
    struct tiermq_answer *copy = NULL;
    answer_read(&result, packed, bytes, &view);
    cr_assert_eq(answer_copy(&view.answer, &copy), 0);
    answer_view_finish(&view);
    cr_assert_eq(copy->first_token_ms, 40);
    cr_assert_eq(copy->complexity, 120);
    cr_assert_eq(copy->abilities, 3);
    cr_assert_str_eq(copy->near_key, "000102030405060708090a0b0c0d0e0f");
    cr_assert_str_eq(copy->embedder, "builtin/1");
    cr_assert_str_eq(copy->cache_why, "near");
    cr_assert_float_eq(copy->near_score, 2.5, 1e-9);
    cr_assert_float_eq(copy->near_threshold, 2.0, 1e-9);
    cr_assert_eq(copy->cache_age_ms, 1500);
    tiermq_answer_free(&copy);
}

/* The tables follow the protocol's enums: a value added there without a name here is found by this. */
Test(answer, every_state_and_reason_has_its_protocol_name)
{
    for (unsigned i = 0; i < wire__job_state__descriptor.n_values; i++) {
        const ProtobufCEnumValue *value = &wire__job_state__descriptor.values[i];
        cr_assert_eq(strcasecmp(answer_state_name((Wire__JobState)value->value), value->name + strlen("JOB_STATE_")), 0, "%s",
                     value->name);
    }
    for (unsigned i = 1; i < wire__reject_reason__descriptor.n_values; i++) {
        const ProtobufCEnumValue *value = &wire__reject_reason__descriptor.values[i];
        cr_assert_eq(strcasecmp(answer_reject_name((Wire__RejectReason)value->value), value->name + strlen("REJECT_")), 0, "%s",
                     value->name);
    }
}

Test(answer, a_response_is_read_like_a_chat)
{
    const char *body = "{\"object\":\"response\",\"output\":[{\"type\":\"reasoning\",\"content\":[{\"text\":\"hm\"}]},"
                       "{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"Hi\"},"
                       "{\"type\":\"output_text\",\"text\":\" there\"}]}]}";
    char *text = answer_text(body, strlen(body));
    cr_assert_str_eq(text, "Hi there");
    free(text);
    const char *chunk = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{}}\n\n"
                        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n"
                        "event: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"text\":\"Hi\"}\n\n";
    cr_assert_eq(tiermq_chunk_text(chunk, strlen(chunk), &text), 0);
    cr_assert_str_eq(text, "Hi");
    free(text);
}
