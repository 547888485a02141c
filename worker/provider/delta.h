/*
 * delta: the next piece of a choice's text, read from an event of a stream without parsing all of
 * it.
 *
 * Of the hundreds of events of a stream nearly all are one form, in which only the text changes. So
 * one event is learned after it was parsed, and the next is compared with it: what equals the form
 * byte for byte is as good as the form was, and only its text is looked at. Members behind the
 * choices may differ where they tell nothing: numbers (llama.cpp's "created"), and OpenAI's
 * "obfuscation". Anything else is for the parser. See assembly.h.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "common/attributes.h"
#include "worker/bytes.h"

/* {.text.bytes_max = N} is an empty one, N the most of a form, and of a text. */
struct delta {
    struct bytes form; /* the event that was learned; empty: none */
    size_t before;     /* of the form, up to its text's opening quote, included */
    size_t after;      /* where it goes on, with the closing one */
    size_t choice;     /* the text's */
    struct bytes text; /* the piece that delta_read() found */
};
void delta_finish(struct delta *delta);

/* `chunk` is what the event says, parsed, without an error in it. The form is given up if the event
 * is none. */
void delta_learn(struct delta *delta, const json_t *chunk, const char *data, size_t bytes);
/* False: the event has to be parsed. Otherwise it is one line, and says delta->text of
 * delta->choice's "content", and nothing else. */
MUST_USE bool delta_read(struct delta *delta, const char *data, size_t bytes);
