#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>
#include "common/clock.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/loop.h"

enum { PART_BYTES_MAX = 1 << 20, PATIENCE_MS = 20000 };

/* One end of a conversation, and what it has heard. */
struct end {
    struct link *link;
    size_t messages;
    size_t parts;   /* of the last message */
    size_t bytes;   /* of the last message */
    char first[64]; /* the last message's first part */
    char peer[LINK_PEER_BYTES_MAX];
    size_t peer_bytes;
    struct blob *payload; /* part 1 of the last message, taken */
    bool is_echoing;
    bool is_closing; /* the handler destroys the link */
};

struct pair {
    void *zmq;
    struct loop *loop;
    struct end router, dealer;
};

static int send_text(struct end *end, const void *peer, size_t peer_bytes, const char *text)
{
    return link_send(end->link, peer, peer_bytes, text, strlen(text), NULL, 0);
}

static void note_first_part(struct end *end, const struct link_message *message)
{
    size_t bytes;
    const void *data = link_message_part(message, 0, &bytes);
    const size_t kept = bytes < sizeof(end->first) - 1 ? bytes : sizeof(end->first) - 1;
    if (kept > 0) {
        memcpy(end->first, data, kept);
    }
    end->first[kept] = '\0';
}

static void hear(void *context, const void *peer, size_t peer_bytes, struct link_message *message)
{
    struct end *end = context;
    end->messages++;
    end->parts = link_message_parts(message);
    end->bytes = 0;
    for (size_t i = 0; i < end->parts; i++) {
        size_t bytes;
        cr_assert_not_null(link_message_part(message, i, &bytes));
        end->bytes += bytes;
    }
    note_first_part(end, message);
    memcpy(end->peer, peer, peer_bytes);
    end->peer_bytes = peer_bytes;
    if (end->parts > 1) {
        blob_unref(&end->payload);
        cr_assert_eq(link_take_blob(message, 1, &end->payload), 0);
        size_t bytes = 1;
        (void)link_message_part(message, 1, &bytes);
        cr_assert_eq(bytes, 0, "the part was taken");
    }
    if (end->is_echoing) {
        cr_assert_eq(send_text(end, peer, peer_bytes, end->first), 0);
    }
    if (end->is_closing) {
        link_destroy(&end->link);
    }
}

static void open_end(struct pair *pair, struct end *end, const struct link_options *options)
{
    cr_assert_eq(link_create(pair->loop, pair->zmq, options, hear, end, &end->link), 0);
}

static void open_pair(struct pair *pair)
{
    *pair = (struct pair){.zmq = zmq_ctx_new()};
    cr_assert_eq(loop_create(&pair->loop), 0);
    const struct link_options bound = {.kind = LINK_ROUTER,
                                       .endpoint = "tcp://127.0.0.1:*",
                                       .bind = true,
                                       .part_bytes_max = PART_BYTES_MAX};
    open_end(pair, &pair->router, &bound);
    const struct link_options connected = {.kind = LINK_DEALER,
                                           .endpoint = link_endpoint(pair->router.link),
                                           .part_bytes_max = PART_BYTES_MAX};
    open_end(pair, &pair->dealer, &connected);
}

static void close_pair(struct pair *pair)
{
    blob_unref(&pair->router.payload);
    blob_unref(&pair->dealer.payload);
    link_destroy(&pair->dealer.link);
    link_destroy(&pair->router.link);
    loop_destroy(&pair->loop);
    cr_assert_eq(zmq_ctx_term(pair->zmq), 0);
}

static void run_until(struct pair *pair, const size_t *messages, size_t wanted)
{
    const int64_t give_up_ms = clock_monotonic_ms() + PATIENCE_MS;
    while (*messages < wanted) {
        cr_assert_lt(clock_monotonic_ms(), give_up_ms, "%zu of %zu messages", *messages, wanted);
        cr_assert_eq(loop_turn(pair->loop, PATIENCE_MS), 0);
    }
}

static struct blob *make_payload(size_t bytes, int fill)
{
    char *data = malloc(bytes + 1);
    memset(data, fill, bytes + 1);
    struct blob *blob = NULL;
    cr_assert_eq(blob_create(data, bytes, &blob), 0);
    free(data);
    return blob;
}

Test(link, a_message_arrives_with_its_peer_and_is_answered, .timeout = 30)
{
    struct pair pair;
    open_pair(&pair);
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "question"), 0);
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_str_eq(pair.router.first, "question");
    cr_assert_gt(pair.router.peer_bytes, 0);
    cr_assert_eq(send_text(&pair.router, pair.router.peer, pair.router.peer_bytes, "answer"), 0);
    run_until(&pair, &pair.dealer.messages, 1);
    cr_assert_str_eq(pair.dealer.first, "answer");
    cr_assert_eq(pair.dealer.peer_bytes, 0);
    close_pair(&pair);
}

