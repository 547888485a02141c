/*
 * embed_static: vectors that were looked up, not computed: the mean of the rows of a text's tokens.
 *
 * A folder as model2vec and sentence-transformers' StaticEmbedding write it: tokenizer.json, and
 * model.safetensors with the tensor "embeddings" ("embedding.weight", "0", or the only one of two
 * dimensions) of [rows, dim] in F32, F16, BF16 or I8. Optional, by token: "weights" (a factor) and
 * "mapping" (its row; else row = token). Texts are cut where model2vec cuts them (512 tokens), and
 * unknown tokens are left out. The length becomes 1 whatever config.json says of it: only cosines
 * are compared. Source: github.com/MinishLab/model2vec, model.py and persistence.py.
 *
 * The rows stay in the file, which is mapped (safetensors.h says how to replace it). Its version is
 * a hash over both files, so a model with another content is another one.
 */
#pragma once
#include "common/attributes.h"
#include "worker/cache/text_embedder.h"

enum { EMBED_STATIC_TOKENS_MAX = 512 };

/*
 * Reads all of both files once: about 0.1 s for 30 MB.
 * Errors: -EINVAL the files (ret_error says what is wrong); -errno of opening them (ret_error names
 * the file); -ENOMEM.
 */
MUST_USE int embed_static_create(const char *folder, struct text_embedder **ret_embedder,
                                 char ret_error[TEXT_EMBEDDER_ERROR_BYTES]);
