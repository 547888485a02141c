/*
 * tiermq.h: the client library. Submit jobs for models, wait for their answers, collect them later.
 *
 *     struct tiermq *client = NULL;
 *     int r = tiermq_connect(&(struct tiermq_options){.brokers = "tcp://127.0.0.1:7700"}, &client);
 *     struct tiermq_answer *answer = NULL;
 *     r = tiermq_call(client, &(struct tiermq_job){.tier = "realtime", .prompt = "What is a queue?"}, 5000, &answer);
 *     if (r == 0 && answer->state == TIERMQ_SUCCEEDED) puts(answer->text);
 *     tiermq_answer_free(&answer);
 *     tiermq_close(&client);
 *
 * Threads: a client belongs to one thread at a time; different clients are independent. The library starts no thread of
 * its own visible to the caller and installs no signal handler. Callbacks may hand in (what ends in _async), cancel, pause and resume; the calls that
 * block, and tiermq_dispatch(), return -EDEADLK there.
 *
 * Errors: 0 or a negative errno; tiermq_last_error() has the words. What happened to a job is not an error but a state.
 *
 * Refusals: what a broker refuses for now (a full queue, a pause, a shutdown) or sheds in an overload is submitted again here, not
 * before the broker said, spread at random, and held back while most is refused; until the job's deadline, or for
 * options.retry_ms when it has none. Only when no time is left for another try does the refusal come as the answer.
 *
 * Promises: a job accepted on a durable tier is kept by the broker; one on a tier in memory is kept by this library until its
 * answer comes and is submitted again, under the same id, after a reconnect. Ids make every resubmission the same job.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TIERMQ_VERSION   "0.1.0"
#define TIERMQ_ID_BYTES  16
#define TIERMQ_ID_TEXT   37 /* with the NUL */

#if defined(__GNUC__)
#define TIERMQ_API __attribute__((visibility("default")))
#define TIERMQ_CHECK __attribute__((warn_unused_result))
#else
#define TIERMQ_API
#define TIERMQ_CHECK
#endif

struct tiermq;

typedef struct {
    uint8_t bytes[TIERMQ_ID_BYTES];
} tiermq_id;

enum tiermq_state {
    TIERMQ_UNKNOWN,     /* no broker knows this id */
    TIERMQ_PENDING,     /* submitted, not concluded */
    TIERMQ_SUCCEEDED,
    TIERMQ_DEAD,        /* used up its attempts, or can never succeed */
    TIERMQ_CANCELLED,
    TIERMQ_EXPIRED,     /* its deadline passed; or, with retry_after_ms > 0, it was shed: see there */
    TIERMQ_REJECTED,    /* not accepted; reason and retry_after_ms say more */
    TIERMQ_COLLECTED,   /* concluded earlier; its answer is no longer kept */
    TIERMQ_LOST,        /* outcome unknown: its deadline passed without a broker's word, or one that may have it refuses this client */
};

enum tiermq_cache { TIERMQ_CACHE_NONE, TIERMQ_CACHE_MISS, TIERMQ_CACHE_HIT, TIERMQ_CACHE_NEAR_HIT, TIERMQ_CACHE_STALE_HIT };

/* How the cache may be used for a job. */
enum tiermq_cache_use {
    TIERMQ_USE_DEFAULT,      /* as its tier says */
    TIERMQ_USE_OFF,          /* the answer is not looked up, and not kept */
    TIERMQ_USE_REFRESH,      /* not looked up, but kept: a new answer takes the old one's place */
    TIERMQ_USE_EXACT,        /* no answer to a question that is only similar */
};

