/* tiermq-modelsim: a simulated model server for first steps, tests and load. See docs/modelsim.md. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/exit_codes.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/time_slice.h"
#include "tests/modelsim/server.h"

static const char usage[] =
    "Usage: tiermq-modelsim [OPTION]...\n"
    "A simulated model server: OpenAI chat, completions, embeddings, responses and models (and Azure's), Anthropic messages,\n"
    "Google generateContent.\n"
    "\n"
    "  --listen HOST:PORT     where to serve (127.0.0.1:7790; port 0 takes any free one)\n"
    "  --seed N               decides the answers together with model and prompt (1)\n"
    "  --model NAME           serve this model too, repeatable; sim-small, sim-medium, sim-large and\n"
    "                         sim-embed are always served\n"
    "  --tokens MIN:MAX       length of an answer (8:48)\n"
    "  --first-token-ms N     time to the first token (0)\n"
    "  --tokens-per-s N       speed of an answer; 0: all at once (0)\n"
    "  --jitter PERCENT       each request is faster or slower by up to so much (0)\n"
    "  --slots N              requests served at full speed; more share it; 0: any number (0)\n"
    "  --faults FILE          fault script, see docs/modelsim.md\n"
    "  --requests-per-min N   rate limit of each API key; more are answered with 429; 0: none (0)\n"
    "  --tokens-per-min N     likewise, in tokens of prompt and answer (0)\n"
    "  --limit-burst SECONDS  what may come at once, as seconds of the rate (1)\n"
    "  --no-limit-headers     say nothing of the limits but in a 429\n"
    "  --api-key KEY          refuse requests without this key (any is taken)\n"
    "  --calls FILE           append two lines for each call: that it began, and how it ended\n"
    "  --prompt-cache PERCENT say that so much of each prompt was in the prompt cache (0)\n"
    "  --prefix-cache SECONDS instead: keep long beginnings of prompts so long, as OpenAI does (all) and Anthropic (marked ones)\n"
    "  --ignore WORD,WORD     answers do not depend on these words: a prompt with or without them is answered alike\n"
    "  --alike                all models give the same answers\n"
    "  --stamp                say in each chunk of a stream when it was written: \"sent_us\", monotonic\n"
    "  --help, --version\n"
    "\n"
    "Examples:\n"
    "  tiermq-modelsim --first-token-ms 40 --tokens-per-s 200 --jitter 20\n"
    "  curl -s http://127.0.0.1:7790/control/faults -d '{\"faults\":[{\"kind\":\"status\",\"status\":429,\"rate\":0.3}]}'\n"
    "\n"
    "Exit codes: 0 stopped by a signal, 1 internal, 2 wrong arguments, 3 bad fault script, 4 address in use.\n";

enum option_code { OPTION_LISTEN = 1000, OPTION_SEED, OPTION_MODEL, OPTION_TOKENS, OPTION_FIRST, OPTION_SPEED, OPTION_JITTER,
              OPTION_SLOTS, OPTION_FAULTS, OPTION_KEY, OPTION_REQUESTS, OPTION_TOKENS_PER_MIN, OPTION_BURST, OPTION_NO_HEADERS,
              OPTION_CALLS, OPTION_STAMP, OPTION_PROMPT_CACHE, OPTION_PREFIX_CACHE, OPTION_IGNORE, OPTION_ALIKE, OPTION_HELP, OPTION_VERSION };

static const struct option long_options[] = {
    {"listen", required_argument, NULL, OPTION_LISTEN},       {"seed", required_argument, NULL, OPTION_SEED},
    {"model", required_argument, NULL, OPTION_MODEL},         {"tokens", required_argument, NULL, OPTION_TOKENS},
    {"first-token-ms", required_argument, NULL, OPTION_FIRST}, {"tokens-per-s", required_argument, NULL, OPTION_SPEED},
    {"jitter", required_argument, NULL, OPTION_JITTER},       {"slots", required_argument, NULL, OPTION_SLOTS},
    {"faults", required_argument, NULL, OPTION_FAULTS},       {"api-key", required_argument, NULL, OPTION_KEY},
    {"requests-per-min", required_argument, NULL, OPTION_REQUESTS},
    {"tokens-per-min", required_argument, NULL, OPTION_TOKENS_PER_MIN},
    {"limit-burst", required_argument, NULL, OPTION_BURST},
    {"no-limit-headers", no_argument, NULL, OPTION_NO_HEADERS},
    {"calls", required_argument, NULL, OPTION_CALLS},         {"stamp", no_argument, NULL, OPTION_STAMP},
    {"prompt-cache", required_argument, NULL, OPTION_PROMPT_CACHE},
    {"prefix-cache", required_argument, NULL, OPTION_PREFIX_CACHE},
    {"ignore", required_argument, NULL, OPTION_IGNORE},
    {"alike", no_argument, NULL, OPTION_ALIKE},
    {"help", no_argument, NULL, OPTION_HELP},                 {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

struct arguments {
    struct server_options server;
    char host[64];
    const char *faults_path;
};

/* Errors: -EINVAL (said on standard error). */
static int read_number(const char *option, const char *text, double max, double *ret_number)
{
    char *end = NULL;
    double number = strtod(text, &end);
    if (end == text || *end != '\0' || !(number >= 0 && number <= max)) {
        fprintf(stderr, "tiermq-modelsim: --%s: \"%s\" is not a number from 0 to %.0f\n", option, text, max);
        return -EINVAL;
    }
    *ret_number = number;
    return 0;
}

