#include "worker/prompt/json_exact.h"

#include <stddef.h>

/* A value whose members are being looked at; without recursion, since depth comes from outside. */
struct level {
    json_t *value;
    void *member; /* of an object: its iterator */
    size_t index; /* of a list */
};

static json_t *next_of(struct level *level)
{
    json_t *next = NULL;
    if (json_is_array(level->value)) {
        next = json_array_get(level->value, level->index++);
    } else if (level->member != NULL) {
        next = json_object_iter_value(level->member);
        level->member = json_object_iter_next(level->value, level->member);
    }
    return next;
}

bool json_is_exact(const json_t *value)
{
    struct level levels[JSON_EXACT_DEPTH_MAX];
    size_t depth = 1;
    json_t *root = (json_t *)value; /* iterators are of what could be changed; nothing is */
    if (json_is_real(root)) {
        return false;
    }
    levels[0] = (struct level){.value = root, .member = json_object_iter(root)};
    while (depth > 0) {
        json_t *next = next_of(&levels[depth - 1]);
        if (next == NULL) {
            depth--;
            continue;
        }
        if (json_is_real(next)) {
            return false;
        }
        if (json_is_array(next) || json_is_object(next)) {
            if (depth == JSON_EXACT_DEPTH_MAX) {
                return false;
            }
            levels[depth++] = (struct level){.value = next, .member = json_object_iter(next)};
        }
    }
    return true;
}
