/* Servers that speak OpenAI's form, each in its own dialect. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/unit/worker/fixtures.h"

#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED

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

Test(openai, no_key_is_no_header)
{
    cr_expect_null(protocol_openai.add_headers(NULL, ""));
}
