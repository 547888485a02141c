#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "common/blob.h"

static void count_release(void *context)
{
    (*(int *)context)++;
}

Test(blob, keeps_a_copy_of_its_bytes)
{
    char text[] = "payload";
    struct blob *blob = NULL;
    cr_assert_eq(blob_create(text, sizeof(text), &blob), 0);
    text[0] = 'X';
    cr_assert_eq(blob_bytes(blob), sizeof(text));
    cr_assert_str_eq(blob_data(blob), "payload");
    blob_unref(&blob);
    cr_assert_null(blob);
}

Test(blob, may_be_empty)
{
    struct blob *blob = NULL;
    cr_assert_eq(blob_create(NULL, 0, &blob), 0);
    cr_assert_eq(blob_bytes(blob), 0);
    blob_unref(&blob);
    blob_unref(&blob);
}

Test(blob, releases_a_wrapped_buffer_with_its_last_owner)
{
    int released = 0;
    struct blob *blob = NULL;
    cr_assert_eq(blob_wrap("abc", 3, count_release, &released, &blob), 0);
    struct blob *second = blob_ref(blob);
    blob_unref(&blob);
    cr_assert_eq(released, 0);
    cr_assert_eq(memcmp(blob_data(second), "abc", 3), 0);
    blob_unref(&second);
    cr_assert_eq(released, 1);
}

Test(blob, bytes_can_be_written_where_they_stay)
{
    uint8_t *bytes = NULL;
    struct blob *blob = NULL;
    cr_assert_eq(blob_create_unwritten(3, &bytes, &blob), 0);
    memcpy(bytes, "xyz", 3);
    cr_assert_eq(blob_bytes(blob), 3);
    cr_assert_eq(blob_data(blob), bytes);
    blob_unref(&blob);
    cr_assert_eq(blob_create_unwritten(SIZE_MAX, &bytes, &blob), -ENOMEM);
}

static void *ref_and_unref(void *context)
{
    for (int i = 0; i < 20000; i++) {
        struct blob *mine = blob_ref(context);
        blob_unref(&mine);
    }
    return NULL;
}

Test(blob, counts_owners_of_several_threads)
{
    int released = 0;
    struct blob *blob = NULL;
    cr_assert_eq(blob_wrap("abc", 3, count_release, &released, &blob), 0);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, ref_and_unref, blob), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    cr_assert_eq(released, 0);
    blob_unref(&blob);
    cr_assert_eq(released, 1);
}
