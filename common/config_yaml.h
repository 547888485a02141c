/* config_yaml: text to a YAML document that is safe to walk. Private to common/config*.c. */
#pragma once
#include <yaml.h>

#include "common/config_errors.h"

enum { CONFIG_FILE_BYTES_MAX = 1 << 20, CONFIG_DEPTH_MAX = 8 };

/*
 * Parses one document. Refuses what is too large or too deep, more than one document, anchors and
 * aliases (a short file could stand for a gigabyte), tags, and what is no YAML or not UTF-8. Gives:
 * *ret_document, to be released with yaml_document_delete(). An empty text has no root node.
 * Errors: -EINVAL, with at least one item added to `errors`; -ENOMEM.
 */
MUST_USE int config_yaml_load(const char *text, size_t bytes, const char *file,
                              yaml_document_t *ret_document, struct config_errors *errors);
