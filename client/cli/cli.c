#include "client/cli/cli.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "common/choice.h"
#include "common/config.h"

enum {
    OPTION_CONFIG = 1000,
    OPTION_BROKERS,
    OPTION_TENANT,
    OPTION_ADMIN,
    OPTION_JSON,
    OPTION_TIMEOUT,
    OPTION_HELP
};
enum { OPTIONS_MAX = 48, ENDPOINTS_BYTES_MAX = 16 << 10 };

static const struct option common_options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"brokers", required_argument, NULL, OPTION_BROKERS},
    {"tenant", required_argument, NULL, OPTION_TENANT},
    {"admin", required_argument, NULL, OPTION_ADMIN},
    {"json", no_argument, NULL, OPTION_JSON},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"help", no_argument, NULL, OPTION_HELP},
};

static const char common_help[] =
    "\nCommon options:\n"
    "  --config FILE      configuration; else $TIERMQ_CONFIG, ./tiermq.yaml, "
    "/etc/tiermq/tiermq.yaml, defaults\n"
    "  --brokers LIST     tcp://host:port,… instead of client.brokers; no configuration file is "
    "read then but that of --config\n"
    "  --tenant NAME      who pays; instead of client.tenant\n"
    "  --admin ADDRESS    the broker's admin HTTP: host:port or unix:/path; instead of "
    "broker.admin\n"
    "  --timeout TIME     250ms, 30s, 10m … to wait at most\n"
    "  --json             machine-readable output\n"
    "  --help             this text\n"
    "\nExit codes: 0 done; 1 internal; 2 wrong arguments; 3 configuration; 6 no broker answered;\n"
    "7 a job was not accepted; 8 a job ended dead, cancelled, expired or lost\n";

int cli_fail(const struct cli *cli, int exit_code, const char *format, ...)
{
    fprintf(stderr, "tiermq %s: ", cli->command->name);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return exit_code;
}

bool cli_refuse(struct cli *cli, const char *format, ...)
{
    fprintf(stderr, "tiermq %s: ", cli->command->name);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; see tiermq %s --help\n", cli->command->name);
    cli->is_done = true;
    cli->exit_code = EXIT_USAGE;
    return false;
}

bool cli_refuse_verb(struct cli *cli, const char *verb, const char *known)
{
    return verb == NULL ? cli_refuse(cli, "needs one of %s", known)
                        : cli_refuse(cli, "\"%s\" is none of %s", verb, known);
}

/* --------------------------------------------------------------------------------------------
 * reading */

int cli_read_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number)
{
    if (text[0] < '0' || text[0] > '9') {
        return -EINVAL;
    }
    char *end = NULL;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || number < least || number > most) {
        return -EINVAL;
    }
    *ret_number = number;
    return 0;
}

int cli_read_duration(const char *text, int64_t *ret_ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    if (text[0] < '0' || text[0] > '9') {
        return -EINVAL;
    }
    char *end = NULL;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    for (size_t i = 0; errno == 0 && i < ARRAY_LENGTH(units); i++) {
        if (strcmp(end, units[i].unit) == 0 && number <= INT64_MAX / units[i].ms / 1000) {
            *ret_ms = number * units[i].ms;
            return 0;
        }
    }
    return -EINVAL;
}

static bool take_common(struct cli *cli, int code, const char *argument)
{
    switch (code) {
    case OPTION_CONFIG:
        cli->config_path = argument;
        return true;
    case OPTION_BROKERS:
        cli->brokers_option = argument;
        return true;
    case OPTION_TENANT:
        cli->tenant_option = argument;
        return true;
    case OPTION_ADMIN:
        cli->admin_option = argument;
        return true;
    case OPTION_JSON:
        cli->json = true;
        return true;
    case OPTION_TIMEOUT:
        if (cli_read_duration(argument, &cli->timeout_ms) < 0) {
            return cli_refuse(cli, "--timeout: \"%s\" is not a duration; write e.g. 30s", argument);
        }
        return true;
    default: /* OPTION_HELP */
        printf("%s%s", cli->command->help, common_help);
        cli->is_done = true;
        cli->exit_code = EXIT_OK;
        return false;
    }
}

