/* Token shift with its mixing, and the squared ReLU, on a CPU, forward and backward. Called through ctypes.
 *
 * Of n shares s_i, y_i = x + s_i (x' - x), where x' is x one token earlier; in RWKV-4 and 5, whose shares are the current
 * token's, x and x' change places. One pass reads x once for all n. Backward goes from the last token to the first and
 * carries to each what the one after it gives:
 *   dx_t = sum_i (1 - s_i) dy_i,t + s_i dy_i,t+1;  ds_i = sum_t dy_i,t (x'_t - x_t).
 * Work is cut into blocks of SPAN tokens of a row. Each has sums of its own for ds, so that the number of threads changes
 * no result.
 */
#include "../wkv/common.h"

#define MOST 6                    /* shares */
#define SPAN 64                   /* tokens of a task; of the squared ReLU, a task has SPAN * channels numbers */
#define THREAD_ELEMENTS (1 << 16) /* fewer elements are done sooner than a second thread has started */
#define EACH for (int64_t c = 0; c < channels; c++)
#define LANEWISE _Pragma("GCC ivdep") EACH /* y may be where x is, or the parts: each number is read before it is written */

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
    int failed;
} Work;

/* s_i of one token. */
static void shares_of(const Call *z, int64_t i, int64_t token, float *s) {
    const int64_t channels = z->channels;
    const float *share = z->shares[i];
    if (!z->parts) {
        memcpy(s, share, 4 * channels);
        return;
    }
    const float *part = z->parts + (i * z->rows * z->tokens + token) * channels;
    EACH s[c] = share[c] + part[c];
}

/* What of a token has the share 1 - s, and what has s. */
static void ends(const Call *z, int64_t row, int64_t t, const float **start, const float **end) {
    const float *x = z->x + (row * z->tokens + t) * z->channels;
    const float *before = t ? x - z->channels : z->last + row * z->channels;
    *start = z->current ? before : x;
    *end = z->current ? x : before;
}

static void mix_forward(const Call *z, int64_t row, int64_t t0, int64_t t1, float *room) {
    const int64_t channels = z->channels, size = z->rows * z->tokens * channels;
    for (int64_t i = 0; i < z->count && !z->parts; i++) shares_of(z, i, 0, room + i * channels);
    for (int64_t t = t0; t < t1; t++) {
        const int64_t token = row * z->tokens + t;
        const float *start, *end;
        ends(z, row, t, &start, &end);
        for (int64_t i = 0; i < z->count; i++) {
            float *s = room + i * channels, *y = z->y + i * size + token * channels;
            if (z->parts) shares_of(z, i, token, s);
            LANEWISE y[c] = start[c] + s[c] * (end[c] - start[c]);
        }
    }
}

/* to = carry + what x of token t is given by its own y, and carry = what x before it is; adds to ds where there is any. */
static void mix_backward_token(const Call *z, int64_t row, int64_t t, float *room, float *carry, float *to, float *ds) {
    const int64_t channels = z->channels, token = row * z->tokens + t, size = z->rows * z->tokens * channels;
    const float *start, *end;
    ends(z, row, t, &start, &end);
    float *dx = room + MOST * channels, *next = dx + channels;
    memcpy(dx, carry, 4 * channels);
    memset(next, 0, 4 * channels);
    float *dstart = z->current ? next : dx, *dend = z->current ? dx : next;
    for (int64_t i = 0; i < z->count; i++) {
        float *dpart = ds && z->dparts ? z->dparts + i * size + token * channels : NULL;
        if (!z->dy[i]) {
            if (dpart) memset(dpart, 0, 4 * channels);
            continue;
        }
        const float *dy = z->dy[i] + token * channels;
        float *s = room + i * channels, *sum = ds + i * channels;
        if (z->parts) shares_of(z, i, token, s);
        LANEWISE {
            const float part = s[c] * dy[c];
            dstart[c] += dy[c] - part;
            dend[c] += part;
        }
        if (!ds) continue;
        LANEWISE sum[c] += dy[c] * (end[c] - start[c]);
        if (dpart) LANEWISE dpart[c] = dy[c] * (end[c] - start[c]);
    }
    memcpy(carry, next, 4 * channels);
    if (to) memcpy(to, dx, 4 * channels);
}

static void mix_backward(const Call *z, int64_t row, int64_t t0, int64_t t1, float *room) {
    const int64_t channels = z->channels, blocks = (z->tokens + SPAN - 1) / SPAN;
    float *carry = room + (MOST + 2) * channels, *ds = z->dshares + (row * blocks + t0 / SPAN) * z->count * channels;
    for (int64_t i = 0; i < z->count && !z->parts; i++) shares_of(z, i, 0, room + i * channels);
    memset(carry, 0, 4 * channels);
    memset(ds, 0, 4 * z->count * channels);
    if (t1 < z->tokens) mix_backward_token(z, row, t1, room, carry, NULL, NULL);
    for (int64_t t = t1 - 1; t >= t0; t--)
        mix_backward_token(z, row, t, room, carry, z->dx + (row * z->tokens + t) * channels, ds);
    if (!t0) memcpy(z->dlast + row * channels, carry, 4 * channels);
}

/* max(x, 0)^2, or dx = 2 max(x, 0) dy. What is no number stays so. */
static void squared_relu(const Call *z, int64_t from, int64_t channels) {
    const float *x = z->x + from;
    if (z->y) {
        float *y = z->y + from;
        LANEWISE y[c] = x[c] < 0 ? 0 : x[c] * x[c];
    } else {
        const float *dy = z->dy[0] + from;
        float *dx = z->dx + from;
        LANEWISE dx[c] = x[c] < 0 ? 0 : 2 * x[c] * dy[c];
    }
}

static void work(void *shared) {
    Work *w = shared;
    const Call *z = w->call;
    const int64_t blocks = (z->tokens + SPAN - 1) / SPAN;
    float *room = malloc(4 * (MOST + 3) * z->channels);
    if (!room) w->failed = 1;
    for (int64_t task; room && (task = take_task(&w->next)) < z->rows * blocks;) {
        const int64_t row = task / blocks, t0 = task % blocks * SPAN;
        const int64_t t1 = t0 + SPAN < z->tokens ? t0 + SPAN : z->tokens;
        if (!z->count) squared_relu(z, (row * z->tokens + t0) * z->channels, (t1 - t0) * z->channels);
        else if (z->y) mix_forward(z, row, t0, t1, room);
        else mix_backward(z, row, t0, t1, room);
    }
    free(room);
}

int wkv_run(const Call *call) {
    Work w = {call, 0, 0};
    const int64_t size = call->rows * call->tokens * call->channels * (call->count ? call->count : 1);
    in_threads(work, &w, size < THREAD_ELEMENTS ? 1 : call->threads, call->parallel);
    return w.failed;
}

int wkv_span(void) { return SPAN; }
