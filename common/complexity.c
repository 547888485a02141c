/*
 * Texts lie scattered over messages and their parts. They are walked twice: first for how much
 * there is, since what is read is a beginning and an end of it; then for reading.
 */
#include "common/complexity.h"
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>
#include "common/choice.h"
#include "common/complexity_text.h"

enum {
    LAST_LENGTH_MAX = 64 * 1024,
    INPUT_LENGTH_MAX = 1024 * 1024,
    FEW_TOKENS = 16,      /* an answer no longer than this is a short one */
    DENSITY_WORDS = 6,    /* one word in so many is all that a dense feature can say */
    DENSITY_AT_LEAST = 4, /* words that a text counts to have: one alone in "Hi" says little */
    BYTES_PER_TOKEN = 4,  /* cl100k and o200k: 3.6 (code) to 5.3, of much text 4.3 */
    MESSAGE_TOKENS = 4,   /* OpenAI's cookbook, "How to count tokens": 3 and the role */
    IMAGE_TOKENS = 765,   /* OpenAI's guide to vision: 1024 by 1024, high detail */
};

static const double WEIGHT_MAX = 100; /* as a configuration may have it */

/* ---- the walk ---- */

/* What is done with each. */
struct visitor {
    void (*on_message)(void *context, const char *role); /* NULL: nothing, as the last */
    void (*on_text)(void *context, const char *text, size_t bytes, bool is_asked);
    void (*on_image)(void *context);
    void *context;
};

static bool is_type(const json_t *part, const char *type)
{
    const char *given = json_string_value(json_object_get(part, "type"));
    return given != NULL && strcmp(given, type) == 0;
}

/* A chat's; a response's; what a tool that uses a computer gave back. */
static bool is_image(const json_t *part)
{
    return is_type(part, "image_url") || is_type(part, "input_image") ||
           is_type(part, "computer_screenshot");
}

static void visit_part(const json_t *part, bool is_asked, const struct visitor *visitor)
{
    const json_t *text = json_is_string(part) ? part : json_object_get(part, "text");
    if (json_is_string(text)) {
        visitor->on_text(visitor->context, json_string_value(text), json_string_length(text),
                         is_asked);
    } else if (visitor->on_image != NULL && is_image(part)) {
        visitor->on_image(visitor->context);
    }
}

/* A text, or parts. */
static void visit_content(const json_t *content, bool is_asked, size_t parts_max,
                          const struct visitor *visitor)
{
    if (!json_is_array(content)) {
        visit_part(content, is_asked, visitor);
        return;
    }
    for (size_t i = 0; i < json_array_size(content) && i < parts_max; i++) {
        visit_part(json_array_get(content, i), is_asked, visitor);
    }
}

/* What a model or a tool said is no question. */
static bool is_asking(const char *role)
{
    return strcmp(role, "assistant") != 0 && strcmp(role, "tool") != 0 &&
           strcmp(role, "function") != 0;
}

static void visit_as(const char *role, const json_t *content, size_t parts_max,
                     const struct visitor *visitor)
{
    if (visitor->on_message != NULL) {
        visitor->on_message(visitor->context, role);
    }
    visit_content(content, is_asking(role), parts_max, visitor);
}

static void visit_message(const json_t *message, size_t parts_max, const struct visitor *visitor)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    visit_as(role == NULL ? "user" : role, json_object_get(message, "content"), parts_max, visitor);
}

/*
 * Of a response's input: a message, or what stands between them, which has a type and no role:
 * calls of tools, which the model said as it did what it thought, and what they gave back.
 */
static void visit_item(const json_t *item, size_t parts_max, const struct visitor *visitor)
{
    const json_t *output = json_object_get(item, "output");
    if (json_object_get(item, "role") != NULL || json_object_get(item, "type") == NULL ||
        is_type(item, "message")) {
        visit_message(item, parts_max, visitor);
    } else {
        visit_as(output == NULL ? "assistant" : "tool",
                 output == NULL ? json_object_get(item, "content") : output, parts_max, visitor);
    }
}

typedef void visit_fn(const json_t *message, size_t parts_max, const struct visitor *visitor);

/* Those from each end. */
static void visit_list(const json_t *messages, visit_fn *visit, size_t messages_max,
                       size_t parts_max, const struct visitor *visitor)
{
    const size_t length = json_array_size(messages);
    for (size_t i = 0; i < length; i++) {
        if (i == messages_max && length - i > messages_max) {
            i = length - messages_max;
        }
        visit(json_array_get(messages, i), parts_max, visitor);
    }
}

