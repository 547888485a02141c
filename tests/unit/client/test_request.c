#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "client/request.h"
#include "common/choice.h"
#include "common/complexity.h"
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
    request = make((struct tiermq_job){.prompt = "x", .operation = "responses", .max_tokens = 5});
    assert_body(request, "responses", "auto", "{\"input\":\"x\",\"max_output_tokens\":5}");
    cr_assert_eq(request->max_tokens, 5);
    request_destroy(&request);
}

static struct request *make_operation(const char *operation, const char *body)
{
    return make((struct tiermq_job){.operation = operation, .body = body, .body_bytes = strlen(body)});
}

Test(request, response_is_read_for_what_it_needs_and_an_embedding_is_not)
{
    static const char body[] = "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\",\"image_url\":\"https://x/y.png\"},"
                               "{\"type\":\"input_text\",\"text\":\"Which law?\"}]}],\"tools\":[{\"type\":\"web_search\"}]}";
    struct request *request = make_operation("responses", body);
    cr_assert_eq(request->abilities, ABILITY_IMAGES | ABILITY_TOOLS);
    cr_assert_eq(request->features[COMPLEXITY_QUESTION], 255);
    cr_assert_gt(request->input_tokens, 765);
    request_destroy(&request);
    static const uint8_t nothing[COMPLEXITY_FEATURES];
    static const char input[] = "{\"input\":\"Which law?\"}";
    request = make_operation("embeddings", input);
    cr_assert_arr_eq(request->features, nothing, COMPLEXITY_FEATURES);
    cr_assert_eq(request->input_tokens, (sizeof(input) - 1) / 4 + 1);
    request_destroy(&request);
}

/* Whether the packed request is marked. */
static bool is_marked(const struct request *request)
{
    Wire__ModelRequest *message = wire__model_request__unpack(NULL, blob_bytes(request->payload), blob_data(request->payload));
    cr_assert_not_null(message);
    const bool is_marked = message->batchable;
    wire__model_request__free_unpacked(message, NULL);
    return is_marked;
}

Test(request, a_chat_that_may_have_company_is_joined_with_no_other)
{
    struct request *request = make((struct tiermq_job){.prompt = "x", .batchable = true});
    cr_expect(is_marked(request));
    cr_expect(request->is_distinct);
    request_destroy(&request);
    request = make((struct tiermq_job){.prompt = "x", .operation = "embeddings", .batchable = true});
    cr_expect_not(request->is_distinct);
    request_destroy(&request);
    request = make((struct tiermq_job){.prompt = "x"});
    cr_expect_not(is_marked(request));
    cr_expect_not(request->is_distinct);
    request_destroy(&request);
}

Test(request, what_goes_on_from_an_earlier_response_is_asked_for_itself)
{
    struct request *request = make(with_body("{\"input\":\"x\",\"previous_response_id\":\"resp_1\"}"));
    cr_assert(request->is_distinct);
    cr_assert_eq(request->abilities, ABILITY_STORED);
    request_destroy(&request);
}

