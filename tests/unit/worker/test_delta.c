#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "worker/provider/delta.h"

enum { EVENT_BYTES_MAX = 1024 };

#define HEAD                                                                                       \
    "{\"id\":\"a\",\"created\":1767225600,\"choices\":[{\"index\":2,\"delta\":{\"content\":"
#define TAIL "},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"x1\",\"sent_us\":123}"

static void learn(struct delta *delta, const char *event)
{
    json_t *chunk = json_loads(event, 0, NULL);
    cr_assert_not_null(chunk, "%s", event);
    delta_learn(delta, chunk, event, strlen(event));
    json_decref(chunk);
}

static struct delta learned(const char *event)
{
    struct delta delta = {.text.bytes_max = EVENT_BYTES_MAX};
    learn(&delta, event);
    return delta;
}

static bool reads(struct delta *delta, const char *event)
{
    return delta_read(delta, event, strlen(event));
}

static void expect(const char *form, const char *event, const char *text)
{
    struct delta delta = learned(form);
    cr_assert(reads(&delta, event), "%s", event);
    cr_assert_eq(delta.text.length, strlen(text), "%s", event);
    cr_assert(text[0] == '\0' || memcmp(delta.text.data, text, strlen(text)) == 0, "%s", event);
    delta_finish(&delta);
}

static void expect_none(const char *form, const char *event)
{
    struct delta delta = learned(form);
    cr_assert_not(reads(&delta, event), "%s", event);
    delta_finish(&delta);
}

Test(delta, an_event_that_differs_in_its_text_is_read)
{
    expect(HEAD "\"Hel\"" TAIL, HEAD "\"lo, world\"" TAIL, "lo, world");
    expect(HEAD "\"\\\"Hel\"" TAIL, HEAD "\"\"" TAIL, "");
    expect(HEAD " \"a\"" TAIL, HEAD " \"b\"" TAIL, "b");
}

Test(delta, the_choice_is_that_of_the_form)
{
    struct delta delta = learned(HEAD "\"Hel\"" TAIL);
    cr_assert(reads(&delta, HEAD "\"lo\"" TAIL));
    cr_assert_eq(delta.choice, 2);
    delta_finish(&delta);
}

Test(delta, escapes_and_letters_beyond_ascii_are_read)
{
    expect(HEAD "\"a\"" TAIL, HEAD "\"\\n\\t\\\"\\\\\\/\\b\\f\\r\"" TAIL, "\n\t\"\\/\b\f\r");
    expect(HEAD "\"a\"" TAIL, HEAD "\"gr\xC3\xBC\xC3\x9F \xE4\xBD\xA0 \xF0\x9F\x98\x80\\n\"" TAIL,
           "gr\xC3\xBC\xC3\x9F \xE4\xBD\xA0 \xF0\x9F\x98\x80\n");
}

Test(delta, what_no_json_string_is_is_left_to_the_parser)
{
    static const char *const texts[] = {
        "\"\\u00e4\"",      "\"\\x\"", "\"a\nb\"", "\"\xC3\"", "\"\xC0\x80\"",
        "\"\xED\xA0\x80\"", "\"open",  "\"\\",     "null",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char event[EVENT_BYTES_MAX];
        snprintf(event, sizeof(event), "%s%s%s", HEAD, texts[i], TAIL);
        expect_none(HEAD "\"a\"" TAIL, event);
        snprintf(event, sizeof(event), "%s%s", HEAD, texts[i]);
        expect_none(HEAD "\"a\"" TAIL, event);
    }
}

Test(delta, behind_the_choices_numbers_and_the_obfuscation_may_differ)
{
    expect(HEAD "\"a\"" TAIL,
           HEAD
           "\"b\"},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"\",\"sent_us\":98765}",
           "b");
}

Test(delta, an_event_that_says_more_is_none)
{
    static const char *const tails[] = {
        "},\"finish_reason\":\"stop\"}],\"usage\":null,\"obfuscation\":\"x1\",\"sent_us\":123}",
        "},\"finish_reason\":null}],\"usage\":{},\"obfuscation\":\"x1\",\"sent_us\":123}",
        ("},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"x1\",\"sent_us\":123,"
         "\"error\":{}}"),
        "},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"x1\",\"sent_us\":0}",
        "},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"x1\",\"sent_us\":012}",
        "},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"x\\1\",\"sent_us\":123}",
        "},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"x1\",\"sent_us\":123}}",
        "},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"x1\",\"sent_us\":12",
        ",\"refusal\":\"no\"},\"finish_reason\":null}],\"usage\":null}",
        "",
    };
    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        char event[EVENT_BYTES_MAX];
        snprintf(event, sizeof(event), "%s\"b\"%s", HEAD, tails[i]);
        expect_none(HEAD "\"a\"" TAIL, event);
    }
    expect_none(HEAD "\"a\"" TAIL, "{\"id\":\"b\",\"created\":1767225600,\"choices\":[{\"index\":2,"
                                   "\"delta\":{\"content\":\"a\"" TAIL);
}

Test(delta, only_events_of_plain_text_are_learned)
{
    static const char *const events[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"a\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":null}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[]}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"input\":1}}",
        "{\"content\":\"b\",\"choices\":[{\"index\":0,\"delta\":{\"cont\\u0065nt\":\"a\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\n\"a\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\n\"created\":1}",
        "{\"choices\":[],\"usage\":null}",
        "{}",
    };
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        expect_none(events[i], events[i]);
    }
}

Test(delta, a_form_is_given_up_for_the_next)
{
    struct delta delta = learned(HEAD "\"a\"" TAIL);
    learn(&delta, "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}");
    cr_assert_not(reads(&delta, HEAD "\"b\"" TAIL));
    cr_assert(reads(&delta, "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}]}"));
    cr_assert_eq(delta.choice, 0);
    learn(&delta, "{}");
    cr_assert_not(reads(&delta, "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}]}"));
    delta_finish(&delta);
}

Test(delta, texts_have_a_bound)
{
    struct delta delta = {.text.bytes_max = 200};
    learn(&delta, HEAD "\"a\"" TAIL);
    char event[EVENT_BYTES_MAX];
    snprintf(event, sizeof(event), "%s\"%0200d\"%s", HEAD, 0, TAIL);
    cr_assert(reads(&delta, event));
    snprintf(event, sizeof(event), "%s\"%0201d\"%s", HEAD, 0, TAIL);
    cr_assert_not(reads(&delta, event));
    delta_finish(&delta);
    delta = (struct delta){.text.bytes_max = 20};
    learn(&delta, HEAD "\"a\"" TAIL);
    cr_assert_not(reads(&delta, HEAD "\"a\"" TAIL));
    delta_finish(&delta);
}

Test(delta, names_that_look_like_the_end_of_something_are_left_to_the_parser)
{
    const char *const begin = "{\"choices\":[{\"delta\":{\"content\":\"a\"},\"x]\":null,\"index\":";
    char form[EVENT_BYTES_MAX], event[EVENT_BYTES_MAX];
    (void)snprintf(form, sizeof(form), "%s1}],\"created\":15}", begin);
    (void)snprintf(event, sizeof(event), "%s7}],\"created\":15}", begin);
    expect_none(form, event);
    expect_none("{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"a:1\":1,\"a:2\":2}",
                "{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"a:2\":1,\"a:2\":2}");
}
