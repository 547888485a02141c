/*
 * Sources: platform.openai.com/docs/guides/error-codes; docs.anthropic.com/en/api/errors;
 * learn.microsoft.com, "Content filtering" of Azure OpenAI; cloud.google.com/apis/design/errors
 * (google.rpc.RetryInfo); console.groq.com/docs/errors; and replies that were seen
 * (tests/unit/worker/test_outcome.c).
 *
 * The words of an error are looked at before its status, since the statuses do not tell enough
 * apart: 429 is also "no money", and 400 is also "this content" and "no money".
 */
#include "worker/provider/outcome.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/provider/limits.h"
#include "worker/provider/member.h"

#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define EXPIRED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED
#define REFUSED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED

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
    static const struct {
        CURLcode code;
        const char *word;
    } words[] = {
        {CURLE_OPERATION_TIMEDOUT, "timeout"},
        {CURLE_PARTIAL_FILE, "truncated"},
        {CURLE_WRITE_ERROR, "truncated"},
        {CURLE_BAD_CONTENT_ENCODING, "truncated"},
        {CURLE_GOT_NOTHING, "reset"},
        {CURLE_RECV_ERROR, "reset"},
        {CURLE_SEND_ERROR, "reset"},
        {CURLE_HTTP2, "reset"},
        {CURLE_HTTP2_STREAM, "reset"},
        {CURLE_SSL_CONNECT_ERROR, "tls"},
        {CURLE_PEER_FAILED_VERIFICATION, "tls"},
        {CURLE_SSL_CERTPROBLEM, "tls"},
        {CURLE_SSL_CACERT_BADFILE, "tls"},
        {CURLE_SSL_CIPHER, "tls"},
        {CURLE_SSL_ISSUER_ERROR, "tls"},
        {CURLE_SSL_INVALIDCERTSTATUS, "tls"},
        {CURLE_WEIRD_SERVER_REPLY, "garbage"},
        {CURLE_UNSUPPORTED_PROTOCOL, "garbage"}, /* a reply that is no HTTP/1.0 or later */
    };
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (words[i].code == code) {
            return words[i].word;
        }
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

/* ---- when to come back ---- */

/* Bounded by limits_read_wait(), as all waits are: the bounds agree. */
static_assert((int)OUTCOME_RETRY_AFTER_MS_MAX == (int)LIMITS_WAIT_MS_MAX, "waits have one bound");

/*
 * "Please try again in 6m0s" (OpenAI), "Please retry in 36.4s" (Google), "Please retry after 22
 * seconds" (Azure). 0: nothing of the kind.
 */
static int64_t wait_in_words(const char *message)
{
    static const char *const phrases[] = {"try again in ", "retry in ", "retry after "};
    int64_t wait_ms = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(phrases); i++) {
        const char *at = strcasestr(message, phrases[i]);
        if (at != NULL && limits_read_duration(at + strlen(phrases[i]), &wait_ms)) {
            return wait_ms;
        }
    }
    return 0;
}

/* A number of seconds, or a text that is a wait. */
static int64_t wait_of_value(const json_t *value)
{
    int64_t wait_ms = 0;
    if (json_is_number(value) && json_number_value(value) > 0) {
        const double ms = json_number_value(value) * 1000.0;
        return ms > OUTCOME_RETRY_AFTER_MS_MAX ? OUTCOME_RETRY_AFTER_MS_MAX : (int64_t)(ms + 0.5);
    }
    if (json_is_string(value)) {
        (void)limits_read_wait(json_string_value(value), 0, &wait_ms);
    }
    return wait_ms;
}

/* Some servers put the wait into the body only: a member, or google.rpc.RetryInfo among details. */
static int64_t wait_in_members(const json_t *error)
{
    int64_t wait_ms = wait_of_value(json_object_get(error, "retry_after"));
    size_t i;
    json_t *detail;
    json_array_foreach (json_object_get(error, "details"), i, detail) {
        if (wait_ms == 0) {
            wait_ms = wait_of_value(json_object_get(detail, "retryDelay"));
        }
    }
    return wait_ms;
}

