/* What the cache says to a broker: no message that would be refused whole, with the results in it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "worker/cache_mail.h"

static char *text_of(size_t bytes)
{
    char *text = malloc(bytes + 1);
    cr_assert_not_null(text);
    memset(text, 'x', bytes);
    text[bytes] = '\0';
    return text;
}

Test(cache_mail, answers_go_out_in_as_many_messages_as_they_need)
{
    enum { ANSWERS = 20, BYTES = CACHE_MAIL_BYTES_MAX / 4 };
    struct cache_mail mail;
    cache_mail_init(&mail);
    char *text = text_of(BYTES);
    for (uint64_t i = 0; i < ANSWERS; i++) {
        cr_assert_eq(cache_mail_answer(&mail, i, text, ""), 0);
    }
    size_t answers = 0, messages = 0;
    while (!cache_mail_is_empty(&mail)) {
        struct cache_letter letter;
        Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
        cache_mail_write(&mail, &letter, &message);
        cr_assert_leq(wire__worker_message__get_packed_size(&message), CACHE_MAIL_BYTES_MAX + 2 * BYTES);
        cr_assert_eq(message.answer[0]->number, answers, "in their order");
        answers += message.n_answer;
        messages++;
        cache_mail_sent(&mail, &letter);
    }
    cr_assert_eq(answers, ANSWERS);
    cr_assert_gt(messages, 3);
    cache_mail_finish(&mail);
    free(text);
}

Test(cache_mail, answer_that_no_message_carries_says_so)
{
    struct cache_mail mail;
    struct cache_letter letter;
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    cache_mail_init(&mail);
    char *text = text_of(CACHE_MAIL_BYTES_MAX + 1);
    cr_assert_eq(cache_mail_answer(&mail, 7, text, ""), 0);
    cache_mail_write(&mail, &letter, &message);
    cr_assert_eq(message.n_answer, 1);
    cr_assert_str_eq(message.answer[0]->text, "");
    cr_assert(strstr(message.answer[0]->error, "fewer") != NULL, "%s", message.answer[0]->error);
    cache_mail_sent(&mail, &letter);
    cache_mail_finish(&mail);
    free(text);
}

Test(cache_mail, denials_go_out_once_and_are_bounded)
{
    const uint8_t key[CACHE_MAIL_KEY_BYTES] = {7};
    struct cache_mail mail;
    struct cache_letter letter;
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    cache_mail_init(&mail);
    cr_assert_eq(cache_mail_denial(&mail, key), 0);
    cr_assert_not(cache_mail_is_empty(&mail));
    cache_mail_write(&mail, &letter, &message);
    cr_assert_eq(message.n_denial, 1);
    cr_assert_eq(message.denial[0]->key.len, CACHE_MAIL_KEY_BYTES);
    cr_assert_arr_eq(message.denial[0]->key.data, key, CACHE_MAIL_KEY_BYTES);
    cache_mail_sent(&mail, &letter);
    cr_assert(cache_mail_is_empty(&mail));
    for (int i = 0; i < CACHE_MAIL_MAX; i++) {
        cr_assert_eq(cache_mail_denial(&mail, key), 0);
    }
    cr_assert_eq(cache_mail_denial(&mail, key), -ENOBUFS);
    cache_mail_finish(&mail);
}
