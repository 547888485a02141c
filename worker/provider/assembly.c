#include "worker/provider/assembly.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/bytes.h"

/* A text that grows: jansson's strings do not, and rebuilding one for each chunk is quadratic. */
struct text {
    char *name;
    struct bytes value;
};

struct tool_call {
    json_t *object; /* without function.arguments */
    struct bytes arguments;
};

struct choice {
    bool is_seen;
    json_t *message; /* members that do not grow */
    json_t *finish_reason;
    json_t *logprobs;
    json_t *others; /* members of the choice beside its delta: content_filter_results … */
    struct text texts[ASSEMBLY_TEXTS_MAX];
    size_t texts_length;
    struct tool_call *tool_calls;
    size_t tool_calls_length;
};

struct assembly {
    enum operation operation;
    size_t bytes_max;
    size_t bytes; /* text gathered over all choices */
    json_t *head; /* id, created, model …, of the first chunk that has them */
    json_t *usage;
    struct choice *choices;
    size_t choices_length;
};

int assembly_create(enum operation operation, size_t bytes_max, struct assembly **ret_assembly)
{
    struct assembly *assembly = calloc(1, sizeof(*assembly));
    json_t *head = json_object();
    if (assembly == NULL || head == NULL) {
        free(assembly);
        json_decref(head);
        return -ENOMEM;
    }
    assembly->operation = operation;
    assembly->bytes_max = bytes_max;
    assembly->head = head;
    *ret_assembly = assembly;
    return 0;
}

static void choice_finish(struct choice *choice)
{
    json_decref(choice->message);
    json_decref(choice->finish_reason);
    json_decref(choice->logprobs);
    json_decref(choice->others);
    for (size_t i = 0; i < choice->texts_length; i++) {
        free(choice->texts[i].name);
        bytes_finish(&choice->texts[i].value);
    }
    for (size_t i = 0; i < choice->tool_calls_length; i++) {
        json_decref(choice->tool_calls[i].object);
        bytes_finish(&choice->tool_calls[i].arguments);
    }
    free(choice->tool_calls);
}

void assembly_destroy(struct assembly **assembly)
{
    struct assembly *old = TAKE(*assembly);
    if (old == NULL) {
        return;
    }
    for (size_t i = 0; i < old->choices_length; i++) {
        choice_finish(&old->choices[i]);
    }
    free(old->choices);
    json_decref(old->head);
    json_decref(old->usage);
    free(old);
}

/* ---- taking in ---- */

/* Makes room up to `index`. Errors: -EMSGSIZE, -ENOMEM. */
static int choice_at(struct assembly *assembly, size_t index, struct choice **ret_choice)
{
    if (index >= ASSEMBLY_CHOICES_MAX) {
        return -EMSGSIZE;
    }
    if (index >= assembly->choices_length) {
        struct choice *choices = realloc(assembly->choices, (index + 1) * sizeof(*choices));
        if (choices == NULL) {
            return -ENOMEM;
        }
        memset(choices + assembly->choices_length, 0,
               (index + 1 - assembly->choices_length) * sizeof(*choices));
        assembly->choices = choices;
        assembly->choices_length = index + 1;
    }
    struct choice *choice = &assembly->choices[index];
    if (choice->message == NULL) {
        choice->message = json_object();
    }
    choice->is_seen = true;
    *ret_choice = choice;
    return choice->message == NULL ? -ENOMEM : 0;
}

static int tool_call_at(struct choice *choice, size_t index, struct tool_call **ret_call)
{
    if (index >= ASSEMBLY_TOOL_CALLS_MAX) {
        return -EMSGSIZE;
    }
    if (index >= choice->tool_calls_length) {
        struct tool_call *calls = realloc(choice->tool_calls, (index + 1) * sizeof(*calls));
        if (calls == NULL) {
            return -ENOMEM;
        }
        memset(calls + choice->tool_calls_length, 0,
               (index + 1 - choice->tool_calls_length) * sizeof(*calls));
        choice->tool_calls = calls;
        choice->tool_calls_length = index + 1;
    }
    struct tool_call *call = &choice->tool_calls[index];
    if (call->object == NULL) {
        call->object = json_object();
    }
    *ret_call = call;
    return call->object == NULL ? -ENOMEM : 0;
}

/* Errors: -EBADMSG no index or a negative one. A missing index is the only one. */
static int read_index(const json_t *object, size_t *ret_index)
{
    const json_t *value = json_object_get(object, "index");
    if (value == NULL) {
        *ret_index = 0;
        return 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return -EBADMSG;
    }
    *ret_index = (size_t)json_integer_value(value);
    return 0;
}