static int64_t wait_in_error(const json_t *error, const char *message)
{
    const int64_t wait_ms = wait_in_members(error);
    return wait_ms > 0 ? wait_ms : wait_in_words(message);
}

/* ---- what an error says ---- */

enum reason {
    REASON_UNKNOWN,  /* the status decides */
    REASON_RATE,     /* too many requests or tokens: it passes */
    REASON_CAPACITY, /* the provider has too little for all: it passes */
    REASON_ACCOUNT,  /* no money, no permission: an operator has to act */
    REASON_CONTENT,
    REASON_TOO_LARGE, /* larger than the limit itself: it never passes */
};

/* Words for machines, in `type`, `code`, `status` and the like. */
static const struct {
    const char *word;
    enum reason reason;
} words[] = {
    {"rate_limit_error", REASON_RATE},    /* Anthropic */
    {"rate_limit_exceeded", REASON_RATE}, /* OpenAI */
    {"rate_limited", REASON_RATE},
    {"RESOURCE_EXHAUSTED", REASON_RATE},    /* Google */
    {"slow_down", REASON_RATE},             /* OpenAI, with 503 */
    {"overloaded_error", REASON_CAPACITY},  /* Anthropic, 529 or in a stream */
    {"capacity_exceeded", REASON_CAPACITY}, /* Groq, 498 */
    {"insufficient_quota", REASON_ACCOUNT}, /* OpenAI, 429 */
    {"billing_hard_limit_reached", REASON_ACCOUNT},
    {"billing_not_active", REASON_ACCOUNT},
    {"credit_balance_exhausted", REASON_ACCOUNT},
    {"enforced_spend_limit_reached", REASON_ACCOUNT}, /* Anthropic, 429 of type rate_limit_error */
    {"billing_error", REASON_ACCOUNT},
    {"authentication_error", REASON_ACCOUNT},
    {"permission_error", REASON_ACCOUNT},
    {"API_KEY_INVALID", REASON_ACCOUNT},     /* Google, 400 */
    {"FAILED_PRECONDITION", REASON_ACCOUNT}, /* Google, 400: this place, or not without billing */
    {"invalid_api_key", REASON_ACCOUNT},
    {"content_filter", REASON_CONTENT},           /* Azure, 400 */
    {"content_policy_violation", REASON_CONTENT}, /* OpenAI, 400 */
    {"ResponsibleAIPolicyViolation", REASON_CONTENT},
    {"moderation_blocked", REASON_CONTENT},
    {"PROHIBITED_CONTENT", REASON_CONTENT}, /* Google */
};

/* Words for people, where there are no others. */
static const struct {
    const char *phrase;
    enum reason reason;
} phrases[] = {
    {"blocked by content filtering policy", REASON_CONTENT}, /* Anthropic, 400 */
    {"flagged as potentially violating our usage policy",
     REASON_CONTENT}, /* OpenAI, 400 invalid_prompt */
    {"rejected as a result of our safety system", REASON_CONTENT},
    {"content management policy", REASON_CONTENT},
    {"credit balance is too low", REASON_ACCOUNT},               /* Anthropic, 400 */
    {"reached your specified API usage limits", REASON_ACCOUNT}, /* Anthropic, 400 */
    {"Request too large for", REASON_TOO_LARGE},                 /* OpenAI and Groq, 429 */
};

static enum reason reason_of_word(const char *word)
{
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (strcmp(word, words[i].word) == 0) {
            return words[i].reason;
        }
    }
    return REASON_UNKNOWN;
}

static enum reason reason_of_phrase(const char *message)
{
    for (size_t i = 0; i < ARRAY_LENGTH(phrases); i++) {
        if (strcasestr(message, phrases[i].phrase) != NULL) {
            return phrases[i].reason;
        }
    }
    return REASON_UNKNOWN;
}

static const char *error_message(const json_t *error)
{
    return json_is_string(error) ? json_string_value(error) : member_text(error, "message");
}

