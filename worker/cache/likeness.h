/*
 * likeness: in what two texts are alike and in what they differ, as numbers for the decision.
 *
 * Guards tell what makes another question of nearly the same words: a number, a name, a negation,
 * an opposite, a weekday, from A to B instead of from B to A. They are 0 when silent. The other
 * features measure how much the texts share. Words match by their stems; a content word also by one
 * slip of the pen (a letter added, lost, changed, or two changed round) when it is no known word.
 *
 * Symmetric, pure, no allocation; about 3 µs for two questions of ten words.
 */
#pragma once
#include <stdbool.h>
#include "worker/cache/profile.h"

enum likeness_feature {
    /* Guards; "both": each text has one that the other lacks, "one": only one of them has. */
    LIKENESS_NUMBERS_BOTH,
    LIKENESS_NUMBERS_ONE,
    LIKENESS_NAMES_BOTH, /* capitals inside a sentence */
    LIKENESS_NAMES_ONE,
    LIKENESS_NEGATION,    /* an odd number of negations more */
    LIKENESS_OPPOSITE,    /* "enable" here, "disable" there; "legal" and "illegal" */
    LIKENESS_CHOICE_BOTH, /* another weekday, month, unit, season … */
    LIKENESS_CHOICE_ONE,  /* one names a weekday …, the other none */
    LIKENESS_QUESTION,    /* another question word */
    LIKENESS_QUOTED_BOTH,
    LIKENESS_QUOTED_ONE,
    LIKENESS_SYMBOLS, /* another operator */
    LIKENESS_ROLES,   /* two shared words have changed their prepositions */
    LIKENESS_ORDER,   /* three shared words stand in reverse order */
    LIKENESS_GUARDS,  /* how many they are */

    /* What speaks against: content words without a counterpart, by their weights from 0 to 1. */
    LIKENESS_REPLACED = LIKENESS_GUARDS, /* a word between the same neighbours */
    LIKENESS_MISSING_BOTH,               /* sum, of the text that misses less; at most 2 */
    LIKENESS_MISSING_MOST,               /* sum, of the one that misses more; at most 3 */
    LIKENESS_RARE_BOTH,                  /* the rarest, of the text whose rarest is less rare */
    LIKENESS_RARE_MOST,                  /* the rarest of all */
    LIKENESS_INVERSE_LENGTH,             /* 1 / content words of the shorter text */
    LIKENESS_DISORDER,                   /* share of pairs of shared words in another order */
    LIKENESS_AGAINST_END,

    /* What speaks for. */
    LIKENESS_SHARED = LIKENESS_AGAINST_END, /* content: weight shared / weight of either */
    LIKENESS_SHARED_MOST,                   /* its part above 0.6, twice and a half */
    LIKENESS_COVERED,     /* content: shared / of the text that has less */
    LIKENESS_WORDS,       /* all words: shared / of either */
    LIKENESS_PAIRS,       /* pairs of neighbours: shared / of either */
    LIKENESS_COSINE,      /* of the embedder's vectors */
    LIKENESS_COSINE_MOST, /* its part above 0.7, scaled to 1 */
    LIKENESS_FEATURES
};

struct likeness {
    float features[LIKENESS_FEATURES];
};

/* `cosine`: of their vectors, by whatever embedder. Both profiles are of profile_version(). */
void likeness_of(const struct profile *a, const struct profile *b, double cosine,
                 struct likeness *ret_likeness);

/* For logs, explanations and the fit: "numbers_both". */
const char *likeness_feature_name(enum likeness_feature feature);
