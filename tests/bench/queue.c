/*
 * bench-queue: the broker's throughput and latency: submit → dispatch → complete → result, payloads of 1 KiB.
 *
 *   bench-queue CLIENTS_ENDPOINT WORKERS_ENDPOINT BROKER_PID TIER WINDOW SECONDS [JOBS]
 *
 * A client and a worker that answers at once with what it got, each a process that speaks the protocol of
 * proto/wire.proto. As the client library does, the client gathers what it submits and collects in one turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/attributes.h"
#include "common/clock.h"
#include "proto/wire.pb-c.h"
#include "tests/bench/load.h"
#include "tests/bench/wire_socket.h"

enum { WORKER_SLOTS = 4 * LOAD_WINDOW_MAX, NUMBER_OFFSET = 8 };

/* ------------------------------------------------------------------------------------------------------------ worker */

/* Sends back the payloads of a dispatch as answers, in one message. */
static void answer(void *socket, struct received *received, const Wire__BrokerToWorker *message, uint64_t *credit_total)
{
    static Wire__AttemptResult results[WIRE_ITEMS_MAX];
    static Wire__AttemptResult *list[WIRE_ITEMS_MAX];
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.input_tokens = usage.output_tokens = 100;
    usage.cost_nanousd = 75000;
    usage.model = usage.provider = (char *)(uintptr_t)"bench";
    size_t length = message->n_dispatch;
    for (size_t i = 0; i < length; i++) {
        const Wire__Dispatch *dispatch = message->dispatch[i];
        results[i] = (Wire__AttemptResult)WIRE__ATTEMPT_RESULT__INIT;
        results[i].job_id = dispatch->job_id;
        results[i].attempt = dispatch->attempt;
        results[i].outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
        results[i].usage = &usage;
        results[i].has_payload = 1;
        list[i] = &results[i];
    }
    *credit_total += length;
    Wire__WorkerMessage reply = WIRE__WORKER_MESSAGE__INIT;
    reply.credit_total = *credit_total;
    reply.result = list;
    reply.n_result = length;
    socket_send(socket, FRAME_WORKER_TO_BROKER, &reply.base, true);
    for (size_t i = 0; i < length; i++) {
        zmq_msg_send(&received->payloads[i], socket, i + 1 < length ? ZMQ_SNDMORE : 0);
    }
}

static void say_worker_hello(void *socket)
{
    Wire__WorkerHello hello = WIRE__WORKER_HELLO__INIT;
    char name[32];
    snprintf(name, sizeof(name), "bench-%d", (int)getpid());
    hello.name = name;
    hello.slots = WORKER_SLOTS;
    hello.version = (char *)(uintptr_t)"bench";
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    message.hello = &hello;
    message.credit_total = WORKER_SLOTS;
    socket_send(socket, FRAME_WORKER_TO_BROKER, &message.base, false);
}

static void run_worker(const char *endpoint)
{
    void *socket = socket_open(endpoint);
    static struct received received;
    uint64_t credit_total = WORKER_SLOTS;
    int heartbeat_ms = 1000;
    socket_set_timeout(socket, heartbeat_ms);
    say_worker_hello(socket);
    int64_t heartbeat_at = clock_monotonic_ms();
    for (;;) {
        if (clock_monotonic_ms() - heartbeat_at >= heartbeat_ms) {
            Wire__WorkerMessage heartbeat = WIRE__WORKER_MESSAGE__INIT;
            heartbeat.heartbeat = 1;
            socket_send(socket, FRAME_WORKER_TO_BROKER, &heartbeat.base, false);
            heartbeat_at = clock_monotonic_ms();
        }
        if (!socket_receive(socket, 0, &received)) {
            continue;
        }
        size_t bytes;
        const uint8_t *envelope = received_envelope(&received, &bytes);
        Wire__BrokerToWorker *message = wire__broker_to_worker__unpack(NULL, bytes, envelope);
        if (message == NULL || message->error != NULL || message->n_dispatch != received.length) {
            fprintf(stderr, "bench-queue: worker: %s\n",
                    message != NULL && message->error != NULL ? message->error->text : "a message that makes no sense");
            exit(1);
        }
        if (message->n_dispatch > 0) {
            answer(socket, &received, message, &credit_total);
        }
        wire__broker_to_worker__free_unpacked(message, NULL);
        received_release(&received);
    }
}

