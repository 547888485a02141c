/*
 * decision: which upstream an attempt is to call, and why not another.
 *
 * Of the candidates of a job's queue (upstream.h) those are left out that cannot answer it at all:
 * a model that lacks an ability it needs, or is too small for it, a provider without a residency
 * label that it or its tenant needs, a model that its tenant may not use, one that has said that it
 * has no words for it. Of the others those that
 * it has tried in this round, and those that may not be called now. What is left is scored
 * (common/choice.h), or taken in the order of the list; the best is the decision.
 *
 * A queue may have no candidates: its route was taken out of the configuration, or names no model.
 * Then a worker chooses by its own; but never for a job that a label or its tenant's list binds,
 * of which there is no hope. Nor is there for one whose tenant no configuration of this run has
 * named: what it may use is not known.
 *
 * Jobs whose prompts begin alike (struct job's `prefix`) go to one provider of those that are
 * equally good, since it has the work for that beginning in its prompt cache: of those that may be
 * called now, have the grade and the expected price of the best, and a score at most
 * routing.prefix_weight below its, the one that comes first in an order that the prefix alone makes
 * (rendezvous hashing: one that goes or comes moves its own jobs only) and that has no more than
 * its share of calls (five quarters of the mean). Not where a list's order decides.
 *
 * Where the core learns (lessons.h), grades are those that a model has shown at the job's task, and some jobs go to the one of which least is known,
 * among those that may be called now.
 *
 * The latest EXPLANATIONS decisions that had a choice are kept in words.
 */
#pragma once
#include "broker/core/upstream.h"
#include "common/choice.h"

enum {
    EXPLANATIONS = 1024,
    EXPLANATION_BYTES = 640,
    DECISION_NOWHERE = CONFIG_RESIDENCIES_MAX + 1,
    TASKS_MAX = UINT8_MAX, /* of a tenant: struct job has a byte */
    TASK_BYTES_MAX = 64,
};

enum decision_lost {
    LOST_NOT,       /* chosen */
    LOST_SCORE,     /* another one is better */
    LOST_PREFIX,    /* another one, as good, is where prompts go that begin alike */
    LOST_ORDER,     /* another one comes first */
    LOST_BUDGET,    /* a cheaper one is taken, since its budget is nearly spent: budget.h */
    LOST_BLOCKED,   /* it may not be called now: down, limited, or as many calls as may be */
    LOST_TRIED,     /* it failed the job in this round */
    LOST_CANNOT,    /* verdict says why */
    LOST_FORBIDDEN, /* to its tenant */
    LOST_UNSAID,    /* it has said that it has no words for it */
};

/* Whether the chosen one was taken for how the prompt begins. */
enum decision_prefix {
    PREFIX_ALONE, /* it begins with nothing that is kept, or none is as good as the best */
    PREFIX_HOME,  /* the first, of equally good ones, for prompts that begin so */
    PREFIX_AWAY,  /* the next, since that one has more than its share of calls */
};

struct decision {
    struct upstream *chosen; /* NULL: none, now */
    int64_t at_ms;    /* none: when one may be called that it has not tried; INT64_MAX: it has tried
                         all that can */
    bool is_hopeless; /* no candidate can answer it at all, nor may a worker choose */
    bool is_picky;    /* some cannot: what this job waits for, others need not */
    bool is_scored;
    bool has_other;        /* besides the chosen one another may be called now */
    bool is_explored;        /* another one was better: this one is tried to know more of it */
    bool is_downgraded;      /* another one was better: this one is cheaper (budget.h) */
    enum decision_prefix prefix;
    uint32_t quality_lost; /* grades of the chosen one below what would be if all went well */
    struct choice_job job;
    struct choice_weights weights;
    const struct tenant *tenant; /* whose job it is */
    size_t length;
    struct decision_item {
        struct upstream *upstream;
        enum decision_lost lost;
        enum choice_verdict verdict;
        struct choice_score score; /* with LOST_NOT to LOST_TRIED of those that are scored; so, too: */
        struct learned learned;
    } items[CANDIDATES_MAX];
};

/*
 * As struct job_needs has the label; 0: it is NULL or empty. DECISION_NOWHERE: it is not known.
 */
uint8_t decision_residency(const struct core *core, const char *label);
/*
 * A record or a tenant has it (NULL, "": none): known from now on, as far as there is room, also when no provider has it.
 * Errors: -ENOMEM.
 */
MUST_USE int decision_keep_residency(struct core *core, const char *label);
/* Whether a provider has it; also of none. */
bool decision_residency_is_somewhere(const struct core *core, uint8_t residency);
/* The label; "" none. */
const char *decision_residency_name(const struct core *core, uint8_t residency);
/* At most TASK_BYTES_MAX, or NULL. */
bool decision_task_is_good(const char *task);
/*
 * As struct job has the task, which its tenant's table keeps from now on; 0: none. So it is for one
 * that is not good, that no memory is left for, and for those beyond the tenant's first TASKS_MAX
 * different ones: their jobs are of no task.
 */
uint8_t decision_task(const struct core *core, struct tenant *tenant, const char *task);
const char *decision_task_name(const struct tenant *tenant, uint8_t task);

/* With the configuration's tenants: who may use what. Errors: -ENOMEM. */
MUST_USE int decision_configure(struct core *core, const struct config *config);
void decision_destroy(struct core *core);

/* For a job that is pending. Nothing is taken of any limit. */
void decision_make(struct core *core, const struct job *job, struct decision *ret_decision);
/* The candidates that can answer the job, now or later: upstream_bit(). */
uint16_t decision_able(const struct decision *decision);
/* For a job that is called at `first`, beside which it may call another provider: one that is not down. */
void decision_make_beside(struct core *core, const struct job *job, const struct upstream *first, struct decision *ret_decision);
/* No candidate can answer it, now or later: decision.is_hopeless. */
bool decision_is_hopeless(const struct core *core, const struct job *job);
/* The one that decision_make() would choose; NULL: none, and *ret_at_ms as there. */
struct upstream *decision_choose(struct core *core, const struct job *job, int64_t *ret_at_ms);
/* The grades that would be lost with another of its items, which may be called now. */
uint32_t decision_lost_with(const struct decision *decision, const struct decision_item *item);
/*
 * The grades that the job, which is pending, loses by this answer to an identical one, which may
 * have wanted another model. What no candidate has answered loses what it says itself.
 */
uint32_t decision_quality_lost(struct core *core, const struct job *job, const Wire__Usage *usage);
/* Why none of the candidates can answer a job, in words; the decision is hopeless. In the arena. */
const char *decision_complaint(struct core *core, const struct decision *decision);
/* The decision in words, kept for core_explain(). In the arena; "" when there was no choice. */
const char *decision_explain(struct core *core, const struct job *job,
                             const struct decision *decision);
/* Adds to the words kept for this attempt that it has a second call beside its first one. */
void decision_explain_second(struct core *core, const struct job *job,
                             const struct upstream *second);
