/* refusal: why a file from outside is not taken, in words for whoever gave it. */
#pragma once
#include "common/attributes.h"

enum { REFUSAL_BYTES = 160 };

/* Returns -EINVAL, so that a caller can end with it. */
int refusal_write(char ret_error[REFUSAL_BYTES], const char *format, ...) PRINTF_LIKE(2, 3);
