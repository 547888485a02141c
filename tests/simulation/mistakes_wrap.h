/*
 * How a function of the core is replaced: the linker sends calls of `name` to __wrap_name, and
 * __real_name is the core's own. Each has to be in the list of meson.build as well.
 */
#pragma once

#define REPLACES(type, name, ...)                                                                  \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    __attribute__((used)) type __wrap_##name(__VA_ARGS__)
