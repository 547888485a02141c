/*
 * bench-backlog: makes a backlog of pending jobs, and works some of it off, through the broker's public interfaces.
 *
 *   bench-backlog fill  CLIENTS_ENDPOINT TIER JOBS SECONDS_MAX    submits, and waits until every one is accepted
 *   bench-backlog drain WORKERS_ENDPOINT JOBS SECONDS_MAX         answers so many dispatches, and sees them concluded
 *   bench-backlog cycle CLIENTS_ENDPOINT WORKERS_ENDPOINT TIER BROKER_PID SECONDS
 *                                                                 submits as many as are concluded: the backlog stays as long as it is
 *
 * Payloads of 1 KiB, each with the number of its job in it, which the worker checks. Nobody waits for results. One line of
 * JSON: jobs, seconds; for `drain` the milliseconds until the first dispatch, for `cycle` the broker's CPU time.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "common/clock.h"
#include "common/id.h"
#include "proto/wire.pb-c.h"
#include "tests/bench/load.h"
#include "tests/bench/wire_socket.h"

enum {
    MESSAGE_JOBS = 1024,
    ACCEPTS_OUTSTANDING_MAX = 8 * MESSAGE_JOBS, /* 8 MiB of payloads: bounds the memory of both sides */
    DRAIN_SLOTS = 1024,
    RESERVED_SLOTS = DRAIN_SLOTS / 4, /* for realtime jobs, by default: others are not given the last credit */
    HEARTBEAT_MS = 1000,
    SILENCE_MS = 100,
    CYCLE_JOBS = 256, /* in flight, beyond the backlog */
    CYCLE_WAIT_MS = 1,
    WARM_UP_MS = 500,
};

static int64_t ends_ms;

static void check_time(const char *what)
{
    if (clock_monotonic_ms() >= ends_ms) {
        errno = ETIMEDOUT;
        die(what);
    }
}

static void say_done(uint64_t jobs, int64_t began_ns, int64_t first_ms)
{
    double took_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
    printf("{\"jobs\":%llu,\"seconds\":%.2f,\"jobs_per_s\":%.0f,\"first_ms\":%lld}\n", (unsigned long long)jobs, took_s,
           (double)jobs / took_s, (long long)first_ms);
}

/* -------------------------------------------------------------------------------------------------------------- fill */

struct filler {
    void *socket;
    const char *tier;
    uint64_t jobs, sent, accepted;
    struct id_source ids;
    bool is_welcome;
    int64_t ping_at_ms;
};

static void say_client_hello(void *socket)
{
    Wire__ClientHello hello = WIRE__CLIENT_HELLO__INIT;
    hello.tenant = (char *)(uintptr_t)"default";
    hello.name = (char *)(uintptr_t)"bench";
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.hello = &hello;
    socket_send(socket, FRAME_CLIENT_TO_BROKER, &message.base, false);
}

static void send_payload(void *socket, uint64_t number, bool more)
{
    char payload[LOAD_PAYLOAD_BYTES];
    memset(payload, 'a' + (int)(number % 26), sizeof(payload));
    memcpy(payload, &number, sizeof(number));
    if (zmq_send(socket, payload, sizeof(payload), more ? ZMQ_SNDMORE : 0) < 0) {
        die("send");
    }
}

static void submit_some(struct filler *filler, size_t most)
{
    static struct id ids[MESSAGE_JOBS];
    static Wire__Submit submits[MESSAGE_JOBS];
    static Wire__Submit *list[MESSAGE_JOBS];
    size_t length = 0;
    for (; length < most && length < MESSAGE_JOBS && filler->sent + length < filler->jobs; length++) {
        ids[length] = id_make(&filler->ids, clock_unix_ms());
        Wire__Submit *submit = &submits[length];
        *submit = (Wire__Submit)WIRE__SUBMIT__INIT;
        submit->job_id = (ProtobufCBinaryData){ID_BYTES, ids[length].bytes};
        submit->tier = (char *)(uintptr_t)filler->tier;
        submit->route = (char *)(uintptr_t)"auto";
        submit->discard_result = 1;
        submit->has_payload = 1;
        list[length] = submit;
    }
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.submit = list;
    message.n_submit = length;
    socket_send(filler->socket, FRAME_CLIENT_TO_BROKER, &message.base, true);
    for (size_t i = 0; i < length; i++) {
        send_payload(filler->socket, filler->sent++, i + 1 < length);
    }
}

