#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/attributes.h"
#include "common/choice.h"
#include "common/complexity.h"

static uint8_t features[COMPLEXITY_FEATURES];

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *body = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    cr_assert_not_null(body, "%s: %s", error.text, text);
    return body;
}

static void measure(const char *text)
{
    json_t *body = parse(text);
    complexity_features(body, features);
    json_decref(body);
}

/* One user message. */
static void ask(const char *prompt)
{
    json_t *body = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", prompt);
    cr_assert_not_null(body);
    complexity_features(body, features);
    json_decref(body);
}

static uint8_t of(enum complexity_feature feature, const char *prompt)
{
    ask(prompt);
    return features[feature];
}

static uint32_t needs(const char *text)
{
    json_t *body = parse(text);
    const uint32_t abilities = complexity_abilities(body);
    json_decref(body);
    return abilities;
}

static uint32_t tokens(const char *text)
{
    json_t *body = parse(text);
    const uint32_t count = complexity_tokens(body);
    json_decref(body);
    return count;
}

/* Of a body with this text of so many bytes in the place of %s. */
static uint32_t prefix(const char *format, char filling, int bytes)
{
    char text[2 * COMPLEXITY_PREFIX_BYTES] = "", body[4 * COMPLEXITY_PREFIX_BYTES];
    cr_assert_lt((size_t)bytes, sizeof(text));
    memset(text, filling, (size_t)bytes);
    (void)snprintf(body, sizeof(body), format, text);
    json_t *root = parse(body);
    const uint32_t number = complexity_prefix(root);
    json_decref(root);
    return number;
}

static void check_nothing(void)
{
    for (size_t i = 0; i < COMPLEXITY_FEATURES; i++) {
        cr_assert_eq(features[i], 0, "%s: %u", complexity_feature_name(i), features[i]);
    }
}

/* ---- names and order: part of the wire ---- */

Test(complexity, features_keep_their_names_and_places)
{
    static const char *const names[] = {
        "last_length",  "input_length", "turns",       "long_words", "numbers",  "maths",
        "code",         "steps",        "constraints", "choices",    "question", "extraction",
        "short_answer", "negation",     "relations",   "science",    "law",      "medicine",
        "humanities",   "business",     "computing",   "tools",      "images",   "non_latin",
    };
    cr_assert_eq(COMPLEXITY_FEATURES, ARRAY_LENGTH(names));
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        cr_assert_str_eq(complexity_feature_name(i), names[i]);
    }
    cr_assert_null(complexity_feature_name(COMPLEXITY_FEATURES));
    cr_assert_null(complexity_feature_name(SIZE_MAX));
}

/* ---- features ---- */

Test(complexity, longer_prompts_have_more_length)
{
    const uint8_t little = of(COMPLEXITY_LAST_LENGTH, "Hi");
    const uint8_t more = of(COMPLEXITY_LAST_LENGTH, "Could you tell me where the station is?");
    cr_assert_gt(little, 0);
    cr_assert_gt(more, little);
}

Test(complexity, last_user_message_counts_apart_from_the_whole)
{
    measure("{\"messages\":[{\"role\":\"system\",\"content\":\"Be kind to whom you meet today.\"},"
            "{\"role\":\"user\",\"content\":\"A long question about everything there is\"},"
            "{\"role\":\"assistant\",\"content\":\"A long answer about everything there is\"},"
            "{\"role\":\"user\",\"content\":\"Hi\"}]}");
    const uint8_t last = features[COMPLEXITY_LAST_LENGTH];
    const uint8_t whole = features[COMPLEXITY_INPUT_LENGTH];
    cr_assert_eq(features[COMPLEXITY_TURNS], 85, "3 of 63: 255 * 2 / 6");
    cr_assert_eq(last, of(COMPLEXITY_LAST_LENGTH, "Hi"));
    cr_assert_gt(whole, features[COMPLEXITY_INPUT_LENGTH]);
}