/* What the cache may do with a job, and what its answer is kept under. Everything may be left out. Strings are UTF-8 and copied. */
struct tiermq_cache_control {
    enum tiermq_cache_use use;        /* other than the default: the job is `distinct`, too */
    const char *cache_namespace;      /* jobs of different namespaces never share an answer; NULL: none; at most 128 bytes */
    const char *const *tags;          /* to invalidate it by; at most 16, of 1 to 128 bytes */
    size_t tags_length;
    const char *const *documents;     /* ids of what the answer is made from; at most 64, of 1 to 128 bytes */
    size_t documents_length;
    const char *template_version;     /* of the prompt; NULL: none; at most 64 bytes */
    int64_t ttl_ms;                   /* 0: the tier's; at most 365 days */
    bool allow_variety;               /* serve and keep it though its temperature is above cache.temperature_max */
};

struct tiermq_options {
    const char *brokers;     /* comma-separated tcp:// or ipc:// endpoints; NULL: tcp://127.0.0.1:7700 */
    const char *tenant;      /* NULL: "default" */
    const char *name;        /* for the broker's log; NULL: the program's name */
    size_t pending_max;      /* jobs submitted and not answered; 0: 100 000. More: -ENOBUFS */
    size_t pending_bytes_max; /* payloads kept for resubmission; 0: 256 MiB */
    int64_t retry_ms;        /* for how long a job without a deadline is submitted again when it is refused for now;
                                0: 10 minutes; TIERMQ_RETRY_NONE: no job is, a refusal is given at once */
};

#define TIERMQ_RETRY_NONE (-1)

/* What is asked for. Everything but `prompt` or `body` may be left out. Strings are copied. */
struct tiermq_job {
    tiermq_id id;                /* all zero: the library makes one */
    const char *tier;            /* NULL: "standard" */
    const char *route;           /* a model's name or an alias; NULL: "auto" */
    const char *pool;            /* NULL: the tier's */
    const char *operation;       /* "chat.completions" (NULL), "completions", "embeddings", "responses" */
    const char *prompt;          /* a chat with one user message; ignored when body is set */
    const void *body;            /* the OpenAI-format JSON of the operation; `model` in it may be left out */
    size_t body_bytes;
    unsigned priority;           /* 0 to 9, 9 first; within the tenant */
    int64_t deadline_ms;         /* from now; 0: the tier's default */
    int64_t delay_ms;            /* not before */
    const char *idempotency_key; /* NULL: none */
    unsigned estimated_tokens;   /* 0: estimated from the body */
    unsigned max_tokens;         /* 0: as in the body */
    bool stream;                 /* chunks come through on_chunk; the answer is whole all the same. Without on_chunk others can read them */
    bool distinct;               /* runs by itself, also when an identical job is under way; else one answers both */
    bool discard_result;         /* nobody will collect its result: the broker keeps none */
    bool detach;                 /* nobody waits here: on_answer is called with TIERMQ_PENDING once it is accepted */
    const char *trace_parent;    /* W3C traceparent; NULL: none */
    struct tiermq_cache_control cache;
    const char *residency;       /* label that the provider must have (providers[].residency), besides the tenant's; NULL: none */
    const char *task;            /* what kind of work it is, at most 64 bytes: feedback teaches by it, see routing.learn. NULL: none */
    unsigned complexity;         /* of the prompt, 1 (simple) to 255, if it is known better than its text tells; 0: made of the text */
    bool batchable;              /* a short chat that may be asked in one prompt with others, where its tier combines (docs/batching.md) */
};

