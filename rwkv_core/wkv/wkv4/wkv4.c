/* WKV of RWKV-4 on a CPU, forward and backward. No headers but the C library's; called through ctypes.
 *
 * Notation of the paper (v2, App. D), per channel: A and B are the sums before token t,
 *   e = exp(k_t), c = exp(u) e, y_t = (A + c v_t) / (B + c), A <- exp(w) A + e v_t, B <- exp(w) B + e.
 *
 * Work is cut into tasks (batch row, tile of channels). Within a tile, time goes in blocks of ROWS tokens:
 * LANES channels of ROWS tokens are worked through in registers, and only then is the state touched.
 * Two ways to compute a block, chosen by looking at it:
 *   linear  the sums themselves, in double across blocks and in float within one; valid while every
 *           exponential and every sum stays far inside float's range (the LIMITs below);
 *   stable  sums relative to their largest exponent, a exp(p) and b exp(p), all in double; any input.
 */
#include "../common.h"

#include <math.h>

/* Rows of which exponentials are taken at once: the fastest of those tried, since registers that hold rows hold no
 * constants. PREFETCH: ask for the next rows; a first cache of 32 KiB has no room for them. */
#ifdef __AVX512F__
#define GROUP 2
#define PREFETCH 1
#else
#define GROUP 4
#define PREFETCH 0
#endif
#define LINE 16         /* floats of a cache line: results of so many channels are written together */
#define ROWS 8          /* tokens worked on at once, a multiple of GROUP */
#define SPAN 32         /* tokens between two stored states; backward computes again what lies between */
#define TILE 1024       /* channels of a task: narrow tiles read memory badly, wider ones leave the first cache */
#define ROOM (TILE + 48) /* arrays of whole pages would lie in the same sets of the first cache */
/* Linear while |k| <= 40, |u| <= 12 and sums and slopes <= 1e24: then, with |v| <= 1e15, all products fit float. */
#define K_LIMIT 40.f
#define U_LIMIT 12.
#define SUM_LIMIT 1e24f
#define EMPTY -1e38        /* p of an empty sum */
#define STREAM_ELEMENTS (1 << 22) /* outputs this large leave the cache before they are read: write past it */
#define THREAD_ELEMENTS (1 << 16) /* fewer elements are done sooner than a second thread has started */

/* One call: what Python hands over, in this order. Contiguous; N = ceil(T / SPAN). */
typedef struct {
    int64_t batch, tokens, channels, threads;
    Parallel *parallel;         /* or NULL */
    const float *w, *u, *k, *v; /* [C], [C], [B, T, C], [B, T, C] */
    const int64_t *lengths;     /* [B], 0 to T, or NULL */
    float *carries;             /* [3, B, N, C]: the sums entering each span; forward may have NULL */
    const float *a, *b, *p;     /* [B, C] each: the sums at the start; backward: slopes of a, b, and p, at the end */
    float *y, *end;             /* forward: [B, T, C]; [3, B, C], the sums at the end */
    const float *dy;            /* backward: [B, T, C]; NULL in forward */
    float *dk, *dv, *start;     /* backward: [B, T, C] twice; [2, B, C], the slopes at the start */
    double *dw, *du;            /* backward: [B, C] each, one part of the sum a row */
} Call;

/* What a thread works with, for the channels of one task. */
typedef struct {
    double w[ROOM], u[ROOM], decay_one[ROOM], decay_rows[ROOM]; /* exp(w), exp(ROWS w) */
    float decay[ROOM], bonus[ROOM];                             /* exp(w), exp(u) */
    float near[2][ROOM], added[2][ROOM]; /* a, b (or ga, gb) as floats, and what is not yet added to the doubles */
    float added_dw[ROOM], added_du[ROOM];
    double a[ROOM], b[ROOM], p[ROOM];   /* the sums, a exp(p) and b exp(p); p is 0 while linear */
    double old_a[ROOM], old_b[ROOM];    /* at the start of a span, should it have to be done again */
    double ga[ROOM], gb[ROOM], q[ROOM]; /* backward: d loss / d sums, ga exp(q) and gb exp(q); likewise */
    double dw[ROOM], du[ROOM];
    int64_t width;
    int u_fits, linear, slope_linear, stream;
} Work;