Test(complexity, what_the_model_said_is_no_question)
{
    measure(
        "{\"messages\":[{\"role\":\"assistant\",\"content\":\"Prove the theorem, 1 + 1 = 2?\"},"
        "{\"role\":\"tool\",\"content\":\"court 17\"},{\"role\":\"user\",\"content\":\"ok\"}]}");
    cr_assert_eq(features[COMPLEXITY_MATHS], 0);
    cr_assert_eq(features[COMPLEXITY_NUMBERS], 0);
    cr_assert_eq(features[COMPLEXITY_QUESTION], 0);
    cr_assert_eq(features[COMPLEXITY_LAW], 0);
}

Test(complexity, parts_are_read_as_one_text_is)
{
    uint8_t whole[COMPLEXITY_FEATURES];
    ask("Prove that 17 is prime. ");
    memcpy(whole, features, sizeof(whole));
    measure("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Prove "
            "that \"},"
            "{\"type\":\"text\",\"text\":\"17 is prime. \"}]}]}");
    cr_assert_arr_eq(features, whole, sizeof(whole));
    measure("{\"prompt\":\"Prove that 17 is prime. \"}");
    cr_assert_arr_eq(features, whole, sizeof(whole));
    measure("{\"prompt\":[\"Prove that \",\"17 is prime. \"]}");
    cr_assert_arr_eq(features, whole, sizeof(whole));
}

Test(complexity, list_of_choices_is_no_part_of_the_question)
{
    const uint8_t alone = of(COMPLEXITY_LAST_LENGTH, "Which is a metal?\n");
    const uint8_t with_list =
        of(COMPLEXITY_LAST_LENGTH, "Which is a metal?\nA. Iron\nB. Air\nC. Oil\nD. Ice\n");
    cr_assert_eq(alone, with_list);
    cr_assert_eq(features[COMPLEXITY_CHOICES], 197, "4 of 7: 255 * log2(5) / 3");
    cr_assert_gt(of(COMPLEXITY_CHOICES, "Metal?\n(A) Iron\n(B) Air"), 0);
    cr_assert_gt(of(COMPLEXITY_CHOICES, "Metal?\na) Iron\nb) Air"), 0);
}

Test(complexity, letters_out_of_order_are_no_choices)
{
    cr_assert_eq(of(COMPLEXITY_CHOICES, "B. Smith\nD. Jones\nC. Black"), 0);
    cr_assert_eq(of(COMPLEXITY_CHOICES, "A. Smith"), 0);
    cr_assert_eq(of(COMPLEXITY_CHOICES, "A.\nB.\nC."), 0);
}

Test(complexity, number_is_one_however_it_is_written)
{
    const uint8_t one = of(COMPLEXITY_NUMBERS, "7");
    cr_assert_gt(one, 0);
    cr_assert_eq(of(COMPLEXITY_NUMBERS, "1,000,000.50"), one);
    cr_assert_eq(of(COMPLEXITY_NUMBERS, "42."), one);
    cr_assert_gt(of(COMPLEXITY_NUMBERS, "42. 43"), one);
}

Test(complexity, mathematics_is_seen_in_signs_and_words)
{
    cr_assert_eq(of(COMPLEXITY_MATHS, "Tell me of your day"), 0);
    cr_assert_gt(of(COMPLEXITY_MATHS, "\\frac{a}{b}"), 0);
    cr_assert_gt(of(COMPLEXITY_MATHS, "x = y"), 0);
    cr_assert_gt(of(COMPLEXITY_MATHS, "the eigenvalues of it"), 0);
    cr_assert_gt(of(COMPLEXITY_MATHS, "\u2211 \u2264"), 0);
    cr_assert_eq(of(COMPLEXITY_MATHS, "\u201cquoted\u201d \u2013 so"), 0);
}

