/*
 * A conversation in which each allocation in turn fails: nothing crashes, nothing arrives in part,
 * and with memory again all is as it was.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/link.h"
#include "common/loop.h"

enum { PATIENCE_MS = 20000, PAYLOAD_BYTES = 300000, TURNS = 30 };

/* ---- memory ---- */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t items, size_t bytes);
void *__real_realloc(void *at, size_t bytes);
void *__real_reallocarray(void *at, size_t items, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t items, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
void *__wrap_reallocarray(void *at, size_t items, size_t bytes);

static long until_failure; /* 0: none fails */
static bool has_failed;

static bool fails(void)
{
    if (until_failure == 0 || --until_failure > 0) {
        return false;
    }
    has_failed = true;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t items, size_t bytes)
{
    return fails() ? NULL : __real_calloc(items, bytes);
}

void *__wrap_realloc(void *at, size_t bytes)
{
    return fails() ? NULL : __real_realloc(at, bytes);
}

void *__wrap_reallocarray(void *at, size_t items, size_t bytes)
{
    return fails() ? NULL : __real_reallocarray(at, items, bytes);
}

/* ---- the conversation ---- */

struct end {
    struct loop *loop;
    struct link *link;
    size_t messages;
    size_t endings; /* of connections for want of memory */
};

static void note_ending(void *context, const struct link_ending *ending)
{
    struct end *end = context;
    if (has_failed) {
        end->endings += ending->end == LINK_END_MEMORY;
    }
}

static void hear(void *context, const void *peer, size_t peer_bytes, struct link_message *message)
{
    struct end *end = context;
    size_t bytes;
    struct blob *payload = NULL;
    cr_assert_eq(link_message_parts(message), 2);
    (void)link_message_part(message, 1, &bytes);
    cr_assert_eq(bytes, PAYLOAD_BYTES);
    if (link_take_blob(message, 1, &payload) < 0) {
        return;
    }
    end->messages++;
    if (peer_bytes > 0) {
        const int r = link_send(end->link, peer, peer_bytes, "answer", 6, &payload, 1);
        cr_assert(r == 0 || r == -ENOMEM, "%d", r);
    }
    blob_unref(&payload);
}

static int open_ends(struct loop *loop, struct end *router, struct end *dealer)
{
    const struct link_options bound = {.kind = LINK_ROUTER,
                                       .endpoint = "tcp://127.0.0.1:0",
                                       .bind = true,
                                       .part_bytes_max = PAYLOAD_BYTES,
                                       .on_disconnected = note_ending};
    int r = link_create(loop, &bound, hear, router, &router->link);
    if (r < 0) {
        return r;
    }
    const struct link_options connected = {.kind = LINK_DEALER,
                                           .endpoint = link_endpoint(router->link),
                                           .part_bytes_max = PAYLOAD_BYTES,
                                           .on_disconnected = note_ending};
    return link_create(loop, &connected, hear, dealer, &dealer->link);
}

static void ask(struct end *dealer, struct blob *payload)
{
    const int r = link_send(dealer->link, NULL, 0, "question", 8, &payload, 1);
    cr_assert(r == 0 || r == -ENOMEM, "%d", r);
}

static void run_until_answered(struct loop *loop, struct end *dealer, struct blob *payload)
{
    const int64_t give_up_ms = clock_monotonic_ms() + PATIENCE_MS;
    const size_t before = dealer->messages;
    while (dealer->messages == before) {
        cr_assert_lt(clock_monotonic_ms(), give_up_ms);
        ask(dealer, payload);
        cr_assert_eq(loop_turn(loop, 10), 0);
    }
}

/* Returns whether the `nth` allocation was reached; adds to *endings. */
static bool converse(long nth, size_t *endings)
{
    struct loop *loop = NULL;
    struct end router = {0}, dealer = {0};
    struct blob *payload = NULL;
    uint8_t *bytes;
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(blob_create_unwritten(PAYLOAD_BYTES, &bytes, &payload), 0);
    memset(bytes, 'p', PAYLOAD_BYTES);
    has_failed = false;
    until_failure = nth;
    const int r = open_ends(loop, &router, &dealer);
    cr_assert(r == 0 || (r == -ENOMEM && has_failed), "%d", r);
    if (r == 0) {
        for (int i = 0; i < TURNS && !has_failed; i++) {
            ask(&dealer, payload);
            cr_assert_eq(loop_turn(loop, 1), 0);
        }
        until_failure = 0;
        run_until_answered(loop, &dealer, payload);
    }
    until_failure = 0;
    *endings += router.endings + dealer.endings;
    if (dealer.link != NULL) {
        link_forgo_linger(dealer.link);
    }
    link_destroy(&dealer.link);
    if (router.link != NULL) {
        link_forgo_linger(router.link);
    }
    link_destroy(&router.link);
    blob_unref(&payload);
    loop_destroy(&loop);
    return has_failed;
}

Test(link_memory, every_allocation_may_fail, .timeout = 120)
{
    long nth = 1;
    size_t endings = 0;
    while (nth < 400 && converse(nth, &endings)) {
        nth++;
    }
    cr_assert_gt(endings, 0, "what that costs a connection is told");
    cr_assert_gt(nth, 30, "the conversation has allocations");
}