/* Backward: the sums before each token of a span. */
typedef struct {
    float a[SPAN][TILE], b[SPAN][TILE];
    double p[SPAN][TILE]; /* not written where linear */
} Seen;

/* exp(x) in double for any x, held between exp(-700) and exp(700); NaN stays NaN. */
INLINE double exp_double(double x) {
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    static const double taylor[] = {1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320, 1. / 5040,
                                    1. / 720,       1. / 120,      1. / 24,      1. / 6,      1. / 2,     1., 1.};
    double e = 1. / 6227020800, scale;
    int64_t power;
    x = x < -700 ? -700 : x;
    x = x > 700 ? 700 : x;
    double n = x * 1.4426950408889634 + magic;
    memcpy(&power, &n, 8);
    n -= magic;
    double r = x - n * 0.69314718036912382 - n * 1.9082149292705877e-10;
    for (int i = 0; i < 13; i++) e = e * r + taylor[i];
    power = (power + 1023) << 52;
    memcpy(&scale, &power, 8);
    return e * scale;
}

/* exp(x) of `count` rows in place, |x| <= 87, relative error about 1e-7: x = n ln 2 / steps + r, a minimax polynomial
 * in r, and 2^(n / steps) by the bits of a float. Adding 1.5 * 2^23 leaves n, rounded, in the low bits. Each step is done
 * for a GROUP of rows: one row after the other, the processor would wait for each step's result. */
#ifdef __AVX512F__
static const float roots[32] = { /* 2^(i / 32): a look-up in two registers takes the place of three products */
    1.f, 1.0218972f, 1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f, 1.13878858f, 1.1637249f,
    1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
    1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f,
    1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f, 1.87416768f, 1.91520655f, 1.95714414f};
#endif
INLINE void exp_rows(Lane *x, int count) {
    const float magic = 12582912.f;
    Lane n[GROUP], r[GROUP], e[GROUP];
    UNROLL for (int from = 0; from < count; from += GROUP, x += GROUP) {
        const int rows = count - from < GROUP ? count - from : GROUP;
#define EACH UNROLL for (int i = 0; i < rows; i++)
#ifdef __AVX512F__
        const Lane low = load(roots, LANES), high = load(roots + LANES, LANES);
        EACH n[i] = x[i] * 46.1662413f + magic;
        EACH r[i] = x[i] - (n[i] - magic) * 0.0216608494f;
        EACH e[i] = 0.499996334f * r[i] + 1.00001466f;
        EACH e[i] = e[i] * r[i] + 1.f;
        EACH e[i] *= (Lane)_mm512_permutex2var_ps((__m512)low, (__m512i)n[i], (__m512)high);
        EACH x[i] = (Lane)((LaneInt)e[i] + (((LaneInt)n[i] & ~31) << 18));
#else
        EACH n[i] = x[i] * 1.44269504f + magic;
        EACH r[i] = x[i] - (n[i] - magic) * 0.693147181f;
        EACH e[i] = 8.297619340e-3f * r[i] + 4.191562924e-2f;
        EACH e[i] = e[i] * r[i] + 1.666757654e-1f;
        EACH e[i] = e[i] * r[i] + 4.999889266e-1f;
        EACH e[i] = e[i] * r[i] + 9.999996911e-1f;
        EACH e[i] = e[i] * r[i] + 1.000000072f;
        EACH x[i] = (Lane)((LaneInt)e[i] + ((LaneInt)n[i] << 23));
#endif
#undef EACH
    }
}

/* Past the cache where the machine can, so that the line is not read before it is written; `to` is aligned, and the
 * rest of the line follows at once. */
INLINE void store_past_cache(float *to, Lane x) {
#ifdef __AVX512F__
    _mm512_stream_ps(to, (__m512)x);
#elif defined __AVX2__
    _mm256_stream_ps(to, (__m256)x);
#else
    store(to, x, LANES);
#endif
}

/* ---- the two forms of sums ---- */

/* x exp(p), y exp(p) in place of x, y, p, and as floats for the first block, if all of them are within the limit. */
INLINE int try_linear(Work *s, double *x, double *y, double *p) {
    int above = 0;
    for (int64_t j = 0; j < s->width; j++) {
        const double scale = exp_double(p[j]);
        above |= !(fabs(x[j] * scale) <= SUM_LIMIT) | !(fabs(y[j] * scale) <= SUM_LIMIT);
    }
    if (above) return 0;
    for (int64_t j = 0; j < s->width; j++) {
        const double scale = exp_double(p[j]);
        x[j] *= scale;
        y[j] *= scale;
        p[j] = 0;
        s->near[0][j] = (float)x[j];
        s->near[1][j] = (float)y[j];
        s->added[0][j] = s->added[1][j] = 0;
    }
    return 1;
}

