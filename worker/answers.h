/*
 * answers: results of concluded attempts, kept until the broker says that it has them for good.
 *
 * Two lists: those to be sent, and those sent. A broker that is joined again has forgotten what it
 * did not conclude, so all sent ones are then to be sent again. In order of age; a broker concludes
 * in about that order, so finding one looks at the oldest first.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/blob.h"
#include "common/id.h"
#include "common/list.h"
#include "proto/wire.pb-c.h"

enum { ANSWER_CALLS_MAX = 3 }; /* of one attempt: one that it shared, its own, and one beside that */

struct answer {
    struct list_link link;
    struct id job_id;
    uint32_t attempt;
    uint64_t run;     /* as the attempt has it */
    uint32_t made_by; /* the attempt that made the call, where that is another; 0: this one */
    char *tenant, *tier; /* NULL: not known */
    int64_t made_ms;
    Wire__AttemptOutcome outcome;
    const char *error_code; /* static */
    char *error_text;       /* NULL: none */
    int64_t retry_after_ms;
    bool has_usage;
    Wire__Usage usage; /* provider and model are owned */
    struct answer_call {
        char *provider, *model; /* owned */
        Wire__Call call;
        bool has_limits;
        Wire__RateLimits limits;
    } calls[ANSWER_CALLS_MAX];
    size_t calls_length;
    bool calls_are_old; /* of `made_by`, and maybe told with it */
    bool key_mismatch;
    struct blob *payload; /* NULL: none */
};

struct answers {
    struct list unsent;
    struct list sent;
    uint64_t bytes; /* of all payloads kept */
};

void answers_init(struct answers *answers);
void answers_finish(struct answers *answers);

/* Takes: the answer. */
void answers_add(struct answers *answers, struct answer **answer);
struct answer *answers_next_unsent(struct answers *answers); /* the oldest; NULL: none */
void answers_sent(struct answers *answers, struct answer *answer);
/* The broker has it for good. False: it was not kept. */
bool answers_conclude(struct answers *answers, const struct id *job_id, uint32_t attempt);
void answers_unsend_all(struct answers *answers);
/*
 * The job is dispatched again although its answer is here: the broker has forgotten the attempt, or
 * not heard of its end. The answer becomes that of the new attempt, which has called nobody: its
 * calls are old. It is to be sent. False: no answer to this job is kept (failures are not answers).
 */
bool answers_renew(struct answers *answers, const struct id *job_id, uint32_t attempt);
/* It is a failure from now on, of a literal code and a text of the caller's (copied; left out without memory). */
void answers_fail(struct answers *answers, struct answer *answer, Wire__AttemptOutcome outcome, const char *code,
                  const char *text);
/* Drops what is older. Returns how many. */
size_t answers_drop_older(struct answers *answers, int64_t than_ms);
size_t answers_length(const struct answers *answers);
void answer_destroy(struct answer **answer);
