/* cache: what the workers' caches hold and earn, why they answer or do not, and what becomes of
 * their entries. */
#include "client/cli/cache.h"
#include <stdlib.h>
#include <string.h>

enum { TOP_LENGTH = 20, TOP_LENGTH_MAX = 1000 };
enum {
    OPTION_KEY = 1,
    OPTION_TAG,
    OPTION_DOCUMENT,
    OPTION_NAMESPACE,
    OPTION_SCOPE,
    OPTION_ROUTE,
    OPTION_MODEL,
    OPTION_TEMPLATE,
    OPTION_OLDER,
    OPTION_PREFIX,
    OPTION_NEAR,
    OPTION_NEAR_MIN,
    OPTION_ALL,
    OPTION_REASON,
    OPTION_DRY_RUN,
    OPTION_BY,
    OPTION_LIMIT,
    OPTION_TIER,
};

static const struct option own_options[] = {
    {"key", required_argument, NULL, OPTION_KEY},
    {"tag", required_argument, NULL, OPTION_TAG},
    {"document", required_argument, NULL, OPTION_DOCUMENT},
    {"namespace", required_argument, NULL, OPTION_NAMESPACE},
    {"scope", required_argument, NULL, OPTION_SCOPE},
    {"route", required_argument, NULL, OPTION_ROUTE},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"template-version", required_argument, NULL, OPTION_TEMPLATE},
    {"older-than", required_argument, NULL, OPTION_OLDER},
    {"text-prefix", required_argument, NULL, OPTION_PREFIX},
    {"near", required_argument, NULL, OPTION_NEAR},
    {"near-min", required_argument, NULL, OPTION_NEAR_MIN},
    {"all", no_argument, NULL, OPTION_ALL},
    {"reason", required_argument, NULL, OPTION_REASON},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"by", required_argument, NULL, OPTION_BY},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"tier", required_argument, NULL, OPTION_TIER},
    {0},
};

