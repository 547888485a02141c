#include "worker/operation.h"

#include <string.h>

#include "common/attributes.h"

static const struct {
    const char *name;
    const char *telemetry;
} operations[] = {
    [OPERATION_CHAT] = {"chat.completions", "chat"},
    [OPERATION_COMPLETIONS] = {"completions", "text_completion"},
    [OPERATION_EMBEDDINGS] = {"embeddings", "embeddings"},
    [OPERATION_RESPONSES] = {"responses", "chat"}, /* OpenTelemetry has no word of its own */
};

const char *operation_name(enum operation operation)
{
    return operations[operation].name;
}

const char *operation_telemetry(enum operation operation)
{
    return operations[operation].telemetry;
}

bool operation_parse(const char *name, enum operation *ret_operation)
{
    for (size_t i = 0; i < ARRAY_LENGTH(operations); i++) {
        if (strcmp(name, operations[i].name) == 0) {
            *ret_operation = (enum operation)i;
            return true;
        }
    }
    return false;
}
