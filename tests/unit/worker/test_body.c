#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/provider/body.h"

static const struct body_member members[] = {
    {"model", "\"new\""}, {"stream", NULL}, {"stream_options", NULL}};

static void expect(const char *body, const char *wanted)
{
    struct bytes out = {.bytes_max = 4096};
    cr_assert_eq(body_rewrite(body, strlen(body), members, ARRAY_LENGTH(members), &out), 0, "%s",
                 body);
    cr_assert_str_eq(out.data, wanted);
    bytes_finish(&out);
}

Test(body, other_members_stay_byte_for_byte)
{
    expect("{ \"model\" : \"old\", \"temperature\":0.7,\n "
           "\"seed\":123456789012345678901234567890,\"x\":{\"model\":[1,\"}\"]} }",
           "{\"temperature\":0.7,\"seed\":123456789012345678901234567890,\"x\":{\"model\":[1,\"}\"]"
           "} ,\"model\":\"new\"}");
}

Test(body, members_are_replaced_wherever_they_stand)
{
    expect("{\"stream\":true,\"a\":\"\\\"model\\\":\",\"model\":\"m\",\"stream_options\":{"
           "\"include_usage\":false}}",
           "{\"a\":\"\\\"model\\\":\",\"model\":\"new\"}");
    expect("{}", "{\"model\":\"new\"}");
}

Test(body, an_escaped_name_does_not_slip_by)
{
    expect("{\"mod\\u0065l\":\"old\"}", "{\"model\":\"new\"}");
}

Test(body, what_is_no_object_is_refused)
{
    static const char *const bad[] = {"",          "[]",        "\"x\"",    "{",
                                      "{\"a\"",    "{\"a\":",   "{\"a\":1", "{\"a\":1,",
                                      "{\"a\" 1}", "{\"a\":\"", "{\"a\":[}"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct bytes out = {.bytes_max = 4096};
        cr_assert_eq(body_rewrite(bad[i], strlen(bad[i]), members, ARRAY_LENGTH(members), &out),
                     -EINVAL, "%s", bad[i]);
        bytes_finish(&out);
    }
}

static const char *const taken = "{\"a\":\"]\", \"b\" : [1, {\"c\":[2]} , \"x,y\"] ,\"\\u0064\":4}";

Test(body, a_member_is_found_by_its_name)
{
    struct body_slice value;
    cr_assert_eq(body_find(taken, strlen(taken), "d", &value), 0);
    cr_expect(value.bytes == 1 && value.data[0] == '4');
    cr_expect_eq(body_find(taken, strlen(taken), "c", &value), -ENOENT);
    cr_expect_eq(body_find("[1]", 3, "a", &value), -ENOENT);
    cr_expect_eq(body_find("", 0, "a", &value), -ENOENT);
}

Test(body, a_list_gives_its_elements_and_a_cut_one_those_that_are_whole)
{
    struct body_slice list;
    struct body_slice elements[3];
    size_t length = 0;
    bool is_whole = false;
    cr_assert_eq(body_find(taken, strlen(taken), "b", &list), 0);
    cr_assert_eq(body_list(&list, elements, 3, &length, &is_whole), 0);
    cr_expect(length == 3 && is_whole);
    cr_expect(memcmp(elements[1].data, "{\"c\":[2]}", 9) == 0);
    cr_expect_eq(body_list(&list, elements, 2, &length, &is_whole), -E2BIG);
    list = (struct body_slice){"[1,\"a", 5};
    cr_assert_eq(body_list(&list, elements, 3, &length, &is_whole), 0);
    cr_expect(length == 1 && !is_whole);
    list = (struct body_slice){"[ ]", 3};
    cr_assert_eq(body_list(&list, elements, 3, &length, &is_whole), 0);
    cr_expect(length == 0 && is_whole);
    list = (struct body_slice){"{}", 2};
    cr_expect_eq(body_list(&list, elements, 3, &length, &is_whole), -EINVAL);
}
