#include "worker/cache/wanted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int wanted_create(struct wanted **ret_wanted)
{
    struct wanted *wanted = calloc(1, sizeof(*wanted));
    if (wanted == NULL) {
        return -ENOMEM;
    }
    *ret_wanted = wanted;
    return 0;
}

void wanted_destroy(struct wanted **wanted)
{
    struct wanted *old = TAKE(*wanted);
    for (size_t i = 0; old != NULL && i < old->length; i++) {
        free(old->texts[i].text);
        free(old->texts[i].vector);
    }
    free(old);
}

bool wanted_add(struct wanted *wanted, const uint8_t key[WANTED_KEY_BYTES], const char *text)
{
    char *copy = wanted->length < WANTED_MAX ? strdup(text) : NULL;
    if (copy == NULL) {
        return false;
    }
    struct wanted_text *added = &wanted->texts[wanted->length++];
    *added = (struct wanted_text){.text = copy};
    memcpy(added->key, key, WANTED_KEY_BYTES);
    return true;
}
