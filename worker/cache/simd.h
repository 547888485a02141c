/*
 * simd: one function in several versions, of which the machine that runs it takes the best.
 *
 * For loops over arrays that the compiler makes vector instructions of. Elsewhere than on x86-64
 * there is one version, for the baseline. Sanitizers instrument what chooses the version before
 * they are ready themselves, so with them there is one version too; and so with clang, of which
 * versions up to 16 give the function itself no name that other files find.
 */
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SIMD_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SIMD_SANITIZED 1
#endif

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(SIMD_SANITIZED)
#define SIMD_VERSIONS __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define SIMD_VERSIONS
#endif
