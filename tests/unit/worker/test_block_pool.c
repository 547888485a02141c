#include <criterion/criterion.h>
#include <string.h>
#include "common/attributes.h"
#include "tests/unit/worker/dice.h"
#include "tests/unit/worker/scarce_memory.h"
#include "worker/cache/block_pool.h"

enum { BLOCKS = 3000, ROUNDS = 60000, SEEDS = 4 };

struct model_block {
    uint32_t block;
    size_t bytes;
    uint8_t filled_with;
};

static void check_content(const struct block_pool *pool, const struct model_block *model)
{
    const uint8_t *bytes = block_pool_at(pool, model->block);
    for (size_t i = 0; i < model->bytes; i++) {
        cr_assert_eq(bytes[i], model->filled_with);
    }
}

static void fill(const struct block_pool *pool, struct model_block *model, struct dice *dice)
{
    model->filled_with = (uint8_t)dice_next(dice);
    memset(block_pool_at(pool, model->block), model->filled_with, model->bytes);
}

Test(block_pool, blocks_keep_what_is_in_them_while_others_come_and_go)
{
    static struct model_block models[BLOCKS];
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct dice dice = {.state = seed};
        struct block_pool pool;
        size_t used = 0;
        memset(models, 0, sizeof(models));
        block_pool_init(&pool);
        for (size_t round = 0; round < ROUNDS; round++) {
            struct model_block *model = &models[dice_below(&dice, BLOCKS)];
            if (model->block != 0) {
                check_content(&pool, model);
                used -= block_pool_capacity(&pool, model->block);
                block_pool_free(&pool, model->block);
                model->block = 0;
                continue;
            }
            model->bytes = 1 + dice_below(&dice, dice_below(&dice, 4) == 0 ? BLOCK_BYTES_MAX : 200);
            model->block = block_pool_alloc(&pool, model->bytes);
            cr_assert_neq(model->block, 0);
            cr_assert_eq(model->block >> 31, 0);
            cr_assert_geq(block_pool_capacity(&pool, model->block), model->bytes);
            cr_assert_leq(block_pool_capacity(&pool, model->block), model->bytes * 5 / 4 + 16);
            used += block_pool_capacity(&pool, model->block);
            fill(&pool, model, &dice);
            cr_assert_eq(pool.bytes_used, used, "seed %lu", seed);
            cr_assert_geq(block_pool_bytes(&pool), used);
        }
        block_pool_finish(&pool);
    }
}

Test(block_pool, memory_goes_back_when_blocks_do)
{
    static uint32_t blocks[50000];
    struct block_pool pool;
    block_pool_init(&pool);
    for (size_t turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < ARRAY_LENGTH(blocks); i++) {
            blocks[i] = block_pool_alloc(&pool, 100 + i % 800);
            cr_assert_neq(blocks[i], 0);
        }
        cr_assert_geq(pool.regions_alive, 10);
        for (size_t i = 0; i < ARRAY_LENGTH(blocks); i++) {
            block_pool_free(&pool, blocks[i]);
        }
        cr_assert_eq(pool.bytes_used, 0);
        cr_assert_eq(pool.regions_alive, 1);
    }
    block_pool_finish(&pool);
}

Test(block_pool, without_memory_there_is_no_block_and_later_there_is)
{
    /* The lists of regions are there after the third attempt; then the region's memory is not. */
    static const int allocations[] = {0, 1, 2, 1};
    struct block_pool pool;
    block_pool_init(&pool);
    for (size_t i = 0; i < ARRAY_LENGTH(allocations); i++) {
        let_memory_be_scarce(allocations[i]);
        const uint32_t block = block_pool_alloc(&pool, 100);
        let_memory_be_plenty();
        cr_assert_eq(block, 0);
    }
    cr_assert_neq(block_pool_alloc(&pool, 100), 0);
    block_pool_finish(&pool);
}
