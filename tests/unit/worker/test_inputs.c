#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/combine/inputs.h"

/* Whether it can be asked with others'; *ret_inputs borrows from `body`. */
static bool read_body(const char *body, struct inputs *ret_inputs)
{
    json_t *root = json_loads(body, 0, NULL);
    const bool is_good = inputs_read(root, body, strlen(body), ret_inputs);
    json_decref(root);
    return is_good;
}

Test(inputs, all_forms_are_known)
{
    static const struct {
        const char *body;
        size_t length;
        bool are_tokens;
    } cases[] = {
        {"{\"input\":\"one\"}", 1, false},
        {"{\"input\":[\"one\"]}", 1, false},
        {"{\"model\":\"m\",\"input\": [ \"one\", \"two]\\\"\" ] ,\"user\":\"u\"}", 2, false},
        {"{\"input\":[1,2,3]}", 1, true},
        {"{\"input\":[[1,2,3],[4]]}", 2, true},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct inputs inputs;
        cr_assert(read_body(cases[i].body, &inputs), "%s", cases[i].body);
        cr_expect_eq(inputs.length, cases[i].length, "%s", cases[i].body);
        cr_expect_eq(inputs.are_tokens, cases[i].are_tokens, "%s", cases[i].body);
        cr_expect_gt(inputs.weight, 0);
    }
}

Test(inputs, what_may_fail_because_of_itself_goes_alone)
{
    static const char *const bodies[] = {
        "{}", "{\"input\":\"\"}", "{\"input\":[]}", "{\"input\":[\"a\",\"\"]}",
        "{\"input\":[\"a\",1]}", "{\"input\":[[1],\"a\"]}", "{\"input\":[[1],[]]}",
        "{\"input\":{\"a\":1}}", "{\"input\":null}", "{\"input\":[1.5]}",
    };
    struct inputs inputs;
    for (size_t i = 0; i < ARRAY_LENGTH(bodies); i++) {
        cr_expect(!read_body(bodies[i], &inputs), "%s", bodies[i]);
    }
}

Test(inputs, a_nul_that_the_json_library_reads_over_is_no_part_of_them)
{
    static const char body[] = "{\"input\":[1\0,2]}";
    static const char answer_body[] = "{\"data\":[{\"index\":0\0,\"embedding\":[1]}]}";
    struct inputs inputs;
    struct inputs_answer answer;
    json_t *root = json_pack("{s:[i,i]}", "input", 1, 2);
    cr_expect(!inputs_read(root, body, sizeof(body) - 1, &inputs));
    cr_expect_eq(inputs_open(answer_body, sizeof(answer_body) - 1, 1, &answer), -EBADMSG);
    json_decref(root);
}

Test(inputs, a_request_has_all_in_their_order_and_the_rest_byte_for_byte)
{
    const char *first = "{\"input\":\"a\\u00e9\",\"dimensions\":8.0,\"model\":\"m\"}";
    const char *second = "{\"input\":[\"b\", \"c\"]}";
    struct inputs parts[2];
    struct bytes out = {.bytes_max = 4096};
    cr_assert(read_body(first, &parts[0]) && read_body(second, &parts[1]));
    cr_assert_eq(inputs_write(first, strlen(first), parts, 2, &out), 0);
    cr_expect_str_eq(out.data,
                     "{\"dimensions\":8.0,\"model\":\"m\",\"input\":[\"a\\u00e9\",\"b\", \"c\"]}");
    bytes_finish(&out);
    struct bytes small = {.bytes_max = 20};
    cr_expect_eq(inputs_write(first, strlen(first), parts, 2, &small), -EMSGSIZE);
    bytes_finish(&small);
}

static const char answer_text[] =
    "{\"object\":\"list\",\"data\":[{\"index\":2,\"embedding\":[0.70]},{\"embedding\":[1e-3],\"index\":0},"
    "{\"index\":1,\"embedding\":\"AAAA\"}],\"model\":\"m\",\"usage\":{\"prompt_tokens\":9,\"total_tokens\":9}}";

Test(inputs, each_request_gets_its_vectors_as_they_were_written)
{
    struct inputs_answer answer;
    const struct token_share share = {.tokens = {.input = 4}};
    struct bytes out = {.bytes_max = 4096};
    cr_assert_eq(inputs_open(answer_text, strlen(answer_text), 3, &answer), 0);
    cr_assert_eq(inputs_take(&answer, 1, 2, &share, &out), 0);
    cr_expect_str_eq(out.data, "{\"object\":\"list\",\"model\":\"m\",\"data\":[{\"embedding\":\"AAAA\",\"index\":0},"
                               "{\"embedding\":[0.70],\"index\":1}],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4}}");
    bytes_finish(&out);
}

Test(inputs, what_is_no_permutation_is_refused)
{
#define V(index) "{\"index\":" index ",\"embedding\":[1]}"
    static const char *const bodies[] = {
        "", "[]", "{}", "{\"data\":{}}", "{\"data\":[]}", "{\"data\":[" V("0") "]}",
        "{\"data\":[" V("0") "," V("0") "]}", "{\"data\":[" V("0") "," V("2") "]}",
        "{\"data\":[" V("0") "," V("-1") "]}", "{\"data\":[" V("0") "," V("\"1\"") "]}",
        "{\"data\":[" V("0") "," V("1") "," V("1") "]}", "{\"data\":[" V("0") "," V("1"),
        "{\"data\":[" V("0") ",{\"index\":1}]}", "{\"data\":[" V("0") ",{\"index\":1,\"embedding\":[]}]}",
        "{\"data\":[" V("0") ",5]}",
    };
    struct inputs_answer answer;
    for (size_t i = 0; i < ARRAY_LENGTH(bodies); i++) {
        cr_expect_eq(inputs_open(bodies[i], strlen(bodies[i]), 2, &answer), -EBADMSG, "%s", bodies[i]);
    }
}

/* Each request gets a copy of it. */
Test(inputs, an_answer_that_says_much_besides_its_vectors_is_refused)
{
    struct inputs_answer answer;
    for (size_t more = 0; more < 2; more++) {
        char *body = NULL;
        char *rest = calloc(1, INPUTS_REST_BYTES_MAX + 1);
        memset(rest, 'x', INPUTS_REST_BYTES_MAX - (more == 0 ? 100 : 0));
        cr_assert_gt(asprintf(&body, "{\"more\":\"%s\",\"data\":[" V("0") "," V("1") "]}", rest), 0);
        cr_expect_eq(inputs_open(body, strlen(body), 2, &answer), more == 0 ? 0 : -EBADMSG);
        free(body);
        free(rest);
    }
}
