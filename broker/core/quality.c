#include "broker/core/quality.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/decision.h"

/* What is summed up together; without padding, so that it can be hashed and compared as bytes. */
struct subject {
    uint16_t tenant, route, model;
    uint8_t tier, cache, task, zero;
};
_Static_assert(sizeof(struct subject) == 10, "it is hashed as it is");

struct sum {
    struct table_link by_subject;
    struct list_link by_use;
    struct subject subject;
    uint64_t count;
    double score, last;
    int64_t last_unix_ms;
};

struct quality_total {
    uint16_t model;
    uint8_t tier;
    uint64_t count;
    double score;
};

struct quality_comment {
    struct id job_id;
    int64_t unix_ms; /* 0: there is none here yet */
    double score;
    uint16_t tenant, model;
    char text[CORE_COMMENT_BYTES_MAX + 1];
};

static uint64_t hash_of(const struct subject *subject, uint64_t seed)
{
    return XXH3_64bits_withSeed(subject, sizeof(*subject), seed);
}

uint64_t quality_hash(const struct table_link *link, uint64_t seed)
{
    return hash_of(&CONTAINER_OF((struct table_link *)link, struct sum, by_subject)->subject, seed);
}

void quality_init(struct core *core)
{
    list_init(&core->quality.by_use);
}

void quality_destroy(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->quality.by_use)) != NULL) {
        list_remove(&core->quality.by_use, link);
        free(CONTAINER_OF(link, struct sum, by_use));
    }
    free(core->quality.totals);
    free(core->quality.comments);
}

/* ---- sums ---- */

static struct sum *find(const struct core *core, const struct subject *subject)
{
    const struct table *table = &core->quality.sums;
    struct table_link *link = table_first(table, hash_of(subject, table->seed));
    for (; link != NULL; link = link->next) {
        struct sum *sum = CONTAINER_OF(link, struct sum, by_subject);
        if (memcmp(&sum->subject, subject, sizeof(*subject)) == 0) {
            return sum;
        }
    }
    return NULL;
}

static void forget_one(struct core *core)
{
    struct sum *sum = CONTAINER_OF(list_first(&core->quality.by_use), struct sum, by_use);
    table_remove(&core->quality.sums, &sum->by_subject);
    list_remove(&core->quality.by_use, &sum->by_use);
    free(sum);
}

/* NULL: no memory. */
static struct sum *find_or_make(struct core *core, const struct subject *subject)
{
    struct sum *sum = find(core, subject);
    if (sum != NULL) {
        list_remove(&core->quality.by_use, &sum->by_use);
    } else {
        if (core->quality.by_use.length >= QUALITY_SUMS_MAX) {
            forget_one(core);
        }
        sum = calloc(1, sizeof(*sum));
        if (sum == NULL) {
            return NULL;
        }
        sum->subject = *subject;
        table_insert(&core->quality.sums, &sum->by_subject);
    }
    list_append(&core->quality.by_use, &sum->by_use);
    return sum;
}

/* ---- totals ---- */

/* NULL: no memory. There are few: models times tiers. */
static struct quality_total *total_of(struct quality *quality, uint16_t model, uint8_t tier)
{
    for (size_t i = 0; i < quality->totals_length; i++) {
        if (quality->totals[i].model == model && quality->totals[i].tier == tier) {
            return &quality->totals[i];
        }
    }
    struct quality_total *grown =
        reallocarray(quality->totals, quality->totals_length + 1, sizeof(*grown));
    if (grown == NULL) {
        return NULL;
    }
    quality->totals = grown;
    grown[quality->totals_length] = (struct quality_total){.model = model, .tier = tier};
    return &grown[quality->totals_length++];
}

/* ---- comments ---- */

