/*
 * shed: which jobs of an overloaded flow are given up, so that the others are served in time.
 *
 * CoDel (Nichols and Jacobson, RFC 8289): a queue may be long for a moment, but when every job that is taken from it has
 * waited longer than the target for a whole interval, it stands, and jobs are shed from its head, ever faster (interval /
 * sqrt(count)), until waits are below the target again. Clients of a queue do not slow down as TCP does when one packet
 * is lost, so that law alone would take minutes against an overload of several times the capacity. Therefore, as
 * Facebook's servers do (folly's Codel; Maurer, "Fail at Scale", ACM Queue 13.8), while it is overloaded no job is served that
 * has waited longer than twice the target; nor one that can no longer be answered by its deadline. Oldest first stays the order:
 * these jobs have deadlines, and newest first would let each of the others wait for its own.
 *
 * One state for each flow (RFC 8290): a tenant that waits little beside another's flood loses nothing, and the flood is
 * recognised although others are served at once. Pure: no clock, no core.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
    SHED_INTERVAL_LEAST_MS = 100, /* RFC 8289, 4.3: a round trip of the worst usual kind */
    SHED_INTERVAL_MOST_MS = 30000,
    SHED_LIMIT_TARGETS = 2,
};

/* Begins with zeros. */
struct shed {
    int64_t overloaded_at_ms; /* when waits will have been above the target for an interval; 0: they are not */
    int64_t next_ms;          /* while shedding: when the law asks for the next job */
    uint32_t count;           /* shed since it began */
    uint32_t count_before;    /* what it began from */
    bool is_shedding;
};

/* The job at the head, about to be dispatched. */
struct shed_look {
    int64_t target_ms; /* > 0 */
    int64_t now_ms;    /* > 0 */
    int64_t waited_ms; /* since it could have been dispatched */
    bool is_hopeless;  /* cannot be answered by its deadline */
    bool is_last;      /* nobody waits behind it: it is served, whatever it has waited */
};

/* Twice the target, within bounds. */
int64_t shed_interval_ms(int64_t target_ms);
/* True: shed it, and look at the next. False: serve it. */
bool shed_judge(struct shed *shed, const struct shed_look *look);
/* The queue ran empty. */
void shed_rest(struct shed *shed);
