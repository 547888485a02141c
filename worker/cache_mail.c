#include "worker/cache_mail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/blob.h"
#include "worker/message_copy.h"

/* A message of its own, unpacked. */
struct item {
    struct list_link link;
    ProtobufCMessage *message;
    struct blob *payload; /* of a job */
};

static void release(struct list *list, struct item *item)
{
    list_remove(list, &item->link);
    protobuf_c_message_free_unpacked(item->message, NULL);
    blob_unref(&item->payload);
    free(item);
}

void cache_mail_init(struct cache_mail *mail)
{
    *mail = (struct cache_mail){.sequence = 0};
    list_init(&mail->applied);
    list_init(&mail->answers);
    list_init(&mail->evidence);
    list_init(&mail->denials);
    list_init(&mail->jobs);
}

void cache_mail_finish(struct cache_mail *mail)
{
    struct list *lists[] = {&mail->applied, &mail->answers, &mail->evidence, &mail->denials, &mail->jobs};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        while (!list_is_empty(lists[i])) {
            release(lists[i], CONTAINER_OF(list_first(lists[i]), struct item, link));
        }
    }
}

bool cache_mail_is_empty(const struct cache_mail *mail)
{
    return list_is_empty(&mail->applied) && list_is_empty(&mail->answers) &&
           list_is_empty(&mail->evidence) && list_is_empty(&mail->denials) && list_is_empty(&mail->jobs);
}

static int add(struct list *list, const ProtobufCMessage *message, struct blob *payload)
{
    struct item *item = calloc(1, sizeof(*item));
    ProtobufCMessage *copy = item == NULL ? NULL : message_copy(message);
    if (copy == NULL) {
        free(item);
        return -ENOMEM;
    }
    item->message = copy;
    item->payload = payload == NULL ? NULL : blob_ref(payload);
    list_append(list, &item->link);
    return 0;
}

int cache_mail_applied(struct cache_mail *mail, const uint8_t epoch[CACHE_MAIL_EPOCH_BYTES],
                       uint64_t sequence, uint64_t entries, uint64_t bytes)
{
    memcpy(mail->epoch, epoch, CACHE_MAIL_EPOCH_BYTES);
    mail->sequence = sequence;
    Wire__CacheApplied applied = WIRE__CACHE_APPLIED__INIT;
    applied.sequence = sequence;
    applied.entries = entries;
    applied.bytes = bytes;
    return add(&mail->applied, &applied.base, NULL);
}

int cache_mail_answer(struct cache_mail *mail, uint64_t number, const char *text, const char *error)
{
    Wire__WorkerAnswer answer = WIRE__WORKER_ANSWER__INIT;
    const bool is_too_long = strlen(text) > CACHE_MAIL_BYTES_MAX;
    answer.number = number;
    answer.text = is_too_long ? "" : (char *)text;
    answer.error = is_too_long ? "the answer has more than 1 MiB: ask for fewer entries (limit)" : (char *)error;
    return add(&mail->answers, &answer.base, NULL);
}

static int add_bounded(struct cache_mail *mail, struct list *list, const ProtobufCMessage *message,
                       struct blob *payload)
{
    int r = list->length < CACHE_MAIL_MAX ? add(list, message, payload) : -ENOBUFS;
    mail->dropped += r < 0 ? 1 : 0;
    return r;
}

int cache_mail_evidence(struct cache_mail *mail, const Wire__CacheEvidence *evidence)
{
    return add_bounded(mail, &mail->evidence, &evidence->base, NULL);
}

int cache_mail_denial(struct cache_mail *mail, const uint8_t key[CACHE_MAIL_KEY_BYTES])
{
    Wire__CacheDenial denial = WIRE__CACHE_DENIAL__INIT;
    denial.key = (ProtobufCBinaryData){CACHE_MAIL_KEY_BYTES, (uint8_t *)key};
    return add_bounded(mail, &mail->denials, &denial.base, NULL);
}

int cache_mail_job(struct cache_mail *mail, const char *tenant, const Wire__Submit *submit,
                   Wire__JobNeeds *needs, struct blob *payload)
{
    Wire__WorkerSubmit job = WIRE__WORKER_SUBMIT__INIT;
    job.tenant = (char *)tenant;
    job.submit = (Wire__Submit *)submit;
    job.needs = needs;
    return add_bounded(mail, &mail->jobs, &job.base, payload);
}

void cache_mail_introduce(struct cache_mail *mail, Wire__WorkerHello *hello)
{
    if (mail->sequence > 0) {
        hello->cache_epoch = (ProtobufCBinaryData){CACHE_MAIL_EPOCH_BYTES, mail->epoch};
        hello->cache_sequence = mail->sequence;
    }
}

/* As long as there is room: takes from *left. Returns how many. */
static size_t write(const struct list *list, ProtobufCMessage **messages, struct blob **payloads, size_t *left)
{
    size_t length = 0;
    list_for_each (list, link) {
        const struct item *item = CONTAINER_OF(link, struct item, link);
        if (length == CACHE_MAIL_A_MESSAGE || *left == 0) {
            break;
        }
        const size_t bytes = protobuf_c_message_get_packed_size(item->message);
        *left -= bytes < *left ? bytes : *left;
        if (payloads != NULL) {
            payloads[length] = item->payload;
        }
        messages[length++] = item->message;
    }
    return length;
}

void cache_mail_write(struct cache_mail *mail, struct cache_letter *letter, Wire__WorkerMessage *message)
{
    size_t left = CACHE_MAIL_BYTES_MAX;
    letter->applied_length = write(&mail->applied, (ProtobufCMessage **)letter->applied, NULL, &left);
    letter->answers_length = write(&mail->answers, (ProtobufCMessage **)letter->answers, NULL, &left);
    letter->evidence_length = write(&mail->evidence, (ProtobufCMessage **)letter->evidence, NULL, &left);
    letter->denials_length = write(&mail->denials, (ProtobufCMessage **)letter->denials, NULL, &left);
    letter->jobs_length = write(&mail->jobs, (ProtobufCMessage **)letter->jobs, letter->payloads, &left);
    message->cache_sequence = mail->sequence;
    message->cache_applied = letter->applied;
    message->n_cache_applied = letter->applied_length;
    message->answer = letter->answers;
    message->n_answer = letter->answers_length;
    message->evidence = letter->evidence;
    message->n_evidence = letter->evidence_length;
    message->denial = letter->denials;
    message->n_denial = letter->denials_length;
    message->submit = letter->jobs;
    message->n_submit = letter->jobs_length;
}

static void drop(struct list *list, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        release(list, CONTAINER_OF(list_first(list), struct item, link));
    }
}

void cache_mail_sent(struct cache_mail *mail, const struct cache_letter *letter)
{
    drop(&mail->applied, letter->applied_length);
    drop(&mail->answers, letter->answers_length);
    drop(&mail->evidence, letter->evidence_length);
    drop(&mail->denials, letter->denials_length);
    drop(&mail->jobs, letter->jobs_length);
}
