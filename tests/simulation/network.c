#include "tests/simulation/network.h"
#include "tests/simulation/memory.h"

enum { NOTICE_MS_MAX = 15000, DELAY_QUIET_MS_MAX = 20 };

struct link *network_link(const struct simulation *simulation, uint64_t peer)
{
    return simulation->links[peer - 1];
}

uint64_t network_connect(struct simulation *simulation, bool is_worker, uint32_t owner)
{
    if (simulation->links_length == simulation->links_capacity) {
        simulation->links_capacity = simulation->links_capacity * 2 + 64;
        simulation->links = must(reallocarray(simulation->links, simulation->links_capacity,
                                              sizeof(*simulation->links)));
    }
    struct link *link = must(calloc(1, sizeof(*link)));
    link->is_worker = is_worker;
    link->owner = owner;
    link->incarnation = simulation->broker.incarnation;
    simulation->links[simulation->links_length++] = link;
    return simulation->links_length;
}

void network_break(struct simulation *simulation, uint64_t peer)
{
    struct link *link = network_link(simulation, peer);
    if (!link->is_lossy) {
        link->is_lossy = true;
        schedule_add(&simulation->schedule,
                     simulation->now_ms + dice_between(&simulation->dice, 0, NOTICE_MS_MAX),
                     TASK_LINK_BROKEN, link->owner, peer, NULL);
    }
}

static bool is_cut(const struct simulation *simulation, const struct link *link)
{
    const int64_t until_ms = link->is_worker ? simulation->workers[link->owner].cut_until_ms
                                             : simulation->clients[link->owner].cut_until_ms;
    return simulation->now_ms < until_ms;
}

/* A dispatch is paid with credit, and a connection repeats nothing: a second one would be a second
 * attempt. */
static bool may_be_repeated(const struct message *message)
{
    return message->to_broker ? message->event != EVENT_CACHE_INVALIDATE
                              : message->effect != EFFECT_DISPATCH;
}

/* A hello and a goodbye frame a connection: they come once and first or last. */
static bool is_frame_of_connection(const struct message *message)
{
    return message->to_broker &&
           (message->event == EVENT_CLIENT_HELLO || message->event == EVENT_WORKER_HELLO ||
            message->event == EVENT_CLIENT_GONE || message->event == EVENT_WORKER_GONE);
}

/* Chunks, and what workers are told of their caches. */
static bool is_of_stream(const struct message *message)
{
    return message->to_broker ? message->event == EVENT_CHUNK
                              : message->effect == EFFECT_CACHE_INVALIDATE;
}

static void deliver_later(struct simulation *simulation, struct link *link,
                          const struct message *message)
{
    const struct faults *faults = &simulation->scenario.faults;
    int64_t at_ms = simulation->now_ms +
                    dice_between(&simulation->dice, 0,
                                 simulation->is_quiet ? DELAY_QUIET_MS_MAX : faults->delay_ms_max);
    int64_t *arrival_ms = &link->arrival_ms[message->to_broker];
    const bool overtakes = !is_frame_of_connection(message) && !is_of_stream(message) &&
                           simulation_hit(simulation, faults->reorder);
    if (!overtakes && at_ms < *arrival_ms) {
        at_ms = *arrival_ms;
    }
    simulation->tally.overtaken += at_ms < *arrival_ms;
    *arrival_ms = at_ms > *arrival_ms ? at_ms : *arrival_ms;
    schedule_add(&simulation->schedule, at_ms, TASK_DELIVER, link->owner, 0, message);
}

void network_send(struct simulation *simulation, const struct message *message)
{
    struct link *link = network_link(simulation, message->peer);
    const struct faults *faults = &simulation->scenario.faults;
    /* A stream has no holes: after something lost nothing of it arrives. */
    const bool is_behind_loss = is_of_stream(message) && link->is_lossy;
    if (is_cut(simulation, link) || is_behind_loss || simulation_hit(simulation, faults->lose)) {
        simulation->tally.lost++;
        network_break(simulation, message->peer);
        struct message lost = *message;
        message_finish(&lost);
        return;
    }
    if (!is_frame_of_connection(message) && may_be_repeated(message) &&
        simulation_hit(simulation, faults->duplicate)) {
        const struct message copy = message_copy(message);
        simulation->tally.duplicated++;
        deliver_later(simulation, link, &copy);
    }
    deliver_later(simulation, link, message);
}