static void join_options(const struct option *own, struct option ret_options[OPTIONS_MAX])
{
    size_t length = 0;
    memset(ret_options, 0, OPTIONS_MAX * sizeof(*ret_options));
    for (size_t i = 0; i < ARRAY_LENGTH(common_options); i++) {
        ret_options[length++] = common_options[i];
    }
    for (; own != NULL && own->name != NULL && length < OPTIONS_MAX - 1; own++) {
        ret_options[length++] = *own;
    }
}

void cli_parse(struct cli *cli, const struct command *command, int argc, char **argv,
               const struct option *own, cli_option_fn *take_own, void *context)
{
    struct option options[OPTIONS_MAX];
    join_options(own, options);
    cli->command = command;
    opterr = 0; /* said here, in the words of the other errors */
    for (;;) {
        /* Afterwards the option is at optind - 1: what is none was moved behind it. */
        const int code = getopt_long(argc, argv, ":", options, NULL);
        if (code == -1) {
            return;
        }
        bool is_good = false;
        if (code == ':') {
            is_good = cli_refuse(cli, "%s needs a value", argv[optind - 1]);
        } else if (code == '?') {
            is_good = cli_refuse(cli, "unknown option %s", argv[optind - 1]);
        } else if (code >= OPTION_CONFIG) {
            is_good = take_common(cli, code, optarg);
        } else {
            is_good = take_own(context, cli, code, optarg);
        }
        if (!is_good) {
            return;
        }
    }
}

/* ----------------------------------------------------------------------------------------
 * configuration */

static char *join(char *const *items, size_t length)
{
    char *joined = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&joined, &bytes);
    if (out == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < length; i++) {
        fprintf(out, "%s%s", i == 0 ? "" : ",", items[i]);
    }
    if (fclose(out) != 0) {
        free(joined);
        return NULL;
    }
    return joined;
}

/* The client's side of an address on which a broker listens. */
static const char *or_option(const char *option, const char *configured)
{
    return option != NULL ? option : configured;
}

static bool fail_memory(struct cli *cli)
{
    cli->is_done = true;
    cli->exit_code = cli_fail(cli, EXIT_INTERNAL, "out of memory");
    return false;
}

static bool keep_effective(struct cli *cli, const struct config *config)
{
    cli->brokers = cli->brokers_option != NULL
                       ? strdup(cli->brokers_option)
                       : join(config->client.brokers, config->client.brokers_length);
    cli->tenant = strdup(or_option(cli->tenant_option, config->client.tenant));
    cli->admin = strdup(or_option(cli->admin_option, config->broker.admin));
    return (cli->brokers != NULL && cli->tenant != NULL && cli->admin != NULL) || fail_memory(cli);
}

/* A file that was not asked for may be another machine's: with --brokers given, nothing in it is
 * needed. */
static bool needs_no_file(const struct cli *cli)
{
    return cli->config_path == NULL && cli->brokers_option != NULL;
}

bool cli_configure(struct cli *cli)
{
    char *path = NULL;
    int r = needs_no_file(cli) ? 0 : config_locate(cli->config_path, &path);
    if (r < 0) {
        return fail_memory(cli);
    }
    struct config *config = NULL;
    struct config_errors errors = {0};
    r = config_read(path, &config, &errors);
    free(path);
    for (size_t i = 0; i < errors.length; i++) {
        fprintf(stderr, "%s\n", errors.items[i].text);
    }
    config_errors_finish(&errors);
    if (r < 0) {
        cli->is_done = true;
        cli->exit_code = EXIT_CONFIG;
        return false;
    }
    const bool is_kept = keep_effective(cli, config);
    config_destroy(&config);
    return is_kept;
}

