/* A question's text: words end, its profile and its vector keep their promises, and it is like itself, whatever the bytes are. The
 * bytes after the first zero are a second text. */
#include <math.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/cache/decision.h"
#include "worker/cache/embed_builtin.h"

static bool make(const uint8_t *data, size_t bytes, union profile_buffer *buffer, struct sparse_vector *vector)
{
    const size_t length = profile_make((const char *)data, bytes, buffer);
    must_hold(length <= PROFILE_WORDS_MAX + 1);
    if (length == 0 || length > PROFILE_WORDS_MAX) {
        return false;
    }
    must_hold(profile_is_valid(buffer, buffer->profile.bytes));
    embed_builtin(&buffer->profile, vector);
    must_hold(sparse_vector_is_valid(vector));
    return true;
}

static void check(const union profile_buffer *a, const struct sparse_vector *x, const union profile_buffer *b, const struct sparse_vector *y,
                  bool are_same)
{
    struct likeness likeness;
    enum likeness_feature reason = LIKENESS_FEATURES;
    likeness_of(&a->profile, &b->profile, sparse_vector_cosine(x, y), &likeness);
    must_hold(isfinite(decision_score(decision_builtin(), &likeness)));
    const bool is_forbidden = decision_is_forbidden(&likeness, &reason);
    must_hold(!are_same || !is_forbidden);
    must_hold(is_forbidden == (reason != LIKENESS_FEATURES));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static union profile_buffer first;
    static union profile_buffer second;
    static struct sparse_vector x;
    static struct sparse_vector y;
    const uint8_t *zero = bytes == 0 ? NULL : memchr(data, 0, bytes);
    const size_t first_bytes = zero == NULL ? bytes : (size_t)(zero - data);
    const bool is_first = make(data, first_bytes, &first, &x);
    if (is_first) {
        check(&first, &x, &first, &x, true);
    }
    if (zero != NULL && make(zero + 1, bytes - first_bytes - 1, &second, &y) && is_first) {
        check(&first, &x, &second, &y, false);
    }
    return 0;
}
