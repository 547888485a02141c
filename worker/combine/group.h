/*
 * group: attempts that are to share one call, and the call that they share.
 *
 * Gathers, then waits for a connection like any other call (and gathers on, while there is room),
 * then calls. Each attempt ends by itself: it may leave at any time, and the last to leave ends the
 * call. What cannot be asked together after all, and what the answer does not prove to be an
 * attempt's own, goes on alone. What the call fails of otherwise, all have failed of; the broker is
 * told of it once, by the first. Attempts are resumed with STAGE_EVENT_COMBINED, their `shared`
 * filled. Belongs to the loop.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/config.h"
#include "common/list.h"
#include "proto/wire.pb-c.h"
#include "worker/combine/caution.h"
#include "worker/combine/inputs.h"
#include "worker/combine/pack.h"
#include "worker/provider/provider.h"

struct attempt;
struct group;
struct services;

enum {
    GROUP_BYTES_MAX = 1 << 20,        /* of inputs, or questions */
    GROUP_TOKENS_MAX = 64000,         /* of inputs, estimated */
    GROUP_QUESTION_BYTES_MAX = 16384, /* of all questions of a prompt */
};

/* What an attempt brings. */
struct part {
    bool is_question; /* else inputs */
    struct inputs inputs;
    struct question question;
    json_t *root; /* that the question borrows from; owned */
};
void part_finish(struct part *part);

/* A place in a group. */
struct combine_seat {
    struct group *group;     /* not owned */
    struct attempt *attempt; /* not owned; NULL: it has left */
    struct part part;
};

/* What all groups of a worker share; outlives them. */
struct groups {
    struct services *services; /* not owned */
    struct list open;          /* those that more may join */
    struct caution caution;
};

/* It is open as long as one more may join. `key`: of those that may; copied. Errors: -ENOMEM. */
MUST_USE int group_create(struct groups *groups, const char *key, size_t jobs_max,
                          struct group **ret_group);
/* An open one with this key and room for the part; one that has none is sent. NULL: there is none.
 */
struct group *group_find(struct groups *groups, const char *key, const struct part *part);
/* Takes: *part. The call is made by `due_ms` (monotonic), if a connection is free. Errors: -ENOMEM.
 */
MUST_USE int group_join(struct group *group, struct attempt *attempt, struct part *part,
                        int64_t due_ms);
/* Else it still waits for company, or for a connection. */
bool group_has_called(const struct combine_seat *seat);
/*
 * The attempt ends otherwise. The group may be gone. Tells the broker of the call by this attempt,
 * if it was the last.
 */
void group_leave(struct attempt *attempt, Wire__AttemptOutcome outcome, const char *code);
/* Nobody sits in it. */
void group_destroy(struct group **group);
