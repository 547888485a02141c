/*
 * What is hard about it: a flight may have a million followers, and a turn may end only so many. So
 * a flight whose outcome is known stands in a list of its own, holds that outcome, and ends a slice
 * in each turn. On a durable tier a slice waits until the one before is on the disk: otherwise all
 * of them would wait in memory for a disk that is slower than the loop.
 */
#include "broker/core/flight.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/cache_log.h"
#include "broker/core/conclude.h"
#include "broker/core/crowd.h"
#include "broker/core/decision.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/stream.h"
#include "broker/core/worker.h"
#include "common/price.h"
#include "common/prompt_cut.h"

enum {
    FLIGHT_STREAMS_MAX = 1024, /* followers of one job that get its chunks */
    FOLLOWERS_PER_TICK = 1024,
    SLICE_BYTES_MAX = 16 << 20, /* of results in one batch: each is a copy */
    EFFECTS_A_FOLLOWER = 128,   /* more than its waiters and records take */
};

/* What the leader's attempt came to, to be said of each follower. */
struct shared {
    struct outcome outcome; /* points into the fields below and into `text` */
    Wire__Usage usage;
    struct id leader;
    struct job_needs needs; /* of the leader */
    uint32_t quality_lost;  /* by it */
    uint64_t call_ms;       /* of its call, or of the one that a hit saved */
    struct blob *payload;
    char text[];
};

struct flight {
    struct table_link by_leader; /* in core.flights, while it has one */
    struct list_link ending;     /* in core.flights_ending, while it has none */
    struct job *leader;          /* NULL: it ends */
    struct heap followers;       /* by priority, then age */
    struct list streaming;       /* those of them that get chunks */
    struct shared *shared;       /* of one that ends; NULL: its followers are released */
    uint64_t batch;              /* of its latest slice; 0: none yet */
};

/* ---- finding ---- */

static uint64_t hash_key(const struct flow *flow, const uint8_t *key, uint64_t seed)
{
    struct {
        const struct flow *flow;
        uint64_t key[2];
    } hashed = {.flow = flow};
    memcpy(hashed.key, key, sizeof(hashed.key));
    return XXH3_64bits_withSeed(&hashed, sizeof(hashed), seed);
}

uint64_t flight_key_hash(const struct table_link *link, uint64_t seed)
{
    const struct job *job = CONTAINER_OF((struct table_link *)link, struct job, by_canonical);
    return hash_key(job->flow, job->canonical_key, seed);
}

static uint64_t hash_leader(const struct job *leader, uint64_t seed)
{
    return XXH3_64bits_withSeed(&leader, sizeof(leader), seed);
}

uint64_t flight_leader_hash(const struct table_link *link, uint64_t seed)
{
    return hash_leader(CONTAINER_OF((struct table_link *)link, struct flight, by_leader)->leader,
                       seed);
}

static bool are_identical(const struct job *a, const struct job *b)
{
    return a->flow == b->flow && a->needs.residency == b->needs.residency &&
           a->needs.abilities == b->needs.abilities &&
           memcmp(a->canonical_key, b->canonical_key, sizeof(a->canonical_key)) == 0;
}

static struct job *find_leader(const struct core *core, const struct job *job)
{
    struct table_link *link =
        table_first(&core->leaders, hash_key(job->flow, job->canonical_key, core->leaders.seed));
    for (; link != NULL; link = link->next) {
        struct job *leader = CONTAINER_OF(link, struct job, by_canonical);
        if (are_identical(leader, job)) {
            return leader;
        }
    }
    return NULL;
}

/* NULL: nobody follows it. */
static struct flight *find(const struct core *core, const struct job *leader)
{
    if ((leader->flags & JOB_HAS_FOLLOWERS) == 0) {
        return NULL;
    }
    struct table_link *link = table_first(&core->flights, hash_leader(leader, core->flights.seed));
    while (CONTAINER_OF(link, struct flight, by_leader)->leader != leader) {
        link = link->next;
    }
    return CONTAINER_OF(link, struct flight, by_leader);
}

/* ---- leading ---- */

static void lead(struct core *core, struct job *job)
{
    job->flags |= JOB_LEADS;
    table_insert(&core->leaders, &job->by_canonical);
}

static void stop_leading(struct core *core, struct job *job)
{
    if ((job->flags & JOB_LEADS) != 0) {
        table_remove(&core->leaders, &job->by_canonical);
        job->flags &= (uint16_t)~JOB_LEADS;
    }
}

