#include "worker/cache/text_vector.h"

#include <math.h>
#include <string.h>

void text_vector_normalize(float *vector, size_t dim)
{
    double squares = 0;
    for (size_t i = 0; i < dim; i++) {
        squares += (double)vector[i] * (double)vector[i];
    }
    if (!(squares > 0) || !isfinite(squares)) {
        memset(vector, 0, dim * sizeof(*vector));
        return;
    }
    const float factor = (float)(1.0 / sqrt(squares));
    for (size_t i = 0; i < dim; i++) {
        vector[i] *= factor;
    }
}
