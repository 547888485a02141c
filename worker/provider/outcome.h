/*
 * outcome: what a provider's reply means for the job. One table of judgement for all providers.
 *
 *   answered      200 with a whole answer, also one that a filter of the provider has cut
 *                 (finish_reason "content_filter"): it is whole, paid for, and says so itself
 *   rate limited  429; 498 (Groq) and 529 (Anthropic), which say "no capacity"; an error of such a
 *                 type with another status, in a 200 or in a stream. The wait comes from the
 *                 headers, the body or its words
 *   refused       an error that says the content is the reason: no provider is asked again
 *   rejected      400, 404, 413, 414, 415, 422 and other 4xx: the same request will never pass.
 * Also a 429 for a request that is larger than the whole limit unavailable   what another try, key
 * or provider may answer: no connection, reset, timeout, 3xx, 5xx (a 503 with Retry-After too: the
 * server is down for that long), 408, 409, 425, and a 200 that is empty, cut, no JSON, or carries
 * an error. 401, 402 and 403 too, and whatever says that the account is out of money: the key or
 * the account is at fault, not the job, and an operator can mend it while the job waits. Likewise a
 * 404 or 405 that says nothing of a model: the address is not the provider's
 */
#pragma once
#include <curl/curl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "proto/wire.pb-c.h"
#include "worker/operation.h"

enum { OUTCOME_TEXT_BYTES_MAX = 512, OUTCOME_RETRY_AFTER_MS_MAX = 24 * 3600 * 1000 };

struct outcome {
    Wire__AttemptOutcome kind;
    const char *code; /* static: a word for machines, "" when answered */
    char text[OUTCOME_TEXT_BYTES_MAX];
    int64_t retry_after_ms; /* 0: the provider did not say */
};

void outcome_set(struct outcome *outcome, Wire__AttemptOutcome kind, const char *code,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/*
 * The transfer failed. `is_past_deadline`: the job's own deadline ended it, not the provider's
 * timeout.
 */
void outcome_from_transport(CURLcode code, const char *detail, bool is_past_deadline,
                            struct outcome *ret_outcome);

/*
 * The transfer was whole. `body` may be NULL (not JSON); retry_after_ms is what the headers said, 0
 * nothing. A 2xx is answered only if `body` is an answer to `operation`.
 */
void outcome_from_reply(long status, enum operation operation, const json_t *body,
                        int64_t retry_after_ms, struct outcome *ret_outcome);

/* An error in the middle of a stream, or in a 200: {"message":…,"type":…,"code":…}, or a text. */
void outcome_from_error(const json_t *error, struct outcome *ret_outcome);

/* The call has reached nobody: that uses up no attempt of the job (broker/core/attempt.c). */
bool outcome_is_unreached(const struct outcome *outcome);

/* Did a filter of the provider cut this answer? It counts as one, but is none to be kept for
 * others. */
bool outcome_is_filtered(const json_t *answer);
