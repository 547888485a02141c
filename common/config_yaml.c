/*
 * The text is parsed twice: as events, where what is refused is seen before anything is built from
 * it, and then as a document. The file is small, and the second pass needs no more checks.
 */
#include "common/config_yaml.h"

#include <errno.h>
#include <string.h>

struct scan {
    const char *file;
    struct config_errors *errors;
    int depth;
    int n_documents;
};

static int refuse(const struct scan *scan, yaml_mark_t mark, const char *why)
{
    const int r =
        config_errors_add(scan->errors, scan->file, mark.line + 1, mark.column + 1, "", NULL, why);
    return r < 0 ? r : -EINVAL;
}

static void parser_start(yaml_parser_t *parser, const char *text, size_t bytes)
{
    yaml_parser_set_input_string(parser, (const unsigned char *)text, bytes);
    yaml_parser_set_encoding(
        parser, YAML_UTF8_ENCODING); /* otherwise a mark at its start makes it UTF-16 */
}

/* Where byte `offset` is: libyaml's reader names an offset only. */
static yaml_mark_t mark_of_offset(const char *text, size_t offset)
{
    yaml_mark_t mark = {.index = offset};
    for (size_t i = 0; i < offset; i++) {
        mark.column = text[i] == '\n' ? 0 : mark.column + 1;
        mark.line += text[i] == '\n';
    }
    return mark;
}

static int refuse_syntax(const struct scan *scan, const yaml_parser_t *parser, const char *text,
                         size_t bytes)
{
    if (parser->error == YAML_MEMORY_ERROR) {
        return -ENOMEM;
    }
    char why[CONFIG_NAME_BYTES_MAX * 3];
    if (parser->error == YAML_READER_ERROR) {
        const size_t offset = parser->problem_offset < bytes ? parser->problem_offset : bytes;
        snprintf(why, sizeof(why), "is not UTF-8 text (%s); save it as plain UTF-8",
                 parser->problem);
        return refuse(scan, mark_of_offset(text, offset), why);
    }
    /* Most often its brace is taken for a mapping's. */
    const bool is_flow = parser->context != NULL && strstr(parser->context, " flow ") != NULL;
    snprintf(why, sizeof(why), "is not YAML: %s%s%s; look at indentation, colons and quotes here%s",
             parser->context == NULL ? "" : parser->context, parser->context == NULL ? "" : ", ",
             parser->problem == NULL ? "syntax error" : parser->problem,
             is_flow ? "; a ${NAME} within {…} or […] needs them" : "");
    return refuse(scan, parser->problem_mark, why);
}

static int scan_node(struct scan *scan, const yaml_event_t *event, const yaml_char_t *anchor,
                     const yaml_char_t *tag)
{
    if (anchor != NULL) {
        return refuse(scan, event->start_mark,
                      "has an anchor (&); write the value where it is needed");
    }
    if (tag != NULL) {
        return refuse(scan, event->start_mark, "has a tag (!); leave it out");
    }
    return 0;
}

static int scan_event(struct scan *scan, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return refuse(scan, event->start_mark,
                      "has an alias (*); write the value itself (in quotes if it begins with *)");
    case YAML_SCALAR_EVENT:
        return scan_node(scan, event, event->data.scalar.anchor, event->data.scalar.tag);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        if (++scan->depth > CONFIG_DEPTH_MAX) {
            return refuse(scan, event->start_mark,
                          "is nested too deeply; no key of tiermq needs that");
        }
        return event->type == YAML_MAPPING_START_EVENT
                   ? scan_node(scan, event, event->data.mapping_start.anchor,
                               event->data.mapping_start.tag)
                   : scan_node(scan, event, event->data.sequence_start.anchor,
                               event->data.sequence_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        scan->depth--;
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        return ++scan->n_documents > 1
                   ? refuse(scan, event->start_mark,
                            "begins a second document; one file is one document")
                   : 0;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return 0;
}

static int scan_text(struct scan *scan, const char *text, size_t bytes)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return -ENOMEM;
    }
    parser_start(&parser, text, bytes);
    int r = 0;
    bool is_end = false;
    while (r == 0 && !is_end) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            r = refuse_syntax(scan, &parser, text, bytes);
            break;
        }
        r = scan_event(scan, &event);
        is_end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return r;
}

int config_yaml_load(const char *text, size_t bytes, const char *file,
                     yaml_document_t *ret_document, struct config_errors *errors)
{
    struct scan scan = {.file = file, .errors = errors};
    if (bytes > CONFIG_FILE_BYTES_MAX) {
        const int added =
            config_errors_add(errors, file, 0, 0, "", NULL,
                              "is larger than 1 MiB, so it is no configuration of tiermq");
        return added < 0 ? added : -EINVAL;
    }
    int r = scan_text(&scan, text, bytes);
    if (r < 0) {
        return r;
    }
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return -ENOMEM;
    }
    parser_start(&parser, text, bytes);
    if (!yaml_parser_load(&parser, ret_document)) {
        r = refuse_syntax(&scan, &parser, text, bytes);
    }
    yaml_parser_delete(&parser);
    return r;
}
