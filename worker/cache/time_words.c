#include "worker/cache/time_words.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "common/attributes.h"

static const char *const words[] = {"current", "currently", "latest", "newest",   "now",       "nowadays",
                                    "recent",  "recently",  "today",  "today's",  "tomorrow",  "tomorrow's",
                                    "tonight", "tonight's", "yesterday", "yesterday's"};

/* Bytes of other alphabets and apostrophes belong to words: "knöwn" does not end in "wn". */
static bool is_of_word(char c)
{
    const unsigned char byte = (unsigned char)c;
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '_' || byte == '\'' || byte >= 0x80;
}

static bool is_time_word(const char *word, size_t bytes)
{
    bool is_one = false;
    for (size_t i = 0; i < ARRAY_LENGTH(words) && !is_one; i++) {
        is_one = strlen(words[i]) == bytes && strncasecmp(words[i], word, bytes) == 0;
    }
    return is_one;
}

bool time_words_are_in(const char *text)
{
    while (*text != '\0') {
        size_t bytes = 0;
        while (is_of_word(text[bytes])) {
            bytes++;
        }
        if (bytes > 0 && is_time_word(text, bytes)) {
            return true;
        }
        text += bytes > 0 ? bytes : 1;
    }
    return false;
}
