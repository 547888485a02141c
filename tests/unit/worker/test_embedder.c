#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "worker/cache/embedder.h"

static double similarity(const char *a, const char *b)
{
    struct vector first, second;
    cr_assert_gt(embedder_embed(a, strlen(a), &first), 0);
    cr_assert_gt(embedder_embed(b, strlen(b), &second), 0);
    return vector_cosine(&first, &second);
}

Test(embedder, case_space_and_punctuation_do_not_matter)
{
    cr_assert_gt(similarity("What is the capital of France?", "  what is the CAPITAL of france"),
                 0.999);
}

Test(embedder, rewording_is_nearer_than_another_subject)
{
    const double reworded = similarity("How do I reset my router password?",
                                       "Please tell me how to reset the password of my router");
    const double other =
        similarity("How do I reset my router password?", "How do I bake sourdough bread at home?");
    cr_assert_gt(reworded, 0.6, "%f", reworded);
    cr_assert_lt(other, 0.3, "%f", other);
}

Test(embedder, a_typo_stays_near)
{
    const double score = similarity("Explain quantum entanglement in simple terms",
                                    "Explain quantum entanglment in simple terms");
    cr_assert_gt(score, 0.7, "%f", score);
}

Test(embedder, empty_and_long_texts_say_so)
{
    struct vector vector;
    char text[4000] = "";
    for (int i = 0; i < 300; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "word%d ", i);
    }
    cr_assert_eq(embedder_embed("", 0, &vector), 0);
    cr_assert_eq(embedder_embed(" ,.! ", 5, &vector), 0);
    cr_assert_gt(embedder_embed(text, strlen(text), &vector), EMBEDDER_WORDS_MAX);
}
