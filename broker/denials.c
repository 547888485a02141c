#include "broker/denials.h"

#include "broker/broker.h"
#include "broker/delivery.h"
#include "broker/peers.h"

enum { SECOND_MS = 1000 };

/* One worker's word, on its way to the others. */
struct word {
    struct broker *broker;
    uint64_t from;
    const Wire__CacheDenial *denial;
};

static void tell(void *context, const struct core_worker_view *view)
{
    const struct word *word = context;
    if (view->peer != word->from) {
        delivery_denial(word->broker, view->peer, word->denial);
    }
}

static bool may_tell(struct denials *denials, const Wire__CacheDenial *denial, int64_t now_ms)
{
    if (now_ms - denials->since_ms >= SECOND_MS) {
        denials->since_ms = now_ms;
        denials->in_second = 0;
    }
    return denial->key.len == DENIAL_KEY_BYTES && denials->in_second < DENIALS_A_SECOND;
}

void denials_take(struct broker *broker, const struct peer *peer, Wire__CacheDenial *const *items, size_t length)
{
    struct denials *denials = &broker->denials;
    const struct core_time now = broker_time(broker);
    for (size_t i = 0; i < length; i++) {
        if (!may_tell(denials, items[i], now.now_ms)) {
            denials->dropped++;
            continue;
        }
        denials->in_second++;
        denials->told++;
        struct word word = {.broker = broker, .from = peer->number, .denial = items[i]};
        core_visit_workers(broker->core, now, tell, &word);
    }
}
