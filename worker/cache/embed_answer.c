#include "worker/cache/embed_answer.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/json_read.h"
#include "worker/cache/text_vector.h"

/* A number takes up to 25 bytes ("-1.2345678901234567e-100,"); the rest is for blanks and usage. */
enum { NUMBER_BYTES = 40, ENTRY_BYTES = 512, ANSWER_BYTES = 65536 };

size_t embed_answer_bytes_max(size_t length, uint32_t dim)
{
    return length * ((size_t)dim * NUMBER_BYTES + ENTRY_BYTES) + ANSWER_BYTES;
}

static int read_vector(const json_t *numbers, uint32_t dim, float *ret_vector, char *ret_error)
{
    size_t i;
    json_t *number;
    if (!json_is_array(numbers) || json_array_size(numbers) != dim) {
        return refusal_write(ret_error, "a vector has %zu dimensions, not %u",
                             json_array_size(numbers), dim);
    }
    json_array_foreach ((json_t *)(uintptr_t)numbers, i, number) {
        const float value = (float)json_number_value(number);
        if (!json_is_number(number) || !isfinite(value)) {
            return refusal_write(ret_error, "a vector holds something that is no finite number");
        }
        ret_vector[i] = value;
    }
    text_vector_normalize(ret_vector, dim);
    return 0;
}

static int read_entries(const json_t *data, size_t length, uint32_t dim, bool *seen,
                        float *ret_vectors, char *ret_error)
{
    for (size_t i = 0; i < length; i++) {
        const json_t *entry = json_array_get(data, i);
        const json_t *index = json_object_get(entry, "index");
        const json_int_t at = json_is_integer(index) ? json_integer_value(index) : -1;
        if (at < 0 || (size_t)at >= length || seen[at]) {
            return refusal_write(ret_error, "an index is missing, or there twice");
        }
        seen[at] = true;
        int r = read_vector(json_object_get(entry, "embedding"), dim,
                            ret_vectors + (size_t)at * dim, ret_error);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int embed_answer_read(const char *body, size_t bytes, size_t length, uint32_t dim,
                      float *ret_vectors, char ret_error[REFUSAL_BYTES])
{
    json_error_t error;
    json_t *answer = json_read(body, bytes, 0, &error);
    const json_t *data = json_object_get(answer, "data");
    int r;
    if (answer == NULL) {
        return refusal_write(ret_error, "it is no JSON: %.80s", error.text);
    }
    if (json_array_size(data) != length) {
        r = refusal_write(ret_error, "it has %zu vectors for %zu texts", json_array_size(data),
                          length);
    } else {
        bool *seen = calloc(length + 1, sizeof(*seen));
        r = seen == NULL ? -ENOMEM : read_entries(data, length, dim, seen, ret_vectors, ret_error);
        free(seen);
    }
    json_decref(answer);
    return r;
}
