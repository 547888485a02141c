#include "tests/modelsim/faults.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { WHY_BYTES = FAULTS_ERROR_BYTES - 64 }; /* less what says which fault */

static const char *const kind_names[FAULT_KINDS] = {
    [FAULT_NONE] = "none",         [FAULT_STATUS] = "status",
    [FAULT_RESET] = "reset",       [FAULT_HANG] = "hang",
    [FAULT_TRUNCATED] = "truncated", [FAULT_GARBAGE] = "garbage",
    [FAULT_EMPTY] = "empty",       [FAULT_ERROR_IN_200] = "error_in_200",
    [FAULT_SLOW] = "slow",         [FAULT_STALL] = "stall",
    [FAULT_REFUSED] = "refused",   [FAULT_ERROR_IN_STREAM] = "error_in_stream",
    [FAULT_DIMENSION] = "dimension", [FAULT_NOT_A_NUMBER] = "not_a_number",
    [FAULT_SHUFFLED] = "shuffled", [FAULT_FILTERED] = "filtered",
    [FAULT_COMBINE_DROP] = "combine_drop", [FAULT_COMBINE_SWAP] = "combine_swap",
    [FAULT_COMBINE_SWAP_ANSWERS] = "combine_swap_answers", [FAULT_COMBINE_SWAP_TEXTS] = "combine_swap_texts",
    [FAULT_COMBINE_MERGE] = "combine_merge", [FAULT_COMBINE_MERGE_TEXTS] = "combine_merge_texts",
    [FAULT_COMBINE_GARBAGE] = "combine_garbage", [FAULT_COMBINE_TRUNCATE] = "combine_truncate",
};
static const char *const retry_names[] = {
    [RETRY_AFTER_NONE] = "none",           [RETRY_AFTER_HEADER] = "header", [RETRY_AFTER_DATE] = "date",
    [RETRY_AFTER_MS_HEADER] = "ms_header", [RETRY_AFTER_BODY] = "body",
};

const char *fault_kind_name(enum fault_kind kind)
{
    return kind_names[kind];
}

/* The index of `word` among `names`, or `length`. */
static size_t find_word(const char *const *names, size_t length, const char *word)
{
    size_t i = 0;
    while (i < length && strcmp(names[i], word) != 0) {
        i++;
    }
    return i;
}