static void set_leader(struct core *core, struct flight *flight, struct job *leader)
{
    flight->leader = leader;
    leader->flags |= JOB_HAS_FOLLOWERS;
    table_insert(&core->flights, &flight->by_leader);
}

/* The leader has no flight any more, and the flight no leader. */
static void part(struct core *core, struct flight *flight)
{
    table_remove(&core->flights, &flight->by_leader);
    flight->leader->flags &= (uint16_t)~JOB_HAS_FOLLOWERS;
    flight->leader = NULL;
}

void flight_lead(struct core *core, struct job *job)
{
    if ((job->flags & (JOB_HAS_CANONICAL | JOB_LEADS)) == JOB_HAS_CANONICAL &&
        find_leader(core, job) == NULL) {
        lead(core, job);
    }
}

/*
 * What it brings may be made from what has been invalidated since: whoever comes after that is not
 * to have it. Of an attempt whose lease was lost nobody knows any more when it began.
 */
static bool is_outdated(const struct core *core, const struct job *leader)
{
    const uint64_t told = cache_log_told(core, job_tenant(leader));
    return leader->place == PLACE_LEASED ? leader->at.lease->invalidations < told
                                         : told > 0 && (leader->flags & JOB_LEASE_LOST) != 0;
}

/* Whom the job may follow; one that is outdated keeps its followers, and gets no more. */
static struct job *take_leader(struct core *core, const struct job *job)
{
    struct job *leader = find_leader(core, job);
    if (leader != NULL && is_outdated(core, leader)) {
        stop_leading(core, leader);
        return NULL;
    }
    return leader;
}

/* ---- following ---- */

static void destroy(struct flight *flight)
{
    if (flight->shared != NULL) {
        blob_unref(&flight->shared->payload);
    }
    free(flight->shared);
    heap_finish(&flight->followers);
    free(flight);
}

static struct flight *make(struct core *core, struct job *leader)
{
    struct flight *flight = calloc(1, sizeof(*flight));
    if (flight != NULL) {
        heap_init(&flight->followers, offsetof(struct job, ready_position));
        list_init(&flight->streaming);
        set_leader(core, flight, leader);
    }
    return flight;
}

/* The flight of this leader with room for one more follower. NULL: no memory. */
static struct flight *open_flight(struct core *core, struct job *leader)
{
    struct flight *flight = find(core, leader);
    flight = flight != NULL ? flight : make(core, leader);
    if (flight != NULL && heap_reserve(&flight->followers, 1) < 0) {
        if (flight->followers.length == 0) {
            part(core, flight);
            destroy(flight);
        }
        return NULL;
    }
    return flight;
}

/* What it would be read again for, if it comes to that, takes no memory meanwhile. */
static void drop_stored_payload(struct core *core, struct job *job)
{
    if ((job->flags & JOB_ON_DISK) != 0) {
        job_drop_payload(core, job);
    }
}

static void follow(struct core *core, struct job *job, struct flight *flight)
{
    job->at.flight = flight;
    job_move(core, job, PLACE_FOLLOWING);
    drop_stored_payload(core, job);
    job_tier(job)->stats.followers_joined++;
    if ((job->flags & JOB_STREAM) != 0 || stream_is_wanted(job)) {
        stream_wanted(core, job);
    }
}

/* Without memory for a flight the job runs by itself; so does one that others follow, though it
 * leads nobody new. */
void flight_enter(struct core *core, struct job *job)
{
    if ((job->flags & (JOB_HAS_CANONICAL | JOB_LEADS)) != JOB_HAS_CANONICAL) {
        job_move(core, job, PLACE_READY);
        return;
    }
    struct job *leader = take_leader(core, job);
    const bool may_follow = leader != NULL && (job->flags & JOB_HAS_FOLLOWERS) == 0;
    struct flight *flight = may_follow ? open_flight(core, leader) : NULL;
    if (flight != NULL) {
        follow(core, job, flight);
        return;
    }
    if (leader == NULL) {
        lead(core, job);
    }
    job_move(core, job, PLACE_READY);
}

void flight_push(struct core *core, struct job *job)
{
    struct flight *flight = job->at.flight;
    const int r = heap_push(&flight->followers, job, lane_rank(job->priority, job->sequence));
    assert(r == 0); /* reserved by open_flight() */
    if (flight->leader->place == PLACE_READY) {
        lane_raise(flight->leader, flight_priority(core, flight->leader));
    } else if (flight->leader->place == PLACE_WAITING) {
        crowd_raise(core, flight->leader);
    }
}

