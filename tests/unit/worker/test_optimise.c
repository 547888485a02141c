#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/worker/dice.h"
#include "worker/prompt/history.h"
#include "worker/prompt/json_exact.h"
#include "worker/prompt/messages.h"
#include "worker/prompt/optimise.h"
#include "worker/prompt/passages.h"
#include "worker/prompt/prefix.h"
#include "worker/prompt/repeats.h"

enum { BODY_BYTES_MAX = 1 << 20 };

static json_t *read_json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", text);
    return value;
}

static const char *content_at(const json_t *messages, size_t index)
{
    return json_string_value(json_object_get(json_array_get(messages, index), "content"));
}

/* ---- history ---- */

static json_t *turns(size_t length)
{
    json_t *messages = read_json("[{\"role\":\"system\",\"content\":\"Be kind.\"}]");
    for (size_t i = 0; i < length; i++) {
        char text[64];
        (void)snprintf(text, sizeof(text), "question %zu of the user", i);
        (void)json_array_append_new(messages,
                                    json_pack("{s:s, s:s}", "role", "user", "content", text));
        (void)json_array_append_new(messages,
                                    json_pack("{s:s, s:n, s:[{s:s, s:{s:s, s:s}}]}", "role",
                                              "assistant", "content", "tool_calls", "id", "c",
                                              "function", "name", "f", "arguments", "{}"));
        (void)json_array_append_new(messages, json_pack("{s:s, s:s, s:s}", "role", "tool",
                                                        "tool_call_id", "c", "content", "found"));
        (void)json_array_append_new(messages,
                                    json_pack("{s:s, s:s}", "role", "assistant", "content", "so"));
    }
    return messages;
}

Test(history, oldest_turns_go_whole_and_the_system_stays)
{
    json_t *messages = turns(12);
    uint64_t saved = 0;
    cr_assert_eq(history_trim(messages, 200, NULL, &saved), 0);
    const size_t length = json_array_size(messages);
    cr_assert_gt(saved, 0);
    cr_assert_lt(length, 1 + 12 * 4);
    cr_assert_eq((length - 1) % 4, 0, "turns are whole");
    cr_assert(message_is_system(json_array_get(messages, 0)));
    cr_assert(message_is(json_array_get(messages, 1), "user"));
    cr_assert_str_eq(content_at(messages, length - 4), "question 11 of the user");
    cr_assert_eq((12 - (length - 1) / 4) % HISTORY_TURNS_STEP, 0, "in steps");
    const size_t before = length;
    cr_assert_eq(history_trim(messages, 200, NULL, &saved), 0);
    cr_assert_eq(saved, 0);
    cr_assert_eq(json_array_size(messages), before);
    json_decref(messages);
}

Test(history, latest_turns_stay_whatever_the_budget)
{
    json_t *messages = turns(5);
    uint64_t saved = 0;
    cr_assert_eq(history_trim(messages, 1, NULL, &saved), 0);
    cr_assert_eq(json_array_size(messages), 1 + HISTORY_TURNS_KEPT * 4);
    json_decref(messages);
}

Test(history, what_fits_is_untouched)
{
    json_t *messages = turns(5);
    json_t *copy = json_deep_copy(messages);
    uint64_t saved = 1;
    cr_assert_eq(history_trim(messages, 1000000, NULL, &saved), 0);
    cr_assert_eq(saved, 0);
    cr_assert(json_equal(messages, copy));
    json_decref(messages);
    json_decref(copy);
}

/* ---- passages ---- */

static const char retrieved[] =
    "[{\"role\":\"user\",\"content\":\"<document id=\\\"1\\\">\\nThe moon is made of rock and "
    "dust, mostly.\\n</document>\\n"
    "<document id=\\\"2\\\">\\nPenguins  live in the south; they `swim  well`.\\n</document>\\n"
    "<document>The stock of the shop was sold.</document>\\nWhere do penguins live?\"}]";

