#include <stdlib.h>

#include "worker/cache/cache_state.h"

static void lookup_release(struct cache_lookup *lookup)
{
    if (lookup->result.entry != NULL) {
        record__cache_entry__free_unpacked(lookup->result.entry, NULL);
    }
    free(lookup->text);
    free(lookup->vector);
    free(lookup);
}

static void fill_release(struct fill *fill)
{
    if (fill->entry != NULL) {
        record__cache_entry__free_unpacked(fill->entry, NULL);
    }
    free(fill->comparison.tenant);
    free(fill->comparison.tier);
    free(fill->vector);
    free(fill);
}

static void invalidation_release(struct invalidation *invalidation)
{
    if (invalidation->selector != NULL) {
        wire__cache_selector__free_unpacked(invalidation->selector, NULL);
    }
    free(invalidation->endpoint);
    free(invalidation);
}

static void question_release(struct question *question)
{
    free(question->what);
    free(question->argument);
    free(question->text);
    keeper_walk_destroy(&question->walk);
    free(question);
}

static void errand_release(struct errand *errand)
{
    wanted_destroy(&errand->wanted);
    free(errand);
}

void cache_request_release(struct request *request)
{
    switch (request->kind) {
    case REQUEST_LOOKUP:
        lookup_release(CONTAINER_OF(request, struct cache_lookup, request));
        break;
    case REQUEST_FILL:
        fill_release(CONTAINER_OF(request, struct fill, request));
        break;
    case REQUEST_INVALIDATE:
        invalidation_release(CONTAINER_OF(request, struct invalidation, request));
        break;
    case REQUEST_ASK:
        question_release(CONTAINER_OF(request, struct question, request));
        break;
    case REQUEST_DENY:
        free(CONTAINER_OF(request, struct denial, request));
        break;
    case REQUEST_WANTED:
    case REQUEST_BRING:
        errand_release(CONTAINER_OF(request, struct errand, request));
        break;
    case REQUEST_MODEL:
        free(request);
        break;
    }
}

void cache_requests_release(struct list *list)
{
    while (!list_is_empty(list)) {
        struct request *request = CONTAINER_OF(list_first(list), struct request, link);
        list_remove(list, &request->link);
        cache_request_release(request);
    }
}
