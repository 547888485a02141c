/*
 * call_stage: the provider call of an attempt. Its stream goes to the client as it comes
 * (forward.h); the whole answer follows as the attempt's result.
 *
 * Right before the call, and again after each wait for a connection, the news of the broker is
 * looked at: an attempt whose upstream has failed since it was dispatched is given back (deferred,
 * "upstream_open"), unless it is the probe that is to find out. Probes do not wait for connections.
 *
 * A call that has sent no token and no answer for Dispatch.hedge_after_ms may have a second one
 * beside it (hedge.h): the broker is asked, once, and what it grants is begun at once or not at all.
 * When one of the two fails the other goes on; only what a provider refuses for its content ends both.
 * The first token of a stream, or the answer, ends the other; so what is forwarded is of one alone.
 */
#pragma once
#include <stdint.h>
#include "common/id.h"
#include "worker/services.h"
#include "worker/stage.h"

struct call_report;
struct provider_reply;

enum { CALL_KEY_BYTES = ID_TEXT_BYTES + 17 };


/* The broker's answer to what was asked; nothing happens when it comes too late. */
void call_stage_hedge(struct attempt *attempt, const Wire__HedgeGrant *grant);

/* ---- what a call needs that several attempts share (worker/combine) ---- */

/* NULL: it was added after this worker started. */
struct provider *call_find_provider(const struct services *services, const char *name);
/*
 * The same for every attempt of the job at this upstream, so that a provider that honours it does
 * the work once; another one elsewhere, also at the same account, since another model's answer
 * under the same key would be a conflict there. `seed`: what else the call is about; 0: nothing.
 */
void call_write_key(const struct id *job_id, const char *provider_name, const char *model,
                    uint64_t seed, char ret_key[CALL_KEY_BYTES]);
/*
 * Of what the attempt's prompt begins with: its system messages, which a shared prompt has, too.
 * Borrowed from the attempt. NULL: the provider is not to keep a prefix, or there is none worth it.
 */
const char *call_prefix_key(const struct services *services, const struct attempt *attempt,
                            const char *provider_name);
/* What the broker is told of it, but for tokens and cost. */
void call_report_reply(struct call_report *report, const struct provider_reply *reply);

/* An attempt that a shared call has answered passes through it. */
struct stage call_stage(struct services *services);
