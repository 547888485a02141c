/*
 * cache_mail: what the cache has to say to a broker: how far it has followed its invalidations, answers to operators' questions,
 * evidence, entries that were wrong for another text, and jobs that it makes.
 *
 * Kept until the link has sent it, in order of kind. Bounded: evidence, denials and jobs beyond CACHE_MAIL_MAX are dropped and
 * counted, since each is worth only what it saves. Belongs to the loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/list.h"
#include "proto/wire.pb-c.h"

struct blob;

enum { CACHE_MAIL_MAX = 1024, CACHE_MAIL_EPOCH_BYTES = 16, CACHE_MAIL_KEY_BYTES = 16, CACHE_MAIL_A_MESSAGE = 64, CACHE_MAIL_BYTES_MAX = 1 << 20 };

struct cache_mail {
    uint8_t epoch[CACHE_MAIL_EPOCH_BYTES]; /* of the broker's invalidations */
    uint64_t sequence;                     /* all up to this one are applied; 0: none was told */
    struct list applied, answers, evidence, denials, jobs;
    uint64_t dropped;
};

/* Some of it, in a message that is being made. */
struct cache_letter {
    Wire__CacheApplied *applied[CACHE_MAIL_A_MESSAGE];
    Wire__WorkerAnswer *answers[CACHE_MAIL_A_MESSAGE];
    Wire__CacheEvidence *evidence[CACHE_MAIL_A_MESSAGE];
    Wire__CacheDenial *denials[CACHE_MAIL_A_MESSAGE];
    Wire__WorkerSubmit *jobs[CACHE_MAIL_A_MESSAGE];
    struct blob *payloads[CACHE_MAIL_A_MESSAGE]; /* of the jobs, in their order */
    size_t applied_length, answers_length, evidence_length, denials_length, jobs_length;
};

void cache_mail_init(struct cache_mail *mail);
void cache_mail_finish(struct cache_mail *mail);
bool cache_mail_is_empty(const struct cache_mail *mail);

/* All of these copy what they are given. Errors: -ENOMEM; -ENOBUFS it is dropped. */
MUST_USE int cache_mail_applied(struct cache_mail *mail, const uint8_t epoch[CACHE_MAIL_EPOCH_BYTES],
                                uint64_t sequence, uint64_t entries, uint64_t bytes);
/* `error` empty: `text` is JSON. One of more than CACHE_MAIL_BYTES_MAX goes out as an error that says so, since no message
 * would carry it. */
MUST_USE int cache_mail_answer(struct cache_mail *mail, uint64_t number, const char *text, const char *error);
MUST_USE int cache_mail_evidence(struct cache_mail *mail, const Wire__CacheEvidence *evidence);
/* An entry that the broker's other workers are to hear of. */
MUST_USE int cache_mail_denial(struct cache_mail *mail, const uint8_t key[CACHE_MAIL_KEY_BYTES]);
/* References the payload. */
MUST_USE int cache_mail_job(struct cache_mail *mail, const char *tenant, const Wire__Submit *submit,
                            Wire__JobNeeds *needs, struct blob *payload);

/* Names the position in a hello. */
void cache_mail_introduce(struct cache_mail *mail, Wire__WorkerHello *hello);
/* Puts as much as goes into one message, CACHE_MAIL_BYTES_MAX and a little more: results travel in it too. Valid until it
 * was sent. */
void cache_mail_write(struct cache_mail *mail, struct cache_letter *letter, Wire__WorkerMessage *message);
/* What was written went out. */
void cache_mail_sent(struct cache_mail *mail, const struct cache_letter *letter);
