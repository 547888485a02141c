/*
 * Sources: ai.google.dev/api/caching, "Content", "Part", "FunctionCall", "FunctionResponse";
 * ai.google.dev/gemini-api/docs/function-calling; ai.google.dev/gemini-api/docs/openai,
 * "extra_content".
 */
#include "worker/provider/gemini.h"

#include <errno.h>
#include <string.h>

#include "worker/provider/member.h"

#define REJECTED WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED

/* ---- a message's content ---- */

/* Empty texts say nothing, and are refused by some models. */
static int text_append(json_t *parts, json_t *text)
{
    return json_string_length(text) == 0 ? 0
                                         : gemini_append(parts, json_pack("{s:O}", "text", text));
}

/* "data:image/png;base64,…" → its bytes; another address is fetched by Google. */
static int url_append(json_t *parts, const char *url, struct outcome *outcome)
{
    static const char mark[] = ";base64,";
    if (url[0] == '\0') {
        return gemini_reject(outcome, "a content part has no address");
    }
    if (strncmp(url, "data:", 5) != 0) {
        return gemini_append(parts, json_pack("{s:{s:s}}", "fileData", "fileUri", url));
    }
    const char *type = url + 5;
    const char *data = strstr(type, mark);
    if (data == NULL || strcspn(type, ",") < (size_t)(data - type)) {
        return gemini_refuse(outcome, "a data: address that is not base64");
    }
    const size_t type_bytes = strcspn(type, ";"); /* parameters of the type are not offered */
    return gemini_append(parts, json_pack("{s:{s:s%, s:s}}", "inlineData", "mimeType", type,
                                          type_bytes, "data", data + sizeof(mark) - 1));
}

static int audio_append(json_t *parts, const json_t *audio)
{
    json_t *type = json_sprintf("audio/%s", member_text(audio, "format"));
    return gemini_append(parts, json_pack("{s:{s:o, s:s}}", "inlineData", "mimeType", type, "data",
                                          member_text(audio, "data")));
}

static int content_part_append(json_t *parts, const json_t *part, struct outcome *outcome)
{
    const char *type = member_text(part, "type");
    if (strcmp(type, "text") == 0 || strcmp(type, "refusal") == 0) {
        json_t *text = json_object_get(part, type);
        return json_is_string(text)
                   ? text_append(parts, text)
                   : gemini_reject(outcome, "a text among the content's parts is none");
    }
    if (strcmp(type, "image_url") == 0) {
        return url_append(parts, member_text(json_object_get(part, "image_url"), "url"), outcome);
    }
    if (strcmp(type, "input_audio") == 0) {
        return audio_append(parts, json_object_get(part, "input_audio"));
    }
    const json_t *file = json_object_get(part, "file");
    if (strcmp(type, "file") == 0 && json_is_string(json_object_get(file, "file_data"))) {
        return url_append(parts, member_text(file, "file_data"), outcome);
    }
    outcome_set(outcome, REJECTED, "unsupported",
                "this provider does not offer a content part of type \"%.64s\"%s", type,
                file == NULL ? "" : " without file_data");
    return -EINVAL;
}

/* An OpenAI `content`: a text, or a list of parts, or nothing. */
static int content_append(json_t *parts, json_t *content, struct outcome *outcome)
{
    if (json_is_string(content)) {
        return text_append(parts, content);
    }
    if (content != NULL && !json_is_null(content) && !json_is_array(content)) {
        return gemini_reject(outcome, "a message's content is neither a text nor a list of parts");
    }
    int r = 0;
    size_t i;
    json_t *part;
    json_array_foreach (content, i, part) {
        r = r < 0 ? r : content_part_append(parts, part, outcome);
    }
    return r;
}

/* Instructions and tools' results: nothing but text. */
static int plain_content_append(json_t *parts, json_t *content, const char *what,
                                struct outcome *outcome)
{
    int r = content_append(parts, content, outcome);
    size_t i;
    json_t *part;
    json_array_foreach (parts, i, part) {
        if (r == 0 && json_object_get(part, "text") == NULL) {
            r = gemini_refuse(outcome, what);
        }
    }
    return r;
}

/* ---- messages ---- */

enum speaker { SPEAKER_NONE, SPEAKER_USER, SPEAKER_MODEL, SPEAKER_TOOL };

struct conversation {
    json_t *instructions; /* parts */
    json_t *contents;
    json_t *tool_names; /* id of each call so far → name: Google tells results apart by name */
    enum speaker last;
    struct outcome *outcome;
};

/*
 * What one speaker says in a row is one content: Google wants all results of a turn's calls in one,
 * and the calls right behind a user's turn.
 */
static int turn_append(struct conversation *conversation, enum speaker speaker, json_t *parts)
{
    const size_t turns = json_array_size(conversation->contents);
    if (json_array_size(parts) == 0) {
        return 0;
    }
    if (speaker == conversation->last) {
        json_t *turn = json_array_get(conversation->contents, turns - 1);
        return json_array_extend(json_object_get(turn, "parts"), parts) < 0 ? -ENOMEM : 0;
    }
    conversation->last = speaker;
    return gemini_append(conversation->contents,
                         json_pack("{s:s, s:O}", "role",
                                   speaker == SPEAKER_MODEL ? "model" : "user", "parts", parts));
}

/*
 * Arguments are JSON text there and an object here. Text that is none becomes an empty one: a model
 * wrote it, not the client. The signature is where Google's own OpenAI form has it.
 */
