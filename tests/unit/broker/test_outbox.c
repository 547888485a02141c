/* The outbox and what is held, with a link that only writes down what it is given. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "broker/held.h"
#include "broker/outbox.h"
#include "common/blob.h"
#include "common/frame.h"
#include "common/link.h"

enum { SENT_MAX = 64 };

static struct {
    int error; /* what link_send() answers */
    size_t length;
    size_t bytes[SENT_MAX];
    size_t payloads[SENT_MAX];
    char first[SENT_MAX]; /* the first byte after the header */
} sent;

int link_send(struct link *link, const void *peer, size_t peer_bytes, const void *head,
              size_t head_bytes, struct blob *const *payloads, size_t payloads_length)
{
    (void)link, (void)peer, (void)peer_bytes, (void)payloads;
    if (sent.error == 0) {
        sent.bytes[sent.length] = head_bytes;
        sent.payloads[sent.length] = payloads_length;
        sent.first[sent.length] =
            head_bytes > FRAME_HEADER_BYTES ? ((const char *)head)[FRAME_HEADER_BYTES] : '\0';
        sent.length++;
    }
    return sent.error;
}

static struct {
    size_t calls, leases;
    int error;
} failed;

static void on_failed(void *context, struct peer *peer, int error, const struct lease_ref *leases,
                      size_t leases_length)
{
    (void)context, (void)peer, (void)leases;
    failed.calls++;
    failed.leases += leases_length;
    failed.error = error;
}

static struct peers *peers;
static struct peer *a, *b;
static struct outboxes *outboxes;

static void setup(void)
{
    cr_assert_eq(peers_create(1, &peers), 0);
    cr_assert_eq(peers_add(peers, PEER_CLIENT, "a", 1, "", 0, &a), 0);
    cr_assert_eq(peers_add(peers, PEER_WORKER, "b", 1, "", 0, &b), 0);
    cr_assert_eq(outboxes_create(&(struct outbox_options){.on_failed = on_failed}, &outboxes), 0);
}

static void teardown(void)
{
    outboxes_destroy(&outboxes);
    peers_destroy(&peers);
}

static int64_t now_ms = 100;

static void add(struct peer *peer, const char *text, bool is_lazy)
{
    const struct parcel parcel = {
        .bytes = (const uint8_t *)text, .length = strlen(text), .is_lazy = is_lazy};
    cr_assert_eq(outbox_add(outboxes, peer, &parcel, now_ms), 0);
}

TestSuite(outbox, .init = setup, .fini = teardown);
TestSuite(held, .init = setup, .fini = teardown);

Test(outbox, what_is_for_one_peer_leaves_as_one_message)
{
    add(a, "one", false);
    add(a, "two", false);
    add(b, "x", false);
    cr_assert_eq(sent.length, 0);
    cr_assert_eq(outboxes_flush(outboxes, now_ms), INT64_MAX);
    cr_assert_eq(sent.length, 2);
    cr_assert_eq(sent.bytes[0], FRAME_HEADER_BYTES + 6);
    cr_assert_eq(sent.bytes[1], FRAME_HEADER_BYTES + 1);
    outboxes_flush(outboxes, now_ms);
    cr_assert_eq(sent.length, 2);
}

Test(outbox, lazy_items_wait_for_company_but_not_long)
{
    add(a, "lazy", true);
    cr_assert_eq(outboxes_flush(outboxes, now_ms), now_ms + OUTBOX_LAZY_MS);
    cr_assert_eq(sent.length, 0);
    outboxes_flush(outboxes, now_ms + OUTBOX_LAZY_MS);
    cr_assert_eq(sent.length, 1);
}

Test(outbox, lazy_items_ride_with_the_next_urgent_one_in_order)
{
    add(a, "L", true);
    outboxes_flush(outboxes, now_ms);
    add(a, "U", false);
    cr_assert_eq(outboxes_flush(outboxes, now_ms), INT64_MAX);
    cr_assert_eq(sent.length, 1);
    cr_assert_eq(sent.first[0], 'L');
    cr_assert_eq(sent.bytes[0], FRAME_HEADER_BYTES + 2);
}

Test(outbox, a_peer_need_not_wait_until_all_payloads_of_a_turn_are_packed)
{
    struct blob *blob = NULL;
    cr_assert_eq(blob_create("p", 1, &blob), 0);
    const struct parcel parcel = {.bytes = (const uint8_t *)"x", .length = 1, .payload = blob};
    for (int i = 0; i < OUTBOX_PAYLOADS_MAX + 6; i++) {
        cr_assert_eq(outbox_add(outboxes, a, &parcel, now_ms), 0);
    }
    outboxes_flush(outboxes, now_ms);
    cr_assert_eq(sent.length, 2);
    cr_assert_eq(sent.payloads[0], OUTBOX_PAYLOADS_MAX);
    cr_assert_eq(sent.payloads[1], 6);
    blob_unref(&blob);
}