Test(complexity, cues_are_found_whatever_their_case)
{
    cr_assert_gt(of(COMPLEXITY_STEPS, "Think STEP BY STEP."), 0);
    cr_assert_eq(of(COMPLEXITY_STEPS, "Mind the step."), 0);
    cr_assert_gt(of(COMPLEXITY_EXTRACTION, "Classify it"), 0);
    cr_assert_gt(of(COMPLEXITY_SHORT_ANSWER, "in one word"), 0);
    cr_assert_eq(of(COMPLEXITY_SHORT_ANSWER, "in one long word"), 0);
    cr_assert_gt(of(COMPLEXITY_NEGATION, "You don't and can't"), 0);
    cr_assert_gt(of(COMPLEXITY_RELATIONS, "twice as many"), 0);
    cr_assert_gt(of(COMPLEXITY_CONSTRAINTS, "- at least two\n- short"), 0);
    cr_assert_gt(of(COMPLEXITY_CODE, "```c\nint main(void) { return 0; }\n```"), 0);
}

/* Two words do not meet across a sentence or a message. */
Test(complexity, phrase_ends_with_its_sentence)
{
    cr_assert_eq(of(COMPLEXITY_SHORT_ANSWER, "Choose one. Word it well"), 0);
    measure("{\"messages\":[{\"role\":\"user\",\"content\":\"one\"},"
            "{\"role\":\"user\",\"content\":\"word\"}]}");
    cr_assert_eq(features[COMPLEXITY_SHORT_ANSWER], 0);
}

Test(complexity, subjects_are_told_by_their_words)
{
    ask("The plaintiff's lawyers object: is the testimony hearsay?");
    cr_assert_gt(features[COMPLEXITY_LAW], 100);
    cr_assert_eq(features[COMPLEXITY_MEDICINE], 0);
    cr_assert_gt(of(COMPLEXITY_MEDICINE, "A patient with acute renal disease"), 100);
    cr_assert_gt(of(COMPLEXITY_SCIENCE, "The velocity of an electron in the field"), 50);
    cr_assert_gt(of(COMPLEXITY_COMPUTING, "Why does my mutex deadlock?"), 50);
    cr_assert_gt(of(COMPLEXITY_BUSINESS, "What does a tariff do to prices?"), 50);
    cr_assert_gt(of(COMPLEXITY_HUMANITIES, "What did Kant say of virtue?"), 50);
}

Test(complexity, question_is_a_mark_or_a_word)
{
    cr_assert_eq(of(COMPLEXITY_QUESTION, "Is it so?"), 255);
    cr_assert_eq(of(COMPLEXITY_QUESTION, "tell me who it was"), 128);
    cr_assert_eq(of(COMPLEXITY_QUESTION, "Translate it"), 0);
}

Test(complexity, other_scripts_are_seen)
{
    cr_assert_eq(of(COMPLEXITY_NON_LATIN, "Stra\u00dfe na\u00efve"), 0);
    cr_assert_eq(of(COMPLEXITY_NON_LATIN, "\u043f\u0440\u0438\u0432\u0435\u0442"), 255);
    cr_assert_eq(of(COMPLEXITY_NON_LATIN, "\u4f60\u597d ab"), 127);
    cr_assert_eq(of(COMPLEXITY_NON_LATIN, "\U0001f600 \u2013"), 0);
}

Test(complexity, what_stands_beside_the_text_counts)
{
    measure("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hm\"},"
            "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}}]}],"
            "\"tools\":[{\"type\":\"function\"}],\"max_tokens\":3,"
            "\"response_format\":{\"type\":\"json_schema\"}}");
    cr_assert_eq(features[COMPLEXITY_TOOLS], 51, "1 of 31: 255 / 5");
    cr_assert_eq(features[COMPLEXITY_IMAGES], 64, "1 of 15: 255 / 4");
    cr_assert_eq(features[COMPLEXITY_SHORT_ANSWER], 197, "4 of 7");
}

/* ---- foreign bodies ---- */

