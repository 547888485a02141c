#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "client/request.h"
#include "proto/wire.pb-c.h"

static char error[REQUEST_ERROR_BYTES];

static struct request *make(struct tiermq_job job)
{
    struct request *request = NULL;
    cr_assert_eq(request_create(&job, "default", &request, error), 0, "%s", error);
    return request;
}

static void assert_body(const struct request *request, const char *operation, const char *model, const char *body)
{
    Wire__ModelRequest *message = wire__model_request__unpack(NULL, blob_bytes(request->payload), blob_data(request->payload));
    cr_assert_not_null(message);
    cr_assert_str_eq(message->operation, operation);
    cr_assert_str_eq(message->model, model);
    cr_assert_eq(message->body.len, strlen(body));
    cr_assert_arr_eq(message->body.data, body, strlen(body));
    wire__model_request__free_unpacked(message, NULL);
}

static struct tiermq_job with_body(const char *body)
{
    return (struct tiermq_job){.body = body, .body_bytes = strlen(body)};
}

Test(request, prompt_becomes_a_chat_with_defaults)
{
    struct request *request = make((struct tiermq_job){.prompt = "hi \"there\"\n"});
    cr_assert_str_eq(request->tier, "standard");
    cr_assert_str_eq(request->route, "auto");
    cr_assert_str_eq(request->pool, "");
    assert_body(request, "chat.completions", "auto", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi \\\"there\\\"\\n\"}]}");
    request_destroy(&request);
}

Test(request, prompt_of_other_operations_takes_their_form)
{
    struct request *request = make((struct tiermq_job){.prompt = "x", .operation = "completions", .max_tokens = 5});
    assert_body(request, "completions", "auto", "{\"prompt\":\"x\",\"max_tokens\":5}");
    cr_assert_eq(request->max_tokens, 5);
    request_destroy(&request);
    request = make((struct tiermq_job){.prompt = "x", .operation = "embeddings", .max_tokens = 5});
    assert_body(request, "embeddings", "auto", "{\"input\":\"x\"}");
    request_destroy(&request);
}

Test(request, body_goes_verbatim_and_names_the_route)
{
    const char *body = "{ \"messages\" : [], \"model\":\"big\",  \"seed\": 9007199254740993, \"max_completion_tokens\": 77}";
    struct request *request = make(with_body(body));
    cr_assert_str_eq(request->route, "big");
    cr_assert_eq(request->max_tokens, 77);
    assert_body(request, "chat.completions", "big", body);
    request_destroy(&request);
}

Test(request, equal_requests_have_equal_keys_and_others_have_not)
{
    struct request *one = make(with_body("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}"));
    struct request *same = make(with_body("{ \"messages\" : [ {\"content\":\"\\u0061\",\"role\":\"user\"} ] , \"stream\": true}"));
    struct request *other = make(with_body("{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}"));
    cr_assert_arr_eq(one->canonical_key, same->canonical_key, CANONICAL_KEY_BYTES);
    cr_assert_arr_neq(one->canonical_key, other->canonical_key, CANONICAL_KEY_BYTES);
    request_destroy(&one);
    request_destroy(&same);
    request_destroy(&other);
}

Test(request, trace_parent_travels_as_bytes)
{
    struct request *request = make((struct tiermq_job){
        .prompt = "x", .trace_parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"});
    cr_assert(request->has_trace_parent);
    cr_assert_eq(request->trace_parent[0], 0x0a);
    cr_assert_eq(request->trace_parent[15], 0x9c);
    cr_assert_eq(request->trace_parent[23], 0x31);
    request_destroy(&request);
}

/* Each mistake is refused, and the words name the field. */
Test(request, mistakes_are_refused_in_words)
{
    char long_name[300];
    memset(long_name, 'a', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    const struct {
        struct tiermq_job job;
        const char *word;
    } cases[] = {
        {{.prompt = NULL}, "prompt"},
        {{.prompt = "bad \xff utf-8"}, "prompt"},
        {{.prompt = "x", .priority = 10}, "priority"},
        {{.prompt = "x", .deadline_ms = -1}, "deadline_ms"},
        {{.prompt = "x", .delay_ms = -1}, "delay_ms"},
        {{.prompt = "x", .operation = "images"}, "operation"},
        {{.prompt = "x", .tier = long_name}, "tier"},
        {{.prompt = "x", .route = long_name}, "route"},
        {{.prompt = "x", .pool = long_name}, "pool"},
        {{.prompt = "x", .idempotency_key = long_name}, "idempotency_key"},
        {{.prompt = "x", .trace_parent = "00-zz"}, "trace_parent"},
        {{.prompt = "x", .trace_parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333G-01"}, "trace_parent"},
        {with_body("{\"a\":"), "body"},
        {with_body("[1]"), "body"},
        {with_body("{\"a\":1,\"a\":2}"), "body"},
        {{.body = "{}", .body_bytes = (size_t)REQUEST_BODY_BYTES_MAX + 1}, "body"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request *request = NULL;
        error[0] = '\0';
        cr_assert_eq(request_create(&cases[i].job, "default", &request, error), -EINVAL, "case %zu", i);
        cr_assert_null(request);
        cr_assert_eq(strncmp(error, cases[i].word, strlen(cases[i].word)), 0, "case %zu: \"%s\"", i, error);
    }
}
