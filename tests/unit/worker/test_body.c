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
