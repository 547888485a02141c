/* cache_transfer: entries of the caches to a file and back, as JSON lines. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "client/cli/cache.h"
#include "common/http_admin.h"

/* Pages are small, since all workers' must fit in messages, and an entry may be large. */
enum { PAGE_LENGTH = 50, BODY_BYTES_MAX = HTTP_BODY_BYTES_MAX - 64 };

/* ---- export ---- */

static int ask_page(struct cli *cli, const char *from, json_t **ret_answer)
{
    json_t *parameters = json_pack("{s:s*, s:i}", "from", from, "limit", PAGE_LENGTH);
    char *path = parameters == NULL ? NULL : cli_admin_path("/v1/cache/export", parameters);
    const int code = path == NULL ? cli_fail(cli, EXIT_INTERNAL, "out of memory")
                                  : cli_admin(cli, path, NULL, ret_answer);
    json_decref(parameters);
    free(path);
    return code;
}

static int write_entries(struct cli *cli, const json_t *entries, FILE *out, uint64_t *written)
{
    size_t i = 0;
    const json_t *entry = NULL;
    json_array_foreach (entries, i, entry) {
        if (json_dumpf(entry, out, JSON_COMPACT) < 0 || fputc('\n', out) == EOF) {
            return cli_fail(cli, EXIT_INTERNAL, "cannot write: %s", strerror(errno));
        }
        (*written)++;
    }
    return EXIT_OK;
}

/* No page can hold them. */
static void say_left_out(const json_t *answer)
{
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const json_int_t left_out =
            json_integer_value(json_object_get(json_object_get(worker, "answer"), "left_out"));
        if (left_out > 0) {
            fprintf(stderr, "worker %s: entries of more than 1 MiB are left out: %lld\n",
                    cache_text(worker, "worker"), (long long)left_out);
        }
    }
}

/* Takes: the answer's errors are said, and count. `from` is where it begins; then where the next
 * one does, owned; NULL: the end. */
static int export_page(struct cli *cli, char **from, FILE *out, uint64_t *written, size_t *errors)
{
    json_t *answer = NULL, *entries = NULL;
    const char *next = NULL;
    int code = ask_page(cli, *from, &answer);
    if (code != EXIT_OK) {
        return code;
    }
    *errors += cache_say_errors(cli, answer);
    say_left_out(answer);
    const int r = cache_page_merge(answer, *from, &entries, &next);
    code = r < 0 ? cli_fail(cli, EXIT_INTERNAL, "a page cannot be read: %s", strerror(-r))
                 : write_entries(cli, entries, out, written);
    char *kept = code == EXIT_OK && next != NULL ? strdup(next) : NULL;
    if (code == EXIT_OK && next != NULL && kept == NULL) {
        code = cli_fail(cli, EXIT_INTERNAL, "out of memory");
    }
    free(*from);
    *from = kept;
    json_decref(entries);
    json_decref(answer);
    return code;
}

static int export_all(struct cli *cli, FILE *out, uint64_t *ret_written)
{
    char *from = NULL;
    size_t errors = 0;
    int code = EXIT_OK;
    do {
        code = export_page(cli, &from, out, ret_written, &errors);
    } while (code == EXIT_OK && errors == 0 && from != NULL);
    free(from);
    if (code == EXIT_OK && errors > 0) {
        code = cli_fail(cli, EXIT_NOT_SUCCEEDED, "the export is not whole; nothing was kept of it");
    }
    return code;
}

/* What is not whole never has the name of what is: it is written beside it, and renamed. */
static int export_to_file(struct cli *cli, const char *path, uint64_t *ret_written)
{
    char *beside = NULL;
    if (asprintf(&beside, "%s.part", path) < 0) {
        return cli_fail(cli, EXIT_INTERNAL, "out of memory");
    }
    FILE *out = fopen(beside, "we");
    int code = out == NULL
                   ? cli_fail(cli, EXIT_USAGE, "cannot write %s: %s", beside, strerror(errno))
                   : export_all(cli, out, ret_written);
    if (out != NULL && fclose(out) != 0 && code == EXIT_OK) {
        code = cli_fail(cli, EXIT_INTERNAL, "cannot write %s: %s", beside, strerror(errno));
    }
    if (code == EXIT_OK && rename(beside, path) < 0) {
        code = cli_fail(cli, EXIT_INTERNAL, "cannot write %s: %s", path, strerror(errno));
    }
    if (code != EXIT_OK && out != NULL) {
        (void)unlink(beside);
    }
    free(beside);
    return code;
}

int cache_export(struct cli *cli, const char *path)
{
    uint64_t written = 0;
    const int code = strcmp(path, "-") == 0 ? export_all(cli, stdout, &written)
                                            : export_to_file(cli, path, &written);
    if (code == EXIT_OK) {
        fprintf(stderr, "%llu entries exported\n", (unsigned long long)written);
    }
    return code;
}

/* ---- import ---- */

struct import {
    struct cli *cli;
    json_t *entries;             /* of the next request */
    size_t bytes;                /* of them */
    uint64_t lines[PAGE_LENGTH]; /* where they stand */
    uint64_t line, sent, malformed;
    json_int_t taken, refused; /* over all workers */
    size_t errors;
};

