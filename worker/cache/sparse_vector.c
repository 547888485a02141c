#include "worker/cache/sparse_vector.h"

#include <math.h>

#include "worker/cache/sparse_table.h"

void sparse_vector_set_norm(struct sparse_vector *vector)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < vector->length; i++) {
        const uint32_t weight = sparse_weight(vector->items[i]);
        sum += weight * weight;
    }
    vector->norm_squared = sum;
}

bool sparse_vector_is_valid(const struct sparse_vector *vector)
{
    struct sparse_table table;
    uint32_t sum = 0;
    if (vector->length > SPARSE_ITEMS_MAX) {
        return false;
    }
    sparse_table_clear(&table);
    for (size_t i = 0; i < vector->length; i++) {
        const uint32_t item = vector->items[i];
        const uint32_t weight = sparse_weight(item);
        if (weight == 0 || sparse_table_weight(&table, sparse_bucket(item)) != 0) {
            return false;
        }
        sparse_table_put(&table, item);
        sum += weight * weight;
    }
    return sum == vector->norm_squared;
}

double sparse_vector_cosine(const struct sparse_vector *a, const struct sparse_vector *b)
{
    struct sparse_table table;
    if (a->norm_squared == 0 || b->norm_squared == 0) {
        return 0;
    }
    sparse_table_fill(&table, a);
    const uint32_t dot = sparse_table_dot(&table, b->items, b->length);
    return dot / sqrt((double)a->norm_squared * b->norm_squared);
}
