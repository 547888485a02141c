/*
 * assembly: the whole answer, put together from the chunks of a stream (OpenAI
 * "chat.completion.chunk", "text_completion").
 *
 * Every text member of a delta grows by what each chunk brings (content, refusal, reasoning_content
 * and what a provider adds tomorrow); tool calls grow by their index; role and finish_reason are
 * taken as they come, and of other members of a choice (content_filter_results, stop_reason) the last
 * is. Chunks are foreign: every index and size is bounded.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "common/attributes.h"
#include "worker/operation.h"

enum { ASSEMBLY_CHOICES_MAX = 128, ASSEMBLY_TOOL_CALLS_MAX = 128, ASSEMBLY_TEXTS_MAX = 16 };

struct assembly;

/* Errors: -ENOMEM. */
MUST_USE int assembly_create(enum operation operation, size_t bytes_max,
                             struct assembly **ret_assembly);
void assembly_destroy(struct assembly **assembly);
/* Errors: -EBADMSG no chunk; -EMSGSIZE the answer outgrows bytes_max or a bound above; -ENOMEM. */
MUST_USE int assembly_add(struct assembly *assembly, const json_t *chunk);
/*
 * As assembly_add() with a chunk whose head is known and that says nothing but this of that choice's
 * content. UTF-8. Errors: -EMSGSIZE, -ENOMEM.
 */
MUST_USE int assembly_add_content(struct assembly *assembly, size_t choice, const char *text,
                                  size_t bytes);
/*
 * Does it say anything a reader waits for: text, a tool call, a refusal, or the end? A role or an
 * empty text is none of it: many servers send those before the model has begun. So with the events
 * of a response's stream that only announce something.
 */
bool assembly_chunk_has_token(const json_t *chunk);
/* Every choice seen has its finish_reason, and there is one. */
bool assembly_is_complete(const struct assembly *assembly);
/* Gives: *ret_answer, a reference. Errors: -ENOMEM. */
MUST_USE int assembly_answer(const struct assembly *assembly, json_t **ret_answer);
/*
 * The other direction, for answers from the cache: the one chunk that says a whole answer; of a
 * response its last event.
 * Gives: *ret_chunk, a reference. Errors: -EBADMSG not an answer; -ENOMEM.
 */
MUST_USE int assembly_chunk_of(const json_t *answer, enum operation operation, json_t **ret_chunk);