/* An answer. Owned by the caller where it is returned, by the library in callbacks. */
struct tiermq_answer {
    tiermq_id id;                /* as it was handed in */
    tiermq_id known_as;          /* as brokers know the job, to anybody: another one if an earlier job has its idempotency key */
    enum tiermq_state state;
    const char *error_code;      /* "" when succeeded */
    const char *error_text;
    int64_t retry_after_ms;      /* rejected: 0 do not retry unchanged. Expired: > 0: given up unrun in an overload ("shed"),
                                    and may be submitted again then, under the same id */
    const char *text;            /* the first choice's text, "" if there is none */
    const void *body;            /* the OpenAI-format JSON answer; NULL if none */
    size_t body_bytes;
    const char *model;           /* that answered */
    const char *provider;        /* "" from the cache */
    const char *worker;
    const char *router_reason;
    unsigned attempts;
    uint64_t input_tokens, output_tokens, cost_nanousd, saved_nanousd;
    enum tiermq_cache cache;
    int64_t queue_ms, run_ms;    /* in the broker's queue; from dispatch to conclusion */
    int64_t total_us;            /* from submission to now, as this library saw it */
    tiermq_id led_by;            /* the identical job that was run for both; all zero: it was run itself */
    int64_t cache_age_ms;        /* hits: since the answer was made */
    const char *cache_why;       /* why the cache was not asked, or had no answer, in a word; "" if that is not known */
    const char *near_key;        /* near hits: the entry that answered, for tiermq_invalidate() and tiermq_give_feedback(); else "" */
    const char *embedder;        /* near hits: what compared the questions, and its version; else "" */
    double near_score;           /* near hits: how alike the questions are, and … */
    double near_threshold;       /* … what that had to reach */
    unsigned quality_lost;       /* grades by which it is thought to be worse than what was wanted: a smaller model, a stale or near hit */
    bool prompt_is_cut;          /* a part of the history, or of retrieved passages, was left out, as its tier allows */
    uint64_t prompt_tokens_saved; /* input tokens that were not sent, since the prompt was made shorter: docs/prompts.md */
    int64_t first_token_ms;      /* streamed: from the provider call's beginning to its first token; else 0 */
    bool hedged;                 /* a second call was made beside a slow one; `provider` and `model` are of the one that answered */
    unsigned complexity;         /* of the prompt, 1 (simple) to 255, by which its models were chosen; 0: not known */
    unsigned abilities;          /* likewise, what a model needed: a sum of 1 tools, 2 images, 4 a JSON object, 8 a JSON schema, 16 audio,
                                    32 log probabilities, 64 several answers, 128 what its provider keeps of an earlier response */
    bool cost_is_estimated;      /* the provider did not say all that it used */
    int64_t saved_ms;            /* hits: how long the call took that is spared */
    uint64_t saved_prompt_cache_nanousd; /* by the provider's prompt cache, against the price of input */
    int64_t saved_routing_nanousd; /* by the choice of the model, against cost.reference_model; below 0: it was dearer */
    unsigned combined;           /* jobs that shared the call which answered it, itself included; 0: it had its own */
};

/* Where a pending job stands. */
struct tiermq_status {
    tiermq_id id;
    const char *state;           /* queued, backing_off, loading, leased, … , unknown */
    unsigned attempts;
    int64_t waits_ms;            /* until it may be tried again, when backing off or delayed */
    uint64_t position;           /* queued: jobs of its tenant that go before it; estimated in a queue beyond 16 384 */
    const char *why;             /* why it waits, in words; "" when it does not */
    bool has_estimate;           /* of starts_in_ms: how fast its queue moves is known */
    int64_t starts_in_ms;        /* estimated; 0: now */
};

typedef void tiermq_answer_fn(void *context, const struct tiermq_answer *answer);
/*
 * A piece of a streamed answer, in order, of one attempt only: if that one fails, no more pieces come, since what was shown cannot
 * be taken back; on_answer has the whole text in any case. `last` marks the end of a stream that came through whole.
 * `data` holds whole server-sent events in OpenAI's form ("data: {…}\n\n"), to be handed on as they are or read with
 * tiermq_chunk_text().
 */
typedef void tiermq_chunk_fn(void *context, const tiermq_id *id, const void *data, size_t bytes, bool last);
typedef void tiermq_accepted_fn(void *context, const tiermq_id *id, bool duplicate);

struct tiermq_callbacks {
    tiermq_accepted_fn *on_accepted; /* may be NULL: the broker has taken it (durable tiers: after fsync) */
    tiermq_chunk_fn *on_chunk;       /* may be NULL */
    tiermq_answer_fn *on_answer;     /* once for each job, whatever happens */
    void *context;
};

