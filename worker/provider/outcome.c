#include "worker/provider/outcome.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define EXPIRED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED

void outcome_set(struct outcome *outcome, Wire__AttemptOutcome kind, const char *code,
                 const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(outcome->text, sizeof(outcome->text), format, arguments);
    va_end(arguments);
    outcome->kind = kind;
    outcome->code = code;
    outcome->retry_after_ms = 0;
}

static const char *transport_code(CURLcode code)
{
    if (code == CURLE_OPERATION_TIMEDOUT) {
        return "timeout";
    }
    if (code == CURLE_PARTIAL_FILE || code == CURLE_WRITE_ERROR ||
        code == CURLE_BAD_CONTENT_ENCODING) {
        return "truncated";
    }
    if (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR) {
        return "reset";
    }
    return "connect";
}

void outcome_from_transport(CURLcode code, const char *detail, bool is_past_deadline,
                            struct outcome *ret_outcome)
{
    if (code == CURLE_OPERATION_TIMEDOUT && is_past_deadline) {
        outcome_set(ret_outcome, EXPIRED, "deadline",
                    "the deadline passed during the provider call");
        return;
    }
    outcome_set(ret_outcome, UNAVAILABLE, transport_code(code), "%s",
                detail != NULL && detail[0] != '\0' ? detail : curl_easy_strerror(code));
}

/* ---- what the error says in words ---- */

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

/*
 * "Please try again in 1.5s", "… in 120ms", "… in 6m0s": the wait, as OpenAI writes it. 0: nothing
 * of the kind.
 */
static int64_t wait_in_words(const char *message)
{
    static const char phrase[] = "try again in ";
    const char *at = strcasestr(message, phrase);
    double sum_ms = 0;
    if (at == NULL) {
        return 0;
    }
    at += sizeof(phrase) - 1;
    while (isdigit((unsigned char)*at)) {
        char *end;
        const double number = strtod(at, &end);
        if (strncmp(end, "ms", 2) == 0) {
            sum_ms += number;
            end += 2;
        } else if (*end == 's' || *end == 'm' || *end == 'h') {
            sum_ms += number * (*end == 's' ? 1000.0 : *end == 'm' ? 60e3 : 3600e3);
            end++;
        } else {
            break;
        }
        at = end;
    }
    return sum_ms > OUTCOME_RETRY_AFTER_MS_MAX ? OUTCOME_RETRY_AFTER_MS_MAX
                                               : (int64_t)(sum_ms + 0.5);
}

/* Some servers put the wait, in seconds, into the body only. */
static int64_t wait_in_member(const json_t *error)
{
    const json_t *value = json_object_get(error, "retry_after");
    if (!json_is_number(value)) {
        return 0;
    }
    const double ms = json_number_value(value) * 1000.0;
    if (!(ms > 0)) {
        return 0;
    }
    return ms > OUTCOME_RETRY_AFTER_MS_MAX ? OUTCOME_RETRY_AFTER_MS_MAX : (int64_t)(ms + 0.5);
}

static int64_t wait_in_error(const json_t *error, const char *message)
{
    const int64_t wait_ms = wait_in_member(error);
    return wait_ms > 0 ? wait_ms : wait_in_words(message);
}

static const char *error_message(const json_t *error)
{
    return json_is_string(error) ? json_string_value(error) : text_of(error, "message");
}

static bool says_rate_limit(const json_t *error)
{
    const json_t *code = json_object_get(error, "code");
    return strncmp(text_of(error, "type"), "rate_limit", 10) == 0 ||
           strncmp(text_of(error, "code"), "rate_limit", 10) == 0 ||
           (json_is_integer(code) && json_integer_value(code) == 429);
}

void outcome_from_error(const json_t *error, struct outcome *ret_outcome)
{
    const char *message = error_message(error);
    const char *words = message[0] == '\0' ? "no message" : message;
    if (says_rate_limit(error)) {
        outcome_set(ret_outcome, RATE_LIMITED, "rate_limited", "%s", words);
    } else {
        outcome_set(ret_outcome, UNAVAILABLE, "provider_error", "the answer carries an error: %s",
                    words);
    }
    ret_outcome->retry_after_ms = wait_in_error(error, message);
}

/* ---- by status ---- */

static void judge_status(long status, const char *message, struct outcome *outcome)
{
    const char *words = message[0] == '\0' ? "no message" : message;
    if (status == 429 || status == 498) {
        outcome_set(outcome, RATE_LIMITED, "rate_limited", "status %ld: %s", status, words);
    } else if (status == 401 || status == 402 || status == 403) {
        outcome_set(outcome, UNAVAILABLE, "credentials", "status %ld: %s", status, words);
    } else if (status >= 400 && status < 500 && status != 408 && status != 409 && status != 425) {
        outcome_set(outcome, REJECTED, "rejected", "status %ld: %s", status, words);
    } else {
        outcome_set(outcome, UNAVAILABLE, "unavailable", "status %ld: %s", status, words);
    }
}

static bool is_answer(const json_t *body, enum operation operation)
{
    const char *member = operation == OPERATION_EMBEDDINGS ? "data" : "choices";
    return json_array_size(json_object_get(body, member)) > 0;
}

static void judge_success(enum operation operation, const json_t *body, struct outcome *outcome)
{
    const json_t *error = json_object_get(body, "error");
    if (body == NULL || !json_is_object(body)) {
        outcome_set(outcome, UNAVAILABLE, "garbage", "status 200, but the body is no JSON object");
    } else if (error != NULL && !json_is_null(error)) {
        outcome_from_error(error, outcome);
    } else if (!is_answer(body, operation)) {
        outcome_set(outcome, UNAVAILABLE, "empty", "status 200, but the body holds no answer");
    } else {
        outcome_set(outcome, ANSWERED, "", "%s", "");
    }
}

void outcome_from_reply(long status, enum operation operation, const json_t *body,
                        int64_t retry_after_ms, struct outcome *ret_outcome)
{
    if (status >= 200 && status < 300) {
        judge_success(operation, body, ret_outcome);
    } else {
        const json_t *error = json_object_get(body, "error");
        const char *message = error == NULL ? text_of(body, "message") : error_message(error);
        judge_status(status, message, ret_outcome);
        ret_outcome->retry_after_ms = wait_in_error(error, message);
    }
    if (retry_after_ms > 0 && ret_outcome->kind != ANSWERED) {
        ret_outcome->retry_after_ms = retry_after_ms > OUTCOME_RETRY_AFTER_MS_MAX
                                          ? OUTCOME_RETRY_AFTER_MS_MAX
                                          : retry_after_ms;
    }
}
