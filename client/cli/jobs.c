/* wait, status (get), cancel: jobs that were submitted before, by whomever, named by their ids. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cli.h"
#include "client/cli/history.h"
#include "common/clock.h"

enum { ASK_TIMEOUT_MS = 10000, OPTION_HISTORY = 1 };

/* What is done with one id. Returns its exit code. */
typedef int job_fn(struct cli *cli, struct tiermq *client, const tiermq_id *id, int64_t until_ms);

static const char wait_help[] =
    "Usage: tiermq wait [OPTIONS] JOB …\n"
    "\n"
    "Waits for the answers of jobs and prints them; with --json, or for more than one job, as JSON "
    "lines. The broker forgets an\n"
    "answer once it has been collected. Without --timeout it waits as long as it takes.\n"
    "\n"
    "Examples:\n"
    "  job=$(tiermq submit --no-wait --tier background 'Write a report')\n"
    "  tiermq wait \"$job\"\n"
    "  tiermq wait --timeout 30s --json \"$job\"\n";

static const char get_help[] =
    "Usage: tiermq status [OPTIONS] JOB …\n"
    "       tiermq get [OPTIONS] JOB …\n"
    "\n"
    "Says where jobs are, without waiting and without collecting their answers: the state, how "
    "many "
    "of the tenant's jobs are\n"
    "ahead, when it may start as far as that is known, and why it waits.\n"
    "\n"
    "  --history          of pending jobs and dead letters: what became of each attempt, from the "
    "broker's admin HTTP\n"
    "\n"
    "Examples:\n"
    "  tiermq status 01936e2a-7b1c-7def-8a90-123456789abc\n"
    "  tiermq status --history 01936e2a-7b1c-7def-8a90-123456789abc\n"
    "  tiermq status --json 01936e2a-7b1c-7def-8a90-123456789abc | jq .starts_in_ms\n";

static const char cancel_help[] = "Usage: tiermq cancel [OPTIONS] JOB …\n"
                                  "\n"
                                  "Asks for the cancellation of jobs and says where they are then. "
                                  "A job that is concluded stays as it is.\n"
                                  "\n"
                                  "Examples:\n"
                                  "  tiermq cancel 01936e2a-7b1c-7def-8a90-123456789abc\n";

static int64_t remains(int64_t until_ms)
{
    return until_ms == INT64_MAX ? INT64_MAX : until_ms - clock_monotonic_ms();
}

/* Not reaching a broker and not hearing from it in time are different things to whoever has to act.
 */
static int fail_call(struct cli *cli, struct tiermq *client, int error)
{
    int code = EXIT_INTERNAL;
    if (error == -ETIMEDOUT) {
        code = tiermq_is_connected(client) ? EXIT_NOT_SUCCEEDED : EXIT_UNREACHABLE;
    } else if (error == -EPERM || error == -EAGAIN) {
        code = EXIT_REJECTED;
    }
    return cli_fail(cli, code, "%s", tiermq_last_error(client));
}

static int print_json(struct cli *cli, json_t *json)
{
    int code = EXIT_OK;
    if (json == NULL || json_dumpf(json, stdout, JSON_COMPACT) < 0) {
        code = cli_fail(cli, EXIT_INTERNAL, "cannot write the answer");
    } else {
        putchar('\n');
    }
    json_decref(json);
    return code;
}

void cli_whose_text(const struct cli *cli, char *ret_text)
{
    (void)snprintf(ret_text, CLI_WHOSE_TEXT,
                   cli->tenant_option == NULL ? " (of tenant %s; --tenant NAME for another)"
                                              : " (of tenant %s)",
                   cli->tenant);
}

static int fail_answer(struct cli *cli, const struct tiermq_answer *answer, int code)
{
    char state[CLI_STATE_TEXT];
    char whose[CLI_WHOSE_TEXT] = "";
    cli_state_text(answer, state);
    if (answer->state == TIERMQ_UNKNOWN) {
        cli_whose_text(cli, whose);
    }
    return cli_fail(cli, code, "%s: %s%s%s", state, answer->error_text,
                    answer->state == TIERMQ_COLLECTED
                        ? "; how it ended: tiermq status JOB, or tiermq dead show JOB"
                        : "",
                    whose);
}