static void keep_comment(struct core *core, const struct concluded_entry *entry, double score,
                         const char *text)
{
    struct quality *quality = &core->quality;
    if (quality->comments == NULL) {
        quality->comments = calloc(QUALITY_COMMENTS, sizeof(*quality->comments));
    }
    if (quality->comments == NULL) {
        return;
    }
    struct quality_comment *comment = &quality->comments[quality->comment_next];
    quality->comment_next = (quality->comment_next + 1) % QUALITY_COMMENTS;
    *comment = (struct quality_comment){.job_id = entry->id,
                                        .unix_ms = core->unix_ms,
                                        .score = score,
                                        .tenant = entry->tenant,
                                        .model = entry->model};
    (void)snprintf(comment->text, sizeof(comment->text), "%s", text);
}

void quality_add(struct core *core, const struct concluded_entry *entry, double score,
                 const char *comment)
{
    const uint8_t tier = concluded_tier(entry);
    struct sum *sum = find_or_make(core, &(struct subject){.tenant = entry->tenant,
                                                           .route = entry->route,
                                                           .model = entry->model,
                                                           .tier = tier,
                                                           .cache = entry->cache,
                                                           .task = entry->task});
    if (sum != NULL) {
        sum->count++;
        sum->score += score;
        sum->last = score;
        sum->last_unix_ms = core->unix_ms;
    }
    struct quality_total *total = total_of(&core->quality, entry->model, tier);
    if (total != NULL) {
        total->count++;
        total->score += score;
    }
    if (comment[0] != '\0') {
        keep_comment(core, entry, score, comment);
    }
}

/* ---- what operators see ---- */

static const char *text_of(const struct names *names, uint16_t index)
{
    return index == 0 ? "" : names->items[index - 1]->text;
}

void core_visit_quality(const struct core *core,
                        void (*visit)(void *context, const struct core_quality_view *view),
                        void *context)
{
    const struct list *list = &core->quality.by_use;
    for (const struct list_link *link = list->head.previous; link != &list->head;
         link = link->previous) {
        const struct sum *sum = CONTAINER_OF((struct list_link *)link, struct sum, by_use);
        const struct tenant *tenant = core->tenant[sum->subject.tenant];
        visit(context, &(struct core_quality_view){
                           .tenant = tenant->name->text,
                           .tier = core->tier[sum->subject.tier].name->text,
                           .route = text_of(&core->routes, sum->subject.route),
                           .model = text_of(&core->models, sum->subject.model),
                           .task = decision_task_name(tenant, sum->subject.task),
                           .cache = (Wire__CacheStatus)sum->subject.cache,
                           .count = sum->count,
                           .score = sum->score,
                           .last = sum->last,
                           .last_unix_ms = sum->last_unix_ms,
                       });
    }
}

void core_visit_quality_totals(const struct core *core,
                               void (*visit)(void *context, const struct core_quality_view *view),
                               void *context)
{
    for (size_t i = 0; i < core->quality.totals_length; i++) {
        const struct quality_total *total = &core->quality.totals[i];
        visit(context, &(struct core_quality_view){.tier = core->tier[total->tier].name->text,
                                                   .model = text_of(&core->models, total->model),
                                                   .count = total->count,
                                                   .score = total->score});
    }
}

void core_visit_comments(const struct core *core,
                         void (*visit)(void *context, const struct core_comment_view *view),
                         void *context)
{
    const struct quality *quality = &core->quality;
    for (size_t i = 1; quality->comments != NULL && i <= QUALITY_COMMENTS; i++) {
        const struct quality_comment *comment =
            &quality->comments[(quality->comment_next + QUALITY_COMMENTS - i) % QUALITY_COMMENTS];
        if (comment->unix_ms > 0) {
            visit(context, &(struct core_comment_view){
                               .job_id = comment->job_id,
                               .unix_ms = comment->unix_ms,
                               .tenant = core->tenants.items[comment->tenant]->text,
                               .model = text_of(&core->models, comment->model),
                               .score = comment->score,
                               .text = comment->text,
                           });
        }
    }
}

uint64_t core_feedback_count(const struct core *core, Wire__FeedbackOutcome outcome)
{
    return core->quality.outcomes[outcome];
}