/* Instructions are one message of the system's; a text or a prompt is one of a user's. */
static void walk(const json_t *body, size_t messages_max, size_t parts_max,
                 const struct visitor *visitor)
{
    const json_t *messages = json_object_get(body, "messages");
    const json_t *instructions = json_object_get(body, "instructions");
    const json_t *input = json_object_get(body, "input");
    const json_t *prompt = json_object_get(body, "prompt");
    if (json_is_array(messages)) {
        visit_list(messages, visit_message, messages_max, parts_max, visitor);
        return;
    }
    if (json_is_string(instructions)) {
        visit_as("system", instructions, parts_max, visitor);
    }
    if (json_is_array(input)) {
        visit_list(input, visit_item, messages_max, parts_max, visitor);
    } else if (input != NULL) {
        visit_as("user", input, parts_max, visitor);
    } else if (prompt != NULL && !json_is_object(prompt)) {
        visit_as("user", prompt, parts_max, visitor);
    }
}

/* ---- reading ---- */

struct reading {
    size_t input_bytes; /* of all texts */
    size_t asked_bytes; /* of those that ask */
    size_t last_at;     /* where the last user message begins, and ends, in what is asked */
    size_t last_end;
    uint32_t images;
    bool is_in_user;
    size_t at; /* in what is asked, while it is read */
    struct complexity_counts counts;
};

static void measure_message(void *context, const char *role)
{
    struct reading *reading = context;
    reading->is_in_user = strcmp(role, "user") == 0;
    if (reading->is_in_user) {
        reading->last_at = reading->asked_bytes;
        reading->last_end = reading->asked_bytes;
    }
}

static void measure_text(void *context, const char *text, size_t bytes, bool is_asked)
{
    struct reading *reading = context;
    (void)text;
    reading->input_bytes += bytes;
    reading->asked_bytes += is_asked ? bytes : 0;
    if (reading->is_in_user) {
        reading->last_end = reading->asked_bytes;
    }
}

static void measure_image(void *context)
{
    ((struct reading *)context)->images++;
}

/* Reads what of the text lies between two places of what is asked. */
static void read_between(struct reading *reading, const char *text, size_t bytes, size_t from,
                         size_t to)
{
    const size_t begin = from > reading->at ? from - reading->at : 0;
    const size_t end = to < reading->at + bytes ? (to > reading->at ? to - reading->at : 0) : bytes;
    if (begin < end) {
        complexity_counts_add(&reading->counts, text + begin, end - begin, reading->at + begin);
    }
}

static void read_text(void *context, const char *text, size_t bytes, bool is_asked)
{
    struct reading *reading = context;
    if (!is_asked) {
        return;
    }
    if (reading->asked_bytes <= 2 * COMPLEXITY_READ_BYTES) {
        read_between(reading, text, bytes, 0, SIZE_MAX);
    } else {
        read_between(reading, text, bytes, 0, COMPLEXITY_READ_BYTES);
        read_between(reading, text, bytes, reading->asked_bytes - COMPLEXITY_READ_BYTES, SIZE_MAX);
    }
    reading->at += bytes;
}

static void read_body(const json_t *body, struct reading *ret_reading)
{
    const struct visitor measuring = {.on_message = measure_message,
                                      .on_text = measure_text,
                                      .on_image = measure_image,
                                      .context = ret_reading};
    const struct visitor reading = {.on_text = read_text, .context = ret_reading};
    *ret_reading = (struct reading){0};
    complexity_counts_init(&ret_reading->counts);
    walk(body, COMPLEXITY_MESSAGES_MAX, COMPLEXITY_PARTS_MAX, &measuring);
    walk(body, COMPLEXITY_MESSAGES_MAX, COMPLEXITY_PARTS_MAX, &reading);
}

/* ---- features ---- */

