#include "worker/provider/address.h"

#include <stdio.h>
#include <string.h>

#define UNRESERVED "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"

/* All but what `kept` has. */
static int append_encoded(struct bytes *out, const char *text, const char *kept)
{
    int r = bytes_append_text(out, "");
    while (r == 0 && *text != '\0') {
        const size_t plain = strspn(text, kept);
        r = bytes_append(out, text, plain);
        text += plain;
        if (r == 0 && *text != '\0') {
            char encoded[4];
            (void)snprintf(encoded, sizeof(encoded), "%%%02X", (unsigned char)*text++);
            r = bytes_append_text(out, encoded);
        }
    }
    return r;
}

int address_append_encoded(struct bytes *out, const char *text)
{
    return append_encoded(out, text, UNRESERVED);
}

int address_append_segments(struct bytes *out, const char *text)
{
    return append_encoded(out, text, UNRESERVED "/");
}

int address_append_path(struct bytes *out, const char *path, const char *model)
{
    static const char word[] = "{model}";
    int r = 0;
    for (const char *at; r == 0 && (at = strstr(path, word)) != NULL;
         path = at + sizeof(word) - 1) {
        r = bytes_append(out, path, (size_t)(at - path));
        r = r < 0 ? r : address_append_encoded(out, model);
    }
    return r < 0 ? r : bytes_append_text(out, path);
}
