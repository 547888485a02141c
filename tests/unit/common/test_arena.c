#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include "common/arena.h"

enum { BYTES_MAX = 1 << 20 };

static struct arena *make(size_t bytes_max)
{
    struct arena *arena = NULL;
    cr_assert_eq(arena_create(bytes_max, &arena), 0);
    return arena;
}

Test(arena, pieces_are_aligned_and_do_not_overlap)
{
    struct arena *arena = make(BYTES_MAX);
    unsigned char *pieces[200];
    for (size_t i = 0; i < 200; i++) {
        pieces[i] = arena_alloc(arena, i * 7);
        cr_assert_not_null(pieces[i]);
        cr_assert_eq((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)i, i * 7);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i * 7; k++) {
            cr_assert_eq(pieces[i][k], (unsigned char)i);
        }
    }
    arena_destroy(&arena);
    cr_assert_null(arena);
}

Test(arena, refuses_more_than_its_bound_until_it_is_reset)
{
    struct arena *arena = make(BYTES_MAX);
    cr_assert_null(arena_alloc(arena, BYTES_MAX + 1));
    cr_assert_null(arena_alloc(arena, SIZE_MAX));
    size_t taken = 0;
    while (arena_alloc(arena, 1024) != NULL) {
        taken += 1024;
    }
    cr_assert_leq(taken, (size_t)BYTES_MAX);
    cr_assert_geq(taken, (size_t)BYTES_MAX - (4 * 1024));
    cr_assert_not(arena_lacks_memory(arena), "its bound is no lack of it");
    arena_reset(arena);
    cr_assert_not_null(arena_alloc(arena, 1024));
    arena_destroy(&arena);
}

Test(arena, a_large_piece_fits_an_empty_arena)
{
    struct arena *arena = make(BYTES_MAX);
    cr_assert_not_null(arena_alloc(arena, BYTES_MAX));
    cr_assert_null(arena_alloc(arena, 1));
    arena_destroy(&arena);
}

Test(arena, serves_protobuf)
{
    struct arena *arena = make(BYTES_MAX);
    ProtobufCAllocator *allocator = arena_protobuf_allocator(arena);
    void *piece = allocator->alloc(allocator->allocator_data, 100);
    cr_assert_not_null(piece);
    allocator->free(allocator->allocator_data, piece);
    cr_assert_null(allocator->alloc(allocator->allocator_data, BYTES_MAX + 1));
    arena_destroy(&arena);
}

Test(arena, destroy_accepts_nothing)
{
    struct arena *arena = NULL;
    arena_destroy(&arena);
}
