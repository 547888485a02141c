/*
 * simulation: one run of a simulated cluster around the real core, in virtual time, from a seed.
 *
 * Clients, workers, a network, a store and an operator, all of which misbehave, around broker/core
 * as it is shipped. The oracle (oracle.h) watches what the core is told and what it answers. The
 * same options give the same run, event for event: trace.hash tells. See DESIGN: "The broker's core
 * has no I/O".
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/core.h"
#include "common/attributes.h"
#include "common/list.h"
#include "common/threshold.h"
#include "tests/simulation/dice.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/schedule.h"
#include "tests/simulation/storage.h"
#include "tests/simulation/trace.h"
#include "tests/simulation/upstream.h"

enum {
    QUIET_MS_MAX = 90 * 60000, /* after the faults have stopped everything must be settled within */
    FAULTS_MIN = 20,           /* that really happened, in a run of FAULTS_MINUTES or more */
    FAULTS_MINUTES = 30,
    RUNS_MAX = SCENARIO_SLOTS_MAX,
    ANSWERS_MAX = 16,
    HOLDS_MAX = 16,
    ALARMS_MAX = 64,
    DELETED_MAX = 1024,
    FAIR_QUEUES_MAX = 256,
    VIOLATION_BYTES = 256,
    INVALIDATING_MAX = 256, /* invalidations that a client waits for */
    EMBEDDERS = 2,
    EVIDENCE_TOLD = 64,
    EVIDENCE_CLASSES = SCENARIO_TENANTS * SCENARIO_TIERS * EMBEDDERS,
};
static const int64_t BEGIN_MS = 1000;
static const int64_t UNIX_BEGIN_MS = INT64_C(1790000000000);

/* How a client sees its job. */
enum view {
    VIEW_SENT,     /* not answered yet, or told to come again */
    VIEW_ACCEPTED, /* waits for the outcome */
    VIEW_DONE,     /* has it, or follows another job by its idempotency key */
    VIEW_REFUSED,
    VIEW_LOST, /* in memory, and its broker is gone: outcome unknown */
};

