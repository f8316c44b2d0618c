/*
 * Fuzzing of the interface: bytes become a call. A call that is not refused must leave guard pages, padding and inputs
 * alone, and give the same bits (NaNs aside) with one thread and with several. With libFuzzer: compile with
 * -fsanitize=fuzzer -DLNB_LIBFUZZER. Without it, main runs pseudo-random cases: fuzz_native [COUNT [SEED]].
 */
#include "support.h"

enum { MAX_ROWS = 80, MAX_COLS = 700 };

static void die(const char *what) {
    fprintf(stderr, "fuzz: %s: %s\n", what, lnb_reason());
    abort();
}

typedef struct {
    const uint8_t *data;
    size_t size;
} bytes;

static uint32_t take_number(bytes *b, uint32_t below) {
    uint32_t v = 0;
    for (int i = 0; i < 2; i++) {
        v = v << 8 | (b->size ? *b->data : 0);
        if (b->size) b->data++, b->size--;
    }
    return v % below;
}

/* The arrays of one call, each between guard pages. */
typedef struct {
    guarded all[11];
    int types[11], count;
} arena;

static void *array(arena *a, int64_t elements, int type, int at_end, bytes *fill) {
    guarded g = guard((size_t)(elements > 0 ? elements * size_of(type) : 0), at_end, (size_t)size_of(type));
    if (fill) {
        uint64_t state = fill->size ? *fill->data : 7;
        for (int64_t i = 0; i < elements * size_of(type); i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            g.data[i] = (char)(state >> 56); /* any bits: NaN, infinities and subnormal numbers too */
        }
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        mprotect(g.map + page, g.length - 2 * page, PROT_READ);
    }
    a->types[a->count] = type;
    a->all[a->count++] = g;
    return g.data;
}

static lnb_layer_norm call_from(bytes *b, arena *a) {
    static const int pairs[6][2] = {{0, 0}, {1, 1}, {2, 2}, {2, 0}, {3, 3}, {3, 0}};
    const int *pair = pairs[take_number(b, 6)], stat = take_number(b, 2) ? LNB_F64 : LNB_F32;
    uint32_t has = take_number(b, 1 << 10), end = take_number(b, 2);
    lnb_layer_norm c = {.size = sizeof c, .dtype = pair[0], .affine_dtype = pair[1], .stat_dtype = stat};
    c.rows = take_number(b, MAX_ROWS), c.cols = take_number(b, MAX_COLS), c.stat_kind = (int)take_number(b, 3);
    c.epsilon = take_number(b, 2) ? 1e-5 : 0;
    c.x_row_stride = take_number(b, 8) ? c.cols + take_number(b, 70) : 0;
    c.dy_row_stride = take_number(b, 8) ? c.cols + take_number(b, 70) : 0;
    c.y_row_stride = c.cols + take_number(b, 70), c.dx_row_stride = c.cols + take_number(b, 70);
#define SPAN(stride) (c.rows ? (c.rows - 1) * (stride) + c.cols : 0)
    c.x = array(a, SPAN(c.x_row_stride), c.dtype, (int)end, b);
    c.dy = array(a, SPAN(c.dy_row_stride), c.dtype, (int)end, b);
    c.y = array(a, SPAN(c.y_row_stride), c.dtype, (int)end, NULL);
    c.dx = array(a, SPAN(c.dx_row_stride), c.dtype, (int)end, NULL);
    c.gamma = array(a, c.cols, c.affine_dtype, (int)end, b);
    c.beta = array(a, c.cols, c.affine_dtype, (int)end, b);
    c.mean = array(a, c.rows, stat, (int)end, NULL);
    c.stat = array(a, c.rows, stat, (int)end, NULL);
    c.dgamma = array(a, c.cols, c.affine_dtype, (int)end, NULL);
    c.dbeta = array(a, c.cols, c.affine_dtype, (int)end, NULL);
    const void **inputs[] = {&c.gamma, &c.beta};
    void **outputs[] = {&c.y, &c.dx, &c.mean, &c.stat, &c.dgamma, &c.dbeta};
    for (int i = 0; i < 2; i++) if (has >> i & 1) *inputs[i] = NULL;
    for (int i = 0; i < 6; i++) if (has >> (i + 2) & 1) *outputs[i] = NULL;
    return c;
}

/* One bit pattern for all NaNs: which operand's NaN an addition passes on is the compiler's choice. */
static void settle_nans(char *data, size_t length, int type) {
    for (int64_t i = 0; i < (int64_t)length / size_of(type); i++) {
        if (isnan(get(data, i, type))) memset(data + i * size_of(type), 0xff, (size_t)size_of(type));
    }
}

/* Calls with so many threads; the outputs' bytes go to `out`. */
static size_t call_with(lnb_layer_norm c, int threads, const arena *a, char *out) {
    for (int backward = 0; backward < 2; backward++) {
        c.threads = threads;
        int64_t need = lnb_layer_norm_workspace(&c, backward);
        if (need < 0) die("workspace refused");
        guarded w = guard((size_t)need, 1, 64);
        c.workspace = need ? w.data : NULL;
        if ((backward ? lnb_layer_norm_backward : lnb_layer_norm_forward)(&c) != LNB_OK) die("call refused");
        unguard(&w);
    }
    size_t used = 0, page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < a->count; i++) {
        size_t length = a->all[i].length - 2 * page;
        memcpy(out + used, a->all[i].map + page, length);
        settle_nans(out + used, length, a->types[i]);
        used += length;
    }
    return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char first[1 << 23], second[1 << 23];
    bytes b = {data, size};
    arena a = {.count = 0};
    lnb_layer_norm c = call_from(&b, &a);
    int threads = 2 + (int)take_number(&b, 7);
    size_t used = call_with(c, 1, &a, first);
    if (call_with(c, threads, &a, second) != used || memcmp(first, second, used)) die("bits depend on threads");
    for (int i = 0; i < a.count; i++) unguard(&a.all[i]);
    /* And a call of arbitrary bytes without pointers: refused or empty, never a crash. */
    lnb_layer_norm wild = {.size = sizeof wild};
    memcpy((char *)&wild + 4, data, size < 76 ? size : 76);
    wild.threads = wild.threads < 0 ? wild.threads : 1;
    wild.rows = wild.rows < 0 ? wild.rows : wild.rows & 0xff;
    lnb_layer_norm_forward(&wild), lnb_layer_norm_backward(&wild), lnb_layer_norm_workspace(&wild, 1);
    return 0;
}

#ifndef LNB_LIBFUZZER
int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 300;
    random_state = argc > 2 ? (uint64_t)atoll(argv[2]) : 1;
    char names[64];
    snprintf(names, sizeof names, "%s", lnb_targets());
    for (char *rest, *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        if (lnb_set_target(name)) die("target refused");
        for (long i = 0; i < count; i++) {
            uint8_t data[96];
            for (size_t k = 0; k < sizeof data; k++) data[k] = (uint8_t)random_u64();
            LLVMFuzzerTestOneInput(data, sizeof data);
        }
        printf("%s: %ld fuzzed calls\n", name, count);
    }
    return 0;
}
#endif
