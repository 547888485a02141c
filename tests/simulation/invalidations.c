#include "tests/simulation/invalidations.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/core.h"
#include "broker/core/record.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"

enum {
    KEY_BYTES = 6 + 8, /* of a record of one */
    LONG_TEXT_BYTES = 60000,
    KINDS = 8,
};

/* ---- what is asked for ---- */

/* Made once; ends with a zero. */
static char *long_text(void)
{
    static char text[LONG_TEXT_BYTES];
    memset(text, 'x', sizeof(text) - 1);
    return text;
}

/* As an operator or a client names it; a client mostly names none. */
static const char *named_tenant(const struct simulation *simulation, const struct message *message)
{
    const uint32_t which = (uint32_t)message->number / KINDS % (2 * SCENARIO_TENANTS + 2);
    return which < SCENARIO_TENANTS ? simulation->scenario.tenants[which].name : "";
}

void invalidations_fill(const struct simulation *simulation, const struct message *message,
                        struct invalidation_words *ret_words)
{
    const uint32_t salt = (uint32_t)message->number;
    *ret_words = (struct invalidation_words){.selector = WIRE__CACHE_SELECTOR__INIT,
                                             .reason = salt % 3 == 0 ? "" : "simulated"};
    Wire__CacheSelector *selector = &ret_words->selector;
    (void)snprintf(ret_words->name, sizeof(ret_words->name), "name-%u", salt / KINDS % 100);
    memset(ret_words->key, (int)(message->event == EVENT_CACHE_FEEDBACK ? message->digest : salt),
           sizeof(ret_words->key));
    selector->tenant = (char *)(uintptr_t)named_tenant(simulation, message);
    if (message->event == EVENT_CACHE_FEEDBACK || salt % KINDS == 3) {
        selector->key = (ProtobufCBinaryData){sizeof(ret_words->key), ret_words->key};
    } else if (salt % KINDS == 0) {
        selector->tag = ret_words->name;
    } else if (salt % KINDS == 1) {
        selector->document = ret_words->name;
    } else if (salt % KINDS == 4) {
        selector->has_namespace = true;
        selector->route = ret_words->name;
        selector->older_than_ms = salt;
    } else if (salt % KINDS == 5) {
        selector->near_text = ret_words->name;
        selector->near_cosine_min = 0.8;
    } else if (salt % KINDS == 6) {
        selector->model = selector->template_version = ret_words->name;
    } else if (salt % KINDS == 7) {
        selector->text_prefix = simulation->scenario.cache.is_wordy ? long_text() : ret_words->name;
    } /* else everything */
}

uint64_t invalidations_ask(struct simulation *simulation, uint32_t client)
{
    struct invalidations *all = &simulation->invalidations;
    if (all->asks_length == all->asks_capacity) {
        all->asks_capacity = all->asks_capacity * 2 + 64;
        all->asks = must(reallocarray(all->asks, all->asks_capacity, sizeof(*all->asks)));
    }
    all->asks[all->asks_length++] = (struct answered_ask){.client = client};
    return all->asks_length;
}

/* ---- the step ---- */

static bool is_asking(const struct message *message)
{
    return message->event == EVENT_CACHE_INVALIDATE || message->event == EVENT_CACHE_FEEDBACK;
}

static uint64_t core_length(const struct simulation *simulation, uint64_t *ret_told,
                            uint8_t ret_epoch[16])
{
    uint64_t length;
    core_cache_position(simulation->broker.core, ret_epoch, &length, ret_told);
    return length;
}

void invalidations_before_step(struct simulation *simulation, const struct message *message)
{
    struct invalidations *all = &simulation->invalidations;
    all->dropped = core_near_feedback(simulation->broker.core)->dropped;
    if (message->event == EVENT_WORKER_HELLO &&
        !network_link(simulation, message->peer)->is_stranger) {
        struct link *link = network_link(simulation, message->peer);
        link->cache_said = message->leases->cache_sequence;
        link->cache_is_foreign = message->leases->cache_is_foreign;
    }
}

/* SCENARIO_TENANTS: an operator, who has none. */
static uint32_t tenant_of(const struct simulation *simulation, const struct message *message)
{
    return message->peer == 0
               ? SCENARIO_TENANTS
               : simulation->clients[network_link(simulation, message->peer)->owner].tenant;
}

static bool is_foreign(const struct simulation *simulation, const struct message *message,
                       const struct invalidation_words *words)
{
    const uint32_t tenant = tenant_of(simulation, message);
    return message->event == EVENT_CACHE_INVALIDATE && tenant < SCENARIO_TENANTS &&
           words->selector.tenant[0] != '\0' &&
           strcmp(words->selector.tenant, simulation->scenario.tenants[tenant].name) != 0;
}

