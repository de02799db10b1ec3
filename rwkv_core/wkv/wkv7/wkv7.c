/* WKV of RWKV-7 on a CPU, forward and backward.
 *
 * A head's state S is [key, value]; vectors are rows; d_t = exp(w_t) stands for the decay of each key:
 *   u_t = a_t S_{t-1},  S_t = diag(d_t) S_{t-1} + b_t^T u_t + k_t^T v_t,  y_t = r_t S_t.
 *
 * Tokens are taken in blocks of up to ROWS. Within a block all is said by the state S before it, so that S goes through
 * the registers once for several tokens. D(s, t) is the product of d_{s+1} .. d_t, which is never above 1 and never a
 * quotient, so any decay will do. With the tokens of the block numbered from 0,
 *   queries  A_t = a_t D(-1, t-1), R_t = r_t D(-1, t);    writes  B_s = D(s, last) b_s, K_s = D(s, last) k_s;
 *   u_t = A_t S + sum_{s<t} (a_t . D(s, t-1) b_s) u_s + (a_t . D(s, t-1) k_s) v_s,
 *   y_t = R_t S + sum_{s<=t} (r_t . D(s, t) b_s) u_s + (r_t . D(s, t) k_s) v_s,
 *   S <- diag(D(-1, last)) S + B^T u + K^T v.
 * Backward, with G the slope of the state after the block, e = dy and g_t the slope of u_t, the same scalars serve:
 *   g_s = B_s G + sum_{t>=s} (r_t . D b_s) e_t + sum_{t>s} (a_t . D b_s) g_t,  dv_s likewise with K and k,
 *   G <- diag(D(-1, last)) G + A^T g + R^T e.
 * The slopes of vectors along the keys are made of S e_t, S g_t, G u_s, G v_s and of scalars e.u, e.v, g.u, g.v.
 *
 * Matrices are [P, P] and vectors [P], where P is the head's size rounded up to whole lanes; beyond it stand zeros.
 */
#include "../common.h"

#define ROWS 4                  /* tokens of a block; what is left of a span goes one by one */
#define SPAN 32                 /* tokens between two stored states, a multiple of ROWS */
#define BLOCKS (SPAN / ROWS + ROWS - 1) /* of a span, at most */
#define THREAD_WORK (1 << 20)   /* state elements times tokens; fewer are done before a second thread has started */
#define STATES (1 << 16)        /* floats of the states that a thread goes to and fro between: they share a cache */
#ifdef __AVX512F__
#define WIDE 2 /* lanes that a product or an update holds for all vectors of a block: as many as there are registers */
#else
#define WIDE 1
#endif

/* One call: what Python hands over, in this order. Contiguous. */
typedef struct {
    int64_t batch, tokens, heads, size, threads;
    Parallel *parallel;                     /* or NULL */
    const float *r, *w, *k, *v, *a, *b;     /* [B, T, H, N] */
    const float *state;                     /* [B, H, N, N]: before the first token; backward: slope after the last */
    const int64_t *lengths;                 /* [B], 0 to T, or NULL */
    float *carries, *removed;               /* state entering each span [B, H, ceil(T / SPAN), N, N]; u [B, T, H, N];
                                             * forward may have NULL */
    float *y, *end;                         /* forward: [B, T, H, N]; [B, H, N, N], the state after the last token */
    const float *dy;                        /* backward: [B, T, H, N]; NULL in forward */
    float *dr, *dw, *dk, *dv, *da, *db;     /* backward: [B, T, H, N] */
    float *start;                           /* backward: [B, H, N, N], slope of the state before the first token */
} Call;

