/* What the kernels in C share: vectors, the exponential of a log-decay, sums across lanes, threads. No headers but the C
 * library's.
 *
 * Each kernel is a library of its own, called through ctypes (compiled.py), and exports these functions:
 *   int wkv_run(const Call *)   forward, or backward where `dy` is given; 0, or 1 where memory ran out;
 *   int wkv_span(void)          tokens between two states that forward stores for backward, where it stores any;
 *   int wkv_runs_here(void)     whether this processor has the vectors that the compiler was allowed to use (below).
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16 /* floats worked on at once */
#else
#define LANES 8
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL_LANES _Pragma("GCC unroll 16")

typedef float Lane __attribute__((vector_size(4 * LANES)));
typedef int32_t LaneInt __attribute__((vector_size(4 * LANES)));
typedef void Parallel(void (*)(void *), void *, unsigned, unsigned); /* OpenMP's GOMP_parallel of torch */

INLINE Lane load(const float *from, int64_t count) {
    Lane x = {0};
    memcpy(&x, from, 4 * count);
    return x;
}
INLINE void store(float *to, Lane x, int64_t count) { memcpy(to, &x, 4 * count); }

/* exp(x) for x up to 88, relative error about 1e-7; 0 below -87, where floats lose their digits; NaN stays NaN.
 * x = n ln 2 + r, Taylor's series in r, and 2^n by the bits of a float. Adding 1.5 * 2^23 leaves n, rounded, in the low
 * bits. */
INLINE Lane exp_decay(Lane x) {
    const float magic = 12582912.f;
    const LaneInt normal = ~(x < -87.f);
    const Lane n = x * 1.44269504f + magic, whole = n - magic;
    const Lane r = x - whole * 0.693145752f - whole * 1.42860677e-6f; /* ln 2 in two parts: n times one is exact */
    Lane e = r * (1.f / 5040) + 1.f / 720;
    e = e * r + 1.f / 120;
    e = e * r + 1.f / 24;
    e = e * r + 1.f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.f;
    e = e * r + 1.f;
    return (Lane)(((LaneInt)e + ((LaneInt)n << 23)) & normal);
}

/* ---- across lanes ---- */

#if LANES == 16
#define NUMBERS ((LaneInt){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}) /* of the lanes */
#else
#define NUMBERS ((LaneInt){0, 1, 2, 3, 4, 5, 6, 7})
#endif

/* Exchanges the blocks of n by n beside the diagonal, in each 2n by 2n. */
INLINE void exchange(Lane *x, int n) {
    const LaneInt high = (NUMBERS & n) != 0;
    UNROLL_LANES for (int i = 0; i < LANES; i++) {
        if (i & n) continue;
        const Lane a = x[i], b = x[i + n];
        x[i] = __builtin_shuffle(a, b, NUMBERS + (high & (LANES - n)));
        x[i + n] = __builtin_shuffle(a, b, NUMBERS + (high & LANES) + (~high & n));
    }
}

INLINE void transpose(Lane *x) {
    if (LANES == 16) exchange(x, 8);
    exchange(x, 4);
    exchange(x, 2);
    exchange(x, 1);
}

/* Half as many vectors, in which every lane holds twice as much: from x[i] where its bit n is 0, else from x[i + n]. */
INLINE void fold(Lane *x, int n) {
    const LaneInt high = (NUMBERS & n) != 0;
    UNROLL for (int i = 0; i < n; i++) {
        const Lane a = x[i], b = x[i + n];
        x[i] = __builtin_shuffle(a, b, NUMBERS + (high & LANES)) +
               __builtin_shuffle(a, b, (NUMBERS ^ n) + (high & LANES));
    }
}

/* The sum of each of x[0] .. x[LANES - 1], side by side. */
INLINE Lane sums(Lane *x) {
    if (LANES == 16) fold(x, 8);
    fold(x, 4);
    fold(x, 2);
    fold(x, 1);
    return x[0];
}

/* ---- threads ---- */

typedef struct {
    void (*work)(void *);
    void *shared;
} Thread;

static void *begin_thread(void *thread) {
    const Thread *t = thread;
    t->work(t->shared);
    return NULL;
}

/* work(shared) in so many threads at once, this one among them: torch's own where there are any, which are awake. */
static void in_threads(void (*work)(void *), void *shared, int64_t threads, Parallel *parallel) {
    if (threads > 1 && parallel) {
        parallel(work, shared, (unsigned)threads, 0);
        return;
    }
    pthread_t others[threads > 1 ? threads : 1];
    Thread thread = {work, shared};
    int64_t started = 0;
    while (started < threads - 1 && !pthread_create(&others[started], NULL, begin_thread, &thread)) started++;
    work(shared);
    for (int64_t i = 0; i < started; i++) pthread_join(others[i], NULL);
}

/* The number of the next task, where `next` counts those that threads have taken. */
INLINE int64_t take_task(int64_t *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }

int wkv_runs_here(void) {
#ifdef __x86_64__
    __builtin_cpu_init();
#ifdef __AVX512F__
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return 0;
#endif
#ifdef __AVX2__
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
#endif
#endif
    return 1;
}
