/* The recurrence of RWKV-5 and RWKV-6 on a CPU, forward and backward.
 *
 * Per head, with vectors of N channels, S [key][value], d_t = exp(w_t) and the bonus u:
 *   y_t = r_t (S_{t-1} + diag(u) k_t^T v_t),  S_t = diag(d_t) S_{t-1} + k_t^T v_t.
 *
 * Time goes in blocks of up to ROWS tokens, t = 0 .. R-1, from the state S to the state S'. All products are by channel;
 * those of decays never exceed 1, so that every log-decay is right, with no division and no special case:
 *   before_t = d_0 .. d_{t-1},  after_t = d_{t+1} .. d_{R-1},  all = d_0 .. d_{R-1}
 *   query_t = r_t before_t,  key_t = k_t after_t
 *   score_ti = sum_n r_t k_i d_{i+1} .. d_{t-1} for i < t,  score_tt = sum_n r_t u k_t
 *   y_t = query_t S + sum_{i <= t} score_ti v_i,  S' = diag(all) S + sum_t key_t^T v_t
 * So each element of the state takes two multiply-adds a token, the least there is, and is read and written once a block.
 *
 * Backward, with e_t = dy_t and the slopes G, G' = d loss / d S, S', which run from the end:
 *   past_t = S e_t,  later_t = G' v_t,  slope_ti = v_i e_t,  pair_ti = k_i r_t d_{i+1} .. d_{t-1} slope_ti by channel
 *   dr_t = before_t past_t + sum_{i < t} pair_ti / r_t + u k_t slope_tt
 *   dk_t = after_t later_t + sum_{i > t} pair_it / k_t + u r_t slope_tt
 *   dv_t = key_t G' + sum_{i >= t} score_it e_i,  du = sum_t r_t k_t slope_tt,  G = diag(all) G' + sum_t query_t^T e_t
 *   dw_t = all rowsum(G' S) + sum_{i < t} key_i later_i + sum_{i > t} query_i past_i + sum_{i < t < j} pair_ji
 * (without the divisions: these factors are left out). Every term of dw_t holds d_t: nothing cancels. S and G are held
 * transposed there, so that past and later need no sums across a vector; dv transposes G' in registers.
 */
#include "../common.h"

#define ROWS 8   /* tokens of a block: more would cost scores, fewer would cost passes over the state */
#define SPAN 32  /* tokens between two stored states, a multiple of ROWS; backward computes again what lies between */
#define BLOCKS (SPAN / ROWS)
#define PAIRS (ROWS * (ROWS + 1) / 2)
#define PAIR(t, i) ((t) * ((t) + 1) / 2 + (i)) /* i <= t */
#define THREAD_ELEMENTS (1 << 17) /* elements of states, once a token: fewer are done sooner than a thread has started */
#define SLOW -0.25f /* log-decays of a block above it: all - 1 is held, which has more digits than all */
#define UNROLL_LANES _Pragma("GCC unroll 16")

/* One call: what Python hands over, in this order. Contiguous but for w. M = ceil(T / SPAN). */
typedef struct {
    int64_t batch, tokens, heads, size, w_batch, w_token; /* B, T, H, N; floats from one row or token of w to the next, */
    int64_t threads;                                      /* which are 0 where all have the same decay */
    Parallel *parallel;
    const float *u, *r, *w, *k, *v; /* [H, N]; [B, T, H, N] each */
    const int64_t *lengths;         /* [B], 0 to T, or NULL */
    float *saved;                   /* [B, H, M, N, N]: the state entering each span; forward may have NULL */
    const float *state;             /* forward: [B, H, N, N], at the start; backward: its slope at the end */
    float *y, *end;                 /* forward: [B, T, H, N]; [B, H, N, N] */
    const float *dy;                /* backward: [B, T, H, N]; NULL in forward */
    float *dr, *dw, *dk, *dv;       /* backward: [B, T, H, N] each */
    float *start;                   /* backward: [B, H, N, N], the state's slope at the start */
    double *du;                     /* backward: [B, H, N] */
} Call;