struct sim_job {
    /* What was asked for. */
    struct id id;
    uint32_t client, tenant, tier, route, key, priority; /* key 0: none */
    uint32_t pool;                                       /* 0: the tier's */
    uint32_t payload_bytes, attempts_max;
    uint64_t payload_digest;
    int64_t delay_ms, deadline_in_ms; /* deadline 0: the tier's */
    uint32_t tokens;                  /* estimated */
    bool is_durable, discard_result;
    bool is_poison, is_killer; /* fails wherever it runs; ends the worker that runs it */
    uint32_t canonical;        /* key; 0: none */
    bool is_mismatched;        /* it is not the key of its payload: workers say so */
    bool streams, gives_credit;
    /* Of flights.h. */
    uint32_t next_identical; /* + 1; 0: none */
    bool lacks_waiters;      /* for lack of memory: credit of one counts for nothing */
    bool runs_alone;         /* whatever its key says */
    bool is_cut;             /* its stream may have lost its beginning */
    uint64_t answer_digest;  /* of what it was shown, whoever it was made for */
    uint32_t shown_for;      /* NO_JOB: itself */
    struct {
        uint64_t peer;
        uint32_t attempt, next;
        uint64_t waiter; /* the latest connection that asked for its outcome in this life */
        uint64_t credit_peer, credit, sent;
    } stream;
    uint64_t life_turn;      /* of the broker, in which this one began */
    uint32_t lives;          /* before this one: an operator requeued it */
    uint32_t crashes, kills; /* leases that workers lost, and workers that it ended, in this life */
    uint64_t has_died; /* the incarnation in which it last became a dead letter; 0: it did not */
    /* The client's. */
    enum view view;
    int64_t ask_at_ms;
    uint32_t asked;
    /* Of degradation.h. */
    struct {
        bool is_open, is_probe;
        uint32_t upstream, attempt;
    } permit;          /* of its latest dispatch */
    struct {
        bool is_open;
        uint32_t upstream, attempt;
    } hedge;           /* of hedges.h: for a second call */
    uint32_t failures; /* that count, whatever the broker remembers of them */
    bool is_retry;     /* its next dispatch is one */
    /* Of flights.h: its leader has ended. */
    uint64_t ends_in_incarnation;
    int64_t ends_since_ms;
    /* Of attempts.h: counted from below, but losses_most. */
    struct {
        uint32_t failures, losses_least, losses_most;
        uint32_t failed_upstream; /* latest, and when */
        int64_t failed_ms;
        int64_t wait_until_ms; /* its worker was told to come again later */
        uint32_t answered_attempt;
    } told;
    uint64_t called_in_batch; /* of bill.h: the batch of its latest dispatch, or of its second call */
    bool is_unsaid; /* of needs.h: somebody has no words for it, in this life */
    /* Of flights.h: invalidations that workers had been told of, of its tenant, when it was submitted,
     * when its latest attempt was dispatched, and the one before. */
    uint64_t told_at_submission, told_at_dispatch, told_at_dispatch_before;
    bool may_follow_lost; /* it, or whom it follows, has lost its lease */
    bool is_made;       /* by a worker … */
    bool is_of_worker;  /* … and the broker has it from there */
    /* Of fairness.h. */
    bool is_waiting, is_chosen; /* chosen: its payload is loaded for a worker */
    uint64_t chosen_in_turn;
    struct list_link waiting_link, chosen_link;
    /* The oracle's: what the core was told … */
    bool is_submitted, is_cancelled;
    uint64_t submitted_incarnation; /* the latest */
    uint64_t first_incarnation;
    int64_t not_before_ms, not_before_max_ms, deadline_min_ms,
        deadline_max_ms; /* virtual time: earliest and latest that were named */
    /* … and what it said. */
    uint64_t acknowledged_incarnation; /* 0: not acknowledged */
    uint64_t current_conclusion_incarnation;
    Wire__JobState current_conclusion; /* in a record handed to the store; 0: none */
    Wire__JobState durable_conclusion; /* in a durable record */
    Wire__JobState shown;              /* to a client; 0: not yet */
    uint64_t shown_digest, shown_incarnation;
    bool is_shed;        /* it was given up in overload: shown, but not for good */
    bool result_is_gone; /* a client said that it has it, or it could not be read */
    bool has_spoilt_payload;
    bool is_on_disk;           /* its record is durable */
    uint32_t attempt_last;     /* dispatched in this incarnation */
    uint32_t answered_attempt; /* whose answer was its success; 0: not known */
    uint64_t answered_incarnation;
    struct {
        bool is_held;
        uint64_t peer;
        uint32_t attempt;
        int64_t renewed_ms;
        bool is_reclaimed;     /* its worker came back with it */
        struct list_link link; /* among the leases of its peer */
    } lease;
};

/* For an invalidation; `number` 0: on no connection yet, or any more. */
struct ask {
    int salt;
    uint64_t number;
};

struct sim_client {
    uint32_t index, tenant;
    uint64_t peer; /* 0: not connected */
    bool is_welcome;
    int64_t cut_until_ms;     /* a partition keeps everything from and to it */
    int64_t patient_until_ms; /* for the welcome of this connection */
    int64_t wake_at_ms;       /* planned; INT64_MAX: not at all */
    uint64_t wake_generation; /* of that plan; earlier ones are void */
    uint32_t hellos;          /* in a row without a welcome */
    uint32_t *open;           /* jobs whose view is SENT or ACCEPTED */
    uint32_t open_length;
    struct ask asks[INVALIDATING_MAX];
    uint32_t asks_length;
};

struct run {
    struct job_lease lease;
    bool is_cancelled, is_hung, streams;
    int64_t began_ms;
    int64_t ends_ms;   /* not before, unless it is cancelled */
    struct call call;  /* that it makes, and what will come of it; with a second one: the one that counts … */
    struct call other; /* … and this is the one beside it, if it is made */
};

struct answer {
    struct job_lease lease;
    Wire__AttemptOutcome outcome;
    struct call call, other;
    struct blob *payload;
    int64_t sent_ms;
};