static int print_answer(struct cli *cli, const struct tiermq_answer *answer)
{
    const int code = cli_state_exit(answer->state);
    if (cli->json) {
        const int written = print_json(cli, cli_answer_json(answer, true));
        return written != EXIT_OK ? written : code;
    }
    if (answer->state != TIERMQ_SUCCEEDED) {
        return fail_answer(cli, answer, code);
    }
    const bool has_text = answer->text[0] != '\0' || answer->body == NULL;
    puts(has_text ? answer->text : answer->body); /* a copied body ends with a NUL */
    return code;
}

static int wait_one(struct cli *cli, struct tiermq *client, const tiermq_id *id, int64_t until_ms)
{
    struct tiermq_answer *answer = NULL;
    int r = tiermq_wait(client, id, remains(until_ms), &answer);
    if (r < 0) {
        return fail_call(cli, client, r);
    }
    const int code = print_answer(cli, answer);
    tiermq_answer_free(&answer);
    return code;
}

static int print_status(struct cli *cli, const struct tiermq_status *status)
{
    char id[TIERMQ_ID_TEXT];
    tiermq_id_format(&status->id, id);
    const bool is_unknown = strcmp(status->state, "unknown") == 0;
    const int code = is_unknown ? EXIT_NOT_SUCCEEDED : EXIT_OK;
    if (cli->json) {
        const int written = print_json(
            cli,
            json_pack("{s:s,s:s,s:i,s:I,s:I,s:o,s:s}", "job", id, "state", status->state,
                      "attempts", (int)status->attempts, "waits_ms", (json_int_t)status->waits_ms,
                      "position", (json_int_t)status->position, "starts_in_ms",
                      status->has_estimate ? json_integer(status->starts_in_ms) : json_null(),
                      "why", status->why));
        return written != EXIT_OK ? written : code;
    }
    printf("%s  %s", id, status->state);
    if (status->attempts > 0) {
        printf("  attempts %u", status->attempts);
    }
    if (status->waits_ms > 0) {
        printf("  waits %lld ms", (long long)status->waits_ms);
    }
    if (status->position > 0) {
        printf("  %llu ahead", (unsigned long long)status->position);
    }
    if (status->has_estimate) {
        printf("  starts in about %.1f s", (double)status->starts_in_ms / 1e3);
    }
    char whose[CLI_WHOSE_TEXT] = "";
    if (is_unknown) {
        cli_whose_text(cli, whose);
    }
    printf("%s%s%s\n", status->why[0] == '\0' ? "" : "  ", status->why, whose);
    return code;
}

static int get_one(struct cli *cli, struct tiermq *client, const tiermq_id *id, int64_t until_ms)
{
    struct tiermq_status *status = NULL;
    int r = tiermq_get_status(client, id, remains(until_ms), &status);
    if (r < 0) {
        return fail_call(cli, client, r);
    }
    const int code = print_status(cli, status);
    tiermq_status_free(&status);
    return code;
}

/* The status is asked for behind the cancellation, so it tells what came of it. */
static int cancel_one(struct cli *cli, struct tiermq *client, const tiermq_id *id, int64_t until_ms)
{
    int r = tiermq_cancel(client, id);
    if (r < 0) {
        return fail_call(cli, client, r);
    }
    return get_one(cli, client, id, until_ms);
}

static bool read_ids(struct cli *cli, int argc, char **argv, tiermq_id *ret_ids)
{
    for (int i = 0; i < argc; i++) {
        if (tiermq_id_parse(argv[i], &ret_ids[i]) < 0) {
            return cli_refuse(cli, "\"%s\" is no job id (a UUID)", argv[i]);
        }
    }
    return argc > 0 || cli_refuse(cli, "names no job");
}

/* The first failure is the command's. */
static int for_each_id(struct cli *cli, const tiermq_id *ids, int length, int64_t default_ms,
                       job_fn *act)
{
    struct tiermq *client = NULL;
    if (!cli_connect(cli, NULL, &client)) {
        return cli->exit_code;
    }
    const int64_t timeout_ms = cli->timeout_ms > 0 ? cli->timeout_ms : default_ms;
    const int64_t until_ms =
        timeout_ms == INT64_MAX ? INT64_MAX : clock_monotonic_ms() + timeout_ms;
    int code = EXIT_OK;
    for (int i = 0; i < length; i++) {
        const int one = act(cli, client, &ids[i], until_ms);
        code = code == EXIT_OK ? one : code;
    }
    tiermq_close(&client);
    return code;
}

