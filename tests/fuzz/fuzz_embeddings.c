/* An answer of an embeddings endpoint: what is taken are vectors of unit length, or of none. */
#include <math.h>
#include "tests/fuzz/fuzz.h"
#include "worker/cache/embed_answer.h"

enum { TEXTS = 2, DIM = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    float vectors[TEXTS * DIM];
    char error[REFUSAL_BYTES] = "";
    if (embed_answer_read((const char *)data, bytes, TEXTS, DIM, vectors, error) < 0) {
        must_hold(error[0] != '\0');
        return 0;
    }
    for (size_t i = 0; i < TEXTS; i++) {
        const float *vector = vectors + i * DIM;
        const double squares = (double)vector[0] * (double)vector[0] +
                               (double)vector[1] * (double)vector[1] +
                               (double)vector[2] * (double)vector[2];
        must_hold(squares == 0 || fabs(squares - 1) < 1e-3);
    }
    return 0;
}
