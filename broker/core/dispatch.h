/*
 * dispatch: which job goes to which worker now, and payloads read from disk in time for it.
 *
 * A job whose payload is on disk only is chosen like any other, then loaded, and goes first once it is there. A lane loads a
 * bounded number ahead, so that workers do not wait for the disk.
 */
#pragma once
#include "broker/core/state.h"

/* At the end of a turn. Sets core.has_more when a bound was reached. */
void dispatch_tick(struct core *core);
/* The event LOADED, of payloads and results. */
void dispatch_loaded(struct core *core, const struct event *event);
/* Jobs that were chosen but may not go any more (a pause) wait again. */
void dispatch_put_back_held(struct core *core);