/* One that ends is destroyed by flight_tick(), since its outcome is in use meanwhile. */
void flight_remove(struct core *core, struct job *job)
{
    struct flight *flight = TAKE(job->at.flight);
    heap_remove(&flight->followers, job);
    if ((job->flags & JOB_FOLLOWS_STREAM) != 0) {
        list_remove(&flight->streaming, &job->link);
        job->flags &= (uint16_t)~JOB_FOLLOWS_STREAM;
    }
    if (flight->leader != NULL && flight->followers.length == 0) {
        part(core, flight);
        destroy(flight);
    }
}

uint32_t flight_priority(const struct core *core, const struct job *job)
{
    const struct flight *flight = find(core, job);
    if (flight == NULL || flight->followers.length == 0) {
        return job->priority;
    }
    const uint32_t best = 9 - (uint32_t)(heap_peek_key(&flight->followers) >> 56);
    return best > job->priority ? best : job->priority;
}

/* ---- the leader ends ---- */

static char *keep_text(char **at, const char *text)
{
    const size_t bytes = strlen(text) + 1;
    char *kept = memcpy(*at, text, bytes);
    *at += bytes;
    return kept;
}

static const char *text_or_none(const char *text)
{
    return text == NULL ? "" : text;
}

/* The answer was paid for once: what it would have cost again is what it saves. */
static void share_usage(struct shared *shared, const Wire__Usage *usage, char **at)
{
    shared->usage = *usage;
    shared->usage.base.n_unknown_fields = 0;
    shared->usage.base.unknown_fields = NULL;
    shared->usage.provider = keep_text(at, usage->provider);
    shared->usage.model = keep_text(at, usage->model);
    shared->usage.saved_nanousd = price_add(usage->cost_nanousd, usage->saved_nanousd);
    shared->usage.cost_nanousd = 0;
    shared->usage.hedge_cost_nanousd = 0; /* a part of it */
    shared->quality_lost = usage->quality_lost;
    shared->call_ms = price_add(usage->call_ms, usage->saved_ms);
    /* Nor was its prompt sent once more. What its call has saved is the leader's. */
    shared->usage.saved_history_tokens = shared->usage.saved_passages_tokens = 0;
    shared->usage.saved_space_tokens = shared->usage.saved_repeats_tokens = 0;
    shared->usage.saved_optimising_nanousd = shared->usage.saved_batching_nanousd = 0;
    shared->usage.saved_prompt_cache_nanousd = 0;
    shared->usage.saved_routing_nanousd = 0;
    shared->outcome.usage = &shared->usage;
}

/* NULL: no memory. */
static struct shared *share(const struct job *leader, const struct outcome *outcome)
{
    const char *code = text_or_none(outcome->error_code);
    const char *text = text_or_none(outcome->error_text);
    const char *worker = text_or_none(outcome->worker);
    size_t bytes = strlen(code) + strlen(text) + strlen(worker) + 3;
    if (outcome->usage != NULL) {
        bytes += strlen(outcome->usage->provider) + strlen(outcome->usage->model) + 2;
    }
    struct shared *shared = calloc(1, sizeof(*shared) + bytes);
    if (shared == NULL) {
        return NULL;
    }
    char *at = shared->text;
    shared->leader = leader->id;
    shared->needs = leader->needs;
    shared->payload = outcome->payload == NULL ? NULL : blob_ref(outcome->payload);
    shared->outcome = (struct outcome){.state = outcome->state,
                                       .error_code = keep_text(&at, code),
                                       .error_text = keep_text(&at, text),
                                       .worker = keep_text(&at, worker),
                                       .payload = shared->payload,
                                       .led_by = &shared->leader};
    if (outcome->usage != NULL) {
        share_usage(shared, outcome->usage, &at);
    }
    return shared;
}

/* `shared` NULL: its followers run by themselves. */
static void end(struct core *core, struct flight *flight, struct shared *shared)
{
    part(core, flight);
    flight->shared = shared;
    list_append(&core->flights_ending, &flight->ending);
}

/*
 * The best, of those that are not outdated: such a one was dispatched before, lost its lease, and
 * may come back with an answer that is not for those who came after. It runs by itself; but the
 * last of all leads nobody, and may be it. Few are: each takes an invalidation.
 */
static struct job *take_best(struct core *core, struct flight *flight)
{
    struct job *best = heap_peek(&flight->followers);
    while (flight->followers.length > 1 && is_outdated(core, best)) {
        job_move(core, best, PLACE_READY);
        best = heap_peek(&flight->followers);
    }
    return best;
}

