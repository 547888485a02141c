#include "worker/cache/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/cache/refusal.h"

enum { LENGTH_BYTES = 8 };

/* The format's types with their bytes; those without a use here are only measured. */
static const struct {
    const char *name;
    enum tensor_type type;
    size_t bytes;
} types[] = {
    {"F64", TENSOR_F64, 8},    {"F32", TENSOR_F32, 4},       {"F16", TENSOR_F16, 2},
    {"BF16", TENSOR_BF16, 2},  {"I64", TENSOR_I64, 8},       {"I32", TENSOR_I32, 4},
    {"I8", TENSOR_I8, 1},      {"I16", TENSOR_OTHER, 2},     {"U64", TENSOR_OTHER, 8},
    {"U32", TENSOR_OTHER, 4},  {"U16", TENSOR_OTHER, 2},     {"U8", TENSOR_OTHER, 1},
    {"BOOL", TENSOR_OTHER, 1}, {"F8_E4M3", TENSOR_OTHER, 1}, {"F8_E5M2", TENSOR_OTHER, 1},
};

/* A number of bytes or elements: an integer from 0 on. */
static bool read_size(const json_t *value, size_t *ret_size)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *ret_size = (size_t)json_integer_value(value);
    return true;
}

static int read_type(const char *name, const json_t *value, struct tensor *tensor,
                     size_t *ret_bytes, char *ret_error)
{
    const char *word = json_string_value(value);
    for (size_t i = 0; word != NULL && i < ARRAY_LENGTH(types); i++) {
        if (strcmp(word, types[i].name) == 0) {
            tensor->type = types[i].type;
            *ret_bytes = types[i].bytes;
            return 0;
        }
    }
    return refusal_write(ret_error, "tensor \"%.40s\" has no type that is known", name);
}

/* Its bytes as the shape has them, in *bytes; which comes in as those of one element. */
static int read_shape(const char *name, const json_t *value, struct tensor *tensor, size_t *bytes,
                      char *ret_error)
{
    if (!json_is_array(value) || json_array_size(value) > SAFETENSORS_SHAPE_MAX) {
        return refusal_write(ret_error, "tensor \"%.40s\" has no shape of at most %d dimensions",
                             name, SAFETENSORS_SHAPE_MAX);
    }
    tensor->dimensions = json_array_size(value);
    for (size_t i = 0; i < tensor->dimensions; i++) {
        if (!read_size(json_array_get(value, i), &tensor->shape[i]) ||
            __builtin_mul_overflow(*bytes, tensor->shape[i], bytes)) {
            return refusal_write(ret_error, "tensor \"%.40s\" has a shape that cannot be", name);
        }
    }
    return 0;
}

static int read_tensor(const char *name, const json_t *value, const uint8_t *data, size_t bytes,
                       struct tensor *ret_tensor, char *ret_error)
{
    struct tensor tensor = {.type = TENSOR_OTHER};
    size_t wanted = 0;
    size_t from;
    size_t to;
    int r = read_type(name, json_object_get(value, "dtype"), &tensor, &wanted, ret_error);
    r = r < 0 ? r : read_shape(name, json_object_get(value, "shape"), &tensor, &wanted, ret_error);
    if (r < 0) {
        return r;
    }
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), &from) ||
        !read_size(json_array_get(offsets, 1), &to) || from > to || to > bytes) {
        return refusal_write(ret_error, "tensor \"%.40s\" lies outside of the file", name);
    }
    if (to - from != wanted) {
        return refusal_write(ret_error, "tensor \"%.40s\" has %zu bytes where its shape needs %zu",
                             name, to - from, wanted);
    }
    (void)snprintf(tensor.name, sizeof(tensor.name), "%s", name);
    tensor.data = data + from;
    tensor.bytes = to - from;
    *ret_tensor = tensor;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct tensor *first = a;
    const struct tensor *second = b;
    if (first->data != second->data) {
        return first->data < second->data ? -1 : 1;
    }
    return first->bytes < second->bytes ? -1 : first->bytes > second->bytes;
}

/* They follow one another to the end: no byte has two meanings, or none. */
static int check_order(const struct safetensors *file, const uint8_t *data, size_t bytes,
                       char *ret_error)
{
    const uint8_t *end = data;
    for (size_t i = 0; i < file->length; i++) {
        if (file->tensors[i].data != end) {
            return refusal_write(ret_error, "tensor \"%.40s\" overlaps another or leaves a gap",
                                 file->tensors[i].name);
        }
        end += file->tensors[i].bytes;
    }
    return end == data + bytes ? 0
                               : refusal_write(ret_error, "the file goes on after its last tensor");
}

static int read_tensors(const json_t *header, const uint8_t *data, size_t bytes,
                        struct safetensors *file, char *ret_error)
{
    const char *name;
    json_t *value;
    if (json_object_size(header) > SAFETENSORS_TENSORS_MAX) {
        return refusal_write(ret_error, "there are more than %d tensors", SAFETENSORS_TENSORS_MAX);
    }
    file->tensors = calloc(json_object_size(header) + 1, sizeof(*file->tensors));
    if (file->tensors == NULL) {
        return -ENOMEM;
    }
    json_object_foreach ((json_t *)(uintptr_t)header, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        int r = read_tensor(name, value, data, bytes, &file->tensors[file->length], ret_error);
        if (r < 0) {
            return r;
        }
        file->length++;
    }
    qsort(file->tensors, file->length, sizeof(*file->tensors), compare);
    return check_order(file, data, bytes, ret_error);
}

