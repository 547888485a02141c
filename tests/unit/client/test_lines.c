#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "client/cli/lines.h"

static struct line_reader *reader_of(const char *text)
{
    static struct line_reader reader;
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], text, strlen(text)), (ssize_t)strlen(text));
    close(fds[1]);
    reader = (struct line_reader){.fd = fds[0]};
    return &reader;
}

Test(lines, blank_lines_are_skipped_and_numbered)
{
    struct line_reader *reader = reader_of("one\n\n  \t\r\nfour\r\nlast");
    cr_assert_eq(line_reader_next(reader), 1);
    cr_assert_str_eq(reader->text, "one");
    cr_assert_eq(line_reader_next(reader), 1);
    cr_assert_eq(reader->number, 4);
    cr_assert_eq(line_reader_next(reader), 1); /* also without an end */
    cr_assert_str_eq(reader->text, "last");
    cr_assert_eq(reader->number, 5);
    cr_assert_eq(line_reader_next(reader), 0);
    cr_assert_eq(line_reader_next(reader), 0);
    line_reader_finish(reader);
}

Test(lines, half_a_line_is_not_waited_for)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    struct line_reader reader = {.fd = fds[0]};
    cr_assert_eq(line_reader_next(&reader), -EAGAIN);
    cr_assert_eq(write(fds[1], "ha", 2), 2);
    cr_assert_eq(line_reader_next(&reader), -EAGAIN);
    cr_assert_eq(write(fds[1], "lf\n", 3), 3);
    cr_assert_eq(line_reader_next(&reader), 1);
    cr_assert_str_eq(reader.text, "half");
    cr_assert_eq(reader.number, 1);
    line_reader_finish(&reader);
}

static char error[LINE_ERROR_BYTES];

static int read_line(const char *text, struct line_job *job)
{
    const struct tiermq_job defaults = {.tier = "background", .priority = 3};
    error[0] = '\0';
    *job = (struct line_job){0};
    return line_job_read(text, strlen(text), &defaults, job, error);
}

Test(lines, members_stand_over_the_defaults)
{
    struct line_job job;
    cr_assert_eq(read_line("{\"id\":\"a-1\",\"text\":\"hi\",\"tier\":\"realtime\",\"model\":\"big\",\"deadline\":\"2m\","
                           "\"delay\":1.5,\"distinct\":true,\"batchable\":true,\"source\":\"ignored\"}", &job), 0);
    cr_assert_str_eq(job.job.prompt, "hi");
    cr_assert_str_eq(job.job.tier, "realtime");
    cr_assert_str_eq(job.job.route, "big");
    cr_assert_eq(job.job.priority, 3);
    cr_assert_eq(job.job.deadline_ms, 120000);
    cr_assert_eq(job.job.delay_ms, 1500);
    cr_assert(job.job.distinct);
    cr_assert(job.job.batchable);
    cr_assert_str_eq(json_string_value(job.reference), "a-1");
    cr_assert_eq(job.job.id.bytes[0], 0);
    line_job_finish(&job);
}

Test(lines, id_that_is_a_uuid_is_the_jobs)
{
    struct line_job job;
    cr_assert_eq(read_line("{\"id\":\"01936e2a-7b1c-7def-8a90-123456789abc\",\"prompt\":\"x\"}", &job), 0);
    cr_assert_eq(job.job.id.bytes[1], 0x93);
    line_job_finish(&job);
}

Test(lines, body_is_kept_and_a_bare_string_is_a_prompt)
{
    struct line_job job;
    cr_assert_eq(read_line("{\"body\":{\"messages\":[],\"seed\":9007199254740993}}", &job), 0);
    cr_assert_str_eq(job.job.body, "{\"messages\":[],\"seed\":9007199254740993}");
    cr_assert_eq(job.job.body_bytes, strlen(job.body));
    line_job_finish(&job);
    cr_assert_eq(read_line("\"just this\"", &job), 0);
    cr_assert_str_eq(job.job.prompt, "just this");
    line_job_finish(&job);
}

Test(lines, complexity_of_data_files_is_theirs)
{
    struct line_job job;
    cr_assert_eq(read_line("{\"text\":\"x\",\"complexity\":\"simple\"}", &job), 0);
    cr_assert_eq(job.job.complexity, 0);
    line_job_finish(&job);
    cr_assert_eq(read_line("{\"text\":\"x\",\"prompt_complexity\":120}", &job), 0);
    cr_assert_eq(job.job.complexity, 120);
    line_job_finish(&job);
}

Test(lines, mistakes_are_refused_in_words_and_keep_the_id)
{
    const struct {
        const char *line, *word;
    } cases[] = {
        {"{\"text\":", "not JSON"},
        {"{\"text\":\"a\",\"text\":\"b\"}", "not JSON"},
        {"17", "must be an object"},
        {"{\"id\":\"x\"}", "prompt"},
        {"{\"id\":\"x\",\"text\":5}", "text"},
        {"{\"id\":\"x\",\"text\":\"a\",\"priority\":10}", "priority"},
        {"{\"id\":\"x\",\"text\":\"a\",\"priority\":\"high\"}", "priority"},
        {"{\"id\":\"x\",\"text\":\"a\",\"deadline\":\"soon\"}", "deadline"},
        {"{\"id\":\"x\",\"text\":\"a\",\"deadline\":-1}", "deadline"},
        {"{\"id\":\"x\",\"body\":\"{}\"}", "body"},
        {"{\"id\":\"x\",\"text\":\"a\",\"distinct\":1}", "distinct"},
        {"{\"id\":\"x\",\"text\":\"a\",\"batchable\":\"yes\"}", "batchable"},
        {"{\"id\":\"x\",\"text\":\"a\",\"prompt_complexity\":0}", "prompt_complexity: must be a whole number from 1 to 255"},
        {"{\"id\":\"x\",\"text\":\"a\",\"prompt_complexity\":0.9}", "prompt_complexity: must be a whole number from 1 to 255, and is 0.9"},
        {"{\"id\":\"x\",\"text\":\"a\",\"prompt_complexity\":256}", "prompt_complexity"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct line_job job;
        cr_assert_eq(read_line(cases[i].line, &job), -EINVAL, "%s", cases[i].line);
        cr_assert_eq(strncmp(error, cases[i].word, strlen(cases[i].word)), 0, "%s: \"%s\"", cases[i].line, error);
        cr_assert_eq(job.reference != NULL, strstr(cases[i].line, "\"id\"") != NULL);
        line_job_finish(&job);
    }
}

Test(lines, value_that_is_cut_stays_text)
{
    struct line_job job;
    char line[256] = "{\"text\":\"a\",\"priority\":\"x";
    for (int i = 0; i < 60; i++) {
        (void)strcat(line, "\xc3\xa9");
    }
    (void)strcat(line, "\"}");
    cr_assert_eq(read_line(line, &job), -EINVAL);
    cr_assert_not_null(strstr(error, "and is"));
    for (const char *at = error; *at != '\0'; at++) {
        cr_assert_lt((unsigned char)*at, 0x80, "%s", error);
    }
    line_job_finish(&job);
}