static void promote(struct core *core, struct flight *flight)
{
    part(core, flight);
    struct job *best = take_best(core, flight);
    flight_lead(core, best);
    set_leader(core, flight, best);
    job_tier(best)->stats.followers_promoted++;
    job_move(core, best, PLACE_READY);
}

/* Said of the request by an attempt, or by the workers that it has ended, so it holds for each job
 * that asks the same. */
static bool holds_for_all(const struct outcome *outcome)
{
    return outcome->state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED ||
           (outcome->state == WIRE__JOB_STATE__JOB_STATE_DEAD &&
            (outcome->peer != 0 || strcmp(text_or_none(outcome->error_code), "poison") == 0));
}

/*
 * By another attempt than the one that holds the job, or by one that carried on what another had
 * begun: it may be from before what it is made from was invalidated, and who follows may have come
 * after. Its number alone does not tell, since one that was given shortly before a crash is given
 * again.
 */
static bool is_late(const struct core *core, const struct job *job, const struct outcome *outcome)
{
    const struct lease *lease = job->place == PLACE_LEASED ? job->at.lease : NULL;
    const bool holds = lease != NULL && lease->worker != NULL &&
                       lease->worker->peer == outcome->peer && lease->attempt == outcome->attempt &&
                       !outcome->is_carried_on;
    return outcome->peer != 0 && !holds && cache_log_told(core, job_tenant(job)) > 0;
}

/*
 * Its prompt was cut in a way that their tier, which is also its own, does not allow any more: the
 * configuration has changed since it was dispatched, or its worker still has another one.
 */
static bool is_cut_too_much(const struct job *job, const struct outcome *outcome)
{
    const Wire__Usage *usage = outcome->usage;
    if (usage == NULL) {
        return false;
    }
    const struct prompt_cut cut = {.history_tokens = usage->cut_history_tokens,
                                   .passages_tokens = usage->cut_passages_tokens};
    return !prompt_cut_suits(&cut, &job_tier(job)->prompt_cut);
}

void flight_conclude(struct core *core, struct job *job, const struct outcome *outcome)
{
    struct flight *flight = find(core, job);
    stop_leading(core, job);
    if (flight == NULL) {
        return;
    }
    const bool is_theirs =
        holds_for_all(outcome) && !is_late(core, job, outcome) && !is_cut_too_much(job, outcome);
    struct shared *shared = is_theirs ? share(job, outcome) : NULL;
    if (shared != NULL) {
        end(core, flight, shared);
    } else {
        promote(core, flight);
    }
}

void flight_hand_on(struct core *core, struct job *job)
{
    struct flight *flight = find(core, job);
    if (flight != NULL && cache_log_told(core, job_tenant(job)) > 0) {
        stop_leading(core, job);
        promote(core, flight);
    }
}

/* For good, also on disk: it is identical to none. */
static void release(struct core *core, struct job *job)
{
    job->flags &= (uint16_t)~JOB_HAS_CANONICAL;
    job_move(core, job, PLACE_READY);
    conclude_update_record(core, job);
}

void flight_split(struct core *core, struct job *job)
{
    struct flight *flight = find(core, job);
    stop_leading(core, job);
    if (job->place == PLACE_FOLLOWING) {
        release(core, job);
    }
    job->flags &= (uint16_t)~JOB_HAS_CANONICAL;
    if (flight != NULL) {
        job_tier(job)->stats.flights_split++;
        end(core, flight, NULL);
    }
}

/* ---- the others end ---- */

/* Jobs that ask the same may be said to be differently hard, and want another model for that. */
static void tell_quality_lost(struct core *core, const struct job *job, struct shared *shared)
{
    shared->usage.quality_lost = shared->quality_lost;
    if (shared->outcome.usage != NULL &&
        memcmp(&job->needs, &shared->needs, sizeof(shared->needs)) != 0) {
        shared->usage.quality_lost = decision_quality_lost(core, job, &shared->usage);
    }
}

/*
 * What a call of its own would have taken, less what it has waited for the other's: the time that
 * had passed when it came. Never more than the truth, since it would have waited for its turn, too.
 */
static void tell_time_saved(const struct core *core, const struct job *job, struct shared *shared)
{
    const int64_t ms = core->now_ms - job->submitted_ms;
    const uint64_t waited_ms = ms > 0 ? (uint64_t)ms : 0;
    shared->usage.saved_ms = shared->call_ms > waited_ms ? shared->call_ms - waited_ms : 0;
}

