/*
 * Sources: ai.google.dev/api/generate-content, "GenerateContentResponse", "Candidate",
 * "FinishReason", "UsageMetadata"; ai.google.dev/gemini-api/docs/thought-signatures; replies that
 * were seen (tests/fixtures/gemini).
 *
 * Each event of a stream is a whole reply that says only what is new, so both are read by the same
 * functions. A refused prompt and a model that failed are no answers, and come in a 200 without
 * `error`: they are made one here, in OpenAI's form, for outcome.c to judge.
 */
#include "common/json_read.h"
#include "worker/provider/gemini.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "worker/provider/member.h"

/* ---- what is no answer ---- */

/* finishReason → finish_reason; NULL: the model has failed, and may do better when asked again. */
static const char *finish_reason(const char *word)
{
    static const struct {
        const char *word;
        const char *reason;
    } reasons[] = {
        {"STOP", "stop"},
        {"MAX_TOKENS", "length"},
        {"SAFETY", "content_filter"},
        {"RECITATION", "content_filter"},
        {"LANGUAGE", "content_filter"},
        {"BLOCKLIST", "content_filter"},
        {"PROHIBITED_CONTENT", "content_filter"},
        {"SPII", "content_filter"},
        {"IMAGE_SAFETY", "content_filter"},
        {"IMAGE_PROHIBITED_CONTENT", "content_filter"},
        {"IMAGE_RECITATION", "content_filter"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(reasons); i++) {
        if (strcmp(reasons[i].word, word) == 0) {
            return reasons[i].reason;
        }
    }
    return NULL;
}

/* The word a candidate ended with; "": it has not. */
static const char *finish_word(const json_t *candidate)
{
    const char *word = member_text(candidate, "finishReason");
    return strcmp(word, "FINISH_REASON_UNSPECIFIED") == 0 ? "" : word;
}

static json_t *error_make(const char *what, const char *word, const char *detail, const char *code)
{
    json_t *message = json_sprintf("%s%s%s%s%s", what, word[0] == '\0' ? "" : ": ", word,
                                   detail[0] == '\0' ? "" : ": ", detail);
    return json_pack("{s:o, s:s}", "message", message, "code", code);
}

/*
 * *ret_error is OpenAI's form of what is wrong, NULL when nothing is. No candidates are given only
 * when something was wrong with the prompt. Errors: -ENOMEM.
 */
static int find_failure(const json_t *reply, json_t **ret_error)
{
    const json_t *candidates = json_object_get(reply, "candidates");
    const json_t *feedback = json_object_get(reply, "promptFeedback");
    *ret_error = NULL;
    if (json_array_size(candidates) == 0 && json_is_object(feedback)) {
        *ret_error = error_make("the prompt was blocked", member_text(feedback, "blockReason"),
                                member_text(feedback, "blockReasonMessage"), "content_filter");
        return *ret_error == NULL ? -ENOMEM : 0;
    }
    size_t i;
    json_t *candidate;
    json_array_foreach (candidates, i, candidate) {
        const char *word = finish_word(candidate);
        if (word[0] != '\0' && finish_reason(word) == NULL) {
            *ret_error = error_make("the model failed", word,
                                    member_text(candidate, "finishMessage"), "server_error");
            return *ret_error == NULL ? -ENOMEM : 0;
        }
    }
    return 0;
}

/* ---- usage ---- */

static json_int_t count_of(const json_t *usage, const char *name)
{
    const json_int_t count = json_integer_value(json_object_get(usage, name));
    return count > 0 && count < INT32_MAX ? count : 0;
}

/* Tokens of tools' prompts were read, those of thoughts written. NULL on a lack of memory. */
static json_t *usage_translate(const json_t *usage)
{
    const json_int_t read =
        count_of(usage, "promptTokenCount") + count_of(usage, "toolUsePromptTokenCount");
    const json_int_t thoughts = count_of(usage, "thoughtsTokenCount");
    const json_int_t written = count_of(usage, "candidatesTokenCount") + thoughts;
    return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}}", "prompt_tokens", read,
                     "completion_tokens", written, "total_tokens", read + written,
                     "prompt_tokens_details", "cached_tokens",
                     count_of(usage, "cachedContentTokenCount"), "completion_tokens_details",
                     "reasoning_tokens", thoughts);
}

