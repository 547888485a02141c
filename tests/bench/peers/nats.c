/*
 * bench-peer-nats: a JetStream stream with work queue retention, in files: publishes that the server confirms, pulls in batches, an
 * acknowledgement for each job, which the server does not answer.
 */
#include <nats/nats.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "tests/bench/peers/peer.h"

enum { WORKERS = 2, FETCHED_MOST = 32, FETCH_TIMEOUT_MS = 60000, PENDING_MOST = 4096, TRIES = 40 };

static char url[64];
static unsigned window;

static void check(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        peer_die(what, natsStatus_GetText(status));
    }
}

static void on_confirmed(jsCtx *stream, natsMsg *message, jsPubAck *confirmation, jsPubAckErr *error, void *context)
{
    (void)stream;
    (void)context;
    if (confirmation == NULL) {
        peer_die("publish", error == NULL ? "not confirmed" : error->ErrText);
    }
    const uint64_t job = peer_job_of(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message));
    natsMsg_Destroy(message);
    peer_note_step(job);
}

static jsCtx *connect_nats(jsOptions *options)
{
    natsConnection *connection = NULL;
    jsCtx *stream = NULL;
    check(natsConnection_ConnectTo(&connection, url), "connection");
    check(natsConnection_JetStream(&stream, connection, options), "jetstream");
    return stream;
}

static void *work(void *index)
{
    (void)index;
    jsCtx *stream = connect_nats(NULL);
    natsSubscription *subscription = NULL;
    jsSubOptions options;
    jsSubOptions_Init(&options);
    options.Stream = "Q";
    options.Config.MaxAckPending = PENDING_MOST;
    check(js_PullSubscribe(&subscription, stream, "q.a", "w", NULL, &options, NULL), "subscribe");
    for (;;) {
        /* A fetch must not run out of time: the library's 3.4 writes beyond its list in the next one. */
        natsMsgList list = {0};
        check(natsSubscription_Fetch(&list, subscription, window == 1 ? 1 : FETCHED_MOST, FETCH_TIMEOUT_MS, NULL), "fetch");
        for (int i = 0; i < list.Count; i++) {
            const uint64_t job = peer_job_of(natsMsg_GetData(list.Msgs[i]), (size_t)natsMsg_GetDataLength(list.Msgs[i]));
            check(natsMsg_Ack(list.Msgs[i], NULL), "acknowledge");
            peer_note_step(job);
        }
        natsMsgList_Destroy(&list);
    }
    return NULL;
}

/* The server listens before its JetStream is up, and does not say when that is. */
static void add_stream(jsCtx *stream, jsStreamConfig *config)
{
    natsStatus status = NATS_ERR;
    for (int i = 0; i < TRIES && status != NATS_OK; i++) {
        status = js_AddStream(NULL, stream, config, NULL, NULL);
        if (status != NATS_OK) {
            nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
        }
    }
    check(status, "add stream");
}

static void prepare(jsCtx *stream)
{
    const char *subjects[] = {"q.>"};
    jsStreamConfig config;
    jsStreamConfig_Init(&config);
    config.Name = "Q";
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Retention = js_WorkQueuePolicy;
    config.Storage = js_FileStorage;
    (void)js_DeleteStream(stream, "Q", NULL, NULL); /* of the run before, if there was one */
    add_stream(stream, &config);
    jsConsumerConfig consumer;
    jsConsumerConfig_Init(&consumer);
    consumer.Durable = "w";
    consumer.AckPolicy = js_AckExplicit;
    consumer.MaxAckPending = PENDING_MOST;
    consumer.FilterSubject = "q.a";
    check(js_AddConsumer(NULL, stream, "Q", &consumer, NULL, NULL), "add consumer");
}

int main(int argc, char **argv)
{
    const struct peer_options options = peer_read_options(argc, argv);
    window = options.window;
    snprintf(url, sizeof(url), "nats://127.0.0.1:%d", options.port);
    jsOptions stream_options;
    jsOptions_Init(&stream_options);
    stream_options.PublishAsync.MaxPending = PENDING_MOST;
    stream_options.PublishAsync.AckHandler = on_confirmed;
    jsCtx *stream = connect_nats(&stream_options);
    prepare(stream);
    peer_begin(&options);
    peer_start_workers(window == 1 ? 1 : WORKERS, work);
    while (peer_take_room()) {
        char payload[PEER_PAYLOAD_BYTES];
        (void)peer_make_job(payload);
        check(js_PublishAsync(stream, "q.a", payload, sizeof(payload), NULL), "publish");
    }
    peer_report();
}
