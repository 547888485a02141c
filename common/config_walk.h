/*
 * config_walk: a YAML document into the structs of the schemas. Private to common/config*.c.
 *
 * What is wrong is noted in reader.errors and reading goes on; only lack of memory ends it
 * (reader.r).
 */
#pragma once
#include "common/config_errors.h"
#include "common/config_schema.h"
#include "common/config_yaml.h"

enum { PATH_BYTES = 256 };

/* A name that was read and must be one of others, which may stand further down. */
struct reference {
    enum config_names names;
    char *name;
    char path[PATH_BYTES];
    yaml_mark_t mark;
};

struct source {
    const char *name;
    yaml_document_t *document;
};

struct reader {
    struct source file, defaults;
    const struct source *source; /* the one that is being read */
    struct config_errors *errors;
    struct reference *references; /* names in the file that must be names of something */
    size_t n_references;
    int r; /* -ENOMEM: give up */
};

void config_complain(struct reader *reader, yaml_mark_t mark, const char *path, const char *value,
                     const char *why);
/* Nothing behind the colon. */
bool config_is_null(const yaml_node_t *node);
/* NULL: the mapping has no such key, or is none. */
const yaml_node_t *config_mapping_find(yaml_document_t *document, const yaml_node_t *mapping,
                                       const char *name);

/* Reads the keys that stand in the node into the object; adds to `given` (a bit a key) which. */
void config_read_mapping(struct reader *reader, const struct config_schema *schema,
                         const yaml_node_t *node, void *object, const char *path, uint64_t *given);
/* Reads one key's value into the object. Entries of a list of mappings are appended to what it has.
 */
void config_read_value(struct reader *reader, const struct config_key *key, const yaml_node_t *node,
                       void *object, const char *path);
/* Appends an entry with its presets to a list of mappings. NULL: no memory, see reader.r. */
void *config_items_append(struct reader *reader, const struct config_key *key, void *object);
