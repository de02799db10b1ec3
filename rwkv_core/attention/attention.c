/* Attention of the next token on a CPU: its query against the keys and values of all tokens so far, which is what a
 * Transformer reads beside its weights. Called through ctypes.
 *
 * Keys and values are read once, whichever number of heads shares them (a group), a PART at a time, so that several threads
 * read at once; within a part a BLOCK at a time, which stays in the first cache while all heads of its group look at it.
 * The softmax is of one pass: relative to the largest score so far (arXiv:1805.02867); parts are joined at the end.
 */
#include "../wkv/common.h"

#include <math.h>

#define PART 256                  /* keys of a task */
#define BLOCK 16                  /* of them at once */
#define AHEAD 64                  /* rows from one that is read to one that is fetched: a processor alone fetches too late */
#define SUMS (64 / LANES)         /* vectors of an output that are summed together */
#define THREAD_ELEMENTS (1 << 16) /* fewer numbers are read sooner than a second thread has started */

/* One call: what Python hands over, in this order. A row is the keys or values of one token in one group, D numbers side
 * by side; strides are in numbers. */
typedef struct {
    int64_t batch, heads, groups, keys, width; /* B, H, G, S, D */
    int64_t key_batch, key_group, key_row;     /* strides of keys */
    int64_t value_batch, value_group, value_row;
    int64_t threads;
    Parallel *parallel;         /* or NULL */
    const float *query;         /* [B, H, D], scaled */
    const float *key, *value;   /* [B, G, S, D] */
    float *y;                   /* [B, H, D] */
    float *parts; /* scratch [B, G, parts, H / G, D + 2]: of each task the sums, the largest score and the weight */
} Call;

typedef struct {
    const Call *call;
    int64_t next;
} Work;

INLINE int64_t parts_of(const Call *z) { return (z->keys + PART - 1) / PART; }

/* Fetches numbers that will be read; there is no harm in places that are not there. */
INLINE void ahead(const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + i);
}

/* The scores of one query with a block of keys, LANES keys together. */
INLINE void score(const float *q, const float *keys, int64_t stride, int64_t count, int64_t width, float *scores) {
    for (int64_t j = 0; j < count; j += LANES) {
        Lane all[LANES] = {0};
        const float *k[LANES];
        UNROLL_LANES for (int i = 0; i < LANES; i++) k[i] = keys + (j + i < count ? j + i : j) * stride;
        UNROLL_LANES for (int i = 0; i < LANES; i++) ahead(k[i] + AHEAD * stride, width);
        int64_t d = 0;
        for (; d + LANES <= width; d += LANES) {
            const Lane now = load(q + d, LANES);
            UNROLL_LANES for (int i = 0; i < LANES; i++) all[i] += now * load(k[i] + d, LANES);
        }
        if (d < width) {
            const Lane now = load(q + d, width - d);
            UNROLL_LANES for (int i = 0; i < LANES; i++) all[i] += now * load(k[i] + d, width - d);
        }
        store(scores + j, sums(all), LANES);
    }
}

/* Scores become weights relative to the largest so far; what was summed before is made relative to it too. */
INLINE void weigh(float *scores, int64_t count, float *sum, int64_t width, float *largest, float *weight) {
    float top = *largest;
    for (int64_t j = 0; j < count; j++)
        if (!(scores[j] <= top)) top = scores[j]; /* also no number, which stays */
    if (top != *largest) {
        const float before = *largest == -INFINITY ? 0 : expf(*largest - top);
        for (int64_t d = 0; d < width; d++) sum[d] *= before;
        *weight *= before;
        *largest = top;
    }
    for (int64_t j = count; j < BLOCK; j++) scores[j] = -INFINITY;
    Lane all = {0};
    UNROLL for (int j = 0; j < BLOCK; j += LANES) {
        const Lane w = exp_decay(load(scores + j, LANES) - top);
        store(scores + j, w, LANES);
        all += w;
    }
    UNROLL_LANES for (int i = 0; i < LANES; i++) *weight += all[i];
}

