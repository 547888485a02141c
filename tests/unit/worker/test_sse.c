#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "worker/provider/sse.h"

struct seen {
    char text[4096]; /* "name=data;" for each event */
    int answer;
};

static int event(void *context, const char *name, const char *data, size_t bytes)
{
    struct seen *seen = context;
    cr_assert_eq(strlen(data), bytes);
    strcat(seen->text, name);
    strcat(seen->text, "=");
    strcat(seen->text, data);
    strcat(seen->text, ";");
    return seen->answer;
}

/* Feeds `text` in pieces of `step` bytes. */
static int feed(const char *text, size_t step, struct seen *seen)
{
    struct sse sse;
    int r = 0;
    sse_init(&sse, 1000, event, seen);
    for (size_t at = 0; r == 0 && at < strlen(text); at += step) {
        const size_t left = strlen(text) - at;
        r = sse_feed(&sse, text + at, left < step ? left : step);
    }
    sse_finish(&sse);
    return r;
}

Test(sse, events_are_the_same_however_the_bytes_are_cut)
{
    static const char stream[] =
        "\xEF\xBB\xBF"
        "data: one\n\n: a comment\nevent: second\r\ndata:two\r\ndata: more\r\n\r\n"
        "id: 7\nretry: 1\n\ndata\n\nevent: lost\n\ndata: three\r\rdata: unfinished\n";
    for (size_t step = 1; step <= sizeof(stream); step++) {
        struct seen seen = {.text = ""};
        cr_assert_eq(feed(stream, step, &seen), 0);
        cr_assert_str_eq(seen.text, "message=one;second=two\nmore;message=;message=three;",
                         "in pieces of %zu", step);
    }
}

Test(sse, an_event_above_the_bound_is_refused)
{
    char long_line[2000];
    struct seen seen = {.text = ""};
    memset(long_line, 'x', sizeof(long_line) - 1);
    long_line[sizeof(long_line) - 1] = '\0';
    cr_assert_eq(feed(long_line, 100, &seen), -EMSGSIZE);
}

Test(sse, many_short_data_lines_are_bounded_together)
{
    struct seen seen = {.text = ""};
    struct sse sse;
    int r = 0;
    sse_init(&sse, 1000, event, &seen);
    for (int i = 0; i < 200 && r == 0; i++) {
        r = sse_feed(&sse, "data: 0123456789\n", 17);
    }
    sse_finish(&sse);
    cr_assert_eq(r, -EMSGSIZE);
}

Test(sse, the_handlers_refusal_stops_the_feed)
{
    struct seen seen = {.text = "", .answer = -ECONNABORTED};
    cr_assert_eq(feed("data: a\n\ndata: b\n\n", 100, &seen), -ECONNABORTED);
    cr_assert_str_eq(seen.text, "message=a;");
}

Test(sse, an_error_put_bare_into_a_stream_is_no_event)
{
    for (size_t step = 1; step <= 100; step += 99) {
        struct seen seen = {.text = ""};
        cr_assert_eq(feed("data: a\n\n{\n  \"error\": {}\n}\n", step, &seen), -EBADMSG);
        cr_assert_str_eq(seen.text, "message=a;");
    }
}
