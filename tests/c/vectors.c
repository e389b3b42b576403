/* The shared vectors: each fed whole, byte by byte, at every split, and with trailing bytes. */
#include <fcgiguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES (1 << 18)

static long runs, failed;

static size_t unhex(const char *text, uint8_t *out)
{
    size_t n = 0;
    unsigned byte;
    if (strcmp(text, "-") == 0) return 0;
    while (text[0] && text[1] && sscanf(text, "%2x", &byte) == 1) {
        out[n++] = (uint8_t)byte;
        text += 2;
    }
    return n;
}

/* One way of feeding: two pieces, or single bytes when `cut` is -1. */
static void run(char **field, const char *events, const uint8_t *input, size_t len, long cut)
{
    fcgiguard_trace *trace = fcgiguard_trace_new(field[1]);
    size_t at;

    if (cut < 0) {
        for (at = 0; at < len; at++) fcgiguard_trace_feed(trace, input + at, 1, NULL);
    } else {
        fcgiguard_trace_feed(trace, input, (size_t)cut, NULL);
        fcgiguard_trace_feed(trace, input + cut, len - (size_t)cut, NULL);
    }
    fcgiguard_trace_finish(trace, NULL);
    runs++;
    if (strcmp(fcgiguard_trace_events(trace), events) || strcmp(fcgiguard_trace_output(trace), field[5]) ||
        strcmp(fcgiguard_trace_error(trace), field[6])) {
        failed++;
        printf("%s, cut %ld: found [%s] [%s] [%s]\n", field[0], cut, fcgiguard_trace_events(trace),
               fcgiguard_trace_output(trace), fcgiguard_trace_error(trace));
    }
    fcgiguard_trace_free(trace);
}

int main(int argc, char **argv)
{
    FILE *in = fopen(argc > 1 ? argv[1] : "tests/vectors/vectors.txt", "r");
    char *line = (char *)malloc(LINE_MAX_BYTES), *events = (char *)malloc(LINE_MAX_BYTES);
    uint8_t *input = (uint8_t *)malloc(LINE_MAX_BYTES);
    long vectors = 0;

    if (!in || !line || !events || !input) {
        fprintf(stderr, "cannot read the vectors\n");
        return 1;
    }
    while (fgets(line, LINE_MAX_BYTES, in)) {
        char *field[7], *at = line;
        const char *from;
        char *to = events;
        size_t len, n;
        long cut;

        line[strcspn(line, "\n")] = '\0';
        for (n = 0; n < 7; n++) {
            field[n] = at;
            at += strcspn(at, "\t");
            if (*at) *at++ = '\0';
        }
        for (n = 4; n < 7; n++)
            if (strcmp(field[n], "-") == 0) field[n] = at;
        for (from = field[4]; *from; ) {
            if (strncmp(from, " | ", 3) == 0) {
                *to++ = '\n';
                from += 3;
            } else {
                *to++ = *from++;
            }
        }
        *to = '\0';
        len = unhex(field[2], input);
        vectors++;
        run(field, events, input, len, 0);
        run(field, events, input, len, -1);
        for (cut = 1; cut < (long)len; cut++) run(field, events, input, len, cut);
        n = unhex(field[3], input + len);
        if (n) run(field, events, input, len + n, 0);
    }
    fclose(in);
    free(line);
    free(events);
    free(input);
    printf("vectors: %ld vectors, %ld runs, %ld failed\n", vectors, runs, failed);
    return failed || !vectors;
}