static const char help[] =
    "Usage: tiermq cache stats\n"
    "       tiermq cache top        [--by saved|hits|bytes] [--limit N] [--tenant NAME] "
    "[--namespace NAME] [--route NAME]\n"
    "       tiermq cache get        KEY\n"
    "       tiermq cache explain    'PROMPT A' 'PROMPT B' [--tier NAME] [--tenant NAME]\n"
    "       tiermq cache invalidate SELECTOR … | --all  [--dry-run] [--reason TEXT]\n"
    "       tiermq cache rebuild    [--scope SCOPE]\n"
    "       tiermq cache export     FILE\n"
    "       tiermq cache import     FILE\n"
    "\n"
    "Each worker has a cache of its own; the broker asks all that are joined, for 5 seconds at "
    "most. "
    "stats adds up what they say. explain\n"
    "tells whether the answer to one prompt would be given to the other, and why. invalidate is "
    "recorded by the broker: workers that are\n"
    "away apply it before they serve anything again. rebuild makes the index of similar questions "
    "anew, of one scope or all, while exact hits are served.\n"
    "export and import take JSON lines; FILE may be -. Answers on the broker's admin HTTP, which "
    "takes changes, and shows texts, on the\n"
    "same machine only.\n"
    "\n"
    "Selectors of invalidate; entries that fit all that are given:\n"
    "  --key KEY, --scope SCOPE       32 hexadecimal digits, as top and get show them\n"
    "  --tag TAG, --document ID       one of those that the job named\n"
    "  --tenant NAME, --namespace NAME, --route NAME\n"
    "                                 of the job; the namespace \"\" is that of jobs that named "
    "none\n"
    "  --model NAME                   that answered\n"
    "  --template-version VERSION     of the job's prompt\n"
    "  --older-than TIME              filled longer ago: 30m, 24h, 7d\n"
    "  --text-prefix TEXT             of the question\n"
    "  --near TEXT [--near-min 0.8]   questions near this one, from 0.1 (hardly) to 1 (the same "
    "words)\n"
    "  --all                          every entry; with no other selector\n"
    "Each broker must be told: --admin ADDRESS,ADDRESS tells several, and with --tenant all in "
    "client.brokers are told as by a client.\n"
    "\n"
    "  --dry-run                      only count\n"
    "  --reason TEXT                  for the broker's log\n"
    "  --by, --limit N                of top: what counts, and how many (20)\n"
    "  --tier NAME                    of explain: whose threshold (standard)\n"
    "\n"
    "Columns of stats, of each worker, and of all together, since it started:\n"
    "  worker             who; building, broken, embedder down with its reason and a silent judge "
    "stand behind the row\n"
    "  entries            answers that are kept\n"
    "  bytes              what they take on disk\n"
    "  memory             what the index of similar questions takes, in bytes\n"
    "  indexed            entries that near hits can find; fewer than entries while vectors are "
    "missing\n"
    "  fills              fresh answers that were stored, compared, or dropped (see below)\n"
    "  failed             answers that could not be stored\n"
    "  late               lookups that waited longer than cache.lookup_timeout, and were misses\n"
    "  evicted            entries removed to keep the bounds of the configuration\n"
    "  expired            entries removed since they were past their time\n"
    "  invalidated        entries removed by invalidations\n"
    "  pending            invalidations that hold already, and whose entries are still being "
    "removed\n"
    "  Below: fills dropped, since they were invalidated before they were stored; damaged entries, "
    "removed; damaged databases, set aside\n"
    "\n"
    "Columns of stats, of jobs by tenant, tier, route and namespace:\n"
    "  tenant … namespace of the job; -: it named no namespace\n"
    "  exact              answered by the entry of the same request\n"
    "  near               answered by the entry of a similar one\n"
    "  stale              answered by an entry past its time\n"
    "  miss               looked up, and nothing served\n"
    "  bypass             not looked up, or not in time; the reasons stand behind the row\n"
    "  hits               share of exact, near and stale in all that were looked up\n"
    "  saved USD          what the answers had cost when they were made\n"
    "  saved s            how long those calls had taken, in seconds\n"
    "  checks USD         what the cache's own jobs cost: refreshes, audits, judges\n"
    "  mean age           of answers when they were served\n"
    "\n"
    "Columns of stats, of near hits by class:\n"
    "  embedder           who compares: embedder, versions, judge\n"
    "  threshold          the score from which on near hits are served; closed: none are\n"
    "  wrong hits         share of near hits that audits found wrong\n"
    "  95 % between       where the true share lies, with that confidence\n"
    "  evidence           audits that this rests on\n"
    "  why closed         what keeps the class closed\n"
    "\n"
    "Ends with 7 when there is no such entry, or some were not taken, and with 8 when a worker "
    "has not answered, or not confirmed an\n"
    "invalidation, in time, or when a broker was not told of it.\n"
    "\n"
    "Examples:\n"
    "  tiermq cache stats --json | jq .all.lookups\n"
    "  tiermq cache top --by hits --limit 5\n"
    "  tiermq cache explain 'How do I cancel my plan?' 'How can I cancel my plan?'\n"
    "  tiermq cache invalidate --document price-list --reason 'new prices'\n"
    "  tiermq cache invalidate --near 'opening hours' --near-min 0.7 --dry-run\n"
    "  tiermq cache export cache.jsonl\n";

struct cache_options {
    json_t *selector; /* as the broker has it; owned */
    const char *by, *reason, *tier;
    uint64_t limit;
    bool all, dry_run;
};

/* ---- options ---- */

static bool select_text(struct cache_options *options, struct cli *cli, const char *member,
                        const char *argument)
{
    return json_object_set_new(options->selector, member, json_string(argument)) == 0 ||
           cli_refuse(cli, "%s: \"%s\" is not UTF-8", member, argument);
}

enum { KEY_DIGITS = 32 };

static bool is_key(const char *text)
{
    return strlen(text) == KEY_DIGITS && strspn(text, "0123456789abcdef") == KEY_DIGITS;
}

static bool select_key(struct cache_options *options, struct cli *cli, const char *member,
                       const char *argument)
{
    if (!is_key(argument)) {
        return cli_refuse(cli,
                          "--%s: \"%s\" is not %d hexadecimal digits; copy them from top or get",
                          member, argument, KEY_DIGITS);
    }
    return select_text(options, cli, member, argument);
}

static bool select_older(struct cache_options *options, struct cli *cli, const char *argument)
{
    int64_t ms = 0;
    if (cli_read_duration(argument, &ms) < 0 || ms == 0) {
        return cli_refuse(cli, "--older-than: \"%s\" is not a duration; write e.g. 24h", argument);
    }
    return json_object_set_new(options->selector, "older_than_ms", json_integer(ms)) == 0;
}