static int grow(struct assembly *assembly, struct bytes *bytes, const char *text, size_t length)
{
    if (length > assembly->bytes_max - assembly->bytes) {
        return -EMSGSIZE;
    }
    bytes->bytes_max = assembly->bytes_max;
    int r = bytes_append(bytes, text, length);
    if (r == 0) {
        assembly->bytes += length;
    }
    return r;
}

static int choice_grow_text(struct assembly *assembly, struct choice *choice, const char *name,
                            const char *text, size_t length)
{
    for (size_t i = 0; i < choice->texts_length; i++) {
        if (strcmp(choice->texts[i].name, name) == 0) {
            return grow(assembly, &choice->texts[i].value, text, length);
        }
    }
    if (choice->texts_length == ASSEMBLY_TEXTS_MAX) {
        return -EMSGSIZE;
    }
    char *copy = strdup(name);
    if (copy == NULL) {
        return -ENOMEM;
    }
    struct text *added = &choice->texts[choice->texts_length++];
    *added = (struct text){.name = copy};
    return grow(assembly, &added->value, text, length);
}

static int tool_call_add(struct assembly *assembly, struct choice *choice, json_t *delta)
{
    size_t index = 0;
    struct tool_call *call = NULL;
    int r = json_is_object(delta) ? read_index(delta, &index) : -EBADMSG;
    r = r < 0 ? r : tool_call_at(choice, index, &call);
    if (r < 0) {
        return r;
    }
    const char *name;
    json_t *value;
    json_object_foreach (delta, name, value) {
        if (strcmp(name, "index") == 0 || strcmp(name, "function") == 0 || json_is_null(value)) {
            continue;
        }
        if (json_object_set(call->object, name, value) < 0) {
            return -ENOMEM;
        }
    }
    json_t *function = json_object_get(delta, "function");
    const json_t *function_name = json_object_get(function, "name");
    if (json_is_string(function_name)) {
        json_t *named = json_pack("{s:O}", "name", function_name);
        if (named == NULL || json_object_set_new(call->object, "function", named) < 0) {
            return -ENOMEM;
        }
    }
    const json_t *arguments = json_object_get(function, "arguments");
    return json_is_string(arguments) ? grow(assembly, &call->arguments, json_string_value(arguments),
                                            json_string_length(arguments))
                                     : 0;
}

