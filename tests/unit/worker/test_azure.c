#include <criterion/criterion.h>

#include "tests/unit/worker/fixtures.h"

#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define REFUSED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED

static void expect_path(enum operation operation, const char *model, const char *wanted)
{
    const struct provider_request request = {.operation = operation, .model = model};
    struct bytes out = {.bytes_max = 1000};
    cr_assert_eq(protocol_azure.write_path(&request, &out), 0);
    cr_expect_str_eq(out.data, wanted);
    bytes_finish(&out);
}

Test(azure, the_path_names_the_deployment)
{
    expect_path(OPERATION_CHAT, "gpt-4.1", "/openai/deployments/gpt-4.1/chat/completions");
    expect_path(OPERATION_COMPLETIONS, "a_b", "/openai/deployments/a_b/completions");
    expect_path(OPERATION_EMBEDDINGS, "a/../b", "/openai/deployments/a%2F..%2Fb/embeddings");
}

Test(azure, the_key_has_a_header_of_its_own)
{
    struct curl_slist *headers = protocol_azure.add_headers(NULL, "k");
    cr_assert_not_null(headers);
    cr_expect_str_eq(headers->data, "api-key: k");
    cr_expect_null(headers->next);
    curl_slist_free_all(headers);
    cr_expect_null(protocol_azure.add_headers(NULL, ""));
}

Test(azure, requests_and_replies_are_openais)
{
    const struct provider_request request = {.operation = OPERATION_CHAT, .model = "my-deployment"};
    expect_fixture_request(&protocol_azure, "azure", "chat", &request);
    expect_fixture_reply(&protocol_azure, "azure", "chat");
    expect_fixture_stream(&protocol_azure, "azure", "chat");
    expect_fixture_stream(&protocol_azure, "azure", "asynchronous_filter");
}

Test(azure, what_filters_say_between_does_not_break_an_answer)
{
    expect_fixture_answer(&protocol_azure, "azure", "chat");
    expect_fixture_answer(&protocol_azure, "azure", "asynchronous_filter");
}

Test(azure, errors_have_their_meaning)
{
    static const struct {
        const char *name;
        long status;
        Wire__AttemptOutcome kind;
        const char *code;
        int64_t retry_after_ms;
    } table[] = {
        {"content_filter", 400, REFUSED, "content_refused", 0},
        {"rate_limit", 429, RATE_LIMITED, "rate_limited", 8000},
        {"gateway_rate_limit", 429, RATE_LIMITED, "rate_limited", 12000},
        {"deployment_not_found", 404, REJECTED, "rejected", 0},
        {"access_denied", 401, UNAVAILABLE, "credentials", 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        const struct outcome outcome =
            fixture_error_outcome("azure", table[i].name, table[i].status);
        cr_expect_eq(outcome.kind, table[i].kind, "%s", table[i].name);
        cr_expect_str_eq(outcome.code, table[i].code, "%s", table[i].name);
        cr_expect_eq(outcome.retry_after_ms, table[i].retry_after_ms, "%s", table[i].name);
    }
}