static bool select_near_min(struct cache_options *options, struct cli *cli, const char *argument)
{
    char *end = NULL;
    const double least = strtod(argument, &end);
    const bool is_good = end != argument && *end == '\0' && least >= 0.1 && least <= 1.0;
    if (!is_good) {
        return cli_refuse(cli, "--near-min: \"%s\" is no number from 0.1 to 1", argument);
    }
    return json_object_set_new(options->selector, "near_cosine_min", json_real(least)) == 0;
}

static bool take_by(struct cache_options *options, struct cli *cli, const char *argument)
{
    static const char *const words[] = {"saved", "hits", "bytes"};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (strcmp(argument, words[i]) == 0) {
            options->by = words[i];
            return true;
        }
    }
    return cli_refuse(cli, "--by: \"%s\" is none of saved, hits, bytes", argument);
}

static bool take_option(void *context, struct cli *cli, int code, const char *argument)
{
    struct cache_options *options = context;
    switch (code) {
    case OPTION_KEY:
        return select_key(options, cli, "key", argument);
    case OPTION_TAG:
        return select_text(options, cli, "tag", argument);
    case OPTION_DOCUMENT:
        return select_text(options, cli, "document", argument);
    case OPTION_NAMESPACE:
        return select_text(options, cli, "namespace", argument);
    case OPTION_SCOPE:
        return select_key(options, cli, "scope", argument);
    case OPTION_ROUTE:
        return select_text(options, cli, "route", argument);
    case OPTION_MODEL:
        return select_text(options, cli, "model", argument);
    case OPTION_TEMPLATE:
        return select_text(options, cli, "template_version", argument);
    case OPTION_OLDER:
        return select_older(options, cli, argument);
    case OPTION_PREFIX:
        return select_text(options, cli, "text_prefix", argument);
    case OPTION_NEAR:
        return select_text(options, cli, "near_text", argument);
    case OPTION_NEAR_MIN:
        return select_near_min(options, cli, argument);
    case OPTION_ALL:
        options->all = true;
        return true;
    case OPTION_REASON:
        options->reason = argument;
        return true;
    case OPTION_DRY_RUN:
        options->dry_run = true;
        return true;
    case OPTION_BY:
        return take_by(options, cli, argument);
    case OPTION_LIMIT:
        return cli_read_number(argument, 1, TOP_LENGTH_MAX, &options->limit) == 0 ||
               cli_refuse(cli, "--limit: \"%s\" is not a number from 1 to %d", argument,
                          TOP_LENGTH_MAX);
    default: /* OPTION_TIER */
        options->tier = argument;
        return true;
    }
}

/* ---- asking ---- */

int cache_print_json(const struct cli *cli, const json_t *json)
{
    if (json == NULL || json_dumpf(json, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF) {
        return cli_fail(cli, EXIT_INTERNAL, "cannot write");
    }
    return EXIT_OK;
}

size_t cache_say_errors(const struct cli *cli, const json_t *answer)
{
    size_t i = 0, errors = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const char *error = cache_text(worker, "error");
        if (json_object_get(worker, "answer") == NULL) {
            errors++;
            cli_fail(cli, EXIT_NOT_SUCCEEDED, "worker %s: %s", cache_text(worker, "worker"), error);
        }
    }
    return errors;
}

bool cache_has_workers(const json_t *answer)
{
    return json_array_size(json_object_get(answer, "workers")) > 0;
}

/* What all workers say; there may be none. Takes: `parameters`. */
static int ask(struct cli *cli, const char *path, json_t *parameters, json_t **ret_answer)
{
    char *whole = parameters == NULL ? NULL : cli_admin_path(path, parameters);
    const int code = whole == NULL ? cli_fail(cli, EXIT_USAGE, "arguments must be UTF-8")
                                   : cli_admin(cli, whole, NULL, ret_answer);
    json_decref(parameters);
    free(whole);
    return code;
}

static int code_of(const struct cli *cli, const json_t *answer)
{
    if (!cache_has_workers(answer)) {
        return cli_fail(cli, EXIT_NOT_SUCCEEDED, "no worker is joined to this broker");
    }
    return cache_say_errors(cli, answer) > 0 ? EXIT_NOT_SUCCEEDED : EXIT_OK;
}

/* The first worker that has answered; NULL: none has. */
static const json_t *first_answer(const json_t *answer)
{
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        if (json_object_get(worker, "answer") != NULL) {
            return worker;
        }
    }
    return NULL;
}