static uint32_t reach_of(const struct simulation *simulation, const char *tenant)
{
    uint32_t i = 0;
    while (i < SCENARIO_TENANTS && strcmp(simulation->scenario.tenants[i].name, tenant) != 0) {
        i++;
    }
    return i;
}

/* As workers are to be told of it. */
static uint64_t expected_digest(const struct simulation *simulation,
                                const struct invalidation_words *words, uint64_t sequence)
{
    Wire__CacheInvalidation invalidation = WIRE__CACHE_INVALIDATION__INIT;
    Wire__CacheSelector selector = words->selector;
    uint8_t epoch[16];
    memcpy(epoch, simulation->invalidations.epoch, sizeof(epoch));
    invalidation.sequence = sequence;
    invalidation.selector = &selector;
    invalidation.reason = (char *)(uintptr_t)words->reason;
    invalidation.epoch = (ProtobufCBinaryData){sizeof(epoch), epoch};
    uint8_t *packed = must(malloc(wire__cache_invalidation__get_packed_size(&invalidation)));
    const size_t bytes = wire__cache_invalidation__pack(&invalidation, packed);
    const uint64_t digest = XXH3_64bits(packed, bytes);
    free(packed);
    return digest;
}

static void add(struct simulation *simulation, const struct message *message,
                struct invalidation_words *words)
{
    struct invalidations *all = &simulation->invalidations;
    const uint32_t tenant = tenant_of(simulation, message);
    if (tenant < SCENARIO_TENANTS) {
        words->selector.tenant = simulation->scenario.tenants[tenant].name;
        all->taken[tenant] += message->event == EVENT_CACHE_INVALIDATE;
    }
    if (message->event == EVENT_CACHE_FEEDBACK) {
        words->reason = "a client said it was wrong";
    }
    if (all->length == all->capacity) {
        all->capacity = all->capacity * 2 + 64;
        all->items = must(reallocarray(all->items, all->capacity, sizeof(*all->items)));
    }
    const uint64_t sequence = ++all->length;
    all->items[sequence - 1] =
        (struct invalidation){.digest = expected_digest(simulation, words, sequence),
                              .tenant = reach_of(simulation, words->selector.tenant)};
    simulation->tally.invalidated++;
}

struct answers {
    uint32_t answers, errors; /* errors: it is nobody whom the core knows */
    uint64_t sequence, batch;
};

static struct answers answers_to(const struct simulation *simulation, const struct message *message)
{
    struct effects *effects = simulation->broker.effects;
    struct answers answers = {0};
    for (size_t i = simulation->broker.examined; i < effects_length(effects); i++) {
        const struct effect *effect = effects_at(effects, i);
        if (effect->kind == EFFECT_CACHE_INVALIDATED && effect->peer == message->peer &&
            effect->as.cache_invalidated.number == message->total) {
            answers.answers++;
            answers.sequence = effect->as.cache_invalidated.sequence;
            answers.batch = effect->batch;
        }
        answers.errors += effect->kind == EFFECT_CLIENT_ERROR && effect->peer == message->peer;
    }
    return answers;
}

static void check_answers(struct simulation *simulation, const struct message *message,
                          bool is_refused, bool has_grown)
{
    const struct invalidations *all = &simulation->invalidations;
    const struct answers answers = answers_to(simulation, message);
    const uint32_t expected = message->peer != 0 && message->event == EVENT_CACHE_INVALIDATE;
    if (answers.answers + answers.errors != expected && (expected > 0 || answers.answers > 0)) {
        simulation_violate(simulation, "who asks for an invalidation is answered %u times",
                           answers.answers);
    }
    if (answers.answers > 0 &&
        (answers.sequence != (has_grown ? all->length : 0) || (has_grown && answers.batch == 0))) {
        simulation_violate(simulation, "invalidation %" PRIu64 " is answered as %" PRIu64,
                           all->length, answers.sequence);
    }
    if (is_refused && has_grown) {
        simulation_violate(simulation, "a client invalidates what is another tenant's");
    }
    const bool is_praise = message->event == EVENT_CACHE_FEEDBACK && message->flag;
    if (is_praise && has_grown) {
        simulation_violate(simulation, "an answer is invalidated that nobody said was wrong");
    }
    const uint32_t tenant = tenant_of(simulation, message);
    const bool may_be_refused =
        is_refused || simulation->broker.has_lacked_memory || all->has_dropped ||
        all->length - all->told >= CACHE_LOG_UNTOLD_MAX ||
        (tenant < SCENARIO_TENANTS && all->taken[tenant] >= CACHE_LOG_BURST);
    if (answers.errors == 0 && !is_praise && !has_grown && !may_be_refused) {
        simulation_violate(simulation, "an invalidation is refused, and nothing is wrong with it");
    }
}

