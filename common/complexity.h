/*
 * complexity: what a request says of how much model it needs, read from its body alone.
 *
 * A small vector of features, a score made of it, and the abilities that a model must have. All
 * is pure: no I/O, no state, no memory taken, no model asked. Texts are foreign, so the work is
 * bounded: of all that is asked (what system, developer and user messages say, instructions, or the
 * prompt) the first and the last COMPLEXITY_READ_BYTES are read, of more than
 * 2 * COMPLEXITY_MESSAGES_MAX messages the first and the last half, of a message
 * COMPLEXITY_PARTS_MAX parts. What has another type than it should counts as missing. A prompt of
 * 2 KiB takes about 15 µs, the longest 100 µs.
 *
 * The words it knows are English (complexity_lexicon.txt); of other languages it sees length,
 * layout, digits and script. docs/routing.md says how well the score tells.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum {
    COMPLEXITY_READ_BYTES = 8192, /* from each end */
    COMPLEXITY_MESSAGES_MAX = 128,
    COMPLEXITY_PARTS_MAX = 64,
};

/*
 * Each is 0 to 255; 0: nothing of it. Their order is part of the wire's protocol: new ones are
 * appended, none is taken out. Logarithmic: 255 is the named amount or more. Dense: the share of
 * words that are of a lexicon's class, 255 from about one in six on.
 */
enum complexity_feature {
    COMPLEXITY_LAST_LENGTH,  /* last user message up to a list of choices; logarithmic, 64 KiB */
    COMPLEXITY_INPUT_LENGTH, /* texts of all messages; logarithmic, 1 MiB */
    COMPLEXITY_TURNS,        /* messages beyond the first; logarithmic, 63 */
    COMPLEXITY_LONG_WORDS,   /* share of words of 9 letters or more; 255 is half of them */
    COMPLEXITY_NUMBERS,      /* in digits; logarithmic, 63 */
    COMPLEXITY_MATHS,        /* operators, LaTeX, words of mathematics; logarithmic, 63 */
    COMPLEXITY_CODE,         /* fences and symbols of programs; logarithmic, 255 */
    COMPLEXITY_STEPS,        /* "step by step", "prove", "explain why", …; logarithmic, 7 */
    COMPLEXITY_CONSTRAINTS,  /* "must", "at least", items of lists; logarithmic, 31 */
    COMPLEXITY_CHOICES,      /* lines "A. …", "(B) …"; logarithmic, 7 */
    COMPLEXITY_QUESTION,     /* 255 a question mark; 128 a question's word without one */
    COMPLEXITY_EXTRACTION,   /* "classify", "extract", "translate", …; logarithmic, 7 */
    COMPLEXITY_SHORT_ANSWER, /* one word, yes or no, JSON, few max_tokens; logarithmic, 7 */
    COMPLEXITY_NEGATION,     /* "not", "except", …; logarithmic, 15 */
    COMPLEXITY_RELATIONS,    /* "twice", "percent", "each", "if", …; logarithmic, 31 */
    COMPLEXITY_SCIENCE,      /* physics, chemistry, engineering; dense, as those that follow */
    COMPLEXITY_LAW,
    COMPLEXITY_MEDICINE,
    COMPLEXITY_HUMANITIES, /* history, philosophy, politics, religion, society */
    COMPLEXITY_BUSINESS,   /* and economics */
    COMPLEXITY_COMPUTING,
    COMPLEXITY_TOOLS,     /* that are offered; logarithmic, 31 */
    COMPLEXITY_IMAGES,    /* logarithmic, 15 */
    COMPLEXITY_NON_LATIN, /* share of characters of other scripts among all letters */
    COMPLEXITY_FEATURES,
};

/* Lower-case words with underscores, the same for ever. NULL: there is no such feature. */
const char *complexity_feature_name(size_t feature);

/*
 * Of a request to chat.completions, completions or responses, as it was parsed. Any value is
 * allowed, and NULL: what has neither text nor images in messages, prompt, instructions or input
 * has no features: all are 0. A request for embeddings looks like a response's and is not to be
 * given: its input is no question.
 */
void complexity_features(const json_t *body, uint8_t ret_features[COMPLEXITY_FEATURES]);

struct complexity_weights {
    double bias;
    double weights[COMPLEXITY_FEATURES]; /* of a feature of 255; finite */
};

/*
 * Sets one as "name=number", the bias as "bias=number"; from -100 to 100. Errors: -EINVAL there is no such feature, or
 * the number is none.
 */
MUST_USE int complexity_weight_set(struct complexity_weights *weights, const char *setting);

/* Fitted by tools/route-fit. Lives for ever. */
const struct complexity_weights *complexity_weights_builtin(void);

/*
 * 0 (a weak model does as well) to 1 (a strong one is worth its price): the logistic function of
 * the bias and the weighted features. It puts requests in order; it is no probability, since that
 * hangs on the two models. What an older peer did not send is given as 0.
 */
double complexity_score(const uint8_t features[COMPLEXITY_FEATURES],
                        const struct complexity_weights *weights);

/*
 * Bits of enum choice_ability (common/choice.h) that the request needs, of any operation. Looks at
 * every message, item and part, so nothing is overlooked: O(messages), some 100 ns each. Files are
 * taken for PDFs, whose pages are looked at as images are, unless their name or type says otherwise.
 * What it continues (previous_response_id) or names (prompt) is not known, and needs ABILITY_STORED.
 */
uint32_t complexity_abilities(const json_t *body);

/*
 * Tokens of the input, estimated: a token for four bytes of text and of tools, as the client
 * library counts, a few for each message, and for each image what a middling one is charged, not
 * what its bytes would be. Of the same requests as complexity_features(). O(messages and tools),
 * as complexity_abilities(). UINT32_MAX at most.
 */
uint32_t complexity_tokens(const json_t *body);

/*
 * A number for how the prompt begins, the same in every process: of its tools (their names, in any
 * order) and of the roles and texts that come first, as many as it takes, tools included, to come
 * to COMPLEXITY_PREFIX_BYTES. 0: there is less, which no provider keeps in its prompt cache. What
 * else a request says, and images, do not count. Of the same requests as complexity_features().
 */
enum {
    /* 1024 tokens of English. Source: OpenAI and Anthropic, "Prompt caching". */
    COMPLEXITY_PREFIX_BYTES = 4096,
};
uint32_t complexity_prefix(const json_t *body);
