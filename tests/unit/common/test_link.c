#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <zmq.h>
#include "common/clock.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/link_address.h"
#include "common/link_connecter.h"
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
    size_t endings;  /* of connections, and what was said of the last one */
    enum link_end ended;
    bool was_open;
    char address[LINK_PEER_ADDRESS_BYTES];
    char gone[LINK_PEER_BYTES_MAX];
    size_t gone_bytes;
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
    cr_assert_eq(link_create(pair->loop, options, hear, end, &end->link), 0);
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

/* Sent from a handler or between two turns, while answers are on their way. */
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

/* What waits for a peer: more than the kernel takes at once, in payloads that are referred to. */
static void send_much(struct pair *pair, const void *peer, size_t peer_bytes, size_t messages)
{
    struct blob *payload = make_payload(PART_BYTES_MAX, 'x');
    for (size_t i = 0; i < messages; i++) {
        cr_assert_eq(link_send(pair->router.link, peer, peer_bytes, "head", 4, &payload, 1), 0);
    }
    blob_unref(&payload);
}

static void *say_hello(struct pair *pair, int messages_max)
{
    void *raw = zmq_socket(pair->zmq, ZMQ_DEALER);
    const size_t before = pair->router.messages;
    const int patience_ms = PATIENCE_MS, no_linger = 0;
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_RCVHWM, &messages_max, sizeof(messages_max)), 0);
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_RCVTIMEO, &patience_ms, sizeof(patience_ms)), 0);
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_LINGER, &no_linger, sizeof(no_linger)), 0);
    cr_assert_eq(zmq_connect(raw, link_endpoint(pair->router.link)), 0);
    cr_assert_eq(zmq_send(raw, "hi", 2, 0), 2);
    run_until(pair, &pair->router.messages, before + 1);
    return raw;
}

Test(link, peer_that_reads_nothing_takes_no_time_from_the_others_at_the_end, .timeout = 60)
{
    enum { MESSAGES = 32 };
    struct pair pair;
    open_pair(&pair);
    void *deaf = say_hello(&pair, 1); /* libzmq reads no more than it may keep */
    send_much(&pair, pair.router.peer, pair.router.peer_bytes, MESSAGES);
    void *lively = say_hello(&pair, 0);
    send_much(&pair, pair.router.peer, pair.router.peer_bytes, MESSAGES);
    const int64_t began_ms = clock_monotonic_ms();
    link_destroy(&pair.router.link);
    cr_assert_lt(clock_monotonic_ms() - began_ms, 2 * LINK_LINGER_MS);
    char *room = malloc(PART_BYTES_MAX);
    for (size_t i = 0; i < MESSAGES; i++) {
        cr_assert_eq(zmq_recv(lively, room, PART_BYTES_MAX, 0), 4, "message %zu", i);
        cr_assert_eq(zmq_recv(lively, room, PART_BYTES_MAX, 0), PART_BYTES_MAX);
    }
    free(room);
    zmq_close(deaf);
    zmq_close(lively);
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
        was_bounded = was_bounded || pair.router.messages < MESSAGES;
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
    cr_assert_eq(link_create(pair.loop, &options, hear, NULL, &link), -EADDRINUSE);
    const char *senseless[] = {"", "tcp://", "tcp://127.0.0.1", "carrier-pigeon://x",
                               "tcp://127.0.0.1:99999"};
    for (size_t i = 0; i < sizeof(senseless) / sizeof(senseless[0]); i++) {
        options.endpoint = senseless[i];
        cr_assert_eq(link_create(pair.loop, &options, hear, NULL, &link), -EINVAL, "%s",
                     senseless[i]);
    }
    cr_assert_null(link);
    close_pair(&pair);
}

/* ---- with ZeroMQ at the other end ---- */

static void *open_raw(struct pair *pair, int type)
{
    void *socket = zmq_socket(pair->zmq, type);
    const int none = 0;
    cr_assert_not_null(socket);
    cr_assert_eq(zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none)), 0);
    return socket;
}

static void bind_raw(void *socket, char ret_endpoint[256])
{
    size_t bytes = 256;
    cr_assert_eq(zmq_bind(socket, "tcp://127.0.0.1:*"), 0);
    cr_assert_eq(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, ret_endpoint, &bytes), 0);
}

/* One part, with our loop turning meanwhile. */
static int receive_raw(struct pair *pair, void *socket, void *data, size_t bytes)
{
    const int64_t give_up_ms = clock_monotonic_ms() + PATIENCE_MS;
    for (;;) {
        const int n = zmq_recv(socket, data, bytes, ZMQ_DONTWAIT);
        if (n >= 0 || clock_monotonic_ms() >= give_up_ms) {
            return n;
        }
        cr_assert_eq(loop_turn(pair->loop, 1), 0);
    }
}

