#include "worker/cache/judge.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "worker/cache/decision.h"
#include "worker/cache/embed_builtin.h"
#include "worker/cache/likeness.h"

/* ---- what an answer says ---- */

const char *judge_text_of(const json_t *answer)
{
    const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    const json_t *text = json_object_get(message == NULL ? choice : message,
                                         message == NULL ? "text" : "content");
    return json_string_value(text);
}

static const json_t *tool_calls_of(const json_t *answer)
{
    const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
    return json_object_get(json_object_get(choice, "message"), "tool_calls");
}

/* ---- equal ---- */

static bool counts(unsigned char c)
{
    return c >= 0x80 || isalnum(c) || c == '-' || c == '+' || c == '.' || c == '%';
}

static bool ends_a_word(const char *text)
{
    return !isalnum((unsigned char)text[1]) && (unsigned char)text[1] < 0x80;
}

/* A full stop at the end of a word does not count. */
static bool is_passed_over(const char *text)
{
    return *text != '\0' && (!counts((unsigned char)*text) || (*text == '.' && ends_a_word(text)));
}

/*
 * The next character that counts, 0 at the end. What lies between two of them is one space, however much it is; an apostrophe
 * is nothing.
 */
static int next(const char **text, bool is_first)
{
    bool ends_word = false;
    while (is_passed_over(*text)) {
        ends_word |= **text != '\'';
        (*text)++;
    }
    if (**text == '\0') {
        return 0;
    }
    if (ends_word && !is_first) {
        return ' ';
    }
    return tolower((unsigned char)*(*text)++);
}

static bool texts_are_equal(const char *a, const char *b)
{
    bool is_first = true;
    int c;
    do {
        c = next(&a, is_first);
        if (c != next(&b, is_first)) {
            return false;
        }
        is_first = false;
    } while (c != 0);
    return true;
}

/* ---- json ---- */

static bool values_are_equal(const json_t *a, const json_t *b, int depth);