bool cli_connect(struct cli *cli, const struct tiermq_options *limits, struct tiermq **ret_client)
{
    struct tiermq_options options = {0};
    if (limits != NULL) {
        options = *limits;
    }
    options.brokers = cli->brokers;
    options.tenant = cli->tenant;
    int r = tiermq_connect(&options, ret_client);
    if (r == 0) {
        return true;
    }
    if (r == -EINVAL) {
        return cli_refuse(cli,
                          "--brokers: \"%s\" is no list of endpoints such as tcp://127.0.0.1:7700",
                          cli->brokers);
    }
    cli->is_done = true;
    cli->exit_code = cli_fail(cli, EXIT_INTERNAL, "cannot open a client: %s", strerror(-r));
    return false;
}

void cli_finish(struct cli *cli)
{
    free(cli->brokers);
    free(cli->tenant);
    free(cli->admin);
}

/* ----------------------------------------------------------------------------------------------
 * answers */

const char *cli_state_name(enum tiermq_state state)
{
    static const char *const names[] = {"unknown", "pending",  "succeeded", "dead", "cancelled",
                                        "expired", "rejected", "collected", "lost"};
    return names[state];
}

void cli_state_text(const struct tiermq_answer *answer, char *ret_text)
{
    const char *name = cli_state_name(answer->state);
    const bool says_more = strcmp(name, answer->error_code) != 0;
    snprintf(ret_text, CLI_STATE_TEXT, "%s%s%s", name, says_more ? ": " : "",
             says_more ? answer->error_code : "");
}

int cli_state_exit(enum tiermq_state state)
{
    switch (state) {
    case TIERMQ_SUCCEEDED:
    case TIERMQ_PENDING:
        return EXIT_OK;
    case TIERMQ_REJECTED:
        return EXIT_REJECTED;
    case TIERMQ_UNKNOWN:
    case TIERMQ_DEAD:
    case TIERMQ_CANCELLED:
    case TIERMQ_EXPIRED:
    case TIERMQ_COLLECTED:
    case TIERMQ_LOST:
        break;
    }
    return EXIT_NOT_SUCCEEDED;
}

static const char *cache_name(enum tiermq_cache cache)
{
    static const char *const names[] = {"none", "miss", "hit", "near_hit", "stale_hit"};
    return names[cache];
}

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text[0] != '\0') {
        json_object_set_new(object, key, json_string(text));
    }
}

static void set_body(json_t *object, const struct tiermq_answer *answer)
{
    json_t *body = json_loadb(answer->body, answer->body_bytes, JSON_ALLOW_NUL, NULL);
    if (body != NULL) {
        json_object_set_new(object, "body", body);
    }
}

/* What a near hit can be judged by, and reported with. */
static void set_cache(json_t *object, const struct tiermq_answer *answer)
{
    if (answer->cache_age_ms > 0) {
        json_object_set_new(object, "cache_age_ms", json_integer(answer->cache_age_ms));
    }
    set_text(object, "cache_why", answer->cache_why);
    if (answer->cache == TIERMQ_CACHE_NEAR_HIT) {
        json_object_set_new(object, "near",
                            json_pack("{s:s,s:f,s:f,s:s}", "key", answer->near_key, "score",
                                      answer->near_score, "threshold", answer->near_threshold,
                                      "embedder", answer->embedder));
    }
}

/* Of the job, as `tiermq route replay` reads it. */
static void set_needs(json_t *object, const struct tiermq_answer *answer)
{
    if (answer->complexity > 0) {
        json_object_set_new(object, "prompt_complexity", json_integer(answer->complexity));
    }
    json_t *abilities = answer->abilities == 0 ? NULL : json_array();
    for (size_t i = 0; i < ABILITIES && abilities != NULL; i++) {
        if ((answer->abilities >> i & 1) != 0) {
            json_array_append_new(abilities, json_string(choice_ability_name(i)));
        }
    }
    if (abilities != NULL) {
        json_object_set_new(object, "abilities", abilities);
    }
}

/* What is not saved by the cache or an identical job, and what is known of the cost; where there is
 * something. */