/* The larger of |x|, |y| becomes 1, its logarithm p. */
static void make_stable(double *x, double *y, double *p, int64_t width) {
    for (int64_t j = 0; j < width; j++) {
        double size = fabs(x[j]) > fabs(y[j]) ? fabs(x[j]) : fabs(y[j]);
        if (size == 0) {
            p[j] = EMPTY;
            continue;
        }
        x[j] /= size;
        y[j] /= size;
        p[j] += log(size);
    }
}

/* x <- all x + what blocks have added, likewise y. Two blocks are taken at once: then `all` counts twice. */
static void refresh(Work *s, double *restrict x, double *restrict y, const double *restrict all, int twice) {
    for (int64_t j = 0; j < s->width; j++) {
        const double decay = twice ? all[j] * all[j] : all[j];
        x[j] = decay * x[j] + s->added[0][j];
        y[j] = decay * y[j] + s->added[1][j];
        s->near[0][j] = (float)x[j];
        s->near[1][j] = (float)y[j];
        s->added[0][j] = s->added[1][j] = 0;
    }
}

/* ---- forward ---- */

/* Negative in the lanes where |x| is above the limit, or NaN: as integers floats keep their order. */
INLINE LaneInt beyond(Lane x, float limit) {
    int32_t bits;
    memcpy(&bits, &limit, 4);
    return bits - ((LaneInt)x & 0x7fffffff);
}

/* R tokens of `count` channels from channel j on, the linear way. With `seen`, the sums are noted instead of y. */
INLINE LaneInt linear_lanes(Work *s, int64_t j, int R, const float *k, const float *v, Lane *y, int64_t stride,
                            int64_t count, Seen *seen, int64_t row) {
    Lane a = load(s->near[0] + j, LANES), b = load(s->near[1] + j, LANES);
    Lane decay = load(s->decay + j, LANES), bonus = load(s->bonus + j, LANES);
    Lane new_a = load(s->added[0] + j, LANES), new_b = load(s->added[1] + j, LANES);
    LaneInt bad = {0};
    Lane values[ROWS];
    UNROLL for (int r = 0; r < R; r++) {
        y[r] = load(k + r * stride, count);
        values[r] = load(v + r * stride, count);
    }
    UNROLL for (int r = 0; r < R; r++) bad |= beyond(y[r], K_LIMIT);
    exp_rows(y, R);
    UNROLL for (int r = 0; r < R; r++) {
        Lane e = y[r], ev = e * values[r];
        if (seen) {
            store(seen->a[row + r] + j, a, LANES);
            store(seen->b[row + r] + j, b, LANES);
        }
        y[r] = (a + bonus * ev) / (b + bonus * e);
        a = decay * a + ev;
        b = decay * b + e;
        new_a = decay * new_a + ev;
        new_b = decay * new_b + e;
    }
    store(s->near[0] + j, a, LANES);
    store(s->near[1] + j, b, LANES);
    store(s->added[0] + j, new_a, LANES);
    store(s->added[1] + j, new_b, LANES);
    return bad | beyond(a, SUM_LIMIT) | beyond(b, SUM_LIMIT);
}

/* R tokens of all channels. Returns whether every key and sum was small enough. */
INLINE int linear_rows(Work *s, int R, int stream, const float *k, const float *v, float *y, int64_t stride, Seen *seen,
                       int64_t row) {
    const int64_t step = stream ? LINE : LANES, whole = s->width / step * step, rest = s->width - whole;
    Lane found[LINE / LANES][ROWS];
    LaneInt bad = {0};
    for (int64_t j = 0; j < whole; j += step) {
        UNROLL for (int r = 0; r < R && stream && PREFETCH; r++) {
            __builtin_prefetch(k + j + (r + R) * stride);
            __builtin_prefetch(v + j + (r + R) * stride);
        }
        UNROLL for (int i = 0; i < step / LANES; i++) {
            const int64_t at = j + i * LANES;
            bad |= linear_lanes(s, at, R, k + at, v + at, found[i], stride, LANES, seen, row);
        }
        /* All loads, then all stores: rows lie such that a store to y and a later load of k often share their low
         * address bits, and the processor would make the load wait for the store. */
        UNROLL for (int r = 0; r < R && !seen; r++) UNROLL for (int i = 0; i < step / LANES; i++) {
            float *to = y + r * stride + j + i * LANES;
            stream ? store_past_cache(to, found[i][r]) : store(to, found[i][r], LANES);
        }
    }
    if (rest) {
        bad |= linear_lanes(s, whole, R, k + whole, v + whole, found[0], stride, rest, seen, row);
        for (int r = 0; r < R && !seen; r++) store(y + r * stride + whole, found[0][r], rest);
    }
    int32_t any = 0;
    for (int i = 0; i < LANES; i++) any |= bad[i];
    return any >= 0;
}

