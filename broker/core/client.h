/*
 * client: who submits and who waits. A job names its first waiter by the peer's number; numbers are never used again, so
 * a client that is gone leaves nothing behind that has to be looked for. Further waiters, and all that stream, hang on the job.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/state.h"

/* Of one that came with a reload that failed half way: tenant.has_rules. */
#define CLIENT_TENANT_HAS_NO_RULES \
    "the configuration with this tenant could not be applied, so it is not known which models it may use; reload it"

uint64_t client_hash(const struct table_link *link, uint64_t seed);
/* Refused, with a reason: a tenant that is not configured, or has no rules yet; too many clients. */
void client_hello(struct core *core, const struct event *event);
void client_gone(struct core *core, const struct event *event);
struct client *client_find(const struct core *core, uint64_t peer); /* NULL: unknown */
/* The same, but tells an unknown peer to say hello. */
struct client *client_expect(struct core *core, uint64_t peer);
void client_destroy_all(struct core *core);

/*
 * This client gets the outcome, too. Beyond WAITERS_MAX, or without memory, the latest is not added: it asks again. `stream_chunks` is its first
 * credit, 0: it takes all; one that has credit already keeps it.
 */
void waiter_add(struct core *core, struct job *job, uint64_t peer, bool streams, uint32_t stream_chunks);
/* Whether this client waits for the job, and reads its stream. */
bool waiter_streams(const struct job *job, uint64_t peer);
/* Whether it does; also when it is gone since. */
bool waiter_is(const struct job *job, uint64_t peer);
void waiters_forget(struct job *job);
/* Calls `visit` for each waiter that is still connected. */
void waiters_visit(struct core *core, const struct job *job,
                   void (*visit)(struct core *core, uint64_t peer, bool streams, const void *context),
                   const void *context);
void waiter_credit(struct core *core, const struct event *event);
