#include "worker/prompt/messages.h"

#include <errno.h>

#include "worker/prompt/token_count.h"
#include "worker/provider/member.h"

bool message_is(const json_t *message, const char *role)
{
    return member_is(message, "role", role);
}

bool message_is_system(const json_t *message)
{
    return message_is(message, "system") || message_is(message, "developer");
}

static int visit(json_t *holder, const char *name, message_text_fn *fn, void *context)
{
    json_t *text = json_object_get(holder, name);
    return json_is_string(text) ? fn(context, &(struct message_text){.text = text}) : 0;
}

int message_each_text(json_t *message, message_text_fn *fn, void *context)
{
    size_t i;
    json_t *part;
    int r = visit(message, "content", fn, context);
    json_array_foreach (json_object_get(message, "content"), i, part) {
        if (r == 0 && member_is(part, "type", "text")) {
            r = visit(part, "text", fn, context);
        }
    }
    return r;
}

int message_set_text(const struct message_text *text, const char *data, size_t bytes)
{
    return json_string_setn(text->text, data == NULL ? "" : data, bytes) < 0 ? -ENOMEM : 0;
}

static uint64_t text_tokens(const json_t *text, const struct bpe *bpe)
{
    return json_is_string(text)
               ? token_count(bpe, json_string_value(text), json_string_length(text))
               : 0;
}

uint64_t message_tokens(const json_t *message, const struct bpe *bpe)
{
    const json_t *content = json_object_get(message, "content");
    uint64_t tokens = MESSAGE_TOKENS + text_tokens(content, bpe);
    size_t i;
    json_t *item;
    json_array_foreach (json_is_array(content) ? content : NULL, i, item) {
        tokens += member_is(item, "type", "image_url")
                      ? MESSAGE_IMAGE_TOKENS
                      : text_tokens(json_object_get(item, "text"), bpe);
    }
    json_array_foreach (json_object_get(message, "tool_calls"), i, item) {
        const json_t *function = json_object_get(item, "function");
        tokens += MESSAGE_TOKENS + text_tokens(json_object_get(function, "name"), bpe) +
                  text_tokens(json_object_get(function, "arguments"), bpe);
    }
    return tokens;
}
