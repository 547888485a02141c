#include "broker/selector.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "broker/text.h"
#include "common/attributes.h"

bool selector_is_restricted(const Wire__CacheSelector *selector)
{
    return selector->key.len > 0 || selector->scope.len > 0 || selector->tenant[0] != '\0' ||
           selector->has_namespace || selector->tag[0] != '\0' || selector->document[0] != '\0' ||
           selector->route[0] != '\0' || selector->model[0] != '\0' ||
           selector->template_version[0] != '\0' || selector->older_than_ms > 0 ||
           selector->text_prefix[0] != '\0' || selector->near_text[0] != '\0';
}

enum { SHOWN_BYTES = 48 };

static bool check_text(const char *name, const char *text, size_t bytes_max, char *ret_why)
{
    if (text_is_good(text, bytes_max)) {
        return true;
    }
    char shown[SHOWN_BYTES + 1];
    (void)snprintf(shown, sizeof(shown), "%s", text);
    text_clean(shown, SHOWN_BYTES);
    (void)snprintf(ret_why, SELECTOR_WHY_BYTES,
                   "%s is \"%s%s\" (%zu bytes); write UTF-8, of %zu bytes at most", name, shown,
                   strlen(text) > SHOWN_BYTES ? "…" : "", strlen(text), bytes_max);
    return false;
}

static bool check_texts(const Wire__CacheSelector *selector, char *ret_why)
{
    const struct {
        const char *name, *text;
    } texts[] = {
        {"tenant", selector->tenant},
        {"namespace", selector->cache_namespace},
        {"tag", selector->tag},
        {"document", selector->document},
        {"route", selector->route},
        {"model", selector->model},
        {"template_version", selector->template_version},
        {"text_prefix", selector->text_prefix},
        {"near_text", selector->near_text},
    };
    bool is_good = true;
    for (size_t i = 0; is_good && i < ARRAY_LENGTH(texts); i++) {
        is_good = check_text(texts[i].name, texts[i].text, SELECTOR_TEXT_BYTES_MAX, ret_why);
    }
    return is_good;
}

static bool check_key(const char *name, const ProtobufCBinaryData *data, char *ret_why)
{
    if (data->len == 0 || data->len == SELECTOR_KEY_BYTES) {
        return true;
    }
    (void)snprintf(ret_why, SELECTOR_WHY_BYTES, "%s has %zu bytes; write %d bytes, or none", name,
                   data->len, SELECTOR_KEY_BYTES);
    return false;
}

static bool check_age(uint64_t older_than_ms, char *ret_why)
{
    if (older_than_ms <= SELECTOR_AGE_MS_MAX) {
        return true;
    }
    (void)snprintf(ret_why, SELECTOR_WHY_BYTES,
                   "older_than_ms is %" PRIu64 "; write a number from 0 to %" PRId64, older_than_ms,
                   SELECTOR_AGE_MS_MAX);
    return false;
}

/* Written so that what is no number is refused, too. */
static bool check_nearness(const Wire__CacheSelector *selector, char *ret_why)
{
    const bool is_near = selector->near_cosine_min >= 0.1 && selector->near_cosine_min <= 1.0;
    if (is_near || selector->near_text[0] == '\0') {
        return true;
    }
    (void)snprintf(ret_why, SELECTOR_WHY_BYTES,
                   "near_cosine_min is %g; write a number from 0.1 to 1",
                   selector->near_cosine_min);
    return false;
}

bool selector_check(const Wire__CacheSelector *selector, const char *reason,
                    char ret_why[SELECTOR_WHY_BYTES])
{
    return check_key("key", &selector->key, ret_why) &&
           check_key("scope", &selector->scope, ret_why) && check_texts(selector, ret_why) &&
           check_text("reason", reason, SELECTOR_REASON_BYTES_MAX, ret_why) &&
           check_age(selector->older_than_ms, ret_why) && check_nearness(selector, ret_why);
}