/* The next `rows` tokens the linear way, ROWS at a time and the rest one by one; returns as linear_rows. */
static int linear_span(Work *s, const float *k, const float *v, float *y, int64_t rows, int64_t stride, Seen *seen) {
    int fits = 1;
    int64_t t = 0;
    for (; fits && t + ROWS <= rows; t += ROWS) {
        const float *keys = k + t * stride, *values = v + t * stride;
        const int second = t / ROWS % 2, last = t + 2 * ROWS > rows;
        if (seen)
            fits = linear_rows(s, ROWS, 0, keys, values, y, stride, seen, t);
        else if (s->stream)
            fits = linear_rows(s, ROWS, 1, keys, values, y + t * stride, stride, NULL, t);
        else
            fits = linear_rows(s, ROWS, 0, keys, values, y + t * stride, stride, NULL, t);
        if (second || last) refresh(s, s->a, s->b, s->decay_rows, second);
    }
    for (; fits && t < rows; t++) {
        fits = linear_rows(s, 1, 0, k + t * stride, v + t * stride, y + t * stride, stride, seen, t);
        refresh(s, s->a, s->b, s->decay_one, 0);
    }
    return fits;
}

static void stable_row(Work *s, const float *k, const float *v, float *y, Seen *seen, int64_t row) {
    if (seen)
        for (int64_t j = 0; j < s->width; j++) {
            seen->a[row][j] = (float)s->a[j];
            seen->b[row][j] = (float)s->b[j];
            seen->p[row][j] = s->p[j];
        }
    else
        for (int64_t j = 0; j < s->width; j++) {
            double current = s->u[j] + k[j], top = s->p[j] > current ? s->p[j] : current;
            double past = exp_double(s->p[j] - top), now = exp_double(current - top);
            y[j] = (float)((past * s->a[j] + now * v[j]) / (past * s->b[j] + now));
        }
    for (int64_t j = 0; j < s->width; j++) {
        double decayed = s->p[j] + s->w[j], top = decayed > k[j] ? decayed : k[j];
        double past = exp_double(decayed - top), now = exp_double(k[j] - top);
        s->a[j] = past * s->a[j] + now * v[j];
        s->b[j] = past * s->b[j] + now;
        s->p[j] = top;
    }
}

/* The next `rows` <= SPAN tokens: writes y, or with `seen` notes the sums before each token and leaves y alone. */
static void span_forward(Work *s, const float *k, const float *v, float *y, int64_t rows, int64_t stride, Seen *seen) {
    const size_t bytes = s->width * sizeof(double);
    if (!s->linear) s->linear = s->u_fits && try_linear(s, s->a, s->b, s->p);
    if (s->linear) {
        memcpy(s->old_a, s->a, bytes);
        memcpy(s->old_b, s->b, bytes);
        if (linear_span(s, k, v, y, rows, stride, seen)) return;
        memcpy(s->a, s->old_a, bytes);
        memcpy(s->b, s->old_b, bytes);
        make_stable(s->a, s->b, s->p, s->width);
        s->linear = 0;
    }
    for (int64_t t = 0; t < rows; t++) stable_row(s, k + t * stride, v + t * stride, y + t * stride, seen, t);
}

/* ---- backward: with g = dy / denominator, the slopes d loss / d (A, B) after token t run from the end,
 *      dv = c g + e ga,  dk = c g (v - y) + e (ga v + gb),  ga <- exp(w) ga + g,  gb <- exp(w) gb - g y,
 *      du = sum c g (v - y),  dw = sum exp(w) (ga A + gb B). ---- */

