#include "broker/core/lease.h"
#include <stdlib.h>
#include "broker/core/conclude.h"
#include "broker/core/flight.h"
#include "broker/core/record.h"
#include "broker/core/stream.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"

enum { SUSPECT_LOSSES = 2 }; /* one loss is what happens to any job when a machine fails */

static void attach(struct core *core, struct lease *lease, struct worker *worker)
{
    lease->worker = worker;
    if (worker != NULL) {
        list_append(&worker->leases, &lease->in_worker);
        worker->used[job_tier(lease->job)->index]++;
        worker->suspects += lease->is_suspect;
        core->leases_running++;
        worker_refresh(core, worker);
    }
}

static void detach(struct core *core, struct lease *lease)
{
    struct worker *worker = TAKE(lease->worker);
    if (worker != NULL) {
        list_remove(&worker->leases, &lease->in_worker);
        worker->used[job_tier(lease->job)->index]--;
        worker->suspects -= lease->is_suspect;
        core->leases_running--;
        worker_refresh(core, worker);
    }
}

bool lease_is_for_suspect(const struct core *core, const struct job *job)
{
    const uint32_t losses_max = core->limits.losses_max;
    const uint32_t suspect_from = losses_max > SUSPECT_LOSSES ? SUSPECT_LOSSES : 1;
    return losses_max > 0 && job->losses >= suspect_from;
}

struct lease *lease_grant(struct core *core, struct job *job, struct worker *worker,
                          uint32_t attempt)
{
    struct lease *lease = calloc(1, sizeof(*lease));
    if (lease == NULL) {
        return NULL;
    }
    job_move(core, job, PLACE_LEASED);
    job->at.lease = lease;
    job->attempt = attempt;
    job->flags &= (uint16_t)~JOB_LEASE_LOST;
    flight_lead(core, job);
    lease->job = job;
    lease->attempt = attempt;
    lease->is_suspect = lease_is_for_suspect(core, job);
    lease->granted_ms = core->now_ms;
    lease->renewed_ms = core->now_ms;
    list_append(&core->leases, &lease->by_renewal);
    if ((job->flags & JOB_DURABLE) != 0) {
        list_append(&core->leases_young, &lease->young);
        lease->is_young = true;
    }
    attach(core, lease, worker);
    return lease;
}

void lease_end(struct core *core, struct lease *lease)
{
    stream_end(core, lease);
    charge_lease_ended(core, lease);
    upstream_settle_silent(core, &lease->permit, false);
    upstream_settle_silent(core, &lease->hedge, false);
    detach(core, lease);
    list_remove(&core->leases, &lease->by_renewal);
    if (lease->is_young) {
        list_remove(&core->leases_young, &lease->young);
    }
    if (lease->is_recorded) {
        core_delete(core, STORE_LEASES, lease->job->id.bytes, ID_BYTES);
    }
    lease->job->at.lease = NULL;
    free(lease);
}

void lease_hand_over(struct core *core, struct lease *lease, struct worker *worker,
                     uint32_t attempt)
{
    detach(core, lease);
    attach(core, lease, worker);
    lease->attempt = lease->job->attempt = attempt;
    lease->renewed_ms = core->now_ms;
    list_remove(&core->leases, &lease->by_renewal);
    list_append(&core->leases, &lease->by_renewal);
}

/* Counts the loss, when there is something to blame the job for, and records it. True: the job is
 * condemned. */
static bool note_loss(struct core *core, struct job *job, const struct lease *lease, bool is_crash,
                      const char *worker, const char *why)
{
    if (is_crash && job->losses < JOB_LOSSES_MAX) {
        job->losses++;
    }
    const bool is_condemned = is_crash && lease->is_suspect && core->limits.losses_max > 0 &&
                              job->losses >= core->limits.losses_max;
    conclude_record_attempt(
        core, job,
        &(struct attempt_report){.worker = worker,
                                 .error_code = "lease_lost",
                                 .error_text = why,
                                 .run_ms = core->now_ms - lease->granted_ms,
                                 .is_lost = true,
                                 .next = is_condemned ? RECORD__ATTEMPT_NEXT__NEXT_DEAD
                                                      : RECORD__ATTEMPT_NEXT__NEXT_RETRY});
    return is_condemned;
}

