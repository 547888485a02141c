/*
 * stage: one step of an attempt, in a module of its own.
 *
 * start() does what can be done at once. If it has to wait it says so, and resume() is called with
 * the event it waits for (or with its timer's); never from within start(). abandon() gives up what
 * start() began: after it no event may come. A stage that cannot do its work lets the attempt go on
 * when it can (a broken cache is a miss) and concludes it when it cannot.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "proto/wire.pb-c.h"

struct attempt;
struct cache_result;
struct provider_reply;

enum stage_verdict {
    STAGE_NEXT,      /* on with the next stage */
    STAGE_WAITS,     /* resume() follows */
    STAGE_CONCLUDES, /* attempt->outcome is set; the stages that follow are passed over, but for
                        one that stands in */
};

struct stage_event {
    enum {
        STAGE_EVENT_TIMER,
        STAGE_EVENT_CACHE,
        STAGE_EVENT_VECTOR,
        STAGE_EVENT_REPLY,
        STAGE_EVENT_HEDGE, /* a second call may be made */
        STAGE_EVENT_HEDGE_REPLY,
        STAGE_EVENT_COMBINED, /* the call that it shared is over, or none was made */
        STAGE_EVENT_ROOM, /* its turn in the provider's line has come */
    } kind;
    union {
        struct cache_result *cache;   /* its entry may be taken */
        const float *vector;          /* of its text; NULL: the embedder has failed */
        struct provider_reply *reply; /* its body may be taken; also of HEDGE_REPLY */
        const Wire__HedgeGrant *hedge;
    } as;
};

struct stage {
    const char *name;
    void *module;
    enum stage_verdict (*start)(void *module, struct attempt *attempt);
    enum stage_verdict (*resume)(void *module, struct attempt *attempt,
                                 const struct stage_event *event); /* NULL: never waits */
    void (*abandon)(void *module, struct attempt *attempt);        /* NULL: never waits */
    bool stands_in; /* entered when one before it concludes without an answer; else passed over */
};
