/* Tests of the interface itself: empty problems, refusals, broadcast rows, threads that call at once, fork. */
#ifndef LNB_TESTS_INTERFACE_H
#define LNB_TESTS_INTERFACE_H

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        checks++;                                                                                                      \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            fprintf(stderr, "FAILED %s line %d: %s (%s)\n", target, __LINE__, #condition, lnb_reason());               \
        }                                                                                                              \
    } while (0)

static void check_empty(void) {
    float gamma[5] = {0}, dgamma[5] = {9, 9, 9, 9, 9}, dbeta[5] = {9, 9, 9, 9, 9}, mean[3] = {9, 9, 9}, stat[3] = {9, 9, 9}, none;
    lnb_layer_norm c = {.size = sizeof c, .threads = 2, .epsilon = 0.25, .rows = 0, .cols = 5, .gamma = gamma};
    c.x = c.dy = &none, c.x_row_stride = c.dy_row_stride = c.dx_row_stride = c.y_row_stride = 5;
    c.dgamma = dgamma, c.dbeta = dbeta;
    EXPECT(lnb_layer_norm_forward(&c) == LNB_OK && lnb_layer_norm_backward(&c) == LNB_OK);
    for (int i = 0; i < 5; i++) EXPECT(dgamma[i] == 0 && dbeta[i] == 0);
    c.rows = 3, c.cols = 0, c.mean = mean, c.stat = stat, c.x = NULL;
    EXPECT(lnb_layer_norm_forward(&c) == LNB_OK);
    for (int i = 0; i < 3; i++) EXPECT(mean[i] == 0 && stat[i] == 2);
    EXPECT(lnb_layer_norm_backward(&c) == LNB_OK);
}

static void check_refusals(void) {
    float a[8] = {0}, b[8];
    const lnb_layer_norm good = {.size = sizeof good, .epsilon = 1e-5, .rows = 2, .cols = 4, .threads = 1, .x_row_stride = 4,
                                 .y_row_stride = 4, .dy_row_stride = 4, .dx_row_stride = 4, .x = a, .y = b, .dy = a, .dx = b};
#define REFUSED(status, change)                                                                                        \
    do {                                                                                                               \
        lnb_layer_norm c = good;                                                                                       \
        change;                                                                                                        \
        EXPECT(lnb_layer_norm_forward(&c) == (status) && lnb_reason()[0]);                                             \
    } while (0)
    REFUSED(LNB_OK, (void)lnb_set_target("nonsense"));
    REFUSED(LNB_INVALID, c.size = 8);
    REFUSED(LNB_INVALID, c.rows = -1);
    REFUSED(LNB_INVALID, c.cols = -1);
    REFUSED(LNB_INVALID, c.epsilon = -1);
    REFUSED(LNB_INVALID, c.epsilon = NAN);
    REFUSED(LNB_INVALID, c.threads = -1);
    REFUSED(LNB_INVALID, c.x = NULL);
    REFUSED(LNB_INVALID, c.y_row_stride = 3);
    REFUSED(LNB_INVALID, c.x_row_stride = -4);
    REFUSED(LNB_INVALID, c.x = (const char *)a + 1);
    REFUSED(LNB_INVALID, (c.y = a, c.y_row_stride = 5));
    REFUSED(LNB_INVALID, (c.rows = INT64_MAX, c.y_row_stride = INT64_MAX));
    REFUSED(LNB_UNSUPPORTED, c.dtype = 7);
    REFUSED(LNB_UNSUPPORTED, (c.gamma = a, c.affine_dtype = LNB_F64));
    REFUSED(LNB_UNSUPPORTED, (c.mean = b, c.stat_dtype = LNB_F16));
    REFUSED(LNB_INVALID, (c.stat = b, c.stat_kind = 9));
#undef REFUSED
    EXPECT(lnb_layer_norm_forward(NULL) == LNB_INVALID && lnb_layer_norm_backward(NULL) == LNB_INVALID);
    EXPECT(lnb_set_target("nonsense") == LNB_INVALID && strstr(lnb_reason(), "nonsense"));
    EXPECT(lnb_set_target(target) == LNB_OK && !strcmp(lnb_target(), target));
    lnb_layer_norm c = good;
    int64_t rows = 100;
    float *big = take(400 * sizeof *big), gamma[4];
    memset(big, 0, 400 * sizeof *big);
    c.rows = rows, c.x = c.dy = big, c.dx = big, c.dgamma = gamma;
    EXPECT(lnb_layer_norm_workspace(&c, 1) > 0 && lnb_layer_norm_backward(&c) == LNB_INVALID && strstr(lnb_reason(), "workspace"));
    c.dtype = 7;
    EXPECT(lnb_layer_norm_workspace(&c, 1) < 0);
    free(big);
}