static void open_dealer(struct pair *pair, const char *endpoint)
{
    *pair = (struct pair){.zmq = pair->zmq, .loop = pair->loop};
    const struct link_options options = {
        .kind = LINK_DEALER, .endpoint = endpoint, .part_bytes_max = PART_BYTES_MAX};
    open_end(pair, &pair->dealer, &options);
}

static void open_loop(struct pair *pair)
{
    *pair = (struct pair){.zmq = zmq_ctx_new()};
    cr_assert_eq(loop_create(&pair->loop), 0);
}

Test(link, a_router_of_zeromq_is_spoken_with, .timeout = 60)
{
    struct pair pair;
    char endpoint[256], name[256], head[16];
    open_loop(&pair);
    void *raw = open_raw(&pair, ZMQ_ROUTER);
    bind_raw(raw, endpoint);
    open_dealer(&pair, endpoint);
    char *data = malloc(PART_BYTES_MAX);
    const size_t sizes[] = {0, 255, 256, 4096, 70000, PART_BYTES_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct blob *sent = make_payload(sizes[i], 'a' + (int)i);
        cr_assert_eq(link_send(pair.dealer.link, NULL, 0, "head", 4, &sent, 1), 0);
        const int name_bytes = receive_raw(&pair, raw, name, sizeof(name));
        cr_assert_gt(name_bytes, 0);
        cr_assert_eq(receive_raw(&pair, raw, head, sizeof(head)), 4);
        cr_assert_eq(receive_raw(&pair, raw, data, PART_BYTES_MAX), (int)sizes[i]);
        cr_assert_eq(memcmp(data, blob_data(sent), sizes[i]), 0);
        cr_assert_eq(zmq_send(raw, name, (size_t)name_bytes, ZMQ_SNDMORE), name_bytes);
        cr_assert_eq(zmq_send(raw, "back", 4, ZMQ_SNDMORE), 4);
        cr_assert_eq(zmq_send(raw, data, sizes[i], 0), (int)sizes[i]);
        run_until(&pair, &pair.dealer.messages, i + 1);
        cr_assert_eq(blob_bytes(pair.dealer.payload), sizes[i]);
        cr_assert_eq(memcmp(blob_data(pair.dealer.payload), blob_data(sent), sizes[i]), 0);
        blob_unref(&sent);
    }
    free(data);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

Test(link, a_full_batch_goes_to_zeromq_and_comes_back, .timeout = 60)
{
    struct pair pair;
    open_pair(&pair);
    pair.router.is_echoing = true;
    void *raw = open_raw(&pair, ZMQ_DEALER);
    cr_assert_eq(zmq_connect(raw, link_endpoint(pair.router.link)), 0);
    for (int i = 0; i < FRAME_PARTS_MAX; i++) {
        cr_assert_eq(zmq_send(raw, "part", 4, i + 1 < FRAME_PARTS_MAX ? ZMQ_SNDMORE : 0), 4);
    }
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_eq(pair.router.parts, FRAME_PARTS_MAX);
    static struct blob *payloads[FRAME_PARTS_MAX - 1];
    struct blob *payload = make_payload(3000, 'p');
    for (size_t i = 0; i < FRAME_PARTS_MAX - 1; i++) {
        payloads[i] = payload;
    }
    cr_assert_eq(link_send(pair.router.link, pair.router.peer, pair.router.peer_bytes, "head", 4,
                           payloads, FRAME_PARTS_MAX - 1),
                 0);
    char data[4096];
    cr_assert_eq(receive_raw(&pair, raw, data, sizeof(data)), 4, "the echo");
    cr_assert_eq(receive_raw(&pair, raw, data, sizeof(data)), 4);
    for (int i = 0; i < FRAME_PARTS_MAX - 1; i++) {
        cr_assert_eq(receive_raw(&pair, raw, data, sizeof(data)), 3000);
    }
    int more = 1;
    size_t bytes = sizeof(more);
    cr_assert_eq(zmq_getsockopt(raw, ZMQ_RCVMORE, &more, &bytes), 0);
    cr_assert_eq(more, 0);
    blob_unref(&payload);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

Test(link, a_peer_that_comes_again_takes_its_name_over, .timeout = 30)
{
    struct pair pair;
    char text[16];
    open_pair(&pair);
    void *before = open_raw(&pair, ZMQ_DEALER), *after = open_raw(&pair, ZMQ_DEALER);
    void *both[] = {before, after};
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(zmq_setsockopt(both[i], ZMQ_ROUTING_ID, "worker", 6), 0);
        cr_assert_eq(zmq_connect(both[i], link_endpoint(pair.router.link)), 0);
        cr_assert_eq(zmq_send(both[i], "hello", 5, 0), 5);
        run_until(&pair, &pair.router.messages, i + 1);
        cr_assert_eq(pair.router.peer_bytes, 6);
        if (i == 0) { /* it would come again, and again */
            cr_assert_eq(zmq_disconnect(before, link_endpoint(pair.router.link)), 0);
        }
    }
    cr_assert_eq(send_text(&pair.router, "worker", 6, "welcome"), 0);
    cr_assert_eq(receive_raw(&pair, after, text, sizeof(text)), 7);
    cr_assert_eq(zmq_close(before), 0);
    cr_assert_eq(zmq_close(after), 0);
    close_pair(&pair);
}

Test(link, heartbeats_of_zeromq_are_answered, .timeout = 30)
{
    enum { INTERVAL_MS = 20, TIMEOUT_MS = 100, WATCHED_MS = 600 };
    struct pair pair;
    char event[64];
    open_pair(&pair);
    void *raw = open_raw(&pair, ZMQ_DEALER);
    const int interval_ms = INTERVAL_MS, timeout_ms = TIMEOUT_MS;
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_HEARTBEAT_IVL, &interval_ms, sizeof(interval_ms)), 0);
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_HEARTBEAT_TIMEOUT, &timeout_ms, sizeof(timeout_ms)), 0);
    void *monitor = open_raw(&pair, ZMQ_PAIR);
    cr_assert_eq(zmq_socket_monitor(raw, "inproc://beats", ZMQ_EVENT_DISCONNECTED), 0);
    cr_assert_eq(zmq_connect(monitor, "inproc://beats"), 0);
    cr_assert_eq(zmq_connect(raw, link_endpoint(pair.router.link)), 0);
    const int64_t until_ms = clock_monotonic_ms() + WATCHED_MS;
    while (clock_monotonic_ms() < until_ms) {
        cr_assert_eq(loop_turn(pair.loop, 5), 0);
    }
    cr_assert_lt(zmq_recv(monitor, event, sizeof(event), ZMQ_DONTWAIT), 0, "it stands");
    cr_assert_eq(zmq_close(monitor), 0);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