/* Opens a client; connects in the background. Errors: -EINVAL, -ENOMEM. */
TIERMQ_API TIERMQ_CHECK int tiermq_connect(const struct tiermq_options *options, struct tiermq **ret_client);
/* Forgets what is pending (durable jobs live on in the broker) and closes; not from a callback. NULL is accepted. */
TIERMQ_API void tiermq_close(struct tiermq **client);
/* Why the last call failed, in words; "" if none did. Valid until the next call. */
TIERMQ_API const char *tiermq_last_error(const struct tiermq *client);
/* What keeps a broker from being reached, in words; "" when all are. Valid until the next call. */
TIERMQ_API const char *tiermq_connection_error(const struct tiermq *client);
/*
 * While jobs wait to be submitted again: why the one that was refused last was, its code and its words; when that one has gone on,
 * the code of the one that is submitted again soonest; "" when none waits.
 * Gives: *ret_retry_after_ms, in how long that one is submitted again, where there is one; may be NULL. Valid until the next call.
 */
TIERMQ_API const char *tiermq_refusal(const struct tiermq *client, int64_t *ret_retry_after_ms);

/* ------------------------------------------------------------------------------------ blocking, one job at a time */

/*
 * Hands a job in and returns when the broker has accepted it (durable tiers: after its fsync).
 * Gives: *ret_id, to wait for it and cancel it by, also elsewhere: an earlier job's that has the same idempotency key.
 * Errors: -ETIMEDOUT no word within timeout_ms (it may still be accepted: submit again under the same id);
 * -EINVAL the job is malformed; -ENOBUFS too much pending; -EPERM refused for good, -EAGAIN refused for now, and longer than
 * timeout_ms or its deadline leaves time for (tiermq_last_error() says why, ret_retry_after_ms when to try again; may be NULL).
 */
TIERMQ_API TIERMQ_CHECK int tiermq_submit(struct tiermq *client, const struct tiermq_job *job, int64_t timeout_ms,
                                          tiermq_id *ret_id, int64_t *ret_retry_after_ms);
/*
 * Waits for the answer of a job of this or an earlier process; when it is concluded its result is collected.
 * Gives: *ret_answer, to be released with tiermq_answer_free(). Errors: -ETIMEDOUT still pending; -EINVAL the id is all zero.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_wait(struct tiermq *client, const tiermq_id *id, int64_t timeout_ms,
                                        struct tiermq_answer **ret_answer);
/*
 * Submit and wait. A job without a deadline gets timeout_ms as its deadline, so that it does not run past its use.
 * Errors: as both; after -ETIMEDOUT its cancellation has been asked for, unless an earlier job with its idempotency key is meant.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_call(struct tiermq *client, const struct tiermq_job *job, int64_t timeout_ms,
                                        struct tiermq_answer **ret_answer);
/* An id that no broker knows has the state "unknown". Gives: *ret_status, to be released with tiermq_status_free(). Errors: -ETIMEDOUT. */
TIERMQ_API TIERMQ_CHECK int tiermq_get_status(struct tiermq *client, const tiermq_id *id, int64_t timeout_ms,
                                              struct tiermq_status **ret_status);
/*
 * Asks for cancellation in the next turn; the outcome comes as the job's answer. A job of this client is found by either of its
 * ids (tiermq_answer); under a shared idempotency key it is one job, and cancelled for all. Errors: -ENOBUFS, -ENOMEM.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_cancel(struct tiermq *client, const tiermq_id *id);
TIERMQ_API void tiermq_answer_free(struct tiermq_answer **answer);
TIERMQ_API void tiermq_status_free(struct tiermq_status **status);

/* ------------------------------------------------------------------------------------------------- the cache */