Test(outbox, a_large_message_leaves_before_the_turn_ends)
{
    static char large[OUTBOX_ENVELOPE_BYTES_MAX];
    memset(large, 'x', sizeof(large) - 1);
    add(a, large, false);
    add(a, "next", false);
    cr_assert_eq(sent.length, 1);
    outboxes_flush(outboxes, now_ms);
    cr_assert_eq(sent.length, 2);
    cr_assert_eq(sent.bytes[1], FRAME_HEADER_BYTES + 4);
}

Test(outbox, dispatches_that_cannot_be_sent_are_named)
{
    const struct lease_ref lease = {.attempt = 3};
    const struct parcel parcel = {.bytes = (const uint8_t *)"d", .length = 1, .lease = &lease};
    cr_assert_eq(outbox_add(outboxes, b, &parcel, now_ms), 0);
    cr_assert_eq(outbox_add(outboxes, b, &parcel, now_ms), 0);
    add(b, "c", true);
    sent.error = -EHOSTUNREACH;
    outboxes_flush(outboxes, now_ms);
    cr_assert_eq(failed.calls, 1);
    cr_assert_eq(failed.leases, 2);
    cr_assert_eq(failed.error, -EHOSTUNREACH);
    cr_assert_null(b->outbox);
}

Test(outbox, a_peer_that_says_nothing_gets_no_more_than_the_bound)
{
    static char large[OUTBOX_PAYLOAD_BYTES_MAX];
    struct blob *payload = NULL;
    cr_assert_eq(blob_create(large, sizeof(large), &payload), 0);
    size_t sends = 0;
    while (outbox_send_at_once(NULL, a, "head", 4, &payload, 1) == 0) {
        cr_assert_lt(++sends, 100);
    }
    cr_expect_eq(sends, OUTBOX_UNREAD_BYTES_MAX / (sizeof(large) + 4));
    cr_expect_eq(outbox_send_at_once(NULL, b, "head", 4, &payload, 1), 0); /* others have their own */
    peers_touch(peers, a, 1);
    cr_expect_eq(outbox_send_at_once(NULL, a, "head", 4, &payload, 1), 0);
    blob_unref(&payload);
}

Test(outbox, what_is_dropped_is_not_sent)
{
    add(a, "x", false);
    outbox_drop(outboxes, a);
    outboxes_flush_all(outboxes);
    cr_assert_eq(sent.length, 0);
}

static char delivered[64];

static void deliver(void *context, uint64_t peer, const struct parcel *parcel)
{
    (void)context, (void)peer;
    strncat(delivered, (const char *)parcel->bytes, parcel->length);
}

static void hold(struct held *held, uint64_t batch, bool is_accept, const char *text)
{
    const struct parcel parcel = {.bytes = (const uint8_t *)text, .length = strlen(text)};
    cr_assert_eq(held_push(held, batch, 1, is_accept, &parcel), 0);
}

Test(held, answers_are_let_go_in_order_once_their_batch_is_durable)
{
    struct held *held = NULL;
    cr_assert_eq(held_create(&held), 0);
    hold(held, 1, false, "a");
    hold(held, 2, false, "b");
    hold(held, 2, false, "c");
    hold(held, 3, false, "d");
    held_release(held, 0, deliver, NULL);
    cr_assert_str_eq(delivered, "");
    held_release(held, 2, deliver, NULL);
    cr_assert_str_eq(delivered, "abc");
    cr_assert_eq(held_length(held), 1);
    held_release(held, 9, deliver, NULL);
    cr_assert_str_eq(delivered, "abcd");
    held_destroy(&held);
}

Test(held, acceptances_of_a_failed_batch_are_forgotten_and_nothing_else)
{
    struct held *held = NULL;
    cr_assert_eq(held_create(&held), 0);
    hold(held, 1, true, "a");
    hold(held, 2, true, "b");
    hold(held, 2, false, "r");
    hold(held, 3, true, "c");
    held_forget_accepts(held, 2);
    cr_assert_eq(held_length(held), 2);
    hold(held, 4, true, "d");
    held_release(held, 9, deliver, NULL);
    cr_assert_str_eq(delivered, "ard");
    held_destroy(&held);
}