/* Some tokens of a head: [ROWS][width] each, zeros beyond N and beyond its tokens, of which there are `rows`. What needs
 * no state is computed for all ROWS at once, or for one where there is but one. */
typedef struct {
    int64_t rows;
    float *r, *k, *v, *e, *decay, *before, *after, *query, *key, *past;
    float *all, *held, *added; /* [width]: all, and all = held + added, where held is 1 or 0 */
    float score[PAIRS + LANES];
} Block;

/* What a thread works with. */
typedef struct {
    int64_t size, width;  /* N, and N in whole vectors */
    float *u, *out;       /* [width]; y, or dv: [ROWS][width] */
    float *matrix, *room; /* [width][width]: the state or its slope; a copy with whole vectors, or transposed */
    float *later, *sum;   /* backward: [ROWS][width]; rowsum(G' S): [width] */
    float *states;        /* backward: [BLOCKS][width][width], transposed: the state entering each block */
    double *du;
    Block blocks[BLOCKS];
} Work;

/* ---- vectors ---- */

#if LANES == 16
static const LaneInt lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
static const LaneInt lane = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

/* Exchanges the blocks of n by n beside the diagonal, in each 2n by 2n. */
INLINE void exchange(Lane *x, int n) {
    const LaneInt high = (lane & n) != 0;
    UNROLL_LANES for (int i = 0; i < LANES; i++) {
        if (i & n) continue;
        const Lane a = x[i], b = x[i + n];
        x[i] = __builtin_shuffle(a, b, lane + (high & (LANES - n)));
        x[i + n] = __builtin_shuffle(a, b, lane + (high & LANES) + (~high & n));
    }
}

INLINE void transpose(Lane *x) {
    if (LANES == 16) exchange(x, 8);
    exchange(x, 4);
    exchange(x, 2);
    exchange(x, 1);
}

/* In lane i of x[0], the sum over x[i]. */
INLINE void fold(Lane *x, int n) {
    const LaneInt high = (lane & n) != 0;
    UNROLL for (int i = 0; i < n; i++) {
        const Lane a = x[i], b = x[i + n];
        x[i] = __builtin_shuffle(a, b, lane + (high & LANES)) +
               __builtin_shuffle(a, b, (lane ^ n) + (high & LANES));
    }
}

INLINE Lane sums(Lane *x) {
    if (LANES == 16) fold(x, 8);
    fold(x, 4);
    fold(x, 2);
    fold(x, 1);
    return x[0];
}

/* Rows of `size` floats, `stride` apart, to rows of whole vectors, and back. */
static void read_rows(const Work *s, float *to, const float *from, int64_t stride, int64_t rows) {
    const int64_t whole = s->size / LANES * LANES;
    for (int64_t t = 0; t < rows; t++, to += s->width, from += stride) {
        for (int64_t n = 0; n < whole; n += LANES) store(to + n, load(from + n, LANES), LANES);
        if (whole < s->size) store(to + whole, load(from + whole, s->size - whole), LANES);
    }
}

/* `rows` of `room` rows, the others zero. */
INLINE void read_lines(const Work *s, float *to, const float *from, int64_t stride, int64_t rows, int64_t room) {
    read_rows(s, to, from, stride, rows);
    if (rows < room) memset(to + rows * s->width, 0, 4 * (room - rows) * s->width);
}

static void write_rows(const Work *s, float *to, const float *from, int64_t stride, int64_t rows) {
    const int64_t whole = s->size / LANES * LANES;
    for (int64_t t = 0; t < rows; t++, to += stride, from += s->width) {
        for (int64_t n = 0; n < whole; n += LANES) store(to + n, load(from + n, LANES), LANES);
        if (whole < s->size) memcpy(to + whole, from + whole, 4 * (s->size - whole));
    }
}

