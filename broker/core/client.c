#include "broker/core/client.h"
#include <stdlib.h>
#include <xxhash.h>
#include "broker/core/estimate.h"
#include "broker/core/stream.h"
#include "broker/core/stream_rest.h"

static uint64_t peer_hash(uint64_t peer, uint64_t seed)
{
    return XXH3_64bits_withSeed(&peer, sizeof(peer), seed);
}

uint64_t client_hash(const struct table_link *link, uint64_t seed)
{
    return peer_hash(CONTAINER_OF((struct table_link *)link, struct client, by_peer)->peer, seed);
}

struct client *client_find(const struct core *core, uint64_t peer)
{
    struct table_link *link = table_first(&core->clients, peer_hash(peer, core->clients.seed));
    for (; link != NULL; link = link->next) {
        struct client *client = CONTAINER_OF(link, struct client, by_peer);
        if (client->peer == peer) {
            return client;
        }
    }
    return NULL;
}

static void error(struct core *core, uint64_t peer, Wire__ProtocolError__Code code,
                  const char *text)
{
    struct effect *effect = effects_add(core->effects, EFFECT_CLIENT_ERROR, peer, 0);
    effect->as.error.code = code;
    effect->as.error.text = text;
}

static void refuse_for_now(struct core *core, uint64_t peer, int64_t wait_ms, const char *text)
{
    const int64_t retry_after_ms = estimate_retry_after_ms(core, wait_ms);
    struct effect *effect = effects_add(core->effects, EFFECT_CLIENT_ERROR, peer, 0);
    effect->as.error.code = WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED;
    effect->as.error.text = text;
    effect->as.error.retry_after_ms = retry_after_ms;
}

struct client *client_expect(struct core *core, uint64_t peer)
{
    struct client *client = client_find(core, peer);
    if (client == NULL) {
        error(core, peer, WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED,
              "this connection has not said hello; say it, then repeat");
    }
    return client;
}

/* NULL: refused, and told so. */
static struct client *make_client(struct core *core, uint64_t peer)
{
    if (core->clients.length >= core->limits.clients_max) {
        refuse_for_now(core, peer, RETRY_AFTER_CONNECTIONS_MS,
                       "broker.clients_max connections are open; try again later or raise it");
        return NULL;
    }
    struct client *client = calloc(1, sizeof(*client));
    if (client != NULL) {
        client->peer = peer;
        table_insert(&core->clients, &client->by_peer);
    } else {
        refuse_for_now(core, peer, RETRY_AFTER_UNKNOWN_MS, "the broker is out of memory");
    }
    return client;
}

void client_hello(struct core *core, const struct event *event)
{
    const struct name *tenant = names_find(&core->tenants, event->as.client_hello.tenant);
    if (tenant == NULL || !tenant->is_configured) {
        error(core, event->peer, WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED,
              effects_format(core->effects,
                             "tenant \"%.64s\" is not configured; add it under tenants",
                             event->as.client_hello.tenant));
        return;
    }
    if (!core->tenant[tenant->index]->has_rules) {
        refuse_for_now(core, event->peer, RETRY_AFTER_MOST_MS, CLIENT_TENANT_HAS_NO_RULES);
        return;
    }
    struct client *client = client_find(core, event->peer);
    if (client == NULL) {
        client = make_client(core, event->peer);
    }
    if (client == NULL) {
        return;
    }
    client->tenant = core->tenant[tenant->index];
    effects_add(core->effects, EFFECT_CLIENT_WELCOME, event->peer, 0);
}

void client_gone(struct core *core, const struct event *event)
{
    struct client *client = client_find(core, event->peer);
    if (client != NULL) {
        stream_forget_reader(core, event->peer);
        table_remove(&core->clients, &client->by_peer);
        free(client);
    }
}

void client_destroy_all(struct core *core)
{
    for (size_t i = 0; i < core->clients.buckets_length; i++) {
        struct table_link *link = table_bucket_at(&core->clients, i)->first;
        while (link != NULL) {
            struct table_link *next = link->next;
            free(CONTAINER_OF(link, struct client, by_peer));
            link = next;
        }
    }
}