/* A block in memory: vectors of P floats, then the scalars. R is the number of its tokens. */
enum { QUERIES = 0, WRITES = 2 * ROWS, VALUES = 4 * ROWS, DECAYS = 6 * ROWS, DECAY = 7 * ROWS, VECTORS };
/* The first vector of each. queries: A, R.  writes: B, K.  values: u, v.  decays: d.  decay: D(-1, last). */
#define SCALARS (2 * ROWS * ROWS)
#define BLOCK_FLOATS(P) (VECTORS * (P) + SCALARS)
/* Scalars of a pair of tokens s <= t, one matrix [R, R] for b_s (or u_s) and one for k_s (or v_s): that of r_t (or e_t)
 * stands at [t, s], that of a_t (or g_t), where s < t, at [s, t]. */

typedef struct {
    const Call *call;
    int64_t number, at, stride; /* of B H; where its first token lies in [B, T, H, N]; from a token to the next */
    int64_t length;             /* tokens that count */
    int64_t next;               /* from an element to the same one of the head or span that comes next */
    float *state;               /* [P, P]: S in forward, G in backward */
} Head;

INLINE int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }
INLINE int64_t lanes_from(int64_t i, int64_t size) { return size % LANES && size - i < LANES ? size - i : LANES; }
INLINE Lane take(const float *from, int64_t count) { return count == LANES ? load(from, LANES) : load(from, count); }
INLINE void give(float *to, Lane x, int64_t count) { count == LANES ? store(to, x, LANES) : store(to, x, count); }

/* The scalars [R, R] from their parts in lanes. */
INLINE void pair_sums(const Lane *pairs, int R, float *scalars) {
    _Pragma("GCC unroll 2") for (int from = 0; from < R * R; from += LANES) {
        Lane x[LANES] = {{0}};
        UNROLL_LANES for (int j = 0; j < (R * R < LANES ? R * R : LANES); j++) x[j] = pairs[from + j];
        store(scalars + from, sums(x), R * R < LANES ? R * R : LANES);
    }
}

/* ---- the three passes over a matrix ---- */

/* x [n, P] = q [n, P] m, of the `lanes` from column j on. */
INLINE void product_lanes(float *x, const float *q, const float *m, int n, int lanes, int64_t j, int64_t P) {
    Lane sum[2 * ROWS][4];
    UNROLL for (int s = 0; s < n; s++) UNROLL for (int l = 0; l < lanes; l++) sum[s][l] = (Lane){0};
    for (int64_t i = 0; i < P; i++) {
        Lane row[4];
        UNROLL for (int l = 0; l < lanes; l++) row[l] = load(m + i * P + j + l * LANES, LANES);
        UNROLL for (int s = 0; s < n; s++) UNROLL for (int l = 0; l < lanes; l++) sum[s][l] += q[s * P + i] * row[l];
    }
    UNROLL for (int s = 0; s < n; s++) UNROLL for (int l = 0; l < lanes; l++)
        store(x + s * P + j + l * LANES, sum[s][l], LANES);
}

INLINE void product(float *x, const float *q, const float *m, int n, int64_t P) {
    int64_t j = 0;
    for (; j + WIDE * LANES <= P; j += WIDE * LANES) product_lanes(x, q, m, n, WIDE, j, P);
    for (; j < P; j += LANES) product_lanes(x, q, m, n, 1, j, P);
}

/* to [P, P] = decay m + left^T right, of the `lanes` from column j on; left, right [n, P]. decay is of the rows or,
 * where `across`, of the columns. */
INLINE void update_lanes(float *to, const float *m, const float *decay, int across, const float *left,
                         const float *right, int n, int lanes, int64_t j, int64_t P) {
    Lane add[2 * ROWS][4], factor[4];
    UNROLL for (int l = 0; l < lanes; l++) {
        UNROLL for (int s = 0; s < n; s++) add[s][l] = load(right + s * P + j + l * LANES, LANES);
        factor[l] = load(decay + j + l * LANES, LANES);
    }
    for (int64_t i = 0; i < P; i++) {
        Lane row[4];
        UNROLL for (int l = 0; l < lanes; l++) {
            row[l] = load(m + i * P + j + l * LANES, LANES);
            row[l] = across ? row[l] * factor[l] : row[l] * decay[i];
        }
        UNROLL for (int s = 0; s < n; s++) UNROLL for (int l = 0; l < lanes; l++) row[l] += left[s * P + i] * add[s][l];
        UNROLL for (int l = 0; l < lanes; l++) store(to + i * P + j + l * LANES, row[l], LANES);
    }
}

