#include "worker/answers.h"

#include <stdlib.h>
#include <string.h>

void answers_init(struct answers *answers)
{
    list_init(&answers->unsent);
    list_init(&answers->sent);
    answers->bytes = 0;
}

static uint64_t answer_bytes(const struct answer *answer)
{
    return answer->payload == NULL ? 0 : blob_bytes(answer->payload);
}

void answer_destroy(struct answer **answer)
{
    struct answer *old = TAKE(*answer);
    if (old == NULL) {
        return;
    }
    blob_unref(&old->payload);
    free(old->error_text);
    for (size_t i = 0; i < old->calls_length; i++) {
        free(old->calls[i].provider);
        free(old->calls[i].model);
    }
    free(old->tenant);
    free(old->tier);
    if (old->has_usage) {
        free(old->usage.provider);
        free(old->usage.model);
    }
    free(old);
}

static struct answer *first_of(const struct list *list)
{
    struct list_link *link = list_first(list);
    return link == NULL ? NULL : CONTAINER_OF(link, struct answer, link);
}

static void drop(struct answers *answers, struct list *list, struct answer *answer)
{
    list_remove(list, &answer->link);
    answers->bytes -= answer_bytes(answer);
    answer_destroy(&answer);
}

void answers_finish(struct answers *answers)
{
    struct list *lists[] = {&answers->unsent, &answers->sent};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        while (!list_is_empty(lists[i])) {
            drop(answers, lists[i], first_of(lists[i]));
        }
    }
}

void answers_add(struct answers *answers, struct answer **answer)
{
    struct answer *added = TAKE(*answer);
    answers->bytes += answer_bytes(added);
    list_append(&answers->unsent, &added->link);
}

struct answer *answers_next_unsent(struct answers *answers)
{
    return first_of(&answers->unsent);
}

void answers_sent(struct answers *answers, struct answer *answer)
{
    list_remove(&answers->unsent, &answer->link);
    list_append(&answers->sent, &answer->link);
}

bool answers_conclude(struct answers *answers, const struct id *job_id, uint32_t attempt)
{
    struct list *lists[] = {&answers->sent, &answers->unsent};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        list_for_each (lists[i], link) {
            struct answer *answer = CONTAINER_OF(link, struct answer, link);
            if (answer->attempt == attempt && id_equal(&answer->job_id, job_id)) {
                drop(answers, lists[i], answer);
                return true;
            }
        }
    }
    return false;
}

/* What was sent is older than what was not: it goes to the front, in its order. */
void answers_unsend_all(struct answers *answers)
{
    while (!list_is_empty(&answers->sent)) {
        struct list_link *last = answers->sent.head.previous;
        list_remove(&answers->sent, last);
        list_prepend(&answers->unsent, last);
    }
}

static struct answer *find_answered(const struct list *list, const struct id *job_id)
{
    list_for_each (list, link) {
        struct answer *answer = CONTAINER_OF(link, struct answer, link);
        if (answer->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED &&
            id_equal(&answer->job_id, job_id)) {
            return answer;
        }
    }
    return NULL;
}

bool answers_renew(struct answers *answers, const struct id *job_id, uint32_t attempt)
{
    struct answer *answer = find_answered(&answers->sent, job_id);
    if (answer != NULL) {
        list_remove(&answers->sent, &answer->link);
        list_prepend(&answers->unsent, &answer->link); /* it is the oldest there */
    } else {
        answer = find_answered(&answers->unsent, job_id);
    }
    if (answer == NULL) {
        return false;
    }
    answer->made_by = answer->made_by == 0 ? answer->attempt : answer->made_by;
    answer->attempt = attempt;
    answer->calls_are_old = true;
    return true;
}

void answers_fail(struct answers *answers, struct answer *answer, Wire__AttemptOutcome outcome,
                  const char *code, const char *text)
{
    answers->bytes -= answer_bytes(answer);
    blob_unref(&answer->payload);
    answer->outcome = outcome;
    answer->error_code = code;
    free(answer->error_text);
    answer->error_text = strdup(text);
}

size_t answers_drop_older(struct answers *answers, int64_t than_ms)
{
    struct list *lists[] = {&answers->sent, &answers->unsent};
    size_t dropped = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        struct answer *oldest = first_of(lists[i]);
        while (oldest != NULL && oldest->made_ms < than_ms) {
            drop(answers, lists[i], oldest);
            dropped++;
            oldest = first_of(lists[i]);
        }
    }
    return dropped;
}

size_t answers_length(const struct answers *answers)
{
    return answers->unsent.length + answers->sent.length;
}