Test(passages, those_that_share_least_with_the_question_go)
{
    json_t *messages = read_json(retrieved);
    uint64_t saved = 0;
    cr_assert_eq(passages_trim(messages, 25, NULL, &saved), 0);
    cr_assert_gt(saved, 0);
    cr_assert_str_eq(content_at(messages, 0),
                     "\n<document id=\"2\">\nPenguins  live in the south; they `swim  well`.\n"
                     "</document>\n\nWhere do penguins live?");
    cr_assert_eq(passages_trim(messages, 25, NULL, &saved), 0);
    cr_assert_eq(saved, 0);
    json_decref(messages);
}

Test(passages, without_words_in_common_all_stay)
{
    static const char *const kept[] = {
        "[{\"role\":\"user\",\"content\":\"<document>aa</document><passage>cc</passage> ee?\"}]",
        "[{\"role\":\"user\",\"content\":\"<document>aaaa bbbb aaaa?\"}]",
        "[{\"role\":\"user\",\"content\":\"<documents>aaaa</documents> aaaa\"}]",
        "[]",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(kept); i++) {
        json_t *messages = read_json(kept[i]);
        json_t *copy = json_deep_copy(messages);
        uint64_t saved = 0;
        cr_assert_eq(passages_trim(messages, 1, NULL, &saved), 0);
        cr_assert_eq(saved, 0);
        cr_assert(json_equal(messages, copy));
        json_decref(messages);
        json_decref(copy);
    }
}

/* With so many tokens of passages at most. */
static json_t *trimmed(const char *text, uint64_t tokens_max)
{
    json_t *messages = read_json(text);
    uint64_t saved = 0;
    cr_assert_eq(passages_trim(messages, tokens_max, NULL, &saved), 0);
    return messages;
}

Test(passages, a_part_that_is_left_empty_goes)
{
    json_t *messages =
        trimmed("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"<source>nothing "
                "of it here</source>\"},"
                "{\"type\":\"text\",\"text\":\"<source>whales are mammals</source>\"},"
                "{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}},{\"type\":\"text\","
                "\"text\":\"Are whales mammals?\"}]}]",
                10);
    cr_assert_eq(json_array_size(json_object_get(json_array_get(messages, 0), "content")), 3);
    json_decref(messages);
}

Test(passages, a_message_of_nothing_else_keeps_one)
{
    json_t *messages =
        trimmed("[{\"role\":\"user\",\"content\":\" <source>nothing of it</source>\\n<source>what "
                "mammals are</source>\"},"
                "{\"role\":\"user\",\"content\":\"<source>whales are mammals</source> Are whales "
                "mammals?\"}]",
                8);
    cr_assert_str_eq(content_at(messages, 0), " \n<source>what mammals are</source>");
    json_decref(messages);
}

Test(passages, a_message_of_something_else_may_lose_all)
{
    json_t *messages =
        trimmed("[{\"role\":\"user\",\"content\":\"Before <source>nothing of it</source>\"},"
                "{\"role\":\"user\",\"content\":\"<source>nothing of it</source> behind\"},"
                "{\"role\":\"user\",\"content\":\"<source>whales are mammals</source> Are whales "
                "mammals?\"}]",
                1);
    cr_assert_str_eq(content_at(messages, 0), "Before ");
    cr_assert_str_eq(content_at(messages, 1), " behind");
    json_decref(messages);
}

/* Words that were common are rare when most passages are gone. */
Test(passages, those_that_are_kept_are_kept_again)
{
    char others[1024] = "";
    for (size_t i = 0; i < 8; i++) {
        strcat(others, "<source>whales and mammals of them</source>");
    }
    json_t *messages =
        json_pack("[{s:s, s:s}, {s:s, s:s++}]", "role", "user", "content",
                  "<source>whales and mammals</source>", "role", "user", "content", others,
                  "<source>penguins in the south</source>", "Are whales mammals, or penguins?");
    uint64_t saved = 0;
    cr_assert_eq(passages_trim(messages, 1, NULL, &saved), 0);
    cr_assert_gt(saved, 0);
    cr_assert_str_eq(content_at(messages, 0), "<source>whales and mammals</source>");
    cr_assert_str_eq(content_at(messages, 1),
                     "<source>penguins in the south</source>Are whales mammals, or penguins?");
    cr_assert_eq(passages_trim(messages, 1, NULL, &saved), 0);
    cr_assert_eq(saved, 0);
    json_decref(messages);
}