static void note_ending(void *context, const struct link_ending *ending)
{
    struct end *end = context;
    end->endings++;
    end->ended = ending->end;
    end->was_open = ending->was_open;
    cr_assert_gt(strlen(ending->reason), 0);
    (void)snprintf(end->address, sizeof(end->address), "%s", ending->address);
    memcpy(end->gone, ending->peer, ending->peer_bytes);
    end->gone_bytes = ending->peer_bytes;
}

Test(link, what_the_peer_refuses_holds_up_nothing_behind_it, .timeout = 30)
{
    struct pair pair;
    open_pair(&pair);
    struct blob *payload = make_payload(32 << 20, 'x'); /* more than the kernel holds */
    cr_assert_eq(link_send(pair.dealer.link, NULL, 0, "refused", 7, &payload, 1), 0);
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "behind"), 0);
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_str_eq(pair.router.first, "behind");
    blob_unref(&payload);
    close_pair(&pair);
}

Test(link, what_is_sent_while_nobody_is_there_goes_to_who_comes, .timeout = 60)
{
    struct pair pair;
    char endpoint[256], name[256], text[16];
    open_loop(&pair);
    void *raw = open_raw(&pair, ZMQ_ROUTER);
    bind_raw(raw, endpoint);
    const struct link_options options = {.kind = LINK_DEALER,
                                         .endpoint = endpoint,
                                         .part_bytes_max = PART_BYTES_MAX,
                                         .on_disconnected = note_ending};
    open_end(&pair, &pair.dealer, &options);
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "one"), 0);
    cr_assert_gt(receive_raw(&pair, raw, name, sizeof(name)), 0);
    cr_assert_eq(receive_raw(&pair, raw, text, sizeof(text)), 3);
    cr_assert_eq(zmq_close(raw), 0);
    while (pair.dealer.endings == 0) {
        cr_assert_eq(loop_turn(pair.loop, 10), 0);
    }
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "two!"), 0);
    raw = open_raw(&pair, ZMQ_ROUTER);
    while (zmq_bind(raw, endpoint) < 0) { /* ZeroMQ gives the port up some time later */
        cr_assert_eq(zmq_errno(), EADDRINUSE);
        cr_assert_eq(loop_turn(pair.loop, 1), 0);
    }
    cr_assert_gt(receive_raw(&pair, raw, name, sizeof(name)), 0);
    cr_assert_eq(receive_raw(&pair, raw, text, sizeof(text)), 4);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

