/*
 * answer: a broker's word on a job as the caller sees it.
 *
 * An answer is first a view: its strings lie in the received message, and in what answer_read() had to unpack. Callbacks get
 * the view; the blocking calls copy it into one allocation of the caller's.
 */
#pragma once
#include <stddef.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "proto/wire.pb-c.h"

struct answer_view {
    struct tiermq_answer answer;
    Wire__ModelResponse *response; /* owned */
    char *text;                    /* owned */
};

/* An answer that no broker gave: state and reason of the library's own. Strings are borrowed. */
struct tiermq_answer answer_local(enum tiermq_state state, const char *error_code, const char *error_text);

/*
 * `payload` is the packed ModelResponse, NULL when there is none; one that cannot be decoded leaves the answer without body and
 * says so in error_text. Never fails otherwise: what memory does not allow is left out.
 */
void answer_read(const Wire__Result *result, const void *payload, size_t payload_bytes,
                 struct answer_view *ret_view);
void answer_view_finish(struct answer_view *view);

/* Gives: *ret_answer, one allocation, to be released with tiermq_answer_free(). Errors: -ENOMEM. */
MUST_USE int answer_copy(const struct tiermq_answer *answer, struct tiermq_answer **ret_answer);

enum tiermq_state answer_state(Wire__JobState state);
/* "queued", "backing_off" … "unknown"; as in DESIGN.md. */
const char *answer_state_name(Wire__JobState state);
/* "queue_full", "unknown_tier" … */
const char *answer_reject_name(Wire__RejectReason reason);
/* The text of the first choice of an OpenAI-format answer; NULL if it has none. Gives: to be released with free(). */
char *answer_text(const void *body, size_t bytes);
