/*
 * attempt: one execution of one job at this worker, on its way through the stages.
 *
 * Holds everything that belongs to it: its lease, its stage, its request, what the stages found,
 * and its timer. Created for a dispatch, released by the pipeline at the end of the turn in which
 * it concluded. Stages read and write its fields; which stage sets what is said beside them.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/blob.h"
#include "common/id.h"
#include "common/list.h"
#include "common/price.h"
#include "proto/wire.pb-c.h"
#include "worker/account/account.h"
#include "worker/bytes.h"
#include "worker/cache/cache_rules.h"
#include "worker/operation.h"
#include "worker/prompt/optimise.h"
#include "worker/provider/outcome.h"
#include "worker/provider/provider.h"
#include "worker/route/router.h"

struct broker_link;
struct loop;
struct loop_timer;
struct pipeline;
struct cache_lookup;
struct combine_seat;
struct hedge;
struct near_aside;
struct telemetry;
struct text_embedder_call;

enum {
    ATTEMPT_KEY_BYTES = 16,
    ATTEMPT_HEX_BYTES = 2 * ATTEMPT_KEY_BYTES + 1,
    ATTEMPT_LABELS_MAX = 2, /* its tenant's, and its own */
};

/* What the broker is told of the provider call: its breakers and limits live on it. */
struct call_report {
    bool is_made; /* the call was begun, whatever came of it */
    Wire__AttemptOutcome outcome;
    const char *code;     /* static */
    uint32_t http_status; /* 0: no answer */
    int64_t call_ms;
    int64_t first_token_ms; /* 0: not streamed, or none came */
    int64_t retry_after_ms; /* 0: not said */
    bool has_limits;
    Wire__RateLimits limits; /* valid if has_limits */
    uint64_t tokens;         /* that the provider counted; 0: not known */
    uint64_t cost_nanousd;
    uint32_t pieces;       /* of its answer, that came as a stream: about a token each */
    bool is_estimated;     /* cost: it was cut off, or its provider did not count all … */
    uint64_t input_tokens, output_tokens; /* … so these are, too; else 0 */
};

struct attempt {
    struct list_link link;      /* its broker_link's attempts; then the pipeline's concluded ones */
    struct broker_link *broker; /* not owned */
    struct pipeline *pipeline;  /* not owned */

    /* From the dispatch. */
    struct id job_id;
    uint32_t number;
    uint64_t run;     /* random: tells it from another one with this number */
    uint32_t made_by; /* the number under which it began, where it was carried on as a later one; 0 */
    char *tenant, *route, *tier, *pool;
    char trace_id[ATTEMPT_HEX_BYTES];         /* hex; empty: none */
    char *upstream_provider, *upstream_model; /* that it may call; NULL: the router chooses */
    int64_t hedge_after_ms; /* when a second call may be asked for; 0: never */
    bool is_probe;
    bool is_last_choice;  /* if its call fails, no other upstream would be called now */
    bool is_last_attempt; /* if its call fails and that counts, the job has no attempt left */
    bool is_budgeted;    /* its worst case is held by a budget: the call is its own */
    bool is_of_worker; /* a worker made the job: its check is no client's invention */
    bool wants_stream;
    bool has_client_key;
    uint8_t client_key[ATTEMPT_KEY_BYTES];
    /* As in wire.JobNeeds, for jobs that are made of this one; has_needs: the broker said them. */
    bool has_needs;
    uint32_t complexity, abilities, input_tokens;
    char *residency, *tenant_residency; /* labels; empty: none */
    int64_t deadline_ms;  /* monotonic; INT64_MAX: none */
    int64_t started_ms;   /* monotonic */
    int64_t queue_ms;     /* that the job had waited by then */
    struct blob *payload; /* the packed ModelRequest; released by decode */

    /* Where it is: pipeline.c. */
    size_t stage;
    bool is_concluded;
    struct loop_timer *timer; /* of the stage that waits; its event is STAGE_EVENT_TIMER */

    /* decode */
    Wire__ModelRequest *request;
    enum operation operation;
    uint8_t key[ATTEMPT_KEY_BYTES]; /* canonical, computed here, with cache.key_secret and its labels */
    bool key_mismatch;              /* the client named another one */
    json_t *asked;                  /* the request's body, until the cache has seen it */

    /* cache: a lookup while it waits; then what it needs to fill */
    struct cache_rules rules; /* valid with a cache */
    struct cache_lookup *lookup;
    bool wants_vector;            /* once it is known to be no exact hit */
    struct text_embedder_call *vector_call; /* while its vector is waited for */
    struct near_aside *aside;     /* while it is not: its candidate may come beside the call; or NULL */
    int8_t *vector;               /* of near_text, a byte a dimension; NULL: not asked for, or not had */
    bool may_be_filled;
    bool may_serve_error;         /* its upstream is down: older entries will do */
    bool has_candidate;           /* near, and not near enough: near_score, and … */
    uint8_t candidate[ATTEMPT_KEY_BYTES];
    uint64_t born;                /* cache_latest() when it began */
    double near_threshold;
    int64_t cache_age_ms;         /* of a hit */
    char *cached_model;           /* of a hit: that had answered; NULL */
    const char *embedder;         /* near hit: services.embedder */
    const char *cache_why;        /* why it was no hit; static, NULL: it was */
    bool is_withheld;             /* from the embedder, which has not its labels: no near hits */
    bool has_scope;
    uint8_t scope[ATTEMPT_KEY_BYTES];
    char *near_text;
    char near_key[ATTEMPT_HEX_BYTES]; /* near hit: the entry that answered */
    double near_score;

