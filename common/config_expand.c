#include "common/config_expand.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char name_characters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

/* Writes what stands for the reference at `at` ("${…"). Gives the first byte behind it; NULL on
 * error. */
static const char *variable_write(const char *at, FILE *out, char *ret_variable, char *ret_why)
{
    const char *name = at + 2;
    const size_t bytes = strspn(name, name_characters);
    const char *end = strchr(name, '}');
    const bool has_default = strncmp(name + bytes, ":-", 2) == 0;
    if (end == NULL || bytes == 0 || bytes >= CONFIG_VARIABLE_BYTES ||
        (name[bytes] != '}' && !has_default)) {
        snprintf(ret_why, CONFIG_WHY_BYTES,
                 "has a broken reference to the environment; write ${NAME}, ${NAME:-DEFAULT}, or "
                 "$${ for a plain ${");
        return NULL;
    }
    char variable[CONFIG_VARIABLE_BYTES];
    memcpy(variable, name, bytes);
    variable[bytes] = '\0';
    const char *value = getenv(variable);
    if (has_default && (value == NULL || value[0] == '\0')) {
        fwrite(name + bytes + 2, 1, (size_t)(end - name) - bytes - 2, out);
    } else if (value != NULL) {
        fputs(value, out);
        memcpy(ret_variable, variable, bytes + 1);
    } else {
        snprintf(
            ret_why, CONFIG_WHY_BYTES,
            "needs the environment variable %s, which is not set; set it, or write ${%s:-DEFAULT}",
            variable, variable);
        return NULL;
    }
    return end + 1;
}

static int expand_to(const char *text, FILE *out, char *ret_variable, char *ret_why)
{
    for (const char *at = text; *at != '\0';) {
        if (strncmp(at, "$${", 3) == 0) {
            fputs("${", out);
            at += 3;
        } else if (strncmp(at, "${", 2) == 0) {
            at = variable_write(at, out, ret_variable, ret_why);
            if (at == NULL) {
                return -EINVAL;
            }
        } else {
            fputc(*at++, out);
        }
    }
    return 0;
}

int config_expand(const char *text, char **ret_text, char ret_variable[CONFIG_VARIABLE_BYTES],
                  char ret_why[CONFIG_WHY_BYTES])
{
    char *expanded = NULL;
    size_t bytes;
    FILE *out = open_memstream(&expanded, &bytes);
    if (out == NULL) {
        return -ENOMEM;
    }
    ret_variable[0] = '\0';
    int r = expand_to(text, out, ret_variable, ret_why);
    const bool is_whole = ferror(out) == 0;
    if ((fclose(out) != 0 || !is_whole) && r == 0) {
        r = -ENOMEM;
    }
    if (r < 0) {
        free(expanded);
        return r;
    }
    *ret_text = expanded;
    return 0;
}
