#include "worker/combine/reply.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/prompt/token_count.h"

enum {
    ELEMENT_BYTES = 128, /* of an answer's element, besides the answer in it */
    MEMBER_BYTES_MAX = 256,
};

/* ---- who pays for what ---- */

/* Everybody's own, and an equal part of what all have: the system prompt and the rules. */
static void weigh_questions(const struct reply_call *call, const struct reply_ask *asks,
                            size_t length, uint64_t *ret_weights)
{
    uint64_t own = 0;
    for (size_t i = 0; i < length; i++) {
        own += asks[i].question.text_bytes;
    }
    const uint64_t common = call->request_bytes > own ? call->request_bytes - own : 0;
    for (size_t i = 0; i < length; i++) {
        ret_weights[i] = asks[i].question.text_bytes * length + common;
    }
}

static void share(const struct reply_call *call, const struct reply_ask *asks, size_t length,
                  const uint64_t *written, const struct token_counts *total,
                  struct reply_part *parts)
{
    uint64_t sent[SHARES_MAX] = {0};
    uint64_t got[SHARES_MAX] = {0};
    struct token_share shares[SHARES_MAX];
    if (call->are_questions) {
        weigh_questions(call, asks, length, sent);
    }
    uint64_t served = 0;
    for (size_t i = 0; i < length; i++) {
        sent[i] = !asks[i].is_present ? 0 : call->are_questions ? sent[i] : asks[i].inputs.weight;
        got[i] = asks[i].is_present ? written[i] : 0;
        served += got[i];
    }
    for (size_t i = 0; served == 0 && i < length; i++) {
        got[i] = asks[i].is_present; /* nobody is: in equal parts, but not for who has left */
    }
    share_usage(call->price, total, sent, got, length, shares);
    for (size_t i = 0; i < length; i++) {
        parts[i].share = shares[i];
    }
}

/*
 * What the call of its own would have cost: as many tokens a byte as the call had, of what it would
 * have sent itself, and the answer without the marks around it, which nobody writes who is asked
 * alone.
 */
static uint64_t lone_cost(const struct reply_call *call, const struct reply_ask *ask,
                          const struct token_counts *total, const struct token_share *share,
                          uint64_t lone_output)
{
    const struct token_counts lone = {
        .input = call->are_questions ? (uint64_t)((unsigned __int128)total->input *
                                                  ask->request_bytes / (call->request_bytes + 1))
                                     : share->tokens.input,
        .output = lone_output,
        .service = total->service,
    };
    return account_cost_nanousd(call->price, &lone);
}

/* ---- embeddings ---- */

static void split_inputs(const struct reply_call *call, const struct reply_ask *asks, size_t length,
                         const struct token_counts *total, struct reply_part *parts)
{
    struct inputs_answer answer;
    const uint64_t written[SHARES_MAX] = {0};
    size_t inputs = 0;
    for (size_t i = 0; i < length; i++) {
        inputs += asks[i].inputs.length;
    }
    share(call, asks, length, written, total, parts);
    const int opened = inputs_open(call->body->data, call->body->length, inputs, &answer);
    size_t first = 0;
    for (size_t i = 0; i < length; i++) {
        struct bytes *body = &parts[i].body;
        *body = (struct bytes){.bytes_max = call->body->length + ELEMENT_BYTES};
        parts[i].why = opened < 0 ? "index" : NULL;
        if (opened == 0 && asks[i].is_present &&
            inputs_take(&answer, first, asks[i].inputs.length, &parts[i].share, body) < 0) {
            parts[i].why = "memory";
        }
        parts[i].lone_nanousd = lone_cost(call, &asks[i], total, &parts[i].share, 0);
        first += asks[i].inputs.length;
    }
}

/* ---- questions ---- */

static json_t *usage_of(const struct token_share *share)
{
    const struct token_counts *tokens = &share->tokens;
    const uint64_t sum = tokens->input + tokens->output;
    return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}}", "prompt_tokens",
                     (json_int_t)tokens->input, "completion_tokens", (json_int_t)tokens->output,
                     "total_tokens", (json_int_t)sum, "prompt_tokens_details", "cached_tokens",
                     (json_int_t)tokens->cached_input, "completion_tokens_details",
                     "reasoning_tokens", (json_int_t)tokens->reasoning);
}

/*
 * What is said of a reply as it would be of one answer. What else a provider may say is left out:
 * it may be of all questions (what was looked up for them), and everybody would get a copy of it.
 */
static int copy_members(const json_t *whole, json_t *answer)
{
    static const char *const names[] = {"object", "created", "model", "service_tier",
                                        "system_fingerprint"};
    int r = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        json_t *value = json_object_get(whole, names[i]);
        const bool is_short =
            json_is_string(value) && json_string_length(value) <= MEMBER_BYTES_MAX;
        if (is_short || json_is_number(value)) {
            r |= json_object_set(answer, names[i], value);
        }
    }
    return r;
}

