/* A few vectors times a large matrix on a CPU, as generation multiplies: y = x W^T + b. Called through ctypes.
 *
 * Its time is that of reading W once. A processor that fetches ahead follows each place that is read from by itself, and
 * one such place does not keep the memory busy: so the two halves of W are read at once.
 */
#include "../wkv/common.h"

#define MOST 4                    /* vectors of one pass over W */
#define STREAMS 2                 /* parts of W that are read at once */
#define SUMS 8                    /* of an output at once, so that no sum waits for the one before */
#define TASK (1 << 14)            /* numbers of W in each part, about */
#define THREAD_ELEMENTS (1 << 16) /* fewer numbers are read sooner than a second thread has started */

/* One call: what Python hands over, in this order. */
typedef struct {
    int64_t rows, inputs, outputs; /* M of MOST at most, I, O */
    int64_t threads;
    Parallel *parallel;            /* or NULL */
    const float *x, *weight, *bias; /* [M, I], [O, I], and [O] or NULL */
    float *y;                      /* [M, O] */
} Call;

typedef struct {
    const Call *call;
    int64_t next, outputs; /* of a task in each part */
} Work;

INLINE float sum(Lane x) {
    float all = 0;
    UNROLL_LANES for (int i = 0; i < LANES; i++) all += x[i];
    return all;
}

/* Output o of each of so many parts of W, for all vectors. */
INLINE void dot(const Call *z, int64_t o, int64_t part, int streams, int rows) {
    const int unroll = SUMS / STREAMS / rows ? SUMS / STREAMS / rows : 1;
    const int64_t inputs = z->inputs;
    const float *w = z->weight + o * inputs;
    Lane sums[STREAMS][MOST][SUMS / STREAMS] = {0};
    int64_t i = 0;
    for (; i + unroll * LANES <= inputs; i += unroll * LANES)
        UNROLL for (int s = 0; s < streams; s++)
            UNROLL for (int u = 0; u < unroll; u++) {
                const Lane weight = load(w + s * part * inputs + i + u * LANES, LANES);
                UNROLL for (int m = 0; m < rows; m++)
                    sums[s][m][u] += weight * load(z->x + m * inputs + i + u * LANES, LANES);
            }
    for (; i < inputs; i += LANES) {
        const int64_t n = inputs - i < LANES ? inputs - i : LANES;
        UNROLL for (int s = 0; s < streams; s++)
            UNROLL for (int m = 0; m < rows; m++)
                sums[s][m][0] += load(w + s * part * inputs + i, n) * load(z->x + m * inputs + i, n);
    }
    UNROLL for (int s = 0; s < streams; s++)
        UNROLL for (int m = 0; m < rows; m++) {
            Lane all = sums[s][m][0];
            UNROLL for (int u = 1; u < unroll; u++) all += sums[s][m][u];
            const int64_t to = o + s * part;
            z->y[m * z->outputs + to] = sum(all) + (z->bias ? z->bias[to] : 0);
        }
}

INLINE void task(const Work *w, int64_t number, int rows) {
    const Call *z = w->call;
    const int64_t part = (z->outputs + STREAMS - 1) / STREAMS, from = number * w->outputs;
    const int64_t to = from + w->outputs < part ? from + w->outputs : part;
    for (int64_t o = from; o < to; o++)
        if (o + part < z->outputs) dot(z, o, part, STREAMS, rows);
        else dot(z, o, part, 1, rows);
}

static void work(void *shared) {
    Work *w = shared;
    const int64_t part = (w->call->outputs + STREAMS - 1) / STREAMS;
    for (int64_t number; (number = take_task(&w->next)) * w->outputs < part;)
        switch (w->call->rows) {
        case 1: task(w, number, 1); break;
        case 2: task(w, number, 2); break;
        case 3: task(w, number, 3); break;
        default: task(w, number, 4);
        }
}

int wkv_run(const Call *call) {
    const int64_t outputs = TASK / call->inputs;
    Work w = {call, 0, outputs > 1 ? outputs : 1};
    const int many = call->parallel && call->inputs * call->outputs >= THREAD_ELEMENTS; /* of threads that are awake */
    in_threads(work, &w, many ? call->threads : 1, call->parallel);
    return 0;
}