Test(passages, tags_that_are_spoken_of_hold_none)
{
    static const char *const told[] = {
        "Texts are between <document> and </document>, or <source>…</source>. ",
        "Texts are in `<document>` tags, each closed by `</document>`. ",
        "Texts are in `<document>` tags. ",
        "Texts are in <document> tags. <document>penguins, maybe</document>",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(told); i++) {
        json_t *messages =
            json_pack("[{s:s, s:s++}]", "role", "user", "content", told[i],
                      "<document>nothing of it</document><document>whales are mammals</document>",
                      " Are whales mammals?");
        char *left = NULL;
        uint64_t saved = 0;
        cr_assert_gt(asprintf(&left,
                              "%s<document>whales are mammals</document> Are whales mammals?",
                              told[i]),
                     0);
        cr_assert_eq(passages_trim(messages, 1, NULL, &saved), 0);
        cr_assert_str_eq(content_at(messages, 0), left);
        free(left);
        json_decref(messages);
    }
}

Test(passages, code_between_fences_has_none)
{
    json_t *messages = trimmed(
        "[{\"role\":\"user\",\"content\":\"Whales in this file?\\n```xml\\n<source>nothing of "
        "it</source>\\n<source>more</source>\\n```\\n<source>all whales</source><source>no "
        "fish</source>\"}]",
        1);
    cr_assert_str_eq(content_at(messages, 0),
                     "Whales in this file?\n```xml\n<source>nothing of it</source>\n"
                     "<source>more</source>\n```\n<source>all whales</source>");
    json_decref(messages);
}

Test(passages, fences_of_every_kind_have_none)
{
    static const char *const fences[][2] = {{"~~~", "~~~"},
                                            {"  ```", "```"},
                                            {"````\n```", "````"},
                                            {"~~~\n```", "~~~"},
                                            {"```\n~~~", "````"}};
    for (size_t i = 0; i < ARRAY_LENGTH(fences); i++) {
        char text[512];
        char left[512];
        (void)snprintf(text, sizeof(text),
                       "Whales?\n%s\n<source>nothing</source>\n<source>more</source>\n%s\n"
                       "<source>all whales</source><source>no fish</source>",
                       fences[i][0], fences[i][1]);
        (void)snprintf(left, sizeof(left), "%.*s", (int)(strstr(text, "<source>no fish") - text),
                       text);
        json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", text);
        uint64_t saved = 0;
        cr_assert_eq(passages_trim(messages, 1, NULL, &saved), 0);
        cr_assert_str_eq(content_at(messages, 0), left);
        json_decref(messages);
    }
}

/* ---- repeats ---- */

static char *long_paragraph(const char *end)
{
    char *text = NULL;
    cr_assert_gt(asprintf(&text, "%s%s%s%s%s%s",
                          "The committee met in the town hall on a cold morning, ",
                          "and those who had come early found the doors shut and nobody there. ",
                          "After a while the keeper came with his keys and let them in, ",
                          "and they sat down to talk about the bridge, the river and the road. ",
                          "Nothing was decided, as so often, but all agreed to meet again. ", end),
                 0);
    return text;
}

Test(repeats, a_paragraph_that_stood_before_becomes_a_note)
{
    char *paragraph = long_paragraph("The year was 1907.");
    json_t *messages =
        json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s++}]", "role", "user", "content", paragraph,
                  "role", "assistant", "content", "I see.", "role", "user", "content", paragraph,
                  "\n\n", "Which year was it?");
    uint64_t saved = 0;
    cr_assert_eq(repeats_drop(messages, NULL, &saved), 0);
    cr_assert_gt(saved, 30);
    cr_assert_str_eq(content_at(messages, 0), paragraph);
    cr_assert_str_eq(content_at(messages, 2),
                     "[The same paragraph as above, which begins: The committee met in the town "
                     "hall on a cold \xE2\x80\xA6]"
                     "\n\nWhich year was it?");
    cr_assert_eq(repeats_drop(messages, NULL, &saved), 0);
    cr_assert_eq(saved, 0);
    json_decref(messages);
    free(paragraph);
}

