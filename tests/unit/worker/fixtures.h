/*
 * fixtures: requests, replies and streams as providers publish them (tests/fixtures), and what a
 * protocol has to make of each.
 *
 * A folder there is one provider, and has its README.md with the source of each file. DIALECT is
 * the folder's name. Of each pair the second file is what the translation of the first must be:
 *   NAME.request.openai.json  NAME.request.DIALECT.json
 *   NAME.reply.DIALECT.json   NAME.reply.openai.json
 *   NAME.stream.DIALECT.sse   NAME.stream.openai.jsonl, a chunk on each line
 * Whatever does not hold fails the Criterion test it is called from, and says where. The
 * environment names the folder: TIERMQ_FIXTURES.
 */
#pragma once
#include <jansson.h>
#include "worker/provider/protocol.h"

/* A file's text, NUL-terminated; released with free(). `path` is below tests/fixtures. */
char *fixture_text(const char *path);
/* A file's JSON, a reference. */
json_t *fixture_json(const char *path);

/* Equal as json_equal() has it; else the first line that differs is told, of both, with `what`. */
void expect_json(const json_t *got, const json_t *wanted, const char *what);

/* `request` names all but the body: operation, model, stream. */
void expect_fixture_request(const struct protocol *protocol, const char *dialect, const char *name,
                            const struct provider_request *request);
/* A protocol without read_answer has to leave the reply as it is. */
void expect_fixture_reply(const struct protocol *protocol, const char *dialect, const char *name);
/* Also that the stream counts as ended behind its last event. */
void expect_fixture_stream(const struct protocol *protocol, const char *dialect, const char *name);

/*
 * NAME.stream.DIALECT.sse, and NAME.stream.answer.json: what the chunks make together, as
 * assembly.h puts it together. It has to be an answer to a chat.
 */
void expect_fixture_answer(const struct protocol *protocol, const char *dialect, const char *name);
/* Ends a stream that carries an error: the outcome that it has. */
struct outcome fixture_stream_outcome(const struct protocol *protocol, const char *dialect,
                                      const char *name);
/* DIALECT/NAME.error.json, the body of a reply to a chat with that status. */
struct outcome fixture_error_outcome(const char *dialect, const char *name, long status);