/* google.rpc.ErrorInfo, among the details: a wrong key is INVALID_ARGUMENT without it. */
static enum reason reason_of_details(const json_t *details)
{
    enum reason most = REASON_UNKNOWN;
    size_t i;
    json_t *detail;
    json_array_foreach (details, i, detail) {
        const enum reason found = reason_of_word(member_text(detail, "reason"));
        most = found > most ? found : most;
    }
    return most;
}

/* The most telling of all its words: an account's limit is of type rate_limit_error too. */
static enum reason reason_of(const json_t *error)
{
    const enum reason found[] = {
        reason_of_word(member_text(error, "type")),
        reason_of_word(member_text(error, "code")),
        reason_of_word(member_text(error, "status")),
        reason_of_word(member_text(json_object_get(error, "innererror"), "code")),
        reason_of_word(member_text(json_object_get(error, "details"), "error_code")),
        reason_of_details(json_object_get(error, "details")),
        reason_of_phrase(error_message(error)),
        /* OpenRouter, 403: what its moderation found. */
        json_object_get(json_object_get(error, "metadata"), "flagged_input") != NULL
            ? REASON_CONTENT
            : REASON_UNKNOWN,
    };
    enum reason most = REASON_UNKNOWN;
    for (size_t i = 0; i < ARRAY_LENGTH(found); i++) {
        most = found[i] > most ? found[i] : most;
    }
    return most;
}

/* ---- judging ---- */

/*
 * False: the reason decides nothing, the status has to. What a server says that is itself at fault
 * (5xx) of the content or the account is not believed.
 */
static bool judge_reason(enum reason reason, long status, const char *text, struct outcome *outcome)
{
    switch (reason) {
    case REASON_UNKNOWN:
        return false;
    case REASON_RATE:
        outcome_set(outcome, RATE_LIMITED, "rate_limited", "%s", text);
        return true;
    case REASON_CAPACITY:
        outcome_set(outcome, RATE_LIMITED, "overloaded", "%s", text);
        return true;
    case REASON_ACCOUNT:
        outcome_set(outcome, UNAVAILABLE, "credentials", "%s", text);
        return status < 500;
    case REASON_CONTENT:
        outcome_set(outcome, REFUSED, "content_refused", "%s", text);
        return status < 500;
    case REASON_TOO_LARGE:
        outcome_set(outcome, REJECTED, "over_limit", "%s", text);
        return status < 500;
    }
    return false;
}

static void judge_status(long status, const char *text, struct outcome *outcome)
{
    if (status == 429) {
        outcome_set(outcome, RATE_LIMITED, "rate_limited", "%s", text);
    } else if (status == 498 || status == 529) {
        outcome_set(outcome, RATE_LIMITED, "overloaded", "%s", text);
    } else if (status == 401 || status == 402 || status == 403) {
        outcome_set(outcome, UNAVAILABLE, "credentials", "%s", text);
    } else if (status >= 400 && status < 500 && status != 408 && status != 409 && status != 425) {
        outcome_set(outcome, REJECTED, "rejected", "%s", text);
    } else {
        outcome_set(outcome, UNAVAILABLE, "unavailable", "%s", text);
    }
}

/* OpenAI's own words for an address that it does not have, newer and older. */
static bool is_unknown_address(const json_t *error, const char *message)
{
    return strcmp(member_text(error, "code"), "unknown_url") == 0 ||
           strncmp(message, "Invalid URL (", strlen("Invalid URL (")) == 0;
}

/* The jobs have no fault, and wait until an operator has mended it. */
static void judge_address(long status, const json_t *error, const char *message,
                          struct outcome *outcome)
{
    if (message[0] == '\0') {
        outcome_set(outcome, UNAVAILABLE, "address",
                    "status %ld without words, as of a server that does not know the address: look "
                    "at base_url, which may lack its version, such as /v1",
                    status);
    } else if (is_unknown_address(error, message)) {
        outcome_set(outcome, UNAVAILABLE, "address",
                    "status %ld: %.160s: look at base_url, which has to end with its version, "
                    "such as /v1",
                    status, message);
    }
}