INLINE void linear_slope_lanes(Work *s, int64_t j, int R, const float *k, const float *v, const float *dy, float *dk,
                               float *dv, int64_t stride, int64_t count, const Seen *seen, int64_t row) {
    Lane ga = load(s->near[0] + j, LANES), gb = load(s->near[1] + j, LANES);
    Lane decay = load(s->decay + j, LANES), bonus = load(s->bonus + j, LANES);
    Lane new_ga = load(s->added[0] + j, LANES), new_gb = load(s->added[1] + j, LANES);
    Lane du = load(s->added_du + j, LANES), dw = load(s->added_dw + j, LANES), keys[ROWS];
    UNROLL for (int r = 0; r < R; r++) keys[r] = load(k + r * stride, count);
    exp_rows(keys, R);
    UNROLL for (int r = R - 1; r >= 0; r--) {
        const int64_t at = r * stride;
        Lane v_t = load(v + at, count), a = load(seen->a[row + r] + j, LANES), b = load(seen->b[row + r] + j, LANES);
        Lane e = keys[r], c = bonus * e, inverse = 1.f / (b + c);
        Lane y = (a + c * v_t) * inverse, g = load(dy + at, count) * inverse, cg = c * g, dk_now = cg * (v_t - y);
        store(dv + at, cg + e * ga, count);
        store(dk + at, dk_now + e * (ga * v_t + gb), count);
        du += dk_now;
        dw += ga * (decay * a) + gb * (decay * b);
        ga = decay * ga + g;
        gb = decay * gb - g * y;
        new_ga = decay * new_ga + g;
        new_gb = decay * new_gb - g * y;
    }
    store(s->near[0] + j, ga, LANES);
    store(s->near[1] + j, gb, LANES);
    store(s->added[0] + j, new_ga, LANES);
    store(s->added[1] + j, new_gb, LANES);
    store(s->added_du + j, du, LANES);
    store(s->added_dw + j, dw, LANES);
}

INLINE void linear_slope_rows(Work *s, int R, const float *k, const float *v, const float *dy, float *dk, float *dv,
                              int64_t stride, const Seen *seen, int64_t row) {
    int64_t j = 0;
    for (; j + LANES <= s->width; j += LANES)
        linear_slope_lanes(s, j, R, k + j, v + j, dy + j, dk + j, dv + j, stride, LANES, seen, row);
    if (j < s->width)
        linear_slope_lanes(s, j, R, k + j, v + j, dy + j, dk + j, dv + j, stride, s->width - j, seen, row);
}

/* refresh, and the sums of dw and du. */
static void refresh_slopes(Work *s, const double *all, int twice) {
    refresh(s, s->ga, s->gb, all, twice);
    for (int64_t j = 0; j < s->width; j++) {
        s->dw[j] += s->added_dw[j];
        s->du[j] += s->added_du[j];
        s->added_dw[j] = s->added_du[j] = 0;
    }
}

static void stable_slope_row(Work *s, const float *k, const float *v, const float *dy, float *dk, float *dv,
                             const Seen *seen, int64_t row) {
    for (int64_t j = 0; j < s->width; j++) {
        double a = seen->a[row][j], b = seen->b[row][j], p = seen->p[row][j], current = s->u[j] + k[j];
        double top = p > current ? p : current, past = exp_double(p - top), now = exp_double(current - top);
        double inverse = 1 / (past * b + now), y = (past * a + now * v[j]) * inverse, g = dy[j] * inverse;
        double dk_now = now * g * (v[j] - y), scale = exp_double(k[j] + s->q[j]);
        dv[j] = (float)(now * g + scale * s->ga[j]);
        dk[j] = (float)(dk_now + scale * (s->ga[j] * v[j] + s->gb[j]));
        s->du[j] += dk_now;
        s->dw[j] += (s->ga[j] * a + s->gb[j] * b) * exp_double(s->q[j] + s->w[j] + p);
        double decayed = s->q[j] + s->w[j], q = decayed > -top ? decayed : -top;
        double later = exp_double(decayed - q), here = exp_double(-top - q);
        s->ga[j] = later * s->ga[j] + here * g;
        s->gb[j] = later * s->gb[j] - here * g * y;
        s->q[j] = q;
    }
}