INLINE void update(float *to, const float *m, const float *decay, int across, const float *left, const float *right,
                   int n, int64_t P) {
    int64_t j = 0;
    for (; j + WIDE * LANES <= P; j += WIDE * LANES) update_lanes(to, m, decay, across, left, right, n, WIDE, j, P);
    for (; j < P; j += LANES) update_lanes(to, m, decay, across, left, right, n, 1, j, P);
}

/* to = m^T; and where `beside` is given, products [P]: the row sums of m * beside^T. */
INLINE void turn(float *to, const float *m, const float *beside, float *products, int64_t P) {
    for (int64_t i = 0; i < P; i += LANES) {
        Lane sum = {0};
        for (int64_t j = 0; j < P; j += LANES) {
            Lane x[LANES];
            UNROLL_LANES for (int e = 0; e < LANES; e++) x[e] = load(m + (i + e) * P + j, LANES);
            transpose(x);
            UNROLL_LANES for (int e = 0; e < LANES; e++) {
                store(to + (j + e) * P + i, x[e], LANES);
                if (beside) sum += x[e] * load(beside + (j + e) * P + i, LANES);
            }
        }
        if (beside) store(products + i, sum, LANES);
    }
}

/* A head's matrix [N, N] from and to [P, P]. */
static void widen(float *to, const float *from, int64_t size) {
    const int64_t P = padded(size);
    if (P != size) memset(to, 0, P * P * sizeof(float));
    for (int64_t i = 0; i < size; i++) memcpy(to + i * P, from + i * size, size * sizeof(float));
}

static void narrow(float *to, const float *from, int64_t size) {
    for (int64_t i = 0; i < size; i++) memcpy(to + i * size, from + i * padded(size), size * sizeof(float));
}

/* ---- a block ---- */

/* Asks for what lies at the same place of the next head, or of the next span. */
INLINE void ahead(const float *x, const Head *h) { __builtin_prefetch(x + h->next, 0, 2); }
INLINE void ahead_to_write(float *x, const Head *h) { __builtin_prefetch(x + h->next, 1, 2); }

/* Queries, values v and decays of the R tokens from `at` on. */
INLINE void begin_queries(float *block, const Head *h, int64_t at, int R, int64_t size) {
    const Call *c = h->call;
    const int64_t P = padded(size);
    for (int64_t i = 0; i < P; i += LANES) {
        const int64_t count = lanes_from(i, size);
        Lane all = (Lane){0} + 1.f;
        UNROLL for (int t = 0; t < R; t++) {
            const int64_t x = at + t * h->stride + i;
            ahead(c->a + x, h), ahead(c->r + x, h), ahead(c->w + x, h);
            ahead(c->v + x, h), ahead(c->b + x, h), ahead(c->k + x, h);
            const Lane d = exp_decay(take(c->w + x, count));
            store(block + (QUERIES + t) * P + i, take(c->a + x, count) * all, LANES);
            all *= d;
            store(block + (QUERIES + R + t) * P + i, take(c->r + x, count) * all, LANES);
            store(block + (DECAYS + t) * P + i, d, LANES);
            store(block + (VALUES + R + t) * P + i, take(c->v + x, count), LANES);
        }
        store(block + DECAY * P + i, all, LANES);
    }
}