Test(link, subscribers_of_zeromq_hear_what_begins_as_they_wish, .timeout = 30)
{
    struct pair pair;
    struct end publisher = {0};
    char text[16];
    open_loop(&pair);
    const struct link_options options = {
        .kind = LINK_PUB, .endpoint = "tcp://127.0.0.1:0", .bind = true, .part_bytes_max = 1024};
    open_end(&pair, &publisher, &options);
    void *raw = open_raw(&pair, ZMQ_SUB);
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_SUBSCRIBE, "b", 1), 0);
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_SUBSCRIBE, "", 0), 0);
    cr_assert_eq(zmq_setsockopt(raw, ZMQ_UNSUBSCRIBE, "", 0), 0);
    cr_assert_eq(zmq_connect(raw, link_endpoint(publisher.link)), 0);
    int bytes = -1;
    while (bytes < 0) {
        cr_assert_eq(send_text(&publisher, NULL, 0, "a is nobody's"), 0);
        cr_assert_eq(send_text(&publisher, NULL, 0, "b is heard"), 0);
        cr_assert_eq(loop_turn(pair.loop, 5), 0);
        bytes = zmq_recv(raw, text, sizeof(text), ZMQ_DONTWAIT);
    }
    cr_assert_eq(text[0], 'b');
    cr_assert_eq(zmq_close(raw), 0);
    link_destroy(&publisher.link);
    close_pair(&pair);
}

Test(link, a_publisher_of_zeromq_is_heard, .timeout = 30)
{
    struct pair pair;
    struct end listener = {0};
    char endpoint[256];
    open_loop(&pair);
    void *raw = open_raw(&pair, ZMQ_PUB);
    bind_raw(raw, endpoint);
    const struct link_options options = {
        .kind = LINK_SUB, .endpoint = endpoint, .part_bytes_max = 1024};
    open_end(&pair, &listener, &options);
    while (listener.messages == 0) {
        cr_assert_eq(zmq_send(raw, "event", 5, 0), 5);
        cr_assert_eq(loop_turn(pair.loop, 5), 0);
    }
    cr_assert_str_eq(listener.first, "event");
    link_destroy(&listener.link);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

Test(link, one_that_does_not_listen_costs_the_others_nothing, .timeout = 60)
{
    enum { MESSAGES = 20000 };
    struct pair pair;
    struct end publisher = {0}, listener = {0};
    open_loop(&pair);
    struct link_options options = {.kind = LINK_PUB,
                                   .endpoint = "tcp://127.0.0.1:0",
                                   .bind = true,
                                   .part_bytes_max = 2048,
                                   .queue_messages_max = 100};
    open_end(&pair, &publisher, &options);
    void *deaf = open_raw(&pair, ZMQ_SUB);
    const int one = 1;
    cr_assert_eq(zmq_setsockopt(deaf, ZMQ_RCVHWM, &one, sizeof(one)), 0);
    cr_assert_eq(zmq_setsockopt(deaf, ZMQ_SUBSCRIBE, "", 0), 0);
    cr_assert_eq(zmq_connect(deaf, link_endpoint(publisher.link)), 0);
    options.kind = LINK_SUB;
    options.endpoint = link_endpoint(publisher.link);
    options.bind = false;
    open_end(&pair, &listener, &options);
    char text[1024] = {0};
    memset(text, 'e', sizeof(text) - 1);
    while (listener.messages == 0) {
        cr_assert_eq(send_text(&publisher, NULL, 0, text), 0);
        cr_assert_eq(loop_turn(pair.loop, 1), 0);
    }
    const size_t before = listener.messages;
    for (size_t i = 0; i < MESSAGES; i++) {
        cr_assert_eq(send_text(&publisher, NULL, 0, text), 0);
        cr_assert_eq(loop_turn(pair.loop, 0), 0);
    }
    run_until(&pair, &listener.messages, before + MESSAGES);
    cr_assert_eq(zmq_close(deaf), 0);
    link_destroy(&listener.link);
    link_destroy(&publisher.link);
    close_pair(&pair);
}

static void ignore_alarm(int number)
{
    (void)number;
}

/* Every so often; 0: never. */
static void set_alarm(long every_us)
{
    const struct itimerval interval = {.it_interval.tv_usec = every_us,
                                       .it_value.tv_usec = every_us};
    cr_assert_eq(setitimer(ITIMER_REAL, &interval, NULL), 0);
}

static void send_and_destroy(size_t bytes, long alarm_us)
{
    struct pair pair;
    char endpoint[256], name[256], text[16];
    open_loop(&pair);
    void *raw = open_raw(&pair, ZMQ_ROUTER);
    bind_raw(raw, endpoint);
    open_dealer(&pair, endpoint);
    struct blob *payload = make_payload(bytes, 'z');
    cr_assert_eq(link_send(pair.dealer.link, NULL, 0, "last", 4, &payload, 1), 0);
    set_alarm(alarm_us);
    link_destroy(&pair.dealer.link); /* it was not even connected */
    set_alarm(0);
    char *data = malloc(bytes);
    cr_assert_gt(receive_raw(&pair, raw, name, sizeof(name)), 0);
    cr_assert_eq(receive_raw(&pair, raw, text, sizeof(text)), 4);
    cr_assert_eq(receive_raw(&pair, raw, data, bytes), (int)bytes);
    free(data);
    blob_unref(&payload);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
}

Test(link, what_was_sent_goes_before_the_link_does, .timeout = 60)
{
    send_and_destroy(PART_BYTES_MAX, 0);
}

Test(link, signals_do_not_end_the_wait_for_what_was_sent, .timeout = 60)
{
    cr_assert_neq(signal(SIGALRM, ignore_alarm), SIG_ERR);
    send_and_destroy(16 * PART_BYTES_MAX, 200);
}

Test(link, with_nobody_there_the_end_does_not_wait, .timeout = 30)
{
    struct pair pair;
    open_loop(&pair);
    open_dealer(&pair, "tcp://127.0.0.1:1");
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "lost"), 0);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(loop_turn(pair.loop, 20), 0);
    }
    const int64_t before_ms = clock_monotonic_ms();
    link_destroy(&pair.dealer.link);
    cr_assert_lt(clock_monotonic_ms() - before_ms, LINK_LINGER_MS / 2);
    close_pair(&pair);
}

