#include "worker/combine/inputs.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- what is asked ---- */

static uint64_t weight_of(const json_t *input)
{
    return json_is_string(input) ? account_estimate_tokens(json_string_length(input))
                                 : json_array_size(input);
}

static bool are_all_integers(const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach (list, i, item) {
        if (!json_is_integer(item)) {
            return false;
        }
    }
    return json_array_size(list) > 0;
}

/* Whether it is one input of this kind, and there is something in it. */
static bool is_input(const json_t *input, bool are_tokens)
{
    return are_tokens ? are_all_integers(input)
                      : json_is_string(input) && json_string_length(input) > 0;
}

static bool read_list(const json_t *list, struct inputs *inputs)
{
    size_t i;
    json_t *input;
    inputs->length = json_array_size(list);
    inputs->are_tokens = json_is_array(json_array_get(list, 0));
    json_array_foreach (list, i, input) {
        if (!is_input(input, inputs->are_tokens)) {
            return false;
        }
        inputs->weight += weight_of(input);
    }
    return inputs->length > 0 && inputs->length <= INPUTS_MAX;
}

/* Without the brackets of the array that it is. */
static bool strip(struct body_slice *slice)
{
    const char *begin = memchr(slice->data, '[', slice->bytes);
    const char *end = memrchr(slice->data, ']', slice->bytes);
    if (begin == NULL || end == NULL || end <= begin) {
        return false;
    }
    *slice = (struct body_slice){begin + 1, (size_t)(end - begin) - 1};
    return true;
}

/* Jansson reads over a NUL behind a number; here it would end what is copied. */
static bool has_nul(const struct body_slice *text)
{
    return memchr(text->data, '\0', text->bytes) != NULL;
}

bool inputs_read(const json_t *root, const void *body, size_t bytes, struct inputs *ret_inputs)
{
    const json_t *input = json_object_get(root, "input");
    struct inputs inputs = {.length = 1};
    if (body_find(body, bytes, "input", &inputs.text) < 0 || has_nul(&inputs.text)) {
        return false;
    }
    if (is_input(input, false) || is_input(input, true)) {
        inputs.are_tokens = json_is_array(input);
        inputs.weight = weight_of(input);
    } else if (!read_list(input, &inputs) || !strip(&inputs.text)) {
        return false;
    }
    *ret_inputs = inputs;
    return true;
}

int inputs_write(const void *body, size_t bytes, const struct inputs *parts, size_t length,
                 struct bytes *out)
{
    struct bytes list = {.bytes_max = out->bytes_max};
    int r = bytes_append(&list, "[", 1);
    for (size_t i = 0; r == 0 && i < length; i++) {
        r = i == 0 ? 0 : bytes_append(&list, ",", 1);
        r = r < 0 ? r : bytes_append(&list, parts[i].text.data, parts[i].text.bytes);
    }
    r = r < 0 ? r : bytes_append(&list, "]", 1);
    if (r == 0) {
        const struct body_member input = {.name = "input", .value = list.data};
        r = body_rewrite(body, bytes, &input, 1, out);
    }
    bytes_finish(&list);
    return r;
}

/* ---- what is answered ---- */

/* The input that it is of; -1: it is none of ours, or no vector. */
static json_int_t index_of(const struct body_slice *element, size_t inputs_length)
{
    json_t *vector = json_loadb(element->data, element->bytes, JSON_REJECT_DUPLICATES, NULL);
    const json_t *index = json_object_get(vector, "index");
    const json_t *embedding = json_object_get(vector, "embedding");
    json_int_t at = json_is_integer(index) ? json_integer_value(index) : -1;
    const bool is_vector = json_array_size(embedding) > 0 || json_string_length(embedding) > 0;
    at = is_vector && at >= 0 && (uint64_t)at < inputs_length ? at : -1;
    json_decref(vector);
    return at;
}

int inputs_open(const void *body, size_t bytes, size_t inputs_length,
                struct inputs_answer *ret_answer)
{
    struct inputs_answer answer = {.body = {body, bytes}, .length = inputs_length};
    struct body_slice data;
    struct body_slice elements[INPUTS_MAX];
    size_t length = 0;
    bool is_whole = false;
    assert(inputs_length <= INPUTS_MAX);
    if (has_nul(&answer.body) || body_find(body, bytes, "data", &data) < 0 ||
        body_list(&data, elements, INPUTS_MAX, &length, &is_whole) < 0 || !is_whole ||
        length != inputs_length) {
        return -EBADMSG;
    }
    size_t rest = bytes;
    for (size_t i = 0; i < length; i++) {
        const json_int_t at = index_of(&elements[i], inputs_length);
        if (at < 0 || answer.vectors[at].data != NULL) {
            return -EBADMSG;
        }
        answer.vectors[at] = elements[i];
        rest -= elements[i].bytes;
    }
    if (rest > INPUTS_REST_BYTES_MAX) {
        return -EBADMSG;
    }
    *ret_answer = answer;
    return 0;
}

static int append_vector(const struct body_slice *vector, size_t index, struct bytes *list)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%zu", index);
    const struct body_member member = {.name = "index", .value = text};
    int r = index == 0 ? 0 : bytes_append(list, ",", 1);
    return r < 0 ? r : body_rewrite(vector->data, vector->bytes, &member, 1, list);
}

int inputs_take(const struct inputs_answer *answer, size_t first, size_t length,
                const struct token_share *share, struct bytes *out)
{
    char usage[96];
    struct bytes list = {.bytes_max = out->bytes_max};
    (void)snprintf(usage, sizeof(usage),
                   "{\"prompt_tokens\":%" PRIu64 ",\"total_tokens\":%" PRIu64 "}",
                   share->tokens.input, share->tokens.input);
    assert(first + length <= answer->length);
    int r = bytes_append(&list, "[", 1);
    for (size_t i = 0; r == 0 && i < length; i++) {
        r = append_vector(&answer->vectors[first + i], i, &list);
    }
    r = r < 0 ? r : bytes_append(&list, "]", 1);
    if (r == 0) {
        const struct body_member members[] = {{"data", list.data}, {"usage", usage}};
        r = body_rewrite(answer->body.data, answer->body.bytes, members, ARRAY_LENGTH(members),
                         out);
    }
    bytes_finish(&list);
    return r;
}