/* Writes [R, P] and scalars [R, R] of x, b or k, [B, T, H, N]. */
INLINE void begin_writes(float *writes, float *scalars, const float *decays, const float *x, const Head *h, int64_t at,
                         int R, int64_t size) {
    const Call *c = h->call;
    const int64_t P = padded(size);
    Lane pairs[ROWS * ROWS] = {{0}};
    for (int64_t i = 0; i < P; i += LANES) {
        const int64_t count = lanes_from(i, size);
        Lane a[ROWS], r[ROWS], d[ROWS];
        UNROLL for (int t = 0; t < R; t++) {
            a[t] = take(c->a + at + t * h->stride + i, count);
            r[t] = take(c->r + at + t * h->stride + i, count);
            d[t] = load(decays + t * P + i, LANES);
        }
        UNROLL for (int s = 0; s < R; s++) {
            Lane write = take(x + at + s * h->stride + i, count);
            UNROLL for (int t = s; t < R; t++) {
                if (t > s) {
                    pairs[s * R + t] += a[t] * write;
                    write *= d[t];
                }
                pairs[t * R + s] += r[t] * write;
            }
            store(writes + s * P + i, write, LANES);
        }
    }
    pair_sums(pairs, R, scalars);
}

/* All of a block but its values u. */
INLINE void begin(float *block, const Head *h, int64_t at, int R, int64_t size) {
    const int64_t P = padded(size);
    float *writes = block + WRITES * P, *scalars = block + VECTORS * P, *decays = block + DECAYS * P;
    begin_queries(block, h, at, R, size);
    begin_writes(writes, scalars, decays, h->call->b, h, at, R, size);
    begin_writes(writes + R * P, scalars + R * R, decays, h->call->k, h, at, R, size);
}

/* u and y of a block from x [2 R, P], the queries' products with the state. */
INLINE void finish_values(float *block, const float *x, const Head *h, int64_t at, int R, int64_t size) {
    const Call *c = h->call;
    const int64_t P = padded(size);
    const float *of_b = block + VECTORS * P, *of_k = of_b + R * R;
    for (int64_t j = 0; j < P; j += LANES) {
        const int64_t count = lanes_from(j, size);
        Lane u[ROWS], v[ROWS];
        UNROLL for (int t = 0; t < R; t++) {
            const int64_t to = at + t * h->stride + j;
            Lane y = load(x + (R + t) * P + j, LANES);
            u[t] = load(x + t * P + j, LANES);
            v[t] = load(block + (VALUES + R + t) * P + j, LANES);
            UNROLL for (int s = 0; s < t; s++) u[t] += of_b[s * R + t] * u[s] + of_k[s * R + t] * v[s];
            UNROLL for (int s = 0; s <= t; s++) y += of_b[t * R + s] * u[s] + of_k[t * R + s] * v[s];
            store(block + (VALUES + t) * P + j, u[t], LANES);
            give(c->y + to, y, count);
            ahead_to_write(c->y + to, h);
            if (c->removed) {
                give(c->removed + to, u[t], count);
                ahead_to_write(c->removed + to, h);
            }
        }
    }
}

/* R tokens: y, and the state `after` them from that before; both may be one. x: 2 ROWS vectors of scratch. */
INLINE void block_forward(const Head *h, float *block, float *x, const float *before, float *after, int64_t at, int R,
                          int64_t size) {
    const int64_t P = padded(size);
    begin(block, h, at, R, size);
    product(x, block + QUERIES * P, before, 2 * R, P);
    finish_values(block, x, h, at, R, size);
    update(after, before, block + DECAY * P, 0, block + WRITES * P, block + VALUES * P, 2 * R, P);
}

/* The state after a block from that before, both transposed, with the u that forward noted. */
INLINE void block_again(const Head *h, float *block, const float *before, float *after, int64_t at, int R,
                        int64_t size) {
    const int64_t P = padded(size);
    begin(block, h, at, R, size);
    for (int t = 0; t < R; t++)
        for (int64_t j = 0; j < P; j += LANES)
            store(block + (VALUES + t) * P + j,
                  take(h->call->removed + at + t * h->stride + j, lanes_from(j, size)), LANES);
    update(after, before, block + DECAY * P, 1, block + VALUES * P, block + WRITES * P, 2 * R, P);
}