/* ---- stats, top, get ---- */

static int show_stats(struct cli *cli)
{
    json_t *answer = NULL;
    int code = ask(cli, "/v1/cache/stats", json_object(), &answer);
    if (code != EXIT_OK) {
        return code;
    }
    json_t *sum = cache_stats_sum(answer);
    if (sum == NULL) {
        code = cli_fail(cli, EXIT_INTERNAL, "out of memory");
    } else if (cli->json) {
        json_object_set(answer, "all", sum);
        code = cache_print_json(cli, answer);
    } else if (first_answer(answer) != NULL) {
        cache_stats_print(answer, sum, stdout);
    }
    code = code == EXIT_OK ? code_of(cli, answer) : code;
    json_decref(sum);
    json_decref(answer);
    return code;
}

static int show_top(struct cli *cli, const struct cache_options *options)
{
    json_t *answer = NULL;
    const uint64_t limit = options->limit > 0 ? options->limit : TOP_LENGTH;
    int code = ask(cli, "/v1/cache/top",
                   json_pack("{s:s, s:I, s:s*, s:O*, s:O*}", "by", options->by, "limit",
                             (json_int_t)limit, "tenant", cli->tenant_option, "namespace",
                             json_object_get(options->selector, "namespace"), "route",
                             json_object_get(options->selector, "route")),
                   &answer);
    if (code != EXIT_OK) {
        return code;
    }
    json_t *entries = cache_top_merge(answer, options->by, (size_t)limit);
    if (entries == NULL) {
        code = cli_fail(cli, EXIT_INTERNAL, "out of memory");
    } else if (cli->json) {
        code = cache_print_json(cli, entries);
    } else if (json_array_size(entries) == 0) {
        printf("no entries\n");
    } else {
        cache_top_print(entries, stdout);
    }
    code = code == EXIT_OK ? code_of(cli, answer) : code;
    json_decref(entries);
    json_decref(answer);
    return code;
}

static void print_entry(const json_t *worker)
{
    static const char *const shown[] = {"tenant", "namespace", "route", "model", "text"};
    const json_t *entry = json_object_get(worker, "answer");
    printf("%s  at worker %s\n", cache_text(entry, "key"), cache_text(worker, "worker"));
    for (size_t i = 0; i < ARRAY_LENGTH(shown); i++) {
        if (cache_text(entry, shown[i])[0] != '\0') {
            printf("%s: %s\n", shown[i], cache_text(entry, shown[i]));
        }
    }
    printf("%lld hits, %.6f USD saved, %lld bytes, filled %.0f s ago\n",
           (long long)cache_number(entry, "hits"), cache_real(entry, "saved_usd"),
           (long long)cache_number(entry, "bytes"), cache_real(entry, "age_ms") / 1000.0);
    printf("body: %s\n", cache_text(entry, "body"));
}

/* Any worker may have it: what the others say in its place is of no interest then. */
static int show_entry(struct cli *cli, const char *key)
{
    json_t *answer = NULL;
    int code = ask(cli, "/v1/cache/get", json_pack("{s:s}", "key", key), &answer);
    if (code != EXIT_OK) {
        return code;
    }
    if (first_answer(answer) == NULL) {
        code = code_of(cli, answer);
        code = cache_has_workers(answer) ? EXIT_REJECTED : code;
    } else if (cli->json) {
        code = cache_print_json(cli, answer);
    } else {
        size_t i = 0;
        const json_t *worker = NULL;
        json_array_foreach (json_object_get(answer, "workers"), i, worker) {
            if (json_object_get(worker, "answer") != NULL) {
                print_entry(worker);
            }
        }
    }
    json_decref(answer);
    return code;
}

/* ---- explain ---- */

