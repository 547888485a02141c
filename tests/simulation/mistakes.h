/*
 * mistakes: what a developer might get wrong in broker/core, one at a time, to show that the checks
 * of the simulator can fail.
 *
 * tiermq-simulate-planted is tiermq-simulate, with functions of the core replaced at the linker
 * (-Wl,--wrap): each calls the real one, and does something else only while its mistake is on. So
 * the core is the shipped one, and knows nothing of this. Calls within one object file are not
 * replaced. Mistakes that are made around the core are in plant.h.
 */
#pragma once
#include <stdbool.h>

/* Name, and what the core does then. */
#define MISTAKES(X)                                                                                \
    /* attempts and leases */                                                                      \
    X(LATE_ANSWER_IGNORED, "late-answer-ignored",                                                  \
      "the answer of a lost lease is confirmed and dropped")                                       \
    X(ANSWERED_STAYS_QUEUED, "answered-stays-queued",                                              \
      "a job answered while it waits stays in its queue")                                          \
    X(REJECTED_IS_RETRIED, "rejected-is-retried", "what a provider rejects is tried again")        \
    X(LIMIT_COSTS_ATTEMPT, "limit-costs-attempt", "a rate limit uses up an attempt")               \
    X(OUTAGE_COSTS_ATTEMPT, "outage-costs-attempt", "an outage uses up attempts")                  \
    X(FAILURES_FORGOTTEN, "failures-forgotten", "a failed attempt is not counted")                 \
    X(BACKOFF_SKIPPED, "backoff-skipped", "a job that has to wait goes again at once")             \
    X(DEADLINE_RENEWED, "deadline-renewed", "a retry begins its deadline anew")                    \
    X(TRIED_FORGOTTEN, "tried-forgotten", "a failover goes to the upstream that has just failed")  \
    X(LEASE_SHORT, "lease-short", "leases are lost after half their time")                         \
    X(LEASE_FOREVER, "lease-forever", "a lease that nobody renews is not lost")                    \
    X(LEASE_NOT_RENEWED, "lease-not-renewed", "a heartbeat renews nothing")                        \
    X(ATTEMPT_REUSED, "attempt-reused", "a job that is given again has the same attempt number")   \
    X(LOSSES_FORGIVEN, "losses-forgiven", "a job that ends its workers is never condemned")        \
    X(PAYLOAD_FORGOTTEN, "payload-forgotten",                                                      \
      "the payload of a tier in memory goes with its lease")                                       \
    X(CANCEL_NOT_SENT, "cancel-not-sent", "a worker is not told that its attempt is over")         \
    X(ANSWER_RUN_AGAIN, "answer-run-again",                                                        \
      "a worker that comes back with answers is not believed")                                     \
    X(GOODBYE_IS_CRASH, "goodbye-is-crash", "a worker that leaves has crashed")                    \
    X(CREDIT_NOT_COUNTED, "credit-not-counted", "a dispatch takes no credit")                      \
    X(SET_ASIDE_IGNORED, "set-aside-ignored",                                                      \
      "a worker that gave a job back is given the next one")                                       \
    X(UNDELIVERABLE_IGNORED, "undeliverable-ignored",                                              \
      "a dispatch that could not be sent is believed in")                                          \
    /* answers and records */                                                                      \
    X(ACCEPTED_EARLY, "accepted-early", "a duplicate is accepted before its job is durable")       \
    X(RESULT_EARLY, "result-early", "a result goes out before it is durable")                      \
    X(CONFIRMED_EARLY, "confirmed-early", "a worker may forget an answer before it is durable")    \
    X(DURABLE_OFF_BY_ONE, "durable-off-by-one",                                                    \
      "the batch after the durable one counts as durable")                                         \
    X(STORE_DOWN_ACCEPTS, "store-down-accepts", "acceptances go out although the disk failed")     \
    X(JOB_RECORD_KEPT, "job-record-kept", "the record of a concluded job is not deleted")          \
    X(LEASE_RECORD_KEPT, "lease-record-kept", "the record of a lease is not deleted")              \
    X(RESULT_RECORD_KEPT, "result-record-kept", "the record of a collected result is not deleted") \
    X(ATTEMPTS_KEPT, "attempts-kept", "the history of a concluded job is not deleted")             \
    X(CONCLUSION_NOT_STORED, "conclusion-not-stored", "the id of a concluded job is not stored")   \
    X(CONCLUSION_FORGOTTEN, "conclusion-forgotten", "the id of a concluded job is not remembered") \
    X(KEY_FORGOTTEN, "key-forgotten", "the idempotency key of a concluded job is not remembered")  \
    X(READ_ERROR_IS_FINAL, "read-error-is-final", "a payload that cannot be read now is given up") \
    /* after a restart */                                                                          \
    X(RESTART_DEADLINE, "restart-forgets-deadline", "jobs have no deadline after a restart")       \
    X(RESTART_DELAY, "restart-forgets-delay", "jobs are not delayed after a restart")              \
    X(RESTART_KEY, "restart-forgets-key", "pending jobs have no idempotency key after a restart")  \
    X(RESTART_CONCLUDED_KEY, "restart-forgets-concluded-key", "concluded ones have none")          \
    X(RESTART_ATTEMPT, "restart-forgets-attempt", "attempts are numbered anew after a restart")    \
    X(RESTART_FAILURES, "restart-forgets-failures", "failures count anew after a restart")         \
    X(RESTART_PAUSE, "restart-forgets-pause", "nothing is paused after a restart")                 \
    X(RESTART_UPSTREAM, "restart-forgets-upstream", "no upstream is down after a restart")         \
    X(RESTART_LEASE, "restart-forgets-lease", "no job is leased after a restart")                  \
    /* order and shares */                                                                         \
    X(PRIORITY_IGNORED, "priority-ignored", "all jobs of a tenant have the same priority")         \
    X(TENANTS_NOT_CHARGED, "tenants-not-charged", "a tenant pays nothing for its jobs")            \
    X(TIERS_NOT_CHARGED, "tiers-not-charged", "a tier pays nothing for its dispatches")            \
    X(RESERVATIONS_IGNORED, "reservations-ignored", "slots reserved for a tier go to all")         \
    X(PAUSE_NOT_APPLIED, "pause-not-applied", "jobs that wait are dispatched despite a pause")     \
    X(PAUSE_FORGETS_LOADED, "pause-forgets-loaded", "jobs that were chosen go despite a pause")    \
    X(PAUSE_FORGETS_WORKER, "pause-forgets-worker", "a paused worker that comes back gets jobs")   \
    X(DRAINING_DISPATCHES, "draining-dispatches", "a broker that shuts down dispatches on")        \
    X(DRAINING_ACCEPTS, "draining-accepts", "a broker that shuts down accepts on")                 \
    /* upstreams */                                                                                \
    X(BREAKER_NEVER_OPENS, "breaker-never-opens", "failures do not open a breaker")                \
    X(BREAKER_IGNORED, "breaker-ignored", "calls go to an upstream whose breaker is open")         \
    X(BREAKER_CLOSED_LATE, "breaker-closed-by-any", "any late answer closes an open breaker")      \
    X(BREAKER_NEVER_DOUBLES, "breaker-never-doubles", "failed probes do not lengthen the wait")    \
    X(TWO_PROBES, "two-probes", "a second probe goes while one is under way")                      \
    X(PROBE_LOST, "probe-lost", "a probe that said nothing is not given up")                       \
    X(REST_IGNORED, "rest-ignored", "an upstream that said when to come back is called before")    \
    X(NO_SLOW_START, "no-slow-start", "after an outage all calls go at once")                      \
    X(LIMIT_NOT_TAKEN, "limit-not-taken", "a dispatch takes nothing of the limit of requests")     \
    X(LIMIT_GIVEN_BACK_TWICE, "limit-given-back-twice",                                            \
      "an attempt without a call gives back two")                                                  \
    X(LIMIT_GIVEN_BACK_LOST, "limit-given-back-lost", "a lost lease gives back what was used")     \
    X(TOKENS_NOT_SETTLED, "tokens-not-settled", "tokens beyond the estimate are not taken")        \
    X(RETRIES_UNBOUNDED, "retries-unbounded", "the retry budget is not taken from")                \
    X(HEDGES_UNBOUNDED, "hedges-unbounded", "second calls take nothing of their budget")           \
    X(HEDGE_UNFIT, "hedge-unfit", "a second call goes where the job may not, or cannot, be answered") \
    X(HEDGE_AT_SAME, "hedge-at-same-provider", "a second call goes to the provider of the first")  \
    X(GATE_NEVER_OPENS, "gate-never-opens", "a queue that waited for its upstreams is forgotten")  \
    X(GATE_NOT_WOKEN, "gate-not-woken", "a queue does not hear that an upstream is up again")      \
    /* tenants */                                                                                  \
    X(WAIT_CROSSES_TENANTS, "wait-crosses-tenants", "a client is told of another tenant's job")    \
    X(CANCEL_CROSSES_TENANTS, "cancel-crosses-tenants", "a client cancels another tenant's job")   \
    X(SUBMIT_CROSSES_TENANTS, "submit-crosses-tenants", "an id of another tenant is a duplicate")  \
    /* identical jobs and dead letters */                                                          \
    X(FOLLOWERS_FORGOTTEN, "followers-forgotten", "followers do not hear that their leader ended") \
    X(PROMOTED_FORGOTTEN, "promoted-forgotten", "who leads after a cancelled leader never runs")   \
    X(CANCEL_SHARED, "cancel-shared", "who follows a cancelled leader is cancelled, too")          \
    X(ANOTHERS_ANSWER, "anothers-answer", "followers get the answer of the leader before theirs")  \
    X(FOLLOWERS_RUN, "followers-run", "identical jobs are all dispatched")                         \
    X(REQUEUE_KEEPS_CONCLUSION, "requeue-keeps-conclusion",                                        \
      "a requeued dead letter stays concluded")                                                    \
    /* caches of workers */                                                                        \
    X(INVALIDATION_TOLD_EARLY, "invalidation-told-early", "it is told before it is durable")       \
    X(INVALIDATION_SKIPPED, "invalidation-skipped", "of two in one batch one is not told")         \
    X(INVALIDATION_NOT_TO_ALL, "invalidation-not-to-all", "some workers are not told of it")       \
    X(INVALIDATION_ANSWERED_EARLY, "invalidation-answered-early",                                  \
      "who asks is answered before it is durable")                                                 \
    X(INVALIDATION_UNANSWERED, "invalidation-unanswered", "who asks for one is not answered")      \
    X(INVALIDATION_CROSSES, "invalidation-crosses-tenants",                                        \
      "a client invalidates what is another tenant's")                                             \
    X(INVALIDATION_LOSES_TAG, "invalidation-loses-tag", "what it selects by is not recorded")      \
    X(WELCOME_SKIPS, "welcome-skips-one", "who comes back is not told of the first that it missed") \
    X(WELCOME_TRUSTS, "welcome-trusts-anybody", "numbers of another store are taken for its own")  \
    X(RESTART_RENUMBERS, "restart-renumbers", "invalidations are numbered anew after a restart")   \
    X(RESTART_FORGETS_MISSED, "restart-forgets-missed",                                            \
      "after a restart who was away misses some")                                                  \
    X(OUTDATED_LEADS, "outdated-leads",                                                            \
      "who comes after an invalidation gets an answer from before")                                \
    X(EVIDENCE_TWICE, "evidence-twice", "a delta is counted twice")                                \
    X(EVIDENCE_OF_ANOTHER_TENANT, "evidence-crosses-tenants",                                      \
      "what is counted goes to the first tenant")                                                  \
    X(EVIDENCE_LOST_AT_DRAIN, "evidence-lost-at-drain", "a shutdown does not record the sums")     \
    X(RESTART_EVIDENCE, "restart-forgets-evidence", "sums begin anew after a restart")             \
    X(EVIDENCE_NOT_IN_WELCOME, "evidence-not-in-welcome", "who comes new is not told the sums")    \
    X(FEEDBACK_KEEPS_ENTRY, "feedback-keeps-entry", "a wrong near hit is not invalidated")         \
    X(MADE_FOR_ANOTHER, "made-for-another", "a worker's job belongs to the first tenant")          \
    X(RESTART_MAKER, "restart-forgets-maker", "after a restart clients have made all jobs")        \
    /* what it cost */                                                                             \
    X(CHARGED_NOT, "charged-not", "what a result says that it used is not booked")                 \
    X(CHARGED_TWICE, "charged-twice", "what is sent again is booked again")                        \
    X(CHARGED_EARLY, "charged-early", "a worker may forget what is not on the disk yet")           \
    X(LEDGER_NOT_STORED, "ledger-not-stored", "the ledger is not recorded")                        \
    X(RESTART_LEDGER, "restart-forgets-ledger", "the ledger begins anew after a restart")          \
    X(RESTART_CHARGES, "restart-forgets-charges", "what was booked is not known after a restart")  \
    X(CHARGED_TOGETHER, "charged-together", "two calls are booked as the one that counts")         \
    X(CHARGED_ALONE, "charged-alone", "the call that does not count is not booked")                \
    X(BUDGET_UNRESERVED, "budget-unreserved", "nothing is reserved for what runs")                 \
    X(BUDGET_SECOND_UNRESERVED, "budget-second-unreserved", "second calls are made beside what is left") \
    X(BUDGET_NOT_STORED, "budget-not-stored", "what was spent is not recorded")                    \
    X(BUDGET_KEPT_RESERVED, "budget-kept-reserved", "what was reserved is never free again")       \
    X(UPKEEP_NEVER_LEAVES, "upkeep-never-leaves", "a worker counts on when it is gone")            \
    X(UPKEEP_STORED_IN_PART, "upkeep-stored-in-part",                                              \
      "what is stored counts since a worker joined or left")                                       \
    X(UPKEEP_MOVED_TWICE, "upkeep-moved-twice", "what was moved is counted from the beginning")    \
    X(RESTART_UPKEEP, "restart-forgets-upkeep", "what the cluster took begins anew")               \
    /* the choice of a model */                                                                    \
    X(ABILITY_IGNORED, "ability-ignored", "a job goes to a model that lacks what it needs")        \
    X(CONTEXT_IGNORED, "context-ignored", "a job goes to a model that is too small for it")        \
    X(TENANT_RESIDENCY, "tenant-residency-ignored", "a tenant's residency label is not looked at") \
    X(ROUTELESS_UNCHECKED, "routeless-unchecked",                                                  \
      "who may not use every model is given to a worker that chooses")                             \
    X(RESTART_FREES_TENANT, "restart-frees-tenant",                                                \
      "a tenant that a restart does not know may use all")                                         \
    X(LABELS_SHARE_ANSWERS, "labels-share-answers", "a labelled job follows one without the label") \
    X(LABEL_NOT_SAID, "label-not-said", "a dispatch does not say where its job's data may go")     \
    X(RELOAD_LISTS, "reload-keeps-lists", "a reload does not change who may use what")             \
    X(HOPELESS_ACCEPTED, "hopeless-accepted", "what no model can answer is accepted")              \
    X(GIVEN_UP_EARLY, "given-up-early", "a job is given up when its only model is down")           \
    X(PICKY_BLOCKS, "picky-blocks", "a job that waits for its only model keeps others waiting")    \
    X(LOST_NOT_SAID, "lost-not-said", "dispatches do not say what grades they lose")               \
    X(LOST_NOT_COUNTED, "lost-not-counted", "the grades that answers lost are not counted")        \
    X(UNSUPPORTED_IS_FINAL, "unsupported-is-final",                                                \
      "what one provider has no words for is asked of no other")                                   \
    X(WHY_OF_ANOTHER, "why-of-another", "a dispatch is explained as if the first were chosen")         \
    X(RESTART_RESIDENCY, "restart-forgets-residency", "jobs have no residency after a restart")    \
    X(RESTART_ABILITIES, "restart-forgets-abilities", "jobs need nothing after a restart")

#define MISTAKE_VALUE(value, name, does) MISTAKE_##value,
enum mistake { MISTAKE_NONE, MISTAKES(MISTAKE_VALUE) MISTAKES_LENGTH };
#undef MISTAKE_VALUE

bool mistake_is_on(enum mistake mistake);
