/* explain: why a job was given to its model, and why not to another. */
#include "client/cli/cli.h"

static const char help[] = "Usage: tiermq explain [OPTIONS] JOB\n"
                           "\n"
                           "Says why the broker gave a job to the model that it gave it to: how "
                           "complex its prompt is, what "
                           "was known of\neach model then, and why the others lost. Of the latest "
                           "1024 decisions that had a "
                           "choice; the answer of any\njob has it as router_reason.\n"
                           "\n"
                           "Examples:\n"
                           "  tiermq explain 01a2b3c4-0000-7000-8000-000000000000\n"
                           "  tiermq explain 01a2b3c4-0000-7000-8000-000000000000 --json\n";

/* A line for each part: they are separated by semicolons. */
static void print_decision(const json_t *answer)
{
    const char *text = json_string_value(json_object_get(answer, "decision"));
    printf("attempt %lld: ", (long long)json_integer_value(json_object_get(answer, "attempt")));
    for (const char *at = text == NULL ? "" : text; *at != '\0'; at++) {
        if (at[0] == ';' && at[1] == ' ') {
            fputs("\n  ", stdout);
            at++;
        } else {
            putchar(*at);
        }
    }
    putchar('\n');
}

static int show(struct cli *cli, const char *job)
{
    tiermq_id id;
    char text[TIERMQ_ID_TEXT];
    char path[64 + TIERMQ_ID_TEXT];
    if (tiermq_id_parse(job, &id) < 0) {
        cli_refuse(cli, "\"%s\" is no job id; an id is a UUID of 36 characters", job);
        return cli->exit_code;
    }
    tiermq_id_format(&id, text);
    snprintf(path, sizeof(path), "/v1/jobs/%s/explain", text);
    return cli_admin_show(cli, path, NULL, print_decision);
}

static int explain_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    cli_parse(&cli, command, argc, argv, NULL, NULL, NULL);
    const bool is_good = !cli.is_done &&
                         (argc - optind == 1 || cli_refuse(&cli, "needs one job id")) &&
                         cli_configure(&cli);
    const int code = is_good ? show(&cli, argv[optind]) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command explain_command = {"explain", "say why a job was given to its model", help,
                                        explain_run};