/* dv of a block and its slopes g, e [2 R, P] from x [2 R, P], the writes' products with G. */
INLINE void finish_value_slopes(const float *block, const float *x, float *slopes, const Head *h, int64_t at, int R,
                                int64_t size) {
    const Call *c = h->call;
    const int64_t P = padded(size);
    const float *of_b = block + VECTORS * P, *of_k = of_b + R * R;
    for (int64_t j = 0; j < P; j += LANES) {
        const int64_t count = lanes_from(j, size);
        Lane e[ROWS], g[ROWS];
        UNROLL for (int s = R - 1; s >= 0; s--) {
            Lane dv = load(x + (R + s) * P + j, LANES);
            g[s] = load(x + s * P + j, LANES);
            e[s] = take(c->dy + at + s * h->stride + j, count);
            UNROLL for (int t = s; t < R; t++) {
                g[s] += of_b[t * R + s] * e[t];
                dv += of_k[t * R + s] * e[t];
            }
            UNROLL for (int t = s + 1; t < R; t++) {
                g[s] += of_b[s * R + t] * g[t];
                dv += of_k[s * R + t] * g[t];
            }
            give(c->dv + at + s * h->stride + j, dv, count);
            store(slopes + s * P + j, g[s], LANES);
            store(slopes + (R + s) * P + j, e[s], LANES);
        }
    }
}

/* Scalars [R, R] of slopes g, e [2 R, P] with x [R, P], u or v. */
INLINE void slope_scalars(float *scalars, const float *slopes, const float *x, int R, int64_t P) {
    Lane pairs[ROWS * ROWS] = {{0}};
    for (int64_t j = 0; j < P; j += LANES) {
        Lane value[ROWS];
        UNROLL for (int s = 0; s < R; s++) value[s] = load(x + s * P + j, LANES);
        UNROLL for (int t = 0; t < R; t++) {
            const Lane g = load(slopes + t * P + j, LANES), e = load(slopes + (R + t) * P + j, LANES);
            UNROLL for (int s = 0; s < t; s++) pairs[s * R + t] += g * value[s];
            UNROLL for (int s = 0; s <= t; s++) pairs[t * R + s] += e * value[s];
        }
    }
    pair_sums(pairs, R, scalars);
}

/* What a block's tokens share in one lane of keys, in finish_key_slopes. */
typedef struct {
    Lane a[ROWS], r[ROWS], b[ROWS], k[ROWS], d[ROWS], da[ROWS], dr[ROWS], db[ROWS], dk[ROWS], dw[ROWS];
} Keys;

/* The slopes through the state before the block and through that after it. of_s [2 R, P]: S g, S e. of_g: G u, G v.
 * both: the row sums of G * S. */
INLINE void far_slopes(Keys *z, Lane *of_s, Lane *of_g, Lane both, int R) {
    Lane first = (Lane){0} + 1.f, last = first, before = {0}, after = {0};
    UNROLL for (int t = 0; t < R; t++) {
        z->da[t] = of_s[t] * first;
        first *= z->d[t];
        z->dr[t] = of_s[R + t] * first;
    }
    UNROLL for (int t = R - 1; t >= 0; t--) {
        z->db[t] = of_g[t] * last;
        z->dk[t] = of_g[R + t] * last;
        last *= z->d[t];
        after += z->r[t] * z->dr[t];
        z->dw[t] = first * both + after; /* all that passes token t's decay, and nothing else, so no digits are lost */
        after += z->a[t] * z->da[t];
    }
    UNROLL for (int t = 0; t < R; t++) {
        z->dw[t] += before;
        before += z->b[t] * z->db[t] + z->k[t] * z->dk[t];
    }
}

