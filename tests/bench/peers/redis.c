/*
 * bench-peer-redis: VARIANT `pop` is LPUSH and BRPOP, which loses what a worker had when it dies; `move` is LPUSH, BRPOPLPUSH into a
 * list of the worker's own, and LREM when it is done.
 */
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>
#include "tests/bench/peers/peer.h"

enum { WORKERS = 8 };

static int port;
static bool moves;

static redisContext *connect_redis(void)
{
    redisContext *context = redisConnect("127.0.0.1", port);
    if (context == NULL || context->err != 0) {
        peer_die("connection", context == NULL ? "no memory" : context->errstr);
    }
    return context;
}

/* The payload in a reply to either command; NULL when its time ran out. */
static const redisReply *payload_of(const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        peer_die("pop", reply->str);
    }
    const redisReply *payload = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 ? reply->element[1] : reply;
    return payload->type == REDIS_REPLY_STRING ? payload : NULL;
}

static void remove_from_own(redisContext *context, int worker, const redisReply *payload)
{
    redisReply *removed = redisCommand(context, "LREM p%d 1 %b", worker, payload->str, payload->len);
    if (removed == NULL || removed->type != REDIS_REPLY_INTEGER || removed->integer != 1) {
        peer_die("lrem", "the job is not in the list");
    }
    freeReplyObject(removed);
}

static void *work(void *index)
{
    const int worker = (int)(intptr_t)index;
    redisContext *context = connect_redis();
    for (;;) {
        redisReply *reply =
            moves ? redisCommand(context, "BRPOPLPUSH q p%d 1", worker) : redisCommand(context, "BRPOP q 1");
        if (reply == NULL) {
            return NULL; /* closed */
        }
        const redisReply *payload = payload_of(reply);
        if (payload != NULL) {
            const uint64_t job = peer_job_of(payload->str, payload->len);
            if (moves) {
                remove_from_own(context, worker, payload);
            }
            peer_note_step(job);
        }
        freeReplyObject(reply);
    }
    return NULL;
}

static void take_confirmation(redisContext *context, uint64_t job)
{
    redisReply *reply = NULL;
    if (redisGetReply(context, (void **)&reply) != REDIS_OK || reply->type != REDIS_REPLY_INTEGER) {
        peer_die("lpush", context->errstr);
    }
    freeReplyObject(reply);
    peer_note_step(job);
}

int main(int argc, char **argv)
{
    const struct peer_options options = peer_read_options(argc, argv);
    port = options.port;
    moves = strcmp(options.variant, "move") == 0;
    redisContext *context = connect_redis();
    peer_begin(&options);
    peer_start_workers(options.window == 1 ? 1 : WORKERS, work);
    while (peer_take_room()) {
        uint64_t jobs[PEER_BATCH];
        int length = 0;
        do {
            char payload[PEER_PAYLOAD_BYTES];
            jobs[length++] = peer_make_job(payload);
            redisAppendCommand(context, "LPUSH q %b", payload, (size_t)PEER_PAYLOAD_BYTES);
        } while (length < PEER_BATCH && peer_take_more_room());
        for (int i = 0; i < length; i++) {
            take_confirmation(context, jobs[i]);
        }
    }
    peer_report();
}