enum worker_state { WORKER_UP, WORKER_DRAINING, WORKER_DOWN };

struct sim_worker {
    uint32_t index, slots, pools; /* it serves so many of the scenario's */
    char name[16];
    enum worker_state state;
    uint64_t life; /* a restart begins a new one */
    uint64_t peer;
    bool is_welcome;
    int64_t back_at_ms;
    int64_t cut_until_ms; /* as a client's */
    uint64_t wake_generation;
    uint32_t hellos; /* in a row without a welcome */
    uint64_t credit_total;
    struct run runs[RUNS_MAX];
    uint32_t runs_length;
    struct answer answers[ANSWERS_MAX]; /* until concluded; when full the oldest is forgotten */
    uint32_t answers_length;
    /* How far it has come with the invalidations; what of that survives it; of another store's. */
    struct {
        uint64_t sequence, saved;
        bool is_foreign;
    } cache;
    uint64_t newest[EVIDENCE_CLASSES]; /* epoch that it was told of */
    /* The oracle's. */
    struct list leases; /* that it holds by what the core was told and did */
    int64_t aside_until_ms;
    uint64_t known_as; /* the peer by which the core knows it; 0: none */
};

/* A connection, by the number of its peer; numbers are never used again. */
struct link {
    bool is_worker, is_lossy; /* lossy: something was lost, so it breaks soon */
    bool is_stranger;         /* nobody whom the broker may let in */
    uint32_t owner;
    uint64_t incarnation;              /* of the broker that it leads to */
    int64_t arrival_ms[2];             /* latest, from and to the broker */
    uint64_t credit_total, dispatched; /* of a worker, as the core was told and did */
    bool is_set_aside, is_draining;    /* it is given nothing for now, or any more */
    int64_t heard_ms;                  /* when the core heard of it last */
    /* Of invalidations.h: what a worker said that it had come to, and was told since. */
    uint64_t cache_said, cache_told;
    bool cache_is_foreign, has_cache_told;
    uint64_t evidence_digest[EVIDENCE_CLASSES]; /* of the sum that it was told */
    bool has_given_back;               /* a job, and has said nothing since: attempts.h */
};

/* Of fairness.h: somebody is seen to wait. */
struct backlog {
    struct sim_job *witness; /* NULL: nobody */
    uint64_t epoch;          /* grows when it may have been empty */
};

struct fair_flow {
    struct list waiting; /* jobs that may be ready */
    struct backlog backlog;
    int64_t served; /* tokens for its weight, scaled */
};

/* In which two wait both, and how far one was ahead of the other. */
struct interval {
    bool is_open;
    uint64_t epochs[2];
    int64_t low, high, latest;
};

struct fair_queue {
    struct fair_flow flows[SCENARIO_TENANTS];
    struct interval intervals[SCENARIO_TENANTS]; /* of pairs: their sum - 1 */
    bool is_touched;
    bool is_gated;    /* at the end of the turn gates_of_turn */
    int64_t gated_ms; /* then */
};

struct fair_lane {
    struct fair_queue queues[SCENARIO_ROUTES];
    struct backlog backlog;
    uint64_t dispatched;
    uint32_t loading;        /* payloads on the way */
    bool is_served;          /* in this turn */
    int64_t hungry_since_ms; /* a job waits and a slot is free; INT64_MAX: not so */
};

struct fairness {
    struct fair_lane lanes[SCENARIO_POOLS][SCENARIO_TIERS];
    struct interval intervals[SCENARIO_POOLS][SCENARIO_TIERS]; /* of pairs of tiers */
    uint32_t loading[SCENARIO_POOLS];
    uint64_t turn, gates_of_turn;
    struct list chosen; /* jobs */
    struct fair_queue
        *queues[FAIR_QUEUES_MAX]; /* by the core's order of them; NULL: of no known route */
    size_t queues_length;
    int64_t from_ms; /* before, recovered jobs wait for their workers */
};