static const char *meaning_of(const char *verdict)
{
    static const char *const meanings[][2] = {
        {"near", "the answer to one would be given to the other"},
        {"unsure", "the score does not reach the threshold: each gets an answer of its own"},
        {"off", "near hits are off (cache.mode): each gets an answer of its own"},
        {"closed", "this class gives no near hits now: each gets an answer of its own"},
        {"forbidden", "they differ in something that changes the answer, whatever the score"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(meanings); i++) {
        if (strcmp(verdict, meanings[i][0]) == 0) {
            return meanings[i][1];
        }
    }
    return "";
}

static void print_explanation(const json_t *worker)
{
    const json_t *explanation = json_object_get(worker, "answer");
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach (json_object_get(explanation, "features"), name, value) {
        printf("%-28s %10.4f\n", name, json_number_value(value));
    }
    if (json_object_get(json_object_get(explanation, "features"), "cosine") == NULL) {
        printf("%-28s %10.4f\n", "cosine", cache_real(explanation, "cosine"));
    }
    printf("%-28s %10.4f\n", "score", cache_real(explanation, "score"));
    if (json_is_number(json_object_get(explanation, "threshold"))) {
        printf("%-28s %10.4f\n", "threshold", cache_real(explanation, "threshold"));
    } else {
        printf("%-28s %10s\n", "threshold", "closed");
    }
    if (cache_text(explanation, "forbidden")[0] != '\0') {
        printf("%-28s %s\n", "forbidden by", cache_text(explanation, "forbidden"));
    }
    const char *verdict = cache_text(explanation, "verdict");
    printf("%s: %s (worker %s)\n", verdict, meaning_of(verdict), cache_text(worker, "worker"));
}

/* Workers alone know which texts can be compared; their words begin with the argument's name. */
static bool prompts_are_wrong(const json_t *answer)
{
    size_t i = 0, wrong = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const char *error = cache_text(worker, "error");
        wrong += strncmp(error, "a: ", 3) == 0 || strncmp(error, "b: ", 3) == 0 ? 1 : 0;
    }
    return wrong > 0 && wrong == json_array_size(json_object_get(answer, "workers"));
}

static int explain(struct cli *cli, const struct cache_options *options, char **texts)
{
    json_t *answer = NULL;
    int code = ask(cli, "/v1/cache/explain",
                   json_pack("{s:s, s:s, s:s*, s:s*}", "a", texts[0], "b", texts[1], "tier",
                             options->tier, "tenant", cli->tenant_option),
                   &answer);
    if (code != EXIT_OK) {
        return code;
    }
    const json_t *worker = first_answer(answer);
    if (worker == NULL) {
        code = code_of(cli, answer);
        code = prompts_are_wrong(answer) ? EXIT_USAGE : code;
    } else if (cli->json) {
        code = cache_print_json(cli, worker);
    } else {
        print_explanation(worker);
    }
    json_decref(answer);
    return code;
}

/* ---- invalidate, rebuild ---- */

static json_t *invalidation_body(const struct cli *cli, const struct cache_options *options)
{
    json_t *body = json_deep_copy(options->selector);
    json_t *more =
        json_pack("{s:s*, s:s*}", "tenant", cli->tenant_option, "reason", options->reason);
    if (body != NULL && more != NULL && options->all) {
        json_object_set_new(more, "all", json_true());
    }
    if (body != NULL && more != NULL && options->dry_run) {
        json_object_set_new(more, "dry_run", json_true());
    }
    if (body != NULL && (more == NULL || json_object_update(body, more) < 0)) {
        json_decref(body);
        body = NULL;
    }
    json_decref(more);
    return body;
}

static int invalidate(struct cli *cli, const struct cache_options *options)
{
    json_t *body = invalidation_body(cli, options);
    const int code = body == NULL ? cli_fail(cli, EXIT_USAGE, "selectors must be UTF-8")
                                  : cache_invalidate(cli, body, options->dry_run);
    json_decref(body);
    return code;
}

/* The selector holds a scope, or nothing. */
static int rebuild(struct cli *cli, const struct cache_options *options)
{
    json_t *answer = NULL;
    int code = cli_admin(cli, "/v1/cache/rebuild", options->selector, &answer);
    if (code != EXIT_OK) {
        return code;
    }
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        if (!cli->json && json_object_get(worker, "answer") != NULL) {
            printf("%s  started; tiermq cache stats tells how far it is\n",
                   cache_text(worker, "worker"));
        }
    }
    code = cli->json ? cache_print_json(cli, answer) : code;
    code = code == EXIT_OK ? code_of(cli, answer) : code;
    json_decref(answer);
    return code;
}

/* ---- the command ---- */

static const struct verb {
    const char *name;
    int arguments;
    const char *takes;
} verbs[] = {
    {"stats", 0, "nothing"},
    {"top", 0, "options alone"},
    {"get", 1, "a key"},
    {"explain", 2, "two prompts"},
    {"invalidate", 0, "selectors alone"},
    {"rebuild", 0, "--scope alone"},
    {"export", 1, "a file"},
    {"import", 1, "a file"},
};