int safetensors_read(const uint8_t *data, size_t bytes, struct safetensors *ret_file,
                     char ret_error[REFUSAL_BYTES])
{
    uint64_t header_bytes = 0;
    if (bytes < LENGTH_BYTES) {
        return refusal_write(ret_error, "the file is too short");
    }
    for (size_t i = 0; i < LENGTH_BYTES; i++) {
        header_bytes |= (uint64_t)data[i] << (8 * i);
    }
    if (header_bytes > bytes - LENGTH_BYTES || header_bytes > SAFETENSORS_HEADER_BYTES_MAX) {
        return refusal_write(ret_error, "its header would be longer than the file or than %d bytes",
                             SAFETENSORS_HEADER_BYTES_MAX);
    }
    json_error_t error;
    json_t *header = json_loadb((const char *)data + LENGTH_BYTES, (size_t)header_bytes,
                                JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(header)) {
        json_decref(header);
        return refusal_write(ret_error, "its header is no JSON object");
    }
    struct safetensors file = {0};
    const size_t start = LENGTH_BYTES + (size_t)header_bytes;
    int r = read_tensors(header, data + start, bytes - start, &file, ret_error);
    json_decref(header);
    if (r < 0) {
        safetensors_finish(&file);
        return r;
    }
    *ret_file = file;
    return 0;
}

void safetensors_finish(struct safetensors *file)
{
    free(file->tensors);
    *file = (struct safetensors){0};
}

const struct tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->length; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) {
            return &file->tensors[i];
        }
    }
    return NULL;
}

int mapped_file_open(const char *path, struct mapped_file *ret_file)
{
    struct stat status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &status) < 0) {
        const int r = -errno;
        (void)close(fd);
        return r;
    }
    if (!S_ISREG(status.st_mode) || status.st_size <= 0) {
        (void)close(fd);
        return -EINVAL;
    }
    void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    const int r = data == MAP_FAILED ? -errno : 0;
    (void)close(fd);
    if (r == 0) {
        *ret_file = (struct mapped_file){data, (size_t)status.st_size};
    }
    return r;
}

void mapped_file_close(struct mapped_file *file)
{
    if (file->data != NULL) {
        (void)munmap((void *)(uintptr_t)file->data, file->bytes);
    }
    *file = (struct mapped_file){0};
}

/* ---- numbers ---- */

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/*
 * IEEE half precision by a multiplication, without a branch, so that loops over it become vector
 * instructions; it also makes subnormal numbers right. Infinities become large finite numbers.
 */
static float float_of_half(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const float value = float_of_bits(magnitude) * 0x1p112F;
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return float_of_bits(bits | sign);
}

#define ELEMENT(type, data, index)                                                                 \
    ({                                                                                             \
        type element_;                                                                             \
        memcpy(&element_, (data) + (index) * sizeof(type), sizeof(type));                          \
        element_;                                                                                  \
    })

double tensor_number(const struct tensor *tensor, size_t index)
{
    const uint8_t *data = tensor->data;
    switch (tensor->type) {
    case TENSOR_F64:
        return ELEMENT(double, data, index);
    case TENSOR_F32:
        return (double)ELEMENT(float, data, index);
    case TENSOR_F16:
        return (double)float_of_half(ELEMENT(uint16_t, data, index));
    case TENSOR_BF16:
        return (double)float_of_bits((uint32_t)ELEMENT(uint16_t, data, index) << 16);
    case TENSOR_I64:
        return (double)ELEMENT(int64_t, data, index);
    case TENSOR_I32:
        return (double)ELEMENT(int32_t, data, index);
    case TENSOR_I8:
        return (double)ELEMENT(int8_t, data, index);
    case TENSOR_OTHER:
        return 0;
    }
    return 0;
}

void tensor_add(const struct tensor *tensor, size_t from, size_t length, float weight, float *sums)
{
    const uint8_t *data = tensor->data;
    switch (tensor->type) {
    case TENSOR_F64:
        for (size_t i = 0; i < length; i++) {
            sums[i] += weight * (float)ELEMENT(double, data, from + i);
        }
        return;
    case TENSOR_F32:
        for (size_t i = 0; i < length; i++) {
            sums[i] += weight * ELEMENT(float, data, from + i);
        }
        return;
    case TENSOR_F16:
        for (size_t i = 0; i < length; i++) {
            sums[i] += weight * float_of_half(ELEMENT(uint16_t, data, from + i));
        }
        return;
    case TENSOR_BF16:
        for (size_t i = 0; i < length; i++) {
            sums[i] += weight * float_of_bits((uint32_t)ELEMENT(uint16_t, data, from + i) << 16);
        }
        return;
    case TENSOR_I8:
        for (size_t i = 0; i < length; i++) {
            sums[i] += weight * (float)ELEMENT(int8_t, data, from + i);
        }
        return;
    case TENSOR_I64:
    case TENSOR_I32:
    case TENSOR_OTHER:
        return;
    }
}
