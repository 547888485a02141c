/*
 * bench-ceiling: what this machine allows, measured beside the product in the same run.
 *
 *   bench-ceiling relay  WINDOW SECONDS        a raw ZeroMQ ROUTER–ROUTER pair that only forwards
 *   bench-ceiling commit WINDOW SECONDS DIR    the least broker with the product's durability: one thread drains what arrived,
 *                                              commits accepts (record, payload) and conclusions (record, result, deletes) in one
 *                                              RocksDB batch with one fsync, then lets the answers go
 *
 * Three processes each: client, broker, worker. Payloads of 1 KiB go to the worker and come back.
 */
#include <errno.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>
#include "common/clock.h"
#include "proto/records.pb-c.h"
#include "proto/wire.pb-c.h"
#include "tests/bench/load.h"

enum { BATCH_MAX = 256, PEER_BYTES = 64, ID_OFFSET = 8 };

static void die(const char *what)
{
    fprintf(stderr, "bench-ceiling: %s: %s\n", what, zmq_strerror(errno));
    exit(1);
}

static void *open_socket(void *context, int type, const char *endpoint, bool bind)
{
    void *socket = zmq_socket(context, type);
    int unlimited = 0;
    if (socket == NULL || zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof(unlimited)) != 0 ||
        zmq_setsockopt(socket, ZMQ_RCVHWM, &unlimited, sizeof(unlimited)) != 0 ||
        (bind ? zmq_bind(socket, endpoint) : zmq_connect(socket, endpoint)) != 0) {
        die(endpoint);
    }
    return socket;
}

struct endpoints {
    char clients[64], workers[64];
};

static void write_endpoint(void *socket, char ret_endpoint[64])
{
    size_t bytes = 64;
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, ret_endpoint, &bytes) != 0) {
        die("endpoint");
    }
}

/* The sockets of a broker, on any free ports, which its parent is told through a pipe. */
struct broker {
    void *clients, *workers;
    char worker[PEER_BYTES]; /* the one worker's name */
    int worker_bytes;
};

static void open_broker(struct broker *broker, int to_parent)
{
    struct endpoints endpoints = {{0}, {0}};
    void *context = zmq_ctx_new();
    broker->clients = open_socket(context, ZMQ_ROUTER, "tcp://127.0.0.1:*", true);
    broker->workers = open_socket(context, ZMQ_ROUTER, "tcp://127.0.0.1:*", true);
    write_endpoint(broker->clients, endpoints.clients);
    write_endpoint(broker->workers, endpoints.workers);
    if (write(to_parent, &endpoints, sizeof(endpoints)) != (ssize_t)sizeof(endpoints)) {
        die("pipe");
    }
    char hello[16];
    broker->worker_bytes = zmq_recv(broker->workers, broker->worker, sizeof(broker->worker), 0);
    zmq_recv(broker->workers, hello, sizeof(hello), 0);
    zmq_recv(broker->workers, hello, sizeof(hello), 0);
}

/* ------------------------------------------------------------------------------------------------ worker and client */

/* Echoes; the first part names the client. */
static void run_worker(const struct endpoints *endpoints)
{
    void *socket = open_socket(zmq_ctx_new(), ZMQ_DEALER, endpoints->workers, false);
    char client[PEER_BYTES], job[LOAD_PAYLOAD_BYTES];
    zmq_send(socket, "ready", 5, ZMQ_SNDMORE);
    zmq_send(socket, "", 0, 0);
    for (;;) {
        int client_bytes = zmq_recv(socket, client, sizeof(client), 0);
        int bytes = zmq_recv(socket, job, sizeof(job), 0);
        if (client_bytes < 0 || bytes < 0) {
            die("worker");
        }
        zmq_send(socket, client, (size_t)client_bytes, ZMQ_SNDMORE);
        zmq_send(socket, job, (size_t)bytes, 0);
    }
}