static void ping(struct filler *filler)
{
    if (clock_monotonic_ms() < filler->ping_at_ms) {
        return;
    }
    filler->ping_at_ms = clock_monotonic_ms() + HEARTBEAT_MS;
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.ping = 1;
    socket_send(filler->socket, FRAME_CLIENT_TO_BROKER, &message.base, false);
}

static void take_answers(struct filler *filler)
{
    static struct received received;
    if (!socket_receive(filler->socket, 0, &received)) {
        return;
    }
    size_t bytes;
    const uint8_t *envelope = received_envelope(&received, &bytes);
    Wire__BrokerToClient *message = wire__broker_to_client__unpack(NULL, bytes, envelope);
    if (message == NULL || message->error != NULL || message->n_rejected > 0) {
        fprintf(stderr, "bench-backlog: fill: %s\n",
                message == NULL            ? "an envelope that cannot be read"
                : message->error != NULL ? message->error->text
                                           : message->rejected[0]->text);
        exit(1);
    }
    filler->is_welcome |= message->welcome != NULL;
    filler->accepted += message->n_accepted;
    wire__broker_to_client__free_unpacked(message, NULL);
    received_release(&received);
}

static void filler_open(struct filler *filler, const char *endpoint, const char *tier, uint64_t jobs)
{
    *filler = (struct filler){.socket = socket_open(endpoint), .tier = tier, .jobs = jobs};
    if (id_source_init(&filler->ids) < 0) {
        die("ids");
    }
    socket_set_timeout(filler->socket, SILENCE_MS);
    say_client_hello(filler->socket);
    while (!filler->is_welcome) {
        take_answers(filler);
        check_time("no welcome");
    }
}