/* Stride 0 repeats one row; a struct cut off after the workspace pointer's predecessor is read no further. */
static void check_broadcast(void) {
    float x[70], y[4 * 70], z[4 * 70], wide[4 * 70];
    for (int i = 0; i < 70; i++) x[i] = (float)random_normal();
    for (int i = 0; i < 4 * 70; i++) wide[i] = x[i % 70];
    lnb_layer_norm c = {.size = sizeof c, .epsilon = 1e-5, .rows = 4, .cols = 70, .threads = 1, .x = x, .y = y, .y_row_stride = 70};
    EXPECT(lnb_layer_norm_forward(&c) == LNB_OK);
    c.x = wide, c.x_row_stride = 70, c.y = z;
    c.size = (uint32_t)((char *)&c.mean - (char *)&c);
    c.mean = c.stat = (void *)(uintptr_t)8;
    EXPECT(lnb_layer_norm_forward(&c) == LNB_OK && !memcmp(y, z, sizeof y));
}

enum { CALLERS = 4, CALLS = 50, CONCURRENT_ROWS = 64, CONCURRENT_COLS = 300 };

struct caller {
    const float *x;
    float *y;
    int ok;
};

static void *call_often(void *argument) {
    struct caller *me = argument;
    lnb_layer_norm c = {.size = sizeof c, .epsilon = 1e-5, .rows = CONCURRENT_ROWS, .cols = CONCURRENT_COLS, .threads = 3};
    c.x = me->x, c.y = me->y, c.x_row_stride = c.y_row_stride = CONCURRENT_COLS;
    me->ok = 1;
    for (int i = 0; i < CALLS; i++) me->ok &= lnb_layer_norm_forward(&c) == LNB_OK;
    return NULL;
}

static void check_concurrent(void) {
    enum { ALL = CONCURRENT_ROWS * CONCURRENT_COLS };
    float *x = take(ALL * sizeof *x);
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < ALL; i++) x[i] = (float)random_normal();
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){x, take(ALL * sizeof(float)), 0};
        if (pthread_create(&threads[i], NULL, call_often, &callers[i])) exit(2);
    }
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < CALLERS; i++) {
        EXPECT(callers[i].ok && !memcmp(callers[0].y, callers[i].y, ALL * sizeof(float)));
    }
    for (int i = 0; i < CALLERS; i++) free(callers[i].y);
    free(x);
}

#if defined(__SANITIZE_THREAD__)
static void check_fork(void) {} /* the thread sanitizer does not support threads in a forked child */
#else
static void check_fork(void) {
    float *x = take(CONCURRENT_ROWS * CONCURRENT_COLS * sizeof *x), *y = take(CONCURRENT_ROWS * CONCURRENT_COLS * sizeof *y);
    struct caller me = {x, y, 0};
    int status = -1;
    memset(x, 0, CONCURRENT_ROWS * CONCURRENT_COLS * sizeof *x);
    call_often(&me);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        call_often(&me);
        _exit(me.ok ? 0 : 1);
    }
    waitpid(child, &status, 0);
    EXPECT(me.ok && status == 0);
    free(x), free(y);
}
#endif

#endif