static void clear_rows(const Work *s, float *to, int64_t stride, int64_t rows) {
    for (int64_t t = 0; t < rows; t++) memset(to + t * stride, 0, 4 * s->size);
}

/* `from` [N][N] itself where it has whole vectors, else a copy that has. */
static const float *whole_matrix(const Work *s, float *copy, const float *from) {
    if (s->width == s->size) return from;
    memset(copy, 0, 4 * s->width * s->width);
    read_rows(s, copy, from, s->size, s->size);
    return copy;
}

static void transpose_matrix(float *to, const float *from, int64_t width) {
    Lane m[LANES];
    for (int64_t a = 0; a < width; a += LANES)
        for (int64_t b = 0; b < width; b += LANES) {
            UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] = load(from + (a + i) * width + b, LANES);
            transpose(m);
            UNROLL_LANES for (int i = 0; i < LANES; i++) store(to + (b + i) * width + a, m[i], LANES);
        }
}

/* ---- a block without the state ---- */

/* exp(w) and its products from log-decays in `decay`. */
INLINE void make_decays(Block *b, int64_t width, int64_t rows) {
    for (int64_t n = 0; n < width; n += LANES) {
        Lane product = (Lane){0} + 1.f, w = {0};
        for (int64_t t = 0; t < rows; t++) {
            const Lane w_t = load(b->decay + t * width + n, LANES), decay = exp_decay(w_t);
            w += w_t;
            store(b->decay + t * width + n, decay, LANES);
            store(b->before + t * width + n, product, LANES);
            product *= decay;
        }
        const LaneInt slow = w > SLOW;
        Lane less = w * (1.f / 40320) + 1.f / 5040; /* all - 1 */
        const float taylor[] = {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f};
        UNROLL for (int i = 0; i < 6; i++) less = less * w + taylor[i];
        less *= w;
        store(b->all + n, product, LANES);
        store(b->held + n, (Lane)((LaneInt)((Lane){0} + 1.f) & slow), LANES);
        store(b->added + n, (Lane)(((LaneInt)less & slow) | ((LaneInt)product & ~slow)), LANES);
        product = (Lane){0} + 1.f;
        for (int64_t t = rows - 1; t >= 0; t--) {
            store(b->after + t * width + n, product, LANES);
            product *= load(b->decay + t * width + n, LANES);
        }
    }
}

/* out[PAIR(t, i)] = sum_n z_t x_i d_{i+1} .. d_{t-1} for i < t, and with u for i = t; NULL for ones. */
INLINE void make_scores(float *out, const float *x, const float *z, const float *decay, const float *u, int64_t width,
                        int64_t rows) {
    Lane sum[PAIRS + LANES], part[ROWS];
    for (int64_t i = PAIR(rows, 0); i < PAIR(rows, 0) + LANES; i++) sum[i] = (Lane){0};
    UNROLL for (int64_t i = 0; i < rows; i++) {
        UNROLL for (int64_t t = i; t < rows; t++) part[t] = (Lane){0};
        for (int64_t n = 0; n < width; n += LANES) {
            Lane product = load(x + i * width + n, LANES), here = load(z + i * width + n, LANES);
            part[i] += u ? product * here * load(u + n, LANES) : product * here;
            UNROLL for (int64_t t = i + 1; t < rows; t++) {
                part[t] += product * load(z + t * width + n, LANES);
                if (decay) product *= load(decay + t * width + n, LANES);
            }
        }
        UNROLL for (int64_t t = i; t < rows; t++) sum[PAIR(t, i)] = part[t];
    }
    for (int64_t i = 0; i < PAIR(rows, 0); i += LANES) store(out + i, sums(sum + i), LANES);
}

