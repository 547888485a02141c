/*
 * price: what a model costs, and what a call comes to, in integer nano-dollars.
 *
 * Prices are nano-dollars per million tokens of a class; a call may cost something by itself, and a
 * provider's service tier multiplies all of it. The sum is taken in 128 bits and rounded up once,
 * at the end, so that the sum over calls is never below what the provider charges. No floating
 * point. Pure; no state.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct config_model;

/* Tokens are counted once, in one class. */
enum price_class {
    PRICE_INPUT,            /* of the prompt, as far as no other class has them */
    PRICE_CACHED_INPUT,     /* of the prompt, that the provider had in its prompt cache */
    PRICE_CACHE_WRITE,      /* of the prompt, that it put there for minutes */
    PRICE_CACHE_WRITE_LONG, /* for an hour or longer */
    PRICE_OUTPUT,           /* of the answer, reasoning included */
    PRICE_CLASSES,
};
/* "input", "cached_input", "cache_write", "cache_write_long", "output". */
const char *price_class_name(enum price_class price_class);

/* How urgently a provider was asked to answer. Part of the wire: new ones are appended. */
enum price_service {
    SERVICE_STANDARD,
    SERVICE_BATCH,
    SERVICE_FLEX,
    SERVICE_PRIORITY,
    PRICE_SERVICES
};
const char *price_service_name(enum price_service service); /* "standard", "batch" … */
/* As providers name it in their answers; what is not known, and NULL, is the standard one. */
enum price_service price_service_find(const char *name);

struct price {
    uint64_t nanousd_per_mtok[PRICE_CLASSES];
    uint64_t request_nanousd;          /* for the call itself */
    uint32_t permille[PRICE_SERVICES]; /* what the service tier multiplies it with; 1000: nothing */
};

enum { PRICE_TOKENS_BITS = 40, PRICE_PERMILLE_MAX = 100000 };
struct price_tokens {
    uint64_t of[PRICE_CLASSES]; /* more than 2^40 - 1 count as so many */
};

struct price price_of_model(const struct config_model *model);
/* Saturates at UINT64_MAX. */
uint64_t price_cost_nanousd(const struct price *price, const struct price_tokens *tokens,
                            enum price_service service);
/* The most that the prompt may cost, whatever class its tokens are of, and the answer. */
uint64_t price_worst_nanousd(const struct price *price, uint64_t input_tokens,
                             uint64_t output_tokens);
/* a + b, or UINT64_MAX. */
uint64_t price_add(uint64_t a, uint64_t b);
