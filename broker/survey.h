/*
 * survey: what an operator asks all workers at once, and their answers.
 *
 * The HTTP request waits, the loop does not: until every worker that was there has answered or left, or SURVEY_MS are over.
 * The answer is {"workers": [{"worker": …, and "answer" or "error": …}]}. Bounded in number. Belongs to the loop.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/http_admin.h"
#include "proto/wire.pb-c.h"

struct broker;
struct peer;
struct survey;
struct surveys;

enum { SURVEY_MS = 5000, SURVEYS_MAX = 16 };

MUST_USE int surveys_create(struct surveys **ret_surveys); /* Errors: -ENOMEM */
void surveys_destroy(struct surveys **surveys);

/* Takes: `argument`, NULL: no memory for it. */
void survey_ask(struct broker *broker, const struct http_request *request, struct http_response *response,
                const char *what, json_t *argument);
/*
 * For an invalidation that is recorded next: the answer is promised before, so that nobody is told to try again what was done. NULL, answered: too
 * many, or no memory. Then one of the two.
 */
struct survey *survey_promise(struct broker *broker, const struct http_request *request, struct http_response *response);
/* Waits until all have applied it. */
void survey_await_applied(struct broker *broker, struct survey *survey, uint64_t sequence);
/* It was not recorded: ends with this status and words. */
void survey_fail(struct survey *survey, int status, const char *why);

void surveys_take_answer(struct broker *broker, const struct peer *peer, const Wire__WorkerAnswer *answer);
void surveys_take_applied(struct broker *broker, const struct peer *peer, const Wire__CacheApplied *applied);
void surveys_worker_gone(struct broker *broker, const struct peer *peer);
/* Ends what has waited long enough. Returns when the next one will have; INT64_MAX never. */
int64_t surveys_tick(struct broker *broker, int64_t now_ms);
