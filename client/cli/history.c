#include "client/cli/history.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value == NULL ? "" : value;
}

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

void history_format_time(json_int_t unix_ms, char *ret_text)
{
    const time_t seconds = (time_t)(unix_ms / 1000);
    struct tm utc;
    if (gmtime_r(&seconds, &utc) == NULL ||
        strftime(ret_text, HISTORY_TIME_TEXT, "%Y-%m-%d %H:%M:%S", &utc) == 0) {
        ret_text[0] = '\0';
    }
}

static void print_where(const json_t *entry)
{
    const char *provider = text(entry, "provider");
    if (text(entry, "worker")[0] != '\0') {
        printf("  at %s", text(entry, "worker"));
    }
    if (provider[0] != '\0') {
        printf("  %s/%s", provider, text(entry, "model"));
    }
    if (number(entry, "run_ms") > 0) {
        printf("  %lld ms", (long long)number(entry, "run_ms"));
    }
    const double cost = json_number_value(json_object_get(entry, "cost_usd"));
    if (cost > 0) {
        printf("  %.6f USD", cost);
    }
}

static void print_entry(const json_t *entry)
{
    char at[HISTORY_TIME_TEXT];
    history_format_time(number(entry, "ended_unix_ms"), at);
    printf("  %3lld  %s  %s", (long long)number(entry, "attempt"), at, text(entry, "outcome"));
    print_where(entry);
    const char *code = text(entry, "error_code");
    const char *words = text(entry, "error_text");
    if (code[0] != '\0' || words[0] != '\0') {
        printf("\n       %s%s%s", code, code[0] != '\0' && words[0] != '\0' ? ": " : "", words);
    }
    if (text(entry, "followed")[0] != '\0') {
        printf("\n       then: %s", text(entry, "followed"));
    }
    putchar('\n');
}

void history_print(const json_t *job)
{
    enum { FIRST_ONES = 8 }; /* what is omitted is behind them: broker/core/history.h */
    const json_t *history = json_object_get(job, "history");
    const json_int_t omitted = number(job, "history_omitted");
    if (json_array_size(history) == 0 && omitted == 0) {
        return;
    }
    printf("attempts without an answer, times in UTC:\n");
    size_t i = 0;
    const json_t *entry = NULL;
    json_array_foreach (history, i, entry) {
        if (i == FIRST_ONES && omitted > 0) {
            printf("  …    %lld more\n", (long long)omitted);
        }
        print_entry(entry);
    }
    if (json_array_size(history) <= FIRST_ONES && omitted > 0) {
        printf("  …    %lld more\n", (long long)omitted);
    }
}
