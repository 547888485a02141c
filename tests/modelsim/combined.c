#include "tests/modelsim/combined.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char questions_mark[] = "\nQuestions:\n";

enum { QUESTIONS_MAX = 256, WORDS = 5 };

struct asked {
    json_t *line;
    const char *tag, *seal, *question;
    struct model_answer answer;
    const char *given; /* what is written as its answer, with this seal … */
    const char *given_seal;
    const char *said; /* … and the words of this question */
    bool is_left_out;
    const struct asked *merged; /* whose answer comes with it; NULL */
};

/* What follows the rules, of whatever protocol: its prompt is a line for each message. NULL: it asks no such. */
static const char *questions_of(const struct model_request *request)
{
    const char *mark = strstr(request->prompt, questions_mark);
    return mark == NULL ? NULL : mark + strlen(questions_mark);
}

/* Bytes of the system's messages: all lines before the one that the rules are. */
static size_t system_bytes(const struct model_request *request)
{
    const size_t end = (size_t)(questions_of(request) - request->prompt) - strlen(questions_mark);
    const char *newline = memrchr(request->prompt, '\n', end);
    return newline == NULL ? 0 : (size_t)(newline - request->prompt) + 1;
}

bool combined_is_asked(const struct model_request *request)
{
    return (request->api == API_CHAT || request->api == API_MESSAGES || request->api == API_RESPONSES || request->api == API_GENERATE) &&
           questions_of(request) != NULL;
}

/* A line each. */
static size_t read_questions(const char *text, struct asked *asked)
{
    size_t length = 0;
    while (*text != '\0' && length < QUESTIONS_MAX) {
        const size_t bytes = strcspn(text, "\n");
        struct asked one = {.line = json_loadb(text, bytes, 0, NULL)};
        one.tag = json_string_value(json_object_get(one.line, "tag"));
        one.seal = json_string_value(json_object_get(one.line, "seal"));
        one.question = json_string_value(json_object_get(one.line, "question"));
        if (one.tag == NULL || one.seal == NULL || one.question == NULL) {
            json_decref(one.line);
            return length;
        }
        one.given_seal = one.seal;
        one.said = one.question;
        asked[length++] = one;
        text += bytes + (text[bytes] == '\n');
    }
    return length;
}

/* As it would be answered if it were the only one. */
static int answer_alone(uint64_t seed, const struct model_request *request, struct model_style style, struct asked *asked)
{
    char *prompt = NULL;
    if (asprintf(&prompt, "%.*s%s\n", (int)system_bytes(request), request->prompt, asked->question) < 0) {
        return -ENOMEM;
    }
    const json_int_t most = json_integer_value(json_object_get(asked->line, "tokens_max"));
    int r = model_answer_create(seed, request->model, prompt, style, (uint32_t)most, NULL, &asked->answer);
    asked->given = asked->answer.text;
    free(prompt);
    return r;
}

/* The first two, where there are two. */
static void confuse(struct asked *asked, size_t length, enum fault_kind fault)
{
    if (length < 2) {
        return;
    }
    if (fault == FAULT_COMBINE_DROP) {
        asked[length - 1].is_left_out = true;
    } else if (fault == FAULT_COMBINE_SWAP || fault == FAULT_COMBINE_SWAP_ANSWERS || fault == FAULT_COMBINE_SWAP_TEXTS) {
        asked[0].given = asked[1].answer.text;
        asked[1].given = asked[0].answer.text;
    } else if (fault == FAULT_COMBINE_MERGE || fault == FAULT_COMBINE_MERGE_TEXTS) {
        asked[0].merged = &asked[1];
        asked[1].is_left_out = true;
    }
    if (fault == FAULT_COMBINE_SWAP || fault == FAULT_COMBINE_SWAP_ANSWERS) {
        asked[0].given_seal = asked[1].seal;
        asked[1].given_seal = asked[0].seal;
    }
    if (fault == FAULT_COMBINE_SWAP) {
        asked[0].said = asked[1].question;
        asked[1].said = asked[0].question;
    }
}

static const char *first_words_end(const char *text)
{
    for (size_t words = 0; words < WORDS && *text != '\0'; words++) {
        text += strspn(text, " \t\n");
        text += strcspn(text, " \t\n");
    }
    return text;
}