static void set_savings(json_t *object, const struct tiermq_answer *answer)
{
    const struct {
        const char *name;
        json_int_t value;
    } numbers[] = {{"saved_ms", answer->saved_ms},
                   {"saved_prompt_cache_nanousd", (json_int_t)answer->saved_prompt_cache_nanousd},
                   {"saved_routing_nanousd", answer->saved_routing_nanousd}};
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        if (numbers[i].value != 0) {
            json_object_set_new(object, numbers[i].name, json_integer(numbers[i].value));
        }
    }
    if (answer->cost_is_estimated) {
        json_object_set_new(object, "cost_is_estimated", json_true());
    }
}

json_t *cli_answer_json(const struct tiermq_answer *answer, bool with_body)
{
    char id[TIERMQ_ID_TEXT];
    tiermq_id_format(&answer->known_as, id);
    json_t *object = json_pack("{s:s,s:s}", "job", id, "outcome", cli_state_name(answer->state));
    if (object == NULL) {
        return NULL;
    }
    static const tiermq_id none = {{0}};
    if (memcmp(answer->id.bytes, none.bytes, sizeof(none.bytes)) == 0) {
        json_object_del(object, "job"); /* a line that never became one */
    }
    if (answer->state == TIERMQ_SUCCEEDED) {
        json_object_set_new(object, "text", json_string(answer->text));
        set_text(object, "model", answer->model);
        set_text(object, "provider", answer->provider);
        set_text(object, "router_reason", answer->router_reason);
        if (answer->hedged) {
            json_object_set_new(object, "hedged", json_true());
        }
        if (answer->combined > 0) {
            json_object_set_new(object, "combined", json_integer(answer->combined));
        }
        if (answer->quality_lost > 0) {
            json_object_set_new(object, "quality_lost", json_integer(answer->quality_lost));
        }
        if (answer->prompt_is_cut) {
            json_object_set_new(object, "prompt_is_cut", json_true());
        }
        if (answer->prompt_tokens_saved > 0) {
            json_object_set_new(object, "prompt_tokens_saved",
                                json_integer((json_int_t)answer->prompt_tokens_saved));
        }
        json_object_set_new(object, "cache", json_string(cache_name(answer->cache)));
        set_cache(object, answer);
        json_object_set_new(object, "input_tokens", json_integer((json_int_t)answer->input_tokens));
        json_object_set_new(object, "output_tokens",
                            json_integer((json_int_t)answer->output_tokens));
        json_object_set_new(object, "cost_nanousd", json_integer((json_int_t)answer->cost_nanousd));
        json_object_set_new(object, "saved_nanousd",
                            json_integer((json_int_t)answer->saved_nanousd));
        set_savings(object, answer);
    }
    set_needs(object, answer);
    if (answer->error_code[0] != '\0') {
        json_t *error =
            json_pack("{s:s,s:s}", "code", answer->error_code, "text", answer->error_text);
        if (answer->retry_after_ms > 0) {
            json_object_set_new(error, "retry_after_ms", json_integer(answer->retry_after_ms));
        }
        json_object_set_new(object, "error", error);
    }
    const bool is_led = memcmp(answer->led_by.bytes, none.bytes, sizeof(none.bytes)) != 0;
    if (is_led) {
        tiermq_id_format(&answer->led_by, id);
        json_object_set_new(object, "led_by", json_string(id));
    }
    if (answer->attempts > 0 || is_led) {
        set_text(object, "worker", answer->worker);
        json_object_set_new(object, "attempts", json_integer(answer->attempts));
        json_object_set_new(object, "queue_ms", json_integer(answer->queue_ms));
        json_object_set_new(object, "run_ms", json_integer(answer->run_ms));
    }
    if (answer->first_token_ms > 0) {
        json_object_set_new(object, "first_token_ms", json_integer(answer->first_token_ms));
    }
    json_object_set_new(object, "total_us", json_integer(answer->total_us));
    if (answer->body != NULL && (with_body || answer->text[0] == '\0')) {
        set_body(object, answer);
    }
    return object;
}
