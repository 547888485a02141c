#include "worker/cache/refusal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int refusal_write(char ret_error[REFUSAL_BYTES], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(ret_error, REFUSAL_BYTES, format, arguments);
    va_end(arguments);
    return -EINVAL;
}
