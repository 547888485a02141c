/* config_errors: what is wrong with a configuration, gathered while it is read. Private to
 * common/config*.c. */
#pragma once
#include "common/config.h"

/* More say nothing new: a file with so many is not a configuration. */
enum { CONFIG_ERRORS_MAX = 100 };

/*
 * Adds "FILE:LINE:COLUMN: KEY: "VALUE" WHY"; line 0, key "" or value NULL are left out. Beyond
 * CONFIG_ERRORS_MAX nothing is added. Errors: -ENOMEM.
 */
MUST_USE int config_errors_add(struct config_errors *errors, const char *file, size_t line,
                               size_t column, const char *key, const char *value, const char *why);
/* In the order of the file. */
void config_errors_sort(struct config_errors *errors);