static void run_client(const struct endpoints *endpoints, struct load *load)
{
    void *socket = open_socket(zmq_ctx_new(), ZMQ_DEALER, endpoints->clients, false);
    char job[LOAD_PAYLOAD_BYTES];
    memset(job, 'x', sizeof(job));
    /* One job before the clock starts: connections are made, the worker is known. */
    zmq_send(socket, job, sizeof(job), 0);
    while (zmq_recv(socket, job, sizeof(job), 0) != (int)sizeof(job)) {
    }
    load_begin(load);
    while (!load_is_over(load) || load->done < load->sent) {
        while (load_may_send(load)) {
            uint64_t number = load_note_sent(load);
            memcpy(job, &number, sizeof(number));
            zmq_send(socket, job, sizeof(job), 0);
        }
        /* Wait for one, then take what else is there. An accept of the commit loop is shorter than a result. */
        int bytes = zmq_recv(socket, job, sizeof(job), 0);
        while (bytes >= 0) {
            if (bytes == (int)sizeof(job)) {
                uint64_t number;
                memcpy(&number, job, sizeof(number));
                load_note_done(load, number);
            }
            bytes = zmq_recv(socket, job, sizeof(job), ZMQ_DONTWAIT);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------- relay */

static bool forward(void *from, void *to, const char *worker, int worker_bytes)
{
    zmq_msg_t client, job;
    zmq_msg_init(&client);
    zmq_msg_init(&job);
    if (worker_bytes < 0) { /* from the worker: its own name comes first */
        char name[PEER_BYTES];
        if (zmq_recv(from, name, sizeof(name), ZMQ_DONTWAIT) < 0) {
            return false;
        }
    }
    if (zmq_msg_recv(&client, from, ZMQ_DONTWAIT) < 0) {
        return false;
    }
    zmq_msg_recv(&job, from, 0);
    if (worker_bytes >= 0) {
        zmq_send(to, worker, (size_t)worker_bytes, ZMQ_SNDMORE);
    }
    zmq_msg_send(&client, to, ZMQ_SNDMORE);
    zmq_msg_send(&job, to, 0);
    return true;
}

static void run_relay(int to_parent)
{
    struct broker broker;
    open_broker(&broker, to_parent);
    void *clients = broker.clients, *workers = broker.workers;
    zmq_pollitem_t items[] = {{clients, 0, ZMQ_POLLIN, 0}, {workers, 0, ZMQ_POLLIN, 0}};
    for (;;) {
        zmq_poll(items, 2, -1);
        for (int i = 0; i < BATCH_MAX && forward(clients, workers, broker.worker, broker.worker_bytes); i++) {
        }
        for (int i = 0; i < BATCH_MAX && forward(workers, clients, NULL, -1); i++) {
        }
    }
}

/* -------------------------------------------------------------------------------------------------------- commit loop */

enum family { FAMILY_JOBS, FAMILY_PAYLOADS, FAMILY_CONCLUDED, FAMILY_RESULTS, FAMILIES };
static const char *const family_names[] = {"jobs", "payloads", "concluded", "results", "default"};

struct database {
    rocksdb_t *db;
    rocksdb_writeoptions_t *sync;
    rocksdb_writebatch_t *batch;
    rocksdb_column_family_handle_t *families[FAMILIES + 1];
};

static void open_database(struct database *database, const char *dir)
{
    char *error = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    const rocksdb_options_t *family_options[FAMILIES + 1];
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(options, 16 << 20);
    for (size_t i = 0; i <= FAMILIES; i++) {
        family_options[i] = options;
    }
    database->db = rocksdb_open_column_families(options, dir, FAMILIES + 1, family_names, family_options, database->families, &error);
    if (error != NULL) {
        fprintf(stderr, "bench-ceiling: %s: %s\n", dir, error);
        exit(1);
    }
    database->sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(database->sync, 1);
    database->batch = rocksdb_writebatch_create();
}

/* The id of a job: the time, then its number. */
static void make_id(const char *job, uint8_t ret_id[16])
{
    uint64_t now = __builtin_bswap64((uint64_t)1767225600000 << 16);
    memcpy(ret_id, &now, 8);
    memcpy(ret_id + ID_OFFSET, job, 8);
}

static void put(struct database *database, enum family family, const void *key, size_t key_bytes, const ProtobufCMessage *record,
                const char *payload, size_t payload_bytes)
{
    uint8_t value[512 + LOAD_PAYLOAD_BYTES];
    size_t bytes = 0;
    if (record != NULL) {
        value[bytes++] = 1; /* the record version */
        bytes += protobuf_c_message_pack(record, value + bytes);
    }
    memcpy(value + bytes, payload, payload_bytes);
    rocksdb_writebatch_put_cf(database->batch, database->families[family], key, key_bytes, (const char *)value, bytes + payload_bytes);
}

static void write_accept(struct database *database, const char *job, uint64_t sequence)
{
    uint8_t id[16];
    make_id(job, id);
    Record__JobRecord record = RECORD__JOB_RECORD__INIT;
    record.job_id = (ProtobufCBinaryData){16, id};
    record.sequence = sequence;
    record.tenant = (char *)(uintptr_t)"default";
    record.tier = (char *)(uintptr_t)"standard";
    record.route = (char *)(uintptr_t)"sim-small";
    record.pool = (char *)(uintptr_t)"default";
    record.state = 1;
    record.attempts_max = 5;
    record.submitted_unix_ms = record.deadline_unix_ms = clock_unix_ms();
    record.estimated_tokens = record.max_tokens = 256;
    record.payload_bytes = LOAD_PAYLOAD_BYTES;
    put(database, FAMILY_JOBS, id, sizeof(id), &record.base, NULL, 0);
    put(database, FAMILY_PAYLOADS, id, sizeof(id), NULL, job, LOAD_PAYLOAD_BYTES);
}

static void write_conclusion(struct database *database, const char *job)
{
    uint8_t key[24], result_bytes[256];
    uint64_t now = __builtin_bswap64((uint64_t)clock_unix_ms());
    memcpy(key, &now, 8);
    make_id(job, key + 8);
    const char *id = (const char *)key + 8;
    Record__ConcludedRecord concluded = RECORD__CONCLUDED_RECORD__INIT;
    concluded.state = WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
    concluded.tenant = (char *)(uintptr_t)"default";
    concluded.result_bytes = LOAD_PAYLOAD_BYTES;
    Wire__Result result = WIRE__RESULT__INIT;
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.input_tokens = usage.output_tokens = 100;
    usage.cost_nanousd = 75000;
    usage.model = usage.provider = (char *)(uintptr_t)"sim-small";
    result.job_id = (ProtobufCBinaryData){16, key + 8};
    result.state = WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
    result.attempts = 1;
    result.usage = &usage;
    result.worker = (char *)(uintptr_t)"bench";
    result.has_payload = 1;
    Record__ResultRecord record = RECORD__RESULT_RECORD__INIT;
    record.result = (ProtobufCBinaryData){wire__result__pack(&result, result_bytes), result_bytes};
    record.payload_bytes = LOAD_PAYLOAD_BYTES;
    rocksdb_writebatch_delete_cf(database->batch, database->families[FAMILY_JOBS], id, 16);
    rocksdb_writebatch_delete_cf(database->batch, database->families[FAMILY_PAYLOADS], id, 16);
    put(database, FAMILY_CONCLUDED, key, sizeof(key), &concluded.base, NULL, 0);
    put(database, FAMILY_RESULTS, key, sizeof(key), &record.base, job, LOAD_PAYLOAD_BYTES);
}

struct message {
    char client[PEER_BYTES];
    int client_bytes;
    char job[LOAD_PAYLOAD_BYTES];
};

/* Takes up to BATCH_MAX messages. From workers the first part is the worker's own name. */
static size_t take(void *socket, bool from_worker, struct message *messages)
{
    size_t length = 0;
    while (length < BATCH_MAX) {
        struct message *message = &messages[length];
        char worker[PEER_BYTES];
        if (from_worker && zmq_recv(socket, worker, sizeof(worker), ZMQ_DONTWAIT) < 0) {
            break;
        }
        message->client_bytes = zmq_recv(socket, message->client, sizeof(message->client), ZMQ_DONTWAIT);
        if (message->client_bytes < 0) {
            break;
        }
        zmq_recv(socket, message->job, sizeof(message->job), 0);
        length++;
    }
    return length;
}

static void send_to(void *socket, const char *peer, int peer_bytes, const struct message *message, bool name_client, size_t bytes)
{
    zmq_send(socket, peer, (size_t)peer_bytes, ZMQ_SNDMORE);
    if (name_client) {
        zmq_send(socket, message->client, (size_t)message->client_bytes, ZMQ_SNDMORE);
    }
    zmq_send(socket, message->job, bytes, 0);
}

static void run_commit_loop(int to_parent, const char *dir)
{
    struct database database;
    open_database(&database, dir);
    struct broker broker;
    open_broker(&broker, to_parent);
    void *clients = broker.clients, *workers = broker.workers;
    struct message *accepts = calloc(BATCH_MAX, sizeof(*accepts)), *results = calloc(BATCH_MAX, sizeof(*results));
    if (accepts == NULL || results == NULL) {
        die("memory");
    }
    zmq_pollitem_t items[] = {{clients, 0, ZMQ_POLLIN, 0}, {workers, 0, ZMQ_POLLIN, 0}};
    for (uint64_t sequence = 0;;) {
        zmq_poll(items, 2, -1);
        size_t n_results = take(workers, true, results), n_accepts = take(clients, false, accepts);
        for (size_t i = 0; i < n_results; i++) {
            write_conclusion(&database, results[i].job);
        }
        for (size_t i = 0; i < n_accepts; i++) {
            write_accept(&database, accepts[i].job, sequence++);
        }
        if (n_results + n_accepts == 0) {
            continue;
        }
        char *error = NULL;
        rocksdb_write(database.db, database.sync, database.batch, &error);
        if (error != NULL) {
            fprintf(stderr, "bench-ceiling: %s\n", error);
            exit(1);
        }
        rocksdb_writebatch_clear(database.batch);
        for (size_t i = 0; i < n_results; i++) {
            send_to(clients, results[i].client, results[i].client_bytes, &results[i], false, LOAD_PAYLOAD_BYTES);
        }
        for (size_t i = 0; i < n_accepts; i++) {
            send_to(clients, accepts[i].client, accepts[i].client_bytes, &accepts[i], false, 8); /* accepted */
            send_to(workers, broker.worker, broker.worker_bytes, &accepts[i], true, LOAD_PAYLOAD_BYTES);
        }
    }
}

int main(int argc, char **argv)
{
    bool is_relay = argc == 4 && strcmp(argv[1], "relay") == 0;
    bool is_commit = argc == 5 && strcmp(argv[1], "commit") == 0;
    if (!is_relay && !is_commit) {
        fprintf(stderr, "usage: bench-ceiling relay WINDOW SECONDS | bench-ceiling commit WINDOW SECONDS DIR\n");
        return 2;
    }
    static struct load load;
    load.name = argv[1];
    load.window = (uint32_t)atoi(argv[2]);
    load.seconds = atof(argv[3]);
    if (load.window < 1 || load.window > LOAD_WINDOW_MAX || !(load.seconds > 0 && load.seconds < 600)) {
        fprintf(stderr, "bench-ceiling: WINDOW must be 1 to %d, SECONDS above 0 and below 600\n", LOAD_WINDOW_MAX);
        return 2;
    }
    struct endpoints endpoints;
    int ends[2];
    if (pipe(ends) != 0) {
        die("pipe");
    }
    pid_t broker = child_begin();
    if (broker == 0) {
        if (is_relay) {
            run_relay(ends[1]);
        }
        run_commit_loop(ends[1], argv[4]);
    }
    close(ends[1]); /* so that a broker that fails ends the pipe */
    if (read(ends[0], &endpoints, sizeof(endpoints)) != (ssize_t)sizeof(endpoints)) {
        fprintf(stderr, "bench-ceiling: the broker did not start\n");
        return 1;
    }
    pid_t worker = child_begin();
    if (worker == 0) {
        run_worker(&endpoints);
    }
    run_client(&endpoints, &load);
    double worker_cpu_s = child_end(worker);
    load_report(&load, child_end(broker), worker_cpu_s);
    return 0;
}
