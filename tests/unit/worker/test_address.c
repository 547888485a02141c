#include <criterion/criterion.h>
#include <errno.h>

#include "worker/provider/address.h"

static void expect_path(const char *path, const char *model, const char *wanted)
{
    struct bytes out = {.bytes_max = 200};
    cr_assert_eq(address_append_path(&out, path, model), 0);
    cr_expect_str_eq(out.data, wanted);
    bytes_finish(&out);
}

Test(address, the_model_stands_where_its_name_does)
{
    expect_path("/chat/completions", "m", "/chat/completions");
    expect_path("/d/{model}/chat", "gpt-4.1_mini~1", "/d/gpt-4.1_mini~1/chat");
    expect_path("/{model}{model}?m={model}", "a", "/aa?m=a");
    expect_path("/{model", "a", "/{model");
    expect_path("", "a", "");
}

Test(address, a_model_does_not_lead_out_of_its_place)
{
    expect_path("/d/{model}/chat", "../x?y=z#&%", "/d/..%2Fx%3Fy%3Dz%23%26%25/chat");
    expect_path("/{model}", "org/m o\r\n", "/org%2Fm%20o%0D%0A");
    expect_path("/{model}", "é", "/%C3%A9");
    expect_path("/{model}", "{model}", "/%7Bmodel%7D");
}

Test(address, a_long_one_is_refused)
{
    struct bytes out = {.bytes_max = 8};
    cr_expect_eq(address_append_path(&out, "/{model}", "/////"), -EMSGSIZE);
    bytes_finish(&out);
}