Test(repeats, code_is_never_taken_for_a_repeat)
{
    char *paragraph = long_paragraph("x = {1};");
    json_t *messages =
        json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "role", "user", "content", paragraph,
                  "role", "assistant", "content", "I see.", "role", "user", "content", paragraph);
    json_t *copy = json_deep_copy(messages);
    uint64_t saved = 0;
    cr_assert_eq(repeats_drop(messages, NULL, &saved), 0);
    cr_assert_eq(saved, 0);
    cr_assert(json_equal(messages, copy));
    json_decref(messages);
    json_decref(copy);
    free(paragraph);
}

Test(repeats, a_message_sent_again_is_sent_once)
{
    json_t *messages = read_json(
        "[{\"role\":\"system\",\"content\":\"Be kind.\"},{\"role\":\"user\",\"content\":\"Hi\"},"
        "{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"system\",\"content\":\"Be kind.\"},"
        "{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"a\"}]");
    uint64_t saved = 0;
    cr_assert_eq(repeats_drop(messages, NULL, &saved), 0);
    cr_assert_eq(json_array_size(messages), 4);
    cr_assert_gt(saved, 0);
    json_decref(messages);
}

Test(repeats, what_holds_latest_is_said_latest)
{
    static const char text[] =
        "[{\"role\":\"system\",\"content\":\"In English.\"},{\"role\":\"user\",\"content\":\"Hi\"},"
        "{\"role\":\"system\",\"content\":\"In German.\"},{\"role\":\"user\",\"content\":\"Ho\"},"
        "{\"role\":\"system\",\"content\":\"In English.\"}]";
    json_t *messages = read_json(text);
    json_t *copy = json_deep_copy(messages);
    uint64_t saved = 1;
    cr_assert_eq(repeats_drop(messages, NULL, &saved), 0);
    cr_assert_eq(saved, 0);
    cr_assert(json_equal(messages, copy));
    json_decref(messages);
    json_decref(copy);
}

/* Some providers get the system's messages first, wherever they stood. */
Test(repeats, the_system_refers_to_the_system_alone)
{
    char *paragraph = long_paragraph("The year was 1907.");
    json_t *messages =
        json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}, {s:s, s:s++}]", "role", "user", "content",
                  paragraph, "role", "system", "content", paragraph, "role", "user", "content",
                  paragraph, "role", "developer", "content", "Be kind.", "\n\n", paragraph);
    uint64_t saved = 0;
    cr_assert_eq(repeats_drop(messages, NULL, &saved), 0);
    cr_assert_gt(saved, 0);
    cr_assert_str_eq(content_at(messages, 0), paragraph);
    cr_assert_str_eq(content_at(messages, 1), paragraph);
    cr_assert_neq(content_at(messages, 2)[0], paragraph[0]);
    cr_assert_not_null(strstr(content_at(messages, 3), "[The same paragraph"));
    json_decref(messages);
    free(paragraph);
}

/* ---- prefix ---- */

static json_t *with_tools(const char *first, const char *second, const char *system)
{
    return json_pack("{s:[{s:s, s:{s:s}}, {s:s, s:{s:s}}], s:[{s:s, s:s}, {s:s, s:s}]}", "tools",
                     "type", "function", "function", "name", first, "type", "function", "function",
                     "name", second, "messages", "role", "system", "content", system, "role",
                     "user", "content", "Hi");
}

