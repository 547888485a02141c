#include "broker/selector.h"
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

static bool texts_are_good(const Wire__CacheSelector *selector)
{
    const char *const texts[] = {
        selector->tenant,           selector->cache_namespace, selector->tag,
        selector->document,         selector->route,           selector->model,
        selector->template_version, selector->text_prefix,     selector->near_text};
    bool is_good = true;
    for (size_t i = 0; is_good && i < ARRAY_LENGTH(texts); i++) {
        is_good = text_is_good(texts[i], SELECTOR_TEXT_BYTES_MAX);
    }
    return is_good;
}

static bool is_key(const ProtobufCBinaryData *data)
{
    return data->len == 0 || data->len == SELECTOR_KEY_BYTES;
}

const char *selector_complaint(const Wire__CacheSelector *selector, const char *reason)
{
    if (!is_key(&selector->key) || !is_key(&selector->scope)) {
        return "key and scope must have 16 bytes, or none";
    }
    if (!texts_are_good(selector)) {
        return "the selector's texts must be UTF-8, of 8192 bytes at most";
    }
    if (!text_is_good(reason, SELECTOR_REASON_BYTES_MAX)) {
        return "reason must be UTF-8, of 256 bytes at most";
    }
    if (selector->older_than_ms > SELECTOR_AGE_MS_MAX) {
        return "older_than_ms must be from 0 to 2^40";
    }
    /* Written so that what is no number is refused, too. */
    const bool is_near = selector->near_cosine_min >= 0.1 && selector->near_cosine_min <= 1.0;
    if (selector->near_text[0] != '\0' && !is_near) {
        return "near_cosine_min must be from 0.1 to 1";
    }
    return NULL;
}
