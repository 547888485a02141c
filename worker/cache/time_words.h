/*
 * time_words: whether a text asks for what changes from day to day: English words such as "today" or "latest".
 *
 * Whole words, whatever their case. A short list that is easily known by heart, not an understanding: "as of this week" has none of
 * them, and "now" may stand for no time at all. Pure.
 */
#pragma once
#include <stdbool.h>

bool time_words_are_in(const char *text);
