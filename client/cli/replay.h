/*
 * replay: what a choice of models would have come to, for jobs whose outcomes with each model are known.
 *
 * A record is a JSON object on a line; those members that say something of the job have the names that they have for `tiermq submit
 * --file`, those of an outcome the names of its result lines, so that these can be put in as they are. Others are ignored.
 *   tier, route                  default: those of the command
 *   prompt_complexity            1 (simple) to 255; 0, or left out: not known
 *   input_tokens, output_tokens  expected; 0 and 256 when left out
 *   abilities                    names of common/choice.h
 *   residency, deadline          "30s", or seconds; default: the tier's
 *   outcomes                     {MODEL: {score (0 to 1), or right (true or false); latency_ms, or run_ms (default: not known); cost_nanousd
 *                                (default: of the tokens)}}
 *
 * The policy is the configuration's: the candidates of the route for the tier (config_candidates()), what a model must be able to do and the score of
 * common/choice.h, as if every model were up and idle, and each took as long as its 95th percentile in the file. Beside it: always the candidate with
 * the highest grade that can answer, and always the cheapest one. A record counts when each candidate that can answer it has an outcome: so all three
 * are measured on the same jobs. Its latency counts when that of each of the three outcomes is known.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "common/attributes.h"

struct config;

enum replay_policy { REPLAY_CONFIGURED, REPLAY_BEST, REPLAY_CHEAPEST, REPLAY_POLICIES };
enum replay_measure { REPLAY_QUALITY, REPLAY_COST_NANOUSD, REPLAY_LATENCY_MS, REPLAY_MEASURES };
enum { REPLAY_RECORDS_MAX = 1000000, REPLAY_LINE_BYTES_MAX = 1 << 20, REPLAY_MODELS_MAX = 16, REPLAY_ERROR_BYTES = 256, REPLAY_WHY_BYTES = 768 };

struct replay;

/* Keeps `config`, tier and route, the defaults. Errors: -ENOMEM. */
MUST_USE int replay_create(const struct config *config, const char *tier, const char *route, struct replay **ret_replay);
void replay_destroy(struct replay **replay);
/* Errors: -EINVAL (ret_error says what is wrong with the line), -ENOBUFS REPLAY_RECORDS_MAX are there, -ENOMEM. */
MUST_USE int replay_add(struct replay *replay, const char *line, size_t bytes, char ret_error[REPLAY_ERROR_BYTES]);
/* After the last record, once. Errors: -ENOMEM. */
MUST_USE int replay_run(struct replay *replay);

/* Of the records that count. */
size_t replay_length(const struct replay *replay);
/* The others: no model can answer it, or one that can has no outcome. */
size_t replay_left_out(const struct replay *replay);
/* Why they are, and what may be done about it; "" when there are none. */
void replay_explain_left_out(const struct replay *replay, char ret_why[REPLAY_WHY_BYTES]);
/* Of those that count: they do not say their complexity, and count as of 0.5. */
size_t replay_without_complexity(const struct replay *replay);
/* The values of the records that count: replay_length() of them, but of the latency fewer when it is not known of all. */
const double *replay_values(const struct replay *replay, enum replay_policy policy, enum replay_measure measure,
                            size_t *ret_length);
/* Calls `visit` with each model that a policy chose, and how often. */
void replay_visit_choices(const struct replay *replay, enum replay_policy policy,
                          void (*visit)(void *context, const char *model, size_t times), void *context);
