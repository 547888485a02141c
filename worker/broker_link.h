/*
 * broker_link: this worker's membership at one broker.
 *
 *   hello → welcome → (credit →, dispatch ←, result →, concluded ←, heartbeat ↔) … goodbye
 *
 * Owns the attempts it was dispatched while they run, and their answers until the broker concludes
 * them. The answers are bounded: above answers_bytes_max no credit is given, and what nobody
 * concluded within answers_ttl_ms is dropped. All of a turn travels in one message. A broker that
 * is silent for SILENT_HEARTBEATS of its heartbeats, or that does not know us, is joined again over
 * a new connection, with backoff, though not while its name is being looked up: leases still held and answers still kept are named there, and the
 * answers are sent again after the welcome. Nothing is given up for a broken connection: the first
 * answer that arrives counts. See DESIGN.md, "The wire", and docs/protocol.md.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "proto/wire.pb-c.h"

struct attempt;
struct blob;
struct broker_link;
struct cache_mail;
struct log;
struct loop;
struct telemetry;
struct upstream;

enum {
    BROKER_LINK_SILENT_HEARTBEATS = 4,
    BROKER_LINK_RESULTS_A_MESSAGE = 512,
    BROKER_LINK_BYTES_A_MESSAGE = 4 << 20, /* a message is ended when its payloads reach this */
    /*
     * That wait for a broker which takes nothing: a piece of a stream has 16 KiB and a little, and those
     * that find no room wait at the provider (worker/forward.h).
     */
    BROKER_LINK_QUEUE_MESSAGES_MAX = 1000,
    BROKER_LINK_RETRY_FIRST_MS = 1000,
    BROKER_LINK_RETRY_MAX_MS = 15000,
    BROKER_LINK_LOOKUP_MS = 30000, /* for the broker's name: beyond the patience of resolvers as they are set up */
};

struct broker_link_options {
    const char *endpoint;
    const char *events; /* NULL: none */
    const char *worker_name;
    char **pools;
    size_t pools_length;
    uint32_t slots;
    uint32_t gpus, brokers; /* of the worker: how many GPUs it has, and brokers it serves */
    size_t part_bytes_max;
    uint64_t answers_bytes_max;
    int64_t answers_ttl_ms;
    uint8_t cache_epoch[16];  /* how far its invalidations were followed before */
    uint64_t cache_sequence;
};

struct broker_handler {
    /* A job. The payload is referenced by whoever keeps it. */
    void (*on_dispatch)(void *context, struct broker_link *link, const Wire__Dispatch *dispatch,
                        struct blob *payload);
    /* Stop this attempt; it is one of the link's. */
    void (*on_cancel)(void *context, struct attempt *attempt, const char *reason);
    /* A second call may be made for this attempt, which is one of the link's. */
    void (*on_hedge)(void *context, struct attempt *attempt, const Wire__HedgeGrant *grant);
    /* The broker has news of an upstream. */
    void (*on_upstream)(void *context, const struct upstream *upstream);
    /* Entries of the cache that must not be served any more; to be confirmed by cache_mail_applied(). */
    void (*on_invalidation)(void *context, struct broker_link *link,
                            const Wire__CacheInvalidation *invalidation);
    /* It cannot be told any more which: nothing that is cached may be served. Confirmed likewise, with this position. */
    void (*on_cache_behind)(void *context, struct broker_link *link, const uint8_t *epoch,
                            uint64_t sequence);
    /* What is known of near hits in a class, in the whole cluster. */
    void (*on_evidence)(void *context, struct broker_link *link, const Wire__CacheEvidence *evidence);
    /* An entry that another worker found wrong for another text. */
    void (*on_denial)(void *context, const Wire__CacheDenial *denial);
    /* An operator's question, to be answered by cache_mail_answer(). */
    void (*on_query)(void *context, struct broker_link *link, const Wire__WorkerQuery *query);
};

/*
 * Strings in `options` must live as long as the link. Connects in the background. Errors: -EINVAL
 * the endpoint; -ENOMEM.
 */
MUST_USE int broker_link_create(struct loop *loop, struct log *log,
                                struct telemetry *telemetry,
                                const struct broker_link_options *options,
                                const struct broker_handler *handler, void *context,
                                struct broker_link **ret_link);
/* Its attempts must have been concluded. */
void broker_link_destroy(struct broker_link **link);

/* The attempt runs now, for this broker: heartbeats name it. */
void broker_link_hold(struct broker_link *link, struct attempt *attempt);
/*
 * It has its outcome: it is held no longer, its answer is kept and sent. Errors: -ENOMEM, the lease
 * runs out.
 */
MUST_USE int broker_link_answer(struct broker_link *link, struct attempt *attempt);
/*
 * A dispatch that is not taken: "not an attempt", the job goes back to its queue. Errors: -ENOMEM.
 */
MUST_USE int broker_link_defer(struct broker_link *link, const Wire__Dispatch *dispatch,
                               const char *reason);
/* Asks whether a second call may be made beside the attempt's first, with the next flush. Once an attempt. */
void broker_link_ask_hedge(struct broker_link *link, struct attempt *attempt);
/*
 * A piece of the attempt's stream, at once. Errors: -EAGAIN the broker takes nothing at the moment,
 * or is not joined; -EMSGSIZE it takes none of that size; -ENOMEM.
 */
MUST_USE int broker_link_send_chunk(struct broker_link *link, const struct attempt *attempt,
                                    uint32_t index, bool is_last, const void *data,
                                    size_t bytes);

/*
 * A job that is dispatched again although its answer is kept here: the answer goes out once more,
 * as that of the new attempt. False: there is none, the job has to be run.
 */
bool broker_link_answer_again(struct broker_link *link, const Wire__Dispatch *dispatch);

/*
 * A job that is dispatched again while an earlier attempt still runs here (its lease was lost, the
 * worker was not): that attempt becomes the new one. False: none runs, or it is not the same: it is
 * at another upstream, the new one is a probe, or some of its stream is out.
 */
bool broker_link_carry_on(struct broker_link *link, const Wire__Dispatch *dispatch);

/* How long the broker's breaker for this upstream stays open, as far as is known here; 0: it may be
 * called. */
int64_t broker_link_upstream_open_ms(const struct broker_link *link, const char *provider,
                                     const char *model, int64_t now_ms);
/* What the broker has said of its upstreams. Valid until the next turn. */
size_t broker_link_upstreams(const struct broker_link *link, const struct upstream **ret_items);

/*
 * May it be given credit: it is joined, not drained, and its kept answers are within their bound.
 */
bool broker_link_takes_credit(const struct broker_link *link);
/* Credit it was given and has not used. */
uint64_t broker_link_outstanding(const struct broker_link *link);
void broker_link_grant(struct broker_link *link, uint64_t credit);

/* Sends what the turn has brought. At the end of each turn. */
void broker_link_flush(struct broker_link *link);
/* This worker stops: no more credit; leases run to their end. */
void broker_link_drain(struct broker_link *link);
/* The last message: what is still held goes back to the queue at once. */
void broker_link_goodbye(struct broker_link *link);

/* What the cache has to say to this broker: sent with the next flush. */
struct cache_mail *broker_link_mail(struct broker_link *link);

bool broker_link_is_joined(const struct broker_link *link);
const char *broker_link_endpoint(const struct broker_link *link);
size_t broker_link_answers(const struct broker_link *link, uint64_t *ret_bytes);
size_t broker_link_held(const struct broker_link *link);
/* Stops each attempt that is held, in the way of on_cancel. */
void broker_link_stop_all(struct broker_link *link, const char *reason);