/* Tokens of a head, the first of them t, and what follows from them alone; `room` for 1 or ROWS. */
INLINE void read_block(const Call *c, const Work *s, Block *b, int64_t row, int64_t head, int64_t t, int64_t rows,
                       int64_t room) {
    const int64_t N = s->size, stride = c->heads * N, at = (row * c->tokens + t) * stride + head * N;
    const int same = !c->w_token && b->rows == rows;
    b->rows = rows;
    read_lines(s, b->r, c->r + at, stride, rows, room);
    read_lines(s, b->k, c->k + at, stride, rows, room);
    read_lines(s, b->v, c->v + at, stride, rows, room);
    if (c->dy) read_lines(s, b->e, c->dy + at, stride, rows, room);
    if (!same) {
        read_lines(s, b->decay, c->w + row * c->w_batch + t * c->w_token + head * N, c->w_token, rows, room);
        make_decays(b, s->width, room);
    }
    for (int64_t i = 0; i < room * s->width; i += LANES) {
        store(b->query + i, load(b->r + i, LANES) * load(b->before + i, LANES), LANES);
        store(b->key + i, load(b->k + i, LANES) * load(b->after + i, LANES), LANES);
    }
    make_scores(b->score, b->k, b->r, b->decay, s->u, s->width, room);
}

/* ---- a block and a matrix, LANES by LANES elements at once, m[i] being a part of row i ---- */

/* out_t += x_t m: x at the rows of m, out at its columns. */
INLINE void contract(const Lane *m, float *out, const float *x, int64_t width, int64_t rows) {
    for (int64_t t = 0; t < rows; t++, x += width, out += width) {
        Lane sum = load(out, LANES);
        UNROLL_LANES for (int i = 0; i < LANES; i++) sum += x[i] * m[i];
        store(out, sum, LANES);
    }
}

/* m += x_t^T z_t for all t. */
INLINE void extend(Lane *m, const float *x, const float *z, int64_t width, int64_t rows) {
    for (int64_t t = 0; t < rows; t++, x += width, z += width) {
        const Lane right = load(z, LANES);
        UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] += x[i] * right;
    }
}

INLINE void load_tile(Lane *m, const float *from, int64_t width) {
    UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] = load(from + i * width, LANES);
}
INLINE void store_tile(float *to, const Lane *m, int64_t width) {
    UNROLL_LANES for (int i = 0; i < LANES; i++) store(to + i * width, m[i], LANES);
}

/* ---- forward ---- */

/* y of the block to `out`; the state `from` -> `to`. */
INLINE void block_forward(const Work *s, const Block *b, const float *from, float *to, int64_t room) {
    const int64_t width = s->width;
    for (int64_t n = 0; n < width; n += LANES)
        UNROLL for (int64_t t = 0; t < room; t++) {
            Lane y = {0};
            UNROLL for (int64_t i = 0; i <= t; i++) y += b->score[PAIR(t, i)] * load(b->v + i * width + n, LANES);
            store(s->out + t * width + n, y, LANES);
        }
    for (int64_t key = 0; key < width; key += LANES)
        for (int64_t n = 0; n < width; n += LANES) {
            Lane m[LANES];
            load_tile(m, from + key * width + n, width);
            contract(m, s->out + n, b->query + key, width, b->rows);
            UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] = b->held[key + i] * m[i] + b->added[key + i] * m[i];
            extend(m, b->key + key, b->v + n, width, b->rows);
            store_tile(to + key * width + n, m, width);
        }
}

