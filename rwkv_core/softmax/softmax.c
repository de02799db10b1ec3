/* What scoring needs of rows of logits on a CPU, in one sweep: the largest, where it first stands, and the logarithm of
 * the sum of exponentials. Called through ctypes.
 *
 * A row is taken a PART at a time, which stays in the first cache while it is looked at again: for the largest, for the
 * exponentials relative to it, and, where it is larger than all before, for its place.
 */
#include "../wkv/common.h"

#include <math.h>

#define PART 2048                 /* numbers of a row looked at together */
#define SUMS 4                    /* of a part at once, so that no sum waits for the one before */
#define THREAD_ELEMENTS (1 << 16) /* fewer numbers are read sooner than a second thread has started */

/* One call: what Python hands over, in this order. */
typedef struct {
    int64_t rows, words; /* N, V */
    int64_t threads;
    Parallel *parallel;  /* or NULL */
    const float *logits; /* [N, V] */
    double *log_sum;     /* [N]; NaN where a logit is not finite: the others mean nothing then */
    float *largest;      /* [N] */
    int64_t *place;      /* [N] */
} Call;

typedef struct {
    const Call *call;
    int64_t next;
} Work;

/* x with `rest` in the lanes that the part does not reach. */
INLINE Lane load_or(const float *from, int64_t count, float rest) {
    Lane x = rest - (Lane){0};
    memcpy(&x, from, 4 * count);
    return x;
}

INLINE Lane choose(LaneInt first, Lane x, Lane y) { return (Lane)((first & (LaneInt)x) | (~first & (LaneInt)y)); }

/* The largest of n numbers; NaN where one is not finite. */
static float largest_of(const float *x, int64_t n) {
    Lane top[SUMS];
    LaneInt bad = {0};
    UNROLL for (int s = 0; s < SUMS; s++) top[s] = x[0] - (Lane){0};
    for (int64_t i = 0; i < n; i += SUMS * LANES)
        UNROLL for (int s = 0; s < SUMS; s++) {
            const int64_t left = n - i - s * LANES, count = left < 0 ? 0 : left < LANES ? left : LANES;
            const Lane now = count == LANES ? load(x + i + s * LANES, LANES) : load_or(x + i + s * LANES, count, x[0]);
            bad |= ((LaneInt)now & 0x7fffffff) >= 0x7f800000;
            top[s] = choose(now > top[s], now, top[s]);
        }
    float largest = top[0][0];
    for (int s = 0; s < SUMS; s++)
        for (int i = 0; i < LANES; i++) {
            if (bad[i]) return NAN;
            if (top[s][i] > largest) largest = top[s][i];
        }
    return largest;
}

/* The sum of exp(x - largest) over n numbers. */
static double sum_of(const float *x, int64_t n, float largest) {
    Lane sums[SUMS] = {0};
    int64_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        UNROLL for (int s = 0; s < SUMS; s++) sums[s] += exp_decay(load(x + i + s * LANES, LANES) - largest);
    for (; i < n; i += LANES) {
        const int64_t count = n - i < LANES ? n - i : LANES;
        sums[0] += (Lane)((LaneInt)exp_decay(load(x + i, count) - largest) & (NUMBERS < (int32_t)count));
    }
    double sum = 0;
    for (int s = 0; s < SUMS; s++)
        for (int l = 0; l < LANES; l++) sum += sums[s][l];
    return sum;
}

static void row(const Call *z, int64_t number) {
    const float *logits = z->logits + number * z->words;
    float largest = 0;
    double sum = 0;
    int64_t place = 0;
    for (int64_t from = 0; from < z->words; from += PART) {
        const float *x = logits + from;
        const int64_t n = z->words - from < PART ? z->words - from : PART;
        const float top = largest_of(x, n);
        if (!from || !(top <= largest)) { /* also where it is no number, and so stays to the end */
            sum = from ? sum * exp((double)largest - top) : 0;
            largest = top;
            place = from;
            for (int64_t i = 0; i < n; i++)
                if (x[i] == top) {
                    place += i;
                    break;
                }
        }
        sum += sum_of(x, n, largest);
    }
    z->largest[number] = largest;
    z->place[number] = place;
    z->log_sum[number] = largest + log(sum);
}

static void work(void *shared) {
    Work *w = shared;
    for (int64_t number; (number = take_task(&w->next)) < w->call->rows;) row(w->call, number);
}

int wkv_run(const Call *call) {
    Work w = {call, 0};
    in_threads(work, &w, call->rows * call->words < THREAD_ELEMENTS ? 1 : call->threads, call->parallel);
    return 0;
}
