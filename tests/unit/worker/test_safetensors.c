#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/cache/safetensors.h"

/* A file of a header and as many bytes of data, which count up from 0. */
static size_t make(uint8_t *room, const char *header, size_t data_bytes)
{
    const size_t length = strlen(header);
    memset(room, 0, 8);
    room[0] = (uint8_t)length;
    room[1] = (uint8_t)(length >> 8);
    memcpy(room + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++) {
        room[8 + length + i] = (uint8_t)i;
    }
    return 8 + length + data_bytes;
}

Test(safetensors, tensors_are_found_by_name_with_their_shape)
{
    uint8_t room[1024];
    char error[REFUSAL_BYTES] = "";
    struct safetensors file;
    const size_t bytes =
        make(room,
             "{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[24,28]},"
             "\"embeddings\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]}}  ",
             28);
    cr_assert_eq(safetensors_read(room, bytes, &file, error), 0, "%s", error);
    cr_assert_eq(file.length, 2);
    const struct tensor *table = safetensors_find(&file, "embeddings");
    cr_assert_not_null(table);
    cr_expect_eq(table->type, TENSOR_F32);
    cr_expect(table->dimensions == 2 && table->shape[0] == 3 && table->shape[1] == 2);
    cr_expect_eq(tensor_number(safetensors_find(&file, "w"), 3), 27);
    cr_expect_null(safetensors_find(&file, "nothing"));
    safetensors_finish(&file);
}

Test(safetensors, what_cannot_be_is_refused_with_the_reason)
{
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *why;
    } cases[] = {
        {"[]", 0, "no JSON object"},
        {"{", 0, "no JSON object"},
        {"{\"a\":1,\"a\":2}", 0, "no JSON object"},
        {"{\"a\":5}", 0, "no type"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no type"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "cannot be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "cannot be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,4]}}", 4, "cannot be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "at most 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "its shape needs 8"},
        {"{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"I8\",\"shape\":[2],"
         "\"data_offsets\":[1,3]}}", 3, "overlaps"},
        {"{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "gap"},
        {"{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3, "goes on"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        uint8_t room[1024];
        char error[REFUSAL_BYTES] = "";
        struct safetensors file;
        const size_t bytes = make(room, cases[i].header, cases[i].data_bytes);
        cr_expect_eq(safetensors_read(room, bytes, &file, error), -EINVAL, "%s", cases[i].header);
        cr_expect_not_null(strstr(error, cases[i].why), "%s: %s", cases[i].header, error);
    }
}

Test(safetensors, a_header_longer_than_the_file_is_refused)
{
    char error[REFUSAL_BYTES] = "";
    struct safetensors file;
    uint8_t room[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    cr_expect_eq(safetensors_read(room, 10, &file, error), -EINVAL);
    room[0] = 3;
    memset(room + 1, 0, 7);
    cr_expect_eq(safetensors_read(room, 10, &file, error), -EINVAL);
    cr_expect_eq(safetensors_read(room, 7, &file, error), -EINVAL);
    room[0] = 2;
    cr_expect_eq(safetensors_read(room, 10, &file, error), 0, "%s", error);
    safetensors_finish(&file);
}

static float added(enum tensor_type type, const void *data, size_t bytes)
{
    float sum = 0;
    const struct tensor tensor = {.type = type, .data = data, .bytes = bytes};
    tensor_add(&tensor, 0, 1, 2, &sum);
    cr_expect_float_eq((double)sum, 2 * tensor_number(&tensor, 0), 1e-6);
    return sum / 2;
}

Test(safetensors, numbers_of_every_type_are_read)
{
    const double f64 = -0.75;
    const float f32 = 1.5F;
    const int8_t i8 = -128;
    const uint16_t bf16 = 0xbfc0;                              /* -1.5 */
    static const struct { uint16_t bits; float value; } halves[] = {
        {0x0000, 0}, {0x3c00, 1}, {0xc000, -2}, {0x3555, 0.333251953125F}, {0x7bff, 65504},
        {0x0001, 5.9604644775390625e-8F}, {0x03ff, 6.09755516e-5F}, {0x0400, 6.103515625e-5F}};
    cr_expect_eq(added(TENSOR_F64, &f64, 8), -0.75F);
    cr_expect_eq(added(TENSOR_F32, &f32, 4), 1.5F);
    cr_expect_eq(added(TENSOR_I8, &i8, 1), -128);
    cr_expect_eq(added(TENSOR_BF16, &bf16, 2), -1.5F);
    for (size_t i = 0; i < ARRAY_LENGTH(halves); i++) {
        cr_expect_eq(added(TENSOR_F16, &halves[i].bits, 2), halves[i].value, "%04x", halves[i].bits);
    }
}

Test(safetensors, only_files_with_something_in_them_are_mapped)
{
    struct mapped_file file;
    char path[] = "/tmp/tiermq-safetensors-XXXXXX";
    const int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_expect_eq(mapped_file_open(path, &file), -EINVAL);
    cr_assert_eq(write(fd, "abc", 3), 3);
    cr_expect_eq(mapped_file_open(path, &file), 0);
    cr_expect(file.bytes == 3 && memcmp(file.data, "abc", 3) == 0);
    mapped_file_close(&file);
    close(fd);
    unlink(path);
    cr_expect_eq(mapped_file_open(path, &file), -ENOENT);
    cr_expect_eq(mapped_file_open("/tmp", &file), -EINVAL);
}