static const char *const feature_names[COMPLEXITY_FEATURES] = {
    [COMPLEXITY_LAST_LENGTH] = "last_length",
    [COMPLEXITY_INPUT_LENGTH] = "input_length",
    [COMPLEXITY_TURNS] = "turns",
    [COMPLEXITY_LONG_WORDS] = "long_words",
    [COMPLEXITY_NUMBERS] = "numbers",
    [COMPLEXITY_MATHS] = "maths",
    [COMPLEXITY_CODE] = "code",
    [COMPLEXITY_STEPS] = "steps",
    [COMPLEXITY_CONSTRAINTS] = "constraints",
    [COMPLEXITY_CHOICES] = "choices",
    [COMPLEXITY_QUESTION] = "question",
    [COMPLEXITY_EXTRACTION] = "extraction",
    [COMPLEXITY_SHORT_ANSWER] = "short_answer",
    [COMPLEXITY_NEGATION] = "negation",
    [COMPLEXITY_RELATIONS] = "relations",
    [COMPLEXITY_SCIENCE] = "science",
    [COMPLEXITY_LAW] = "law",
    [COMPLEXITY_MEDICINE] = "medicine",
    [COMPLEXITY_HUMANITIES] = "humanities",
    [COMPLEXITY_BUSINESS] = "business",
    [COMPLEXITY_COMPUTING] = "computing",
    [COMPLEXITY_TOOLS] = "tools",
    [COMPLEXITY_IMAGES] = "images",
    [COMPLEXITY_NON_LATIN] = "non_latin",
};

const char *complexity_feature_name(size_t feature)
{
    return feature < COMPLEXITY_FEATURES ? feature_names[feature] : NULL;
}

static uint8_t logarithmic(size_t amount, size_t amount_max)
{
    return amount >= amount_max
               ? 255
               : (uint8_t)lrintf(255 * log2f(1 + (float)amount) / log2f(1 + (float)amount_max));
}

/* `part` of `whole` as 0 to 255, which is the whole of it. */
static uint8_t share(size_t part, size_t whole)
{
    if (part >= whole) {
        return part == 0 ? 0 : 255;
    }
    return (uint8_t)(255 * part / whole);
}

static uint8_t dense(const struct complexity_counts *counts, enum complexity_class class)
{
    return share((size_t)counts->classes[class] * DENSITY_WORDS,
                 (size_t)counts->words + DENSITY_AT_LEAST * DENSITY_WORDS);
}

static size_t last_length(const struct reading *reading)
{
    const size_t choices_at = reading->counts.choices_at;
    const bool has_choices = choices_at > reading->last_at && choices_at < reading->last_end;
    return (has_choices ? choices_at : reading->last_end) - reading->last_at;
}

static size_t tools_of(const json_t *body)
{
    return json_array_size(json_object_get(body, "tools")) +
           json_array_size(json_object_get(body, "functions"));
}

/* A chat's, or a response's. */
static const char *format_of(const json_t *body)
{
    const json_t *format = json_object_get(body, "response_format");
    if (format == NULL) {
        format = json_object_get(json_object_get(body, "text"), "format");
    }
    const char *type = json_string_value(json_object_get(format, "type"));
    return type == NULL ? "" : type;
}

static bool is_few(const json_t *tokens)
{
    return json_is_integer(tokens) && json_integer_value(tokens) > 0 &&
           json_integer_value(tokens) <= FEW_TOKENS;
}

/* Cues outside the text count as two within it. */
static size_t short_answer_cues(const json_t *body)
{
    const bool has_format = strncmp(format_of(body), "json", strlen("json")) == 0;
    const bool has_few = is_few(json_object_get(body, "max_tokens")) ||
                         is_few(json_object_get(body, "max_completion_tokens")) ||
                         is_few(json_object_get(body, "max_output_tokens"));
    return (has_format ? 2 : 0) + (has_few ? 2 : 0);
}

static size_t messages_of(const json_t *body)
{
    const json_t *messages = json_object_get(body, "messages");
    const bool has_instructions = json_is_string(json_object_get(body, "instructions"));
    return json_is_array(messages)
               ? json_array_size(messages)
               : json_array_size(json_object_get(body, "input")) + has_instructions;
}

static uint8_t question_of(const struct complexity_counts *counts)
{
    if (counts->question_marks > 0) {
        return 255;
    }
    return counts->classes[CLASS_QUESTION] > 0 ? 128 : 0;
}

static void fill_layout(const struct complexity_counts *counts, uint8_t *features)
{
    features[COMPLEXITY_LONG_WORDS] = share((size_t)counts->long_words * 2, counts->words);
    features[COMPLEXITY_NUMBERS] = logarithmic(counts->numbers, 63);
    features[COMPLEXITY_MATHS] =
        logarithmic((size_t)counts->operators + counts->classes[CLASS_MATHS], 63);
    features[COMPLEXITY_CODE] = logarithmic(counts->code, 255);
    features[COMPLEXITY_CHOICES] = logarithmic(counts->choices, 7);
    features[COMPLEXITY_QUESTION] = question_of(counts);
    features[COMPLEXITY_NON_LATIN] =
        share(counts->foreign, (size_t)counts->foreign + counts->latin);
}

