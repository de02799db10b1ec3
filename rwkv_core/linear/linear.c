/* A few vectors times a large matrix on a CPU, as generation multiplies: y = x W^T + b. Called through ctypes.
 *
 * W is of float32, bfloat16, or int8 with a scale a row; all are multiplied and summed in float32, so that a smaller type
 * costs its rounding and nothing else. The time is that of reading W once. A processor that fetches ahead follows each
 * place that is read from by itself, and one such place does not keep the memory busy: so parts of W are read at once.
 */
#include "../wkv/common.h"

#define MOST 4                    /* vectors of one pass over W */
#define PARTS 4                   /* of W at most */
#define SUMS 8                    /* at once, so that no sum waits for the one before */
#define TASK (1 << 14)            /* numbers of W in each part, about; more vectors find them in the cache again */
#define THREAD_ELEMENTS (1 << 16) /* fewer numbers are read sooner than a second thread has started */

enum { FLOAT32, BFLOAT16, INT8 }; /* kinds of W, in the order of linear/products.py */

/* One call: what Python hands over, in this order. */
typedef struct {
    int64_t kind, rows, inputs, outputs; /* of W; M, I, O */
    int64_t threads;
    Parallel *parallel; /* or NULL */
    const void *x, *weight; /* [M, I] and [O, I]; x of float32 where W is of int8, else of the type of W */
    const float *scales;    /* [O] of int8, or NULL */
    const void *bias;       /* [O] or NULL, as x */
    void *y;                /* [M, O], as x */
} Call;

typedef struct {
    const Call *call;
    const float *x;        /* of the call, in float32 */
    int64_t next, outputs; /* of a task in each part */
} Work;

INLINE int64_t size(int kind) { return kind == FLOAT32 ? 4 : kind == BFLOAT16 ? 2 : 1; }
INLINE int parts_of(int kind) { return kind == FLOAT32 ? 2 : PARTS; }
INLINE int64_t outputs_of(const Call *z, int kind) { return (z->outputs + parts_of(kind) - 1) / parts_of(kind); } /* a part */

INLINE float from_bfloat16(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

/* The nearest, the even one of two; NaN stays NaN. */
INLINE uint16_t to_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* LANES numbers of W. GCC converts vectors of so few bytes one by one unless it is told how. */
INLINE Lane widened(const char *from, int kind) {
    if (kind == FLOAT32) return load((const float *)from, LANES);
#if defined __AVX512F__
    if (kind == INT8) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)from)));
    return (Lane)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from)), 16);
#elif defined __AVX2__
    if (kind == INT8) return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)from)));
    return (Lane)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)from)), 16);
#else
    Lane x;
    if (kind == INT8) {
        UNROLL_LANES for (int i = 0; i < LANES; i++) x[i] = ((const int8_t *)from)[i];
        return x;
    }
    UNROLL_LANES for (int i = 0; i < LANES; i++) x[i] = from_bfloat16(((const uint16_t *)from)[i]);
    return x;
#endif
}

INLINE Lane weights(const char *from, int kind, int64_t count) {
    char part[4 * LANES] = {0};
    if (count < LANES) from = memcpy(part, from, size(kind) * count);
    return widened(from, kind);
}

INLINE float sum(Lane x) {
    float all = 0;
    UNROLL_LANES for (int i = 0; i < LANES; i++) all += x[i];
    return all;
}

INLINE void put(const Call *z, int64_t row, int64_t o, int kind, float y) {
    const int64_t at = row * z->outputs + o;
    if (kind == INT8) y *= z->scales[o];
    if (z->bias) y += kind == BFLOAT16 ? from_bfloat16(((const uint16_t *)z->bias)[o]) : ((const float *)z->bias)[o];
    if (kind == BFLOAT16) ((uint16_t *)z->y)[at] = to_bfloat16(y);
    else ((float *)z->y)[at] = y;
}

/* Output o of so many parts of W from `first` on, for so many vectors from `row` on. A part that has no such output does
 * the first part's again. */