/*
 * Which of the tenant's entries: those that fit all that is set. With nothing set it is refused; `all` means every one.
 * Texts are UTF-8, of 8192 bytes at most.
 */
struct tiermq_selector {
    const char *key;             /* one entry, 32 hexadecimal digits: an answer's near_key */
    const char *scope;           /* likewise, as answers of the admin interface show it */
    const char *cache_namespace; /* NULL: any; "": those without one */
    const char *tag, *document;  /* one of the entry's */
    const char *route;           /* as it was asked for */
    const char *model;           /* that answered */
    const char *template_version;
    int64_t older_than_ms;       /* filled longer ago; 0: any age */
    const char *text_prefix;     /* of the question */
    const char *near_text;       /* everything near this text … */
    double near_min;             /* … at least so near, 0.1 to 1; 0: 0.8 */
    bool all;                    /* with nothing else set */
};

/* `result` is 0, or a negative errno with its words in `error`; see tiermq_invalidate(). */
typedef void tiermq_invalidated_fn(void *context, int result, const char *error);

/*
 * Invalidates entries of the client's tenant at every broker of the client: returns when each has recorded it, so that no worker
 * of theirs serves them to any job that is submitted from now on; answers of jobs that are under way are not kept under what was
 * invalidated. `reason` is for the log, at most 256 bytes; may be NULL.
 *     r = tiermq_invalidate(client, &(struct tiermq_selector){.document = "price-list"}, "new prices", 5000);
 * Errors: -EINVAL the selector or reason is malformed; -EPERM a broker refused it (tiermq_last_error() says why);
 * -ETIMEDOUT not every broker has confirmed: do it again; -ENOBUFS, -ENOMEM. A tenant may ask for 200 at once, and 10 a second in the
 * long run; beyond, a call waits for its turn within timeout_ms.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_invalidate(struct tiermq *client, const struct tiermq_selector *selector, const char *reason,
                                              int64_t timeout_ms);
/*
 * The same from an event loop. Repeated until every broker has answered, however long that takes (one that puts it off has not); then `on_done`, which may be
 * NULL, is called once, within tiermq_dispatch(). Errors: -EINVAL, -ENOBUFS (more than 1000 wait), -ENOMEM.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_invalidate_async(struct tiermq *client, const struct tiermq_selector *selector,
                                                    const char *reason, tiermq_invalidated_fn *on_done, void *context);

/* ---------------------------------------------------------------------------------------------------- feedback */

/* What a user says of the answer of a job. */
struct tiermq_feedback {
    double score;                /* 0 (wrong) to 1 (right) */
    const char *comment;         /* for whoever reads the broker's log; UTF-8, 512 bytes at most; NULL: none */
    /*
     * Of a near hit, as its answer has it: below 0.5 its entry is invalidated, too, at every broker, and is evidence once a minute
     * against hits of its kind. That is told to the tenant's broker, not answered, and what is lost on the way is lost.
     */
    const char *near_key;        /* NULL or "": it was none, or that is not known any more */
    const char *embedder;
    double near_score;
    const char *tier;            /* of the job; NULL: "standard" */
};

/* `result` is 0, or a negative errno with its words in `error`; see tiermq_give_feedback(). */
typedef void tiermq_feedback_fn(void *context, int result, const char *error);

