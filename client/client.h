/*
 * client: what the modules of the library share: a client, its brokers, and the life of a pending job.
 *
 * A turn (tiermq_dispatch) is: send what is due; wait for the sockets; take what arrived; look at the clock; send again.
 * Everything that is handed in is only queued, so all submissions and collections of one turn travel in one message.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "client/answer.h"
#include "client/connection.h"
#include "client/pending.h"
#include "client/throttle.h"
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/heap.h"
#include "common/id.h"
#include "common/list.h"

enum {
    CLIENT_SHARDS_MAX = 64,         /* a bit each in pending.shards_asked */
    CLIENT_DETACHED_MAX = 10000,    /* accepted jobs that nobody waits for, kept in case their tier forgets them */
    CLIENT_REHOME_MS = 1000,        /* a broker away for longer: what was not sent to it goes to another */
    CLIENT_RESUBMIT_MS = 10000,     /* no word on a submission */
    CLIENT_ASK_MS = 30000,          /* no word on an accepted job */
    CLIENT_ASK_SOON_MS = 500,       /* it is concluded, but its result cannot be had yet; or it is to be submitted again first */
    CLIENT_OVERDUE_MS = 2000,       /* after its deadline, for the broker's word to arrive */
    CLIENT_GATHER_MS = 200,         /* jobs whose time has come are looked at together, at most so often */
    CLIENT_BLOCKED_MS = 5,          /* the queue to a broker was full */
    CLIENT_COLLECTED_MS = 5,        /* that a result was collected waits so long for company */
    CLIENT_COLLECTED_MAX = 256,     /* … and so many */
    CLIENT_CANCELS_MAX = 1000000,   /* ids; twice, for cancellations and collections */
    CLIENT_RETRY_MS = 600000,       /* a job without a deadline is submitted again for so long */
    CLIENT_THROTTLES = 16,          /* by tier */
    CLIENT_STREAM_CHUNKS = 64,      /* of a stream that may be under way, or kept while it is paused */
    CLIENT_ERROR_BYTES = 512,
};

/* Ids that wait for the next message. */
struct id_queue {
    struct id *ids;
    size_t length;
    size_t capacity;
};

/* How many more chunks of a job are taken. */
struct stream_credit {
    struct id job_id;
    uint32_t chunks;
};

struct credit_queue {
    struct stream_credit *items;
    size_t length, capacity;
};

/* One broker and what is with it. */
struct shard {
    struct tiermq *client;
    struct connection *connection;
    char *endpoint;
    uint32_t index;
    struct list jobs[PENDING_STATES]; /* SENT and WAITING are ordered by word_at_ms */
    struct id_queue cancels;
    struct id_queue collected;
    int64_t collected_at_ms; /* when the first of them is told at the latest */
    struct credit_queue credits; /* for the next message; stream.c */
    struct list near_feedbacks; /* for the next message; near_feedback.c */
    int64_t invalidations_at_ms; /* put off until then: none is sent before … */
    size_t invalidations_most;   /* … and so many at a time afterwards; 0: no bound */
    int64_t blocked_until_ms;
    struct throttle throttles[CLIENT_THROTTLES];
    uint64_t incarnation; /* the broker's, at the last welcome; 0: there was none */
};

/* One that waits for brokers; invalidate.c. */
struct invalidation {
    struct list_link link;  /* client.invalidations */
    Wire__CacheInvalidate *message; /* owned */
    uint64_t missing;       /* bit n: shard n has not answered; so for all shards */
    uint64_t unsent;        /* those of them that it is to be sent to */
    int64_t sent_at_ms;     /* to any of them, the last time */
    tiermq_invalidated_fn *on_done; /* may be NULL */
    void *context;
    int result;             /* the first refusal */
    char error[CLIENT_ERROR_BYTES];
};

struct outbox;

struct tiermq {
    struct loop *loop;
    struct arena *arena;
    struct outbox *outbox;
    char *tenant, *name;
    struct shard shards[CLIENT_SHARDS_MAX]; /* the tenant's home first, then where it goes instead */
    size_t shards_length;
    struct pending_table pending;
    struct list invalidations; /* oldest first */
    uint64_t invalidation_number; /* the last one's */
    struct list feedbacks;     /* that wait for a broker, oldest first; feedback.c */
    struct list detached;  /* oldest first */
    struct list streams_due; /* that may have chunks or an answer to hand on; stream.c */
    struct heap overdue;   /* jobs with a deadline, by the time to look at them */
    struct heap deferred;  /* DEFERRED jobs, by the time to submit them again */
    int64_t looked_at_ms;  /* when the time of one of them had come last */
    int64_t retry_ms;      /* a job without a deadline is submitted again for so long; negative: none is */
    uint64_t random;
    struct id_source ids;
    size_t jobs_max, bytes_max;
    size_t bytes;          /* payloads kept */
    uint64_t round;        /* messages' items looked at, see jobs.c, first_unseen() */
    bool is_dispatching;   /* callbacks may not dispatch again */
    char error[CLIENT_ERROR_BYTES];
    char unreached[CLIENT_ERROR_BYTES]; /* what is said of jobs that no broker was reached for */
    char refusal[CLIENT_ERROR_BYTES];   /* the last one for which a job was put off: its code and words … */
    struct id refused_id;               /* … the job, as its caller knows it … */
    int64_t refused_until_ms;           /* … and when it is submitted again */
};

