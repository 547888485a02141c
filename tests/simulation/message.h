/*
 * message: what travels between the simulated processes, and what the simulated broker hears from
 * its own store and operator. Plain data: jobs are named by their index in the run.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/effects.h"
#include "broker/core/event.h"
#include "tests/simulation/upstream.h"

enum { MESSAGE_LEASES_MAX = 32, NO_JOB = UINT32_MAX };

struct job_lease {
    uint32_t job;
    uint32_t attempt;
};

struct message {
    bool to_broker;
    enum event_kind event;   /* to the broker */
    enum effect_kind effect; /* from it */
    uint64_t peer;
    uint64_t batch; /* from the broker: what it waits for */
    uint32_t job, attempt;
    uint32_t other_job; /* ACCEPTED: known_as; NO_JOB: not set */
    int number; /* outcome, state, reason, error code, pause subject or mode, as the kind has it */
    int second;
    bool flag;            /* WAIT: status only; ACCEPTED: duplicate; STATUS: the job is to be known;
                             WORKER_GONE: it has said goodbye */
    uint64_t total;       /* credit, batch, load token */
    uint64_t digest;      /* of an outcome */
    int64_t time_ms;      /* retry after, deadline in; DISPATCH: hedge after */
    uint32_t upstream;    /* DISPATCH: that it may call; SCENARIO_UPSTREAMS: none is named */
    struct call call;     /* ATTEMPT_RESULT: the one that counts … */
    struct call other;    /* … and the one beside it, if it is made */
    struct blob *payload; /* owned by the message */
    struct {
        uint8_t held_length, answered_length;
        struct job_lease held[MESSAGE_LEASES_MAX], answered[MESSAGE_LEASES_MAX];
        uint64_t cache_sequence;
        bool cache_is_foreign;
    } * leases; /* owned by the message; NULL: none */
};

/* For the trace: a format of three PRIu64: peer, job, attempt (or the message's number). */
const char *message_format(const struct message *message);
void message_finish(struct message *message);
/* A second one that owns its own references. */
struct message message_copy(const struct message *message);
