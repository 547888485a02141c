#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/provider/assembly.h"

static int add(struct assembly *assembly, const char *text)
{
    json_t *chunk = json_loads(text, 0, NULL);
    cr_assert_not_null(chunk, "%s", text);
    int r = assembly_add(assembly, chunk);
    json_decref(chunk);
    return r;
}

static struct assembly *make(enum operation operation, size_t bytes_max)
{
    struct assembly *assembly = NULL;
    cr_assert_eq(assembly_create(operation, bytes_max, &assembly), 0);
    return assembly;
}

static void expect(const struct assembly *assembly, const char *wanted)
{
    json_t *answer = NULL;
    json_t *expected = json_loads(wanted, 0, NULL);
    cr_assert_not_null(expected);
    cr_assert_eq(assembly_answer(assembly, &answer), 0);
    char *text = json_dumps(answer, JSON_COMPACT | JSON_SORT_KEYS);
    cr_assert(json_equal(answer, expected), "%s", text);
    free(text);
    json_decref(answer);
    json_decref(expected);
}

Test(assembly, a_chat_is_put_together_with_its_usage)
{
    struct assembly *assembly = make(OPERATION_CHAT, 1000);
    cr_assert_eq(
        add(assembly,
            "{\"id\":\"a\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{"
            "\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}"),
        0);
    cr_assert_eq(
        add(assembly, "{\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}"),
        0);
    cr_assert_eq(add(assembly, "{\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":{\"content\":"
                               "\"lo\",\"reasoning_content\":\"hm\"}}]}"),
                 0);
    cr_assert_not(assembly_is_complete(assembly));
    cr_assert_eq(
        add(assembly,
            "{\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}"),
        0);
    cr_assert_eq(add(assembly, "{\"id\":\"a\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,"
                               "\"completion_tokens\":2}}"),
                 0);
    cr_assert(assembly_is_complete(assembly));
    expect(
        assembly,
        "{\"id\":\"a\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,"
        "\"finish_reason\":\"stop\",\"message\":{\"role\":\"assistant\",\"content\":\"Hello\","
        "\"reasoning_content\":\"hm\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}");
    assembly_destroy(&assembly);
}

Test(assembly, tool_calls_grow_by_their_index)
{
    struct assembly *assembly = make(OPERATION_CHAT, 1000);
    cr_assert_eq(
        add(assembly,
            "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\","
            "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}"),
        0);
    cr_assert_eq(
        add(assembly,
            "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{"
            "\"arguments\":\"{\\\"a\\\":\"}},{\"index\":1,\"id\":\"c2\",\"type\":\"function\","
            "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}"),
        0);
    cr_assert_eq(
        add(assembly, "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,"
                      "\"function\":{\"arguments\":\"1}\"}}]},\"finish_reason\":\"tool_calls\"}]}"),
        0);
    expect(assembly, "{\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"finish_reason\":"
                     "\"tool_calls\",\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_"
                     "calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                     "\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"c2\",\"type\":\"function\","
                     "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}");
    assembly_destroy(&assembly);
}

Test(assembly, several_choices_and_plain_completions)
{
    struct assembly *assembly = make(OPERATION_COMPLETIONS, 1000);
    cr_assert_eq(add(assembly, "{\"object\":\"text_completion\",\"choices\":[{\"index\":1,\"text\":"
                               "\"b\",\"finish_reason\":\"stop\"},{\"index\":0,\"text\":\"a\"}]}"),
                 0);
    cr_assert_not(assembly_is_complete(assembly));
    cr_assert_eq(
        add(assembly, "{\"choices\":[{\"index\":0,\"text\":\"aa\",\"finish_reason\":\"length\"}]}"),
        0);
    cr_assert(assembly_is_complete(assembly));
    expect(assembly,
           "{\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\"aaa\",\"finish_"
           "reason\":\"length\"},{\"index\":1,\"text\":\"b\",\"finish_reason\":\"stop\"}]}");
    assembly_destroy(&assembly);
}

Test(assembly, foreign_chunks_are_bounded)
{
    struct assembly *assembly = make(OPERATION_CHAT, 10);
    cr_assert_eq(add(assembly, "[]"), -EBADMSG);
    cr_assert_eq(add(assembly, "{\"choices\":{}}"), -EBADMSG);
    cr_assert_eq(add(assembly, "{\"choices\":[7]}"), -EBADMSG);
    cr_assert_eq(add(assembly, "{\"choices\":[{\"index\":-1}]}"), -EBADMSG);
    cr_assert_eq(add(assembly, "{\"choices\":[{\"index\":1000000000}]}"), -EMSGSIZE);
    cr_assert_eq(
        add(assembly, "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":4000000000}]}}]}"),
        -EMSGSIZE);
    cr_assert_eq(add(assembly, "{\"choices\":[{\"delta\":{\"content\":\"0123456789\"}}]}"), 0);
    cr_assert_eq(add(assembly, "{\"choices\":[{\"delta\":{\"content\":\"0\"}}]}"), -EMSGSIZE);
    assembly_destroy(&assembly);
}

Test(assembly, a_whole_answer_becomes_one_chunk_and_back)
{
    static const char whole[] =
        "{\"id\":\"a\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,"
        "\"finish_reason\":\"tool_calls\",\"message\":{\"role\":\"assistant\",\"content\":\"x\","
        "\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":\"{}\"}}]}}]}";
    struct assembly *assembly = make(OPERATION_CHAT, 1000);
    json_t *answer = json_loads(whole, 0, NULL);
    json_t *chunk = NULL;
    cr_assert_eq(assembly_chunk_of(answer, OPERATION_CHAT, &chunk), 0);
    cr_assert_eq(assembly_add(assembly, chunk), 0);
    json_decref(chunk);
    json_decref(answer);
    json_t *again = NULL;
    cr_assert(assembly_is_complete(assembly));
    cr_assert_eq(assembly_answer(assembly, &again), 0);
    cr_assert_str_eq(
        json_string_value(json_object_get(
            json_object_get(json_array_get(json_object_get(again, "choices"), 0), "message"),
            "content")),
        "x");
    json_decref(again);
    assembly_destroy(&assembly);
}

static bool has_token(const char *text)
{
    json_t *chunk = json_loads(text, 0, NULL);
    cr_assert_not_null(chunk, "%s", text);
    const bool has = assembly_chunk_has_token(chunk);
    json_decref(chunk);
    return has;
}

Test(assembly, only_what_a_reader_waits_for_is_a_token)
{
    cr_assert_not(has_token(
        "{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}"));
    cr_assert_not(has_token("{\"choices\":[{\"index\":0,\"delta\":{\"content\":null}}]}"));
    cr_assert_not(has_token("{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}"));
    cr_assert_not(has_token("{\"choices\":\"none\"}"));
    cr_assert(has_token("{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}"));
    cr_assert(has_token("{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}"));
    cr_assert(has_token("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}"));
    cr_assert(has_token("{\"choices\":[{\"text\":\"a\"}]}"));
    cr_assert_not(has_token("{\"type\":\"response.created\",\"response\":{}}"));
    cr_assert(has_token("{\"type\":\"response.output_text.delta\",\"delta\":\"a\"}"));
    cr_assert(has_token("{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}"));
}