/* ------------------------------------------------------------------------------------------------------------ client */

struct client {
    void *socket;
    const char *tier;
    struct load *load;
    uint8_t ids[WIRE_ITEMS_MAX][ID_BYTES];
    uint8_t collected_ids[WIRE_ITEMS_MAX][ID_BYTES];
    size_t collected_length;
    int64_t ping_at_ms;
};

/* The id of a job: time-ordered as they all are, with its number in the last eight bytes. */
static void make_id(uint64_t number, uint8_t ret_id[ID_BYTES])
{
    uint64_t time_bits = __builtin_bswap64(((uint64_t)clock_unix_ms() << 16) | 0x7000);
    uint64_t rest = __builtin_bswap64(number | (UINT64_C(1) << 63));
    memcpy(ret_id, &time_bits, 8);
    memcpy(ret_id + NUMBER_OFFSET, &rest, 8);
}

static uint64_t number_of(const uint8_t id[ID_BYTES])
{
    uint64_t rest;
    memcpy(&rest, id + NUMBER_OFFSET, 8);
    return __builtin_bswap64(rest) & ~(UINT64_C(1) << 63);
}

/* One message with all that may be submitted and all that is to be collected. */
static void send_turn(struct client *client)
{
    static Wire__Submit submits[WIRE_ITEMS_MAX];
    static Wire__Submit *submit_list[WIRE_ITEMS_MAX];
    static Wire__Collected collected[WIRE_ITEMS_MAX];
    static Wire__Collected *collected_list[WIRE_ITEMS_MAX];
    static char payload[LOAD_PAYLOAD_BYTES];
    size_t length = 0;
    while (length < WIRE_ITEMS_MAX && load_may_send(client->load)) {
        make_id(load_note_sent(client->load), client->ids[length]);
        Wire__Submit *submit = &submits[length];
        *submit = (Wire__Submit)WIRE__SUBMIT__INIT;
        submit->job_id = (ProtobufCBinaryData){ID_BYTES, client->ids[length]};
        submit->tier = (char *)(uintptr_t)client->tier;
        submit->route = (char *)(uintptr_t)"auto";
        submit->estimated_tokens = 256;
        submit->has_payload = 1;
        submit_list[length++] = submit;
    }
    for (size_t i = 0; i < client->collected_length; i++) {
        collected[i] = (Wire__Collected)WIRE__COLLECTED__INIT;
        collected[i].job_id = (ProtobufCBinaryData){ID_BYTES, client->collected_ids[i]};
        collected_list[i] = &collected[i];
    }
    bool wants_ping = clock_monotonic_ms() >= client->ping_at_ms;
    if (length == 0 && client->collected_length == 0 && !wants_ping) {
        return;
    }
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.submit = submit_list;
    message.n_submit = length;
    message.collected = collected_list;
    message.n_collected = client->collected_length;
    if (wants_ping) {
        message.ping = 1;
        client->ping_at_ms = clock_monotonic_ms() + 1000;
    }
    socket_send(client->socket, FRAME_CLIENT_TO_BROKER, &message.base, length > 0);
    for (size_t i = 0; i < length; i++) {
        zmq_send(client->socket, payload, sizeof(payload), i + 1 < length ? ZMQ_SNDMORE : 0);
    }
    client->collected_length = 0;
}