static void task_forward(const Call *c, Work *s, int64_t row, int64_t head) {
    const int64_t N = s->size, stride = c->heads * N, spans = (c->tokens + SPAN - 1) / SPAN;
    const int64_t length = c->lengths ? c->lengths[row] : c->tokens, task = row * c->heads + head;
    float *y = c->y + row * c->tokens * stride + head * N, *end = c->end + task * N * N;
    float *matrix = s->width == N ? end : s->matrix;
    const float *state = whole_matrix(s, matrix, c->state + task * N * N);
    Block *b = s->blocks;
    for (int64_t t = 0; t < length; t += ROWS, state = matrix) {
        const int64_t rows = length - t < ROWS ? length - t : ROWS;
        if (c->saved && t % SPAN == 0) write_rows(s, c->saved + (task * spans + t / SPAN) * N * N, state, N, N);
        if (rows == 1) {
            read_block(c, s, b, row, head, t, rows, 1);
            block_forward(s, b, state, matrix, 1);
        } else {
            read_block(c, s, b, row, head, t, rows, ROWS);
            block_forward(s, b, state, matrix, ROWS);
        }
        write_rows(s, y + t * stride, s->out, stride, rows);
    }
    if (state != end) write_rows(s, end, state, N, N);
    clear_rows(s, y + length * stride, stride, c->tokens - length);
}

/* ---- backward ---- */

/* past of the block, and the transposed state `from` -> `to`, which may be NULL. */
static void block_again(const Work *s, const Block *b, const float *from, float *to) {
    const int64_t width = s->width;
    memset(b->past, 0, 4 * ROWS * width);
    for (int64_t value = 0; value < width; value += LANES)
        for (int64_t n = 0; n < width; n += LANES) {
            Lane m[LANES];
            load_tile(m, from + value * width + n, width);
            contract(m, b->past + n, b->e + value, width, b->rows);
            if (!to) continue;
            const Lane held = load(b->held + n, LANES), added = load(b->added + n, LANES);
            UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] = held * m[i] + added * m[i];
            extend(m, b->v + value, b->key + n, width, b->rows);
            store_tile(to + value * width + n, m, width);
        }
}

/* later, sum and dv of the block, and its transposed slope G' -> G in `matrix`. `state` is S, transposed. */
static void block_slopes(const Work *s, const Block *b, const float *state) {
    const int64_t width = s->width, rows = b->rows;
    memset(s->later, 0, 4 * ROWS * width);
    memset(s->sum, 0, 4 * width);
    for (int64_t value = 0; value < width; value += LANES)
        for (int64_t n = 0; n < width; n += LANES) {
            float *slope = s->matrix + value * width + n;
            Lane m[LANES], sum = load(s->sum + n, LANES);
            load_tile(m, slope, width);
            contract(m, s->later + n, b->v + value, width, rows);
            UNROLL_LANES for (int i = 0; i < LANES; i++) sum += m[i] * load(state + (value + i) * width + n, LANES);
            store(s->sum + n, sum, LANES);
            transpose(m);
            contract(m, s->out + value, b->key + n, width, rows);
            load_tile(m, slope, width);
            const Lane held = load(b->held + n, LANES), added = load(b->added + n, LANES);
            UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] = held * m[i] + added * m[i];
            extend(m, b->e + value, b->query + n, width, rows);
            store_tile(slope, m, width);
        }
}

/* What later tokens of the block add to dv of each, in place of what `out` held. */
INLINE void inner_dv(const Work *s, const Block *b) {
    for (int64_t n = 0; n < s->width; n += LANES)
        UNROLL for (int64_t t = 0; t < ROWS; t++) {
            Lane dv = {0};
            UNROLL for (int64_t i = t; i < ROWS; i++) dv += b->score[PAIR(i, t)] * load(b->e + i * s->width + n, LANES);
            store(s->out + t * s->width + n, dv, LANES);
        }
}