static void fill_words(const struct complexity_counts *counts, uint8_t *features)
{
    const uint32_t *classes = counts->classes;
    features[COMPLEXITY_STEPS] = logarithmic(classes[CLASS_STEPS], 7);
    features[COMPLEXITY_CONSTRAINTS] =
        logarithmic((size_t)classes[CLASS_CONSTRAINTS] + counts->list_items, 31);
    features[COMPLEXITY_EXTRACTION] = logarithmic(classes[CLASS_EXTRACTION], 7);
    features[COMPLEXITY_NEGATION] = logarithmic(classes[CLASS_NEGATION], 15);
    features[COMPLEXITY_RELATIONS] = logarithmic(classes[CLASS_RELATIONS], 31);
    features[COMPLEXITY_SCIENCE] = dense(counts, CLASS_SCIENCE);
    features[COMPLEXITY_LAW] = dense(counts, CLASS_LAW);
    features[COMPLEXITY_MEDICINE] = dense(counts, CLASS_MEDICINE);
    features[COMPLEXITY_HUMANITIES] = dense(counts, CLASS_HUMANITIES);
    features[COMPLEXITY_BUSINESS] = dense(counts, CLASS_BUSINESS);
    features[COMPLEXITY_COMPUTING] = dense(counts, CLASS_COMPUTING);
}

void complexity_features(const json_t *body, uint8_t ret_features[COMPLEXITY_FEATURES])
{
    struct reading reading;
    const size_t messages = messages_of(body);
    memset(ret_features, 0, COMPLEXITY_FEATURES);
    read_body(body, &reading);
    if (reading.input_bytes == 0 && reading.images == 0) {
        return;
    }
    ret_features[COMPLEXITY_LAST_LENGTH] = logarithmic(last_length(&reading), LAST_LENGTH_MAX);
    ret_features[COMPLEXITY_INPUT_LENGTH] = logarithmic(reading.input_bytes, INPUT_LENGTH_MAX);
    ret_features[COMPLEXITY_TURNS] = logarithmic(messages > 1 ? messages - 1 : 0, 63);
    fill_layout(&reading.counts, ret_features);
    fill_words(&reading.counts, ret_features);
    ret_features[COMPLEXITY_SHORT_ANSWER] =
        logarithmic(reading.counts.classes[CLASS_SHORT_ANSWER] + short_answer_cues(body), 7);
    ret_features[COMPLEXITY_TOOLS] = logarithmic(tools_of(body), 31);
    ret_features[COMPLEXITY_IMAGES] = logarithmic(reading.images, 15);
}

/* ---- score ---- */

static const struct complexity_weights builtin = {
#include "common/complexity_weights.inc"
};

const struct complexity_weights *complexity_weights_builtin(void)
{
    return &builtin;
}

/* The one of this name; NULL: there is none. */
static double *weight_named(struct complexity_weights *weights, const char *name, size_t bytes)
{
    if (bytes == 4 && memcmp(name, "bias", bytes) == 0) {
        return &weights->bias;
    }
    for (size_t i = 0; i < COMPLEXITY_FEATURES; i++) {
        const char *known = complexity_feature_name(i);
        if (strlen(known) == bytes && memcmp(known, name, bytes) == 0) {
            return &weights->weights[i];
        }
    }
    return NULL;
}

int complexity_weight_set(struct complexity_weights *weights, const char *setting)
{
    const char *equals = strchr(setting, '=');
    double *weight =
        equals == NULL ? NULL : weight_named(weights, setting, (size_t)(equals - setting));
    char *end = NULL;
    const double number = equals == NULL ? 0 : strtod(equals + 1, &end);
    if (weight == NULL || end == equals + 1 || *end != '\0' || !(fabs(number) <= WEIGHT_MAX)) {
        return -EINVAL;
    }
    *weight = number;
    return 0;
}

double complexity_score(const uint8_t features[COMPLEXITY_FEATURES],
                        const struct complexity_weights *weights)
{
    double sum = weights->bias;
    for (size_t i = 0; i < COMPLEXITY_FEATURES; i++) {
        sum += weights->weights[i] * features[i] / 255;
    }
    return 1 / (1 + exp(-sum));
}

/* ---- abilities ---- */

