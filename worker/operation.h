/*
 * operation: what a ModelRequest may ask for, and its name on the wire (proto/wire.proto,
 * ModelRequest.operation).
 */
#pragma once
#include <stdbool.h>

enum operation { OPERATION_CHAT, OPERATION_COMPLETIONS, OPERATION_EMBEDDINGS, OPERATION_RESPONSES };
enum { OPERATIONS = OPERATION_RESPONSES + 1 };

const char *operation_name(enum operation operation);      /* "chat.completions" … */
const char *operation_telemetry(enum operation operation); /* gen_ai.operation.name: "chat" … */
/* False: no such operation; *ret_operation is untouched. */
bool operation_parse(const char *name, enum operation *ret_operation);
