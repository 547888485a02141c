#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cli.h"

enum { ADMIN_TIMEOUT_MS = 10000, ANSWER_BYTES_MAX = 64 << 20 };

struct received {
    char *text; /* owned */
    size_t bytes;
};

static size_t receive(char *data, size_t size, size_t count, void *context)
{
    struct received *received = context;
    const size_t bytes = size * count;
    if (bytes > ANSWER_BYTES_MAX - received->bytes) {
        return 0;
    }
    char *text = realloc(received->text, received->bytes + bytes + 1);
    if (text == NULL) {
        return 0;
    }
    memcpy(text + received->bytes, data, bytes);
    received->text = text;
    received->bytes += bytes;
    text[received->bytes] = '\0';
    return bytes;
}

/* With a scheme it is a URL, and libcurl's to judge. */
static bool is_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;
    if (strncmp(text, "unix:/", 6) == 0 || strstr(text, "://") != NULL) {
        return true;
    }
    if (colon == NULL || colon == text || cli_read_number(colon + 1, 1, 65535, &port) < 0) {
        return false;
    }
    return text[0] == '[' || strchr(text, ':') == colon;
}

/* Gives: the URL, which may be long: texts are part of some; NULL: no memory. */
static char *set_address(CURL *curl, const char *address, const char *path)
{
    const bool is_unix = strncmp(address, "unix:", 5) == 0;
    const char *host = is_unix ? "localhost" : address;
    char *url = NULL;
    if (asprintf(&url, "%s%s%s", strstr(host, "://") != NULL ? "" : "http://", host, path) < 0) {
        return NULL;
    }
    if (is_unix) {
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, address + 5);
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    return url;
}

/* The words of {"error":{"message":…}}, or the status alone. */
static int fail_status(struct cli *cli, long status, const struct received *received)
{
    json_t *answer = json_loads(received->text == NULL ? "" : received->text, 0, NULL);
    const char *message =
        json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
    int code = status >= 500 ? EXIT_INTERNAL : status == 400 ? EXIT_USAGE : EXIT_REJECTED;
    if (message != NULL && status == 404 && strncmp(message, "there is no /", 13) == 0) {
        /* A worker's, say: what was asked for is not told there. */
        code =
            cli_fail(cli, EXIT_UNREACHABLE,
                     "no broker's admin HTTP at %s, or one of an older version: %s (--admin names "
                     "another address)",
                     cli->admin, message);
    } else if (message != NULL) {
        cli_fail(cli, code, "%s", message);
    } else {
        cli_fail(cli, code, "%s answered with HTTP status %ld", cli->admin, status);
    }
    json_decref(answer);
    return code;
}

static int perform(struct cli *cli, CURL *curl, const char *path, const char *body,
                   json_t **ret_answer)
{
    struct received received = {0};
    char *url = set_address(curl, cli->admin, path);
    if (url == NULL) {
        return cli_fail(cli, EXIT_INTERNAL, "out of memory");
    }
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &received);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* the admin address is ours, never a proxy's */
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                     (long)(cli->timeout_ms > 0 ? cli->timeout_ms : ADMIN_TIMEOUT_MS));
    if (body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    }
    const CURLcode done = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    int r = EXIT_OK;
    if (done != CURLE_OK) {
        r = cli_fail(cli, EXIT_UNREACHABLE,
                     "no broker's admin HTTP at %s: %s (--admin names another address)", cli->admin,
                     curl_easy_strerror(done));
    } else if (status != 200) {
        r = fail_status(cli, status, &received);
    } else {
        *ret_answer =
            json_loadb(received.text == NULL ? "" : received.text, received.bytes, 0, NULL);
        r = *ret_answer == NULL ? cli_fail(cli, EXIT_INTERNAL, "%s gave no JSON", url) : EXIT_OK;
    }
    curl_slist_free_all(headers);
    free(received.text);
    free(url);
    return r;
}

static void add_parameter(FILE *out, const char *name, const char *value, bool *is_first)
{
    char *escaped = curl_easy_escape(NULL, value, 0);
    if (escaped != NULL) {
        fprintf(out, "%c%s=%s", *is_first ? '?' : '&', name, escaped);
        *is_first = false;
    }
    curl_free(escaped);
}

char *cli_admin_path(const char *path, const json_t *parameters)
{
    char *text = NULL;
    size_t bytes = 0;
    bool is_first = true;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return NULL;
    }
    fputs(path, out);
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach ((json_t *)parameters, name, value) {
        char number[24];
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        add_parameter(out, name, json_is_string(value) ? json_string_value(value) : number,
                      &is_first);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

int cli_admin(struct cli *cli, const char *path, const json_t *body, json_t **ret_answer)
{
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    CURL *curl = curl_easy_init();
    int r = EXIT_INTERNAL;
    if (cli->brokers_option != NULL && cli->admin_option == NULL && cli->config_path == NULL) {
        /* Another broker's than the one that is meant would be asked, or changed. */
        cli_refuse(cli, "--brokers does not tell where their admin HTTP is; add --admin ADDRESS, "
                        "or --config FILE");
        r = cli->exit_code;
    } else if (cli->admin_option != NULL && !is_address(cli->admin)) {
        cli_refuse(cli,
                   "--admin: \"%s\" is not an address; write HOST:PORT or unix:/PATH, such as "
                   "127.0.0.1:7710",
                   cli->admin);
        r = cli->exit_code;
    } else if (curl == NULL || (body != NULL && text == NULL)) {
        cli_fail(cli, r, "out of memory");
    } else {
        r = perform(cli, curl, path, text, ret_answer);
    }
    curl_easy_cleanup(curl);
    free(text);
    return r;
}

int cli_show(struct cli *cli, json_t *answer, void (*print)(const json_t *answer))
{
    int code = EXIT_OK;
    if (!cli->json) {
        print(answer);
    } else if (json_dumpf(answer, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF) {
        code = cli_fail(cli, EXIT_INTERNAL, "cannot write");
    }
    json_decref(answer);
    return code;
}

int cli_admin_show(struct cli *cli, const char *path, const json_t *body,
                   void (*print)(const json_t *answer))
{
    json_t *answer = NULL;
    const int code = cli_admin(cli, path, body, &answer);
    return code == EXIT_OK ? cli_show(cli, answer, print) : code;
}