/* tiermq.c */
void client_complain(struct tiermq *client, const char *format, ...) PRINTF_LIKE(2, 3);
/* A call of the program's begins: what an earlier one has complained of is told no more. */
void client_begin_call(struct tiermq *client);
/* Random number below `bound`, which is not 0. */
uint64_t client_random_below(struct tiermq *client, uint64_t bound);
/* Errors: -EINVAL it is all zero; client->error says so. */
MUST_USE int client_read_id(struct tiermq *client, const tiermq_id *id, struct id *ret_id);
/* Likewise; of a job of ours gives the id that brokers know it by, whichever of its two this is. */
MUST_USE int client_read_job_id(struct tiermq *client, const tiermq_id *id, struct id *ret_id);

/* Whether `text` is as many bytes in hexadecimal digits, and no more. */
bool client_read_hex(const char *text, size_t bytes, uint8_t *ret_bytes);

/* invalidate.c: what is said to every broker until each has answered. */
/* `on_done` may be NULL. Errors: -EINVAL, -ENOBUFS, -ENOMEM; client->error has the words. */
MUST_USE int invalidations_add(struct tiermq *client, const struct tiermq_selector *selector, const char *reason,
                               tiermq_invalidated_fn *on_done, void *context, struct invalidation **ret_invalidation);
/* Without a callback. */
void invalidations_forget(struct tiermq *client, struct invalidation *invalidation);
void invalidations_forget_all(struct tiermq *client);
void invalidations_take(struct shard *shard, const Wire__CacheInvalidated *answer);
void invalidations_opened(struct shard *shard);
void invalidations_refused(struct shard *shard, const char *reason);
bool invalidations_are_due(const struct shard *shard);
/* Borrowed messages for this broker. Returns how many. */
size_t invalidations_write(const struct shard *shard, Wire__CacheInvalidate **ret_messages, size_t messages_max);
void invalidations_note_sent(struct shard *shard, size_t length, int64_t now_ms);
void invalidations_tick(struct tiermq *client, int64_t now_ms);
int64_t invalidations_next_ms(const struct tiermq *client);

/* feedback.c: what is said of a job to the broker that has it. */
struct feedback;
/* `on_done` may be NULL. Errors: -EINVAL, -ENOBUFS, -ENOMEM; client->error has the words. */
MUST_USE int feedbacks_add(struct tiermq *client, const tiermq_id *id, const struct tiermq_feedback *feedback,
                           tiermq_feedback_fn *on_done, void *context, struct feedback **ret_feedback);
/* Without a callback. */
void feedbacks_forget(struct tiermq *client, struct feedback *feedback);
void feedbacks_forget_all(struct tiermq *client);
void feedbacks_take(struct shard *shard, const Wire__FeedbackTaken *taken);
void feedbacks_opened(struct shard *shard);
void feedbacks_refused(struct shard *shard, const char *reason);
bool feedbacks_are_due(const struct shard *shard);
/* Borrowed messages for this broker. Returns how many. */
size_t feedbacks_write(const struct shard *shard, Wire__Feedback **ret_messages, size_t messages_max);
void feedbacks_note_sent(struct shard *shard, size_t length, int64_t now_ms);
void feedbacks_tick(struct tiermq *client, int64_t now_ms);
int64_t feedbacks_next_ms(const struct tiermq *client);

/* near_feedback.c */
/* Nothing where it names no near hit. Errors: -EINVAL, -ENOBUFS, -ENOMEM; client->error has the words. */
MUST_USE int near_feedbacks_add(struct tiermq *client, const struct tiermq_feedback *feedback);
size_t near_feedbacks_write(const struct shard *shard, Wire__CacheFeedback **ret_messages, size_t messages_max);
void near_feedbacks_drop(struct shard *shard, size_t length);

