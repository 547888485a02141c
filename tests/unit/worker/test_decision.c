#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/decision.h"
#include "worker/cache/embed_builtin.h"

static struct likeness compare(const char *a, const char *b)
{
    union profile_buffer first;
    union profile_buffer second;
    struct sparse_vector x;
    struct sparse_vector y;
    struct likeness likeness;
    cr_assert_gt(profile_make(a, strlen(a), &first), 0);
    cr_assert_gt(profile_make(b, strlen(b), &second), 0);
    embed_builtin(&first.profile, &x);
    embed_builtin(&second.profile, &y);
    likeness_of(&first.profile, &second.profile, sparse_vector_cosine(&x, &y), &likeness);
    return likeness;
}

static double score(const char *a, const char *b)
{
    const struct likeness likeness = compare(a, b);
    return decision_score(decision_builtin(), &likeness);
}

Test(decision, no_guard_speaks_for_and_nothing_shared_speaks_against)
{
    const struct decision_model *model = decision_builtin();
    for (size_t i = 0; i < LIKENESS_FEATURES; i++) {
        const char *name = likeness_feature_name((enum likeness_feature)i);
        cr_expect(isfinite(model->weights[i]), "%s", name);
        if (i < LIKENESS_GUARDS) {
            cr_expect_lt(model->weights[i], 0, "%s", name);
        } else if (i < LIKENESS_AGAINST_END) {
            cr_expect_leq(model->weights[i], 0, "%s", name);
        } else {
            cr_expect_geq(model->weights[i], 0, "%s", name);
        }
    }
}

Test(decision, rewording_scores_above_another_question)
{
    const char *question = "How do I reset the password of my router?";
    const double reworded = score(question, "please tell me how to reset my router's password");
    cr_expect_gt(reworded, score(question, "How do I reset the password of my phone?") + 1);
    cr_expect_gt(reworded, score(question, "How do I bake sourdough bread?") + 1);
    cr_expect_gt(score(question, question), reworded - 1e-9);
}

Test(decision, strict_mode_names_what_forbids)
{
    enum likeness_feature reason = LIKENESS_FEATURES;
    struct likeness likeness = compare("fly from oslo to rome", "fly from rome to oslo");
    cr_assert(decision_is_forbidden(&likeness, &reason));
    cr_assert_eq(reason, LIKENESS_ROLES, "%s", likeness_feature_name(reason));
    likeness = compare("Where is the moon?", "please tell me: where is the moon");
    reason = LIKENESS_FEATURES;
    cr_assert_not(decision_is_forbidden(&likeness, &reason));
    cr_assert_eq(reason, LIKENESS_FEATURES);
}

/* tests/data/opposite_questions.tsv: kind, question, the other question. */
Test(decision, strict_mode_answers_no_opposite_question)
{
    char line[1024];
    size_t n = 0;
    FILE *file = fopen(getenv("TIERMQ_OPPOSITE_QUESTIONS"), "r");
    cr_assert_not_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        enum likeness_feature reason;
        char *a = strchr(line, '\t');
        char *b = a == NULL ? NULL : strchr(a + 1, '\t');
        if (line[0] == '#') {
            continue;
        }
        cr_assert_not_null(b);
        *a++ = *b++ = '\0';
        const struct likeness likeness = compare(a, b);
        cr_expect(decision_is_forbidden(&likeness, &reason), "%s | %s", a, b);
        n++;
    }
    cr_assert_geq(n, 200);
    cr_assert_eq(fclose(file), 0);
}

Test(decision, dense_score_rises_with_the_cosine_and_every_guard_lowers_it)
{
    struct likeness likeness = {.features = {[LIKENESS_COSINE] = 0.9F}};
    const double alike = decision_score_dense(&likeness);
    for (size_t i = 0; i < LIKENESS_GUARDS; i++) {
        likeness.features[i] = 1;
        cr_expect_lt(decision_score_dense(&likeness), alike, "%s", likeness_feature_name((enum likeness_feature)i));
        likeness.features[i] = 0;
    }
    for (size_t i = LIKENESS_GUARDS; i < LIKENESS_COSINE; i++) {
        likeness.features[i] = 1;
        cr_expect_eq(decision_score_dense(&likeness), alike, "a paraphrase is not punished: %s",
                     likeness_feature_name((enum likeness_feature)i));
    }
    likeness.features[LIKENESS_COSINE] = 0.95F;
    cr_expect_gt(decision_score_dense(&likeness), alike);
}
