/* The tables once more: as YAML with the effective values, and as the reference. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "common/config_schema.h"

static const char secret_shown[] = "***";

/* ----------------------------------------------------------------------------------- as YAML */

static bool is_plain(const char *text)
{
    static const char begins[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/";
    static const char goes_on[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._:@*-";
    const size_t bytes = strlen(text);
    return bytes > 0 && strchr(begins, text[0]) != NULL && strspn(text, goes_on) == bytes &&
           text[bytes - 1] != ':' && strcmp(text, "null") != 0;
}

/* Quoted where YAML or the environment would make something else of it. */
static void write_text(const char *text, FILE *out)
{
    if (is_plain(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') {
            fputc('\\', out);
        } else if (strncmp(at, "${", 2) == 0) {
            fputc('$', out);
        }
        fputc(*at, out);
    }
    fputc('"', out);
}

/* Of a header its name is no secret. */
static void write_secret_text(const char *text, FILE *out)
{
    const char *colon = strchr(text, ':');
    fprintf(out, "\"%.*s: %s\"", colon == NULL ? 0 : (int)(colon - text), text, secret_shown);
}

static void write_list(char *const *texts, size_t length, bool is_secret, FILE *out)
{
    fputc('[', out);
    for (size_t i = 0; i < length; i++) {
        fputs(i == 0 ? "" : ", ", out);
        if (is_secret) {
            write_secret_text(texts[i], out);
        } else {
            write_text(texts[i], out);
        }
    }
    fputs("]\n", out);
}

static void write_tier_lists(const struct config_key *key, const void *object, int indent,
                             FILE *out)
{
    const struct config_route_tier *lists =
        *(struct config_route_tier *const *)config_field_const(object, key);
    const size_t length = config_list_length_const(object, key);
    fputs(length == 0 ? "{}\n" : "\n", out);
    for (size_t i = 0; i < length; i++) {
        fprintf(out, "%*s", indent + 2, "");
        write_text(lists[i].tier, out);
        fputs(": ", out);
        write_list(lists[i].models, lists[i].models_length, false, out);
    }
}

static void write_scalar(const struct config_key *key, const void *object, FILE *out)
{
    if (config_kind_is_text(key->kind)) {
        const char *text = *(char *const *)config_field_const(object, key);
        write_text(key->is_secret && text[0] != '\0' ? secret_shown : text, out);
    } else if (key->kind == KIND_ENUM) {
        fputs(key->words[config_number(object, key)], out);
    } else {
        char text[CONFIG_NUMBER_BYTES];
        config_number_format(key, config_number(object, key), text);
        fputs(text, out);
    }
    fputc('\n', out);
}

static void write_mapping(const struct config_schema *schema, const void *object, int indent,
                          bool is_item, FILE *out);

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the schemas, which are three levels */
static void write_items(const struct config_key *key, const void *object, int indent, FILE *out)
{
    const char *items = *(char *const *)config_field_const(object, key);
    const size_t length = config_list_length_const(object, key);
    fputs(length == 0 ? " []\n" : "\n", out);
    for (size_t i = 0; i < length; i++) {
        write_mapping(key->schema, items + i * key->schema->bytes, indent + 4, true, out);
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): see write_items */
static void write_mapping(const struct config_schema *schema, const void *object, int indent,
                          bool is_item, FILE *out)
{
    for (size_t i = 0; i < schema->length; i++) {
        const struct config_key *key = &schema->keys[i];
        const bool begins_item = is_item && i == 0;
        if (key->kind == KIND_MONEY &&
            *(const uint64_t *)config_field_const(object, key) == CONFIG_PRICE_UNKNOWN) {
            continue; /* no limit, which has no number */
        }
        fprintf(out, "%*s%s%s:", begins_item ? indent - 2 : indent, "", begins_item ? "- " : "",
                key->name);
        if (key->kind == KIND_SECTION) {
            fputc('\n', out);
            write_mapping(key->schema, config_field_const(object, key), indent + 2, false, out);
        } else if (key->kind == KIND_ITEMS) {
            write_items(key, object, indent, out);
        } else if (key->kind == KIND_TIER_LISTS) {
            fputs(config_list_length_const(object, key) == 0 ? " " : "", out);
            write_tier_lists(key, object, indent, out);
        } else if (key->kind == KIND_LIST) {
            fputc(' ', out);
            write_list(*(char **const *)config_field_const(object, key),
                       config_list_length_const(object, key), key->is_secret, out);
        } else {
            fputc(' ', out);
            write_scalar(key, object, out);
        }
    }
}

int config_write(const struct config *config, FILE *out)
{
    write_mapping(&config_schema, config, 0, false, out);
    return ferror(out) ? -EIO : 0;
}

/* ----------------------------------------------------------------------------- the reference */

static const char *kind_name(enum config_kind kind)
{
    switch (kind) {
    case KIND_TEXT:
        return "text";
    case KIND_NAME:
        return "name";
    case KIND_PATH:
        return "path";
    case KIND_BIND:
    case KIND_CONNECT:
        return "endpoint";
    case KIND_HTTP_ADDRESS:
        return "address";
    case KIND_URL:
        return "URL";
    case KIND_HEADER:
        return "header";
    case KIND_HEADER_NAME:
        return "name";
    case KIND_QUERY:
        return "query";
    case KIND_URL_PATH:
        return "path";
    case KIND_ENUM:
        return "word";
    case KIND_INTEGER:
        return "number";
    case KIND_DURATION:
        return "duration";
    case KIND_SIZE:
        return "size";
    case KIND_MONEY:
        return "USD";
    case KIND_FRACTION:
        return "fraction";
    case KIND_LIST:
        return "list";
    case KIND_SECTION:
    case KIND_ITEMS:
        return "mapping";
    case KIND_TIER_LISTS:
        return "mapping of lists";
    }
    return "";
}

static void write_type(const struct config_key *key, FILE *out)
{
    if (key->kind == KIND_LIST) {
        fprintf(out, "list of %ss", kind_name(key->item_kind));
    } else if (key->kind == KIND_ENUM) {
        for (size_t i = 0; key->words[i] != NULL; i++) {
            fprintf(out, "%s`%s`", i == 0 ? "" : ", ", key->words[i]);
        }
    } else {
        fputs(kind_name(key->kind), out);
    }
}

static void write_default(const struct config_key *key, FILE *out)
{
    if (key->preset == NULL) {
        fputs(key->otherwise == NULL ? "*required*" : key->otherwise, out);
    } else if (key->kind == KIND_LIST) {
        fprintf(out, "`[%s]`", key->preset);
    } else {
        fprintf(out, "`%s`", key->preset[0] == '\0' ? "\"\"" : key->preset);
    }
}

static void write_range(const struct config_key *key, FILE *out)
{
    if (key->min == 0 && key->max == 0) {
        return;
    }
    char min[CONFIG_NUMBER_BYTES];
    char max[CONFIG_NUMBER_BYTES];
    config_number_format(key, key->min, min);
    config_number_format(key, key->max, max);
    fprintf(out, "%s – %s%s", min, max, key->kind == KIND_LIST ? " entries" : "");
}

static void write_table(const struct config_schema *schema, bool is_live, FILE *out)
{
    fputs("| key | type | default | range | SIGHUP | |\n| --- | --- | --- | --- | --- | --- |\n",
          out);
    for (size_t i = 0; i < schema->length; i++) {
        const struct config_key *key = &schema->keys[i];
        if (key->kind == KIND_SECTION || key->kind == KIND_ITEMS) {
            continue; /* has a table of its own */
        }
        fprintf(out, "| `%s` | ", key->name);
        write_type(key, out);
        fputs(" | ", out);
        write_default(key, out);
        fputs(" | ", out);
        write_range(key, out);
        fprintf(out, " | %s | %s |\n", is_live || key->is_live ? "yes" : "restart", key->text);
    }
    fputc('\n', out);
}

/* The sections and items within one, each with its own table; there are none within those. */
static void write_inner_sections(const struct config_key *outer, FILE *out)
{
    for (size_t i = 0; i < outer->schema->length; i++) {
        const struct config_key *key = &outer->schema->keys[i];
        if (key->kind == KIND_SECTION || key->kind == KIND_ITEMS) {
            fprintf(out, "## %s%s.%s%s\n\n%s\n\n", outer->name,
                    outer->kind == KIND_ITEMS ? "[]" : "", key->name,
                    key->kind == KIND_ITEMS ? "[]" : "", key->text);
            write_table(key->schema, outer->is_live || key->is_live, out);
        }
    }
}

static const char reference_head[] =
    "# Configuration\n"
    "\n"
    "All programs read one file, `tiermq.yaml`: the one of `--config`, else of `$TIERMQ_CONFIG`, "
    "else `./tiermq.yaml`, else\n"
    "`/etc/tiermq/tiermq.yaml`. Without a file the defaults below hold. `tiermq config check FILE` "
    "says everything that is\n"
    "wrong with a file, each with line, column, key and remedy; `tiermq config show` prints the "
    "effective values.\n"
    "[deploy/tiermq.yaml](../deploy/tiermq.yaml) is the defaults, with comments, to start from.\n"
    "\n"
    "This page is generated from the table of keys that the programs read files with (`tiermq "
    "config reference`).\n"
    "\n"
    "- **duration**: a whole number with `ms`, `s`, `m`, `h` or `d`: `250ms`, `15s`, `24h`.\n"
    "- **size**: a whole number of bytes, or with `KiB`, `MiB`, `GiB`, `TiB`: `8MiB`.\n"
    "- **USD**: dollars with up to nine decimals: `0.15`.\n"
    "- **name**: up to 64 letters, digits and `. _ : / @ -`.\n"
    "- **endpoint**: `tcp://HOST:PORT` or `ipc://PATH`. To listen, the host may be `*` and the "
    "port `0` (any free one).\n"
    "- `${NAME}` in a value is replaced from the environment; `${NAME:-TEXT}` has a default for "
    "when it is unset or empty;\n"
    "  `$${` is a plain `${`. Within `{…}` or `[…]` it needs quotes: `\"${NAME}\"`.\n"
    "- Anchors, aliases and tags are refused, as are files over 1 MiB.\n"
    "- **SIGHUP**: `yes`: a daemon takes the new value over while it runs. `restart`: it logs that "
    "it needs a restart, and\n"
    "  goes on with the old one. A file with errors changes nothing.\n"
    "\n";

int config_write_reference(FILE *out)
{
    fputs(reference_head, out);
    for (size_t i = 0; i < config_schema.length; i++) {
        const struct config_key *key = &config_schema.keys[i];
        if (key->schema == NULL) {
            fprintf(
                out, "## %s\n\n%s A list of %ss, `[%s]` when none is given; at most %lld. %s\n\n",
                key->name, key->text, kind_name(key->item_kind), key->preset, (long long)key->max,
                key->is_live ? "Changed by SIGHUP." : "A change needs a restart.");
            continue;
        }
        fprintf(out, "## %s%s\n\n%s", key->name, key->kind == KIND_ITEMS ? "[]" : "", key->text);
        if (key->kind == KIND_ITEMS) {
            fprintf(out, " At most %lld; when none is given: %s.%s", (long long)key->max,
                    key->otherwise, key->is_live ? "" : " Adding or removing one needs a restart.");
        }
        fputs("\n\n", out);
        write_table(key->schema, key->is_live, out);
        write_inner_sections(key, out);
    }
    return ferror(out) ? -EIO : 0;
}
