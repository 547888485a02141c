/* feedback: says how good the answer of a job was. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cli.h"

enum { FEEDBACK_TIMEOUT_MS = 10000 };

static const char help[] =
    "Usage: tiermq feedback [OPTIONS] JOB --score SCORE [--comment TEXT]\n"
    "\n"
    "Says how good the answer of a job was. It counts once, for the model, route, tier, task and "
    "cache decision that it came\n"
    "from (tiermq quality), and, where routing.learn is on, for which model gets jobs of this "
    "task.\n"
    "\n"
    "  --score SCORE      from 0 (wrong) to 1 (right)\n"
    "  --comment TEXT     for whoever reads the broker's log, 512 bytes at most\n"
    "\n"
    "Of an answer that the cache gave to a similar question, from its line with --json (\"near\"); "
    "below 0.5 it is given no more:\n"
    "  --near-key KEY --embedder NAME --near-score X [--tier TIER]\n"
    "With several brokers, tiermq cache invalidate --key KEY says which of them were told.\n"
    "\n"
    "Examples:\n"
    "  tiermq feedback 01936e2a-7b1c-7def-8a90-123456789abc --score 1\n"
    "  tiermq feedback 01936e2a-7b1c-7def-8a90-123456789abc --score 0.2 --comment 'wrong year'\n";

enum {
    OPTION_SCORE = 1,
    OPTION_COMMENT,
    OPTION_NEAR_KEY,
    OPTION_EMBEDDER,
    OPTION_NEAR_SCORE,
    OPTION_TIER
};

static const struct option own[] = {
    {"score", required_argument, NULL, OPTION_SCORE},
    {"comment", required_argument, NULL, OPTION_COMMENT},
    {"near-key", required_argument, NULL, OPTION_NEAR_KEY},
    {"embedder", required_argument, NULL, OPTION_EMBEDDER},
    {"near-score", required_argument, NULL, OPTION_NEAR_SCORE},
    {"tier", required_argument, NULL, OPTION_TIER},
    {0},
};

struct said {
    bool has_score;
    struct tiermq_feedback feedback;
};

static bool read_real(struct cli *cli, const char *name, const char *text, double *ret_number)
{
    char *end = NULL;
    const double number = strtod(text, &end);
    if (end == text || *end != '\0') {
        return cli_refuse(cli, "--%s is \"%s\", which is no number", name, text);
    }
    *ret_number = number;
    return true;
}

static bool take_own(void *context, struct cli *cli, int code, const char *argument)
{
    struct said *said = context;
    switch (code) {
    case OPTION_SCORE:
        said->has_score = true;
        return read_real(cli, "score", argument, &said->feedback.score);
    case OPTION_COMMENT:
        said->feedback.comment = argument;
        return true;
    case OPTION_NEAR_KEY:
        said->feedback.near_key = argument;
        return true;
    case OPTION_EMBEDDER:
        said->feedback.embedder = argument;
        return true;
    case OPTION_NEAR_SCORE:
        return read_real(cli, "near-score", argument, &said->feedback.near_score);
    case OPTION_TIER:
        said->feedback.tier = argument;
        return true;
    default:
        return false;
    }
}

static int exit_code_of(const struct tiermq *client, int error)
{
    switch (error) {
    case -ETIMEDOUT:
        return tiermq_is_connected(client) ? EXIT_NOT_SUCCEEDED : EXIT_UNREACHABLE;
    case -ENOENT:
    case -EPERM:
    case -EAGAIN:
        return EXIT_REJECTED;
    case -EINVAL:
        return EXIT_USAGE;
    default:
        return EXIT_INTERNAL;
    }
}

static int give(struct cli *cli, const tiermq_id *id, const struct tiermq_feedback *feedback)
{
    struct tiermq *client = NULL;
    if (!cli_connect(cli, NULL, &client)) {
        return cli->exit_code;
    }
    const int r = tiermq_give_feedback(client, id, feedback,
                                       cli->timeout_ms > 0 ? cli->timeout_ms : FEEDBACK_TIMEOUT_MS);
    char whose[CLI_WHOSE_TEXT] = "";
    if (r == -ENOENT) {
        cli_whose_text(cli, whose);
    }
    const int code =
        r < 0 ? cli_fail(cli, exit_code_of(client, r), "%s%s", tiermq_last_error(client), whose)
              : EXIT_OK;
    tiermq_close(&client);
    return code;
}

static int feedback_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    struct said said = {0};
    tiermq_id id = {0};
    cli_parse(&cli, command, argc, argv, own, take_own, &said);
    const bool is_good =
        !cli.is_done && (argc - optind == 1 || cli_refuse(&cli, "needs one job id")) &&
        (tiermq_id_parse(argv[optind], &id) == 0 ||
         cli_refuse(&cli, "\"%s\" is no job id; an id is a UUID of 36 characters", argv[optind])) &&
        (said.has_score || cli_refuse(&cli, "needs --score")) && cli_configure(&cli);
    const int code = is_good ? give(&cli, &id, &said.feedback) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command feedback_command = {"feedback", "say how good an answer was", help,
                                         feedback_run};
