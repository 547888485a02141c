/*
 * provider: an endpoint that answers requests with a model.
 *
 * Asks in OpenAI form, answers in OpenAI form, whatever is spoken on the wire: a protocol
 * (protocol.h) translates. A streamed answer is forwarded piece by piece and given whole at the end
 * too. Of a stream the time to its first token and the time without anything new are bounded apart
 * ("first_token_timeout", "idle_timeout"; both unavailable). Every call ends in an outcome
 * (outcome.h). One try each: trying again is the broker's
 * business. No more calls run at once than connections may be open; whoever wants one more waits in
 * line here, where it can still be called back, and not inside libcurl. Belongs to the loop's
 * thread.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/config.h"
#include "common/list.h"
#include "worker/bytes.h"
#include "worker/operation.h"
#include "worker/provider/outcome.h"

struct limits;
struct loop;
struct provider;
struct provider_call;

enum { PROVIDER_ANSWERS_MAX = 4 }; /* answers of the largest size that a shared reply has room for */

/* Everything is borrowed for the time of provider_start(). */
struct provider_request {
    enum operation operation;
    const char *model; /* what the provider calls it */
    const void *body;  /* OpenAI-format JSON, checked to be an object */
    size_t body_bytes;
    uint32_t
        max_tokens_default; /* for a protocol that demands a bound and a body that names none */
    size_t answers; /* in one reply, which may be so many times as large, PROVIDER_ANSWERS_MAX at
                       most; 0: one */
    bool stream;
    const char *prefix_key; /* of what its prompt begins with, to be kept there; NULL: nothing is */
    const char *idempotency_key; /* the same for every attempt of the job at this upstream */
    int64_t deadline_ms;         /* monotonic; the call ends then at the latest */
};

struct provider_reply {
    struct outcome outcome;
    long http_status;            /* 0: none arrived */
    const struct limits *limits; /* what the head said; borrowed */
    json_t *answer;              /* answered: the body, parsed; borrowed */
    struct bytes body;           /* answered: OpenAI-format JSON; may be taken */
    int64_t call_ms;
    int64_t first_token_ms; /* 0: not streamed, or none came */
};

struct provider_handler {
    /*
     * A piece of a stream: server-sent events of OpenAI's form ("data: {…}\n\n"), whole ones. The
     * first piece has the first token: what came before it waits for it, so that a stream that ends
     * without one has said nothing.
     */
    void (*on_chunk)(void *context, const void *data, size_t bytes);
    /*
     * Once, unless cancelled; never from within provider_start(). The call is gone when it returns.
     */
    void (*on_done)(void *context, struct provider_reply *reply);
};

/*
 * `answer_bytes_max` bounds what is read of one answer. The configuration is copied.
 * Errors: -ENOMEM.
 */
MUST_USE int provider_create(struct loop *loop, const struct config_provider *config,
                             size_t answer_bytes_max, struct provider **ret_provider);
void provider_destroy(struct provider **provider);
const char *provider_name(const struct provider *provider);

/*
 * Errors: -EINVAL this provider cannot say the request (*ret_outcome tells why; the job is
 * rejected); -ENOMEM.
 */
MUST_USE int provider_start(struct provider *provider, const struct provider_request *request,
                            const struct provider_handler *handler, void *context,
                            struct provider_call **ret_call, struct outcome *ret_outcome);
/*
 * Reads no more of a stream until provider_go_on(): the provider has to wait. From within on_chunk
 * too; what has been read comes still, at most 16 KiB of it as the provider wrote it. Neither of
 * the provider's timeouts for streams counts meanwhile, but that of the whole call does.
 */
void provider_hold(struct provider_call *call);
/* on_chunk and on_done may be called within. Not from within on_chunk. */
void provider_go_on(struct provider_call *call);
/* Closes the connection, so that the provider may stop. Not from within on_chunk of a call of the same provider. */
void provider_cancel(struct provider_call **call);
/* How long it has run, without the time that it was held: that says nothing about the provider. */
int64_t provider_call_ms(const struct provider_call *call);
/* When the provider's timeout ends it, held or not; the job's deadline may before. */
int64_t provider_call_ends_ms(const struct provider_call *call);

/* ---- the line ---- */

struct provider_wait {
    struct list_link link; /* next NULL: does not wait */
    void (*on_turn)(void *context);
    void *context;
};

/* As many calls run as may: provider_start() would let one more wait inside libcurl. */
bool provider_is_full(const struct provider *provider);
/* As it was created with. */
size_t provider_answer_bytes_max(const struct provider *provider);
/* Waits in line; on_turn is called once, from the loop, when there is room or all are called up. */
void provider_wait(struct provider *provider, struct provider_wait *wait);
/* Leaves the line; nothing happens when it does not wait. */
void provider_leave(struct provider *provider, struct provider_wait *wait);
/* Calls up all that wait, room or not: something has changed for them. */
void provider_call_up(struct provider *provider);