/* After the options were read. */
static int run_parsed(struct cli *cli, int length, char **texts, int64_t default_ms, job_fn *act)
{
    tiermq_id *ids = calloc((size_t)length + 1, sizeof(*ids));
    int code = EXIT_INTERNAL;
    if (ids == NULL) {
        cli_fail(cli, code, "out of memory");
    } else if (cli->is_done || !read_ids(cli, length, texts, ids) || !cli_configure(cli)) {
        code = cli->exit_code;
    } else {
        cli->json = cli->json || (act == wait_one && length > 1);
        code = for_each_id(cli, ids, length, default_ms, act);
    }
    free(ids);
    return code;
}

static int run_on_ids(const struct command *command, int argc, char **argv, int64_t default_ms,
                      job_fn *act)
{
    struct cli cli = {0};
    cli_parse(&cli, command, argc, argv, NULL, NULL, NULL);
    const int code = run_parsed(&cli, argc - optind, argv + optind, default_ms, act);
    cli_finish(&cli);
    return code;
}

static int wait_run(const struct command *command, int argc, char **argv)
{
    return run_on_ids(command, argc, argv, INT64_MAX, wait_one);
}

/* ---- with history ---- */

static const struct option get_options[] = {{"history", no_argument, NULL, OPTION_HISTORY}, {0}};

static bool take_history(void *context, struct cli *cli, int code, const char *argument)
{
    (void)cli, (void)code, (void)argument;
    bool *with_history = context;
    *with_history = true;
    return true;
}

static int get_history(struct cli *cli, const char *id)
{
    char prefix[64];
    snprintf(prefix, sizeof(prefix), "/v1/jobs/%s", id);
    json_t *parameters = json_pack("{s:s*}", "tenant", cli->tenant_option);
    char *path = cli_admin_path(prefix, parameters);
    json_t *job = NULL;
    const int code = path == NULL ? cli_fail(cli, EXIT_INTERNAL, "out of memory")
                                  : cli_admin(cli, path, NULL, &job);
    json_decref(parameters);
    free(path);
    if (code != EXIT_OK) {
        return code;
    }
    if (cli->json) {
        return print_json(cli, job);
    }
    printf("%s  %s  attempts %lld\n", id, json_string_value(json_object_get(job, "state")),
           (long long)json_integer_value(json_object_get(job, "attempts")));
    history_print(job);
    json_decref(job);
    return EXIT_OK;
}

static int get_histories(struct cli *cli, int length, char **ids)
{
    tiermq_id *parsed = calloc((size_t)length + 1, sizeof(*parsed));
    if (parsed == NULL) {
        return cli_fail(cli, EXIT_INTERNAL, "out of memory");
    }
    int code = EXIT_OK;
    if (!read_ids(cli, length, ids, parsed) || !cli_configure(cli)) {
        code = cli->exit_code;
        length = 0;
    }
    free(parsed);
    for (int i = 0; i < length; i++) {
        const int one = get_history(cli, ids[i]);
        code = code == EXIT_OK ? one : code;
    }
    return code;
}

static int get_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    bool with_history = false;
    cli_parse(&cli, command, argc, argv, get_options, take_history, &with_history);
    const int code = with_history && !cli.is_done
                         ? get_histories(&cli, argc - optind, argv + optind)
                         : run_parsed(&cli, argc - optind, argv + optind, ASK_TIMEOUT_MS, get_one);
    cli_finish(&cli);
    return code;
}

static int cancel_run(const struct command *command, int argc, char **argv)
{
    return run_on_ids(command, argc, argv, ASK_TIMEOUT_MS, cancel_one);
}

const struct command wait_command = {"wait", "wait for the answers of jobs and collect them",
                                     wait_help, wait_run};
const struct command get_command = {"get", "the same as status", get_help, get_run};
const struct command status_command = {"status", "say where jobs are, and why they wait", get_help,
                                       get_run};
const struct command cancel_command = {"cancel", "cancel jobs", cancel_help, cancel_run};
