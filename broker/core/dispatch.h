/*
 * dispatch: which job goes to which worker now, and payloads read from disk in time for it.
 *
 * A job whose payload is on disk only is chosen like any other, then loaded, and goes first once it is there. A lane loads a
 * bounded number ahead, so that workers do not wait for the disk. One that shares what it needs with few others is
 * chosen only when its payload is there: crowd.h.
 */
#pragma once
#include "broker/core/state.h"

struct job;

/* At the end of a turn. Sets core.has_more when a bound was reached. */
void dispatch_tick(struct core *core);
/* Asks for the job's payload. The token of the answer; 0: too many are asked for already. */
uint64_t dispatch_ask_payload(struct core *core, const struct job *job);
/* The event LOADED, of payloads and results. */
void dispatch_loaded(struct core *core, const struct event *event);
/* Jobs that were chosen but may not go any more (a pause) wait again. */
void dispatch_put_back_held(struct core *core);
