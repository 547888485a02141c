/* tiermq cache invalidate: each broker that --admin names is told. */
#include <errno.h>
#include <string.h>
#include "client/cli/cache.h"

enum { CLIENT_TIMEOUT_MS = 5000 };

static void print_removed(const json_t *answer)
{
    json_int_t entries = 0, bytes = 0;
    size_t i = 0;
    const json_t *worker = NULL;
    printf("%-16s %10s %13s\n", "worker", "entries", "bytes");
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const json_t *removed = json_object_get(worker, "answer");
        if (removed != NULL) {
            entries += cache_number(removed, "entries");
            bytes += cache_number(removed, "bytes");
            printf("%-16s %10lld %13lld\n", cache_text(worker, "worker"),
                   (long long)cache_number(removed, "entries"),
                   (long long)cache_number(removed, "bytes"));
        }
    }
    printf("%-16s %10lld %13lld\n", "all", (long long)entries, (long long)bytes);
}

static int end_of_invalidation(const struct cli *cli, bool dry_run, const json_t *answer)
{
    size_t i = 0;
    const json_t *worker = NULL;
    int code = EXIT_OK;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        if (json_object_get(worker, "answer") == NULL) {
            code = cli_fail(cli, EXIT_NOT_SUCCEEDED, "worker %s: %s%s",
                            cache_text(worker, "worker"), cache_text(worker, "error"),
                            dry_run ? ""
                                    : "; not confirmed within 5 s: it applies the invalidation "
                                      "before it serves what is dispatched to it from now on");
        }
    }
    if (!cache_has_workers(answer)) {
        fprintf(stderr, "tiermq cache: no worker is joined to this broker%s\n",
                dry_run ? "" : "; those that join apply it before they serve anything");
    }
    return code;
}

static void print_answer(const char *admin, bool dry_run, const json_t *answer)
{
    if (admin != NULL) {
        printf("%s: ", admin);
    }
    if (!dry_run) {
        printf("invalidation %lld is recorded\n", (long long)cache_number(answer, "sequence"));
    } else if (admin != NULL) {
        printf("would remove\n");
    }
    print_removed(answer);
}

/* The broker at cli->admin. `all`: takes the answer, if it is to be printed as JSON. */
static int tell(struct cli *cli, const json_t *body, bool dry_run, bool is_one, json_t *all,
                bool *ret_is_told)
{
    json_t *answer = NULL;
    int code = cli_admin(cli, "/v1/cache/invalidate", body, &answer);
    *ret_is_told = code == EXIT_OK;
    if (code != EXIT_OK) {
        return code;
    }
    if (cli->json) {
        json_array_append_new(all, json_pack("{s:s, s:O}", "admin", cli->admin, "answer", answer));
    } else {
        print_answer(is_one ? NULL : cli->admin, dry_run, answer);
    }
    code = end_of_invalidation(cli, dry_run, answer);
    json_decref(answer);
    return code;
}

static size_t count_of(const char *list)
{
    size_t count = 1;
    for (const char *at = list; (at = strchr(at, ',')) != NULL; at++) {
        count++;
    }
    return count;
}

/* ---- brokers whose admin HTTP is not named ---- */

static struct tiermq_selector selector_of(const json_t *body)
{
    return (struct tiermq_selector){
        .key = json_string_value(json_object_get(body, "key")),
        .scope = json_string_value(json_object_get(body, "scope")),
        .cache_namespace = json_string_value(json_object_get(body, "namespace")),
        .tag = json_string_value(json_object_get(body, "tag")),
        .document = json_string_value(json_object_get(body, "document")),
        .route = json_string_value(json_object_get(body, "route")),
        .model = json_string_value(json_object_get(body, "model")),
        .template_version = json_string_value(json_object_get(body, "template_version")),
        .older_than_ms = json_integer_value(json_object_get(body, "older_than_ms")),
        .text_prefix = json_string_value(json_object_get(body, "text_prefix")),
        .near_text = json_string_value(json_object_get(body, "near_text")),
        .near_min = json_number_value(json_object_get(body, "near_cosine_min")),
    };
}

static bool says_no_more_than_the_tenant(const json_t *body)
{
    const size_t others = (json_object_get(body, "tenant") != NULL ? 1 : 0) +
                          (json_object_get(body, "reason") != NULL ? 1 : 0);
    return json_object_size(body) == others;
}

/* As a client of the tenant, which every broker takes from anywhere. */
static int tell_as_client(struct cli *cli, const json_t *body)
{
    struct tiermq *client = NULL;
    struct tiermq_selector selector = selector_of(body);
    selector.all = says_no_more_than_the_tenant(body);
    if (!cli_connect(cli, NULL, &client)) {
        return cli->exit_code;
    }
    const int64_t timeout_ms = cli->timeout_ms > 0 ? cli->timeout_ms : CLIENT_TIMEOUT_MS;
    const int r = tiermq_invalidate(client, &selector,
                                    json_string_value(json_object_get(body, "reason")), timeout_ms);
    const int code =
        r == 0 ? EXIT_OK
               : cli_fail(cli, EXIT_NOT_SUCCEEDED, "not every broker of %s has recorded it: %s",
                          cli->brokers, r == -EPERM ? tiermq_last_error(client) : strerror(-r));
    tiermq_close(&client);
    return code;
}

/* `told`: how many were, by their admin HTTP. */
static int tell_others(struct cli *cli, const json_t *body, size_t told, bool dry_run)
{
    const size_t brokers = count_of(cli->brokers);
    if (told >= brokers) {
        return EXIT_OK;
    }
    if (dry_run) {
        fprintf(stderr, "tiermq cache: counted by workers of %zu of %zu brokers\n", told, brokers);
        return EXIT_OK;
    }
    if (json_object_get(body, "tenant") != NULL) {
        return tell_as_client(cli, body);
    }
    return cli_fail(cli, EXIT_NOT_SUCCEEDED,
                    "%zu of the %zu brokers %s has recorded it; name the admin HTTP of each, as "
                    "--admin ADDRESS,ADDRESS, or a --tenant, or give the command at each",
                    told, brokers, cli->brokers);
}

/* ---- all ---- */

/* One broker's answer as it is; of several each with its address. */
static int print_all(const struct cli *cli, const json_t *all, bool is_one)
{
    if (!is_one) {
        return cache_print_json(cli, all);
    }
    const json_t *answer = json_object_get(json_array_get(all, 0), "answer");
    return answer == NULL ? EXIT_OK : cache_print_json(cli, answer);
}

int cache_invalidate(struct cli *cli, const json_t *body, bool dry_run)
{
    char *const list = cli->admin;
    char *rest = list;
    json_t *all = json_array();
    const size_t brokers = count_of(list);
    int code = all == NULL ? cli_fail(cli, EXIT_INTERNAL, "out of memory") : EXIT_OK;
    size_t told = 0;
    while (all != NULL && (cli->admin = strsep(&rest, ",")) != NULL) {
        bool is_told = false;
        const int said = tell(cli, body, dry_run, brokers == 1, all, &is_told);
        code = code == EXIT_OK ? said : code;
        told += is_told ? 1 : 0;
    }
    cli->admin = list;
    if (cli->json && told > 0) {
        const int printed = print_all(cli, all, brokers == 1);
        code = code == EXIT_OK ? printed : code;
    }
    json_decref(all);
    if (told < brokers) {
        return code; /* it was said which one did not take it */
    }
    const int others = tell_others(cli, body, told, dry_run);
    return code == EXIT_OK ? others : code;
}
