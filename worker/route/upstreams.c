#include "worker/route/upstreams.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const int64_t FOR_MS_MAX = INT64_C(24) * 3600 * 1000;

/* A broker has a handful of them: looking through all is no cost beside a call. */
struct upstreams {
    struct upstream items[UPSTREAMS_MAX];
    size_t length;
};

int upstreams_create(struct upstreams **ret_upstreams)
{
    struct upstreams *upstreams = calloc(1, sizeof(*upstreams));
    if (upstreams == NULL) {
        return -ENOMEM;
    }
    *ret_upstreams = upstreams;
    return 0;
}

void upstreams_forget(struct upstreams *upstreams)
{
    for (size_t i = 0; i < upstreams->length; i++) {
        free(upstreams->items[i].provider);
        free(upstreams->items[i].model);
    }
    upstreams->length = 0;
}

void upstreams_destroy(struct upstreams **upstreams)
{
    struct upstreams *old = TAKE(*upstreams);
    if (old != NULL) {
        upstreams_forget(old);
        free(old);
    }
}

static size_t find(const struct upstreams *upstreams, const char *provider, const char *model)
{
    size_t i = 0;
    while (i < upstreams->length && (strcmp(upstreams->items[i].provider, provider) != 0 ||
                                     strcmp(upstreams->items[i].model, model) != 0)) {
        i++;
    }
    return i;
}

/* Errors: -ENOBUFS, -ENOMEM. */
static int find_or_add(struct upstreams *upstreams, const Wire__Upstream *name,
                       struct upstream **ret_item)
{
    const size_t i = find(upstreams, name->provider, name->model);
    if (i == UPSTREAMS_MAX) {
        return -ENOBUFS;
    }
    struct upstream *item = &upstreams->items[i];
    if (i == upstreams->length) {
        char *provider = strdup(name->provider);
        char *model = strdup(name->model);
        if (provider == NULL || model == NULL) {
            free(provider);
            free(model);
            return -ENOMEM;
        }
        *item = (struct upstream){.provider = provider, .model = model};
        upstreams->length++;
    }
    *ret_item = item;
    return 0;
}

static bool is_name(const char *name)
{
    return name[0] != '\0' &&
           strnlen(name, UPSTREAMS_NAME_BYTES_MAX + 1) <= UPSTREAMS_NAME_BYTES_MAX;
}

static int take(struct upstreams *upstreams, const Wire__UpstreamState *said, int64_t now_ms,
                const struct upstream **ret_upstream, bool *ret_changed)
{
    struct upstream *item = NULL;
    if (said->upstream == NULL || !is_name(said->upstream->provider) ||
        !is_name(said->upstream->model)) {
        return -EBADMSG;
    }
    int r = find_or_add(upstreams, said->upstream, &item);
    if (r < 0) {
        return r;
    }
    const int64_t for_ms = said->for_ms < (uint64_t)FOR_MS_MAX ? (int64_t)said->for_ms : FOR_MS_MAX;
    *ret_changed = item->state != said->state;
    item->state = said->state;
    item->until_ms = for_ms == 0 ? 0 : now_ms + for_ms;
    *ret_upstream = item;
    return 0;
}

int upstreams_take(struct upstreams *upstreams, const void *data, size_t bytes, int64_t now_ms,
                   const struct upstream **ret_upstream, bool *ret_changed)
{
    Wire__UpstreamState *said = wire__upstream_state__unpack(NULL, bytes, data);
    if (said == NULL) {
        return -EBADMSG;
    }
    int r = take(upstreams, said, now_ms, ret_upstream, ret_changed);
    wire__upstream_state__free_unpacked(said, NULL);
    return r;
}

int64_t upstreams_open_ms(const struct upstreams *upstreams, const char *provider,
                          const char *model, int64_t now_ms)
{
    const size_t i = find(upstreams, provider, model);
    if (i == upstreams->length) {
        return 0;
    }
    const struct upstream *item = &upstreams->items[i];
    const bool is_open = item->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN;
    return is_open && item->until_ms > now_ms ? item->until_ms - now_ms : 0;
}

size_t upstreams_list(const struct upstreams *upstreams, const struct upstream **ret_items)
{
    *ret_items = upstreams->items;
    return upstreams->length;
}

const char *upstream_state_name(Wire__UpstreamState__State state)
{
    static const char *const names[] = {
        [WIRE__UPSTREAM_STATE__STATE__UPSTREAM_CLOSED] = "closed",
        [WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN] = "open",
        [WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN] = "half_open",
        [WIRE__UPSTREAM_STATE__STATE__UPSTREAM_SLOW_START] = "slow_start",
    };
    return (size_t)state < ARRAY_LENGTH(names) ? names[state] : "unknown";
}
