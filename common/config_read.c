/* From a file or a text to a configuration. The default lists are a document like the file, read by
 * the same code. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/config_complete.h"

static void read_root(struct reader *reader, struct config *config)
{
    uint64_t given = 0;
    const yaml_node_t *root = yaml_document_get_root_node(reader->file.document);
    if (root != NULL && !config_is_null(root)) {
        config_read_mapping(reader, &config_schema, root, config, "", &given);
    }
    if (reader->r == 0) {
        config_complete(reader, root, given, config);
    }
}

static int read_document(yaml_document_t *document, const char *name, struct config *config,
                         struct config_errors *errors)
{
    yaml_document_t defaults;
    int r = config_yaml_load(config_default_lists, strlen(config_default_lists), "defaults",
                             &defaults, errors);
    if (r < 0) {
        return r;
    }
    struct reader reader = {.file = {name, document},
                            .defaults = {"defaults", &defaults},
                            .source = &reader.file,
                            .errors = errors};
    reader.r = config_object_init(&config_schema, config);
    if (reader.r == 0) {
        read_root(&reader, config);
    }
    for (size_t i = 0; i < reader.n_references; i++) {
        free(reader.references[i].name);
    }
    free(reader.references);
    yaml_document_delete(&defaults);
    config_errors_sort(errors);
    return reader.r < 0 ? reader.r : errors->length > 0 ? -EINVAL : 0;
}

int config_read_text(const char *text, size_t bytes, const char *name, struct config **ret_config,
                     struct config_errors *ret_errors)
{
    *ret_errors = (struct config_errors){.items = NULL};
    yaml_document_t document;
    int r = config_yaml_load(text, bytes, name, &document, ret_errors);
    if (r < 0) {
        return r;
    }
    CLEANUP(config_destroy) struct config *config = calloc(1, sizeof(*config));
    r = config == NULL ? -ENOMEM : read_document(&document, name, config, ret_errors);
    yaml_document_delete(&document);
    if (r < 0) {
        return r;
    }
    *ret_config = TAKE(config);
    return 0;
}

/* One byte more than a configuration may have, so that a longer one is seen to be longer. */
static int read_all(const char *path, char **ret_text, size_t *ret_bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    char *text = malloc(CONFIG_FILE_BYTES_MAX + 1);
    size_t bytes = 0;
    int r = text == NULL ? -ENOMEM : 0;
    while (r == 0 && bytes <= CONFIG_FILE_BYTES_MAX) {
        const ssize_t n = read(fd, text + bytes, CONFIG_FILE_BYTES_MAX + 1 - bytes);
        if (n == 0) {
            break;
        }
        if (n > 0) {
            bytes += (size_t)n;
        } else if (errno != EINTR) {
            r = -errno;
        }
    }
    close(fd);
    if (r < 0) {
        free(text);
        return r;
    }
    *ret_text = text;
    *ret_bytes = bytes;
    return 0;
}

int config_read(const char *path, struct config **ret_config, struct config_errors *ret_errors)
{
    *ret_errors = (struct config_errors){.items = NULL};
    if (path == NULL) {
        return config_read_text("", 0, "defaults", ret_config, ret_errors);
    }
    char *text = NULL;
    size_t bytes = 0;
    int r = read_all(path, &text, &bytes);
    if (r < 0) {
        char why[CONFIG_WHY_BYTES];
        snprintf(why, sizeof(why), "cannot be read: %s", strerror(-r));
        const int added = config_errors_add(ret_errors, path, 0, 0, "", NULL, why);
        return added < 0 ? added : r;
    }
    r = config_read_text(text, bytes, path, ret_config, ret_errors);
    free(text);
    return r;
}