static void see_asked(struct simulation *simulation, const struct message *message)
{
    struct invalidations *all = &simulation->invalidations;
    struct invalidation_words words;
    uint64_t told;
    uint8_t epoch[16];
    const uint64_t length = core_length(simulation, &told, epoch);
    invalidations_fill(simulation, message, &words);
    const bool is_refused = is_foreign(simulation, message, &words);
    const bool has_grown = length == all->length + 1;
    if (all->length == 0) {
        memcpy(all->epoch, epoch, sizeof(epoch));
    }
    if (has_grown) {
        add(simulation, message, &words);
    }
    check_answers(simulation, message, is_refused, has_grown);
    if (!has_grown && simulation->broker.has_lacked_memory &&
        tenant_of(simulation, message) < SCENARIO_TENANTS) {
        all->taken[tenant_of(simulation, message)]++; /* it has counted all the same, perhaps */
    }
}

/* Those that became durable are told by now. */
static void see_told(struct simulation *simulation)
{
    struct invalidations *all = &simulation->invalidations;
    uint64_t told;
    uint8_t epoch[16];
    (void)core_length(simulation, &told, epoch);
    while (all->told < told && all->told < all->length) {
        all->told++;
        all->told_of[all->items[all->told - 1].tenant] = all->told;
    }
}

void invalidations_after_step(struct simulation *simulation, const struct message *message)
{
    struct invalidations *all = &simulation->invalidations;
    all->has_dropped = core_near_feedback(simulation->broker.core)->dropped > all->dropped;
    if (is_asking(message)) {
        see_asked(simulation, message);
    } else if (message->event == EVENT_DURABLE) {
        see_told(simulation);
    }
}

uint64_t invalidations_told(const struct simulation *simulation, uint32_t tenant)
{
    const uint64_t *told_of = simulation->invalidations.told_of;
    return told_of[tenant] > told_of[SCENARIO_TENANTS] ? told_of[tenant]
                                                       : told_of[SCENARIO_TENANTS];
}

/* ---- records ---- */

/* The number of the one whose record has this key; 0: it is of something else. */
static uint64_t sequence_of(enum store_family family, const uint8_t *key, size_t key_bytes)
{
    uint64_t sequence = 0;
    if (family != STORE_META || key_bytes != KEY_BYTES || memcmp(key, "cache\1", 6) != 0) {
        return 0;
    }
    for (size_t i = 6; i < KEY_BYTES; i++) {
        sequence = sequence << 8 | key[i];
    }
    return sequence;
}

static void see_recorded(struct simulation *simulation, const struct effect *effect,
                         uint64_t sequence)
{
    const struct invalidations *all = &simulation->invalidations;
    Record__CacheInvalidationRecord *record;
    if (record_read_cache_invalidation(effect->as.put.value, effect->as.put.value_bytes, NULL,
                                       &record) < 0) {
        simulation_violate(simulation, "the record of an invalidation cannot be read");
        return;
    }
    if (sequence != all->length ||
        XXH3_64bits(record->invalidation.data, record->invalidation.len) !=
            all->items[sequence - 1].digest) {
        simulation_violate(
            simulation, "invalidation %" PRIu64 " is not recorded as it was asked for", sequence);
    }
    record__cache_invalidation_record__free_unpacked(record, NULL);
}

void invalidations_see_effect(struct simulation *simulation, const struct effect *effect)
{
    struct invalidations *all = &simulation->invalidations;
    const bool is_change = effect->kind == EFFECT_PUT || effect->kind == EFFECT_DELETE;
    const uint64_t sequence =
        is_change ? sequence_of(effect->as.put.family, effect->as.put.key, effect->as.put.key_bytes)
                  : 0;
    if (sequence == 0) {
        return;
    }
    if (effect->kind == EFFECT_PUT) {
        see_recorded(simulation, effect, sequence);
        return;
    }
    if (sequence != all->forgotten + 1 || sequence > all->told) {
        simulation_violate(simulation, "invalidation %" PRIu64 " is forgotten out of turn",
                           sequence);
    }
    all->forgotten = sequence;
}

