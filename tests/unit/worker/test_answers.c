#include <criterion/criterion.h>
#include <stdlib.h>

#include "worker/answers.h"

static void add(struct answers *answers, uint8_t number, int64_t made_ms)
{
    struct answer *answer = calloc(1, sizeof(*answer));
    answer->job_id.bytes[0] = number;
    answer->attempt = 1;
    answer->outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
    answer->calls_length = 1;
    answer->made_ms = made_ms;
    cr_assert_eq(blob_create("12345", 5, &answer->payload), 0);
    answers_add(answers, &answer);
}

static uint8_t send_one(struct answers *answers)
{
    struct answer *answer = answers_next_unsent(answers);
    cr_assert_not_null(answer);
    answers_sent(answers, answer);
    return answer->job_id.bytes[0];
}

Test(answers, are_kept_until_they_are_concluded)
{
    struct answers answers;
    const struct id first = {.bytes = {1}};
    answers_init(&answers);
    add(&answers, 1, 10);
    add(&answers, 2, 20);
    cr_assert_eq(send_one(&answers), 1);
    cr_assert_eq(answers.bytes, 10);
    cr_assert_not(answers_conclude(&answers, &first, 2), "another attempt's number");
    cr_assert(answers_conclude(&answers, &first, 1));
    cr_assert_not(answers_conclude(&answers, &first, 1));
    cr_assert_eq(answers.bytes, 5);
    answers_finish(&answers);
    cr_assert_eq(answers_length(&answers), 0);
}

Test(answers, all_are_sent_again_in_their_order)
{
    struct answers answers;
    answers_init(&answers);
    for (uint8_t i = 1; i <= 4; i++) {
        add(&answers, i, i);
    }
    cr_assert_eq(send_one(&answers), 1);
    cr_assert_eq(send_one(&answers), 2);
    answers_unsend_all(&answers);
    for (uint8_t i = 1; i <= 4; i++) {
        cr_assert_eq(send_one(&answers), i);
    }
    cr_assert_null(answers_next_unsent(&answers));
    answers_finish(&answers);
}

Test(answers, the_old_are_dropped)
{
    struct answers answers;
    answers_init(&answers);
    add(&answers, 1, 10);
    add(&answers, 2, 20);
    add(&answers, 3, 30);
    cr_assert_eq(send_one(&answers), 1);
    cr_assert_eq(answers_drop_older(&answers, 30), 2);
    cr_assert_eq(answers_length(&answers), 1);
    cr_assert_eq(answers.bytes, 5);
    answers_finish(&answers);
}

Test(answers, an_answer_serves_the_next_attempt_too)
{
    struct answers answers;
    const struct id first = {.bytes = {1}};
    const struct id third = {.bytes = {3}};
    answers_init(&answers);
    add(&answers, 1, 10);
    add(&answers, 2, 20);
    cr_assert_eq(send_one(&answers), 1);
    cr_assert(answers_renew(&answers, &first, 4));
    cr_assert_not(answers_renew(&answers, &third, 2), "there is none");
    struct answer *answer = answers_next_unsent(&answers);
    cr_assert_eq(answer->job_id.bytes[0], 1);
    cr_assert_eq(answer->attempt, 4);
    cr_assert_eq(answer->calls_length, 1);
    cr_assert(answer->calls_are_old, "whoever counts calls may have heard of them");
    cr_assert_eq(answer->made_by, 1, "what it used is charged under the attempt that used it");
    cr_assert(answers_renew(&answers, &first, 5));
    cr_assert_eq(answer->made_by, 1);
    cr_assert(answers_renew(&answers, &first, 4));
    cr_assert_not(answers_conclude(&answers, &first, 1), "that attempt is no more");
    cr_assert(answers_conclude(&answers, &first, 4));
    answers_finish(&answers);
}

Test(answers, a_failure_serves_no_other_attempt)
{
    struct answers answers;
    const struct id first = {.bytes = {1}};
    answers_init(&answers);
    add(&answers, 1, 10);
    answers_next_unsent(&answers)->outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE;
    cr_assert_not(answers_renew(&answers, &first, 2));
    answers_finish(&answers);
}