/* The tokens of a span in reverse, after span_forward has noted their sums. */
static void span_backward(Work *s, const float *k, const float *v, const float *dy, float *dk, float *dv, int64_t rows,
                          int64_t stride, Seen *seen) {
    int64_t t = rows;
    const int linear = s->linear && try_linear(s, s->ga, s->gb, s->q);
    if (!linear && s->slope_linear) make_stable(s->ga, s->gb, s->q, s->width);
    s->slope_linear = linear;
    if (linear) {
        for (; t % ROWS; t--) {
            const int64_t at = (t - 1) * stride;
            linear_slope_rows(s, 1, k + at, v + at, dy + at, dk + at, dv + at, stride, seen, t - 1);
            refresh_slopes(s, s->decay_one, 0);
        }
        for (; t > 0; t -= ROWS) {
            const int64_t at = (t - ROWS) * stride;
            const int second = (rows / ROWS - t / ROWS) % 2, last = t == ROWS;
            linear_slope_rows(s, ROWS, k + at, v + at, dy + at, dk + at, dv + at, stride, seen, t - ROWS);
            if (second || last) refresh_slopes(s, s->decay_rows, second);
        }
    }
    for (; t > 0; t--) {
        const int64_t at = (t - 1) * stride;
        if (s->linear) memset(seen->p[t - 1], 0, s->width * sizeof(double));
        stable_slope_row(s, k + at, v + at, dy + at, dk + at, dv + at, seen, t - 1);
    }
}

/* ---- tasks ---- */

/* Everything that does not depend on the row; the lanes beyond the width hold zeros. */
static void begin(Work *s, const Call *c, int64_t from, int64_t width) {
    const int64_t padding = ((width + LANES - 1) / LANES * LANES - width) * sizeof(float);
    s->width = width;
    s->u_fits = 1;
    s->linear = s->slope_linear = 0;
    for (int64_t j = 0; j < width; j++) {
        s->w[j] = c->w[from + j];
        s->u[j] = c->u[from + j];
        s->decay_one[j] = exp_double(s->w[j]);
        s->decay[j] = (float)s->decay_one[j];
        s->decay_rows[j] = exp_double(ROWS * s->w[j]);
        s->bonus[j] = (float)exp_double(s->u[j]);
        s->u_fits &= fabs(s->u[j]) <= U_LIMIT;
    }
    float *padded[] = {s->decay, s->bonus, s->near[0], s->near[1]};
    for (size_t i = 0; i < sizeof padded / sizeof *padded; i++) memset(padded[i] + width, 0, padding);
    s->stream = c->batch * c->tokens * c->channels >= STREAM_ELEMENTS && c->channels % LINE == 0 &&
                (uintptr_t)c->y % (LINE * sizeof(float)) == 0;
}

static void take_sums(Work *s, const float *a, const float *b, const float *p) {
    for (int64_t j = 0; j < s->width; j++) {
        s->a[j] = a[j];
        s->b[j] = b[j];
        s->p[j] = p[j];
    }
    s->linear = 0;
}

/* To three planes of `size` floats each. */
static void give_sums(const Work *s, float *planes, int64_t size) {
    for (int64_t j = 0; j < s->width; j++) {
        const float p = (float)(s->b[j] == 0 ? EMPTY : s->p[j]);
        const double rest = exp_double(s->b[j] == 0 ? 0 : s->p[j] - p); /* what p loses as a float */
        planes[j] = (float)(s->a[j] * rest);
        planes[size + j] = (float)(s->b[j] * rest);
        planes[2 * size + j] = p;
    }
}

static void task_forward(const Call *c, Work *s, int64_t row, int64_t from, int64_t width) {
    const int64_t C = c->channels, spans = (c->tokens + SPAN - 1) / SPAN;
    const int64_t length = c->lengths ? c->lengths[row] : c->tokens, start = row * c->tokens * C + from;
    const int64_t here = row * C + from;
    begin(s, c, from, width);
    take_sums(s, c->a + here, c->b + here, c->p + here);
    if (c->carries) { /* the first as it was given: its slope is taken at its own p */
        const float *first[] = {c->a, c->b, c->p};
        for (int64_t i = 0; i < 3; i++)
            memcpy(c->carries + ((i * c->batch + row) * spans) * C + from, first[i] + here, width * sizeof(float));
    }
    for (int64_t t = 0; t < length; t += SPAN) {
        const int64_t rows = length - t < SPAN ? length - t : SPAN, at = start + t * C;
        if (c->carries && t > 0) give_sums(s, c->carries + (row * spans + t / SPAN) * C + from, c->batch * spans * C);
        span_forward(s, c->k + at, c->v + at, c->y + at, rows, C, NULL);
    }
    for (int64_t t = length; t < c->tokens; t++) memset(c->y + start + t * C, 0, width * sizeof(float));
    give_sums(s, c->end + here, c->batch * C);
}