Test(prefix, is_named_by_tenant_tools_and_system)
{
    char key[PREFIX_KEY_BYTES];
    char other[PREFIX_KEY_BYTES];
    char *system = calloc(1, 12001);
    for (size_t i = 0; i < 12000; i++) {
        system[i] = i % 6 == 5 ? ' ' : (char)('a' + i % 7);
    }
    json_t *body = with_tools("b", "a", system);
    cr_assert(prefix_key(body, "t", NULL, key));
    cr_assert_eq(strlen(key), PREFIX_KEY_BYTES - 1);
    cr_assert(prefix_key(body, "u", NULL, other));
    cr_assert_str_neq(key, other);
    cr_assert(prefix_sort_tools(json_object_get(body, "tools")));
    cr_assert_not(prefix_sort_tools(json_object_get(body, "tools")));
    json_t *sorted = with_tools("a", "b", system);
    cr_assert(json_equal(body, sorted));
    (void)json_object_set_new(body, "prompt_cache_key", json_string("mine"));
    cr_assert_not(prefix_key(body, "t", NULL, key));
    json_decref(body);
    json_decref(sorted);
    body = with_tools("a", "b", "short");
    cr_assert_not(prefix_key(body, "t", NULL, key));
    json_decref(body);
    free(system);
}

Test(json_exact, numbers_with_a_fraction_are_not)
{
    json_t *exact = read_json("{\"a\":[1,{\"b\":\"0.7\"},[]],\"c\":null,\"d\":{}}");
    json_t *inexact = read_json("{\"a\":[1,{\"b\":[0.7]}]}");
    cr_assert(json_is_exact(exact));
    cr_assert_not(json_is_exact(inexact));
    json_decref(exact);
    json_decref(inexact);
}

/* ---- all of it ---- */

static int optimise(const struct optimise_rules *rules, const char *body, struct bytes *out,
                    struct optimised *done)
{
    *done = (struct optimised){.is_changed = false};
    return optimise_chat(rules, "tenant", NULL, body, strlen(body), out, done);
}

Test(optimise, other_members_stay_byte_for_byte)
{
    const struct optimise_rules rules = {.space = true};
    struct bytes out = {.bytes_max = BODY_BYTES_MAX};
    struct optimised done;
    cr_assert_eq(
        optimise(&rules,
                 "{\"temperature\": 0.7, \"messages\":[{\"role\":\"user\",\"content\":\"Tell   me  "
                 "\\n\\n\\n\\n  more\"},"
                 "{\"role\":\"assistant\",\"content\":\"so   it   goes\"}],\"seed\":1234567890123}",
                 &out, &done),
        0);
    cr_assert(done.is_changed);
    cr_assert_gt(done.saved_tokens[LEVER_SPACE], 0);
    cr_assert_str_eq(
        out.data,
        "{\"temperature\": 0.7,\"seed\":1234567890123,\"messages\":[{\"role\":\"user\",\"content\":"
        "\"Tell me\\n\\n  more\"},{\"role\":\"assistant\",\"content\":\"so   it   goes\"}]}");
    bytes_finish(&out);
}

Test(optimise, says_what_the_prompt_was_cut_to)
{
    const struct optimise_rules rules = {
        .space = true, .history_tokens_max = 200, .passages_tokens_max = 100};
    struct bytes out = {.bytes_max = BODY_BYTES_MAX};
    struct optimised done;
    for (size_t length = 2; length <= 12; length += 10) {
        json_t *object = json_pack("{s:o}", "messages", turns(length));
        char *body = json_dumps(object, JSON_COMPACT);
        cr_assert_eq(optimise(&rules, body, &out, &done), 0);
        cr_assert_eq(done.cut.history_tokens, length == 2 ? 0 : 200, "what fits is not cut");
        cr_assert_eq(done.cut.passages_tokens, 0);
        free(body);
        json_decref(object);
    }
    bytes_finish(&out);
}

Test(optimise, what_has_nothing_to_spare_is_not_written_anew)
{
    const struct optimise_rules rules = {
        .space = true, .repeats = true, .prefix = true, .history_tokens_max = 1000};
    struct bytes out = {.bytes_max = BODY_BYTES_MAX};
    struct optimised done;
    cr_assert_eq(
        optimise(&rules, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}", &out, &done),
        0);
    cr_assert_not(done.is_changed);
    cr_assert_str_eq(done.prefix_key, "");
    bytes_finish(&out);
}