Test(complexity, what_is_no_request_has_no_features)
{
    static const char *const bodies[] = {
        "null",
        "17",
        "\"text\"",
        "[]",
        "[[[]]]",
        "{}",
        "{\"messages\":null}",
        "{\"messages\":{}}",
        "{\"messages\":\"hi\"}",
        "{\"messages\":[]}",
        "{\"messages\":[null,1,\"a\",[],{}]}",
        "{\"messages\":[{\"role\":7,\"content\":8}]}",
        "{\"messages\":[{\"role\":[],\"content\":{}}]}",
        "{\"messages\":[{\"content\":[null,1,[],{\"text\":1},{\"type\":2}]}]}",
        "{\"prompt\":7}",
        "{\"prompt\":[1,2,3]}",
        "{\"prompt\":[[1],[2]]}",
        "{\"prompt\":\"\"}",
        "{\"prompt\":{\"id\":\"pmpt_1\",\"variables\":{\"city\":\"Rome\"}}}",
        "{\"input\":7,\"instructions\":[],\"text\":[],\"include\":{}}",
        "{\"input\":[null,1,\"a\",[],{},{\"type\":7},{\"type\":\"item_reference\",\"id\":\"x\"}]}",
        "{\"input\":[{\"content\":[null,1,[],{\"text\":1}],\"output\":{}}],\"include\":[1]}",
        "{\"tools\":3,\"response_format\":[],\"n\":\"2\",\"logprobs\":\"yes\",\"modalities\":{}}",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(bodies); i++) {
        memset(features, 7, sizeof(features));
        measure(bodies[i]);
        check_nothing();
        cr_assert_eq(needs(bodies[i]) & ~(uint32_t)ABILITY_STORED, 0, "%s", bodies[i]);
    }
    complexity_features(NULL, features);
    check_nothing();
    cr_assert_eq(complexity_abilities(NULL), 0);
    cr_assert_eq(complexity_tokens(NULL), 0);
}

Test(complexity, zero_bytes_and_half_characters_do_no_harm)
{
    measure("{\"prompt\":\"prove\\u0000prove 12\\u0000\"}");
    cr_assert_gt(features[COMPLEXITY_STEPS], of(COMPLEXITY_STEPS, "prove"));
    ask("A");
    ask("(A");
    ask("1.");
    ask("don'");
    ask("\n\n   ");
    ask("\u00e9");
}

/* Texts of any length: only both ends are read. */
static char *ends_with(const char *first, const char *middle, const char *last, size_t bytes)
{
    char *text = malloc(bytes + 1);
    cr_assert_not_null(text);
    memset(text, ' ', bytes);
    memcpy(text, first, strlen(first));
    memcpy(text + bytes / 2, middle, strlen(middle));
    memcpy(text + bytes - strlen(last), last, strlen(last));
    text[bytes] = '\0';
    return text;
}

Test(complexity, both_ends_of_a_long_text_are_read_and_its_middle_is_not)
{
    enum { BYTES = 4 << 20 };
    char *text = ends_with("prove it", "the court", "a patient", BYTES);
    ask(text);
    free(text);
    cr_assert_gt(features[COMPLEXITY_STEPS], 0);
    cr_assert_gt(features[COMPLEXITY_MEDICINE], 0);
    cr_assert_eq(features[COMPLEXITY_LAW], 0);
    cr_assert_eq(features[COMPLEXITY_LAST_LENGTH], 255);
    cr_assert_eq(features[COMPLEXITY_INPUT_LENGTH], 255);
}

Test(complexity, text_that_just_fits_is_read_once)
{
    char *text = ends_with("prove it", "the court", "a patient", 2 * COMPLEXITY_READ_BYTES);
    const uint8_t once = of(COMPLEXITY_STEPS, "prove it");
    ask(text);
    free(text);
    cr_assert_eq(features[COMPLEXITY_STEPS], once);
    cr_assert_gt(features[COMPLEXITY_LAW], 0);
}

static json_t *many_messages(size_t length)
{
    json_t *messages = json_array();
    for (size_t i = 0; i < length; i++) {
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "user", "content", "1"));
    }
    return json_pack("{s:o}", "messages", messages);
}

Test(complexity, of_very_many_messages_both_ends_are_read)
{
    json_t *body = many_messages(50000);
    json_t *messages = json_object_get(body, "messages");
    json_array_set_new(messages, 25000, json_pack("{s:s}", "content", "the court"));
    json_array_set_new(messages, 49999, json_pack("{s:s}", "content", "a patient"));
    complexity_features(body, features);
    json_decref(body);
    cr_assert_eq(features[COMPLEXITY_TURNS], 255);
    cr_assert_eq(features[COMPLEXITY_LAW], 0);
    cr_assert_gt(features[COMPLEXITY_MEDICINE], 0);
}