/* The slopes from one token of the block to another. of_u, of_v [R, R]: scalars e.u and g.u, e.v and g.v. */
INLINE void near_slopes(Keys *z, const float *of_u, const float *of_v, int R) {
    UNROLL for (int s = 0; s < R; s++) {
        Lane b = z->b[s], k = z->k[s], decay = (Lane){0} + 1.f;
        UNROLL for (int t = s; t < R; t++) {
            if (t > s) {
                const Lane to = b * of_u[s * R + t] + k * of_v[s * R + t], from = decay * z->a[t];
                z->da[t] += to;
                z->db[s] += from * of_u[s * R + t];
                z->dk[s] += from * of_v[s * R + t];
                UNROLL for (int m = s + 1; m < t; m++) z->dw[m] += z->a[t] * to;
                b *= z->d[t];
                k *= z->d[t];
                decay *= z->d[t];
            }
            const Lane to = b * of_u[t * R + s] + k * of_v[t * R + s], from = decay * z->r[t];
            z->dr[t] += to;
            z->db[s] += from * of_u[t * R + s];
            z->dk[s] += from * of_v[t * R + s];
            UNROLL for (int m = s + 1; m <= t; m++) z->dw[m] += z->r[t] * to;
        }
    }
}

/* dr, dw, dk, da, db of a block. x [4 R + 1, P]: S g, S e, G u, G v and the row sums of G * S. */
INLINE void finish_key_slopes(const float *block, const float *x, const float *scalars, const Head *h, int64_t at,
                              int R, int64_t size) {
    const Call *c = h->call;
    const int64_t P = padded(size);
    for (int64_t i = 0; i < P; i += LANES) {
        const int64_t count = lanes_from(i, size);
        Keys z;
        Lane of_s[2 * ROWS], of_g[2 * ROWS];
        UNROLL for (int t = 0; t < R; t++) {
            const int64_t from = at + t * h->stride + i;
            z.a[t] = take(c->a + from, count);
            z.r[t] = take(c->r + from, count);
            z.b[t] = take(c->b + from, count);
            z.k[t] = take(c->k + from, count);
            z.d[t] = load(block + (DECAYS + t) * P + i, LANES);
        }
        UNROLL for (int t = 0; t < 2 * R; t++) {
            of_s[t] = load(x + t * P + i, LANES);
            of_g[t] = load(x + (2 * R + t) * P + i, LANES);
        }
        far_slopes(&z, of_s, of_g, load(x + 4 * R * P + i, LANES), R);
        near_slopes(&z, scalars, scalars + R * R, R);
        UNROLL for (int t = 0; t < R; t++) {
            const int64_t to = at + t * h->stride + i;
            give(c->da + to, z.da[t], count);
            give(c->dr + to, z.dr[t], count);
            give(c->db + to, z.db[t], count);
            give(c->dk + to, z.dk[t], count);
            give(c->dw + to, z.dw[t], count);
        }
    }
}

/* The slopes of a block's R tokens, and G before them from that after. before: the state before the block, transposed.
 * turned: room for a matrix. x: room for 6 ROWS + 1 vectors and the scalars. */
INLINE void block_backward(const Head *h, const float *block, const float *before, float *G, float *turned, float *x,
                           int64_t at, int R, int64_t size) {
    const int64_t P = padded(size);
    float *slopes = x + (4 * R + 1) * P, *scalars = slopes + 2 * R * P;
    product(x, block + WRITES * P, G, 2 * R, P);
    finish_value_slopes(block, x, slopes, h, at, R, size);
    slope_scalars(scalars, slopes, block + VALUES * P, R, P);
    slope_scalars(scalars + R * R, slopes, block + (VALUES + R) * P, R, P);
    turn(turned, G, before, x + 4 * R * P, P);
    product(x, slopes, before, 2 * R, P);
    product(x + 2 * R * P, block + VALUES * P, turned, 2 * R, P);
    finish_key_slopes(block, x, scalars, h, at, R, size);
    update(G, G, block + DECAY * P, 0, block + QUERIES * P, slopes, 2 * R, P);
}

/* ---- a span ---- */

