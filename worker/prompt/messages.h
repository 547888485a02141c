/*
 * messages: the messages of a chat in OpenAI's form, as the optimiser's levers look at them.
 *
 * A message's texts are its content where that is a text, else its parts of type text. Images,
 * audio, files, tool calls and their arguments are none: no lever reads or writes them.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct bpe;

bool message_is(const json_t *message, const char *role);
bool message_is_system(const json_t *message); /* system or developer */

/*
 * Called with each text of a message, in order; message_set_text() puts another one in its place.
 * Non-zero ends the walk, and is returned.
 */
struct message_text {
    json_t *text; /* borrowed */
};
typedef int message_text_fn(void *context, const struct message_text *text);
int message_each_text(json_t *message, message_text_fn *fn, void *context);
/* Errors: -ENOMEM. */
MUST_USE int message_set_text(const struct message_text *text, const char *data, size_t bytes);

/*
 * Tokens of a message: its texts, its tool calls, and the few that every message has
 * (MESSAGE_TOKENS). An image counts MESSAGE_IMAGE_TOKENS.
 */
enum { MESSAGE_TOKENS = 4, MESSAGE_IMAGE_TOKENS = 765 };
uint64_t message_tokens(const json_t *message, const struct bpe *bpe);