/* dr, dk, dw of channels n on, and what they add to du. */
INLINE void channel_slopes(Work *s, const Block *b, const float *slope, int64_t n, Lane *dr, Lane *dk, Lane *dw) {
    const int64_t width = s->width;
    const Lane u = load(s->u + n, LANES);
    Lane du = {0}, through = load(b->all + n, LANES) * load(s->sum + n, LANES);
#define AT(x, t) load((x) + (t) * width + n, LANES)
    UNROLL for (int64_t t = 0; t < ROWS; t++) { /* through the state at the block's start, and at its end */
        const Lane own = slope[PAIR(t, t)] * u, later = AT(s->later, t);
        dr[t] = AT(b->before, t) * AT(b->past, t) + own * AT(b->k, t);
        dk[t] = AT(b->after, t) * later + own * AT(b->r, t);
        du += slope[PAIR(t, t)] * AT(b->r, t) * AT(b->k, t);
        dw[t] = through;
        through += AT(b->key, t) * later;
    }
    through = (Lane){0};
    UNROLL for (int64_t t = ROWS - 1; t >= 0; t--) {
        dw[t] += through;
        through += AT(b->query, t) * AT(b->past, t);
    }
    UNROLL for (int64_t i = 0; i < ROWS; i++) { /* between two tokens of the block */
        Lane product = (Lane){0} + 1.f, pair[ROWS]; /* without k_i */
        const Lane k = AT(b->k, i);
        UNROLL for (int64_t t = i + 1; t < ROWS; t++) {
            const Lane weight = product * slope[PAIR(t, i)];
            dr[t] += weight * k;
            pair[t] = weight * AT(b->r, t);
            product *= AT(b->decay, t);
        }
        through = (Lane){0};
        UNROLL for (int64_t t = ROWS - 1; t > i; t--) {
            dw[t] += through * k;
            through += pair[t];
        }
        dk[i] += through;
    }
#undef AT
    for (int i = 0; i < LANES; i++) s->du[n + i] += du[i];
}

/* Gradients of the block's tokens, which begin at `at`; the slope in `matrix` goes from its end to its start. */
static void block_backward(const Call *c, Work *s, const Block *b, const float *state, int64_t at) {
    const int64_t N = s->size, stride = c->heads * N;
    float slope[PAIRS + LANES];
    make_scores(slope, b->v, b->e, NULL, NULL, s->width, ROWS);
    inner_dv(s, b);
    block_slopes(s, b, state);
    write_rows(s, c->dv + at, s->out, stride, b->rows);
    for (int64_t n = 0; n < N; n += LANES) {
        Lane dr[ROWS], dk[ROWS], dw[ROWS];
        channel_slopes(s, b, slope, n, dr, dk, dw);
        const int64_t count = N - n < LANES ? N - n : LANES;
        for (int64_t t = 0; t < b->rows; t++) {
            const int64_t to = at + t * stride + n;
            if (count == LANES) {
                store(c->dr + to, dr[t], LANES);
                store(c->dk + to, dk[t], LANES);
                store(c->dw + to, dw[t], LANES);
            } else {
                store(c->dr + to, dr[t], count);
                store(c->dk + to, dk[t], count);
                store(c->dw + to, dw[t], count);
            }
        }
    }
}

static void task_backward(const Call *c, Work *s, int64_t row, int64_t head) {
    const int64_t N = s->size, width = s->width, stride = c->heads * N, spans = (c->tokens + SPAN - 1) / SPAN;
    const int64_t length = c->lengths ? c->lengths[row] : c->tokens, task = row * c->heads + head;
    const int64_t first = row * c->tokens * stride + head * N;
    transpose_matrix(s->matrix, whole_matrix(s, s->room, c->state + task * N * N), width);
    memset(s->du, 0, width * sizeof *s->du);
    for (int64_t t = (length - 1) / SPAN * SPAN; t >= 0 && length > 0; t -= SPAN) {
        const int64_t tokens = length - t < SPAN ? length - t : SPAN, blocks = (tokens + ROWS - 1) / ROWS;
        const float *saved = whole_matrix(s, s->room, c->saved + (task * spans + t / SPAN) * N * N);
        transpose_matrix(s->states, saved, width);
        for (int64_t i = 0; i < blocks; i++) {
            const int64_t rows = tokens - i * ROWS < ROWS ? tokens - i * ROWS : ROWS;
            float *state = s->states + i * width * width;
            read_block(c, s, s->blocks + i, row, head, t + i * ROWS, rows, ROWS);
            block_again(s, s->blocks + i, state, i + 1 < blocks ? state + width * width : NULL);
        }
        for (int64_t i = blocks - 1; i >= 0; i--) {
            const int64_t at = first + (t + i * ROWS) * stride;
            block_backward(c, s, s->blocks + i, s->states + i * width * width, at);
        }
    }
    float *const outputs[] = {c->dr, c->dw, c->dk, c->dv};
    for (int i = 0; i < 4; i++) clear_rows(s, outputs[i] + first + length * stride, stride, c->tokens - length);
    transpose_matrix(s->room, s->matrix, width);
    write_rows(s, c->start + task * N * N, s->room, N, N);
    memcpy(c->du + task * N, s->du, N * sizeof *s->du);
}