Test(link, sockets_in_the_file_system_are_spoken_through, .timeout = 30)
{
    struct pair pair;
    char endpoint[64], path[32] = "/tmp/test-link-XXXXXX", text[16];
    open_loop(&pair);
    cr_assert_not_null(mkdtemp(path));
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/socket", path);
    struct link_options options = {
        .kind = LINK_ROUTER, .endpoint = endpoint, .bind = true, .part_bytes_max = 1024};
    struct link *second = NULL;
    pair.router.is_echoing = true;
    open_end(&pair, &pair.router, &options);
    cr_assert_str_eq(link_endpoint(pair.router.link), endpoint);
    cr_assert_eq(link_create(pair.loop, &options, hear, NULL, &second), -EADDRINUSE);
    void *raw = open_raw(&pair, ZMQ_DEALER);
    cr_assert_eq(zmq_connect(raw, endpoint), 0);
    cr_assert_eq(zmq_send(raw, "file", 4, 0), 4);
    cr_assert_eq(receive_raw(&pair, raw, text, sizeof(text)), 4);
    options.kind = LINK_DEALER;
    options.bind = false;
    open_end(&pair, &pair.dealer, &options);
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "file"), 0);
    run_until(&pair, &pair.dealer.messages, 1);
    cr_assert_eq(zmq_close(raw), 0);
    close_pair(&pair);
    cr_assert_eq(rmdir(path), 0, "the socket is gone with the link");
}

Test(link, all_interfaces_are_both_kinds_of_addresses, .timeout = 30)
{
    struct pair pair;
    char endpoint[64];
    open_loop(&pair);
    struct link_options options = {
        .kind = LINK_ROUTER, .endpoint = "tcp://*:0", .bind = true, .part_bytes_max = 1024};
    open_end(&pair, &pair.router, &options);
    const char *port = strrchr(link_endpoint(pair.router.link), ':') + 1;
    const bool has_ipv6 = strchr(link_endpoint(pair.router.link), '[') != NULL;
    const char *hosts[] = {"127.0.0.1", "[::1]"};
    options.kind = LINK_DEALER;
    options.bind = false;
    options.endpoint = endpoint;
    for (size_t i = 0; i < (has_ipv6 ? 2 : 1); i++) {
        struct end end = {0};
        (void)snprintf(endpoint, sizeof(endpoint), "tcp://%s:%s", hosts[i], port);
        open_end(&pair, &end, &options);
        cr_assert_eq(send_text(&end, NULL, 0, "here"), 0);
        run_until(&pair, &pair.router.messages, i + 1);
        link_destroy(&end.link);
    }
    close_pair(&pair);
}

/* ---- with strangers at the other end ---- */

static int connect_bare(const struct pair *pair)
{
    const struct sockaddr_in name = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port =
            htons((uint16_t)strtoul(strrchr(link_endpoint(pair->router.link), ':') + 1, NULL, 10))};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&name, sizeof(name)), 0);
    return fd;
}