/* ---- what a candidate says ---- */

/* Of one candidate, in a whole reply or one event. */
struct said {
    struct bytes text;
    struct bytes thoughts;
    bool has_text;
    json_t *tool_calls;
    int64_t first_call; /* index of the first of tool_calls among the choice's */
    uint64_t seed;      /* of the ids made up for them */
    bool is_stream;
};

static void said_finish(struct said *said)
{
    bytes_finish(&said->text);
    bytes_finish(&said->thoughts);
    json_decref(said->tool_calls);
}

/*
 * Most models give their calls no ids. The same reply gets the same ids again, another one others:
 * 21 letters, since OpenAI takes no more than 40 should the conversation go on there.
 */
static json_t *call_id(const json_t *function, const char *arguments, int64_t index, uint64_t seed)
{
    json_t *id = json_object_get(function, "id");
    if (json_string_length(id) > 0) {
        return json_incref(id);
    }
    const char *name = member_text(function, "name");
    XXH64_hash_t hash = XXH3_64bits_withSeed(name, strlen(name), seed + (uint64_t)index);
    hash = XXH3_64bits_withSeed(arguments, strlen(arguments), hash);
    return json_sprintf("call_%016" PRIx64, (uint64_t)hash);
}

/* Google's own OpenAI form has the signature there; a later turn has to bring it back. */
static int set_signature(json_t *call, json_t *signature)
{
    if (json_string_length(signature) == 0) {
        return 0;
    }
    return json_object_set_new(call, "extra_content",
                               json_pack("{s:{s:O}}", "google", "thought_signature", signature));
}

/* Errors: -ENOMEM. */
static int call_read(struct said *said, const json_t *part, const json_t *function)
{
    const json_t *args = json_object_get(function, "args");
    const int64_t index = said->first_call + (int64_t)json_array_size(said->tool_calls);
    char *arguments = json_is_object(args) ? json_dumps(args, JSON_COMPACT) : strdup("{}");
    if (arguments == NULL) {
        return -ENOMEM;
    }
    json_t *call = json_pack(
        "{s:o, s:s, s:{s:s, s:s}}", "id", call_id(function, arguments, index, said->seed), "type",
        "function", "function", "name", member_text(function, "name"), "arguments", arguments);
    free(arguments);
    int r = json_array_append_new(said->tool_calls, call);
    r |= set_signature(call, json_object_get(part, "thoughtSignature"));
    if (said->is_stream) {
        r |= json_object_set_new(call, "index", json_integer(index));
    }
    return r < 0 ? -ENOMEM : 0;
}

/* Parts without a word in OpenAI's form (code that was run, images) are passed over. */
static int part_read(struct said *said, const json_t *part)
{
    const json_t *function = json_object_get(part, "functionCall");
    const json_t *text = json_object_get(part, "text");
    if (json_is_object(function)) {
        return call_read(said, part, function);
    }
    if (!json_is_string(text)) {
        return 0;
    }
    const bool is_thought = json_is_true(json_object_get(part, "thought"));
    said->has_text = said->has_text || !is_thought;
    return bytes_append(is_thought ? &said->thoughts : &said->text, json_string_value(text),
                        json_string_length(text));
}

/* `seed` and `first_call` are set. Errors: -ENOMEM. */
static int said_read(struct said *said, const json_t *candidate)
{
    said->text.bytes_max = said->thoughts.bytes_max = SIZE_MAX / 2;
    said->tool_calls = json_array();
    int r = said->tool_calls == NULL ? -ENOMEM : 0;
    size_t i;
    json_t *part;
    json_array_foreach (json_object_get(json_object_get(candidate, "content"), "parts"), i, part) {
        r = r < 0 ? r : part_read(said, part);
    }
    return r;
}

