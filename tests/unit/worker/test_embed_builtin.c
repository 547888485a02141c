#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "worker/cache/embed_builtin.h"

static void embed(const char *text, struct sparse_vector *vector)
{
    union profile_buffer buffer;
    const size_t length = profile_make(text, strlen(text), &buffer);
    cr_assert(length > 0 && length <= PROFILE_WORDS_MAX, "%s", text);
    embed_builtin(&buffer.profile, vector);
    cr_assert(sparse_vector_is_valid(vector), "%s", text);
}

static double similarity(const char *a, const char *b)
{
    struct sparse_vector first;
    struct sparse_vector second;
    embed(a, &first);
    embed(b, &second);
    return sparse_vector_cosine(&first, &second);
}

Test(embed_builtin, case_space_and_punctuation_do_not_matter)
{
    cr_assert_gt(similarity("What is the capital of France?", "  what is the CAPITAL of france"),
                 0.999);
}

Test(embed_builtin, rewording_is_nearer_than_another_subject)
{
    const char *question = "How do I reset my router password?";
    const double reworded = similarity(question, "Tell me how to reset the password of my router");
    const double other = similarity(question, "How do I bake sourdough bread at home?");
    cr_assert_gt(reworded, 0.6, "%f", reworded);
    cr_assert_lt(other, 0.2, "%f", other);
}

Test(embed_builtin, a_slip_of_the_pen_stays_near)
{
    const double score = similarity("Explain quantum entanglement in simple terms",
                                    "Explain quantum entanglment in simple terms");
    cr_assert_gt(score, 0.7, "%f", score);
}

Test(embed_builtin, the_heaviest_item_has_the_whole_range)
{
    struct sparse_vector vector;
    uint32_t most = 0;
    embed("which zebras sleep", &vector);
    for (size_t i = 0; i < vector.length; i++) {
        most = sparse_weight(vector.items[i]) > most ? sparse_weight(vector.items[i]) : most;
    }
    cr_assert_eq(most, SPARSE_WEIGHT_MAX);
}

Test(embed_builtin, a_long_text_fits)
{
    char text[4000] = "";
    struct sparse_vector vector;
    for (int i = 0; i < PROFILE_WORDS_MAX; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "q%czebra%cfish ", 'a' + i % 26,
                 'a' + i / 26);
    }
    embed(text, &vector);
    cr_assert_eq(vector.length, SPARSE_ITEMS_MAX);
}