/* Servers that have chats may lack `completions` and `responses`: who asks for them knows better
 * than base_url. */
static bool tells_address(long status, enum operation operation)
{
    return (status == 404 || status == 405) &&
           (operation == OPERATION_CHAT || operation == OPERATION_EMBEDDINGS);
}

static void judge_error(long status, enum operation operation, const json_t *error,
                        struct outcome *outcome)
{
    char text[OUTCOME_TEXT_BYTES_MAX];
    const char *message = error_message(error);
    (void)snprintf(text, sizeof(text), "status %ld: %s", status,
                   message[0] == '\0' ? "no message" : message);
    if (!judge_reason(reason_of(error), status, text, outcome)) {
        judge_status(status, text, outcome);
    }
    if (tells_address(status, operation)) {
        judge_address(status, error, message, outcome);
    }
    outcome->retry_after_ms = wait_in_error(error, message);
}

/* The status that an error names itself, as gateways do in a 200 (OpenRouter). 0: none. */
static long status_in_error(const json_t *error)
{
    const json_t *code = json_object_get(error, "code");
    const json_int_t status = json_is_string(code) && strlen(json_string_value(code)) == 3
                                  ? strtol(json_string_value(code), NULL, 10)
                                  : json_integer_value(code);
    return status >= 400 && status <= 599 ? (long)status : 0;
}

void outcome_from_error(const json_t *error, struct outcome *ret_outcome)
{
    char text[OUTCOME_TEXT_BYTES_MAX];
    const char *message = error_message(error);
    const long status = status_in_error(error);
    (void)snprintf(text, sizeof(text), "the answer carries an error: %s",
                   message[0] == '\0' ? "no message" : message);
    if (judge_reason(reason_of(error), status, text, ret_outcome)) {
        /* judged */
    } else if (status > 0) {
        judge_status(status, text, ret_outcome);
    } else {
        outcome_set(ret_outcome, UNAVAILABLE, "provider_error", "%s", text);
    }
    ret_outcome->retry_after_ms = wait_in_error(error, message);
}

/* ---- a whole reply ---- */

/* Google's gateway wraps it into a list of one. */
static const json_t *unwrapped(const json_t *body)
{
    return json_array_size(body) == 1 && json_object_get(json_array_get(body, 0), "error") != NULL
               ? json_array_get(body, 0)
               : body;
}

/* One that runs on in the background, or was cancelled there, is none. */
static bool is_response(const json_t *body)
{
    const char *status = member_text(body, "status");
    return json_is_array(json_object_get(body, "output")) &&
           (strcmp(status, "completed") == 0 || strcmp(status, "incomplete") == 0);
}

static bool is_answer(const json_t *body, enum operation operation)
{
    if (operation == OPERATION_RESPONSES) {
        return is_response(body);
    }
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
    body = unwrapped(body);
    if (status >= 200 && status < 300) {
        judge_success(operation, body, ret_outcome);
    } else {
        /* Without `error` the members stand in the body itself (vLLM). */
        const json_t *error = json_object_get(body, "error");
        judge_error(status, operation, error == NULL ? body : error, ret_outcome);
    }
    if (retry_after_ms > 0 && ret_outcome->kind != ANSWERED) {
        ret_outcome->retry_after_ms = retry_after_ms > OUTCOME_RETRY_AFTER_MS_MAX
                                          ? OUTCOME_RETRY_AFTER_MS_MAX
                                          : retry_after_ms;
    }
}

bool outcome_is_unreached(const struct outcome *outcome)
{
    return strcmp(outcome->code, "connect") == 0 || strcmp(outcome->code, "tls") == 0;
}

bool outcome_is_filtered(const json_t *answer)
{
    size_t i;
    json_t *choice;
    if (strcmp(member_text(json_object_get(answer, "incomplete_details"), "reason"),
               "content_filter") == 0) {
        return true; /* of a response */
    }
    json_array_foreach (json_object_get(answer, "choices"), i, choice) {
        if (strcmp(member_text(choice, "finish_reason"), "content_filter") == 0) {
            return true;
        }
    }
    return false;
}
