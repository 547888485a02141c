/*
 * text: strings that come from outside: bounded, and valid UTF-8 before they reach a log line or an
 * answer.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { TEXT_BYTES_MAX = 255 };

bool text_is_utf8(const char *text);
/* At most `bytes_max` bytes of valid UTF-8. */
bool text_is_good(const char *text, size_t bytes_max);
/* Makes it so in place: bytes that are not UTF-8 become '?', and it is cut between characters. */
void text_clean(char *text, size_t bytes_max);
