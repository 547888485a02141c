#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include "broker/selector.h"

static const Wire__CacheSelector nothing = WIRE__CACHE_SELECTOR__INIT;

Test(selector, anything_named_restricts_it)
{
    uint8_t key[SELECTOR_KEY_BYTES] = {1};
    Wire__CacheSelector all[12];
    for (size_t i = 0; i < 12; i++) {
        all[i] = nothing;
    }
    all[0].key = all[1].scope = (ProtobufCBinaryData){sizeof(key), key};
    all[2].tenant = all[3].tag = all[4].document = all[5].route = all[6].model = "x";
    all[7].template_version = all[8].text_prefix = all[9].near_text = "x";
    all[10].has_namespace = true;
    all[11].older_than_ms = 1;
    cr_assert_not(selector_is_restricted(&nothing));
    for (size_t i = 0; i < 12; i++) {
        cr_assert(selector_is_restricted(&all[i]), "field %zu", i);
    }
}

static const char *complaint_of(Wire__CacheSelector selector)
{
    static char why[SELECTOR_WHY_BYTES];
    return selector_check(&selector, "why", why) ? "" : why;
}

Test(selector, mistakes_are_named)
{
    uint8_t key[SELECTOR_KEY_BYTES] = {1};
    static char long_text[SELECTOR_TEXT_BYTES_MAX + 2];
    static char long_reason[SELECTOR_REASON_BYTES_MAX + 2];
    memset(long_text, 'a', SELECTOR_TEXT_BYTES_MAX + 1);
    memset(long_reason, 'a', SELECTOR_REASON_BYTES_MAX + 1);
    Wire__CacheSelector selector = nothing;
    cr_assert_str_eq(complaint_of(selector), "");
    selector.key = (ProtobufCBinaryData){sizeof(key) - 1, key};
    cr_assert_str_eq(complaint_of(selector), "key has 15 bytes; write 16 bytes, or none");
    selector = nothing;
    selector.tag = long_text;
    cr_assert_not_null(strstr(complaint_of(selector), "tag is \"aaaa"));
    cr_assert_not_null(strstr(complaint_of(selector), "(8193 bytes); write UTF-8, of 8192 bytes"));
    selector.tag = "\xff";
    cr_assert_not_null(strstr(complaint_of(selector), "tag is \"?\" (1 bytes); write UTF-8"));
    selector = nothing;
    selector.older_than_ms = SELECTOR_AGE_MS_MAX + 1;
    cr_assert_not_null(strstr(complaint_of(selector), "older_than_ms is 1099511627777; write"));
    char why[SELECTOR_WHY_BYTES];
    cr_assert_not(selector_check(&nothing, long_reason, why));
    cr_assert_not_null(strstr(why, "reason is \"aaaa"));
}

Test(selector, nearness_is_a_number_in_its_range_when_a_text_is_named)
{
    const double bad[] = {0.0, 0.09, 1.01, -1.0, INFINITY, NAN};
    Wire__CacheSelector selector = nothing;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        selector.near_text = "";
        selector.near_cosine_min = bad[i];
        cr_assert_str_eq(complaint_of(selector), "");
        selector.near_text = "prices";
        cr_assert_not_null(strstr(complaint_of(selector), "near_cosine_min"), "%g", bad[i]);
    }
    selector.near_cosine_min = SELECTOR_NEAR_PRESET;
    cr_assert_str_eq(complaint_of(selector), "");
}