static json_t *bytes_to_json(const struct bytes *bytes)
{
    return json_stringn(bytes->data == NULL ? "" : bytes->data, bytes->length);
}

/* Sets what was said into a message or a delta. Errors: -ENOMEM. */
static int said_write(const struct said *said, json_t *message)
{
    int r = 0;
    if (said->has_text) {
        r = json_object_set_new(message, "content", bytes_to_json(&said->text));
    }
    if (said->thoughts.length > 0) {
        r |= json_object_set_new(message, "reasoning_content", bytes_to_json(&said->thoughts));
    }
    if (json_array_size(said->tool_calls) > 0) {
        r |= json_object_set(message, "tool_calls", said->tool_calls);
    }
    return r < 0 ? -ENOMEM : 0;
}

/* OpenAI says of calls that they were the end, Google that the model stopped. */
static const char *reason_given(const char *word, bool has_calls)
{
    const char *reason = finish_reason(word);
    return reason != NULL && has_calls && strcmp(reason, "stop") == 0 ? "tool_calls" : reason;
}

/* ---- log probabilities ---- */

static json_t *token_translate(const json_t *token)
{
    json_t *logprob = json_object_get(token, "logProbability");
    return json_pack("{s:s, s:o, s:n}", "token", member_text(token, "token"), "logprob",
                     json_is_number(logprob) ? json_incref(logprob) : json_integer(0), "bytes");
}

/* `others`: the likeliest at the same place. */
static json_t *place_translate(const json_t *chosen, const json_t *others)
{
    json_t *place = token_translate(chosen);
    json_t *list = json_array();
    size_t i;
    json_t *one;
    json_array_foreach (json_object_get(others, "candidates"), i, one) {
        (void)json_array_append_new(list, token_translate(one));
    }
    if (json_object_set_new(place, "top_logprobs", list) < 0) {
        json_decref(place);
        return NULL;
    }
    return place;
}

/* Sets `logprobs` when the candidate has any. Errors: -ENOMEM. */
static int logprobs_translate(json_t *choice, const json_t *candidate)
{
    const json_t *result = json_object_get(candidate, "logprobsResult");
    const json_t *chosen = json_object_get(result, "chosenCandidates");
    const json_t *others = json_object_get(result, "topCandidates");
    if (!json_is_array(chosen)) {
        return 0;
    }
    json_t *places = json_array();
    size_t i;
    json_t *one;
    json_array_foreach (chosen, i, one) {
        if (json_array_append_new(places, place_translate(one, json_array_get(others, i))) < 0) {
            json_decref(places);
            return -ENOMEM;
        }
    }
    json_t *logprobs = json_pack("{s:o}", "content", places);
    return json_object_set_new(choice, "logprobs", logprobs) < 0 ? -ENOMEM : 0;
}

/* ---- candidates ---- */

static uint64_t seed_of(const json_t *reply, size_t choice)
{
    const char *id = member_text(reply, "responseId");
    return XXH3_64bits_withSeed(id, strlen(id), choice);
}

/* Left out where there is one candidate. Errors: -EBADMSG no index at all. */
static int read_index(const json_t *candidate, size_t *ret_index)
{
    const json_t *index = json_object_get(candidate, "index");
    const json_int_t value = json_integer_value(index);
    if ((index != NULL && !json_is_integer(index)) || value < 0 || value >= PROTOCOL_CHOICES_MAX) {
        return -EBADMSG;
    }
    *ret_index = (size_t)value;
    return 0;
}

/* Takes `said_object`, the message or the delta called `name`. Errors: -ENOMEM. */
static int choice_append(json_t *choices, size_t index, const char *name, json_t *said_object,
                         const char *reason, const json_t *candidate)
{
    json_t *choice = json_pack("{s:I, s:o, s:s?}", "index", (json_int_t)index, name, said_object,
                               "finish_reason", reason);
    int r = json_array_append_new(choices, choice) < 0 ? -ENOMEM : 0;
    return r < 0 ? r : logprobs_translate(choice, candidate);
}

