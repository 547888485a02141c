#include "broker/core/status.h"
#include <stdio.h>
#include <string.h>
#include "broker/core/client.h"
#include "broker/core/crowd.h"
#include "broker/core/estimate.h"
#include "broker/core/flight.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/pause.h"
#include "broker/core/result.h"
#include "broker/core/upstream.h"

struct effect *status_add(struct core *core, uint64_t peer, const struct id *job_id,
                          Wire__JobState state)
{
    const uint64_t batch =
        state == WIRE__JOB_STATE__JOB_STATE_UNKNOWN ? 0 : result_promised_batch(core, job_id);
    struct effect *effect = effects_add(core->effects, EFFECT_STATUS, peer, batch);
    effect->as.status.job_id = *job_id;
    effect->as.status.state = state;
    effect->as.status.why = "";
    return effect;
}

/* ---- how many are ahead ---- */

static uint64_t position_of(const struct core *core, const struct job *job)
{
    const uint64_t rank = lane_rank(flight_priority(core, job), job->sequence);
    return heap_count_below(&job->flow->ready, rank, POSITION_SCANNED_MAX);
}

/* ---- why it waits ---- */

/* How many of a text's bytes to show, `most` at most: no character is cut in two. */
static int cut(const char *text, int most)
{
    int bytes = (int)strnlen(text, (size_t)most + 1);
    if (bytes > most) {
        for (bytes = most; bytes > 0 && ((unsigned char)text[bytes] & 0xC0) == 0x80;) {
            bytes--;
        }
    }
    return bytes;
}

/* false: nothing blocks it any more. */
static bool say_why_blocked(const struct core *core, const struct queue *queue, int64_t now_ms,
                            char *ret_why)
{
    char why[STATUS_WHY_BYTES];
    upstream_why_blocked(core, queue, now_ms, why, sizeof(why));
    if (why[0] == '\0') {
        return false;
    }
    memcpy(ret_why, why, sizeof(why));
    return true;
}

/* What holds the whole queue, or its tenant, in words; false: nothing does. */
static bool say_what_holds(const struct core *core, const struct job *job, int64_t now_ms,
                           char *ret_why)
{
    const struct queue *queue = job->flow->queue;
    const struct name *names[] = {queue->route, queue->lane->tier->name, job->flow->tenant->name};
    static const char *const kinds[] = {"route", "tier", "tenant"};
    static const enum pause_subject subjects[] = {PAUSE_ROUTE, PAUSE_TIER, PAUSE_TENANT};
    for (size_t i = 0; i < 3; i++) {
        if (names[i]->is_held) {
            const char *reason = pause_reason(core, subjects[i], names[i]->text);
            (void)snprintf(ret_why, STATUS_WHY_BYTES, "the %s %.*s is paused by an operator%s%.*s",
                           kinds[i], cut(names[i]->text, 64), names[i]->text,
                           reason[0] == '\0' ? "" : ": ", cut(reason, 80), reason);
            return true;
        }
    }
    if (core->is_draining) {
        (void)snprintf(ret_why, STATUS_WHY_BYTES, "the broker is shutting down");
    } else if ((job->flags & JOB_DURABLE) != 0 && core->store_is_down) {
        (void)snprintf(ret_why, STATUS_WHY_BYTES, "the broker cannot write to its disk now");
    } else if (queue->is_blocked && say_why_blocked(core, queue, now_ms, ret_why)) {
        return true;
    } else if (queue->lane->pool->slots == 0) {
        (void)snprintf(ret_why, STATUS_WHY_BYTES, "no worker serves the pool %.64s",
                       queue->lane->pool->name->text);
    } else {
        return false;
    }
    return true;
}

static void say_place_in_line(uint64_t position, char *ret_why)
{
    if (position == 0) {
        (void)snprintf(ret_why, STATUS_WHY_BYTES,
                       "the next of its tenant; it waits for a worker to be free");
    } else {
        (void)snprintf(ret_why, STATUS_WHY_BYTES, "queued behind %llu of its tenant's jobs",
                       (unsigned long long)position);
    }
}

/* Of a flight that ends the leader is gone. */
static void say_who_leads(const struct job *job, char *ret_why)
{
    const struct job *leader = flight_leader(job);
    if (leader == NULL) {
        (void)snprintf(ret_why, STATUS_WHY_BYTES, "an identical job has led; its own turn is next");
        return;
    }
    char id[ID_TEXT_BYTES];
    id_format(&leader->id, id);
    (void)snprintf(ret_why, STATUS_WHY_BYTES, "an identical job leads: %s", id);
}

static const char *why_there(const struct core *core, const struct job *job)
{
    switch ((enum job_place)job->place) {
    case PLACE_ACCEPTING:
        return "it is being written to disk";
    case PLACE_RECOVERED:
        return "the broker has restarted and gives its worker time to reclaim it";
    case PLACE_BACKING_OFF:
        if ((job->flags & JOB_WAITS_FOR_BUDGET) != 0) {
            return "its budget has too little left for what it may cost: it waits for attempts "
                   "that "
                   "run, or for the next day or month";
        }
        if (lease_is_for_suspect(core, job)) {
            return "its worker was lost more than once; it waits for one that runs no other such "
                   "job";
        }
        return job->backoffs > 0 ? "the last attempt failed; it waits for the next"
                                 : "it is delayed";
    case PLACE_WAITING:
        return crowd_is_reading(job) && crowd_opens_ms(job) <= core->now_ms
                   ? "its payload is being read from disk"
                   : "it waits for a model that can answer it; none of them may be called now";
    case PLACE_LOADING:
        return "its payload is being read from disk";
    case PLACE_LOADED:
        return "it waits for a worker to be free";
    case PLACE_PARKED:
        return "it is part of a provider's batch";
    case PLACE_NEW:
    case PLACE_READY:
    case PLACE_LEASED:
    case PLACE_FOLLOWING:
    case PLACE_DEAD:
    case PLACE_GONE:
        break;
    }
    return "";
}