/* In one second. */
struct spent {
    int64_t second, requests, tokens;
};

/* Of degradation.h. */
struct watched_upstream {
    bool is_down; /* the core said so, and not otherwise since */
    uint32_t probing_job, probing_attempt;
    int64_t probe_until_ms, answered_ms;
    uint32_t failures;                            /* in a row */
    uint32_t learned_per_min;                     /* requests, as it has said; 0: nothing */
    struct spent since_learned[UPSTREAM_SECONDS]; /* by second modulo their number */
    bool is_back;                                 /* from an outage … */
    int64_t back_ms, calls_since;                 /* … since when, and calls since then */
};

/* Of a limit a minute: what may be taken now, below 0 a debt. */
struct allowance {
    double level;
    int64_t at_ms;
};

struct watched_route {
    uint64_t firsts, retries; /* dispatches */
};

struct degradation {
    bool is_paused[SCENARIO_POOLS][SCENARIO_TIERS][SCENARIO_ROUTES];
    struct watched_upstream upstreams[SCENARIO_UPSTREAMS];
    struct watched_route routes[SCENARIO_ROUTES];
    uint64_t firsts, firsts_before; /* dispatches of jobs that had none; before the turn */
    double lowest_missing;          /* retries granted beyond what was earned for them */
    struct spent spent[SCENARIO_PROVIDERS][UPSTREAM_SECONDS]; /* by second modulo their number */
    struct allowance requests[SCENARIO_PROVIDERS], tokens[SCENARIO_PROVIDERS];
    uint64_t dispatches[SCENARIO_TIERS], hedges[SCENARIO_TIERS]; /* of hedges.h: since the start */
    int64_t since_ms;      /* the start of the core */
    bool may_count, holds; /* of the end of an attempt that is being told */
};

/* Of attempts.h: of what is being told. */
struct attempts {
    bool is_draining;
    const char *leaving; /* a worker that says goodbye; NULL: none does */
    struct {
        uint32_t job, attempts;
    } left[RUNS_MAX]; /* that it holds, and how many attempts they count, the one under way included
                       */
    uint32_t left_length;
    bool is_known, was_pending, was_held; /* the worker; the job; by that worker */
    uint32_t probed;        /* the upstream whose probe ends; SCENARIO_UPSTREAMS: none … */
    bool is_permitted;      /* … that was not lost meanwhile, and decides */
    uint32_t silent_probes; /* a bit for each upstream whose latest probe ends without a word */
    uint32_t failed_probes[SCENARIO_UPSTREAMS]; /* in a row */
    int64_t rests_until_ms[SCENARIO_UPSTREAMS]; /* as it has said */
    uint32_t
        failed_in_a_row[SCENARIO_UPSTREAMS]; /* since it answered anybody, by whosoever fault */
    int64_t answered_ms[SCENARIO_UPSTREAMS];
};

/* Of invalidations.h. */
struct invalidation {
    uint64_t digest; /* of it as workers are told */
    uint32_t tenant; /* SCENARIO_TENANTS: of any */
};

struct answered_ask {
    uint32_t client;
    bool is_answered;
};

struct invalidations {
    struct invalidation *items; /* by number, from 1 */
    uint64_t length, capacity;
    uint64_t durable, told;
    uint64_t forgotten, forgotten_durable;
    uint64_t acknowledged; /* to whoever asked */
    uint64_t told_of[SCENARIO_TENANTS + 1];
    uint8_t epoch[16];
    struct answered_ask *asks; /* by number, from 1 */
    uint64_t asks_length, asks_capacity;
    uint64_t taken[SCENARIO_TENANTS]; /* of clients, since the start */
    uint64_t dropped;                 /* feedback, as the core says */
    bool has_dropped;                 /* what is being told */
};

/* Of evidence.h: NULL: nothing is known. */
struct watched_class {
    struct threshold_evidence *sum, *durable;
    uint64_t digest; /* of sum */
    bool has_seed, has_durable_seed;
};

/* As workers are told of it. */
struct told_sum {
    uint64_t bytes_digest, digest, newest;
    uint32_t which; /* class */
};

