#include "common/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_schema.h"

/* item_name() in the reader relies on it. */
_Static_assert(offsetof(struct config_tier, name) == 0 &&
                   offsetof(struct config_tenant, name) == 0 &&
                   offsetof(struct config_provider, name) == 0 &&
                   offsetof(struct config_model, name) == 0 &&
                   offsetof(struct config_route, name) == 0,
               "entries of lists begin with their name");

int config_locate(const char *argument, char **ret_path)
{
    const char *path = argument != NULL ? argument : getenv("TIERMQ_CONFIG");
    static const char *const usual[] = {"./tiermq.yaml", "/etc/tiermq/tiermq.yaml"};
    if (argument == NULL && path != NULL && path[0] == '\0') {
        path = NULL; /* an empty variable is as good as none */
    }
    for (size_t i = 0; i < ARRAY_LENGTH(usual) && path == NULL; i++) {
        path = access(usual[i], F_OK) == 0 ? usual[i] : NULL;
    }
    if (path == NULL) {
        *ret_path = NULL;
        return 0;
    }
    char *copy = strdup(path);
    if (copy == NULL) {
        return -ENOMEM;
    }
    *ret_path = copy;
    return 0;
}

void config_destroy(struct config **config)
{
    if (*config == NULL) {
        return;
    }
    config_object_finish(&config_schema, *config);
    free(*config);
    *config = NULL;
}