void invalidations_see_durable(struct simulation *simulation, const struct storage_change *change)
{
    struct invalidations *all = &simulation->invalidations;
    const uint64_t sequence = sequence_of(change->family, change->key, change->key_bytes);
    if (sequence != 0 && change->kind == STORAGE_PUT) {
        all->durable = sequence;
    } else if (sequence != 0) {
        all->forgotten_durable = sequence;
    }
}

void invalidations_restart(struct simulation *simulation)
{
    struct invalidations *all = &simulation->invalidations;
    uint64_t told;
    uint8_t epoch[16];
    const uint64_t length = core_length(simulation, &told, epoch);
    if (length != all->durable || told != length || length < all->acknowledged) {
        simulation_violate(simulation,
                           "after a restart there are %" PRIu64 " invalidations, and %" PRIu64
                           " are on the disk",
                           length, all->durable);
    }
    if (length > 0 && memcmp(epoch, all->epoch, sizeof(epoch)) != 0) {
        simulation_violate(simulation, "invalidations are numbered anew after a restart");
    }
    all->length = all->told = all->durable;
    all->forgotten = all->forgotten_durable;
    memset(all->taken, 0, sizeof(all->taken));
    for (uint32_t i = 0; i <= SCENARIO_TENANTS; i++) {
        all->told_of[i] = all->durable; /* nobody remembers */
    }
}

/* ---- telling ---- */

struct missed {
    struct simulation *simulation;
    uint64_t next;
};

static void check_told(struct simulation *simulation, uint64_t sequence, uint64_t digest)
{
    const struct invalidations *all = &simulation->invalidations;
    if (sequence == 0 || sequence > all->durable) {
        simulation_violate(simulation, "invalidation %" PRIu64 " is told before it is durable",
                           sequence);
    } else if (all->items[sequence - 1].digest != digest) {
        simulation_violate(simulation, "invalidation %" PRIu64 " is told as another one", sequence);
    }
}

static void look_at_missed(void *context, const struct core_invalidation_view *view)
{
    struct missed *missed = context;
    if (view->sequence != missed->next++) {
        simulation_violate(missed->simulation,
                           "a welcome tells of invalidation %" PRIu64 " in place of %" PRIu64,
                           view->sequence, missed->next - 1);
    }
    check_told(missed->simulation, view->sequence, XXH3_64bits(view->packed, view->bytes));
}

static void check_behind(struct simulation *simulation, const struct link *link, bool is_behind)
{
    const struct invalidations *all = &simulation->invalidations;
    const bool is_strange =
        (link->cache_said > 0 && link->cache_is_foreign) || link->cache_said > all->told;
    const bool has_to = is_strange || link->cache_said < all->forgotten;
    if (is_behind != has_to && !(is_behind && simulation->broker.has_damage)) {
        simulation_violate(
            simulation, "a worker that has come to %" PRIu64 " of %" PRIu64 " %s that it is behind",
            link->cache_said, all->told, is_behind ? "is told" : "is not told");
    }
}

/* As the broker makes it, when it goes out. */
static void fill_welcome(struct simulation *simulation, const struct effect *effect,
                         struct message *message)
{
    const struct link *link = network_link(simulation, effect->peer);
    const uint64_t said = effect->as.worker_welcome.cache_sequence;
    struct missed missed = {simulation, said + 1};
    uint64_t told;
    uint8_t epoch[16];
    if (said != link->cache_said) {
        simulation_violate(simulation,
                           "a worker has come to %" PRIu64 ", and is taken for one at %" PRIu64,
                           link->cache_said, said);
    }
    message->flag =
        !core_visit_invalidations(simulation->broker.core, effect->as.worker_welcome.cache_epoch,
                                  said, look_at_missed, &missed);
    (void)core_length(simulation, &told, epoch);
    if (!message->flag && missed.next != told + 1) {
        simulation_violate(simulation, "a welcome ends at invalidation %" PRIu64 " of %" PRIu64,
                           missed.next - 1, told);
    }
    check_behind(simulation, link, message->flag);
    simulation->tally.behind += message->flag;
    simulation->tally.caught_up += !message->flag && told > said;
    message->total = told;
}

static void fill_told(struct simulation *simulation, const struct effect *effect,
                      struct message *message)
{
    const void *packed = effect->as.cache_invalidate.packed;
    const size_t bytes = effect->as.cache_invalidate.bytes;
    Wire__CacheInvalidation *told = wire__cache_invalidation__unpack(NULL, bytes, packed);
    if (told == NULL) {
        simulation_violate(simulation, "a worker is told what cannot be read");
        return;
    }
    message->total = told->sequence;
    message->digest = XXH3_64bits(packed, bytes);
    wire__cache_invalidation__free_unpacked(told, NULL);
}