static void take_result(struct client *client, const Wire__Result *result)
{
    if (result->job_id.len != ID_BYTES || result->state != WIRE__JOB_STATE__JOB_STATE_SUCCEEDED) {
        fprintf(stderr, "bench-queue: a job ended %d: %s\n", (int)result->state, result->error_text);
        exit(1);
    }
    load_note_done(client->load, number_of(result->job_id.data));
    if (client->collected_length == WIRE_ITEMS_MAX) {
        send_turn(client);
    }
    memcpy(client->collected_ids[client->collected_length++], result->job_id.data, ID_BYTES);
}

/* Returns whether the broker has greeted us. */
static bool take_message(struct client *client, struct received *received)
{
    size_t bytes;
    const uint8_t *envelope = received_envelope(received, &bytes);
    Wire__BrokerToClient *message = wire__broker_to_client__unpack(NULL, bytes, envelope);
    if (message == NULL || message->error != NULL || message->n_rejected > 0) {
        const char *why = message == NULL            ? "an envelope that cannot be read"
                          : message->error != NULL ? message->error->text
                                                     : message->rejected[0]->text;
        fprintf(stderr, "bench-queue: client: %s\n", why);
        exit(1);
    }
    for (size_t i = 0; i < message->n_result; i++) {
        take_result(client, message->result[i]);
    }
    bool is_welcome = message->welcome != NULL;
    wire__broker_to_client__free_unpacked(message, NULL);
    return is_welcome;
}

static void run_client(const char *endpoint, struct client *client)
{
    static struct received received;
    client->socket = socket_open(endpoint);
    socket_set_timeout(client->socket, 30000);
    Wire__ClientHello hello = WIRE__CLIENT_HELLO__INIT;
    hello.tenant = (char *)(uintptr_t)"default";
    hello.name = (char *)(uintptr_t)"bench";
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.hello = &hello;
    socket_send(client->socket, FRAME_CLIENT_TO_BROKER, &message.base, false);
    bool is_welcome = false;
    while (!is_welcome) {
        if (!socket_receive(client->socket, 0, &received)) {
            die("no welcome");
        }
        is_welcome = take_message(client, &received);
        received_release(&received);
    }
    load_begin(client->load);
    while (!load_is_over(client->load) || client->load->done < client->load->sent) {
        send_turn(client);
        if (client->load->done == client->load->sent) {
            continue; /* time ran out just now */
        }
        bool has_one = socket_receive(client->socket, 0, &received);
        if (!has_one) {
            die("no answer for 30 s");
        }
        while (has_one) {
            take_message(client, &received);
            received_release(&received);
            has_one = socket_receive(client->socket, ZMQ_DONTWAIT, &received);
        }
    }
    send_turn(client);
}

int main(int argc, char **argv)
{
    if (argc != 7 && argc != 8) {
        fprintf(stderr, "usage: bench-queue CLIENTS_ENDPOINT WORKERS_ENDPOINT BROKER_PID TIER WINDOW SECONDS [JOBS]\n");
        return 2;
    }
    static struct load load;
    static struct client client;
    pid_t broker = (pid_t)atoi(argv[3]);
    load.name = "tiermq";
    load.window = (uint32_t)atoi(argv[5]);
    load.seconds = atof(argv[6]);
    load.jobs_max = argc == 8 ? strtoull(argv[7], NULL, 10) : 0;
    if (load.window < 1 || load.window > LOAD_WINDOW_MAX || !(load.seconds > 0 && load.seconds < 3600)) {
        fprintf(stderr, "bench-queue: WINDOW must be 1 to %d, SECONDS above 0 and below 3600\n", LOAD_WINDOW_MAX);
        return 2;
    }
    client.tier = argv[4];
    client.load = &load;
    pid_t worker = child_begin();
    if (worker == 0) {
        run_worker(argv[2]);
    }
    double broker_before_s = process_cpu_s(broker);
    run_client(argv[1], &client);
    double broker_cpu_s = process_cpu_s(broker) - broker_before_s;
    load_report(&load, broker_cpu_s, child_end(worker));
    return 0;
}