/* Each worker refuses the same: the first that does is named. */
static void say_refusals(const struct import *import, const json_t *worker, bool said[PAGE_LENGTH])
{
    size_t i = 0;
    const json_t *refusal = NULL;
    json_array_foreach (json_object_get(json_object_get(worker, "answer"), "refusals"), i,
                        refusal) {
        const json_int_t entry = cache_number(refusal, "entry");
        if (entry >= 0 && entry < (json_int_t)json_array_size(import->entries) && !said[entry]) {
            said[entry] = true;
            (void)cli_fail(import->cli, EXIT_REJECTED, "line %llu: worker %s refuses it: %s",
                           (unsigned long long)import->lines[entry], cache_text(worker, "worker"),
                           cache_text(refusal, "why"));
        }
    }
}

static int send_entries(struct import *import)
{
    bool said[PAGE_LENGTH] = {false};
    if (json_array_size(import->entries) == 0) {
        return EXIT_OK;
    }
    json_t *body = json_pack("{s:O}", "entries", import->entries);
    json_t *answer = NULL;
    const int code = body == NULL ? cli_fail(import->cli, EXIT_INTERNAL, "out of memory")
                                  : cli_admin(import->cli, "/v1/cache/import", body, &answer);
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const json_t *done = json_object_get(worker, "answer");
        import->taken += cache_number(done, "taken");
        import->refused += cache_number(done, "refused");
        say_refusals(import, worker, said);
    }
    import->errors += code == EXIT_OK ? cache_say_errors(import->cli, answer) : 0;
    import->sent += json_array_size(import->entries);
    json_decref(answer);
    json_decref(body);
    json_array_clear(import->entries);
    import->bytes = 0;
    return code;
}

static void refuse_line(struct import *import, const char *why, const char *detail)
{
    import->malformed++;
    cli_fail(import->cli, EXIT_REJECTED, "line %llu: %s%s", (unsigned long long)import->line, why,
             detail);
}

static int take_line(struct import *import, const char *line, size_t bytes)
{
    import->line++;
    json_error_t error = {.text = ""};
    json_t *entry = json_loadb(line, bytes, 0, &error);
    char *text = cache_text(entry, "key")[0] == '\0' ? NULL : json_dumps(entry, JSON_COMPACT);
    const size_t text_bytes = text == NULL ? 0 : strlen(text) + 1;
    free(text);
    int code = EXIT_OK;
    if (entry == NULL) {
        refuse_line(import, "is no JSON: ", error.text);
    } else if (text_bytes == 0) {
        refuse_line(import, "is no exported entry: it has no key", "");
    } else if (text_bytes > BODY_BYTES_MAX) {
        refuse_line(import, "is larger than the admin interface takes", "");
    } else {
        const bool is_full = import->bytes + text_bytes > BODY_BYTES_MAX ||
                             json_array_size(import->entries) == PAGE_LENGTH;
        code = is_full ? send_entries(import) : EXIT_OK;
        import->lines[json_array_size(import->entries)] = import->line;
        json_array_append(import->entries, entry);
        import->bytes += text_bytes;
    }
    json_decref(entry);
    return code;
}

static int import_lines(struct import *import, FILE *in)
{
    char *line = NULL;
    size_t capacity = 0;
    int code = EXIT_OK;
    ssize_t bytes = 0;
    while (code == EXIT_OK && import->errors == 0 && (bytes = getline(&line, &capacity, in)) >= 0) {
        code = take_line(import, line, (size_t)bytes);
    }
    free(line);
    if (code == EXIT_OK && ferror(in) != 0) {
        code = cli_fail(import->cli, EXIT_INTERNAL, "cannot read: %s", strerror(errno));
    }
    return code == EXIT_OK && import->errors == 0 ? send_entries(import) : code;
}

static int end_of_import(const struct import *import, int code)
{
    if (code != EXIT_OK) {
        return code;
    }
    if (import->errors > 0) {
        return cli_fail(import->cli, EXIT_NOT_SUCCEEDED,
                        "given up after %llu entries; what was imported stays",
                        (unsigned long long)import->sent);
    }
    return import->malformed > 0 || import->refused > 0 ? EXIT_REJECTED : EXIT_OK;
}

static void print_import(const struct import *import)
{
    if (import->cli->json) {
        printf("{\"sent\":%llu,\"malformed\":%llu,\"taken\":%lld,\"refused\":%lld}\n",
               (unsigned long long)import->sent, (unsigned long long)import->malformed,
               (long long)import->taken, (long long)import->refused);
        return;
    }
    printf("%llu entries sent to every worker, %llu lines were no entries; workers took %lld and "
           "refused %lld\n",
           (unsigned long long)import->sent, (unsigned long long)import->malformed,
           (long long)import->taken, (long long)import->refused);
}

int cache_import(struct cli *cli, const char *path)
{
    struct import import = {.cli = cli, .entries = json_array()};
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    int code = in == NULL ? cli_fail(cli, EXIT_USAGE, "cannot read %s: %s", path, strerror(errno))
               : import.entries == NULL ? cli_fail(cli, EXIT_INTERNAL, "out of memory")
                                        : import_lines(&import, in);
    if (code == EXIT_OK) {
        print_import(&import);
    }
    if (in != NULL && in != stdin) {
        (void)fclose(in);
    }
    json_decref(import.entries);
    return end_of_import(&import, code);
}
