#include "tests/modelsim/history.h"

struct history_second *history_at(struct history *history, int64_t now_unix_ms, uint64_t in_flight)
{
    const int64_t now_s = now_unix_ms / 1000;
    if (history->last_s == 0 || now_s - history->last_s >= HISTORY_SECONDS) {
        history->first_s = now_s;
        history->last_s = now_s - 1;
    }
    while (history->last_s < now_s) {
        history->last_s++;
        history->seconds[history->last_s % HISTORY_SECONDS] =
            (struct history_second){.concurrent = in_flight};
    }
    if (history->last_s - history->first_s >= HISTORY_SECONDS) {
        history->first_s = history->last_s - HISTORY_SECONDS + 1;
    }
    /* Of a clock that was set back the last second is continued. */
    struct history_second *second = &history->seconds[history->last_s % HISTORY_SECONDS];
    second->concurrent = in_flight > second->concurrent ? in_flight : second->concurrent;
    return second;
}

json_t *history_describe(struct history *history, int64_t now_unix_ms, uint64_t in_flight)
{
    json_t *list = json_array();
    (void)history_at(history, now_unix_ms, in_flight);
    for (int64_t at_s = history->first_s; at_s <= history->last_s; at_s++) {
        const struct history_second *second = &history->seconds[at_s % HISTORY_SECONDS];
        json_array_append_new(
            list,
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "t_ms", (json_int_t)at_s * 1000, "requests",
                      (json_int_t)second->requests, "answered", (json_int_t)second->answered,
                      "limited", (json_int_t)second->limited, "failed", (json_int_t)second->failed,
                      "concurrent", (json_int_t)second->concurrent));
    }
    return list;
}
