/*
 * defect: submissions that the broker must refuse, each for its own reason. Their ids name no job
 * of the run, but the defect.
 */
#pragma once
#include "common/id.h"
#include "tests/simulation/simulation.h"

enum defect {
    DEFECT_NONE,
    DEFECT_STRANGER, /* nothing is wrong with it, but its client has not said hello */
    DEFECT_TIER,
    DEFECT_ROUTE,
    DEFECT_POOL,
    DEFECT_PRIORITY,
    DEFECT_PAYLOAD, /* has none */
    DEFECT_TOO_LARGE,
    DEFECT_ATTEMPTS,
    DEFECT_DELAY,
    DEFECT_DEADLINE,     /* has passed */
    DEFECT_LATE,         /* its delay is beyond its deadline */
    DEFECT_TOO_OLD,      /* made long before anything is remembered: only when ids were forgotten */
    DEFECT_OF_ITS_QUEUE, /* larger than all that its tier may hold: only where that is little */
    DEFECT_ABILITIES,    /* unknown ones */
    DEFECT_COMPLEXITY,
    DEFECT_RESIDENCY, /* a label that no provider ever has */
    DEFECTS,
};

/* A kind that is sure to be refused now. */
enum defect defect_throw(struct simulation *simulation);
struct id defect_id(const struct simulation *simulation, enum defect defect);
/* NONE: it is the id of something else. */
enum defect defect_of_id(const struct id *id);
/* Makes the submission of a good job bad. Gives *ret_payload, NULL: it keeps its own. */
void defect_apply(const struct simulation *simulation, enum defect defect, struct event *event,
                  struct blob **ret_payload);
/* The broker answered (EFFECT_ACCEPTED or EFFECT_REJECTED). */
void defect_see_answer(struct simulation *simulation, enum defect defect,
                       const struct message *message);
