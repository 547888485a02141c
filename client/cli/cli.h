/*
 * cli: what the commands of `tiermq` share: options, configuration, the client, the broker's admin HTTP, and how things are said.
 *
 * Results go to standard output, everything else (progress, errors, notes) to standard error. Every command ends with a code of
 * common/exit_codes.h.
 */
#pragma once
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/exit_codes.h"

struct config;

enum { CLI_CONNECT_TIMEOUT_MS = 10000 };

/* One command; `help` is its whole text, with examples. */
struct command {
    const char *name;
    const char *summary;
    const char *help;
    int (*run)(const struct command *command, int argc, char **argv);
};

extern const struct command submit_command, wait_command, get_command, status_command, cancel_command, stats_command, config_command,
    pause_command, resume_command, drain_command, dead_command, upstreams_command, cache_command,
    explain_command, cost_command, feedback_command, quality_command, route_command;

/* What the common options say. Begin with zeros; released with cli_finish(). */
struct cli {
    const struct command *command;
    const char *config_path; /* --config */
    const char *brokers_option, *tenant_option, *admin_option;
    bool json;
    int64_t timeout_ms; /* --timeout; 0: the command's own */
    bool is_done;       /* --help was answered, or the arguments are wrong: end with exit_code */
    int exit_code;
    char *brokers; /* effective; set by cli_configure() */
    char *tenant;
    char *admin;
};

/* An option of a command alone: its code (below 1000) and argument. Returns false when the argument is wrong and said so. */
typedef bool cli_option_fn(void *context, struct cli *cli, int code, const char *argument);

/*
 * Reads all options: the common ones and `own` (ended by zeros, may be NULL). What remains is argv[optind …].
 * Afterwards is_done says whether to go on.
 */
void cli_parse(struct cli *cli, const struct command *command, int argc, char **argv, const struct option *own,
               cli_option_fn *take_own, void *context);
/* Finds brokers, tenant and admin address: options first, then the configuration file. Returns false with is_done set. */
bool cli_configure(struct cli *cli);
/* Opens the client. Gives: *ret_client. Returns false with is_done set. */
bool cli_connect(struct cli *cli, const struct tiermq_options *limits, struct tiermq **ret_client);
void cli_finish(struct cli *cli);

/* "tiermq submit: …" on standard error. Returns `exit_code`. */
int cli_fail(const struct cli *cli, int exit_code, const char *format, ...) PRINTF_LIKE(3, 4);
/* A wrong argument: says so and where help is, sets is_done and EXIT_USAGE. Returns false. */
bool cli_refuse(struct cli *cli, const char *format, ...) PRINTF_LIKE(2, 3);
/* Likewise, of a word that is none of `known` ("list, show"); NULL: none was given. */
bool cli_refuse_verb(struct cli *cli, const char *verb, const char *known);
/* 250ms, 30s, 10m, 24h, 7d; a plain number is seconds. Errors: -EINVAL. */
MUST_USE int cli_read_duration(const char *text, int64_t *ret_ms);
/* Errors: -EINVAL no whole number from `least` to `most`. */
MUST_USE int cli_read_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number);

/* "succeeded", "expired" … */
const char *cli_state_name(enum tiermq_state state);
enum { CLI_STATE_TEXT = 320 };
/* For people: "dead: attempts_exhausted"; the state alone where the code says the same. `ret_text` has CLI_STATE_TEXT bytes. */
void cli_state_text(const struct tiermq_answer *answer, char *ret_text);
enum { CLI_WHOSE_TEXT = 320 };
/* " (of tenant default; --tenant NAME for another)": ids are known by tenant, so behind one that nobody knows stands whose it was
 * looked for as. `ret_text` has CLI_WHOSE_TEXT bytes. */
void cli_whose_text(const struct cli *cli, char *ret_text);
/* Of one job: EXIT_OK, EXIT_REJECTED or EXIT_NOT_SUCCEEDED. */
int cli_state_exit(enum tiermq_state state);
/* The answer as one JSON object. Gives: a new reference, NULL when out of memory. */
json_t *cli_answer_json(const struct tiermq_answer *answer, bool with_body);

/* Gives: a path with `parameters`, an object of strings and integers, as its query; NULL: no memory. */
char *cli_admin_path(const char *path, const json_t *parameters);
/*
 * One request to the broker's admin HTTP; `body` NULL is a GET, else a POST of JSON.
 * Gives: *ret_answer, a new reference. On failure says why and returns the exit code.
 */
MUST_USE int cli_admin(struct cli *cli, const char *path, const json_t *body, json_t **ret_answer);
/* Shows an answer, which it takes: as it is with --json, else by `print`. Returns the exit code. */
int cli_show(struct cli *cli, json_t *answer, void (*print)(const json_t *answer));
/* Both. */
int cli_admin_show(struct cli *cli, const char *path, const json_t *body, void (*print)(const json_t *answer));
