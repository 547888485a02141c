#include "common/link_end.h"
#include <errno.h>

static const struct {
    const char *name;
    enum log_level level;
} ends[LINK_ENDS] = {
    [LINK_END_CLOSED] = {"closed", LOG_DEBUG},      [LINK_END_RESET] = {"reset", LOG_INFO},
    [LINK_END_SILENT] = {"silent", LOG_INFO},       [LINK_END_PROTOCOL] = {"protocol", LOG_WARN},
    [LINK_END_TOO_LARGE] = {"too_large", LOG_WARN}, [LINK_END_CROWDED] = {"crowded", LOG_WARN},
    [LINK_END_REPLACED] = {"replaced", LOG_INFO},   [LINK_END_MEMORY] = {"memory", LOG_WARN},
};

const char *link_end_name(enum link_end end)
{
    return ends[end].name;
}

enum log_level link_end_level(enum link_end end)
{
    return ends[end].level;
}

enum link_end link_end_of_error(int error)
{
    switch (error) {
    case -EPIPE:
        return LINK_END_CLOSED;
    case -EPROTO:
        return LINK_END_PROTOCOL;
    case -EMSGSIZE:
        return LINK_END_TOO_LARGE;
    case -ENOMEM:
        return LINK_END_MEMORY;
    default:
        return LINK_END_RESET;
    }
}