/* The `rows` tokens from `t` on. scratch: 2 ROWS vectors and a block. */
INLINE void span_forward(const Head *h, float *scratch, int64_t t, int64_t rows, int64_t size) {
    const Call *c = h->call;
    const int64_t P = padded(size), square = size * size, spans = (c->tokens + SPAN - 1) / SPAN;
    const float *before = t == 0 && P == size ? c->state + h->number * square : h->state;
    float *block = scratch + 2 * ROWS * P;
    if (c->carries) narrow(c->carries + (h->number * spans + t / SPAN) * square, before, size);
    for (const int64_t end = t + rows; t < end; before = h->state) {
        const int64_t at = h->at + t * h->stride;
        if (end - t >= ROWS) {
            block_forward(h, block, scratch, before, h->state, at, ROWS, size);
            t += ROWS;
        } else {
            block_forward(h, block, scratch, before, h->state, at, 1, size);
            t += 1;
        }
    }
}

/* The slopes of `rows` tokens from `t` on. scratch: BLOCKS + 2 matrices, BLOCKS blocks, 6 ROWS + 1 vectors, scalars. */
INLINE void span_backward(const Head *h, float *scratch, int64_t t, int64_t rows, int64_t size) {
    const Call *c = h->call;
    const int64_t P = padded(size), spans = (c->tokens + SPAN - 1) / SPAN, whole = rows / ROWS;
    const float *carry = c->carries + (h->number * spans + t / SPAN) * size * size;
    float *turned = scratch, *states = turned + P * P, *blocks = states + (BLOCKS + 1) * P * P;
    float *x = blocks + BLOCKS * BLOCK_FLOATS(P);
    int64_t n = 0, now = h->at + t * h->stride;
    if (P != size) widen(turned, carry, size);
    turn(states, P == size ? carry : turned, NULL, NULL, P);
    for (; n < whole + rows % ROWS; n++) {
        float *block = blocks + n * BLOCK_FLOATS(P), *state = states + n * P * P;
        if (n < whole)
            block_again(h, block, state, state + P * P, now, ROWS, size);
        else
            block_again(h, block, state, state + P * P, now, 1, size);
        now += (n < whole ? ROWS : 1) * h->stride;
    }
    while (n-- > 0) {
        const float *block = blocks + n * BLOCK_FLOATS(P), *state = states + n * P * P;
        now -= (n < whole ? ROWS : 1) * h->stride;
        if (n < whole)
            block_backward(h, block, state, h->state, turned, x, now, ROWS, size);
        else
            block_backward(h, block, state, h->state, turned, x, now, 1, size);
    }
}

INLINE void span(const Head *h, float *scratch, int64_t t, int64_t rows, int64_t size) {
    h->call->dy ? span_backward(h, scratch, t, rows, size) : span_forward(h, scratch, t, rows, size);
}

/* Sizes of which the compiler makes code of their own. */
static void span_64(const Head *h, float *x, int64_t t, int64_t rows) { span(h, x, t, rows, 64); }
static void span_32(const Head *h, float *x, int64_t t, int64_t rows) { span(h, x, t, rows, 32); }
static void span_any(const Head *h, float *x, int64_t t, int64_t rows) { span(h, x, t, rows, h->call->size); }

/* ---- tasks: some heads of a row ---- */

typedef struct {
    const Call *call;
    int64_t group, groups, next, failed; /* heads of a task; tasks of a row */
} Tasks;

/* Floats that a thread needs for the states of a group, and beside them for a span. */
static int64_t scratch_floats(const Call *c, int64_t group) {
    const int64_t P = padded(c->size), states = P == c->size ? 0 : group * P * P;
    if (!c->dy) return states + 2 * ROWS * P + BLOCK_FLOATS(P);
    return states + (BLOCKS + 2) * P * P + BLOCKS * BLOCK_FLOATS(P) + (6 * ROWS + 1) * P + SCALARS;
}

