#include "common/config_errors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_BYTES_SHOWN = 60 };

/* At most VALUE_BYTES_SHOWN, and to the end of the character that begins before that. */
static size_t shown_bytes(const char *value)
{
    size_t bytes = strnlen(value, VALUE_BYTES_SHOWN);
    while (((unsigned char)value[bytes] & 0xC0) == 0x80) {
        bytes++;
    }
    return bytes;
}

/* A foreign value goes to a terminal: no control characters, and not all of a long one. */
static void value_print(FILE *out, const char *value)
{
    const size_t bytes = shown_bytes(value);
    fputc('"', out);
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)value[i];
        fputc(c < 0x20 || c == 0x7F ? '?' : c, out);
    }
    fputs(value[bytes] == '\0' ? "\"" : "…\"", out);
}

int config_errors_add(struct config_errors *errors, const char *file, size_t line, size_t column,
                      const char *key, const char *value, const char *why)
{
    if (errors->length >= CONFIG_ERRORS_MAX) {
        return 0;
    }
    struct config_error *grown = reallocarray(errors->items, errors->length + 1, sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    errors->items = grown;

    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return -ENOMEM;
    }
    fprintf(out, "%s:", file);
    if (line > 0) {
        fprintf(out, "%zu:%zu:", line, column);
    }
    if (key[0] != '\0') {
        fprintf(out, " %s:", key);
    }
    fputc(' ', out);
    if (value != NULL) {
        value_print(out, value);
        fputc(' ', out);
    }
    fputs(why, out);
    const bool is_whole = ferror(out) == 0;
    if (fclose(out) != 0 || !is_whole) {
        free(text);
        return -ENOMEM;
    }
    grown[errors->length++] = (struct config_error){.text = text, .line = line, .column = column};
    return 0;
}

static bool is_before(const struct config_error *a, const struct config_error *b)
{
    return a->line < b->line || (a->line == b->line && a->column < b->column);
}

void config_errors_sort(struct config_errors *errors)
{
    /* By insertion: stable, and there are few. */
    for (size_t i = 1; i < errors->length; i++) {
        const struct config_error error = errors->items[i];
        size_t at = i;
        for (; at > 0 && is_before(&error, &errors->items[at - 1]); at--) {
            errors->items[at] = errors->items[at - 1];
        }
        errors->items[at] = error;
    }
}

void config_errors_finish(struct config_errors *errors)
{
    for (size_t i = 0; i < errors->length; i++) {
        free(errors->items[i].text);
    }
    free(errors->items);
    *errors = (struct config_errors){.items = NULL};
}
