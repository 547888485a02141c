/*
 * bench-peer-rabbitmq: a durable queue, persistent messages, publisher confirms, an acknowledgement for each job, which the server
 * does not answer. VARIANT is the queue's type: `classic` or `quorum`.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <string.h>
#include <sys/time.h>
#include "tests/bench/peers/peer.h"

enum { CHANNEL = 1, FRAME_BYTES_MAX = 128 << 10, PREFETCH = 256, TAGS_REMEMBERED = 1 << 14, WAIT_US = 200 };

static int port;
static unsigned window;

static void check(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        peer_die(what, reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION ? amqp_error_string2(reply.library_error)
                                                                           : "refused by the server");
    }
}

static amqp_connection_state_t connect_rabbitmq(void)
{
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (socket == NULL || amqp_socket_open(socket, "127.0.0.1", port) != AMQP_STATUS_OK) {
        peer_die("connection", "refused");
    }
    check(amqp_login(connection, "/", 0, FRAME_BYTES_MAX, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "login");
    amqp_channel_open(connection, CHANNEL);
    check(amqp_get_rpc_reply(connection), "channel");
    return connection;
}

static void *work(void *index)
{
    (void)index;
    amqp_connection_state_t connection = connect_rabbitmq();
    amqp_basic_qos(connection, CHANNEL, 0, window == 1 ? 1 : PREFETCH, 0);
    amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes("q"), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "consume");
    for (;;) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        check(amqp_consume_message(connection, &envelope, NULL, 0), "delivery");
        const uint64_t job = peer_job_of(envelope.message.body.bytes, envelope.message.body.len);
        if (amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 0) != AMQP_STATUS_OK) {
            peer_die("acknowledge", "not sent");
        }
        amqp_destroy_envelope(&envelope);
        peer_note_step(job);
    }
    return NULL;
}

/* Messages are confirmed under their number on the channel, from 1; `multiple` stands for all before it as well. */
struct confirmations {
    uint64_t all_before; /* confirmed up to here */
    bool is_confirmed[TAGS_REMEMBERED]; /* beyond, by tag, modulo */
};

static void note_confirmed(struct confirmations *confirmations, uint64_t tag)
{
    bool *is_confirmed = &confirmations->is_confirmed[tag % TAGS_REMEMBERED];
    if (!*is_confirmed) {
        *is_confirmed = true;
        peer_note_step(tag - 1);
    }
}

static void take_confirmation(struct confirmations *confirmations, const amqp_basic_ack_t *ack)
{
    for (uint64_t tag = ack->multiple ? confirmations->all_before + 1 : ack->delivery_tag; tag <= ack->delivery_tag; tag++) {
        note_confirmed(confirmations, tag);
    }
    bool *next = &confirmations->is_confirmed[(confirmations->all_before + 1) % TAGS_REMEMBERED];
    while (*next) {
        *next = false;
        confirmations->all_before++;
        next = &confirmations->is_confirmed[(confirmations->all_before + 1) % TAGS_REMEMBERED];
    }
}

/* What has arrived; waits for it `wait_us` at most. */
static void take_confirmations(amqp_connection_state_t connection, struct confirmations *confirmations, int wait_us)
{
    for (;;) {
        amqp_frame_t frame;
        struct timeval wait = {.tv_usec = wait_us};
        amqp_maybe_release_buffers(connection);
        if (amqp_simple_wait_frame_noblock(connection, &frame, &wait) != AMQP_STATUS_OK) {
            return;
        }
        wait_us = 0;
        if (frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_ACK_METHOD) {
            take_confirmation(confirmations, frame.payload.method.decoded);
        }
    }
}

static void declare_queue(amqp_connection_state_t connection, const char *type)
{
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes("x-queue-type"),
                                .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(type)}};
    const amqp_table_t arguments = {.num_entries = 1, .entries = &entry};
    amqp_queue_delete(connection, CHANNEL, amqp_cstring_bytes("q"), 0, 0);
    amqp_queue_declare(connection, CHANNEL, amqp_cstring_bytes("q"), 0, 1, 0, 0, arguments);
    check(amqp_get_rpc_reply(connection), "declare");
    amqp_confirm_select(connection, CHANNEL);
    check(amqp_get_rpc_reply(connection), "confirm.select");
}

static void publish(amqp_connection_state_t connection)
{
    const amqp_basic_properties_t persistent = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = 2};
    char payload[PEER_PAYLOAD_BYTES];
    (void)peer_make_job(payload);
    const amqp_bytes_t body = {.len = sizeof(payload), .bytes = payload};
    if (amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes("q"), 0, 0, &persistent, body) !=
        AMQP_STATUS_OK) {
        peer_die("publish", "not sent");
    }
}

int main(int argc, char **argv)
{
    static struct confirmations confirmations;
    const struct peer_options options = peer_read_options(argc, argv);
    port = options.port;
    window = options.window;
    amqp_connection_state_t connection = connect_rabbitmq();
    declare_queue(connection, options.variant);
    peer_begin(&options);
    peer_start_workers(1, work);
    while (!peer_is_over()) {
        int jobs = 0;
        while (jobs < PEER_BATCH && peer_take_more_room()) {
            publish(connection);
            jobs++;
        }
        take_confirmations(connection, &confirmations, jobs > 0 ? 0 : WAIT_US);
    }
    peer_report();
}