/* As the provider would have answered one: its id, with a number behind. */
static char *write_answer(const json_t *whole, size_t index, const struct pack_result *result,
                          const struct token_share *share)
{
    const char *id = json_string_value(json_object_get(whole, "id"));
    json_t *answer = json_object();
    json_t *choice = json_pack("{s:i, s:{s:s, s:s%, s:n}, s:n, s:s}", "index", 0, "message", "role",
                               "assistant", "content", result->text, result->text_bytes, "refusal",
                               "logprobs", "finish_reason", "stop");
    int r = copy_members(whole, answer);
    r |= json_object_set_new(answer, "choices", json_pack("[o]", choice));
    r |= json_object_set_new(answer, "usage", usage_of(share));
    if (id != NULL && strlen(id) <= MEMBER_BYTES_MAX) {
        r |= json_object_set_new(answer, "id", json_sprintf("%s-%zu", id, index));
    }
    char *text = r < 0 ? NULL : json_dumps(answer, JSON_COMPACT);
    json_decref(answer);
    return text;
}

static void take_answers(const struct reply_call *call, const struct reply_ask *asks, size_t length,
                         const struct pack_result *results, struct reply_part *parts)
{
    for (size_t i = 0; i < length; i++) {
        parts[i].why = NULL;
        if (results[i].verdict != PACK_GOOD) {
            parts[i].why = pack_verdict_name(results[i].verdict);
            continue;
        }
        char *text =
            asks[i].is_present ? write_answer(call->answer, i, &results[i], &parts[i].share) : NULL;
        const size_t bytes = text == NULL ? 0 : strlen(text);
        parts[i].why = text == NULL ? "memory" : NULL;
        parts[i].body = (struct bytes){
            .data = text, .length = bytes, .capacity = bytes + 1, .bytes_max = bytes};
    }
}

/* The tokens of an answer: such a part of all as its text is of what was written, as estimated. */
static uint64_t lone_output(const struct token_counts *total, const struct token_share *share,
                            const struct pack_result *result, uint64_t written_estimate)
{
    const uint64_t text = token_count_estimate(result->text, result->text_bytes);
    const uint64_t written = total->output - total->reasoning;
    const uint64_t part = written_estimate <= text
                              ? written
                              : (uint64_t)((unsigned __int128)written * text / written_estimate);
    return share->tokens.reasoning + part;
}

static void split_questions(const struct reply_call *call, const struct reply_ask *asks,
                            size_t length, const struct token_counts *total,
                            struct reply_part *parts)
{
    struct question questions[SHARES_MAX];
    struct pack_result results[SHARES_MAX];
    uint64_t written[SHARES_MAX] = {0};
    const json_t *choice = json_array_get(json_object_get(call->answer, "choices"), 0);
    const json_t *content = json_object_get(json_object_get(choice, "message"), "content");
    const char *text = json_is_string(content) ? json_string_value(content) : "";
    for (size_t i = 0; i < length; i++) {
        questions[i] = asks[i].question;
    }
    const int r = pack_split(text, strlen(text), questions, length, results);
    for (size_t i = 0; i < length; i++) {
        written[i] = results[i].verdict == PACK_GOOD ? results[i].text_bytes + ELEMENT_BYTES : 0;
    }
    share(call, asks, length, written, total, parts);
    take_answers(call, asks, length, results, parts);
    const uint64_t estimate = token_count_estimate(text, strlen(text));
    for (size_t i = 0; i < length; i++) {
        parts[i].why = r < 0 ? "memory" : parts[i].why;
        if (parts[i].why == NULL) {
            const struct token_share *own = &parts[i].share;
            parts[i].lone_nanousd = lone_cost(call, &asks[i], total, own,
                                              lone_output(total, own, &results[i], estimate));
        }
        free(results[i].text);
    }
}

void reply_share_cut(const struct reply_call *call, const struct reply_ask *asks, size_t length,
                     struct reply_part *ret_parts, struct token_counts *ret_total)
{
    const uint64_t written[SHARES_MAX] = {0};
    account_estimate_cut(call->request_bytes, 0, ret_total);
    share(call, asks, length, written, ret_total, ret_parts);
}

void reply_split(const struct reply_call *call, const struct reply_ask *asks, size_t length,
                 struct reply_part *ret_parts, struct token_counts *ret_total)
{
    assert(length <= SHARES_MAX);
    account_read_usage(call->answer, call->operation, call->request_bytes, ret_total);
    if (call->are_questions) {
        split_questions(call, asks, length, ret_total, ret_parts);
    } else {
        split_inputs(call, asks, length, ret_total, ret_parts);
    }
}