static int fill(const char *endpoint, const char *tier, uint64_t jobs)
{
    struct filler filler;
    filler_open(&filler, endpoint, tier, jobs);
    const int64_t began_ns = clock_monotonic_ns();
    while (filler.accepted < jobs) {
        while (filler.sent < jobs && filler.sent - filler.accepted <= ACCEPTS_OUTSTANDING_MAX - MESSAGE_JOBS) {
            submit_some(&filler, MESSAGE_JOBS);
        }
        ping(&filler);
        take_answers(&filler);
        check_time("fill");
    }
    say_done(jobs, began_ns, 0);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------- drain */

struct drainer {
    void *socket;
    uint64_t jobs, answered, concluded;
    int64_t began_ns, first_ms;
    int64_t heartbeat_at_ms;
};

/* Credit for just so many jobs: the rest stays where it is. */
static uint64_t credit_total(const struct drainer *drainer)
{
    const uint64_t allowed = drainer->answered + DRAIN_SLOTS, all = drainer->jobs + RESERVED_SLOTS;
    return allowed < all ? allowed : all;
}

static void say_worker_hello(const struct drainer *drainer)
{
    Wire__WorkerHello hello = WIRE__WORKER_HELLO__INIT;
    hello.name = (char *)(uintptr_t)"bench-drain";
    hello.slots = DRAIN_SLOTS;
    hello.version = (char *)(uintptr_t)"bench";
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    message.hello = &hello;
    message.credit_total = credit_total(drainer);
    socket_send(drainer->socket, FRAME_WORKER_TO_BROKER, &message.base, false);
}

static void check_payload(zmq_msg_t *payload)
{
    const char *bytes = zmq_msg_data(payload);
    uint64_t number = 0;
    bool is_right = zmq_msg_size(payload) == LOAD_PAYLOAD_BYTES;
    if (is_right) {
        memcpy(&number, bytes, sizeof(number));
        is_right = bytes[LOAD_PAYLOAD_BYTES - 1] == 'a' + (char)(number % 26);
    }
    if (!is_right) {
        fprintf(stderr, "bench-backlog: drain: a payload is not what was submitted\n");
        exit(1);
    }
}

static void answer(struct drainer *drainer, const Wire__BrokerToWorker *message)
{
    static Wire__AttemptResult results[WIRE_ITEMS_MAX];
    static Wire__AttemptResult *list[WIRE_ITEMS_MAX];
    for (size_t i = 0; i < message->n_dispatch; i++) {
        results[i] = (Wire__AttemptResult)WIRE__ATTEMPT_RESULT__INIT;
        results[i].job_id = message->dispatch[i]->job_id;
        results[i].attempt = message->dispatch[i]->attempt;
        results[i].outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
        results[i].has_payload = 1;
        list[i] = &results[i];
    }
    drainer->answered += message->n_dispatch;
    Wire__WorkerMessage reply = WIRE__WORKER_MESSAGE__INIT;
    reply.credit_total = credit_total(drainer);
    reply.result = list;
    reply.n_result = message->n_dispatch;
    socket_send(drainer->socket, FRAME_WORKER_TO_BROKER, &reply.base, true);
    for (size_t i = 0; i < message->n_dispatch; i++) {
        zmq_send(drainer->socket, "{}", 2, i + 1 < message->n_dispatch ? ZMQ_SNDMORE : 0);
    }
}

static void take_dispatches(struct drainer *drainer)
{
    static struct received received;
    if (!socket_receive(drainer->socket, 0, &received)) {
        return;
    }
    size_t bytes;
    const uint8_t *envelope = received_envelope(&received, &bytes);
    Wire__BrokerToWorker *message = wire__broker_to_worker__unpack(NULL, bytes, envelope);
    if (message == NULL || message->error != NULL || message->n_dispatch != received.length) {
        fprintf(stderr, "bench-backlog: drain: %s\n",
                message != NULL && message->error != NULL ? message->error->text : "a message that makes no sense");
        exit(1);
    }
    for (size_t i = 0; i < received.length; i++) {
        check_payload(&received.payloads[i]);
    }
    if (message->n_dispatch > 0) {
        drainer->first_ms = drainer->first_ms > 0 ? drainer->first_ms : (clock_monotonic_ns() - drainer->began_ns) / 1000000 + 1;
        answer(drainer, message);
    }
    drainer->concluded += message->n_concluded;
    wire__broker_to_worker__free_unpacked(message, NULL);
    received_release(&received);
}

static void beat(struct drainer *drainer)
{
    if (clock_monotonic_ms() < drainer->heartbeat_at_ms) {
        return;
    }
    drainer->heartbeat_at_ms = clock_monotonic_ms() + HEARTBEAT_MS;
    Wire__WorkerMessage heartbeat = WIRE__WORKER_MESSAGE__INIT;
    heartbeat.heartbeat = 1;
    socket_send(drainer->socket, FRAME_WORKER_TO_BROKER, &heartbeat.base, false);
}

static void drainer_open(struct drainer *drainer, const char *endpoint, uint64_t jobs)
{
    *drainer = (struct drainer){.socket = socket_open(endpoint), .jobs = jobs, .began_ns = clock_monotonic_ns()};
    socket_set_timeout(drainer->socket, SILENCE_MS);
    say_worker_hello(drainer);
    drainer->heartbeat_at_ms = clock_monotonic_ms() + HEARTBEAT_MS;
}

static int drain(const char *endpoint, uint64_t jobs)
{
    struct drainer drainer;
    drainer_open(&drainer, endpoint, jobs);
    while (drainer.concluded < jobs) {
        take_dispatches(&drainer);
        beat(&drainer);
        check_time("drain");
    }
    say_done(jobs, drainer.began_ns, drainer.first_ms);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------- cycle */

/* The worker's side, in a process of its own, which tells how many jobs were concluded. */
static _Noreturn void drain_for_ever(const char *endpoint, atomic_uint_fast64_t *concluded)
{
    struct drainer drainer;
    drainer_open(&drainer, endpoint, UINT64_MAX / 2);
    for (;;) {
        take_dispatches(&drainer);
        beat(&drainer);
        atomic_store(concluded, drainer.concluded);
    }
}

/* Returns how many jobs were concluded meanwhile. */
static uint64_t cycle_until(struct filler *filler, const atomic_uint_fast64_t *concluded, int64_t until_ms)
{
    const uint64_t before = atomic_load(concluded);
    while (clock_monotonic_ms() < until_ms) {
        const uint64_t allowed = atomic_load(concluded) + CYCLE_JOBS;
        if (filler->sent < allowed) {
            submit_some(filler, (size_t)(allowed - filler->sent));
        }
        ping(filler);
        take_answers(filler);
    }
    return atomic_load(concluded) - before;
}

static int cycle(const char *clients, const char *workers, const char *tier, pid_t broker, int64_t wanted_ms)
{
    atomic_uint_fast64_t *concluded =
        mmap(NULL, sizeof(*concluded), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (concluded == MAP_FAILED) {
        die("shared memory");
    }
    const pid_t worker = child_begin();
    if (worker == 0) {
        drain_for_ever(workers, concluded);
    }
    struct filler filler;
    filler_open(&filler, clients, tier, UINT64_MAX);
    socket_set_timeout(filler.socket, CYCLE_WAIT_MS);
    (void)cycle_until(&filler, concluded, clock_monotonic_ms() + WARM_UP_MS);
    const int64_t began_ns = clock_monotonic_ns();
    const double before_s = process_cpu_s(broker);
    const uint64_t jobs = cycle_until(&filler, concluded, clock_monotonic_ms() + wanted_ms);
    const double cpu_s = process_cpu_s(broker) - before_s, took_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
    (void)child_end(worker);
    if (jobs == 0) {
        errno = ETIMEDOUT;
        die("cycle: nothing was concluded");
    }
    printf("{\"jobs\":%llu,\"seconds\":%.2f,\"jobs_per_s\":%.0f,\"broker_cpu_s_per_million\":%.2f}\n", (unsigned long long)jobs, took_s,
           (double)jobs / took_s, cpu_s * 1e6 / (double)jobs);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    const int64_t seconds = argc > 1 ? atoi(argv[argc - 1]) : 0;
    const uint64_t jobs = argc > 2 ? strtoull(argv[argc - 2], NULL, 10) : 0; /* of `cycle` the process */
    ends_ms = clock_monotonic_ms() + seconds * 1000;
    if (seconds > 0 && jobs > 0) {
        if (argc == 6 && strcmp(what, "fill") == 0) {
            return fill(argv[2], argv[3], jobs);
        }
        if (argc == 5 && strcmp(what, "drain") == 0) {
            return drain(argv[2], jobs);
        }
        if (argc == 7 && strcmp(what, "cycle") == 0) {
            return cycle(argv[2], argv[3], argv[4], (pid_t)jobs, seconds * 1000);
        }
    }
    fprintf(stderr, "usage: bench-backlog fill CLIENTS_ENDPOINT TIER JOBS SECONDS_MAX\n"
                    "       bench-backlog drain WORKERS_ENDPOINT JOBS SECONDS_MAX\n"
                    "       bench-backlog cycle CLIENTS_ENDPOINT WORKERS_ENDPOINT TIER BROKER_PID SECONDS\n");
    return 2;
}