/* So many vectors of a sum of values, from `value` on. */
INLINE void gather(const float *weights, const float *value, int64_t stride, int64_t count, float *sum, int vectors) {
    Lane all[SUMS];
    UNROLL for (int u = 0; u < vectors; u++) all[u] = load(sum + u * LANES, LANES);
    for (int64_t j = 0; j < count; j++) {
        const Lane w = weights[j] - (Lane){0};
        ahead(value + (j + AHEAD) * stride, vectors * LANES);
        UNROLL for (int u = 0; u < vectors; u++) all[u] += w * load(value + j * stride + u * LANES, LANES);
    }
    UNROLL for (int u = 0; u < vectors; u++) store(sum + u * LANES, all[u], LANES);
}

INLINE void values(const float *weights, const float *value, int64_t stride, int64_t count, int64_t width, float *sum) {
    int64_t d = 0;
    for (; d + SUMS * LANES <= width; d += SUMS * LANES) gather(weights, value + d, stride, count, sum + d, SUMS);
    for (; d + LANES <= width; d += LANES) gather(weights, value + d, stride, count, sum + d, 1);
    for (; d < width; d++)
        for (int64_t j = 0; j < count; j++) sum[d] += weights[j] * value[j * stride + d];
}

/* One part of the keys of one group, for all heads that share them. */
static void part(const Call *z, int64_t number) {
    const int64_t all = parts_of(z), shared = z->heads / z->groups, width = z->width;
    const int64_t first = number % all * PART, group = number / all % z->groups, row = number / all / z->groups;
    const int64_t last = first + PART < z->keys ? first + PART : z->keys;
    const float *key = z->key + row * z->key_batch + group * z->key_group;
    const float *value = z->value + row * z->value_batch + group * z->value_group;
    const float *query = z->query + (row * z->heads + group * shared) * width;
    float *sums = z->parts + number * shared * (width + 2);
    for (int64_t h = 0; h < shared; h++) {
        float *sum = sums + h * (width + 2);
        memset(sum, 0, sizeof(float) * (width + 2));
        sum[width] = -INFINITY;
    }
    for (int64_t j = first; j < last; j += BLOCK) {
        const int64_t count = last - j < BLOCK ? last - j : BLOCK;
        for (int64_t h = 0; h < shared; h++) {
            float *sum = sums + h * (width + 2), scores[BLOCK];
            score(query + h * width, key + j * z->key_row, z->key_row, count, width, scores);
            weigh(scores, count, sum, width, sum + width, sum + width + 1);
            values(scores, value + j * z->value_row, z->value_row, count, width, sum);
        }
    }
}

/* The parts of one head, relative to the largest score of all. */
static void join(const Call *z, int64_t head) {
    const int64_t all = parts_of(z), shared = z->heads / z->groups, width = z->width;
    const float *sums = z->parts + (head / shared * all * shared + head % shared) * (width + 2);
    float largest = -INFINITY, weight = 0, *y = z->y + head * width;
    for (int64_t p = 0; p < all; p++) {
        const float top = sums[p * shared * (width + 2) + width];
        if (!(top <= largest)) largest = top;
    }
    memset(y, 0, sizeof(float) * width);
    for (int64_t p = 0; p < all; p++) {
        const float *sum = sums + p * shared * (width + 2), relative = expf(sum[width] - largest);
        weight += relative * sum[width + 1];
        for (int64_t d = 0; d < width; d++) y[d] += relative * sum[d];
    }
    for (int64_t d = 0; d < width; d++) y[d] /= weight;
}

static void work(void *shared) {
    Work *w = shared;
    const int64_t tasks = w->call->batch * w->call->groups * parts_of(w->call);
    for (int64_t number; (number = take_task(&w->next)) < tasks;) part(w->call, number);
}

int wkv_run(const Call *call) {
    Work w = {call, 0};
    const int many = call->batch * call->groups * call->keys * call->width >= THREAD_ELEMENTS;
    in_threads(work, &w, many ? call->threads : 1, call->parallel);
    for (int64_t head = 0; head < call->batch * call->heads; head++) join(call, head);
    return 0;
}