void invalidations_fill_release(struct simulation *simulation, const struct effect *effect,
                                struct message *message)
{
    if (effect->kind == EFFECT_WORKER_WELCOME) {
        fill_welcome(simulation, effect, message);
    } else if (effect->kind == EFFECT_CACHE_INVALIDATE) {
        fill_told(simulation, effect, message);
    } else if (effect->kind == EFFECT_CACHE_INVALIDATED) {
        message->total = effect->as.cache_invalidated.number;
        message->digest = effect->as.cache_invalidated.sequence;
        message->flag = effect->as.cache_invalidated.sequence == 0;
        message->time_ms = effect->as.cache_invalidated.retry_after_ms;
    }
}

static void release_told(struct simulation *simulation, struct link *link,
                         const struct message *message)
{
    check_told(simulation, message->total, message->digest);
    /* What a welcome of the same turn has told is told again. */
    if (!link->has_cache_told || message->total > link->cache_told + 1) {
        simulation_violate(simulation,
                           "worker %u is told of invalidation %" PRIu64 " after %" PRIu64,
                           link->owner, message->total, link->cache_told);
    }
    link->cache_told = message->total > link->cache_told ? message->total : link->cache_told;
}

static void release_answer(struct simulation *simulation, const struct link *link,
                           const struct message *message)
{
    struct invalidations *all = &simulation->invalidations;
    struct answered_ask *ask =
        message->total - 1 < all->asks_length ? &all->asks[message->total - 1] : NULL;
    if (ask == NULL || ask->client != link->owner || ask->is_answered) {
        simulation_violate(simulation, "client %u is answered to what it did not ask, or twice",
                           link->owner);
        return;
    }
    ask->is_answered = true;
    if (message->digest > all->durable) {
        simulation_violate(simulation, "invalidation %" PRIu64 " is answered before it is durable",
                           message->digest);
    }
    all->acknowledged = message->digest > all->acknowledged ? message->digest : all->acknowledged;
}

void invalidations_see_release(struct simulation *simulation, const struct message *message)
{
    struct link *link = network_link(simulation, message->peer);
    if (message->effect == EFFECT_WORKER_WELCOME) {
        link->cache_told = message->total;
        link->has_cache_told = true;
    } else if (message->effect == EFFECT_CACHE_INVALIDATE) {
        release_told(simulation, link, message);
    } else if (message->effect == EFFECT_CACHE_INVALIDATED) {
        release_answer(simulation, link, message);
    } else if (message->effect == EFFECT_DISPATCH &&
               link->cache_told < simulation->invalidations.acknowledged) {
        simulation_violate(simulation,
                           "worker %u is given job %u before it is told of invalidation %" PRIu64,
                           link->owner, message->job, simulation->invalidations.acknowledged);
    }
}

struct look {
    uint64_t peer;
    bool is_known;
};

static void is_it_this_one(void *context, const struct core_worker_view *view)
{
    struct look *look = context;
    look->is_known |= view->peer == look->peer;
}

static void check_worker(struct simulation *simulation, const struct sim_worker *worker)
{
    const struct link *link =
        worker->known_as == 0 ? NULL : network_link(simulation, worker->known_as);
    struct look look = {.peer = worker->known_as};
    if (link == NULL || link->cache_told == simulation->invalidations.told) {
        return;
    }
    core_visit_workers(simulation->broker.core, sim_broker_now(simulation), is_it_this_one, &look);
    if (look.is_known) {
        simulation_violate(simulation, "%s is told of invalidations up to %" PRIu64 " of %" PRIu64,
                           worker->name, link->cache_told, simulation->invalidations.told);
    }
}

void invalidations_check_turn(struct simulation *simulation)
{
    struct invalidations *all = &simulation->invalidations;
    uint64_t told;
    uint8_t epoch[16];
    const uint64_t length = core_length(simulation, &told, epoch);
    if (length != all->length || told != all->told || told > all->durable ||
        (length > 0 && memcmp(epoch, all->epoch, sizeof(epoch)) != 0)) {
        simulation_violate(simulation,
                           "there are %" PRIu64 " invalidations of which %" PRIu64
                           " are told, and %" PRIu64 " were asked for and %" PRIu64 " are durable",
                           length, told, all->length, all->durable);
    }
    if (all->acknowledged < told) { /* an operator hears of it now */
        all->acknowledged = told;
    }
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        check_worker(simulation, &simulation->workers[i]);
    }
}

void invalidations_finish(struct simulation *simulation)
{
    free(simulation->invalidations.items);
    free(simulation->invalidations.asks);
}