/* jobs.c: submitting, waiting and what brokers say about it. */
/* Errors: -EINVAL, -ENOBUFS, -ENOMEM; client->error has the words. */
MUST_USE int jobs_submit(struct tiermq *client, const struct tiermq_job *job, const struct tiermq_callbacks *callbacks,
                         struct pending **ret_pending);
/* `on_status` may be NULL: waits for the answer. Errors: -ENOBUFS, -ENOMEM. */
MUST_USE int jobs_wait(struct tiermq *client, const struct id *id, const struct tiermq_callbacks *callbacks,
                       pending_status_fn *on_status, struct pending **ret_pending);
/* Lets go of it without a callback. */
void jobs_forget(struct tiermq *client, struct pending *pending);
void jobs_move(struct pending *pending, enum pending_state next);
/* To be concluded in the next turn, without a broker's word. */
void jobs_end(struct pending *pending, enum tiermq_state state, const char *code, const char *text);
/*
 * Visits each of the jobs under one id once. Callbacks hand in new jobs, and that may let detached
 * ones go, so no pointer to a next one is held meanwhile: what a round has seen carries its number,
 * what it adds does too. NULL: all were seen in this round.
 */
struct pending *jobs_first_unseen(struct tiermq *client, const struct id *id);
/* Concludes it with the answer that was kept. */
void jobs_conclude_read(struct tiermq *client, struct pending *pending);
void jobs_tick(struct tiermq *client, int64_t now_ms);
/* When jobs_tick() has something to do; INT64_MAX: nothing is waiting for time. */
int64_t jobs_next_ms(const struct tiermq *client);
/* For connection.h; `context` is the shard. */
void jobs_opened(void *context);
void jobs_refused(void *context, const char *reason, int64_t retry_after_ms);
void jobs_message(void *context, const Wire__BrokerToClient *message, struct link_message *parts);
void jobs_chunk(void *context, const struct frame_chunk *chunk, const void *data, size_t bytes); /* stream.c */

/* stream.c: chunks, and pauses between them. */
/* The first credit of a job; 0: nobody here reads its stream, and nothing is held up. */
uint32_t stream_first_credit(const struct tiermq *client, const struct id *id);
/* Keeps the answer of a job whose stream, of so many chunks that its broker has, is not read yet. False: it may be given now. */
bool stream_keep_answer(struct pending *pending, const struct tiermq_answer *answer, uint32_t chunks);
/* READING: its answer is given in the next turn, without what was not read. */
void stream_end(struct pending *pending);
/* Lets go of what is kept of one that is in the table no more, or never was. */
void stream_finish(struct pending *pending);
/* No connection: brokers keep no rest of a stream over one, so answers do not wait for it any more. */
void streams_closed(struct shard *shard);
/* A new connection: credit begins anew there. */
void streams_opened(struct shard *shard);
void streams_tick(struct tiermq *client);

/* retry.c: what was refused for now, and comes again. */
/*
 * Puts the job off, as long as the broker asks for (0: for ever) and its deadline allows. False: it is refused for good.
 * Keeps:  `code`, which is static; of `text` a copy until the next one is put off.
 */
bool retry_put_off(struct pending *pending, const char *code, const char *text, int64_t retry_after_ms, int64_t now_ms);
/* Why a job with refusals was refused last: the code, and the words, too, while it is the last of all. */
const char *retry_refusal(const struct pending *pending);
/*
 * Of the jobs that are put off: code and words of the one that was refused last, or, when that one has gone on, the code of the
 * one that is submitted again soonest. "": none is. Gives: *ret_until_ms, when it is submitted again; untouched when none is.
 */
const char *retry_refusal_now(const struct tiermq *client, int64_t *ret_until_ms);
void retry_note_sent(struct pending *pending, int64_t now_ms);
void retry_note_accepted(struct pending *pending, int64_t now_ms);
void retry_tick(struct tiermq *client, int64_t now_ms);
/* INT64_MAX: nothing is put off. */
int64_t retry_next_ms(const struct tiermq *client);

/* outbox.c: what is due, in as few messages as their bounds allow. */
MUST_USE int outbox_create(struct outbox **ret_outbox); /* Errors: -ENOMEM */
void outbox_destroy(struct outbox **outbox);
void outbox_flush(struct shard *shard, int64_t now_ms);
/* When there is something to send; INT64_MAX: nothing, or the connection is not open. */
int64_t outbox_due_ms(const struct shard *shard);
/* The broker is to be told, before long, that it may forget the result. */
void outbox_collected(struct shard *shard, const struct id *id);
/* Errors: -ENOMEM, -ENOBUFS. */
MUST_USE int id_queue_push(struct id_queue *queue, const struct id *id);
