/* text_vector: the arithmetic of dense vectors of floats. */
#pragma once
#include <stddef.h>

/* To unit length. All zeros when the length is zero or no number. */
void text_vector_normalize(float *vector, size_t dim);
