#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/route/upstreams.h"

#define CLOSED    WIRE__UPSTREAM_STATE__STATE__UPSTREAM_CLOSED
#define OPEN      WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN
#define HALF_OPEN WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN

static struct upstreams *create(void)
{
    struct upstreams *upstreams = NULL;
    cr_assert_eq(upstreams_create(&upstreams), 0);
    return upstreams;
}

/* At time 1000. */
static int take(struct upstreams *upstreams, const char *provider, const char *model,
                Wire__UpstreamState__State state, uint64_t for_ms, bool *ret_changed)
{
    uint8_t packed[1024];
    const struct upstream *item = NULL;
    Wire__Upstream name = WIRE__UPSTREAM__INIT;
    Wire__UpstreamState said = WIRE__UPSTREAM_STATE__INIT;
    name.provider = (char *)provider;
    name.model = (char *)model;
    said.upstream = &name;
    said.state = state;
    said.for_ms = for_ms;
    const size_t bytes = wire__upstream_state__pack(&said, packed);
    int r = upstreams_take(upstreams, packed, bytes, 1000, &item, ret_changed);
    if (r == 0) {
        cr_assert_str_eq(item->provider, provider);
        cr_assert_str_eq(item->model, model);
    }
    return r;
}

Test(upstreams, an_open_one_stays_so_for_as_long_as_was_said)
{
    struct upstreams *upstreams = create();
    bool changed = false;
    cr_assert_eq(take(upstreams, "near", "small", OPEN, 500, &changed), 0);
    cr_assert(changed);
    cr_assert_eq(upstreams_open_ms(upstreams, "near", "small", 1000), 500);
    cr_assert_eq(upstreams_open_ms(upstreams, "near", "small", 1499), 1);
    cr_assert_eq(upstreams_open_ms(upstreams, "near", "small", 1500), 0);
    cr_assert_eq(upstreams_open_ms(upstreams, "near", "big", 1000), 0);
    cr_assert_eq(upstreams_open_ms(upstreams, "far", "small", 1000), 0);
    upstreams_destroy(&upstreams);
}

Test(upstreams, later_news_replaces_earlier)
{
    struct upstreams *upstreams = create();
    const struct upstream *items;
    bool changed = false;
    cr_assert_eq(take(upstreams, "near", "small", OPEN, 60000, &changed), 0);
    cr_assert_eq(take(upstreams, "near", "small", OPEN, 90000, &changed), 0);
    cr_assert_not(changed);
    cr_assert_eq(upstreams_open_ms(upstreams, "near", "small", 1000), 90000);
    cr_assert_eq(take(upstreams, "near", "small", HALF_OPEN, 0, &changed), 0);
    cr_assert(changed);
    cr_assert_eq(upstreams_open_ms(upstreams, "near", "small", 1000), 0);
    cr_assert_eq(upstreams_list(upstreams, &items), 1);
    cr_assert_str_eq(upstream_state_name(items[0].state), "half_open");
    upstreams_destroy(&upstreams);
}

Test(upstreams, a_snapshot_begins_with_nothing)
{
    struct upstreams *upstreams = create();
    bool changed = false;
    cr_assert_eq(take(upstreams, "near", "small", OPEN, 60000, &changed), 0);
    upstreams_forget(upstreams);
    cr_assert_eq(upstreams_open_ms(upstreams, "near", "small", 1000), 0);
    cr_assert_eq(take(upstreams, "near", "small", CLOSED, 0, &changed), 0);
    cr_assert_not(changed);
    upstreams_destroy(&upstreams);
}

Test(upstreams, what_is_no_state_is_refused)
{
    struct upstreams *upstreams = create();
    const struct upstream *item = NULL;
    bool changed = false;
    cr_assert_eq(upstreams_take(upstreams, "\xff\xff", 2, 1000, &item, &changed), -EBADMSG);
    cr_assert_eq(upstreams_take(upstreams, "", 0, 1000, &item, &changed), -EBADMSG);
    cr_assert_eq(take(upstreams, "", "small", OPEN, 500, &changed), -EBADMSG);
    cr_assert_null(item);
    cr_assert_str_eq(upstream_state_name((Wire__UpstreamState__State)99), "unknown");
    upstreams_destroy(&upstreams);
}

Test(upstreams, their_number_is_bounded)
{
    struct upstreams *upstreams = create();
    bool changed = false;
    char model[16];
    for (int i = 0; i < UPSTREAMS_MAX; i++) {
        (void)snprintf(model, sizeof(model), "m%d", i);
        cr_assert_eq(take(upstreams, "near", model, CLOSED, 0, &changed), 0);
    }
    cr_assert_eq(take(upstreams, "near", "one more", OPEN, 500, &changed), -ENOBUFS);
    cr_assert_eq(take(upstreams, "near", "m7", OPEN, UINT64_MAX, &changed), 0);
    cr_assert_gt(upstreams_open_ms(upstreams, "near", "m7", 1000), 0);
    upstreams_destroy(&upstreams);
}