Test(optimise, what_is_no_chat_is_refused)
{
    static const char *const bad[] = {"", "{", "[]", "{}", "{\"messages\":1}"};
    const struct optimise_rules rules = {.space = true};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct bytes out = {.bytes_max = BODY_BYTES_MAX};
        struct optimised done;
        cr_assert_eq(optimise(&rules, bad[i], &out, &done), -EINVAL, "%s", bad[i]);
        bytes_finish(&out);
    }
}

Test(optimise, a_body_that_is_too_large_is_refused)
{
    const struct optimise_rules rules = {.space = true};
    struct bytes out = {.bytes_max = BODY_BYTES_MAX};
    struct optimised done;
    char *body = calloc(1, OPTIMISE_BYTES_MAX + 1);
    cr_assert_eq(optimise_chat(&rules, "t", NULL, body, OPTIMISE_BYTES_MAX + 1, &out, &done),
                 -EMSGSIZE);
    free(body);
}

static const char *const pieces[] = {"Hello",
                                     " ",
                                     "   ",
                                     "\n\n",
                                     "\n\n\n\n",
                                     "\"q   q\"",
                                     "`c   c`",
                                     "[1,  2]",
                                     "{\"a\":   \"b\"}",
                                     "<document>",
                                     "</document>",
                                     "<passage>whales   swim</passage>",
                                     "12   34",
                                     "\xC3\xA9",
                                     "\xF0\x9F\x98\x80",
                                     "\t",
                                     "==========",
                                     "The committee met in the town hall on a cold morning, and "
                                     "those who had come early found the doors shut and nobody "
                                     "there, so they went away again and came back the next day, "
                                     "when it was warmer and the doors were open, as they had "
                                     "been told they would be by the keeper of the keys.",
                                     "whales",
                                     "'",
                                     "(",
                                     "\r\n",
                                     "```\n"};

static json_t *random_messages(struct dice *dice)
{
    static const char *const roles[] = {"system", "user", "user", "assistant", "tool", "developer"};
    json_t *messages = json_array();
    for (size_t i = dice_below(dice, 12); i > 0; i--) {
        char text[8192] = "";
        for (size_t j = dice_below(dice, 14); j > 0; j--) {
            (void)strcat(
                text,
                pieces[dice_below(dice, ARRAY_LENGTH(pieces))]); /* NOLINT: bounded by the pieces */
        }
        json_t *message =
            dice_below(dice, 5) == 0
                ? json_pack("{s:s, s:[{s:s, s:s}, {s:s, s:{s:s}}]}", "role", "user", "content",
                            "type", "text", "text", text, "type", "image_url", "image_url", "url",
                            "x   y")
                : json_pack("{s:s, s:s}", "role", roles[dice_below(dice, ARRAY_LENGTH(roles))],
                            "content", text);
        (void)json_array_append_new(messages, message);
    }
    return messages;
}

Test(optimise, twice_is_once)
{
    struct dice dice = {.state = 5};
    for (size_t round = 0; round < 2000; round++) {
        const struct optimise_rules rules = {
            .space = dice_below(&dice, 2) == 0,
            .repeats = dice_below(&dice, 2) == 0,
            .prefix = true,
            .history_tokens_max = dice_below(&dice, 2) * 150,
            .passages_tokens_max = dice_below(&dice, 2) * 5,
        };
        json_t *object =
            json_pack("{s:o, s:f}", "messages", random_messages(&dice), "temperature", 0.5);
        char *body = json_dumps(object, JSON_COMPACT);
        struct bytes out = {.bytes_max = BODY_BYTES_MAX};
        struct bytes again = {.bytes_max = BODY_BYTES_MAX};
        struct optimised done;
        cr_assert_eq(optimise(&rules, body, &out, &done), 0);
        if (done.is_changed) {
            cr_assert_eq(optimise(&rules, out.data, &again, &done), 0);
            cr_assert_not(done.is_changed, "round %zu: %s\nbecomes %s\nand then %s", round, body,
                          out.data, again.data);
        }
        bytes_finish(&out);
        bytes_finish(&again);
        free(body);
        json_decref(object);
    }
}
