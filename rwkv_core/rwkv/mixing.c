/* Token shift with its mixing, and the squared ReLU, on a CPU, forward and backward. Called through ctypes.
 *
 * Of n shares s_i, y_i = x + s_i (x' - x), where x' is x one token earlier; in RWKV-4 and 5, whose shares are the
 * current token's, x and x' change places. One pass reads x once for all n. Backward:
 *   dx_t = sum_i (1 - s_i) dy_i,t + s_i dy_i,t+1;  ds_i = sum_t dy_i,t (x'_t - x_t).
 * Work is cut into blocks of SPAN tokens of a row. Each has sums of its own for ds, so that the number of threads
 * changes no result.
 */
#include "../wkv/common.h"

#define MOST 6                    /* shares */
#define SPAN 64                   /* tokens of a task; of the squared ReLU, a task has SPAN * channels numbers */
#define THREAD_ELEMENTS (1 << 16) /* fewer elements are done sooner than a second thread has started */

/* One call: what Python hands over, in this order. N = ceil(T / SPAN). */
typedef struct {
    int64_t rows, tokens, channels, count; /* B, T, C, and n; 0 for the squared ReLU */
    int64_t current;                       /* whether the shares are the current token's */
    int64_t threads;
    Parallel *parallel;       /* or NULL */
    const float *x, *last;    /* [B, T, C]; [B, C], the token before the first */
    const float *parts;       /* [n, B, T, C], added to the shares, or NULL */
    float *y;                 /* [n, B, T, C]; NULL in backward */
    float *dx, *dlast;        /* backward: like x and last */
    float *dshares, *dparts;  /* backward: [B, N, n, C], to be summed over B and N; like the parts, or NULL */
    const float *shares[MOST]; /* [C] each */
    const float *dy[MOST];    /* backward: [B, T, C] each, or NULL for zeros; of the squared ReLU, one */
} Call;

typedef struct {
    const Call *call;
    int64_t next;
} Work;

/* What a token's inputs are mixed of, in n lanes from channel c on: `start` has the share 1 - s, `end` has s. */
typedef struct {
    Lane start, end;
} Ends;

INLINE Ends ends(const Call *z, int64_t row, int64_t t, int64_t c, int64_t n) {
    const float *x = z->x + (row * z->tokens + t) * z->channels + c;
    const Lane now = load(x, n), before = load(t ? x - z->channels : z->last + row * z->channels + c, n);
    return z->current ? (Ends){before, now} : (Ends){now, before};
}

INLINE Lane share(const Call *z, int64_t i, int64_t at, int64_t c, int64_t n) {
    const Lane s = load(z->shares[i] + c, n);
    return z->parts ? s + load(z->parts + at, n) : s;
}

INLINE void mix(const Call *z, int64_t row, int64_t t, int64_t c, int64_t n) {
    const Ends e = ends(z, row, t, c, n);
    int64_t at = (row * z->tokens + t) * z->channels + c;
    for (int64_t i = 0; i < z->count; i++, at += z->rows * z->tokens * z->channels)
        store(z->y + at, e.start + share(z, i, at, c, n) * (e.end - e.start), n);
}

/* What a token gives to its own dx, to ds and to the dx before it, if there is one. Without ds it gives to the last
 * alone. */
INLINE void mix_back(const Call *z, int64_t row, int64_t t, int64_t c, int64_t n, float *before, float *ds) {
    const Ends e = ends(z, row, t, c, n);
    const int64_t token = (row * z->tokens + t) * z->channels + c;
    Lane dstart = {0}, dend = {0};
    int64_t at = token;
    for (int64_t i = 0; i < z->count; i++, at += z->rows * z->tokens * z->channels) {
        const Lane dy = z->dy[i] ? load(z->dy[i] + token, n) : (Lane){0}, part = share(z, i, at, c, n) * dy;
        const Lane slope = dy * (e.end - e.start);
        dstart += dy - part;
        dend += part;
        if (!ds) continue;
        float *sum = ds + i * z->channels + c;
        store(sum, load(sum, n) + slope, n);
        if (z->dparts) store(z->dparts + at, slope, n);
    }
    if (ds) store(z->dx + token, z->current ? dend : dstart, n);
    if (before) store(before + c, load(before + c, n) + (z->current ? dstart : dend), n);
}

static void mix_span(const Call *z, int64_t row, int64_t t0, int64_t t1) {
    const int64_t channels = z->channels, whole = channels / LANES * LANES, rest = channels - whole;
    for (int64_t t = t0; t < t1; t++) {
        for (int64_t c = 0; c < whole; c += LANES) mix(z, row, t, c, LANES);
        if (rest) mix(z, row, t, whole, rest);
    }
}

static void mix_back_span(const Call *z, int64_t row, int64_t t0, int64_t t1, int64_t block) {
    const int64_t channels = z->channels, whole = channels / LANES * LANES, rest = channels - whole;
    float *sums = z->dshares + block * z->count * channels;
    memset(sums, 0, 4 * z->count * channels);
    if (!t0) memset(z->dlast + row * channels, 0, 4 * channels);
    for (int64_t t = t0; t <= t1 && t < z->tokens; t++) {
        float *before = t > t0 ? z->dx + (row * z->tokens + t - 1) * channels : t ? NULL : z->dlast + row * channels;
        float *ds = t < t1 ? sums : NULL;
        for (int64_t c = 0; c < whole; c += LANES) mix_back(z, row, t, c, LANES, before, ds);
        if (rest) mix_back(z, row, t, whole, rest, before, ds);
    }
}

#define EACH _Pragma("GCC ivdep") for (int64_t c = 0; c < channels; c++) /* y may be where x is */

/* max(x, 0)^2, or dx = 2 max(x, 0) dy. What is no number stays so. */
static void squared_relu(const Call *z, int64_t from, int64_t channels) {
    const float *x = z->x + from;
    if (z->y) {
        float *y = z->y + from;
        EACH y[c] = x[c] < 0 ? 0 : x[c] * x[c];
    } else {
        const float *dy = z->dy[0] + from;
        float *dx = z->dx + from;
        EACH dx[c] = x[c] < 0 ? 0 : 2 * x[c] * dy[c];
    }
}

static void work(void *shared) {
    Work *w = shared;
    const Call *z = w->call;
    const int64_t blocks = (z->tokens + SPAN - 1) / SPAN;
    for (int64_t task; (task = take_task(&w->next)) < z->rows * blocks;) {
        const int64_t row = task / blocks, t0 = task % blocks * SPAN;
        const int64_t t1 = t0 + SPAN < z->tokens ? t0 + SPAN : z->tokens;
        if (!z->count) squared_relu(z, (row * z->tokens + t0) * z->channels, (t1 - t0) * z->channels);
        else if (z->y) mix_span(z, row, t0, t1);
        else mix_back_span(z, row, t0, t1, task);
    }
}

int wkv_run(const Call *call) {
    Work w = {call, 0};
    const int64_t size = call->rows * call->tokens * call->channels * (call->count ? call->count : 1);
    in_threads(work, &w, size < THREAD_ELEMENTS ? 1 : call->threads, call->parallel);
    return 0;
}

int wkv_span(void) { return SPAN; }
