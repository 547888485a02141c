#include "broker/core/names.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static uint64_t text_hash(const char *text, uint64_t seed)
{
    return XXH3_64bits_withSeed(text, strlen(text), seed);
}

static uint64_t name_hash(const struct table_link *link, uint64_t seed)
{
    const struct name *name = CONTAINER_OF((struct table_link *)link, struct name, link);
    return text_hash(name->text, seed);
}

int names_init(struct names *names, uint64_t seed)
{
    *names = (struct names){0};
    return table_init(&names->table, seed, name_hash);
}

void names_finish(struct names *names)
{
    for (size_t i = 0; i < names->length; i++) {
        free(names->items[i]);
    }
    free(names->items);
    if (names->table.segments != NULL) {
        table_finish(&names->table);
    }
    *names = (struct names){0};
}

struct name *names_find(const struct names *names, const char *text)
{
    struct table_link *link = table_first(&names->table, text_hash(text, names->table.seed));
    for (; link != NULL; link = link->next) {
        struct name *name = CONTAINER_OF(link, struct name, link);
        if (strcmp(name->text, text) == 0) {
            return name;
        }
    }
    return NULL;
}

int names_add(struct names *names, const char *text, struct name **ret_name)
{
    struct name *known = names_find(names, text);
    if (known != NULL) {
        *ret_name = known;
        return 0;
    }
    if (names->length == NAMES_MAX) {
        return -ENOBUFS;
    }
    struct name **items = reallocarray(names->items, names->length + 1, sizeof(struct name *));
    if (items == NULL) {
        return -ENOMEM;
    }
    names->items = items;
    const size_t bytes = strlen(text) + 1;
    struct name *name = calloc(1, sizeof(*name) + bytes);
    if (name == NULL) {
        return -ENOMEM;
    }
    memcpy(name->text, text, bytes);
    name->index = (uint16_t)names->length;
    items[names->length++] = name;
    table_insert(&names->table, &name->link);
    *ret_name = name;
    return 0;
}