static const char *last_words(const char *text)
{
    const char *at = text + strlen(text);
    for (size_t words = 0; words < WORDS && at > text; words++) {
        while (at > text && isspace((unsigned char)at[-1])) {
            at--;
        }
        while (at > text && !isspace((unsigned char)at[-1])) {
            at--;
        }
    }
    return at;
}

static char *text_of(const struct asked *asked, enum fault_kind fault)
{
    char *text = NULL;
    const struct asked *merged = asked->merged;
    int r;
    if (merged == NULL) {
        r = asprintf(&text, "%s %s %s", asked->given_seal, asked->given, asked->given_seal);
    } else if (fault == FAULT_COMBINE_MERGE_TEXTS) {
        r = asprintf(&text, "%s %s %s %s", asked->seal, asked->given, merged->given, asked->seal);
    } else {
        r = asprintf(&text, "%s %s %s %s %s %s", asked->seal, asked->given, asked->seal, merged->seal, merged->given, merged->seal);
    }
    return r < 0 ? NULL : text;
}

static json_t *element_of(const struct asked *asked, enum fault_kind fault)
{
    char *text = text_of(asked, fault);
    char *begins = strndup(asked->said, (size_t)(first_words_end(asked->said) - asked->said));
    json_t *element = json_pack("{s:s, s:s, s:s, s:s}", "begins", begins, "ends", last_words(asked->said), "tag", asked->tag, "text", text);
    free(begins);
    free(text);
    return element;
}

/* Backwards, as no order was asked for. */
static char *write_reply(const struct asked *asked, size_t length, enum fault_kind fault)
{
    json_t *answers = json_array();
    for (size_t i = length; i > 0; i--) {
        if (!asked[i - 1].is_left_out) {
            json_array_append_new(answers, element_of(&asked[i - 1], fault));
        }
    }
    json_t *reply = json_pack("{s:o}", "answers", answers);
    char *text = json_dumps(reply, JSON_COMPACT);
    json_decref(reply);
    return text;
}

/* What a token of the reply is, is counted before it is escaped. */
static int escape(char *text, uint32_t max_tokens, struct model_answer *ret_answer)
{
    struct model_answer answer = {.tokens = model_count_tokens(text)};
    if (max_tokens != 0 && answer.tokens > max_tokens) {
        answer.is_cut = 1;
        answer.tokens = max_tokens;
        text[model_tokens_bytes(text, max_tokens)] = '\0';
    }
    json_t *string = json_string(text);
    char *escaped = json_dumps(string, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    json_decref(string);
    answer.token_ends = calloc((size_t)answer.tokens + 1, sizeof(uint32_t));
    if (escaped == NULL || answer.token_ends == NULL) {
        free(escaped);
        free(answer.token_ends);
        return -ENOMEM;
    }
    const size_t bytes = strlen(escaped) - 2;
    memmove(escaped, escaped + 1, bytes); /* without its quotes */
    escaped[bytes] = '\0';
    answer.text = escaped;
    for (uint32_t i = 0; i < answer.tokens; i++) {
        answer.token_ends[i] = (uint32_t)bytes; /* no stream is made of it */
    }
    *ret_answer = answer;
    return 0;
}

int combined_answer_create(uint64_t seed, const struct model_request *request, struct model_style style, enum fault_kind fault,
                           struct model_answer *ret_answer)
{
    struct asked *asked = calloc(QUESTIONS_MAX, sizeof(*asked));
    if (asked == NULL) {
        return -ENOMEM;
    }
    const size_t questions = read_questions(questions_of(request), asked);
    int r = questions == 0 ? -EINVAL : 0;
    for (size_t i = 0; r == 0 && i < questions; i++) {
        r = answer_alone(seed, request, style, &asked[i]);
    }
    if (r == 0) {
        confuse(asked, questions, fault);
        char *text = fault == FAULT_COMBINE_GARBAGE ? strdup("I am sorry, here are the answers that you want.")
                                                    : write_reply(asked, questions, fault);
        uint32_t most = request->max_tokens;
        if (text != NULL && fault == FAULT_COMBINE_TRUNCATE) {
            most = model_count_tokens(text) * 2 / 3;
        }
        r = text == NULL ? -ENOMEM : escape(text, most, ret_answer);
        free(text);
    }
    for (size_t i = 0; i < questions; i++) {
        model_answer_finish(&asked[i].answer);
        json_decref(asked[i].line);
    }
    free(asked);
    return r;
}
