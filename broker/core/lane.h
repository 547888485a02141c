/*
 * lane: what one tier has for one pool, and who is next.
 *
 * A lane holds queues (one for each route), a queue holds flows (one for each tenant), a flow holds ready jobs. Who is
 * next is decided from the outside in, each step O(log n) or better:
 *   tiers of a pool   stride scheduling by their share of dispatch; a tier that had nothing to do, or no slot it may use,
 *                     is owed a few dispatches at most
 *   routes of a lane  stride scheduling by the logarithm of their backlog: more for the longer queue, but a short one next
 *                     to a flood is not made to wait for all of it, as it would be by proportion
 *   tenants           deficit round robin in estimated tokens, a quantum times the tenant's weight a round
 *   jobs of a tenant  priority, then age
 * See DESIGN.md, "A job's life", promise 6.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/shed.h"
#include "broker/core/state.h"

enum {
    SHARE_ALL = 1 << 16,        /* the shares of all tiers together */
    QUANTUM_TOKENS = 1024,      /* of a tenant with weight 1, in each round */
    COST_TOKENS_MAX = 1 << 18,  /* a dearer job counts as this, so that rounds stay few */
};

struct flow {
    struct queue *queue;
    struct tenant *tenant;
    struct heap ready;          /* READY jobs */
    struct list_link in_ring;
    bool is_in_ring;
    bool keeps_turn;            /* it left the ring at its turn: lane_keep_turn() */
    uint64_t turn;              /* of those that keep theirs, in the order in which it came; 0: none */
    int64_t deficit_tokens;
    uint32_t jobs;              /* in any place */
    struct shed shed;
    struct crowd *crowds;       /* of those that wait by themselves: crowd.h; NULL: none */
};

struct queue {
    struct table_link by_key;
    struct lane *lane;
    struct name *route;
    struct flow **flows;        /* by tenant's index; NULL: none yet */
    size_t flows_length;
    struct list ring;           /* flows with ready jobs whose tenant is not held */
    uint64_t turns_kept;        /* the latest */
    uint32_t crowds;            /* of its flows */
    uint32_t position;          /* in lane.queues */
    uint64_t pass;
    uint64_t ready, backing_off, leased;
    uint32_t gate_position;     /* in core.gates */
    int64_t gated_until_ms;     /* while it is there */
    bool is_blocked;            /* nobody can serve it: paused, but for probes */
    struct drain_rate drain;    /* its own: a slow route is not the tier's mean */
    int64_t run_ms;             /* of attempts that succeed, smoothed; 0: not known */
    int64_t open_at_ms;         /* nobody can serve it until then; 0: open */
    int64_t opened_ms;          /* waiting counts from here; whoever opens it again sets this */
};

struct lane {
    struct tier *tier;
    struct pool *pool;
    struct heap queues;         /* with a ring that is not empty, and a route that is not held */
    uint64_t virtual_time;      /* of the sharing between its queues */
    int64_t pass;               /* in the sharing between tiers */
    struct list available;      /* seats of workers that would take a job of this tier */
    struct list loaded;         /* LOADED */
    size_t loading;             /* LOADING */
    size_t ahead_bytes;         /* of both */
    size_t crowd_ahead;         /* WAITING, with JOB_READ_AHEAD */
    size_t crowd_ahead_bytes;
    uint64_t stalled_in_turn;   /* the tick in which nothing more could be dispatched */
};

/* Shares of dispatch by weight, none below its minimum; they add up to SHARE_ALL or a little less. */
void lane_compute_shares(const struct config_tier *tiers, size_t length, uint32_t *ret_shares);

struct lane *lane_of(const struct core *core, const struct tier *tier, const struct pool *pool);
/* Finds or makes. NULL: no memory. */
struct flow *lane_flow(struct core *core, struct lane *lane, struct name *route, struct tenant *tenant);
/* Makes room for one more job. False: no memory. */
bool flow_reserve(struct flow *flow);

/* Jobs of a flow go in this order: priority, then age. */
static inline uint64_t lane_rank(uint32_t priority, uint64_t sequence)
{
    return (uint64_t)(9 - priority) << 56 | sequence;
}
/* A READY job goes as one of this priority from now on. */
void lane_raise(struct job *job, uint32_t priority);

/* For job_move(): in and out of READY. */
void lane_push(struct core *core, struct job *job);
void lane_remove(struct core *core, struct job *job);

/* The lane of this pool whose turn it is, of those that can dispatch now; NULL: none can. Charges nothing. */
struct lane *lane_choose(struct core *core, struct pool *pool);
void lane_charge_tier(struct lane *lane);
/* The ready job of this lane whose turn it is; NULL: none. */
struct job *lane_peek(struct lane *lane);
/* Takes the job that lane_peek() gave on account of its route and tenant. Called while it is still READY. */
void lane_charge(struct lane *lane, struct job *job);
/* For job_move(): a job that was charged waits again. Its tenant, which is no richer for it than by a quantum, gets it back. */
void lane_give_back(const struct job *job);

/*
 * The READY job, whose turn it is, has to wait by itself: if its flow has no other one, it comes
 * back to where it was, and so do others whose turn came after it. Otherwise flows whose jobs wait
 * for one upstream would be served in the order in which they come back, and one of them always last.
 */
void lane_keep_turn(const struct job *job);

bool lane_is_held(const struct core *core, const struct job *job); /* by route, tier, tenant or a gate */
/* After a pause or its end: queues and flows join or leave the choice. */
void lane_refresh_holds(struct core *core);
/* The same for one queue, whose gate has opened or closed. */
void queue_refresh(struct queue *queue);
static inline bool queue_is_gated(const struct queue *queue)
{
    return queue->gate_position != HEAP_NONE;
}

/* Whether it has work that may go now, apart from workers. */
bool lane_may_dispatch(const struct core *core, const struct lane *lane);

uint64_t lane_queue_hash(const struct table_link *link, uint64_t seed);
void lane_destroy_queues(struct core *core);