/* Frees those whose client is gone. Returns how many stay. */
static size_t prune(struct core *core, struct job *job)
{
    size_t stay = 0;
    struct waiter **at = &job->more_waiters;
    while (*at != NULL) {
        struct waiter *waiter = *at;
        if (client_find(core, waiter->peer) == NULL) {
            *at = waiter->next;
            free(waiter);
        } else {
            at = &waiter->next;
            stay++;
        }
    }
    return stay;
}

static struct waiter *find_more(const struct job *job, uint64_t peer)
{
    struct waiter *waiter = job->more_waiters;
    while (waiter != NULL && waiter->peer != peer) {
        waiter = waiter->next;
    }
    return waiter;
}

bool waiter_is(const struct job *job, uint64_t peer)
{
    return job->waiter == peer || find_more(job, peer) != NULL;
}

bool waiter_streams(const struct job *job, uint64_t peer)
{
    const struct waiter *waiter = find_more(job, peer);
    return waiter != NULL && waiter->streams;
}

/* A place for one more beside the inline one. NULL: too many, or no memory. */
static struct waiter *make_more(struct core *core, struct job *job, uint64_t peer)
{
    if (prune(core, job) + 1 >= WAITERS_MAX) {
        return NULL;
    }
    struct waiter *waiter = malloc(sizeof(*waiter));
    if (waiter == NULL) {
        return NULL;
    }
    *waiter =
        (struct waiter){.next = job->more_waiters, .peer = peer, .chunks_left = CHUNKS_UNLIMITED};
    job->more_waiters = waiter;
    return waiter;
}

/* Who streams has a cursor, so the inline place is for those that do not. */
static bool add_streaming(struct core *core, struct job *job, uint64_t peer, uint32_t chunks)
{
    struct waiter *waiter = find_more(job, peer);
    waiter = waiter != NULL ? waiter : make_more(core, job, peer);
    if (waiter == NULL) {
        return false;
    }
    if (!waiter->streams || (waiter->chunks_left == CHUNKS_UNLIMITED && chunks > 0)) {
        waiter->streams = true;
        waiter->chunks_left = chunks == 0 ? CHUNKS_UNLIMITED : chunks;
    }
    job->waiter = job->waiter == peer ? 0 : job->waiter;
    stream_wanted(core, job);
    return true;
}

void waiter_add(struct core *core, struct job *job, uint64_t peer, bool streams,
                uint32_t stream_chunks)
{
    if (peer == 0) {
        return;
    }
    if (streams && add_streaming(core, job, peer, stream_chunks)) {
        return;
    }
    struct waiter *known = find_more(job, peer);
    if (known != NULL) {
        known->streams = false;
    } else if (job->waiter == 0 || client_find(core, job->waiter) == NULL) {
        job->waiter = peer;
    } else if (job->waiter != peer) {
        (void)make_more(core, job, peer);
    }
}

void waiters_forget(struct job *job)
{
    job->waiter = 0;
    while (job->more_waiters != NULL) {
        struct waiter *waiter = job->more_waiters;
        job->more_waiters = waiter->next;
        free(waiter);
    }
}

void waiters_visit(struct core *core, const struct job *job,
                   void (*visit)(struct core *core, uint64_t peer, bool streams,
                                 const void *context),
                   const void *context)
{
    if (job->waiter != 0 && client_find(core, job->waiter) != NULL) {
        visit(core, job->waiter, false, context);
    }
    for (const struct waiter *waiter = job->more_waiters; waiter != NULL; waiter = waiter->next) {
        if (client_find(core, waiter->peer) != NULL) {
            visit(core, waiter->peer, waiter->streams, context);
        }
    }
}

void waiter_credit(struct core *core, const struct event *event)
{
    if (client_expect(core, event->peer) == NULL) {
        return;
    }
    const uint32_t more = event->as.stream_credit.chunks;
    struct job *job = job_find(core, &event->as.stream_credit.job_id);
    struct waiter *waiter = job == NULL ? NULL : find_more(job, event->peer);
    if (waiter != NULL) {
        waiter->chunks_left = chunks_left_with(waiter->chunks_left, more);
        stream_wanted(core, job);
    }
    /* Its leader may have answered, and it be concluded in a later turn. */
    if (waiter == NULL || job->place == PLACE_FOLLOWING) {
        stream_rest_credit(core, event->peer, &event->as.stream_credit.job_id, more);
    }
}