static bool check_verb(struct cli *cli, int argc, char **argv)
{
    const char *name = argc > 0 ? argv[0] : "";
    for (size_t i = 0; i < ARRAY_LENGTH(verbs); i++) {
        if (strcmp(name, verbs[i].name) == 0) {
            return argc - 1 == verbs[i].arguments ||
                   cli_refuse(cli, "%s takes %s", name, verbs[i].takes);
        }
    }
    return cli_refuse_verb(cli, argc > 0 ? name : NULL,
                           "stats, top, get, explain, invalidate, rebuild, export, import");
}

/* Of a verb that has as many as it takes. */
static bool check_arguments(struct cli *cli, char **argv)
{
    if (strcmp(argv[0], "get") == 0 && !is_key(argv[1])) {
        return cli_refuse(cli, "KEY: \"%s\" is not %d hexadecimal digits; copy them from top",
                          argv[1], KEY_DIGITS);
    }
    if (strcmp(argv[0], "explain") == 0 && (argv[1][0] == '\0' || argv[2][0] == '\0')) {
        return cli_refuse(cli, "PROMPT %s: \"\" is empty; write a question",
                          argv[1][0] == '\0' ? "A" : "B");
    }
    return true;
}

/* Of another verb than invalidate: those that it knows what to do with. */
static bool selectors_fit(const char *verb, const json_t *selector)
{
    static const char *const known[][2] = {
        {"top", "namespace"}, {"top", "route"}, {"rebuild", "scope"}};
    size_t n_known = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        if (strcmp(verb, known[i][0]) == 0 && json_object_get(selector, known[i][1]) != NULL) {
            n_known++;
        }
    }
    return n_known == json_object_size(selector);
}

/* Nothing is done to all by leaving something out, and nothing that was asked for is left undone.
 */
static bool check(struct cli *cli, const struct cache_options *options, int argc, char **argv)
{
    if (!check_verb(cli, argc, argv) || !check_arguments(cli, argv)) {
        return false;
    }
    const bool invalidates = strcmp(argv[0], "invalidate") == 0;
    const bool has_near_min = json_object_get(options->selector, "near_cosine_min") != NULL;
    const size_t own = json_object_size(options->selector) - (has_near_min ? 1 : 0);
    const bool has_selector = own > 0 || (invalidates && cli->tenant_option != NULL);
    if (!invalidates &&
        (!selectors_fit(argv[0], options->selector) || options->all || options->dry_run)) {
        return cli_refuse(cli, "selectors, --all and --dry-run are for invalidate; top takes "
                               "--namespace and --route, rebuild --scope");
    }
    if (has_near_min && json_object_get(options->selector, "near_text") == NULL) {
        return cli_refuse(cli, "--near-min needs --near");
    }
    if (invalidates && has_selector == options->all) {
        return cli_refuse(cli, options->all ? "--all goes with no other selector"
                                            : "invalidate needs a selector, or --all");
    }
    return true;
}

static int carry_out(struct cli *cli, const struct cache_options *options, char **argv)
{
    const char *verb = argv[0];
    if (strcmp(verb, "stats") == 0) {
        return show_stats(cli);
    }
    if (strcmp(verb, "top") == 0) {
        return show_top(cli, options);
    }
    if (strcmp(verb, "get") == 0) {
        return show_entry(cli, argv[1]);
    }
    if (strcmp(verb, "explain") == 0) {
        return explain(cli, options, argv + 1);
    }
    if (strcmp(verb, "invalidate") == 0) {
        return invalidate(cli, options);
    }
    if (strcmp(verb, "rebuild") == 0) {
        return rebuild(cli, options);
    }
    return strcmp(verb, "export") == 0 ? cache_export(cli, argv[1]) : cache_import(cli, argv[1]);
}

static int cache_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    struct cache_options options = {.selector = json_object(), .by = "saved"};
    cli_parse(&cli, command, argc, argv, own_options, take_option, &options);
    const int length = argc - optind;
    char **rest = argv + optind;
    const bool is_good = !cli.is_done && check(&cli, &options, length, rest) && cli_configure(&cli);
    const int code = is_good ? carry_out(&cli, &options, rest) : cli.exit_code;
    json_decref(options.selector);
    cli_finish(&cli);
    return code;
}

const struct command cache_command = {"cache", "show, explain, invalidate and move what is cached",
                                      help, cache_run};