static bool is_above(const json_t *number, double least)
{
    return json_is_number(number) && json_number_value(number) > least;
}

static bool begins_with(const json_t *text, const char *beginning)
{
    const char *given = json_string_value(text);
    return given != NULL && strncmp(given, beginning, strlen(beginning)) == 0;
}

/* Pages are looked at. Of a file that is named by its id or address alone nothing else is known. */
static bool is_of_pages(const json_t *file)
{
    const json_t *data = json_object_get(file, "file_data");
    const char *name = json_string_value(json_object_get(file, "filename"));
    const char *ending = name == NULL ? NULL : strrchr(name, '.');
    if (begins_with(data, "data:")) {
        return begins_with(data, "data:application/pdf");
    }
    return ending == NULL || strcasecmp(ending, ".pdf") == 0;
}

static uint32_t part_abilities(const json_t *part)
{
    const bool is_file = is_type(part, "input_file") || is_type(part, "file");
    const json_t *file = is_type(part, "file") ? json_object_get(part, "file") : part;
    if (is_image(part) || (is_file && is_of_pages(file))) {
        return ABILITY_IMAGES;
    }
    return is_type(part, "input_audio") ? ABILITY_AUDIO : 0;
}

static uint32_t parts_abilities(const json_t *parts)
{
    uint32_t needs = json_is_object(parts) ? part_abilities(parts) : 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        needs |= part_abilities(json_array_get(parts, i));
    }
    return needs;
}

static uint32_t message_abilities(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    const bool is_tool =
        role != NULL && (strcmp(role, "tool") == 0 || strcmp(role, "function") == 0);
    const bool has_calls = json_array_size(json_object_get(message, "tool_calls")) > 0 ||
                           json_is_object(json_object_get(message, "function_call"));
    const uint32_t needs = is_tool || has_calls ? ABILITY_TOOLS : 0;
    return needs | parts_abilities(json_object_get(message, "content"));
}

/* "function_call", "web_search_call", "custom_tool_call_output", "mcp_list_tools" … */
static uint32_t item_abilities(const json_t *item)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    const bool is_of_tool =
        type != NULL && (strstr(type, "_call") != NULL || strncmp(type, "mcp_", 4) == 0);
    return (is_of_tool ? ABILITY_TOOLS : 0) | parts_abilities(json_object_get(item, "content")) |
           parts_abilities(json_object_get(item, "output"));
}

static uint32_t format_abilities(const json_t *body)
{
    if (strcmp(format_of(body), "json_schema") == 0) {
        return ABILITY_JSON_SCHEMA;
    }
    return strcmp(format_of(body), "json_object") == 0 ? ABILITY_JSON_MODE : 0;
}

static bool speaks(const json_t *body)
{
    const json_t *modalities = json_object_get(body, "modalities");
    bool has_audio = json_is_object(json_object_get(body, "audio"));
    for (size_t i = 0; i < json_array_size(modalities); i++) {
        const char *modality = json_string_value(json_array_get(modalities, i));
        has_audio = has_audio || (modality != NULL && strcmp(modality, "audio") == 0);
    }
    return has_audio;
}

/* Chat says true; completions say how many, and 0 is a wish too: of the chosen tokens. A response
 * is to include them. */
static bool wants_logprobs(const json_t *body)
{
    const json_t *include = json_object_get(body, "include");
    for (size_t i = 0; i < json_array_size(include); i++) {
        if (begins_with(json_array_get(include, i), "message.output_text.logprobs")) {
            return true;
        }
    }
    const json_t *logprobs = json_object_get(body, "logprobs");
    return json_is_true(logprobs) || is_above(logprobs, -1) ||
           is_above(json_object_get(body, "top_logprobs"), 0);
}

/* A response that continues another, or names a prompt: its provider has the rest. The prompt of a
 * completion is text. */
static bool is_continued(const json_t *body)
{
    const json_t *previous = json_object_get(body, "previous_response_id");
    const json_t *conversation = json_object_get(body, "conversation");
    return json_is_string(previous) || json_is_string(conversation) ||
           json_is_object(conversation) || json_is_object(json_object_get(body, "prompt"));
}