static void end_one(struct core *core, const struct flight *flight)
{
    struct job *job = heap_peek(&flight->followers);
    if (flight->shared == NULL) {
        release(core, job);
        return;
    }
    struct core_tier_stats *stats = &job_tier(job)->stats;
    stats->followers_concluded++;
    stats->saved_nanousd += flight->shared->usage.saved_nanousd;
    tell_quality_lost(core, job, flight->shared);
    tell_time_saved(core, job, flight->shared);
    charge_follower(core, job, flight->shared->outcome.usage);
    conclude(core, job, &flight->shared->outcome);
}

static bool is_durable(const struct flight *flight)
{
    const struct job *job = heap_peek(&flight->followers);
    return (job->flags & JOB_DURABLE) != 0;
}

/* How many in this turn, of `left`. */
static size_t slice(const struct core *core, const struct flight *flight, size_t left)
{
    if (flight->followers.length == 0 || !is_durable(flight)) {
        return left;
    }
    if (flight->batch > core->batch_durable) {
        return 0;
    }
    const struct blob *payload = flight->shared == NULL ? NULL : flight->shared->payload;
    const size_t bytes = payload == NULL ? 0 : blob_bytes(payload);
    const size_t most = bytes == 0 ? left : SLICE_BYTES_MAX / bytes + 1;
    return most < left ? most : left;
}

/* Returns how many it ended. */
static size_t end_slice(struct core *core, struct flight *flight, size_t most)
{
    size_t ended = 0;
    while (ended < most && flight->followers.length > 0 &&
           effects_reserve(core->effects, EFFECTS_A_FOLLOWER)) {
        flight->batch = is_durable(flight) ? effects_batch(core->effects) : 0;
        end_one(core, flight);
        ended++;
    }
    return ended;
}

/* A flight that waits for its batch is looked at again when that is durable: a turn of its own. */
bool flight_tick(struct core *core)
{
    size_t left = FOLLOWERS_PER_TICK;
    bool is_done = true;
    for (size_t i = core->flights_ending.length; i > 0; i--) {
        struct flight *flight =
            CONTAINER_OF(list_first(&core->flights_ending), struct flight, ending);
        list_remove(&core->flights_ending, &flight->ending);
        const size_t most = slice(core, flight, left);
        left -= end_slice(core, flight, most);
        if (flight->followers.length == 0) {
            destroy(flight);
            continue;
        }
        list_append(&core->flights_ending, &flight->ending); /* the others first, next time */
        is_done &= is_durable(flight) && flight->batch > core->batch_durable;
    }
    return is_done;
}

/* ---- asking ---- */

const struct job *flight_leader(const struct job *job)
{
    return job->at.flight->leader;
}

size_t flight_followers(const struct core *core, const struct job *job)
{
    const struct flight *flight = find(core, job);
    return flight == NULL ? 0 : flight->followers.length;
}

/* ---- streams ---- */

struct list *flight_streaming(const struct core *core, const struct job *job)
{
    struct flight *flight = find(core, job);
    return flight == NULL || flight->streaming.length == 0 ? NULL : &flight->streaming;
}

void flight_stream(struct job *job)
{
    struct flight *flight = job->at.flight;
    const struct job *leader = flight->leader;
    if (leader == NULL || (job->flags & JOB_FOLLOWS_STREAM) != 0 ||
        flight->streaming.length >= FLIGHT_STREAMS_MAX) {
        return;
    }
    job->flags |= JOB_FOLLOWS_STREAM;
    list_append(&flight->streaming, &job->link);
    if (leader->place == PLACE_LEASED && leader->at.lease != NULL &&
        leader->at.lease->stream != NULL) {
        job->attempt++;
    }
}

void flight_begin_stream(const struct core *core, const struct job *job)
{
    struct list *followers = flight_streaming(core, job);
    if (followers != NULL) {
        list_for_each (followers, link) {
            CONTAINER_OF(link, struct job, link)->attempt++;
        }
    }
}

void flight_destroy_all(struct core *core)
{
    for (size_t i = 0; i < core->flights.buckets_length; i++) {
        struct table_link *link = table_bucket_at(&core->flights, i)->first;
        while (link != NULL) {
            struct table_link *next = link->next;
            destroy(CONTAINER_OF(link, struct flight, by_leader));
            link = next;
        }
    }
    struct list_link *link;
    while ((link = list_first(&core->flights_ending)) != NULL) {
        list_remove(&core->flights_ending, link);
        destroy(CONTAINER_OF(link, struct flight, ending));
    }
}