static int tool_call_append(struct conversation *conversation, json_t *parts, const json_t *call)
{
    const json_t *function = json_object_get(call, "function");
    json_t *name = json_object_get(function, "name");
    const char *id = member_text(call, "id");
    json_t *signature = json_object_get(
        json_object_get(json_object_get(call, "extra_content"), "google"), "thought_signature");
    if (!json_is_string(name)) {
        return gemini_reject(conversation->outcome, "a tool call has no function name");
    }
    json_t *arguments = json_loads(member_text(function, "arguments"), 0, NULL);
    if (!json_is_object(arguments)) {
        json_decref(arguments);
        arguments = json_object();
    }
    json_t *part = json_pack("{s:{s:O, s:o}}", "functionCall", "name", name, "args", arguments);
    int r = gemini_append(parts, part);
    if (r == 0 && id[0] != '\0') {
        r = json_object_set_new(json_object_get(part, "functionCall"), "id", json_string(id));
        r |= json_object_set(conversation->tool_names, id, name);
    }
    if (r == 0 && json_is_string(signature)) {
        r = json_object_set(part, "thoughtSignature", signature);
    }
    return r < 0 ? -ENOMEM : 0;
}

static int model_turn(struct conversation *conversation, json_t *parts, const json_t *message)
{
    int r = content_append(parts, json_object_get(message, "content"), conversation->outcome);
    size_t i;
    json_t *call;
    json_array_foreach (json_object_get(message, "tool_calls"), i, call) {
        r = r < 0 ? r : tool_call_append(conversation, parts, call);
    }
    return r < 0 ? r : turn_append(conversation, SPEAKER_MODEL, parts);
}

/* All texts as one string; NULL on a lack of memory. */
static json_t *texts_join(const json_t *parts)
{
    struct bytes text = {.bytes_max = SIZE_MAX / 2};
    int r = bytes_append_text(&text, "");
    size_t i;
    json_t *part;
    json_array_foreach (parts, i, part) {
        r = r < 0 ? r : bytes_append_text(&text, member_text(part, "text"));
    }
    json_t *joined = r < 0 ? NULL : json_stringn(text.data == NULL ? "" : text.data, text.length);
    bytes_finish(&text);
    return joined;
}

/* A result is an object there: a text that is one stands for itself. */
static json_t *tool_response(const json_t *texts)
{
    json_t *text = texts_join(texts);
    json_t *object = text == NULL ? NULL : json_loads(json_string_value(text), 0, NULL);
    if (json_is_object(object)) {
        json_decref(text);
        return object;
    }
    json_decref(object);
    return json_pack("{s:o}", "output", text);
}

static int tool_turn(struct conversation *conversation, json_t *texts, const json_t *message)
{
    const char *id = member_text(message, "tool_call_id");
    json_t *name = json_object_get(conversation->tool_names, id);
    if (name == NULL) {
        return gemini_reject(conversation->outcome,
                             "a tool message's tool_call_id is that of no earlier tool call");
    }
    int r = plain_content_append(texts, json_object_get(message, "content"),
                                 "a tool's result other than text", conversation->outcome);
    if (r < 0) {
        return r;
    }
    json_t *parts = json_pack("[{s:{s:s, s:O, s:o}}]", "functionResponse", "id", id, "name", name,
                              "response", tool_response(texts));
    r = parts == NULL ? -ENOMEM : turn_append(conversation, SPEAKER_TOOL, parts);
    json_decref(parts);
    return r;
}

/* `parts` is an empty list for the message's own. */
static int message_translate(struct conversation *conversation, json_t *parts,
                             const json_t *message)
{
    struct outcome *outcome = conversation->outcome;
    json_t *content = json_object_get(message, "content");
    if (member_is(message, "role", "system") || member_is(message, "role", "developer")) {
        int r = plain_content_append(parts, content, "an instruction other than text", outcome);
        return r == 0 && json_array_extend(conversation->instructions, parts) < 0 ? -ENOMEM : r;
    }
    if (member_is(message, "role", "user")) {
        int r = content_append(parts, content, outcome);
        return r < 0 ? r : turn_append(conversation, SPEAKER_USER, parts);
    }
    if (member_is(message, "role", "assistant")) {
        return model_turn(conversation, parts, message);
    }
    if (member_is(message, "role", "tool")) {
        return tool_turn(conversation, parts, message);
    }
    outcome_set(outcome, REJECTED, "unsupported",
                "this provider does not offer messages of role \"%.64s\"",
                member_text(message, "role"));
    return -EINVAL;
}

static int conversation_read(struct conversation *conversation, const json_t *messages)
{
    int r = 0;
    size_t i;
    json_t *message;
    json_array_foreach (messages, i, message) {
        json_t *parts = json_array();
        r = parts == NULL ? -ENOMEM : message_translate(conversation, parts, message);
        json_decref(parts);
        if (r < 0) {
            return r;
        }
    }
    return json_array_size(conversation->contents) > 0
               ? 0
               : gemini_reject(conversation->outcome, "messages holds nothing to answer");
}

int gemini_set_contents(json_t *out, const json_t *body, struct outcome *outcome)
{
    struct conversation conversation = {
        .instructions = json_array(),
        .contents = json_array(),
        .tool_names = json_object(),
        .outcome = outcome,
    };
    int r = conversation.instructions == NULL || conversation.contents == NULL ||
                    conversation.tool_names == NULL
                ? -ENOMEM
                : conversation_read(&conversation, json_object_get(body, "messages"));
    if (r == 0 && json_array_size(conversation.instructions) > 0) {
        r = json_object_set_new(out, "systemInstruction",
                                json_pack("{s:O}", "parts", conversation.instructions));
    }
    if (r == 0) {
        r = json_object_set(out, "contents", conversation.contents);
    }
    json_decref(conversation.instructions);
    json_decref(conversation.contents);
    json_decref(conversation.tool_names);
    return r == -1 ? -ENOMEM : r;
}