static void task_backward(const Call *c, Work *s, Seen *seen, int64_t row, int64_t from, int64_t width) {
    const int64_t C = c->channels, spans = (c->tokens + SPAN - 1) / SPAN, plane = c->batch * spans * C;
    const int64_t length = c->lengths ? c->lengths[row] : c->tokens, start = row * c->tokens * C + from;
    const int64_t here = row * C + from;
    const float *carry = c->carries + row * spans * C + from;
    begin(s, c, from, width);
    for (int64_t j = 0; j < width; j++) {
        s->ga[j] = c->a[here + j];
        s->gb[j] = c->b[here + j];
        s->q[j] = -c->p[here + j];
        s->dw[j] = s->du[j] = s->added_dw[j] = s->added_du[j] = 0;
    }
    for (int64_t t = (length - 1) / SPAN * SPAN; t >= 0 && length > 0; t -= SPAN) {
        const int64_t rows = length - t < SPAN ? length - t : SPAN, at = start + t * C;
        const float *sums = carry + t / SPAN * C;
        take_sums(s, sums, sums + plane, sums + 2 * plane);
        span_forward(s, c->k + at, c->v + at, c->dk + at, rows, C, seen);
        span_backward(s, c->k + at, c->v + at, c->dy + at, c->dk + at, c->dv + at, rows, C, seen);
    }
    for (int64_t t = length; t < c->tokens; t++) {
        memset(c->dk + start + t * C, 0, width * sizeof(float));
        memset(c->dv + start + t * C, 0, width * sizeof(float));
    }
    for (int64_t j = 0; j < width; j++) {
        const double scale = exp_double(s->q[j] + carry[2 * plane + j]);
        c->start[here + j] = (float)(s->ga[j] * scale);
        c->start[c->batch * C + here + j] = (float)(s->gb[j] * scale);
        c->dw[here + j] = s->dw[j];
        c->du[here + j] = s->du[j];
    }
}

typedef struct {
    const Call *call;
    int64_t width, tiles, next, failed;
} Tasks;

/* One thread: the next task until none is left. */
static void work(void *shared) {
    Tasks *tasks = shared;
    const Call *c = tasks->call;
    Work s;
    Seen *seen = NULL;
    if (c->dy && !(seen = malloc(sizeof *seen))) {
        __atomic_store_n(&tasks->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (;;) {
        const int64_t task = take_task(&tasks->next);
        if (task >= c->batch * tasks->tiles) break;
        const int64_t row = task / tasks->tiles, from = task % tasks->tiles * tasks->width;
        const int64_t left = c->channels - from, width = left < tasks->width ? left : tasks->width;
        if (seen)
            task_backward(c, &s, seen, row, from, width);
        else
            task_forward(c, &s, row, from, width);
    }
#ifdef __AVX2__
    _mm_sfence(); /* what was written past the cache is there for every thread that joins this one */
#endif
    free(seen);
}

/* The N of `carries` is tokens / span. */
int wkv_span(void) { return SPAN; }

/* Forward, or backward where `dy` is given. Returns 0, or 1 where memory ran out. */
int wkv_run(const Call *c) {
    const int64_t elements = c->batch * c->tokens * c->channels, most = elements / THREAD_ELEMENTS;
    int64_t threads = c->threads < most ? c->threads : most;
    if (threads < 1) threads = 1;
    int64_t tiles = (c->channels + TILE - 1) / TILE, wanted = (threads + c->batch - 1) / c->batch;
    if (tiles < wanted) tiles = wanted;
    const int64_t width = ((c->channels + tiles - 1) / tiles + LINE - 1) / LINE * LINE;
    Tasks tasks = {c, width, (c->channels + width - 1) / width, 0, 0};
    in_threads(work, &tasks, threads, c->parallel);
    return (int)tasks.failed;
}