uint32_t complexity_abilities(const json_t *body)
{
    const json_t *messages = json_object_get(body, "messages");
    const json_t *input = json_object_get(body, "input");
    uint32_t needs = format_abilities(body) | (tools_of(body) > 0 ? ABILITY_TOOLS : 0);
    needs |= speaks(body) ? ABILITY_AUDIO : 0;
    needs |= is_continued(body) ? ABILITY_STORED : 0;
    needs |= wants_logprobs(body) ? ABILITY_LOGPROBS : 0;
    needs |=
        is_above(json_object_get(body, "n"), 1) || is_above(json_object_get(body, "best_of"), 1)
            ? ABILITY_VARIANTS
            : 0;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        needs |= message_abilities(json_array_get(messages, i));
    }
    for (size_t i = 0; i < json_array_size(input); i++) {
        needs |= item_abilities(json_array_get(input, i));
    }
    return needs;
}

/* ---- tokens ---- */

struct size {
    size_t messages, images, text_bytes;
};

static void size_message(void *context, const char *role)
{
    (void)role;
    ((struct size *)context)->messages++;
}

static void size_text(void *context, const char *text, size_t bytes, bool is_asked)
{
    (void)text;
    (void)is_asked;
    ((struct size *)context)->text_bytes += bytes;
}

static void size_image(void *context)
{
    ((struct size *)context)->images++;
}

/* As JSON, without spaces. */
static size_t written_bytes(const json_t *value)
{
    return value == NULL ? 0 : json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* Of a prompt that is given as tokens: one list of them, or several. */
static size_t given_tokens(const json_t *prompt)
{
    size_t tokens = 0;
    for (size_t i = 0; i < json_array_size(prompt); i++) {
        const json_t *item = json_array_get(prompt, i);
        tokens += json_is_integer(item) ? 1 : json_array_size(item);
    }
    return tokens;
}

uint32_t complexity_tokens(const json_t *body)
{
    struct size size = {0};
    const struct visitor sizing = {
        .on_message = size_message, .on_text = size_text, .on_image = size_image, .context = &size};
    walk(body, SIZE_MAX, SIZE_MAX, &sizing);
    const size_t bytes = size.text_bytes + written_bytes(json_object_get(body, "tools")) +
                         written_bytes(json_object_get(body, "functions"));
    const size_t tokens = bytes / BYTES_PER_TOKEN + size.messages * MESSAGE_TOKENS +
                          size.images * IMAGE_TOKENS +
                          given_tokens(json_object_get(body, "prompt"));
    return tokens > UINT32_MAX ? UINT32_MAX : (uint32_t)tokens;
}

/* ---- how it begins ---- */

struct beginning {
    XXH64_hash_t hash; /* of what was read */
    size_t room;       /* bytes that are yet to be read */
};

static void begin_bytes(struct beginning *beginning, const char *text, size_t bytes)
{
    const size_t read = bytes < beginning->room ? bytes : beginning->room;
    if (read > 0) {
        beginning->hash = XXH3_64bits_withSeed(text, read, beginning->hash);
        beginning->room -= read;
    }
}

/* The role as it tells messages apart; it is no text. */
static void begin_message(void *context, const char *role)
{
    struct beginning *beginning = context;
    if (beginning->room > 0) {
        beginning->hash = XXH3_64bits_withSeed(role, strlen(role), ~beginning->hash);
    }
}

static void begin_text(void *context, const char *text, size_t bytes, bool is_asked)
{
    (void)is_asked;
    begin_bytes(context, text, bytes);
}

/* Of a chat's tools, or a response's. */
static const char *tool_name(const json_t *tool)
{
    const json_t *function = json_object_get(tool, "function");
    return json_string_value(json_object_get(function == NULL ? tool : function, "name"));
}

/* A sum: workers put tools into the order of their names before they send them. */
static void begin_tools(struct beginning *beginning, const json_t *tools)
{
    const size_t bytes = written_bytes(tools);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const char *name = tool_name(json_array_get(tools, i));
        beginning->hash += name == NULL ? 1 : XXH3_64bits(name, strlen(name));
    }
    beginning->room -= bytes < beginning->room ? bytes : beginning->room;
}

uint32_t complexity_prefix(const json_t *body)
{
    struct beginning beginning = {.room = COMPLEXITY_PREFIX_BYTES};
    const struct visitor reading = {
        .on_message = begin_message, .on_text = begin_text, .context = &beginning};
    begin_tools(&beginning, json_object_get(body, "tools"));
    walk(body, SIZE_MAX, SIZE_MAX, &reading);
    if (beginning.room > 0) {
        return 0;
    }
    const uint32_t prefix = (uint32_t)(beginning.hash ^ beginning.hash >> 32);
    return prefix == 0 ? 1 : prefix;
}