static int tool_calls_add(struct assembly *assembly, struct choice *choice, const json_t *deltas)
{
    size_t i;
    json_t *delta;
    json_array_foreach (deltas, i, delta) {
        int r = tool_call_add(assembly, choice, delta);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int delta_add(struct assembly *assembly, struct choice *choice, json_t *delta)
{
    const char *name;
    json_t *value;
    json_object_foreach (delta, name, value) {
        int r = 0;
        if (strcmp(name, "tool_calls") == 0) {
            r = tool_calls_add(assembly, choice, value);
        } else if (json_is_string(value) && strcmp(name, "role") != 0) {
            r = choice_grow_text(assembly, choice, name, json_string_value(value),
                                 json_string_length(value));
        } else if (!json_is_null(value)) {
            r = json_object_set(choice->message, name, value) < 0 ? -ENOMEM : 0;
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* logprobs come as {"content":[…]}: lists grow. */
static int logprobs_add(struct choice *choice, json_t *logprobs)
{
    if (choice->logprobs == NULL) {
        choice->logprobs = json_deep_copy(logprobs);
        return choice->logprobs == NULL ? -ENOMEM : 0;
    }
    const char *name;
    json_t *value;
    json_object_foreach (logprobs, name, value) {
        json_t *old = json_object_get(choice->logprobs, name);
        int r = json_is_array(old) && json_is_array(value)
                    ? json_array_extend(old, value)
                    : json_object_set(choice->logprobs, name, value);
        if (r < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* The last that was said of each; an empty object says nothing. */
static int others_add(struct choice *choice, json_t *part)
{
    static const char *const known[] = {"index", "delta", "text", "logprobs", "finish_reason"};
    const char *name;
    json_t *value;
    json_object_foreach (part, name, value) {
        bool is_known =
            json_is_null(value) || (json_is_object(value) && json_object_size(value) == 0);
        for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
            is_known = is_known || strcmp(name, known[i]) == 0;
        }
        if (is_known) {
            continue;
        }
        if (choice->others == NULL) {
            choice->others = json_object();
        }
        if (json_object_set(choice->others, name, value) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int choice_add(struct assembly *assembly, json_t *part)
{
    size_t index = 0;
    struct choice *choice = NULL;
    int r = json_is_object(part) ? read_index(part, &index) : -EBADMSG;
    r = r < 0 ? r : choice_at(assembly, index, &choice);
    r = r < 0 ? r : delta_add(assembly, choice, json_object_get(part, "delta"));
    const json_t *text = json_object_get(part, "text");
    if (r == 0 && json_is_string(text)) {
        r = choice_grow_text(assembly, choice, "text", json_string_value(text),
                             json_string_length(text));
    }
    json_t *logprobs = json_object_get(part, "logprobs");
    if (r == 0 && json_is_object(logprobs)) {
        r = logprobs_add(choice, logprobs);
    }
    json_t *reason = json_object_get(part, "finish_reason");
    if (r == 0 && json_string_length(reason) > 0) { /* "" stands for none at some servers */
        json_decref(choice->finish_reason);
        choice->finish_reason = json_incref(reason);
    }
    return r < 0 ? r : others_add(choice, part);
}

/* Azure's chunks without text have an id "" and were created at 0. */
static bool says_nothing(const json_t *value)
{
    return value == NULL || json_is_null(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_integer(value) && json_integer_value(value) == 0);
}

static int head_add(struct assembly *assembly, json_t *chunk)
{
    const char *name;
    json_t *value;
    json_object_foreach (chunk, name, value) {
        if (strcmp(name, "choices") == 0 || strcmp(name, "usage") == 0 || says_nothing(value) ||
            json_object_get(assembly->head, name) != NULL) {
            continue;
        }
        if (json_object_set(assembly->head, name, value) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

int assembly_add(struct assembly *assembly, const json_t *chunk)
{
    json_t *choices = json_object_get(chunk, "choices");
    if (!json_is_object(chunk) || (choices != NULL && !json_is_array(choices))) {
        return -EBADMSG;
    }
    int r = head_add(assembly, (json_t *)chunk);
    size_t i;
    json_t *part;
    json_array_foreach (choices, i, part) {
        r = r < 0 ? r : choice_add(assembly, part);
    }
    json_t *usage = json_object_get(chunk, "usage");
    if (r == 0 && json_is_object(usage)) {
        json_decref(assembly->usage);
        assembly->usage = json_incref(usage);
    }
    return r;
}

int assembly_add_content(struct assembly *assembly, size_t choice, const char *text, size_t bytes)
{
    struct choice *at = NULL;
    int r = choice_at(assembly, choice, &at);
    return r < 0 ? r : choice_grow_text(assembly, at, "content", text, bytes);
}

static bool is_said(const json_t *value)
{
    return json_string_length(value) > 0 || json_array_size(value) > 0 ||
           json_object_size(value) > 0;
}

static bool choice_has_token(const json_t *choice)
{
    const char *name;
    json_t *value;
    if (json_is_string(json_object_get(choice, "finish_reason")) ||
        is_said(json_object_get(choice, "text"))) {
        return true;
    }
    json_object_foreach (json_object_get(choice, "delta"), name, value) {
        if (strcmp(name, "role") != 0 && is_said(value)) {
            return true;
        }
    }
    return false;
}

/* Of a response's stream, where every event says its type. */
static bool event_has_token(const char *type)
{
    static const char *const openings[] = {"response.created", "response.queued",
                                           "response.in_progress", "response.output_item.added",
                                           "response.content_part.added"};
    for (size_t i = 0; i < ARRAY_LENGTH(openings); i++) {
        if (strcmp(type, openings[i]) == 0) {
            return false;
        }
    }
    return true;
}

bool assembly_chunk_has_token(const json_t *chunk)
{
    const char *type = json_string_value(json_object_get(chunk, "type"));
    if (type != NULL) {
        return event_has_token(type);
    }
    size_t i;
    json_t *choice;
    json_array_foreach (json_object_get(chunk, "choices"), i, choice) {
        if (choice_has_token(choice)) {
            return true;
        }
    }
    return false;
}

bool assembly_is_complete(const struct assembly *assembly)
{
    bool is_complete = assembly->choices_length > 0;
    for (size_t i = 0; i < assembly->choices_length; i++) {
        is_complete = is_complete && assembly->choices[i].finish_reason != NULL;
    }
    return is_complete;
}

/* ---- giving out ---- */

static json_t *bytes_to_json(const struct bytes *bytes)
{
    return json_stringn(bytes->data == NULL ? "" : bytes->data, bytes->length);
}

static json_t *tool_calls_to_json(const struct choice *choice)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < choice->tool_calls_length; i++) {
        json_t *call = json_deep_copy(choice->tool_calls[i].object);
        json_t *function = json_object_get(call, "function");
        if (function == NULL) {
            function = json_object();
            (void)json_object_set_new(call, "function", function);
        }
        (void)json_object_set_new(function, "arguments",
                                  bytes_to_json(&choice->tool_calls[i].arguments));
        (void)json_array_append_new(list, call);
    }
    return list;
}

/* The growing members, set into `object`. Errors: -ENOMEM. */
static int texts_to_json(const struct choice *choice, json_t *object)
{
    for (size_t i = 0; i < choice->texts_length; i++) {
        if (json_object_set_new(object, choice->texts[i].name,
                                bytes_to_json(&choice->texts[i].value)) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static json_t *message_to_json(const struct choice *choice)
{
    json_t *message = json_copy(choice->message);
    if (message == NULL || texts_to_json(choice, message) < 0) {
        json_decref(message);
        return NULL;
    }
    if (json_object_get(message, "role") == NULL) {
        (void)json_object_set_new(message, "role", json_string("assistant"));
    }
    if (json_object_get(message, "content") == NULL) {
        (void)json_object_set_new(message, "content", json_null());
    }
    if (choice->tool_calls_length > 0) {
        (void)json_object_set_new(message, "tool_calls", tool_calls_to_json(choice));
    }
    return message;
}

static json_t *choice_to_json(const struct assembly *assembly, size_t index)
{
    const struct choice *choice = &assembly->choices[index];
    json_t *object = json_pack("{s:I, s:O?, s:O*}", "index", (json_int_t)index, "finish_reason",
                               choice->finish_reason, "logprobs", choice->logprobs);
    if (object == NULL) {
        return NULL;
    }
    int r = assembly->operation == OPERATION_CHAT
                ? json_object_set_new(object, "message", message_to_json(choice))
                : texts_to_json(choice, object);
    if (r == 0 && choice->others != NULL) {
        r = json_object_update_missing(object, choice->others);
    }
    if (r < 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

int assembly_answer(const struct assembly *assembly, json_t **ret_answer)
{
    json_t *answer = json_copy(assembly->head);
    json_t *choices = json_array();
    int r = json_object_set_new(answer, "choices", choices);
    for (size_t i = 0; r == 0 && i < assembly->choices_length; i++) {
        r = assembly->choices[i].is_seen
                ? json_array_append_new(choices, choice_to_json(assembly, i))
                : 0;
    }
    if (r == 0 && assembly->operation == OPERATION_CHAT) {
        r = json_object_set_new(answer, "object", json_string("chat.completion"));
    }
    if (r == 0 && assembly->usage != NULL) {
        r = json_object_set(answer, "usage", assembly->usage);
    }
    if (r < 0) {
        json_decref(answer);
        return -ENOMEM;
    }
    *ret_answer = answer;
    return 0;
}

/* message → delta: the same members, tool calls with their index. */
static int choice_turn_to_delta(json_t *choice)
{
    json_t *message = json_object_get(choice, "message");
    if (!json_is_object(message)) {
        return -EBADMSG;
    }
    size_t i;
    json_t *call;
    json_array_foreach (json_object_get(message, "tool_calls"), i, call) {
        (void)json_object_set_new(call, "index", json_integer((json_int_t)i));
    }
    int r = json_object_set(choice, "delta", message);
    return r < 0 || json_object_del(choice, "message") < 0 ? -ENOMEM : 0;
}

static json_t *response_event(json_t *response)
{
    const char *status = json_string_value(json_object_get(response, "status"));
    const bool is_cut = status != NULL && strcmp(status, "incomplete") == 0;
    return json_pack("{s:s, s:i, s:O}", "type",
                     is_cut ? "response.incomplete" : "response.completed", "sequence_number", 0,
                     "response", response);
}

int assembly_chunk_of(const json_t *answer, enum operation operation, json_t **ret_chunk)
{
    json_t *chunk = operation == OPERATION_RESPONSES && json_is_object(answer)
                        ? response_event((json_t *)answer)
                        : json_deep_copy(answer);
    if (!json_is_object(chunk)) {
        json_decref(chunk);
        return chunk == NULL ? -ENOMEM : -EBADMSG;
    }
    int r = 0;
    if (operation == OPERATION_CHAT) {
        r = json_object_set_new(chunk, "object", json_string("chat.completion.chunk")) < 0 ? -ENOMEM
                                                                                           : 0;
        size_t i;
        json_t *choice;
        json_array_foreach (json_object_get(chunk, "choices"), i, choice) {
            r = r < 0 ? r : choice_turn_to_delta(choice);
        }
    }
    if (r < 0) {
        json_decref(chunk);
        return r;
    }
    *ret_chunk = chunk;
    return 0;
}