INLINE void dot(const Work *work, int64_t o, int first, int parts, int64_t row, int rows, int kind) {
    const Call *z = work->call;
    const int unroll = SUMS / parts / rows ? SUMS / parts / rows : 1;
    const int64_t inputs = z->inputs, part = outputs_of(z, kind);
    const float *x[MOST];
    const char *w[PARTS];
    int64_t to[PARTS];
    UNROLL for (int m = 0; m < rows; m++) x[m] = work->x + (row + m) * inputs;
    UNROLL for (int p = 0; p < parts; p++) {
        to[p] = o + (first + p) * part < z->outputs ? o + (first + p) * part : o;
        w[p] = (const char *)z->weight + to[p] * inputs * size(kind);
    }
    Lane sums[MOST][PARTS][SUMS] = {0};
    int64_t i = 0;
    for (; i + unroll * LANES <= inputs; i += unroll * LANES)
        UNROLL for (int u = 0; u < unroll; u++) {
            const int64_t at = i + u * LANES;
            Lane weight[PARTS];
            UNROLL for (int p = 0; p < parts; p++) weight[p] = weights(w[p] + at * size(kind), kind, LANES);
            UNROLL for (int m = 0; m < rows; m++) {
                const Lane input = load(x[m] + at, LANES);
                UNROLL for (int p = 0; p < parts; p++) sums[m][p][u] += weight[p] * input;
            }
        }
    for (; i < inputs; i += LANES) {
        const int64_t n = inputs - i < LANES ? inputs - i : LANES;
        UNROLL for (int p = 0; p < parts; p++) {
            const Lane weight = weights(w[p] + i * size(kind), kind, n);
            UNROLL for (int m = 0; m < rows; m++) sums[m][p][0] += weight * load(x[m] + i, n);
        }
    }
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int p = 0; p < parts; p++) {
            Lane all = sums[m][p][0];
            UNROLL for (int u = 1; u < unroll; u++) all += sums[m][p][u];
            put(z, row + m, to[p], kind, sum(all));
        }
}

INLINE void task(const Work *w, int64_t number, int64_t row, int rows, int kind) {
    const int all = parts_of(kind), parts = LANES == 16 || rows < 3 ? all : 2; /* AVX2 has half the registers */
    const int64_t part = outputs_of(w->call, kind), from = number * w->outputs;
    const int64_t to = from + w->outputs < part ? from + w->outputs : part;
    for (int64_t o = from; o < to; o++)
        UNROLL for (int first = 0; first < all; first += parts) dot(w, o, first, parts, row, rows, kind);
}

INLINE void tasks(Work *w, int kind) {
    const int64_t rows = w->call->rows, part = outputs_of(w->call, kind);
    for (int64_t number; (number = take_task(&w->next)) * w->outputs < part;)
        for (int64_t row = 0; row < rows; row += MOST)
            switch (rows - row) {
            case 1: task(w, number, row, 1, kind); break;
            case 2: task(w, number, row, 2, kind); break;
            case 3: task(w, number, row, 3, kind); break;
            default: task(w, number, row, 4, kind);
            }
}

static void work(void *shared) {
    Work *w = shared;
    switch (w->call->kind) {
    case FLOAT32: tasks(w, FLOAT32); break;
    case BFLOAT16: tasks(w, BFLOAT16); break;
    default: tasks(w, INT8);
    }
}

int wkv_run(const Call *call) {
    const int64_t outputs = TASK / call->inputs, numbers = call->rows * call->inputs;
    Work w = {call, call->x, 0, outputs > 1 ? outputs : 1};
    float *x = NULL;
    if (call->kind == BFLOAT16) {
        if (!(w.x = x = malloc(4 * numbers))) return 1;
        for (int64_t i = 0; i < numbers; i++) x[i] = from_bfloat16(((const uint16_t *)call->x)[i]);
    }
    const int many = call->parallel && call->inputs * call->outputs >= THREAD_ELEMENTS; /* of threads that are awake */
    in_threads(work, &w, many ? call->threads : 1, call->parallel);
    free(x);
    return 0;
}