/* What comes before the end, with our loop turning. */
static size_t read_to_end(struct pair *pair, int fd, char *ret_data, size_t bytes_max)
{
    const int64_t give_up_ms = clock_monotonic_ms() + PATIENCE_MS;
    size_t length = 0;
    while (clock_monotonic_ms() < give_up_ms) {
        const ssize_t n = recv(fd, ret_data + length, bytes_max - length, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return length;
        }
        length += n > 0 ? (size_t)n : 0;
        cr_assert_eq(loop_turn(pair->loop, 1), 0);
    }
    cr_assert_fail("it was not closed");
    return 0;
}

static const char greeting[64] = "\xff\0\0\0\0\0\0\0\0\x7f\3\1NULL";

static void send_bare(int fd, const char *bytes, size_t length)
{
    cr_assert_eq(send(fd, bytes, length, 0), (ssize_t)length);
}

/* A connection that may send messages. */
static int open_bare(const struct pair *pair)
{
    const int fd = connect_bare(pair);
    send_bare(fd, greeting, sizeof(greeting));
    send_bare(fd, "\4\34\5READY\13Socket-Type\0\0\0\6DEALER", 30);
    return fd;
}

static void turn_for_a_while(struct pair *pair)
{
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(loop_turn(pair->loop, 1), 0);
    }
}

/* ---- the ends of connections ---- */

static void open_told_router(struct pair *pair, size_t held_bytes_max)
{
    open_loop(pair);
    const struct link_options options = {.kind = LINK_ROUTER,
                                         .endpoint = "tcp://127.0.0.1:0",
                                         .bind = true,
                                         .part_bytes_max = PART_BYTES_MAX,
                                         .held_bytes_max = held_bytes_max,
                                         .on_disconnected = note_ending};
    open_end(pair, &pair->router, &options);
}

/* As the link shows it. */
static void write_own_address(int fd, char ret_text[LINK_PEER_ADDRESS_BYTES])
{
    struct sockaddr_in name;
    socklen_t bytes = sizeof(name);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&name, &bytes), 0);
    (void)snprintf(ret_text, LINK_PEER_ADDRESS_BYTES, "127.0.0.1:%u", ntohs(name.sin_port));
}

static void ends_as(struct pair *pair, size_t endings, enum link_end end, bool was_open)
{
    run_until(pair, &pair->router.endings, endings);
    cr_assert_eq(pair->router.endings, endings);
    cr_assert_str_eq(link_end_name(pair->router.ended), link_end_name(end));
    cr_assert_eq(pair->router.was_open, was_open);
}

/* Closing a socket that holds what was not read would be a reset. */
static void hang_up(int fd)
{
    cr_assert_eq(shutdown(fd, SHUT_WR), 0);
}

static void close_with_reset(int fd)
{
    const struct linger none = {.l_onoff = 1};
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
    (void)close(fd);
}

Test(link, whoever_ends_a_connection_is_told_of_with_the_reason, .timeout = 30)
{
    struct pair pair;
    char address[LINK_PEER_ADDRESS_BYTES];
    open_told_router(&pair, 0);
    int fd = open_bare(&pair);
    write_own_address(fd, address);
    turn_for_a_while(&pair);
    hang_up(fd);
    ends_as(&pair, 1, LINK_END_CLOSED, true);
    (void)close(fd);
    cr_assert_str_eq(pair.router.address, address);
    cr_assert_gt(pair.router.gone_bytes, 0, "it had a name, though not one of its own");

    fd = open_bare(&pair);
    write_own_address(fd, address);
    turn_for_a_while(&pair);
    close_with_reset(fd);
    ends_as(&pair, 2, LINK_END_RESET, true);
    cr_assert_str_eq(pair.router.address, address, "though the socket does not know it any more");

    fd = connect_bare(&pair);
    turn_for_a_while(&pair);
    hang_up(fd);
    ends_as(&pair, 3, LINK_END_CLOSED, false);
    (void)close(fd);
    cr_assert_eq(pair.router.gone_bytes, 0);
    close_pair(&pair);
}