static int read_listen(const char *text, struct arguments *arguments)
{
    const char *colon = strrchr(text, ':');
    double port = 0;
    if (colon == NULL || (size_t)(colon - text) >= sizeof(arguments->host)) {
        fprintf(stderr, "tiermq-modelsim: --listen: \"%s\" is not HOST:PORT, for example 127.0.0.1:7790\n", text);
        return -EINVAL;
    }
    int r = read_number("listen", colon + 1, 65535, &port);
    if (r < 0) {
        return r;
    }
    snprintf(arguments->host, sizeof(arguments->host), "%.*s", (int)(colon - text), text);
    arguments->server.port = (uint16_t)port;
    return 0;
}

static int read_tokens(const char *text, struct model_style *style)
{
    unsigned int min = 0, max = 0;
    char rest = 0;
    if (sscanf(text, "%7u:%7u%c", &min, &max, &rest) != 2 || min < 1 || max < min || max > 100000) {
        fprintf(stderr, "tiermq-modelsim: --tokens: \"%s\" is not MIN:MAX with 1 <= MIN <= MAX <= 100000\n", text);
        return -EINVAL;
    }
    style->tokens_min = min;
    style->tokens_max = max;
    return 0;
}

static int add_model(struct server_options *server, const char *name)
{
    if (server->models_length == SERVER_MODELS_MAX || name[0] == '\0' || strpbrk(name, "\"\\") != NULL) {
        fprintf(stderr, "tiermq-modelsim: --model: \"%s\" is no usable name, or there are more than %d\n", name, SERVER_MODELS_MAX);
        return -EINVAL;
    }
    server->models[server->models_length++] = name;
    return 0;
}

static int read_option(int option, struct arguments *arguments)
{
    struct server_options *server = &arguments->server;
    double number = 0;
    int r = 0;
    switch (option) {
    case OPTION_LISTEN:
        return read_listen(optarg, arguments);
    case OPTION_SEED:
        r = read_number("seed", optarg, 9e15, &number);
        server->seed = r == 0 ? (uint64_t)number : 0;
        return r;
    case OPTION_MODEL:
        return add_model(server, optarg);
    case OPTION_TOKENS:
        return read_tokens(optarg, &server->style);
    case OPTION_FIRST:
        return read_number("first-token-ms", optarg, 1e7, &server->latency.first_token_ms);
    case OPTION_SPEED:
        return read_number("tokens-per-s", optarg, 1e9, &server->latency.tokens_per_s);
    case OPTION_JITTER:
        return read_number("jitter", optarg, 100, &server->latency.jitter_percent);
    case OPTION_SLOTS:
        return read_number("slots", optarg, 1e6, &server->latency.slots);
    case OPTION_FAULTS:
        arguments->faults_path = optarg;
        return 0;
    case OPTION_KEY:
        server->api_key = optarg;
        return 0;
    case OPTION_CALLS:
        server->calls_path = optarg;
        return 0;
    case OPTION_PROMPT_CACHE:
        return read_number("prompt-cache", optarg, 100, &server->prompt_cache_percent);
    case OPTION_PREFIX_CACHE:
        return read_number("prefix-cache", optarg, 1e6, &server->prefix_cache_s);
    case OPTION_IGNORE:
        server->style.ignored = optarg;
        return 0;
    case OPTION_ALIKE:
        server->style.is_alike = true;
        return 0;
    case OPTION_STAMP:
        server->with_stamps = true;
        return 0;
    case OPTION_REQUESTS:
        return read_number("requests-per-min", optarg, 1e9, &server->rates.requests_per_min);
    case OPTION_TOKENS_PER_MIN:
        return read_number("tokens-per-min", optarg, 1e12, &server->rates.tokens_per_min);
    case OPTION_BURST:
        return read_number("limit-burst", optarg, 3600, &server->rates.burst_s);
    case OPTION_NO_HEADERS:
        server->rates.without_headers = true;
        return 0;
    default:
        fprintf(stderr, "Try 'tiermq-modelsim --help'.\n");
        return -EINVAL;
    }
}

