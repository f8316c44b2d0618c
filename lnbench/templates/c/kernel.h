/*
 * The arithmetic, included once per type with REAL, NAME and SQRT defined.
 *
 * Every sum of n terms is made of about sqrt(n) partial sums of about sqrt(n) terms each: its rounding error grows
 * with sqrt(n) instead of n. The variance is taken from x - mean in a second pass, never from mean(x*x) - mean*mean.
 */

static int64_t NAME(block)(int64_t n) {
    int64_t b = 1;
    while (b * b < n) b++;
    return b;
}

static REAL NAME(sum)(const REAL *a, int64_t n) {
    REAL total = 0;
    for (int64_t start = 0, b = NAME(block)(n); start < n; start += b) {
        REAL part = 0;
        for (int64_t i = start; i < n && i < start + b; i++) part += a[i];
        total += part;
    }
    return total;
}

/* Sum of (a[i] - shift)^2. */
static REAL NAME(sum_squares)(const REAL *a, REAL shift, int64_t n) {
    REAL total = 0;
    for (int64_t start = 0, b = NAME(block)(n); start < n; start += b) {
        REAL part = 0;
        for (int64_t i = start; i < n && i < start + b; i++) part += (a[i] - shift) * (a[i] - shift);
        total += part;
    }
    return total;
}

static void NAME(statistics)(const lnb_layer_norm *call, const REAL *x, REAL *mean, REAL *rstd) {
    int64_t n = call->cols;
    REAL epsilon = (REAL)call->epsilon;
    *mean = n ? NAME(sum)(x, n) / (REAL)n : 0;
    REAL variance = n ? NAME(sum_squares)(x, *mean, n) / (REAL)n : 0;
    *rstd = 1 / SQRT(variance + epsilon);
}

static void NAME(forward)(const lnb_layer_norm *call) {
    const REAL *gamma = call->gamma, *beta = call->beta;
    REAL *saved_mean = call->mean, *saved_rstd = call->stat;
    for (int64_t row = 0; row < call->rows; row++) {
        const REAL *x = (const REAL *)call->x + row * call->x_row_stride;
        REAL mean, rstd;
        NAME(statistics)(call, x, &mean, &rstd);
        if (saved_mean) saved_mean[row] = mean;
        if (saved_rstd) saved_rstd[row] = rstd;
        if (!call->y) continue;
        REAL *y = (REAL *)call->y + row * call->y_row_stride;
        for (int64_t i = 0; i < call->cols; i++) {
            REAL xhat = (x[i] - mean) * rstd;
            y[i] = xhat * (gamma ? gamma[i] : 1) + (beta ? beta[i] : 0);
        }
    }
}

/* dx of one row: rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * gamma. */
static void NAME(backward_row)(const lnb_layer_norm *call, const REAL *x, const REAL *dy, REAL mean, REAL rstd, REAL *dx) {
    const REAL *gamma = call->gamma;
    int64_t n = call->cols;
    REAL mean_g = 0, mean_gx = 0;
    for (int64_t start = 0, b = NAME(block)(n); start < n; start += b) {
        REAL part_g = 0, part_gx = 0;
        for (int64_t i = start; i < n && i < start + b; i++) {
            REAL g = dy[i] * (gamma ? gamma[i] : 1);
            part_g += g;
            part_gx += g * ((x[i] - mean) * rstd);
        }
        mean_g += part_g;
        mean_gx += part_gx;
    }
    mean_g /= (REAL)n;
    mean_gx /= (REAL)n;
    for (int64_t i = 0; i < n; i++) {
        REAL g = dy[i] * (gamma ? gamma[i] : 1);
        dx[i] = rstd * (g - mean_g - (x[i] - mean) * rstd * mean_gx);
    }
}

/* Adds the partial sums of a block of rows to dgamma and dbeta and clears them. */
static void NAME(flush)(const lnb_layer_norm *call, REAL *part_gamma, REAL *part_beta) {
    REAL *dgamma = call->dgamma, *dbeta = call->dbeta;
    for (int64_t i = 0; i < call->cols; i++) {
        if (dgamma) dgamma[i] += part_gamma[i];
        if (dbeta) dbeta[i] += part_beta[i];
        part_gamma[i] = part_beta[i] = 0;
    }
}

static void NAME(backward)(const lnb_layer_norm *call) {
    int64_t n = call->cols, block = NAME(block)(call->rows);
    REAL *part_gamma = call->workspace, *part_beta = part_gamma + n;
    if (n == 0) return;
    memset(part_gamma, 0, (size_t)n * 2 * sizeof(REAL));
    if (call->dgamma) memset(call->dgamma, 0, (size_t)n * sizeof(REAL));
    if (call->dbeta) memset(call->dbeta, 0, (size_t)n * sizeof(REAL));
    for (int64_t row = 0; row < call->rows; row++) {
        const REAL *x = (const REAL *)call->x + row * call->x_row_stride;
        const REAL *dy = (const REAL *)call->dy + row * call->dy_row_stride;
        REAL mean, rstd;
        if (call->mean && call->stat) {
            mean = ((const REAL *)call->mean)[row];
            rstd = ((const REAL *)call->stat)[row];
        } else {
            NAME(statistics)(call, x, &mean, &rstd);
        }
        for (int64_t i = 0; i < n; i++) {
            part_gamma[i] += dy[i] * ((x[i] - mean) * rstd);
            part_beta[i] += dy[i];
        }
        if (call->dx) NAME(backward_row)(call, x, dy, mean, rstd, (REAL *)call->dx + row * call->dx_row_stride);
        if ((row + 1) % block == 0) NAME(flush)(call, part_gamma, part_beta);
    }
    NAME(flush)(call, part_gamma, part_beta);
}
