/*
 * safetensors: a file of named tensors, mapped into memory and checked before a byte of it is used.
 *
 * 8 bytes: the header's length (little endian), the header in JSON, then the tensors' bytes, which
 * must follow one another without a gap to the end of the file. Source: the format's description
 * and the checks of its reference implementation (github.com/huggingface/safetensors).
 *
 * Pages are shared among processes and read when they are used. So a model is replaced by renaming
 * a new file over it: one that is cut short in place kills whoever reads it (SIGBUS).
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/refusal.h"

enum {
    SAFETENSORS_HEADER_BYTES_MAX = 1 << 20,
    SAFETENSORS_TENSORS_MAX = 256,
    SAFETENSORS_SHAPE_MAX = 8,
};

enum tensor_type {
    TENSOR_F64,
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_I64,
    TENSOR_I32,
    TENSOR_I8,
    TENSOR_OTHER
};

struct tensor {
    char name[64]; /* cut off when longer */
    enum tensor_type type;
    size_t shape[SAFETENSORS_SHAPE_MAX];
    size_t dimensions;   /* how many of shape are set */
    const uint8_t *data; /* into the file; of any alignment */
    size_t bytes;
};

struct safetensors {
    struct tensor *tensors;
    size_t length;
};

/*
 * Reads the header of a whole file in memory.
 * Gives: *ret_file, to be finished; its data borrow from `data`.
 * Errors: -EINVAL (ret_error says why); -ENOMEM.
 */
MUST_USE int safetensors_read(const uint8_t *data, size_t bytes, struct safetensors *ret_file,
                              char ret_error[REFUSAL_BYTES]);
void safetensors_finish(struct safetensors *file);
/* NULL: there is none. */
const struct tensor *safetensors_find(const struct safetensors *file, const char *name);

/* A file mapped read-only. */
struct mapped_file {
    const uint8_t *data;
    size_t bytes;
};
/* Errors: -errno of open, fstat, mmap; -EINVAL it is empty or no regular file. */
MUST_USE int mapped_file_open(const char *path, struct mapped_file *ret_file);
void mapped_file_close(struct mapped_file *file);

/* An element as a number; `index` below the tensor's count. 0 for types of TENSOR_OTHER. */
double tensor_number(const struct tensor *tensor, size_t index);
/* sums[i] += weight × element[from + i]. F64, F32, F16, BF16 and I8 only. */
void tensor_add(const struct tensor *tensor, size_t from, size_t length, float weight, float *sums);