/* NOLINTNEXTLINE(misc-no-recursion): as deep as DEPTH_MAX */
static bool objects_are_equal(json_t *a, json_t *b, int depth)
{
    const char *name;
    json_t *value;
    if (json_object_size(a) != json_object_size(b)) {
        return false;
    }
    json_object_foreach(a, name, value)
    {
        const json_t *other = json_object_get(b, name);
        if (other == NULL || !values_are_equal(value, other, depth)) {
            return false;
        }
    }
    return true;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as DEPTH_MAX */
static bool arrays_are_equal(const json_t *a, const json_t *b, int depth)
{
    bool is_equal = json_array_size(a) == json_array_size(b);
    for (size_t i = 0; is_equal && i < json_array_size(a); i++) {
        is_equal = values_are_equal(json_array_get(a, i), json_array_get(b, i), depth);
    }
    return is_equal;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as DEPTH_MAX */
static bool values_are_equal(const json_t *a, const json_t *b, int depth)
{
    enum { DEPTH_MAX = 64 };
    if (depth > DEPTH_MAX) {
        return false;
    }
    /* Two integers are compared as they are, since doubles lose digits of large ones. */
    if (json_is_number(a) && json_is_number(b) && (json_is_real(a) || json_is_real(b))) {
        return json_number_value(a) == json_number_value(b);
    }
    if (json_is_object(a) && json_is_object(b)) {
        return objects_are_equal((json_t *)a, (json_t *)b, depth + 1);
    }
    return json_is_array(a) && json_is_array(b) ? arrays_are_equal(a, b, depth + 1)
                                                : json_equal(a, b) != 0;
}

static enum judge_verdict verdict_of(bool is_same)
{
    return is_same ? JUDGE_SAME : JUDGE_DIFFERENT;
}

static enum judge_verdict judge_json(const char *a, const char *b)
{
    json_t *left = json_loads(a, JSON_DECODE_ANY, NULL);
    json_t *right = json_loads(b, JSON_DECODE_ANY, NULL);
    const bool is_same = left != NULL && right != NULL ? values_are_equal(left, right, 0)
                                                       : texts_are_equal(a, b);
    json_decref(left);
    json_decref(right);
    return verdict_of(is_same);
}

/* ---- embedding ---- */

static bool guards_speak(const struct likeness *likeness)
{
    for (size_t i = 0; i < LIKENESS_GUARDS; i++) {
        if (likeness->features[i] != 0) {
            return true;
        }
    }
    return false;
}

static enum judge_verdict judge_embedding(const char *a, const char *b, double cosine_min)
{
    union profile_buffer left, right;
    const size_t left_words = profile_make(a, strlen(a), &left);
    const size_t right_words = profile_make(b, strlen(b), &right);
    /* Not unknown: equal ones of that length are known to be right, and alone would be all that is learned. */
    if (left_words == 0 || left_words > PROFILE_WORDS_MAX || right_words == 0 ||
        right_words > PROFILE_WORDS_MAX) {
        return JUDGE_DIFFERENT;
    }
    struct sparse_vector left_vector, right_vector;
    struct likeness likeness;
    embed_builtin(&left.profile, &left_vector);
    embed_builtin(&right.profile, &right_vector);
    const double cosine = sparse_vector_cosine(&left_vector, &right_vector);
    likeness_of(&left.profile, &right.profile, cosine, &likeness);
    return verdict_of(cosine >= cosine_min && !guards_speak(&likeness));
}

static enum judge_verdict judge_texts(enum judge_kind kind, double cosine_min, const char *a,
                                      const char *b)
{
    if (kind != JUDGE_JSON && texts_are_equal(a, b)) {
        return JUDGE_SAME;
    }
    switch (kind) {
    case JUDGE_EQUAL:
        return JUDGE_DIFFERENT;
    case JUDGE_JSON:
        return judge_json(a, b);
    case JUDGE_EMBEDDING:
        return judge_embedding(a, b, cosine_min);
    case JUDGE_MODEL:
        break;
    }
    return JUDGE_UNKNOWN;
}

/* But for their ids, which differ each time. */
static bool calls_are_equal(const json_t *a, const json_t *b)
{
    bool is_equal = json_array_size(a) == json_array_size(b);
    for (size_t i = 0; is_equal && i < json_array_size(a); i++) {
        json_t *call = json_copy(json_array_get(a, i)), *other = json_copy(json_array_get(b, i));
        (void)json_object_del(call, "id");
        (void)json_object_del(other, "id");
        is_equal = values_are_equal(call, other, 0);
        json_decref(call);
        json_decref(other);
    }
    return is_equal;
}

static enum judge_verdict judge_answers(enum judge_kind kind, double cosine_min, const json_t *a,
                                        const json_t *b)
{
    const json_t *calls = tool_calls_of(a), *other_calls = tool_calls_of(b);
    const char *text = judge_text_of(a), *other_text = judge_text_of(b);
    if (json_array_size(calls) > 0 || json_array_size(other_calls) > 0) {
        return verdict_of(calls_are_equal(calls, other_calls));
    }
    if (text == NULL || other_text == NULL) {
        return text == other_text ? JUDGE_UNKNOWN : JUDGE_DIFFERENT;
    }
    return judge_texts(kind, cosine_min, text, other_text);
}

void judge_describe(enum judge_kind kind, double cosine_min, const char *model, const char *prompt,
                    char ret_text[JUDGE_TEXT_BYTES])
{
    const uint64_t of_model = XXH3_64bits(model, strlen(model));
    const uint32_t hash = (uint32_t)XXH3_64bits_withSeed(prompt, strlen(prompt), of_model);
    switch (kind) {
    case JUDGE_EQUAL:
        (void)snprintf(ret_text, JUDGE_TEXT_BYTES, "equal");
        break;
    case JUDGE_JSON:
        (void)snprintf(ret_text, JUDGE_TEXT_BYTES, "json");
        break;
    case JUDGE_EMBEDDING:
        (void)snprintf(ret_text, JUDGE_TEXT_BYTES, "embedding:%.3f", cosine_min);
        break;
    case JUDGE_MODEL:
        (void)snprintf(ret_text, JUDGE_TEXT_BYTES, "model:%08x", hash);
        break;
    }
}

enum judge_verdict judge(enum judge_kind kind, double cosine_min, const void *body,
                         size_t body_bytes, const void *other, size_t other_bytes)
{
    json_t *a = json_loadb(body, body_bytes, 0, NULL);
    json_t *b = json_loadb(other, other_bytes, 0, NULL);
    const enum judge_verdict verdict =
        a == NULL || b == NULL ? JUDGE_UNKNOWN : judge_answers(kind, cosine_min, a, b);
    json_decref(a);
    json_decref(b);
    return verdict;
}
