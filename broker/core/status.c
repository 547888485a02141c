#include "broker/core/status.h"
#include "broker/core/client.h"
#include "broker/core/lane.h"

struct effect *status_add(struct core *core, uint64_t peer, const struct id *job_id,
                          Wire__JobState state)
{
    struct effect *effect =
        effects_add(core->effects, EFFECT_STATUS, peer, core_pending_batch(core));
    effect->as.status.job_id = *job_id;
    effect->as.status.state = state;
    effect->as.status.why = "";
    return effect;
}

static const char *why_it_waits(struct core *core, const struct job *job)
{
    const struct queue *queue = job->flow->queue;
    switch ((enum job_place)job->place) {
    case PLACE_ACCEPTING:
        return "it is being written to disk";
    case PLACE_RECOVERED:
        return "the broker has restarted and gives its worker time to reclaim it";
    case PLACE_BACKING_OFF:
        return job->backoffs > 0 ? "the last attempt failed; it waits for the next"
                                 : "it is delayed";
    case PLACE_READY:
    case PLACE_LOADED:
        if (lane_is_held(core, job)) {
            return "its route, tier or tenant is paused by an operator";
        }
        return queue->lane->pool->slots == 0 ? "no worker serves its pool" : "";
    case PLACE_NEW:
    case PLACE_LOADING:
    case PLACE_LEASED:
    case PLACE_FOLLOWING:
    case PLACE_PARKED:
    case PLACE_DEAD:
    case PLACE_GONE:
        break;
    }
    return "";
}

void status_send_pending(struct core *core, uint64_t peer, const struct job *job)
{
    struct effect *effect = status_add(core, peer, &job->id, job_state(job));
    effect->batch = job->place == PLACE_ACCEPTING ? job->at.accept_batch : 0;
    effect->as.status.attempts = job_attempts(job);
    effect->as.status.why = why_it_waits(core, job);
    if (job->place == PLACE_BACKING_OFF && job->at.not_before_ms > core->now_ms) {
        effect->as.status.waits_ms = job->at.not_before_ms - core->now_ms;
    }
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