/* Of bill.c: what workers said that attempts cost. */
struct watched_bill {
    struct item *items;
    size_t length, capacity;
    uint64_t limited_nanousd;  /* of them, of the tenant with a budget */
    uint64_t unreserved;       /* its dispatches that were lost with their batch */
    uint64_t reserved_nanousd; /* as the core said last */
    bool has_lost_records;     /* they were spoilt: nothing is known of budgets */
};

enum { UPKEEP_TOLD = 256 };

/* Of upkeep.h: what there was. */
struct watched_upkeep {
    struct core_upkeep now, stored; /* stored: as the last batch on the disk has it */
    int64_t at_ms, told_ms;         /* up to when `now` has workers, and the store */
    uint64_t traffic_bytes;         /* of this run of the broker */
    uint64_t tellings;
    struct {
        uint64_t batch;
        struct core_upkeep sum;
    } told[UPKEEP_TOLD]; /* of this run, the oldest first */
    size_t length;
    bool has_lost_records; /* they were spoilt: nothing is known any more */
};

struct watched_evidence {
    struct watched_class classes[EVIDENCE_CLASSES];
    struct told_sum told[EVIDENCE_TOLD]; /* read lately, by bytes_digest modulo their number */
};

/* Of needs.h: as the core was told, of tenants by their number. */
struct watched_needs {
    const char *residency[SCENARIO_TENANTS];
    uint32_t allowed[SCENARIO_TENANTS], known; /* bits of upstreams; known: since the start */
    struct core_quality_lost lost[SCENARIO_TIERS][CORE_STEPS];
    bool was_pending;                                 /* the job of the answer that is being told */
    uint32_t unsupported_job, unsupported_by; /* upstream; of the answer that is being told */
    uint32_t latest, latest_attempt, latest_upstream; /* dispatch that had a choice in this turn */
};

struct hold {
    enum pause_subject subject;
    enum pause_mode mode;
    uint64_t index;   /* of the subject, among its kind */
    const char *name; /* of the scenario or a worker */
};

struct message_list {
    struct message *items;
    size_t length, capacity;
};

struct sim_broker {
    struct core *core;
    struct effects *effects;
    struct storage *storage;
    uint64_t incarnation;
    bool is_up, is_draining, store_is_down;
    bool core_store_is_down;  /* as the core was told */
    bool fails_at_submission; /* its store does, at the next one that it hears */
    int64_t drain_until_ms, loads_fail_until_ms;
    int64_t mono_base_ms;   /* of this incarnation's monotonic clock */
    int64_t mono_jumped_ms; /* by it, over the whole run */
    int64_t unix_offset_ms;
    int64_t
        told_ms; /* the latest time that the core was told, without the base: it never goes back */
    uint64_t batch_next, batch_durable;
    int64_t turn_at_ms;            /* planned; INT64_MAX: none */
    int64_t alarms_ms[ALARMS_MAX]; /* of tasks that will ask for one, the soonest last */
    uint32_t alarms_length;
    int64_t sync_at_ms;
    int64_t turned_ms;
    uint32_t turns_at_once; /* in the millisecond turned_ms */
    struct message_list inbox, held;
    struct hold holds[HOLDS_MAX]; /* in force, as far as the core was told */
    uint32_t holds_length;
    size_t examined;        /* effects of the turn that the oracle has seen */
    bool has_lacked_memory; /* the latest step */
    bool is_sweeping;       /* dead letters */
    bool is_to_shrink;      /* bounds were lowered, perhaps, and are not kept yet */
    bool has_damage;        /* it has read spoilt records at its start */
    uint64_t turns;
    bool is_late;   /* the answer that is being told: its job is concluded */
    bool concludes; /* it does */
};