/*
 * Says how good the answer of a job of the client's tenant was, whoever submitted it. `id` is the job's as brokers know it: the answer's
 * known_as. It counts for the model, route, tier, task and cache decision that the answer came from, once: the same again is taken
 * and not counted. A broker remembers a job for broker.dedup_window; over a restart on durable tiers alone.
 *     r = tiermq_give_feedback(client, &answer->known_as, &(struct tiermq_feedback){.score = 0.8, .comment = "long"}, 5000);
 * Errors: -EINVAL it is malformed; -ENOENT no broker knows such a job of this tenant, or none any more; -EPERM a broker refused it: the job is not
 * concluded, has no answer, or was given another score before (tiermq_last_error() says which); -EAGAIN more than 200 of the tenant at once, or
 * 10 a second in the long run: try it again later; -ETIMEDOUT no broker has answered: do it again; -ENOBUFS (more than 1000 wait), -ENOMEM.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_give_feedback(struct tiermq *client, const tiermq_id *id, const struct tiermq_feedback *feedback,
                                                 int64_t timeout_ms);
/*
 * The same from an event loop. Repeated until a broker has answered, however long that takes; then `on_done`, which may be NULL, is called
 * once, within tiermq_dispatch(). Errors: -EINVAL, -ENOBUFS, -ENOMEM.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_give_feedback_async(struct tiermq *client, const tiermq_id *id,
                                                       const struct tiermq_feedback *feedback, tiermq_feedback_fn *on_done,
                                                       void *context);

/* --------------------------------------------------------------------------------------- from an event loop */

/* Hands a job in and returns at once; callbacks run inside tiermq_dispatch(). Errors: -EINVAL, -ENOBUFS, -ENOMEM. */
TIERMQ_API TIERMQ_CHECK int tiermq_submit_async(struct tiermq *client, const struct tiermq_job *job,
                                                const struct tiermq_callbacks *callbacks, tiermq_id *ret_id);
/* The answer of a job submitted earlier, possibly by another process. */
TIERMQ_API TIERMQ_CHECK int tiermq_wait_async(struct tiermq *client, const tiermq_id *id,
                                              const struct tiermq_callbacks *callbacks);
/*
 * No chunks of this stream until it is resumed; also from its on_chunk. Other jobs go on. What is under way is kept here, 64 chunks or so;
 * beyond that the broker, its worker and at last the provider wait, which may give up a connection that is not read; no longer than half of
 * what the provider's timeout leaves the call: then the answer is read to its end, and chunks may be missing. The job's deadline goes
 * on, and cancellation works. An answer that comes meanwhile is given once the chunks before it are read; any other outcome at once, and they
 * are dropped. When the connection to the broker breaks, chunks that had not come may be missing: the stream then ends, not `last`.
 * `id` is either one of the job's (tiermq_answer). Errors: -EINVAL it is all zero; -ENOENT no such stream is waited for here.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_stream_pause(struct tiermq *client, const tiermq_id *id);
/* The chunks come with the next tiermq_dispatch(). Errors: as above. */
TIERMQ_API TIERMQ_CHECK int tiermq_stream_resume(struct tiermq *client, const tiermq_id *id);
/* Readable when tiermq_dispatch() has something to do. */
TIERMQ_API int tiermq_fd(const struct tiermq *client);
/* Milliseconds until tiermq_dispatch() must be called even if the fd stays quiet; -1: no need. */
TIERMQ_API int tiermq_timeout_ms(const struct tiermq *client);
/* Sends, receives, runs callbacks; waits at most timeout_ms for something to happen (0: does not wait). */
TIERMQ_API TIERMQ_CHECK int tiermq_dispatch(struct tiermq *client, int timeout_ms);
/* Jobs submitted or waited for without an answer. */
TIERMQ_API size_t tiermq_pending(const struct tiermq *client);
/* True when at least one broker has greeted us. */
TIERMQ_API bool tiermq_is_connected(const struct tiermq *client);

/*
 * The text that a chunk adds to the first choice, or to a response, "" if it adds none; what is no event of a stream is skipped.
 * Gives: *ret_text, to be released with free(). Errors: -ENOMEM.
 */
TIERMQ_API TIERMQ_CHECK int tiermq_chunk_text(const void *data, size_t bytes, char **ret_text);

TIERMQ_API void tiermq_id_format(const tiermq_id *id, char ret_text[TIERMQ_ID_TEXT]);
TIERMQ_API TIERMQ_CHECK int tiermq_id_parse(const char *text, tiermq_id *ret_id);

#ifdef __cplusplus
}
#endif