Test(link, what_this_side_does_not_take_ends_a_connection_with_the_reason, .timeout = 30)
{
    struct pair pair;
    open_told_router(&pair, 0);
    int fd = connect_bare(&pair);
    send_bare(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    ends_as(&pair, 1, LINK_END_PROTOCOL, false);
    (void)close(fd);
    fd = open_bare(&pair);
    send_bare(fd, "\10\0", 2);
    ends_as(&pair, 2, LINK_END_PROTOCOL, true);
    (void)close(fd);
    fd = open_bare(&pair);
    send_bare(fd, "\2\0\0\0\0\0\20\0\1", 9);
    ends_as(&pair, 3, LINK_END_TOO_LARGE, true);
    (void)close(fd);
    close_pair(&pair);
}

Test(link, who_is_replaced_is_told_of_by_name, .timeout = 30)
{
    static const char named[] = "\4\53\5READY\13Socket-Type\0\0\0\6DEALER"
                                "\10Identity\0\0\0\2me";
    struct pair pair;
    int fds[2];
    open_told_router(&pair, 0);
    for (size_t i = 0; i < 2; i++) {
        fds[i] = connect_bare(&pair);
        send_bare(fds[i], greeting, sizeof(greeting));
        send_bare(fds[i], named, sizeof(named) - 1);
        turn_for_a_while(&pair);
    }
    ends_as(&pair, 1, LINK_END_REPLACED, true);
    cr_assert_eq(pair.router.gone_bytes, 2);
    cr_assert_arr_eq(pair.router.gone, "me", 2);
    (void)close(fds[0]);
    (void)close(fds[1]);
    close_pair(&pair);
}

/* The beginning of a part of 60000 bytes; what comes behind its header is held once. */
static void begin_part(struct pair *pair, int fd, size_t bytes)
{
    static const char part[60000];
    send_bare(fd, "\2\0\0\0\0\0\0\xea\x60", 9);
    turn_for_a_while(pair);
    send_bare(fd, part, bytes);
    turn_for_a_while(pair);
}

Test(link, who_is_put_out_to_keep_a_bound_is_told_of, .timeout = 30)
{
    struct pair pair;
    open_told_router(&pair, 10000);
    const int fd = open_bare(&pair);
    begin_part(&pair, fd, 20000);
    ends_as(&pair, 1, LINK_END_CROWDED, true);
    (void)close(fd);
    close_pair(&pair);
}

Test(link, of_those_with_too_much_under_way_the_one_with_most_is_closed, .timeout = 30)
{
    static const char rest[60000];
    static const size_t begun[] = {30000, 40000, 35000};
    int fds[3];
    char heard[256];
    struct pair pair;
    open_loop(&pair);
    const struct link_options options = {.kind = LINK_ROUTER,
                                         .endpoint = "tcp://127.0.0.1:0",
                                         .bind = true,
                                         .part_bytes_max = PART_BYTES_MAX,
                                         .held_bytes_max = 100000};
    open_end(&pair, &pair.router, &options);
    for (int round = 1; round <= 2; round++) { /* what is closed holds nothing */
        for (size_t i = 0; i < 3; i++) {
            fds[i] = open_bare(&pair);
            begin_part(&pair, fds[i], begun[i]);
        }
        (void)read_to_end(&pair, fds[1], heard, sizeof(heard));
        send_bare(fds[0], rest, sizeof(rest) - begun[0]);
        send_bare(fds[2], rest, sizeof(rest) - begun[2]);
        run_until(&pair, &pair.router.messages, 2 * (size_t)round);
        cr_assert_eq(pair.router.bytes, sizeof(rest));
        for (size_t i = 0; i < 3; i++) {
            (void)close(fds[i]);
        }
    }
    close_pair(&pair);
}

struct flood {
    int fd;
    const char *frame;
    size_t bytes;
};

/* Sends the frame again and again until the connection is closed. */
static void *pour(void *context)
{
    const struct flood *flood = context;
    char frames[64000];
    size_t length = 0;
    while (length + flood->bytes <= sizeof(frames)) {
        memcpy(frames + length, flood->frame, flood->bytes);
        length += flood->bytes;
    }
    size_t at = 0;
    ssize_t n;
    while ((n = send(flood->fd, frames + at, length - at, MSG_NOSIGNAL)) > 0) {
        at = (at + (size_t)n) % length;
    }
    return NULL;
}

static void others_are_heard_beside(const char *frame, size_t bytes)
{
    struct pair pair;
    open_pair(&pair);
    struct flood flood = {.fd = open_bare(&pair), .frame = frame, .bytes = bytes};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, pour, &flood), 0);
    for (size_t i = 1; i <= 20; i++) {
        cr_assert_eq(send_text(&pair.dealer, NULL, 0, "beside"), 0);
        run_until(&pair, &pair.router.messages, i);
    }
    (void)shutdown(flood.fd, SHUT_RDWR);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    (void)close(flood.fd);
    close_pair(&pair);
}

Test(link, commands_without_end_leave_others_their_turn, .timeout = 30)
{
    others_are_heard_beside("\4\7\4PING\0\0", 9);
}

Test(link, parts_without_end_leave_others_their_turn, .timeout = 30)
{
    others_are_heard_beside("\1\0", 2);
}