/* Small ones are copied, large ones referred to; both come out as they went in, and can be passed
 * on. */
Test(link, payloads_of_every_size_are_passed_on_unchanged, .timeout = 60)
{
    const size_t sizes[] = {0, 1, 33, 34, 1024, 4096, 4097, 8192, 70000, PART_BYTES_MAX};
    struct pair pair;
    open_pair(&pair);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct blob *sent = make_payload(sizes[i], 'a' + (int)i);
        cr_assert_eq(link_send(pair.dealer.link, NULL, 0, "head", 4, &sent, 1), 0);
        run_until(&pair, &pair.router.messages, i + 1);
        cr_assert_eq(blob_bytes(pair.router.payload), sizes[i]);
        cr_assert_eq(link_send(pair.router.link, pair.router.peer, pair.router.peer_bytes, "back",
                               4, &pair.router.payload, 1),
                     0);
        run_until(&pair, &pair.dealer.messages, i + 1);
        cr_assert_eq(blob_bytes(pair.dealer.payload), sizes[i]);
        cr_assert_eq(memcmp(blob_data(pair.dealer.payload), blob_data(sent), sizes[i]), 0);
        cr_assert_eq(memcmp(blob_data(pair.router.payload), blob_data(sent), sizes[i]), 0,
                     "a payload that was sent on stays readable");
        blob_unref(&sent);
    }
    close_pair(&pair);
}

Test(link, a_full_batch_of_payloads_is_one_message, .timeout = 30)
{
    struct pair pair;
    open_pair(&pair);
    static struct blob *payloads[FRAME_PARTS_MAX];
    struct blob *payload = make_payload(16, 'p');
    for (size_t i = 0; i < FRAME_PARTS_MAX; i++) {
        payloads[i] = payload;
    }
    cr_assert_eq(link_send(pair.dealer.link, NULL, 0, "h", 1, payloads, FRAME_PARTS_MAX),
                 -EMSGSIZE);
    cr_assert_eq(link_send(pair.dealer.link, NULL, 0, "h", 1, payloads, FRAME_PARTS_MAX - 1), 0);
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_eq(pair.router.parts, FRAME_PARTS_MAX);
    cr_assert_eq(pair.router.bytes, 1 + 16 * (FRAME_PARTS_MAX - 1));
    blob_unref(&payload);
    close_pair(&pair);
}

Test(link, a_message_of_too_many_parts_arrives_empty_and_hurts_no_other, .timeout = 30)
{
    struct pair pair;
    open_pair(&pair);
    void *raw = zmq_socket(pair.zmq, ZMQ_DEALER);
    cr_assert_eq(zmq_connect(raw, link_endpoint(pair.router.link)), 0);
    for (int i = 0; i <= FRAME_PARTS_MAX; i++) {
        cr_assert_eq(zmq_send(raw, "x", 1, i < FRAME_PARTS_MAX ? ZMQ_SNDMORE : 0), 1);
    }
    cr_assert_eq(zmq_send(raw, "next", 4, 0), 4);
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_eq(pair.router.parts, pair.router.messages == 1 ? 0 : 1);
    cr_assert_gt(pair.router.peer_bytes, 0);
    run_until(&pair, &pair.router.messages, 2);
    cr_assert_str_eq(pair.router.first, "next");
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

Test(link, unknown_peers_and_full_queues_are_told_at_once, .timeout = 60)
{
    struct pair pair;
    open_pair(&pair);
    cr_assert_eq(send_text(&pair.router, "nobody", 6, "x"), -EHOSTUNREACH);

    /* A peer that never reads: its queue and the kernel's buffers fill, then sends are refused. */
    void *raw = zmq_socket(pair.zmq, ZMQ_DEALER);
    const int one = 1, none = 0;
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_RCVHWM, &one, sizeof(one)), 0);
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_LINGER, &none, sizeof(none)), 0);
    cr_assert_eq(zmq_connect(raw, link_endpoint(pair.router.link)), 0);
    cr_assert_eq(zmq_send(raw, "hello", 5, 0), 5);
    run_until(&pair, &pair.router.messages, 1);
    struct blob *payload = make_payload(60000, 'z');
    int r = 0;
    for (int i = 0; r == 0 && i < 100000; i++) {
        r = link_send(pair.router.link, pair.router.peer, pair.router.peer_bytes, "h", 1, &payload,
                      1);
    }
    cr_assert_eq(r, -EAGAIN);
    blob_unref(&payload);
    cr_assert_eq(zmq_close(raw), 0);

    /* The other peer is not concerned. */
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "still here"), 0);
    run_until(&pair, &pair.router.messages, 2);
    cr_assert_str_eq(pair.router.first, "still here");
    close_pair(&pair);
}