/* ---- tasks: a head of a row each ---- */

typedef struct {
    const Call *call;
    int64_t next;
    int failed;
} Tasks;

/* The next `count` floats of `memory`, whose end moves on. */
static float *take(float **memory, int64_t count) {
    float *taken = *memory;
    *memory += count;
    return taken;
}

/* Scratch of `s` for one thread: returns what is to be freed, or NULL where memory ran out. */
static float *prepare(const Call *c, Work *s) {
    const int64_t N = c->size, width = (N + LANES - 1) / LANES * LANES, blocks = c->dy ? BLOCKS : 1, line = ROWS * width;
    const int64_t matrices = c->dy ? 2 + BLOCKS : width != N, vectors = 4 + 2 * ROWS + blocks * (3 + 10 * ROWS);
    const int64_t bytes = 4 * (vectors * width + matrices * width * width);
    float *const memory = aligned_alloc(64, (bytes + 63) / 64 * 64), *rest = memory;
    if (!memory) return NULL;
    s->size = N;
    s->width = width;
    s->du = (double *)take(&rest, 2 * width);
    s->u = take(&rest, width);
    s->sum = take(&rest, width);
    s->out = take(&rest, line);
    s->later = take(&rest, line);
    for (Block *b = s->blocks; b < s->blocks + blocks; b++) {
        float **const lines[] = {&b->r,      &b->k,     &b->v,     &b->e,   &b->decay,
                                 &b->before, &b->after, &b->query, &b->key, &b->past};
        for (int i = 0; i < 10; i++) *lines[i] = take(&rest, line);
        b->all = take(&rest, width);
        b->held = take(&rest, width);
        b->added = take(&rest, width);
    }
    s->matrix = rest;
    s->room = rest + width * width;
    s->states = s->room + width * width;
    return memory;
}

/* One thread: the next task until none is left. */
static void work(void *shared) {
    Tasks *tasks = shared;
    const Call *c = tasks->call;
    Work s;
    float *memory = prepare(c, &s);
    if (!memory) {
        __atomic_store_n(&tasks->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (;;) {
        const int64_t task = take_task(&tasks->next), row = task / c->heads, head = task % c->heads;
        if (row >= c->batch) break;
        for (int i = 0; i < BLOCKS; i++) s.blocks[i].rows = 0; /* their decays were another head's */
        read_rows(&s, s.u, c->u + head * s.size, 0, 1);
        if (c->dy)
            task_backward(c, &s, row, head);
        else
            task_forward(c, &s, row, head);
    }
    free(memory);
}

int wkv_span(void) { return SPAN; }

int wkv_run(const Call *c) {
    const int64_t tasks = c->batch * c->heads, most = tasks * c->tokens * c->size * c->size / THREAD_ELEMENTS;
    int64_t threads = c->threads < most ? c->threads : most;
    Tasks shared = {c, 0, 0};
    in_threads(work, &shared, threads < tasks ? threads : tasks, c->parallel);
    return shared.failed;
}