/* What really happened to it. */
struct tally {
    uint64_t faults[FAULTS];
    uint64_t lost, duplicated, overtaken; /* messages */
    uint64_t undeliverable, loads_failed;
    uint64_t followed, chunks;            /* results made for another job, chunks let go */
    uint64_t requeued, late, poisoned;    /* lives, answers after a conclusion, jobs condemned */
    uint64_t damaged;                     /* records that were read */
    uint64_t memory_short, refused, shed; /* events without memory, defects found, jobs given up */
    uint64_t hedges_granted, hedges_given_back; /* second calls */
    uint64_t both_billed, over_budget; /* attempts that two calls have cost something; jobs refused or expired */
    uint64_t downs, pauses, probes, retries, spared; /* breakers, queues, dispatches, attempts */
    uint64_t fair_tenants, fair_tiers, fair_slots;   /* comparisons that were made */
    uint64_t invalidated, caught_up, behind;  /* invalidations, welcomes with some, and without all */
    uint64_t picky, hopeless, given_up;       /* dispatches, refusals, dead letters, by needs */
    uint64_t deltas, sums, made;              /* of evidence, told, jobs that workers made */
};

struct simulation {
    struct scenario scenario;
    struct dice dice;
    struct schedule schedule;
    struct trace trace;
    int64_t now_ms, quiet_from_ms;
    bool is_quiet;
    uint64_t events, steps, checked_steps;
    struct tally tally;
    int64_t clock_jumped_ms; /* sum of all jumps, without sign */
    struct sim_job *jobs;
    uint32_t jobs_length;
    uint32_t
        *key_owners; /* by key and tenant: the job that was acknowledged under it; NO_JOB: none */
    uint32_t
        deleted[DELETED_MAX]; /* jobs whose records the batch deleted that is becoming durable */
    uint32_t deleted_length;
    /* Of flights.h: the latest job, + 1; 0: none. */
    uint32_t groups[SCENARIO_TENANTS][SCENARIO_TIERS][SCENARIO_POOLS][SCENARIO_ROUTES]
                   [SCENARIO_CANONICALS + 1];
    uint32_t check_next; /* the job that is looked at next */
    struct sim_client clients[SCENARIO_CLIENTS_MAX];
    struct sim_worker *workers;
    struct link **links; /* by peer - 1 */
    uint64_t links_length, links_capacity;
    struct sim_broker broker;
    struct upstream upstreams[SCENARIO_UPSTREAMS];
    struct fairness fairness;
    struct degradation degradation;
    struct attempts attempts;
    struct invalidations invalidations;
    struct watched_evidence evidence;
    struct watched_needs needs;
    struct watched_bill bill;
    struct watched_upkeep upkeep;
    uint64_t runs; /* attempts that workers began */
    char violation[VIOLATION_BYTES]; /* the first promise that was broken; empty: none */
};

/* What a run came to. */
struct outcome {
    uint64_t events, steps, hash;
    struct tally tally;
    uint32_t acknowledged, succeeded;
    bool has_crashed; /* the process that ran it */
    char violation[VIOLATION_BYTES];
};

void simulation_run(const struct options *options, enum trace_mode mode,
                    struct outcome *ret_outcome);

/* Faults that really happened, without those of single messages and what operators did. */
uint64_t tally_faults(const struct tally *tally);

/* For the modules of the simulator. */
PRINTF_LIKE(2, 3) void simulation_violate(struct simulation *simulation, const char *format, ...);
static inline void simulation_trace(struct simulation *simulation, const char *format, uint64_t a,
                                    uint64_t b, uint64_t c)
{
    trace_add(&simulation->trace, simulation->now_ms, format, a, b, c);
}
static inline bool simulation_hit(struct simulation *simulation, uint32_t permille)
{
    return !simulation->is_quiet && dice_hit(&simulation->dice, permille);
}
static inline bool simulation_plant(const struct simulation *simulation, enum plant plant)
{
    return simulation->scenario.options.plant == plant;
}
/* How long a peer waits for its welcome: longer each time. */
int64_t simulation_patience_ms(struct simulation *simulation, uint32_t hellos);
/* NO_JOB: an id that this run did not make. */
uint32_t simulation_job_of(const struct simulation *simulation, const struct id *id);
void message_list_add(struct message_list *list, const struct message *message);
void message_list_clear(struct message_list *list);