void lease_lose(struct core *core, struct lease *lease, bool is_crash, const char *why)
{
    struct job *job = lease->job;
    struct tier *tier = job_tier(job);
    const struct lease lost = *lease;
    const char *worker = lost.worker == NULL ? "" : effects_text(core->effects, lost.worker->name);
    tier->stats.leases_lost++;
    tier->stats.redelivered++;
    core_note(core, NOTE_LEASE_LOST, job, worker, why, lost.attempt);
    lease_end(core, lease);
    job->flags |= JOB_LEASE_LOST;
    if (note_loss(core, job, &lost, is_crash && lost.worker != NULL, worker, why)) {
        conclude(core, job,
                 &(struct outcome){
                     .state = WIRE__JOB_STATE__JOB_STATE_DEAD,
                     .error_code = "poison",
                     .error_text = effects_format(
                         core->effects,
                         "its worker was lost %u times, at last with no other suspect there: the "
                         "job may be what ends it",
                         job->losses),
                     .worker = worker});
        return;
    }
    flight_enter(core, job);
    conclude_update_record(core, job);
}

static struct lease *longest_kept(const struct core *core)
{
    struct list_link *link = list_first(&core->leases);
    return link == NULL ? NULL : CONTAINER_OF(link, struct lease, by_renewal);
}

static struct lease *oldest_young(const struct core *core)
{
    struct list_link *link = list_first(&core->leases_young);
    return link == NULL ? NULL : CONTAINER_OF(link, struct lease, young);
}

static void record_lease(struct core *core, struct lease *lease)
{
    list_remove(&core->leases_young, &lease->young);
    lease->is_young = false;
    lease->is_recorded = true;
    Record__LeaseRecord record = RECORD__LEASE_RECORD__INIT;
    record.attempt = lease->attempt;
    record.worker = lease->worker == NULL ? "" : lease->worker->name;
    core_put_record(core, STORE_LEASES, lease->job->id.bytes, ID_BYTES, &record.base);
}

static bool lose_leases(struct core *core)
{
    const int64_t lease_ms = core->limits.lease_ms;
    struct lease *lease = longest_kept(core);
    for (int i = 0; lease != NULL && lease->renewed_ms + lease_ms <= core->now_ms; i++) {
        if (i == TIMERS_PER_TICK) {
            return false;
        }
        const char *why = lease->worker == NULL
                              ? "its worker did not come back after a restart of the broker"
                              : effects_format(core->effects, "no heartbeat for %lld ms",
                                               (long long)(core->now_ms - lease->renewed_ms));
        lease_lose(core, lease, true, why);
        lease = longest_kept(core);
    }
    return true;
}

static bool record_leases(struct core *core)
{
    struct lease *young = oldest_young(core);
    for (int i = 0; young != NULL && young->granted_ms + LEASE_RECORD_AFTER_MS <= core->now_ms;
         i++) {
        if (i == TIMERS_PER_TICK) {
            return false;
        }
        record_lease(core, young);
        young = oldest_young(core);
    }
    return true;
}

bool lease_tick(struct core *core)
{
    const bool are_lost = lose_leases(core);
    const bool are_recorded = record_leases(core);
    return are_lost && are_recorded;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t lease_next_deadline_ms(const struct core *core)
{
    int64_t at_ms = INT64_MAX;
    const struct lease *lease = longest_kept(core);
    if (lease != NULL) {
        at_ms = sooner(at_ms, lease->renewed_ms + core->limits.lease_ms);
    }
    const struct lease *young = oldest_young(core);
    if (young != NULL) {
        at_ms = sooner(at_ms, young->granted_ms + LEASE_RECORD_AFTER_MS);
    }
    return at_ms;
}