/* The head of that number; its state is worked on where it will be wanted, unless it has to be padded. */
static Head head_of(const Call *c, int64_t number, float *scratch) {
    const int64_t row = number / c->heads, head = number % c->heads, stride = c->heads * c->size;
    const int64_t length = c->lengths ? c->lengths[row] : c->tokens;
    float *end = (c->dy ? c->start : c->end) + number * c->size * c->size;
    return (Head){c, number, row * c->tokens * stride + head * c->size, stride, length, c->size,
                  padded(c->size) == c->size ? end : scratch};
}

/* What stands behind the last token that counts: zeros. */
static void clear_rest(const Head *h) {
    const Call *c = h->call;
    float *forward[] = {c->y}, *backward[] = {c->dr, c->dw, c->dk, c->dv, c->da, c->db};
    for (int i = 0; i < (c->dy ? 6 : 1); i++)
        for (int64_t t = h->length; t < c->tokens; t++)
            memset((c->dy ? backward : forward)[i] + h->at + t * h->stride, 0, c->size * sizeof(float));
}

/* Heads `first` to `last`: span by span, all of them, since a token's heads lie side by side in memory. */
static void run_heads(const Call *c, int64_t first, int64_t last, float *scratch) {
    void (*one)(const Head *, float *, int64_t, int64_t) = c->size == 64 ? span_64 : c->size == 32 ? span_32 : span_any;
    const int64_t P = padded(c->size), length = head_of(c, first, NULL).length, spans = (length + SPAN - 1) / SPAN;
    float *rest = scratch + (P == c->size ? 0 : (last - first) * P * P);
    for (int64_t n = first; n < last; n++) {
        const Head h = head_of(c, n, scratch + (n - first) * P * P);
        if (c->dy || P != c->size || length == 0) widen(h.state, c->state + n * c->size * c->size, c->size);
    }
    for (int64_t i = 0; i < spans; i++) {
        const int64_t t = (c->dy ? spans - 1 - i : i) * SPAN, rows = length - t < SPAN ? length - t : SPAN;
        for (int64_t n = first; n < last; n++) {
            Head h = head_of(c, n, scratch + (n - first) * P * P);
            if (n + 1 == last) h.next = (c->dy ? -SPAN : SPAN) * h.stride - (last - 1 - first) * c->size;
            one(&h, rest, t, rows);
        }
    }
    for (int64_t n = first; n < last; n++) {
        const Head h = head_of(c, n, scratch + (n - first) * P * P);
        if (P != c->size) narrow((c->dy ? c->start : c->end) + n * c->size * c->size, h.state, c->size);
        clear_rest(&h);
    }
}

/* One thread: the next task until none is left. */
static void work(void *shared) {
    Tasks *tasks = shared;
    const Call *c = tasks->call;
    void *scratch;
    if (posix_memalign(&scratch, 64, scratch_floats(c, tasks->group) * sizeof(float))) {
        __atomic_store_n(&tasks->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (int64_t n; (n = take_task(&tasks->next)) < c->batch * tasks->groups;) {
        const int64_t row = n / tasks->groups * c->heads, first = n % tasks->groups * tasks->group;
        const int64_t last = first + tasks->group < c->heads ? first + tasks->group : c->heads;
        run_heads(c, row + first, row + last, scratch);
    }
    free(scratch);
}

int wkv_span(void) { return SPAN; }

int wkv_run(const Call *c) {
    const int64_t P = padded(c->size), most = c->batch * c->heads * c->tokens * c->size * c->size / THREAD_WORK;
    int64_t threads = c->threads < most ? c->threads : most;
    if (threads < 1) threads = 1;
    int64_t groups = (c->heads * P * P + STATES - 1) / STATES, wanted = (threads + c->batch - 1) / c->batch;
    if (groups < wanted) groups = wanted;
    const int64_t group = (c->heads + groups - 1) / groups;
    Tasks tasks = {c, group, (c->heads + group - 1) / group, 0, 0};
    in_threads(work, &tasks, threads, c->parallel);
    return (int)tasks.failed;
}
