/* config_expand: ${NAME} in scalars. Private to common/config*.c. */
#pragma once
#include "common/config_schema.h"

enum { CONFIG_VARIABLE_BYTES = 65 };

/*
 * Replaces ${NAME} by the environment's variable, ${NAME:-TEXT} by TEXT where that is unset or
 * empty, and $${ by ${. Gives:  *ret_text, to be freed; ret_variable, the last variable whose value
 * is in it, "" when none is. Errors: -EINVAL, with the reason in `ret_why`; -ENOMEM.
 */
MUST_USE int config_expand(const char *text, char **ret_text,
                           char ret_variable[CONFIG_VARIABLE_BYTES],
                           char ret_why[CONFIG_WHY_BYTES]);