Test(complexity, every_message_is_met_once_where_all_fit)
{
    json_t *body = many_messages(2 * COMPLEXITY_MESSAGES_MAX);
    complexity_features(body, features);
    const uint8_t all = features[COMPLEXITY_INPUT_LENGTH];
    json_decref(body);
    body = many_messages(2 * COMPLEXITY_MESSAGES_MAX + 1);
    complexity_features(body, features);
    json_decref(body);
    cr_assert_eq(features[COMPLEXITY_INPUT_LENGTH], all);
}

/* ---- score ---- */

Test(complexity, score_is_the_logistic_of_the_weighted_sum)
{
    struct complexity_weights weights = {.bias = -1};
    memset(features, 0, sizeof(features));
    cr_assert_float_eq(complexity_score(features, &weights), 1 / (1 + exp(1)), 1e-12);
    weights.weights[COMPLEXITY_MATHS] = 3;
    features[COMPLEXITY_MATHS] = 255;
    cr_assert_float_eq(complexity_score(features, &weights), 1 / (1 + exp(-2)), 1e-12);
    weights.weights[COMPLEXITY_MATHS] = 1e300;
    cr_assert_eq(complexity_score(features, &weights), 1);
    weights.weights[COMPLEXITY_MATHS] = -1e300;
    cr_assert_eq(complexity_score(features, &weights), 0);
}

static double score(const char *prompt)
{
    ask(prompt);
    return complexity_score(features, complexity_weights_builtin());
}

Test(complexity, what_is_plainly_harder_scores_more)
{
    const double chat = score("Where is my card?");
    const double sum = score(
        "A train leaves at 9:40 and goes 80 miles an hour; another leaves an hour later and "
        "goes twice as fast. If they are 300 miles apart, how many hours pass before they meet?");
    const double proof =
        score("Prove step by step that the sum of the first n odd integers is n^2, and explain why "
              "the proof does not work for the even integers. Compare at least two proofs.");
    cr_assert_lt(chat, 0.5);
    cr_assert_gt(sum, chat);
    cr_assert_gt(proof, 0.5);
}

/* ---- abilities ---- */

Test(complexity, abilities_are_read_from_the_body)
{
    cr_assert_eq(
        needs("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"n\":1,"
              "\"logprobs\":false,\"tools\":[],\"response_format\":{\"type\":\"text\"}}"),
        0);
    cr_assert_eq(needs("{\"tools\":[{}]}"), ABILITY_TOOLS);
    cr_assert_eq(needs("{\"functions\":[{}]}"), ABILITY_TOOLS);
    cr_assert_eq(needs("{\"messages\":[{\"role\":\"tool\",\"content\":\"7\"}]}"), ABILITY_TOOLS);
    cr_assert_eq(needs("{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}"),
                 ABILITY_TOOLS);
    cr_assert_eq(needs("{\"messages\":[{\"content\":[{\"type\":\"image_url\"}]}]}"),
                 ABILITY_IMAGES);
    cr_assert_eq(needs("{\"messages\":[{\"content\":[{\"type\":\"input_audio\"}]}]}"),
                 ABILITY_AUDIO);
    cr_assert_eq(needs("{\"modalities\":[\"text\",\"audio\"]}"), ABILITY_AUDIO);
    cr_assert_eq(needs("{\"response_format\":{\"type\":\"json_object\"}}"), ABILITY_JSON_MODE);
    cr_assert_eq(needs("{\"response_format\":{\"type\":\"json_schema\"}}"), ABILITY_JSON_SCHEMA);
    cr_assert_eq(needs("{\"logprobs\":true}"), ABILITY_LOGPROBS);
    cr_assert_eq(needs("{\"logprobs\":0}"), ABILITY_LOGPROBS);
    cr_assert_eq(needs("{\"n\":2}"), ABILITY_VARIANTS);
    cr_assert_eq(needs("{\"best_of\":3}"), ABILITY_VARIANTS);
    cr_assert_eq(needs("{\"input\":\"x\",\"previous_response_id\":\"r\"}"), ABILITY_STORED);
    cr_assert_eq(needs("{\"input\":\"x\",\"previous_response_id\":null}"), 0);
    cr_assert_eq(needs("{\"input\":\"x\",\"conversation\":{\"id\":\"c\"}}"), ABILITY_STORED);
    cr_assert_eq(needs("{\"prompt\":{\"id\":\"p\"}}"), ABILITY_STORED);
    cr_assert_eq(needs("{\"prompt\":\"text\"}"), 0);
}

