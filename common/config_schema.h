/*
 * config_schema: the table of keys of tiermq.yaml, and what it says of one value. Private to
 * common/config*.c.
 *
 * A schema describes one mapping of the file and the struct that holds it. Reading, checking,
 * writing, comparing and releasing a configuration walk the same tables, and so does the reference
 * in docs/configuration.md.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/decimals.h"

enum config_kind {
    KIND_TEXT,
    KIND_NAME, /* CONFIG_NAME_BYTES_MAX of [A-Za-z0-9._:/@-] */
    KIND_PATH,
    KIND_BIND,         /* tcp://host:port or ipc://path to listen on; port 0 or *: any free one */
    KIND_CONNECT,      /* tcp://host:port or ipc://path to connect to */
    KIND_HTTP_ADDRESS, /* host:port or unix:/path */
    KIND_URL,          /* http:// or https:// */
    KIND_HEADER,       /* "Name: value" of an HTTP request */
    KIND_HEADER_NAME,  /* the name alone; may be empty */
    KIND_QUERY,        /* a=b&c=d, encoded as it is sent; may be empty */
    KIND_URL_PATH,     /* /a/{model}/b, encoded but for {model}; may be empty */
    KIND_ENUM,
    KIND_INTEGER,
    KIND_DURATION,   /* milliseconds */
    KIND_SIZE,       /* bytes */
    KIND_MONEY,      /* nano-dollars */
    KIND_FRACTION,   /* thousandths */
    KIND_LIST,       /* of item_kind; char ** and a length */
    KIND_SECTION,    /* a mapping, embedded */
    KIND_ITEMS,      /* a list of mappings; an array and a length */
    KIND_TIER_LISTS, /* routes[].tiers: a mapping from a tier to a list of models */
};

/* Whose names a value must be one of (NAMES_NOT_MODELS: must not be). A text that may be empty is nobody's name then. */
enum config_names {
    NAMES_ANY,
    NAMES_TIERS,
    NAMES_TIERS_OR_NONE, /* or the word "none" */
    NAMES_TENANTS,
    NAMES_POOLS,
    NAMES_PROVIDERS,
    NAMES_MODELS,
    NAMES_NOT_MODELS,
    NAMES_ROUTES /* models are routes, too */
};

struct config_schema;

struct config_key {
    const char *name;
    enum config_kind kind;
    enum config_kind item_kind; /* of KIND_LIST */
    enum config_names refers;
    bool is_live; /* SIGHUP changes it; of a list: everything in it */
    bool is_secret;
    bool starts_from_default; /* an entry with the name of a default one starts from that one's
                                 values */
    size_t offset, bytes;     /* of the field in the struct; numbers take 4 or 8 bytes */
    size_t length_offset;     /* of a list's length */
    int64_t min, max;         /* of a number in its unit, or of a list's length; both 0: any */
    const char *const *words; /* of KIND_ENUM, by value, NULL at the end */
    const struct config_schema *schema; /* of KIND_SECTION and KIND_ITEMS */
    const char *preset;    /* the default as it is written in the file; of a list: its only item */
    const char *otherwise; /* in words, what stands in for a missing value that has no preset */
    const char *text;      /* for the reference */
};

/* What is wrong between the keys of one mapping. */
struct config_complaint {
    const char *key;
    char text[192];
};

struct config_schema {
    const struct config_key *keys;
    size_t length;
    size_t bytes; /* of the struct */
    bool (*check)(const void *object,
                  struct config_complaint *ret_complaint); /* true: in order; NULL: always */
};

enum { CONFIG_KEYS_MAX = 64, CONFIG_WHY_BYTES = 256, CONFIG_NUMBER_BYTES = DECIMALS_BYTES };

/* A price that was not given, while the file is read. */
#define CONFIG_PRICE_UNKNOWN UINT64_MAX

extern const struct config_schema config_schema;
/* The default lists: tiers, tenants, providers, models, routes. In YAML, read like a file. */
extern const char config_default_lists[];

static inline void *config_field(void *object, const struct config_key *key)
{
    return (char *)object + key->offset;
}

static inline const void *config_field_const(const void *object, const struct config_key *key)
{
    return (const char *)object + key->offset;
}

static inline size_t *config_list_length(void *object, const struct config_key *key)
{
    return (size_t *)(void *)((char *)object + key->length_offset);
}

static inline size_t config_list_length_const(const void *object, const struct config_key *key)
{
    return *(const size_t *)(const void *)((const char *)object + key->length_offset);
}

bool config_kind_is_text(enum config_kind kind);
/* The number in a field of 4 or 8 bytes. */
int64_t config_number(const void *object, const struct config_key *key);

/*
 * Puts a scalar into its field; a text that was there is released.
 * Errors: -EINVAL, with the reason and the remedy in words in `ret_why`; -ENOMEM.
 */
MUST_USE int config_value_set(const struct config_key *key, const char *text, void *object,
                              char ret_why[CONFIG_WHY_BYTES]);
/* Whether `text` may stand for a text of this kind; errors as above. For items of lists. */
MUST_USE int config_text_check(enum config_kind kind, const char *text,
                               char ret_why[CONFIG_WHY_BYTES]);
/* A number as it is written in the file: 15s, 8MiB, 0.15. */
void config_number_format(const struct config_key *key, int64_t number,
                          char ret_text[CONFIG_NUMBER_BYTES]);

/* Fills an object with the presets. Errors: -ENOMEM; the object can be finished then. */
MUST_USE int config_object_init(const struct config_schema *schema, void *object);
void config_object_finish(const struct config_schema *schema, void *object);
void config_texts_free(char ***texts, size_t *length);
/* Errors: -ENOMEM. */
MUST_USE int config_texts_append(char ***texts, size_t *length, const char *text);

/* NULL: there is none of that name. */
const struct config_key *config_key_find(const struct config_schema *schema, const char *name);
/* The key that was probably meant; NULL when none is close. */
const struct config_key *config_key_nearest(const struct config_schema *schema, const char *name);
/*
 * The key of any mapping that was probably meant by `name` in `section` ("" at the top): also cache_x by x in cache.
 * Gives: ret_path, such as tiers[].weight. False: none is close.
 */
bool config_key_elsewhere(const char *section, const char *name, char *ret_path, size_t bytes);