/*
 * A send may process what a receive was to be woken for: ZeroMQ looks at its commands in any call,
 * but at most once in some 3 million ticks of the processor, so this sends for longer than that.
 * Nothing else would wake the loop again.
 */
Test(link, a_send_that_swallows_the_edge_leaves_no_message_behind, .timeout = 60)
{
    enum { LONGER_THAN_THE_THROTTLE_MS = 20 };
    struct pair pair;
    open_pair(&pair);
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "hello"), 0);
    run_until(&pair, &pair.router.messages, 1);
    struct pollfd item = {.fd = loop_fd(pair.loop), .events = POLLIN};
    while (poll(&item, 1, 0) == 1) {
        cr_assert_eq(loop_turn(pair.loop, 0), 0);
    }

    cr_assert_eq(send_text(&pair.router, pair.router.peer, pair.router.peer_bytes, "answer"), 0);
    cr_assert_eq(loop_turn(pair.loop, 0), 0); /* the router's own touch */
    const int64_t until_ms = clock_monotonic_ms() + LONGER_THAN_THE_THROTTLE_MS;
    while (pair.dealer.messages == 0 && clock_monotonic_ms() < until_ms) {
        const int r = send_text(&pair.dealer, NULL, 0, "more");
        cr_assert(r == 0 || r == -EAGAIN);
    }
    const int64_t give_up_ms = clock_monotonic_ms() + PATIENCE_MS;
    while (pair.dealer.messages == 0 && clock_monotonic_ms() < give_up_ms) {
        cr_assert_eq(loop_turn(pair.loop, PATIENCE_MS), 0);
    }
    cr_assert_eq(pair.dealer.messages, 1);
    close_pair(&pair);
}

/*
 * Sends swallow the edge of receives. Every message here is sent from a handler or between two
 * turns while answers are on their way; if one edge were lost, the loop would sleep with a message
 * in the socket, and the count stop.
 */
Test(link, no_message_is_left_behind_when_sends_and_receives_cross, .timeout = 120)
{
    enum { ROUNDS = 20000, WINDOW = 7 };
    struct pair pair;
    open_pair(&pair);
    pair.router.is_echoing = true;
    for (size_t round = 0; round < ROUNDS; round += WINDOW) {
        for (size_t i = 0; i < WINDOW; i++) {
            cr_assert_eq(send_text(&pair.dealer, NULL, 0, "ping"), 0);
        }
        run_until(&pair, &pair.dealer.messages, round + WINDOW);
    }
    close_pair(&pair);
}

/* The same for a loop inside another: its descriptor must not stay silent while a message waits. */
Test(link, an_embedded_loop_is_told_of_every_message, .timeout = 120)
{
    enum { ROUNDS = 5000 };
    struct pair pair;
    open_pair(&pair);
    pair.router.is_echoing = true;
    struct pollfd item = {.fd = loop_fd(pair.loop), .events = POLLIN};
    for (size_t round = 1; round <= ROUNDS; round++) {
        cr_assert_eq(send_text(&pair.dealer, NULL, 0, "ping"), 0);
        while (pair.dealer.messages < round) {
            cr_assert_eq(poll(&item, 1, PATIENCE_MS), 1, "silent at message %zu", round);
            cr_assert_eq(loop_turn(pair.loop, 0), 0);
        }
    }
    close_pair(&pair);
}

Test(link, a_turn_takes_a_bounded_number_and_the_next_follows_at_once, .timeout = 60)
{
    enum { MESSAGES = 3 * LINK_MESSAGES_PER_TURN };
    struct pair pair;
    open_pair(&pair);
    for (size_t i = 0; i < MESSAGES; i++) {
        cr_assert_eq(send_text(&pair.dealer, NULL, 0, "x"), 0);
    }
    bool was_bounded = false;
    size_t before = 0;
    while (pair.router.messages < MESSAGES) {
        cr_assert_eq(loop_turn(pair.loop, PATIENCE_MS), 0);
        cr_assert_leq(pair.router.messages - before, LINK_MESSAGES_PER_TURN);
        was_bounded = was_bounded || link_has_more(pair.router.link);
        before = pair.router.messages;
    }
    cr_assert(was_bounded);
    close_pair(&pair);
}

Test(link, a_handler_may_destroy_its_link, .timeout = 30)
{
    struct pair pair;
    open_pair(&pair);
    pair.router.is_closing = true;
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "x"), 0);
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "y"), 0);
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_null(pair.router.link);
    cr_assert_eq(pair.router.messages, 1);
    close_pair(&pair);
}