Test(complexity, image_in_the_middle_of_very_many_messages_is_not_overlooked)
{
    json_t *body = many_messages(20000);
    json_array_set_new(json_object_get(body, "messages"), 10000,
                       json_pack("{s:[{s:s}]}", "content", "type", "image_url"));
    cr_assert_eq(complexity_abilities(body), ABILITY_IMAGES);
    json_decref(body);
}

/* ---- tokens ---- */

Test(complexity, tokens_are_counted_by_text_not_by_what_an_image_takes)
{
    cr_assert_eq(tokens("{\"messages\":[{\"content\":\"twelve bytes\"}]}"), 3 + 4);
    cr_assert_eq(tokens("{\"messages\":[{\"content\":\"twelve bytes\"},{\"content\":[]}]}"), 3 + 8);
    cr_assert_eq(tokens("{\"prompt\":\"twelve bytes\"}"), 3 + 4);
    cr_assert_eq(tokens("{\"prompt\":[1,2,3]}"), 3 + 4);
    cr_assert_eq(tokens("{\"prompt\":[[1,2],[3]]}"), 3 + 4);
    cr_assert_eq(tokens("{\"tools\":[{\"name\":\"f\"}]}"), 3, "[{\"name\":\"f\"}]: 14 bytes");
    const uint32_t image =
        tokens("{\"messages\":[{\"content\":[{\"type\":\"image_url\",\"image_url\":"
               "{\"url\":\"data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAAAAA\"}}]}]}");
    cr_assert_eq(image, 765 + 4);
}

Test(complexity, weights_are_set_by_name)
{
    struct complexity_weights weights = *complexity_weights_builtin();
    cr_assert_eq(complexity_weight_set(&weights, "bias=-2.5"), 0);
    cr_assert_eq(complexity_weight_set(&weights, "code=7"), 0);
    cr_assert_float_eq(weights.bias, -2.5, 1e-9);
    cr_assert_float_eq(weights.weights[COMPLEXITY_CODE], 7, 1e-9);
    static const char *const wrong[] = {"",        "code",    "code=",    "code=x",
                                        "code=1 ", "cod=1",   "code=nan", "code=1e9",
                                        "=1",      "codes=1", "bias=inf"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_assert_eq(complexity_weight_set(&weights, wrong[i]), -EINVAL, "%s", wrong[i]);
    }
    cr_assert_float_eq(weights.weights[COMPLEXITY_CODE], 7, 1e-9);
}

/* ---- responses ---- */

static json_t *published(const char *name, const char *dialect)
{
    char path[512];
    json_error_t error;
    (void)snprintf(path, sizeof(path), TIERMQ_FIXTURES "/responses/%s.request.%s.json", name,
                   dialect);
    json_t *body = json_load_file(path, 0, &error);
    cr_assert_not_null(body, "%s: %s", path, error.text);
    return body;
}