/* Members that an answer and each chunk begin with; NULL on a lack of memory. */
static json_t *head_make(const json_t *reply, const char *object)
{
    json_t *id = json_object_get(reply, "responseId");
    json_t *model = json_object_get(reply, "modelVersion");
    return json_pack("{s:s, s:O*, s:O*}", "object", object, "id", json_is_string(id) ? id : NULL,
                     "model", json_is_string(model) ? model : NULL);
}

/* Takes `choices`; `usage` NULL: none. Errors: -ENOMEM. */
static int head_complete(json_t *head, json_t *choices, const json_t *usage)
{
    int r = json_object_set_new(head, "choices", choices);
    if (json_is_object(usage)) {
        r |= json_object_set_new(head, "usage", usage_translate(usage));
    }
    return r < 0 ? -ENOMEM : 0;
}

/* ---- a whole answer ---- */

static int candidate_translate(json_t *choices, const json_t *reply, const json_t *candidate)
{
    size_t index;
    int r = read_index(candidate, &index);
    if (r < 0) {
        return r;
    }
    struct said said = {.seed = seed_of(reply, index)};
    json_t *message = json_pack("{s:s, s:n}", "role", "assistant", "content");
    r = said_read(&said, candidate);
    r = r < 0 ? r : said_write(&said, message);
    const char *word = finish_word(candidate);
    const bool has_calls = json_array_size(said.tool_calls) > 0;
    said_finish(&said);
    if (r < 0) {
        json_decref(message);
        return r;
    }
    return choice_append(choices, index, "message", message,
                         reason_given(word[0] == '\0' ? "STOP" : word, has_calls), candidate);
}

static int chat_translate(const json_t *reply, json_t **ret_answer)
{
    json_t *answer = head_make(reply, "chat.completion");
    json_t *choices = json_array();
    int r = head_complete(answer, choices, json_object_get(reply, "usageMetadata"));
    size_t i;
    json_t *candidate;
    json_array_foreach (json_object_get(reply, "candidates"), i, candidate) {
        r = r < 0 ? r : candidate_translate(choices, reply, candidate);
    }
    if (r < 0) {
        json_decref(answer);
        return r;
    }
    *ret_answer = answer;
    return 0;
}

/* Vectors come in the order of the inputs. Older models do not count tokens. */
static int embeddings_translate(const json_t *reply, json_t **ret_answer)
{
    const json_t *usage = json_object_get(reply, "usageMetadata");
    json_t *answer = json_pack("{s:s}", "object", "list");
    json_t *data = json_array();
    int r = json_object_set_new(answer, "data", data) < 0 ? -ENOMEM : 0;
    size_t i;
    json_t *embedding;
    json_array_foreach (json_object_get(reply, "embeddings"), i, embedding) {
        json_t *values = json_object_get(embedding, "values");
        if (r == 0 && !json_is_array(values)) {
            r = -EBADMSG;
        }
        if (r == 0 &&
            json_array_append_new(data, json_pack("{s:s, s:I, s:O}", "object", "embedding", "index",
                                                  (json_int_t)i, "embedding", values)) < 0) {
            r = -ENOMEM;
        }
    }
    if (r == 0 && json_is_object(usage)) {
        const json_int_t tokens = count_of(usage, "promptTokenCount");
        r = json_object_set_new(
            answer, "usage",
            json_pack("{s:I, s:I}", "prompt_tokens", tokens, "total_tokens", tokens));
    }
    if (r < 0) {
        json_decref(answer);
        return r == -1 ? -ENOMEM : r;
    }
    *ret_answer = answer;
    return 0;
}

int gemini_read_answer(const json_t *reply, json_t **ret_answer)
{
    json_t *error = NULL;
    if (json_is_array(json_object_get(reply, "embeddings"))) {
        return embeddings_translate(reply, ret_answer);
    }
    int r = find_failure(reply, &error);
    if (r < 0) {
        return r;
    }
    if (error != NULL) {
        *ret_answer = json_pack("{s:o}", "error", error);
        return *ret_answer == NULL ? -ENOMEM : 0;
    }
    return json_array_size(json_object_get(reply, "candidates")) == 0
               ? -EBADMSG
               : chat_translate(reply, ret_answer);
}