    /* prompt */
    struct optimised optimised;  /* all zero: nothing was done */
    struct prompt_cut cut;       /* of the prompt that its answer is from: the call, or the entry */
    struct bytes optimised_body; /* sent instead of the request's, if optimised.is_changed */

    /* router: copies, since a reload replaces the configuration */
    char *model, *provider_model, *provider_name;
    struct price price;
    struct price reference; /* of cost.reference_model; valid if has_reference */
    bool has_reference;
    uint32_t max_tokens_default;
    char *router_reason;   /* the broker's, or the router's own; NULL: none yet */
    uint32_t quality_lost; /* grades; the cache sets it where it answers */

    /* combine: a call that it shares with other jobs */
    struct combine_seat *seat; /* while it waits for company, or for their answer; NULL */
    struct shared_call {
        uint32_t jobs;             /* of the call; 0: none was made */
        bool is_answered;          /* else the attempt goes on alone, or has failed with it */
        struct token_counts tokens; /* its share */
        uint64_t cost_nanousd;      /* likewise */
        uint64_t saved_nanousd;     /* what more its own call would have cost, estimated */
        struct call_report report; /* is_made: this one of the attempts tells the broker of it */
    } shared;

    /* provider call */
    struct provider *provider; /* that it waits for or calls; not owned */
    struct provider_wait wait; /* in the provider's line, until a call may begin */
    struct provider_call *call;
    struct call_report report;
    struct loop_timer *ask_timer; /* until a second call may be asked for; NULL: never */
    bool must_ask;           /* broker_link is to ask for it */
    bool has_asked;
    struct hedge *hedge;     /* the second call, if one was made; NULL */
    struct bytes chunks; /* pieces of the stream that wait for company */
    uint32_t chunks_sent;
    uint64_t chunk_bytes_sent;   /* what they count: FRAME_CHUNK_COST each, and their bytes */
    uint64_t chunk_bytes_max;    /* that the broker allows; 0: any number */
    bool waits_for_allowance;    /* held_ms is set for that, and the timer for its end */
    bool needs_no_allowance;     /* its readers were waited for as long as they may be */
    bool is_chunk_timer_set;
    int64_t chunk_sent_ms;       /* when the last one went */
    bool is_stream_given_up;     /* a piece was lost: no more are sent */
    bool is_answer_read;         /* the call is over, but not its stream */
    int64_t held_ms;             /* since when the provider is held; 0: it is not */
    int64_t token_ns;            /* when the last token came, or the call began */
    bool has_token;              /* one came */
    struct telemetry *telemetry; /* not owned; from the call on */
    json_t *answer; /* answered: parsed; for account */

    /* What came of it. */
    struct outcome outcome;
    struct bytes body; /* answered: OpenAI-format JSON */
    long http_status;
    Wire__CacheStatus cache_status;
    struct token_counts tokens;
    uint64_t cost_nanousd;  /* of all calls */
    uint64_t hedge_cost_nanousd; /* of them, of the one that does not count */
    uint64_t saved_nanousd, saved_ms; /* by the cache */
    uint64_t saved_prompt_cache_nanousd;
    int64_t saved_routing_nanousd;
    uint64_t saved_optimising_nanousd; /* by tokens that were taken out of the prompt */
    int64_t call_ms, first_token_ms;
};

/*
 * Checks the dispatch's fields. `payload` is referenced. Errors: -EBADMSG a field is malformed;
 * -ENOMEM.
 */
MUST_USE int attempt_create(struct loop *loop, const Wire__Dispatch *dispatch, struct blob *payload,
                            int64_t now_ms, struct attempt **ret_attempt);
/* The labels that whoever sees its data must have, the tenant's first, each once. Borrowed. Returns how many. */
size_t attempt_labels(const struct attempt *attempt, char *ret_labels[ATTEMPT_LABELS_MAX]);
/* Whether its data may go to who has these labels. */
bool attempt_may_go_to(const struct attempt *attempt, char *const *labels, size_t length);

/* It must have been concluded or never started: no lookup and no call may refer to it. */
void attempt_destroy(struct attempt **attempt);

/* The ModelResponse, packed. Gives: *ret_payload. Errors: -ENOMEM. */
MUST_USE int attempt_pack_response(const struct attempt *attempt, struct blob **ret_payload);
/* The body that a provider is sent, in OpenAI's form. Borrowed. */
const void *attempt_body(const struct attempt *attempt, size_t *ret_bytes);
/* Strings are borrowed from the attempt. */
void attempt_usage(const struct attempt *attempt, Wire__Usage *ret_usage);
/*
 * A call that has ended was cut off, by us or by the network: it used something that nobody tells. A provider that
 * fails before it has said anything charges nothing.
 */
bool call_report_is_cut(const struct call_report *report);
/* It has used so much. */
void call_report_charge(struct call_report *report, const struct price *price,
                        const struct token_counts *tokens);
/* A call that was made, without its upstream. */
void call_report_write(const struct call_report *report, Wire__Call *ret_call);

void hex_write(const uint8_t *data, size_t bytes, char *ret_text); /* 2 × bytes + 1 */