/* ---- all of it ---- */

/* Its own wait and that of its queue run at the same time. How an outage ends nobody knows. */
static void estimate_start(const struct core *core, const struct job *job, uint64_t own_ahead,
                           int64_t now_ms, struct status_view *view)
{
    const struct queue *queue = job->flow->queue;
    const int64_t wait_ms = estimate_wait_ms(job->flow, own_ahead, now_ms);
    view->has_estimate =
        wait_ms >= 0 && !(queue->is_blocked && upstream_is_outage(core, queue, now_ms));
    if (view->has_estimate) {
        view->starts_in_ms = wait_ms > view->waits_ms ? wait_ms : view->waits_ms;
    }
}

static void read_ready(const struct core *core, const struct job *job, int64_t now_ms,
                       struct status_view *view)
{
    view->position = position_of(core, job);
    if (!say_what_holds(core, job, now_ms, view->why)) {
        say_place_in_line(view->position, view->why);
        estimate_start(core, job, view->position, now_ms, view);
    } else if (job->flow->queue->is_blocked) {
        estimate_start(core, job, view->position, now_ms, view);
    }
}

/* When its time comes it goes before all that were submitted after it: of those that wait now,
 * hardly one before it will. */
static void read_backing_off(const struct core *core, const struct job *job, int64_t now_ms,
                             struct status_view *view)
{
    const int64_t waits_ms = job->at.not_before_ms - now_ms;
    view->waits_ms = waits_ms > 0 ? waits_ms : 0;
    if (job->backoffs > 0) {
        (void)say_what_holds(core, job, now_ms, view->why);
    }
    estimate_start(core, job, 0, now_ms, view);
}

/* Others of its crowd go before it, which is not counted: how long that takes is not known. */
static void read_waiting(const struct core *core, const struct job *job, int64_t now_ms,
                         struct status_view *view)
{
    const int64_t waits_ms = crowd_opens_ms(job) - now_ms;
    view->waits_ms = waits_ms > 0 ? waits_ms : 0;
    estimate_start(core, job, 0, now_ms, view);
}

/* What is not known before its time is over never will be. */
static void say_if_too_late(const struct job *job, int64_t now_ms, struct status_view *view)
{
    const size_t length = strlen(view->why);
    if (view->waits_ms > 0 && now_ms + view->waits_ms >= job->deadline_ms) {
        (void)snprintf(view->why + length, sizeof(view->why) - length,
                       "; its deadline is before that, in %lld ms",
                       (long long)(job->deadline_ms - now_ms));
    }
}

void status_read(const struct core *core, const struct job *job, int64_t now_ms,
                 struct status_view *ret_view)
{
    *ret_view = (struct status_view){0};
    if (job->place == PLACE_READY) {
        read_ready(core, job, now_ms, ret_view);
        return;
    }
    (void)snprintf(ret_view->why, sizeof(ret_view->why), "%s", why_there(core, job));
    if (job->place == PLACE_BACKING_OFF) {
        read_backing_off(core, job, now_ms, ret_view);
        say_if_too_late(job, now_ms, ret_view);
    } else if (job->place == PLACE_WAITING) {
        read_waiting(core, job, now_ms, ret_view);
        say_if_too_late(job, now_ms, ret_view);
    } else if (job->place == PLACE_LOADED) {
        (void)say_what_holds(core, job, now_ms, ret_view->why);
    } else if (job->place == PLACE_FOLLOWING) {
        say_who_leads(job, ret_view->why);
    }
}

/* ---- sending ---- */

void status_send_pending(struct core *core, uint64_t peer, const struct job *job)
{
    struct status_view view;
    status_read(core, job, core->now_ms, &view);
    const char *why = effects_text(core->effects, view.why);
    struct effect *effect = status_add(core, peer, &job->id, job_state(job));
    effect->batch = job->place == PLACE_ACCEPTING ? job->at.accept_batch : 0;
    effect->as.status.attempts = job_attempts(job);
    effect->as.status.why = why;
    effect->as.status.waits_ms = view.waits_ms;
    effect->as.status.position = view.position;
    effect->as.status.has_estimate = view.has_estimate;
    effect->as.status.starts_in_ms = view.starts_in_ms;
}

void status_send(struct core *core, const struct client *client, const struct id *job_id)
{
    const struct job *job = job_find(core, job_id);
    if (job != NULL && job_tenant(job) == client->tenant) {
        status_send_pending(core, client->peer, job);
        return;
    }
    const struct concluded_entry *entry = concluded_find(&core->concluded, job_id);
    const bool is_known = entry != NULL && entry->tenant == client->tenant->name->index;
    (void)status_add(core, client->peer, job_id,
                     is_known ? (Wire__JobState)entry->state : WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
}