/* As the worker writes the one for the other. */
Test(complexity, response_is_read_as_the_chat_that_says_the_same)
{
    static const struct {
        const char *name;
        uint32_t needs;
    } pairs[] = {
        {"text", 0},
        {"turns", 0},
        {"image", ABILITY_IMAGES},
        {"tools", ABILITY_TOOLS},
        {"json_object", ABILITY_JSON_MODE},
        {"json_schema", ABILITY_JSON_SCHEMA | ABILITY_LOGPROBS},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
        uint8_t of_chat[COMPLEXITY_FEATURES];
        json_t *chat = published(pairs[i].name, "openai");
        json_t *response = published(pairs[i].name, "responses");
        cr_assert_eq(complexity_abilities(response), pairs[i].needs, "%s: %x", pairs[i].name,
                     complexity_abilities(response));
        cr_assert_eq(complexity_abilities(chat), pairs[i].needs, "%s: %x", pairs[i].name,
                     complexity_abilities(chat));
        (void)json_object_del(chat,
                              "max_tokens"); /* the older name, which the newer one overrules */
        complexity_features(chat, of_chat);
        complexity_features(response, features);
        features[COMPLEXITY_TURNS] = of_chat[COMPLEXITY_TURNS]; /* calls are items of their own */
        for (size_t k = 0; k < COMPLEXITY_FEATURES; k++) {
            cr_assert_eq(features[k], of_chat[k], "%s: %s %u %u", pairs[i].name,
                         complexity_feature_name(k), features[k], of_chat[k]);
        }
        json_decref(chat);
        json_decref(response);
    }
}

Test(complexity, text_alone_is_read_as_one_message)
{
    static const char prompt[] = "Prove that the square root of 2 is irrational.";
    uint8_t of_message[COMPLEXITY_FEATURES];
    ask(prompt);
    memcpy(of_message, features, sizeof(features));
    char body[128];
    (void)snprintf(body, sizeof(body), "{\"input\":\"%s\"}", prompt);
    measure(body);
    cr_assert_arr_eq(features, of_message, COMPLEXITY_FEATURES);
}

Test(complexity, instructions_count_and_what_the_model_and_tools_said_is_no_question)
{
    measure("{\"instructions\":\"Answer within 3 lines.\",\"input\":["
            "{\"type\":\"reasoning\",\"summary\":[],\"content\":[{\"type\":\"reasoning_text\","
            "\"text\":\"court?\"}]},"
            "{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":\"court?\"},"
            "{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\","
            "\"text\":\"ok\"}]},"
            "{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":"
            "\"output_text\",\"text\":\"court?\"}]}],\"max_output_tokens\":1}");
    cr_assert_eq(features[COMPLEXITY_LAW], 0);
    cr_assert_eq(features[COMPLEXITY_QUESTION], 0);
    cr_assert_gt(features[COMPLEXITY_NUMBERS], 0);
    cr_assert_gt(features[COMPLEXITY_SHORT_ANSWER], 0);
    const uint8_t last = features[COMPLEXITY_LAST_LENGTH], turns = features[COMPLEXITY_TURNS];
    cr_assert_eq(last, of(COMPLEXITY_LAST_LENGTH, "ok"));
    cr_assert_eq(turns, 99, "5 of 64 messages: %u", turns);
}