/* ---- the stream ---- */

/* The first thing a choice says is whose it is. NULL on a lack of memory. */
static json_t *delta_make(struct protocol_choice *state, const struct said *said)
{
    json_t *delta = state->is_begun ? json_object() : json_pack("{s:s}", "role", "assistant");
    state->is_begun = true;
    if (delta == NULL || said_write(said, delta) < 0) {
        json_decref(delta);
        return NULL;
    }
    return delta;
}

static int candidate_grew(struct protocol_stream *stream, json_t *choices, const json_t *reply,
                          const json_t *candidate)
{
    size_t index;
    int r = read_index(candidate, &index);
    if (r < 0) {
        return r;
    }
    struct protocol_choice *state = &stream->choices[index];
    struct said said = {
        .seed = seed_of(reply, index), .first_call = state->tool_calls, .is_stream = true};
    r = said_read(&said, candidate);
    json_t *delta = r < 0 ? NULL : delta_make(state, &said);
    const char *word = finish_word(candidate);
    state->tool_calls += (int64_t)json_array_size(said.tool_calls);
    state->is_ended = state->is_ended || word[0] != '\0';
    said_finish(&said);
    return choice_append(choices, index, "delta", delta,
                         word[0] == '\0' ? NULL : reason_given(word, state->tool_calls > 0),
                         candidate);
}

/* Every choice that was begun has come to its end. */
static bool all_ended(const struct protocol_stream *stream)
{
    bool has_begun = false;
    for (size_t i = 0; i < PROTOCOL_CHOICES_MAX; i++) {
        has_begun = has_begun || stream->choices[i].is_begun;
        if (stream->choices[i].is_begun && !stream->choices[i].is_ended) {
            return false;
        }
    }
    return has_begun;
}

/* Counts are in every event, and grow: a client gets those of the end. */
static int chunk_make(struct protocol_stream *stream, const json_t *reply, json_t **ret_chunk)
{
    json_t *chunk = head_make(reply, "chat.completion.chunk");
    json_t *choices = json_array();
    int r = choices == NULL ? -ENOMEM : 0;
    size_t i;
    json_t *candidate;
    json_array_foreach (json_object_get(reply, "candidates"), i, candidate) {
        r = r < 0 ? r : candidate_grew(stream, choices, reply, candidate);
    }
    stream->is_ended = all_ended(stream);
    const json_t *usage = stream->is_ended ? json_object_get(reply, "usageMetadata") : NULL;
    if (head_complete(chunk, choices, usage) < 0) {
        r = -ENOMEM;
    }
    if (r < 0) {
        json_decref(chunk);
        return r;
    }
    *ret_chunk = chunk;
    return 0;
}

static int event_translate(struct protocol_stream *stream, const json_t *reply, json_t **ret_chunk,
                           struct outcome *ret_outcome)
{
    json_t *found = NULL;
    int r = find_failure(reply, &found);
    const json_t *error = found != NULL ? found : json_object_get(reply, "error");
    if (r == 0 && error != NULL && !json_is_null(error)) {
        outcome_from_error(error, ret_outcome);
        r = -ECONNABORTED;
    }
    json_decref(found);
    const bool says_something = json_array_size(json_object_get(reply, "candidates")) > 0 ||
                                json_object_get(reply, "usageMetadata") != NULL;
    return r < 0 || !says_something ? r : chunk_make(stream, reply, ret_chunk);
}

int gemini_read_event(struct protocol_stream *stream, const char *name, const char *data,
                      size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome)
{
    (void)name; /* events have none */
    *ret_chunk = NULL;
    json_t *reply = json_read(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    int r =
        json_is_object(reply) ? event_translate(stream, reply, ret_chunk, ret_outcome) : -EBADMSG;
    json_decref(reply);
    return r;
}
