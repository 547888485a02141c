/*
 * plant: mistakes that can be planted around the core, to show that the checks of the simulator can
 * fail.
 */
#pragma once
#include "common/attributes.h"

enum plant {
    PLANT_NONE,
    PLANT_DROP_PUT,         /* now and then the record of a job is not handed to the store */
    PLANT_KEEP_PAYLOAD,     /* payloads are not deleted */
    PLANT_EARLY_RELEASE,    /* answers go out before what they promise is durable */
    PLANT_LYING_SYNC,       /* a batch is said to be durable, and is not written */
    PLANT_FORGET_CONCLUDED, /* a restart does not read the concluded ids */
    PLANT_DOUBLE_DISPATCH,  /* a job is dispatched again while it is leased */
    PLANT_IGNORE_CREDIT,    /* the core hears of more credit than a worker gave */
    PLANT_IGNORE_DELAY,     /* the core does not hear of a job's delay */
    PLANT_IGNORE_DEADLINE,  /* … of its deadline */
    PLANT_IGNORE_PAUSE,     /* … of a pause */
    PLANT_IGNORE_POOL,      /* the core hears that every worker serves every pool */
    PLANT_CHANGE_RESULT,    /* an outcome differs when it is asked for again */
    PLANT_CROSS_TENANTS,    /* every client belongs to the first tenant */
    PLANT_LOSE_RESULT,      /* the record of a result is not handed to the store */
    PLANT_EQUAL_TENANTS,    /* the core is told that all tenants weigh the same */
    PLANT_EQUAL_TIERS,      /* … that all tiers do */
    PLANT_LOSE_CREDIT,      /* … not of some of the credit that workers give */
    PLANT_IGNORE_KEY,       /* … not of canonical keys */
    PLANT_WRONG_LEADER,     /* a result is said to be made for another job than it was */
    PLANT_HIDE_MISMATCH,    /* the core does not hear that a canonical key is wrong */
    PLANT_LOSE_CHUNK,       /* now and then a chunk is not sent on */
    PLANT_STREAM_TO_ALL,    /* the core hears that every client wants chunks */
    PLANT_KEEP_CONCLUSION,  /* of a dead letter that is requeued */
    PLANT_HIDE_COST,        /* the core does not hear what answers cost */
    PLANT_BLAME_INNOCENTS,  /* it hears of fewer losses that a job may have than are configured */
    PLANT_IGNORE_NEEDS,     /* the core does not hear of the abilities that a job needs */
    PLANTS,
};

const char *plant_name(enum plant plant);
/* Errors: -EINVAL no such plant. */
MUST_USE int plant_parse(const char *name, enum plant *ret_plant);