static double number_or(const json_t *object, const char *key, double otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static const char *text_or(const json_t *object, const char *key, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : otherwise;
}

static int check_keys(const json_t *object, char *ret_error)
{
    static const char *const known[] = {"kind",   "rate",        "from_ms",        "until_ms", "model",
                                        "status", "retry_after", "retry_after_ms", "hang_ms",  "factor", "text"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (find_word(known, ARRAY_LENGTH(known), key) == ARRAY_LENGTH(known)) {
            snprintf(ret_error, WHY_BYTES,
                     "unknown field \"%.40s\"; use kind, rate, from_ms, until_ms, model, text, status, retry_after, retry_after_ms, "
                     "hang_ms or factor",
                     key);
            return -EINVAL;
        }
    }
    return 0;
}

static void list_kinds(const char *unknown, char *ret_error)
{
    int length = snprintf(ret_error, WHY_BYTES, "kind \"%.40s\" is unknown; use one of", unknown);
    for (size_t i = FAULT_NONE + 1; i < FAULT_KINDS && length < WHY_BYTES; i++) {
        length += snprintf(ret_error + length, (size_t)(WHY_BYTES - length), "%s %s",
                           i == FAULT_NONE + 1 ? "" : ",", kind_names[i]);
    }
}

static int read_fault(const json_t *object, struct fault *ret_fault, char *ret_error)
{
    if (!json_is_object(object)) {
        snprintf(ret_error, WHY_BYTES, "a fault must be an object such as {\"kind\":\"hang\"}");
        return -EINVAL;
    }
    int r = check_keys(object, ret_error);
    if (r < 0) {
        return r;
    }
    const char *kind = text_or(object, "kind", "");
    const char *retry = text_or(object, "retry_after", "header");
    const char *model = text_or(object, "model", "");
    const char *part = text_or(object, "text", "");
    size_t kind_index = find_word(kind_names, FAULT_KINDS, kind);
    size_t retry_index = find_word(retry_names, ARRAY_LENGTH(retry_names), retry);
    if (kind_index == FAULT_NONE || kind_index == FAULT_KINDS) {
        list_kinds(kind, ret_error);
        return -EINVAL;
    }
    if (retry_index == ARRAY_LENGTH(retry_names)) {
        snprintf(ret_error, WHY_BYTES, "retry_after \"%.40s\" is unknown; use none, header, date, ms_header or body", retry);
        return -EINVAL;
    }
    struct fault fault = {
        .kind = (enum fault_kind)kind_index,
        .rate = number_or(object, "rate", 1),
        .from_ms = (int64_t)number_or(object, "from_ms", 0),
        .until_ms = (int64_t)number_or(object, "until_ms", 9e15),
        .status = (int)number_or(object, "status", 503),
        .retry_after = (enum fault_retry_after)retry_index,
        .retry_after_ms = (int64_t)number_or(object, "retry_after_ms", 0),
        .hang_ms = (int64_t)number_or(object, "hang_ms", 600000),
        .factor = number_or(object, "factor", 10),
    };
    if (!(fault.rate >= 0 && fault.rate <= 1)) {
        snprintf(ret_error, WHY_BYTES, "rate must lie between 0 and 1");
        return -EINVAL;
    }
    if (fault.status < 400 || fault.status > 599) {
        snprintf(ret_error, WHY_BYTES, "status must lie between 400 and 599");
        return -EINVAL;
    }
    if (strlen(model) >= sizeof(fault.model) || strlen(part) >= sizeof(fault.text) || fault.factor < 0 || fault.hang_ms < 0 || fault.retry_after_ms < 0) {
        snprintf(ret_error, WHY_BYTES, "model or text is too long, or a number is negative");
        return -EINVAL;
    }
    memcpy(fault.model, model, strlen(model) + 1);
    memcpy(fault.text, part, strlen(part) + 1);
    *ret_fault = fault;
    return 0;
}

int faults_read(struct faults *faults, const json_t *script, int64_t now_ms, char *ret_error)
{
    const json_t *list = json_object_get(script, "faults");
    if (!json_is_array(list) || json_array_size(list) > FAULTS_MAX) {
        snprintf(ret_error, FAULTS_ERROR_BYTES, "faults must be a list of at most %d faults", FAULTS_MAX);
        return -EINVAL;
    }
    struct fault items[FAULTS_MAX] = {0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        char why[WHY_BYTES];
        int r = read_fault(json_array_get(list, i), &items[i], why);
        if (r < 0) {
            snprintf(ret_error, FAULTS_ERROR_BYTES, "faults[%zu]: %s", i, why);
            return r;
        }
    }
    faults->length = json_array_size(list);
    memcpy(faults->items, items, faults->length * sizeof(items[0]));
    faults->set_at_ms = now_ms;
    return 0;
}

static double next_random(uint64_t *state)
{
    /* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016. */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)((*state * UINT64_C(2685821657736338717)) >> 11) / 9007199254740992.0;
}

const struct fault *faults_draw(struct faults *faults, const char *model, const char *text, int64_t now_ms)
{
    int64_t at_ms = now_ms - faults->set_at_ms;
    for (size_t i = 0; i < faults->length; i++) {
        const struct fault *fault = &faults->items[i];
        if (at_ms < fault->from_ms || at_ms >= fault->until_ms ||
            (fault->model[0] != '\0' && strcmp(fault->model, model) != 0) ||
            strstr(text, fault->text) == NULL) {
            continue;
        }
        if (fault->rate >= 1 || next_random(&faults->random) < fault->rate) {
            faults->happened[fault->kind]++;
            return fault;
        }
    }
    return NULL;
}

json_t *faults_describe(const struct faults *faults)
{
    json_t *list = json_array();
    for (size_t i = 0; i < faults->length; i++) {
        const struct fault *fault = &faults->items[i];
        json_array_append_new(
            list, json_pack("{s:s, s:f, s:I, s:I, s:s, s:i, s:s, s:I, s:I, s:f, s:s}", "kind", kind_names[fault->kind], "rate",
                            fault->rate, "from_ms", (json_int_t)fault->from_ms, "until_ms", (json_int_t)fault->until_ms,
                            "model", fault->model, "status", fault->status, "retry_after", retry_names[fault->retry_after],
                            "retry_after_ms", (json_int_t)fault->retry_after_ms, "hang_ms", (json_int_t)fault->hang_ms,
                            "factor", fault->factor, "text", fault->text));
    }
    return list;
}