Test(complexity, items_say_what_a_model_must_be_able_to_do)
{
    static const struct {
        const char *item;
        uint32_t needs;
    } items[] = {
        {"{\"role\":\"user\",\"content\":[{\"type\":\"input_image\",\"file_id\":\"f\"}]}",
         ABILITY_IMAGES},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"input_file\",\"file_id\":\"f\"}]}",
         ABILITY_IMAGES},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"input_file\",\"filename\":\"A.PDF\"}]}",
         ABILITY_IMAGES},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"input_file\",\"filename\":\"a.csv\"}]}", 0},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"input_file\","
         "\"file_data\":\"data:text/csv;base64,QQ==\"}]}",
         0},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{}}]}",
         ABILITY_AUDIO},
        {"{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\"}",
         ABILITY_TOOLS},
        {"{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":[{\"type\":"
         "\"input_image\",\"image_url\":\"https://x/y.png\"}]}",
         ABILITY_TOOLS | ABILITY_IMAGES},
        {"{\"type\":\"computer_call_output\",\"call_id\":\"c\",\"output\":{\"type\":"
         "\"computer_screenshot\",\"image_url\":\"data:image/png;base64,QQ==\"}}",
         ABILITY_TOOLS | ABILITY_IMAGES},
        {"{\"type\":\"web_search_call\",\"id\":\"w\",\"status\":\"completed\"}", ABILITY_TOOLS},
        {"{\"type\":\"mcp_list_tools\",\"id\":\"m\",\"tools\":[]}", ABILITY_TOOLS},
        {"{\"type\":\"reasoning\",\"id\":\"r\",\"summary\":[]}", 0},
        {"{\"type\":\"message\",\"role\":\"user\",\"content\":\"hi\"}", 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(items); i++) {
        char body[256];
        (void)snprintf(body, sizeof(body), "{\"input\":[%s]}", items[i].item);
        cr_assert_eq(needs(body), items[i].needs, "%s: %x", body, needs(body));
    }
}

Test(complexity, tokens_of_a_response_are_those_of_its_texts_tools_and_images)
{
    cr_assert_eq(tokens("{\"input\":\"twelve bytes\"}"), 3 + 4);
    cr_assert_eq(tokens("{\"instructions\":\"twelve bytes\",\"input\":\"twelve bytes\"}"), 6 + 8);
    cr_assert_eq(tokens("{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\","
                        "\"image_url\":\"data:image/png;base64,QUJDREVG\"}]}]}"),
                 4 + 765);
}

#define SYSTEM "{\"role\": \"system\", \"content\": \"%s\"}"

Test(complexity, prompts_begin_alike_whatever_follows)
{
    const uint32_t one = prefix("{\"messages\": [" SYSTEM ", {\"role\": \"user\", \"content\": "
                                "\"Why?\"}]}",
                                'a', 5000);
    const uint32_t other = prefix("{\"temperature\": 1, \"messages\": [" SYSTEM
                                  ", {\"role\": \"user\", \"content\": \"How?\"},"
                                  " {\"role\": \"assistant\", \"content\": \"So.\"}]}",
                                  'a', 5000);
    cr_assert_neq(one, 0);
    cr_assert_eq(one, other);
    cr_assert_eq(one, prefix("{\"messages\": [" SYSTEM "]}", 'a', 6000), "what is beyond");
    cr_assert_neq(one, prefix("{\"messages\": [" SYSTEM "]}", 'b', 5000));
    cr_assert_neq(one,
                  prefix("{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]}", 'a', 5000));
}

Test(complexity, beginning_that_no_provider_keeps_has_no_number)
{
    cr_assert_eq(prefix("{\"messages\": [" SYSTEM "]}", 'a', COMPLEXITY_PREFIX_BYTES - 1), 0);
    cr_assert_neq(prefix("{\"messages\": [" SYSTEM "]}", 'a', COMPLEXITY_PREFIX_BYTES), 0);
    cr_assert_eq(complexity_prefix(NULL), 0);
}

Test(complexity, parts_and_responses_begin_as_texts_do)
{
    const uint32_t text = prefix("{\"instructions\": \"%s\", \"input\": \"Why?\"}", 'a', 5000);
    cr_assert_neq(text, 0);
    cr_assert_eq(text, prefix("{\"instructions\": \"%s\", \"input\": \"How?\"}", 'a', 5000));
    cr_assert_eq(text, prefix("{\"messages\": [" SYSTEM "]}", 'a', 5000));
    cr_assert_eq(text, prefix("{\"messages\": [{\"role\": \"system\", \"content\": "
                              "[{\"type\": \"text\", \"text\": \"%s\"}]}]}",
                              'a', 5000));
}

#define TOOL(name)                                                                                 \
    "{\"type\": \"function\", \"function\": {\"name\": \"" name "\", \"description\": \"%1$s\"}}"
#define QUESTION(text) "\"messages\": [{\"role\": \"user\", \"content\": \"" text "\"}]}"

Test(complexity, tools_begin_a_prompt_in_any_order)
{
    const uint32_t one =
        prefix("{\"tools\": [" TOOL("x") ", " TOOL("y") "], " QUESTION("Why?"), 'a', 3000);
    cr_assert_neq(one, 0);
    cr_assert_eq(
        one, prefix("{\"tools\": [" TOOL("y") ", " TOOL("x") "], " QUESTION("Why?"), 'a', 3000));
    cr_assert_neq(
        one, prefix("{\"tools\": [" TOOL("x") ", " TOOL("z") "], " QUESTION("Why?"), 'a', 3000));
}
