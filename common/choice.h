/*
 * choice: which of several models is to answer a job: what it must be able to do, and what speaks
 * for it.
 *
 * First what cannot be given up: what the request needs of a model (abilities), that it fits into
 * its context, where its data may go, a quality floor. Then a score, from -2 to 1, of what is left:
 *
 *   score = q · good - p · price - l · late - failing
 *
 *   good     the chance that its grade is enough, 1 / (1 + e^-((grade - need) / 12)), as a share of
 *            that of the best, where need is 10 + 70 · complexity of the prompt
 *            (common/complexity.h; 0.5 when it is not known)
 *   price    what the job is expected to cost, as a share of what it costs with the dearest model
 *   late     its 95th percentile for prompts of this size, as a share of the time that is left; 1
 * at most failing  the share of its latest calls that failed
 *
 * The weights q, p, l are those of the tier. Pure; no state.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a request may need of a model; bits of `abilities`. Part of the wire: new ones are appended.
 */
enum choice_ability {
    ABILITY_TOOLS = 1 << 0,
    ABILITY_IMAGES = 1 << 1,
    ABILITY_JSON_MODE = 1 << 2,
    ABILITY_JSON_SCHEMA = 1 << 3,
    ABILITY_AUDIO = 1 << 4,
    ABILITY_LOGPROBS = 1 << 5,
    ABILITY_VARIANTS = 1 << 6, /* more than one answer */
    ABILITY_STORED = 1 << 7,   /* its provider has what the job goes on from: Responses alone */
    ABILITIES_ALL = (1 << 8) - 1,
};
enum { ABILITIES = 8 };
/* "tools" … of the bit at `position`, below ABILITIES. */
const char *choice_ability_name(size_t position);
/* 0: there is no ability of this name. */
uint32_t choice_ability_find(const char *name);

struct choice_job {
    double complexity; /* 0 to 1; below 0: not known */
    uint32_t abilities;
    uint32_t residencies; /* bits by the numbers of the labels, from 1 to 31, that it needs */
    uint64_t input_tokens;
    uint64_t output_tokens; /* expected */
    int64_t left_ms;        /* until its deadline; INT64_MAX: it has none */
    uint32_t quality_min;
};

struct choice_model {
    uint32_t abilities;
    uint32_t residencies;    /* bits by the number of the label */
    uint64_t context_tokens; /* input and output; 0: not known */
    uint32_t quality;        /* grade, 0 to 100 */
    uint64_t input_nanousd_per_mtok, output_nanousd_per_mtok;
    uint64_t request_nanousd; /* of a call by itself */
    double p95_ms;  /* of calls with prompts of this size; 0: not known yet */
    double failing; /* share of the latest calls, 0 to 1 */
    double learned; /* grades to add, from feedback; 0: nothing learned */
};

struct choice_weights {
    double quality, price, latency; /* 0 to 1 */
};

enum choice_verdict {
    CHOICE_FITS,
    CHOICE_LACKS_ABILITY,
    CHOICE_TOO_SMALL, /* its context */
    CHOICE_ELSEWHERE, /* residency */
    CHOICE_TOO_LOW,   /* quality */
};

struct choice_score {
    double good, price, late, failing; /* 0 to 1 */
    double total;
    uint64_t cost_nanousd; /* expected */
};

enum choice_verdict choice_check(const struct choice_job *job, const struct choice_model *model);
/* The same, or what stands for one that is not known (below 0). */
double choice_complexity(double complexity);
/* The chance that this grade is enough for a prompt of this complexity, as above. */
double choice_chance(double complexity, double grade);
/* The grades by which a chance `to` is better than `from`; both within 0 and 1, and neither of them. */
double choice_grades_between(double from, double to);
/* What the job is expected to cost with this model. */
uint64_t choice_cost_nanousd(const struct choice_job *job, const struct choice_model *model);

/* What each is measured against: the extremes of those compared. Begin with zeros, and add each. */
struct choice_scale {
    double best; /* chance of a good answer */
    uint64_t dearest_nanousd;
};
void choice_scale_add(struct choice_scale *scale, const struct choice_job *job,
                      const struct choice_model *model);
struct choice_score choice_score(const struct choice_job *job, const struct choice_model *model,
                                 const struct choice_weights *weights,
                                 const struct choice_scale *scale);
/* In a word, what spoke most against `loser` beside `winner`: "quality", "price", "latency",
 * "failures". */
const char *choice_reason(const struct choice_weights *weights, const struct choice_score *winner,
                          const struct choice_score *loser);

enum { CHOICE_SECOND_BYTES = 192 };
/*
 * What the explanation of a choice goes on to say once a second call is made beside the first, slow one: by the broker, which
 * explains a job that runs, and by the worker, in its answer. Fills at most `bytes`, with the end of the text; CHOICE_SECOND_BYTES
 * do for names of 64.
 */
void choice_second_words(const char *provider, const char *model, char *ret_words, size_t bytes);
