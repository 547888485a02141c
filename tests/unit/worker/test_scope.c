#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "worker/cache/scope.h"

struct found {
    int r;
    uint8_t scope[SCOPE_BYTES];
    char text[64];
};

static struct found find_in(const char *cache_namespace, const char *tenant, const char *route,
                            enum operation operation, const char *body)
{
    struct found found = {.text = ""};
    const char *text = NULL;
    json_t *json = json_loads(body, JSON_ALLOW_NUL, NULL);
    json_t *copy = json_deep_copy(json);
    found.r = scope_of(NULL, tenant, cache_namespace, operation, route, json, found.scope, &text);
    if (found.r == 0) {
        strncpy(found.text, text, sizeof(found.text) - 1);
    }
    cr_assert(json_equal(json, copy), "the body is put back");
    json_decref(copy);
    json_decref(json);
    return found;
}

static struct found find(const char *tenant, const char *route, enum operation operation,
                         const char *body)
{
    return find_in("", tenant, route, operation, body);
}

#define CHAT(system, text, more)                                                                   \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"" system                    \
    "\"},{\"role\":\"user\",\"content\":\"" text "\"}]" more "}"

static bool same(struct found a, struct found b)
{
    cr_assert_eq(a.r, 0);
    cr_assert_eq(b.r, 0);
    return memcmp(a.scope, b.scope, SCOPE_BYTES) == 0;
}

Test(scope, only_the_last_user_text_may_differ)
{
    const struct found first = find("t", "r", OPERATION_CHAT, CHAT("s", "one", ""));
    cr_assert_str_eq(first.text, "one");
    cr_assert(same(first, find("t", "r", OPERATION_CHAT, CHAT("s", "two", ""))));
    cr_assert_not(same(first, find("t", "r", OPERATION_CHAT, CHAT("other", "one", ""))));
    cr_assert_not(same(first, find("u", "r", OPERATION_CHAT, CHAT("s", "one", ""))));
    cr_assert_not(same(first, find_in("n", "t", "r", OPERATION_CHAT, CHAT("s", "one", ""))));
    cr_assert_not(same(first, find("t", "q", OPERATION_CHAT, CHAT("s", "one", ""))));
    cr_assert_not(
        same(first, find("t", "r", OPERATION_CHAT, CHAT("s", "one", ",\"temperature\":0.1"))));
    cr_assert_not(same(first, find("t", "r", OPERATION_CHAT, CHAT("s", "one", ",\"tools\":[{}]"))));
    cr_assert_not(
        same(first, find("t", "r", OPERATION_CHAT,
                         CHAT("s", "one", ",\"response_format\":{\"type\":\"json_object\"}"))));
}

Test(scope, depends_on_the_secret)
{
    struct canonical_secret secret;
    uint8_t plain[SCOPE_BYTES], keyed[SCOPE_BYTES];
    const char *text;
    json_t *body = json_loads(CHAT("s", "one", ""), 0, NULL);
    canonical_secret_of("correct horse", &secret);
    cr_assert_eq(scope_of(NULL, "t", "", OPERATION_CHAT, "r", body, plain, &text), 0);
    cr_assert_eq(scope_of(&secret, "t", "", OPERATION_CHAT, "r", body, keyed, &text), 0);
    cr_assert_arr_neq(plain, keyed, SCOPE_BYTES);
    json_decref(body);
}

Test(scope, requests_without_such_a_text_have_none)
{
    cr_assert_eq(find("t", "r", OPERATION_CHAT, "{\"messages\":[]}").r, -ENOENT);
    cr_assert_eq(find("t", "r", OPERATION_CHAT,
                      "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}")
                     .r,
                 -ENOENT);
    cr_assert_eq(
        find("t", "r", OPERATION_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}").r,
        -ENOENT);
    cr_assert_eq(find("t", "r", OPERATION_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"]}").r, -ENOENT);
    cr_assert_eq(find("t", "r", OPERATION_EMBEDDINGS, "{\"input\":\"a\"}").r, -ENOENT);
    cr_assert_eq(find("t", "r", OPERATION_RESPONSES, "{\"input\":\"a\"}").r, -ENOENT);
    cr_assert_str_eq(find("t", "r", OPERATION_COMPLETIONS, "{\"prompt\":\"a\"}").text, "a");
}

/* Else all texts that are alike up to it would be one. */
Test(scope, text_with_a_nul_has_none)
{
    cr_assert_eq(find("t", "r", OPERATION_CHAT, CHAT("s", "one\\u0000two", "")).r, -ENOENT);
}

Test(scope, questions_in_other_writings_or_languages_are_apart)
{
    const struct found english = find("t", "r", OPERATION_CHAT, CHAT("s", "price", ""));
    const struct found russian = find("t", "r", OPERATION_CHAT, CHAT("s", "\xd1\x86\xd0\xb5\xd0\xbd\xd0\xb0", ""));
    cr_assert_not(same(english, russian));
    cr_assert(same(russian, find("t", "r", OPERATION_CHAT, CHAT("s", "\xd0\xb4\xd0\xb0", ""))));
    const struct found german =
        find("t", "r", OPERATION_CHAT, CHAT("s", "Preis", ",\"metadata\":{\"language\":\"de\"}"));
    cr_assert_not(same(english, german));
    cr_assert_not(same(german, find("t", "r", OPERATION_CHAT, CHAT("s", "a", ",\"metadata\":{\"language\":\"en\"}"))));
    cr_assert(same(german, find("t", "r", OPERATION_CHAT, CHAT("s", "Kosten", ",\"metadata\":{\"language\":\"de\", \"a\":1}"))));
    cr_assert(same(english, find("t", "r", OPERATION_CHAT, CHAT("s", "Preis", ",\"metadata\":{\"a\":\"de\"}"))));
}

Test(scope, temperature_is_read_in_thousandths)
{
    json_t *body = json_loads("{\"temperature\":0.7}", 0, NULL);
    json_t *none = json_object();
    cr_assert_eq(scope_temperature_permille(body), 700);
    cr_assert_eq(scope_temperature_permille(none), 0);
    json_decref(body);
    json_decref(none);
}