Test(link, who_speaks_something_else_is_closed, .timeout = 30)
{
    const struct {
        const char *bytes;
        size_t length;
        bool greets;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", 18, false},
        {"\xff\0\0\0\0\0\0\0\0\x7f\1", 11, false},
        {"\0\5hello", 7, true},                                   /* before READY */
        {"\4\7\4PING\0\0", 9, true},                              /* the same */
        {"\4\6\5READY", 8, true},                                 /* of no type */
        {"\4\32\5READY\13Socket-Type\0\0\0\4PULL", 28, true},     /* of another */
        {"\4\33\5READY\13Socket-Type\0\0\0\3REQ\10\0", 29, true}, /* malformed */
        {"\11\0", 2, true},
    };
    struct pair pair;
    char heard[256];
    open_pair(&pair);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const int fd = connect_bare(&pair);
        if (cases[i].greets) {
            cr_assert_eq(send(fd, greeting, sizeof(greeting), 0), (ssize_t)sizeof(greeting));
        }
        cr_assert_eq(send(fd, cases[i].bytes, cases[i].length, 0), (ssize_t)cases[i].length);
        (void)read_to_end(&pair, fd, heard, sizeof(heard));
        (void)close(fd);
    }
    /* Others are served as before. */
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "still here"), 0);
    run_until(&pair, &pair.router.messages, 1);
    cr_assert_str_eq(pair.router.first, "still here");
    close_pair(&pair);
}

/* Listens and has no room for another connection: its kernel answers nothing. */
static int open_deaf(struct sockaddr_in *ret_name, int ret_fillers[2])
{
    socklen_t bytes = sizeof(*ret_name);
    *ret_name =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (const struct sockaddr *)ret_name, bytes), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)ret_name, &bytes), 0);
    cr_assert_eq(listen(fd, 0), 0);
    for (int i = 0; i < 2; i++) {
        ret_fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(ret_fillers[i], (const struct sockaddr *)ret_name, bytes);
    }
    return fd;
}

/* The local port of the socket above `fd` that waits for an answer to its SYN; 0: there is none. */
static in_port_t connecting_port(int fd)
{
    for (int above = fd + 1; above < fd + 32; above++) {
        struct tcp_info info;
        struct sockaddr_in name;
        socklen_t info_bytes = sizeof(info), bytes = sizeof(name);
        if (getsockopt(above, IPPROTO_TCP, TCP_INFO, &info, &info_bytes) == 0 &&
            info.tcpi_state == TCP_SYN_SENT &&
            getsockname(above, (struct sockaddr *)&name, &bytes) == 0) {
            return name.sin_port;
        }
    }
    return 0;
}

Test(link, an_address_that_answers_nothing_is_given_up, .timeout = 30)
{
    struct pair pair;
    struct sockaddr_in name;
    int fillers[2];
    char endpoint[64];
    open_loop(&pair);
    const int deaf = open_deaf(&name, fillers);
    (void)snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u", ntohs(name.sin_port));
    open_dealer(&pair, endpoint);
    const in_port_t first = connecting_port(fillers[1]);
    cr_assert_neq(first, 0);
    const int64_t give_up_ms = clock_monotonic_ms() + 2 * LINK_CONNECT_MS;
    in_port_t port = first;
    while (port == first || port == 0) {
        cr_assert_lt(clock_monotonic_ms(), give_up_ms);
        cr_assert_eq(loop_turn(pair.loop, 10), 0);
        port = connecting_port(fillers[1]);
    }
    (void)close(deaf);
    (void)close(fillers[0]);
    (void)close(fillers[1]);
    close_pair(&pair);
}

Test(link, without_descriptors_the_loop_waits_instead_of_spinning, .timeout = 60)
{
    struct pair pair;
    open_pair(&pair);
    struct rlimit limit, low;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(send_text(&pair.dealer, NULL, 0, "first"), 0);
    run_until(&pair, &pair.router.messages, 1);
    const int fd = connect_bare(&pair);
    low = limit;
    low.rlim_cur = (rlim_t)fd + 1; /* as many as there are */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    int turns = 0;
    const int64_t until_ms = clock_monotonic_ms() + 300;
    while (clock_monotonic_ms() < until_ms) {
        cr_assert_eq(loop_turn(pair.loop, 300), 0);
        turns++;
    }
    cr_assert_lt(turns, 20);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    char byte;
    while (recv(fd, &byte, 1, MSG_DONTWAIT) != 1) { /* its greeting: it was taken */
        cr_assert_eq(loop_turn(pair.loop, 100), 0);
    }
    (void)close(fd);
    close_pair(&pair);
}