Test(request, what_shall_be_stored_at_the_provider_is_asked_for_itself)
{
    struct request *request = make(with_body("{\"input\":\"x\",\"store\":true}"));
    cr_assert(request->is_distinct);
    request_destroy(&request);
    request = make(with_body("{\"input\":\"x\",\"store\":false,\"max_output_tokens\":9}"));
    cr_assert_not(request->is_distinct);
    cr_assert_eq(request->max_tokens, 9);
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

Test(request, cache_control_travels_and_its_absence_costs_nothing)
{
    const char *const tags[] = {"prices", "eu"}, *const documents[] = {"doc-1"};
    struct request *request = make((struct tiermq_job){
        .prompt = "x",
        .cache = {.cache_namespace = "docs", .tags = tags, .tags_length = 2, .documents = documents, .documents_length = 1,
                  .template_version = "v7", .ttl_ms = 60000, .allow_variety = true}});
    Wire__ModelRequest *message = wire__model_request__unpack(NULL, blob_bytes(request->payload), blob_data(request->payload));
    cr_assert_not_null(message->cache);
    cr_assert_eq(message->cache->use, WIRE__CACHE_CONTROL__USE__USE_DEFAULT);
    cr_assert_str_eq(message->cache->cache_namespace, "docs");
    cr_assert_eq(message->cache->n_tags, 2);
    cr_assert_str_eq(message->cache->tags[1], "eu");
    cr_assert_str_eq(message->cache->documents[0], "doc-1");
    cr_assert_str_eq(message->cache->template_version, "v7");
    cr_assert_eq(message->cache->ttl_ms, 60000);
    cr_assert(message->cache->allow_variety);
    cr_assert_not(request->is_distinct);
    wire__model_request__free_unpacked(message, NULL);
    request_destroy(&request);

    request = make((struct tiermq_job){.prompt = "x"});
    message = wire__model_request__unpack(NULL, blob_bytes(request->payload), blob_data(request->payload));
    cr_assert_null(message->cache);
    wire__model_request__free_unpacked(message, NULL);
    request_destroy(&request);
}

Test(request, namespace_is_part_of_the_key)
{
    struct request *none = make((struct tiermq_job){.prompt = "x"});
    struct request *empty = make((struct tiermq_job){.prompt = "x", .cache = {.cache_namespace = ""}});
    struct request *one = make((struct tiermq_job){.prompt = "x", .cache = {.cache_namespace = "one"}});
    struct request *two = make((struct tiermq_job){.prompt = "x", .cache = {.cache_namespace = "two"}});
    cr_assert_arr_eq(none->canonical_key, empty->canonical_key, CANONICAL_KEY_BYTES);
    cr_assert_arr_neq(none->canonical_key, one->canonical_key, CANONICAL_KEY_BYTES);
    cr_assert_arr_neq(one->canonical_key, two->canonical_key, CANONICAL_KEY_BYTES);
    request_destroy(&none);
    request_destroy(&empty);
    request_destroy(&one);
    request_destroy(&two);
}

/* Who does not want what the cache has would get it from an identical job. */
Test(request, other_use_of_the_cache_shares_no_answer)
{
    const enum tiermq_cache_use uses[] = {TIERMQ_USE_OFF, TIERMQ_USE_REFRESH, TIERMQ_USE_EXACT};
    for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++) {
        struct request *request = make((struct tiermq_job){.prompt = "x", .cache = {.use = uses[i]}});
        cr_assert(request->is_distinct);
        request_destroy(&request);
    }
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
    const char *many[65], *const empty[] = {"a", ""}, *const too_long[] = {long_name}, *const bad[] = {"\xff"};
    for (size_t i = 0; i < 65; i++) {
        many[i] = "t";
    }
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
        {{.prompt = "x", .cache = {.use = (enum tiermq_cache_use)4}}, "cache.use"},
        {{.prompt = "x", .cache = {.cache_namespace = long_name}}, "cache.cache_namespace"},
        {{.prompt = "x", .cache = {.cache_namespace = "\xff"}}, "cache.cache_namespace"},
        {{.prompt = "x", .cache = {.template_version = long_name}}, "cache.template_version"},
        {{.prompt = "x", .cache = {.tags = many, .tags_length = 17}}, "cache.tags"},
        {{.prompt = "x", .cache = {.tags = empty, .tags_length = 2}}, "cache.tags"},
        {{.prompt = "x", .cache = {.tags = too_long, .tags_length = 1}}, "cache.tags"},
        {{.prompt = "x", .cache = {.tags = bad, .tags_length = 1}}, "cache.tags"},
        {{.prompt = "x", .cache = {.documents = many, .documents_length = 65}}, "cache.documents"},
        {{.prompt = "x", .cache = {.ttl_ms = -1}}, "cache.ttl_ms"},
        {{.prompt = "x", .cache = {.ttl_ms = REQUEST_TTL_MS_MAX + 1}}, "cache.ttl_ms"},
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