Test(link, oversize_parts_are_never_delivered, .timeout = 30)
{
    struct pair pair;
    open_pair(&pair);
    void *raw = zmq_socket(pair.zmq, ZMQ_DEALER);
    const int none = 0;
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_LINGER, &none, sizeof(none)), 0);
    cr_assert_eq(zmq_connect(raw, link_endpoint(pair.router.link)), 0);
    void *monitor = zmq_socket(pair.zmq, ZMQ_PAIR);
    cr_assert_eq(zmq_socket_monitor(raw, "inproc://oversize", ZMQ_EVENT_DISCONNECTED), 0);
    cr_assert_eq(zmq_connect(monitor, "inproc://oversize"), 0);
    char *huge = calloc(1, PART_BYTES_MAX + 1);
    cr_assert_eq(zmq_send(raw, huge, PART_BYTES_MAX + 1, 0), PART_BYTES_MAX + 1);
    free(huge);
    char event[64];
    while (zmq_recv(monitor, event, sizeof(event), ZMQ_DONTWAIT) < 0) {
        cr_assert_eq(loop_turn(pair.loop, 10), 0);
    }
    cr_assert_eq(pair.router.messages, 0);
    cr_assert_eq(zmq_close(monitor), 0);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

Test(link, published_messages_reach_who_listens, .timeout = 30)
{
    struct pair pair = {.zmq = zmq_ctx_new()};
    cr_assert_eq(loop_create(&pair.loop), 0);
    struct end publisher = {0}, listener = {0};
    const struct link_options bound = {
        .kind = LINK_PUB, .endpoint = "tcp://127.0.0.1:*", .bind = true, .part_bytes_max = 1024};
    open_end(&pair, &publisher, &bound);
    const struct link_options connected = {
        .kind = LINK_SUB, .endpoint = link_endpoint(publisher.link), .part_bytes_max = 1024};
    open_end(&pair, &listener, &connected);
    /* When a subscription has arrived nobody is told: publish until one is heard. */
    const int64_t give_up_ms = clock_monotonic_ms() + PATIENCE_MS;
    while (listener.messages == 0 && clock_monotonic_ms() < give_up_ms) {
        cr_assert_eq(send_text(&publisher, NULL, 0, "event"), 0);
        cr_assert_eq(loop_turn(pair.loop, 5), 0);
    }
    cr_assert_str_eq(listener.first, "event");
    link_destroy(&listener.link);
    link_destroy(&publisher.link);
    loop_destroy(&pair.loop);
    cr_assert_eq(zmq_ctx_term(pair.zmq), 0);
}

/* `localhost` has an IPv6 address too on most machines, where nobody listens here. */
Test(link, an_ipv4_broker_is_shown_as_such_and_reached_by_name, .timeout = 30)
{
    struct pair pair;
    open_pair(&pair);
    cr_assert_eq(strncmp(link_endpoint(pair.router.link), "tcp://127.0.0.1:", 16), 0, "%s",
                 link_endpoint(pair.router.link));
    char by_name[64];
    (void)snprintf(by_name, sizeof(by_name), "tcp://localhost:%s",
                   strrchr(link_endpoint(pair.router.link), ':') + 1);
    struct end named = {0};
    const struct link_options options = {
        .kind = LINK_DEALER, .endpoint = by_name, .part_bytes_max = 1024};
    open_end(&pair, &named, &options);
    cr_assert_eq(send_text(&named, NULL, 0, "by name"), 0);
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_str_eq(pair.router.first, "by name");
    link_destroy(&named.link);
    close_pair(&pair);
}

Test(link, addresses_in_use_or_senseless_are_refused)
{
    struct pair pair;
    open_pair(&pair);
    struct link *link = NULL;
    struct link_options options = {
        .kind = LINK_ROUTER, .endpoint = link_endpoint(pair.router.link), .bind = true};
    cr_assert_eq(link_create(pair.loop, pair.zmq, &options, hear, NULL, &link), -EADDRINUSE);
    const char *senseless[] = {"", "tcp://", "tcp://127.0.0.1", "carrier-pigeon://x",
                               "tcp://127.0.0.1:99999"};
    for (size_t i = 0; i < sizeof(senseless) / sizeof(senseless[0]); i++) {
        options.endpoint = senseless[i];
        cr_assert_eq(link_create(pair.loop, pair.zmq, &options, hear, NULL, &link), -EINVAL, "%s",
                     senseless[i]);
    }
    cr_assert_null(link);
    close_pair(&pair);
}
