/* Servers that speak OpenAI's form, each in its own dialect. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "tests/unit/worker/fixtures.h"
#include "worker/account/account.h"

#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED

Test(openai, the_streams_of_compatible_servers_are_put_together)
{
    static const char *const names[] = {"ollama", "ollama_tool", "llama_cpp", "vllm_two_choices",
                                        "tgi"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_stream(&protocol_openai, "compatible", names[i]);
        expect_fixture_answer(&protocol_openai, "compatible", names[i]);
    }
}

Test(openai, an_error_in_a_stream_is_one_in_each_dialect)
{
    struct outcome outcome = fixture_stream_outcome(&protocol_openai, "compatible", "tgi_error");
    cr_expect_eq(outcome.kind, UNAVAILABLE);
    cr_expect_not_null(strstr(outcome.text, "CUDA out of memory"));
    outcome = fixture_stream_outcome(&protocol_openai, "compatible", "vllm_error");
    cr_expect_eq(outcome.kind, UNAVAILABLE);
    cr_expect_not_null(strstr(outcome.text, "The engine is dead"));
}

Test(openai, errors_of_compatible_servers_have_their_meaning)
{
    static const struct {
        const char *name;
        long status;
        Wire__AttemptOutcome kind;
        const char *code;
    } table[] = {
        {"vllm_model", 404, REJECTED, "rejected"},
        {"ollama_model", 404, REJECTED, "rejected"},
        {"fastapi_path", 404, UNAVAILABLE, "address"},
        {"openai_path", 404, UNAVAILABLE, "address"},
        {"openai_url", 404, UNAVAILABLE, "address"},
        {"tgi_overloaded", 429, RATE_LIMITED, "rate_limited"},
        {"tgi_validation", 422, REJECTED, "rejected"},
        {"llama_cpp_context", 400, REJECTED, "rejected"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        const struct outcome outcome =
            fixture_error_outcome("compatible", table[i].name, table[i].status);
        cr_expect_eq(outcome.kind, table[i].kind, "%s", table[i].name);
        cr_expect_str_eq(outcome.code, table[i].code, "%s", table[i].name);
    }
}

Test(openai, an_address_that_nobody_serves_is_the_operators_to_mend)
{
    struct outcome outcome = {.code = ""};
    outcome_from_reply(404, OPERATION_CHAT, NULL, 0, &outcome);
    cr_expect_eq(outcome.kind, UNAVAILABLE);
    cr_expect_str_eq(outcome.code, "address");
    cr_expect_not_null(strstr(outcome.text, "/v1"));
}

/* Some have chats alone: that must not close them for those who chat. */
Test(openai, an_operation_that_a_server_lacks_is_its_jobs_fault)
{
    struct outcome outcome = {.code = ""};
    json_t *body = json_pack("{s:{s:s, s:s}}", "error", "message",
                             "Invalid URL (POST /v1/responses)", "code", "unknown_url");
    outcome_from_reply(404, OPERATION_RESPONSES, body, 0, &outcome);
    cr_expect_eq(outcome.kind, REJECTED);
    outcome_from_reply(404, OPERATION_CHAT, body, 0, &outcome);
    cr_expect_eq(outcome.kind, UNAVAILABLE);
    outcome_from_reply(404, OPERATION_COMPLETIONS, NULL, 0, &outcome);
    cr_expect_eq(outcome.kind, REJECTED);
    json_decref(body);
}

Test(openai, no_key_is_no_header)
{
    cr_expect_null(protocol_openai.add_headers(NULL, ""));
}

Test(openai, choices_log_probabilities_refusals_and_tool_calls_are_put_together)
{
    static const char *const names[] = {"two_choices", "tool_calls"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_stream(&protocol_openai, "openai", names[i]);
        expect_fixture_answer(&protocol_openai, "openai", names[i]);
    }
}

Test(openai, published_replies_are_answers_and_are_counted)
{
    static const struct {
        const char *name;
        enum operation operation;
        uint64_t input, cached_input, output, reasoning;
    } table[] = {
        {"openai/two_choices.reply.openai.json", OPERATION_CHAT, 1200, 1024, 510, 448},
        {"openai/refusal.reply.openai.json", OPERATION_CHAT, 81, 0, 11, 0},
        {"openai/completions.reply.openai.json", OPERATION_COMPLETIONS, 5, 0, 7, 0},
        {"openai/embeddings.reply.openai.json", OPERATION_EMBEDDINGS, 8, 0, 0, 0},
        {"azure/chat.reply.azure.json", OPERATION_CHAT, 8, 0, 5, 0},
        {"responses/reasoning.reply.responses.json", OPERATION_RESPONSES, 81, 64, 1035, 832},
        {"responses/incomplete.reply.responses.json", OPERATION_RESPONSES, 20, 0, 64, 64},
        {"compatible/vllm_two_choices.stream.answer.json", OPERATION_CHAT, 12, 8, 6, 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        json_t *answer = fixture_json(table[i].name);
        struct outcome outcome = {.code = ""};
        struct token_counts tokens;
        outcome_from_reply(200, table[i].operation, answer, 0, &outcome);
        cr_expect_eq(outcome.kind, ANSWERED, "%s: %s", table[i].name, outcome.text);
        account_read_usage(answer, table[i].operation, 1000, &tokens);
        cr_expect_eq(tokens.input, table[i].input, "%s", table[i].name);
        cr_expect_eq(tokens.cached_input, table[i].cached_input, "%s", table[i].name);
        cr_expect_eq(tokens.output, table[i].output, "%s", table[i].name);
        cr_expect_eq(tokens.reasoning, table[i].reasoning, "%s", table[i].name);
        cr_expect_eq(tokens.counted, table[i].input + table[i].output, "%s", table[i].name);
        json_decref(answer);
    }
}

Test(openai, a_stream_without_counts_is_estimated_from_all_that_was_written)
{
    static const struct {
        const char *name;
        uint64_t output;
    } table[] = {
        {"compatible/ollama.stream.answer.json", 3}, /* "The capital" */
        {"openai/tool_calls.stream.answer.json", 3}, /* {"a":1} and {} */
        {"compatible/tgi.stream.answer.json", 4},    /* "Deep learning" */
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        json_t *answer = fixture_json(table[i].name);
        struct token_counts tokens;
        account_read_usage(answer, OPERATION_CHAT, 400, &tokens);
        cr_expect_eq(tokens.input, 100, "%s", table[i].name);
        cr_expect_eq(tokens.output, table[i].output, "%s: %" PRIu64, table[i].name, tokens.output);
        cr_expect_eq(tokens.counted, 0);
        json_decref(answer);
    }
}

static void expect_request(const char *body, const char *prefix_key, const char *wanted)
{
    struct bytes out = {.bytes_max = 65536};
    struct outcome outcome = {.code = ""};
    const struct provider_request request = {.operation = OPERATION_CHAT,
                                             .model = "m",
                                             .body = body,
                                             .body_bytes = strlen(body),
                                             .prefix_key = prefix_key};
    cr_assert_eq(protocol_openai.write_body(&request, &out, &outcome), 0, "%s", outcome.text);
    cr_assert_str_eq(out.data, wanted);
    bytes_finish(&out);
}

Test(openai, a_prefix_is_named_and_the_clients_own_name_stays)
{
    expect_request("{\"a\":1}", "00ff", "{\"a\":1,\"model\":\"m\",\"prompt_cache_key\":\"00ff\"}");
    expect_request("{\"prompt_cache_key\":\"mine\"}", NULL,
                   "{\"prompt_cache_key\":\"mine\",\"model\":\"m\"}");
}