static int read_faults(struct arguments *arguments)
{
    if (arguments->faults_path == NULL) {
        return 0;
    }
    json_error_t json_error;
    json_t *script = json_load_file(arguments->faults_path, 0, &json_error);
    char why[FAULTS_ERROR_BYTES];
    int r = -EINVAL;
    if (script == NULL && json_error.line < 0) { /* the words have the path */
        fprintf(stderr, "tiermq-modelsim: --faults: %s\n", json_error.text);
        return r;
    }
    if (script == NULL) {
        snprintf(why, sizeof(why), "line %d: %s", json_error.line, json_error.text);
    } else {
        r = faults_read(&arguments->server.faults, script, clock_monotonic_ms(), why);
    }
    if (r < 0) {
        fprintf(stderr, "tiermq-modelsim: --faults %s: %s\n", arguments->faults_path, why);
    }
    json_decref(script);
    return r;
}

static void on_signal(void *context, int signal_number)
{
    if (signal_number != SIGHUP) {
        loop_stop(context);
    }
}

static enum exit_code serve(struct arguments *arguments)
{
    CLEANUP(log_destroy) struct log *log = NULL;
    CLEANUP(loop_destroy) struct loop *loop = NULL;
    CLEANUP(server_destroy) struct server *server = NULL;
    if (log_create("modelsim", LOG_INFO, STDERR_FILENO, &log) < 0 || loop_create(&loop) < 0 ||
        loop_watch_signals(loop, on_signal, loop) < 0) {
        fprintf(stderr, "tiermq-modelsim: cannot start: %s\n", strerror(errno));
        return EXIT_INTERNAL;
    }
    arguments->server.host = arguments->host;
    int r = server_create(loop, &arguments->server, &server);
    if (r < 0) {
        fprintf(stderr, "tiermq-modelsim: cannot serve on %s:%u: %s; choose another with --listen\n", arguments->host,
                (unsigned int)arguments->server.port, strerror(-r));
        return r == -EADDRINUSE || r == -EINVAL || r == -EACCES || r == -EADDRNOTAVAIL ? EXIT_ADDRESS : EXIT_INTERNAL;
    }
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "http://%s:%u", arguments->host, (unsigned int)server_port(server));
    log_at(log, LOG_INFO, "ready", log_text("http", endpoint));
    return loop_run(loop) < 0 ? EXIT_INTERNAL : EXIT_OK;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {
        .server = {.port = 7790,
                   .seed = 1,
                   .models = {"sim-small", "sim-medium", "sim-large", "sim-embed"},
                   .models_length = 4,
                   .style = {.tokens_min = 8, .tokens_max = 48},
                   .rates = {.burst_s = 1}},
        .host = "127.0.0.1",
    };
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPTION_HELP) {
            fputs(usage, stdout);
            return EXIT_OK;
        }
        if (option == OPTION_VERSION) {
            puts("tiermq-modelsim " TIERMQ_BUILD_VERSION);
            return EXIT_OK;
        }
        if (read_option(option, &arguments) < 0) {
            return EXIT_USAGE;
        }
    }
    if (arguments.server.prompt_cache_percent > 0 && arguments.server.prefix_cache_s > 0) {
        fprintf(stderr, "tiermq-modelsim: --prompt-cache and --prefix-cache: give one of them\n");
        return EXIT_USAGE;
    }
    if (optind < argc) {
        fprintf(stderr, "tiermq-modelsim: \"%s\" is not expected; try 'tiermq-modelsim --help'\n", argv[optind]);
        return EXIT_USAGE;
    }
    arguments.server.faults.random = arguments.server.seed * 2 + 1; /* xorshift must not start at zero */
    arguments.server.latency.random = arguments.server.seed;
    time_slice_shorten(); /* it stands for another machine, which does not wait for this one's processor */
    return read_faults(&arguments) < 0 ? EXIT_CONFIG : serve(&arguments);
}
