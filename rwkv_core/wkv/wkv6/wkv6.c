/* The recurrence of RWKV-5 and RWKV-6 on a CPU, forward and backward.
 *
 * Per head, with vectors of N channels, S [key][value], d_t = exp(w_t) and the bonus u:
 *   y_t = r_t (S_{t-1} + diag(u) k_t^T v_t),  S_t = diag(d_t) S_{t-1} + k_t^T v_t.
 *
 * Time goes in blocks of up to ROWS tokens, t = 0 .. R-1, from the state S to S'. All products are by channel; those
 * of decays never exceed 1, so that every log-decay is right, with no division and no special case:
 *   before_t = d_0 .. d_{t-1},  after_t = d_{t+1} .. d_{R-1},  all = d_0 .. d_{R-1}
 *   query_t = r_t before_t,  key_t = k_t after_t
 *   score_ti = sum_n r_t k_i d_{i+1} .. d_{t-1} for i < t,  score_tt = sum_n r_t u k_t
 *   y_t = query_t S + sum_{i <= t} score_ti v_i,  S' = diag(all) S + sum_t key_t^T v_t
 * So an element of the state takes two multiply-adds a token, the least there is, and is read and written once a block.
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

#define ROWS 8  /* tokens of a block: more would cost scores, fewer would cost passes over the state */
#define SPAN 64 /* tokens between two stored states, a multiple of ROWS; backward computes again what lies between */
#define BLOCKS (SPAN / ROWS)
#define LINE(x, n, t) ((x) + (n) * ROWS + (t) * LANES) /* channels n on of token t; n a multiple of LANES */
#define PAIRS (ROWS * (ROWS + 1) / 2)
#define PAIR(t, i) ((t) * ((t) + 1) / 2 + (i)) /* i <= t */
#define THREAD_ELEMENTS (1 << 17) /* state elements times tokens: fewer are done sooner than a thread has started */
#define SLOW -0.25f /* log-decays of a block above it: all - 1 is held, which has more digits than all */
#define NOINLINE __attribute__((noinline)) /* so that registers hold what the loops in it need */

/* One call: what Python hands over, in this order. Contiguous. M = ceil(T / SPAN). */
typedef struct {
    int64_t batch, tokens, heads, size, steady; /* B, T, H, N; whether all tokens have the same decay */
    int64_t threads;
    Parallel *parallel;
    const float *u, *r, *w, *k, *v; /* [H, N]; [B, T, H, N] each, but a steady w [H, N] */
    const int64_t *lengths;         /* [B], 0 to T, or NULL */
    float *saved;                   /* [B, H, M, N, N]: the state entering each span; forward may have NULL */
    const float *state;             /* forward: [B, H, N, N], at the start; backward: its slope at the end */
    float *y, *end;                 /* forward: [B, T, H, N]; [B, H, N, N] */
    const float *dy;                /* backward: [B, T, H, N]; NULL in forward */
    float *dr, *dk, *dv, *dw;       /* backward: [B, T, H, N] each; dw unless steady */
    float *start;                   /* backward: [B, H, N, N], the state's slope at the start */
    double *du, *steady_dw;         /* backward: [B, H, N] each */
} Call;

/* Some tokens of a head. Its lines are [width / LANES][ROWS][LANES], so that the compiler knows the distance from one
 * token to the next; zeros beyond N and beyond the tokens, of which there are `rows`. What needs no state is computed
 * for `room` tokens at once: ROWS, or one where there is but one. */
typedef struct {
    int64_t rows, stride, next; /* floats from token to token, and where the next block begins */
    float *r, *k, *v, *e, *decay, *query, *key, *past; /* forward: query takes the place of r, key that of k */
    float *u, *all, *held, *added; /* [width]: all = held + added, where held is 1 or 0 */
    float *state;                  /* [width][width]: S; backward: transposed */
    float score[PAIRS + LANES];
} Block;

/* What a thread works with. */
typedef struct {
    int64_t size, width;  /* N, and N in whole vectors */
    float *out;           /* lines: y, or dv */
    float *states;        /* [BLOCKS][width][width]: the state entering each block, transposed; forward: one, or none */
    float *matrix, *copy; /* backward: [width][width]: G, transposed; what was read, or is to be written */
    float *later, *sum;   /* backward: lines; rowsum(G' S): [width] */
    double *du, *dw;      /* backward: [width], sums over the tokens of a row */
    Block blocks[BLOCKS];
} Work;

/* ---- rows and lines ---- */

/* A vector, or the `left` floats that are there. */
INLINE Lane load_most(const float *from, int64_t left) { return left < LANES ? load(from, left) : load(from, LANES); }
INLINE void store_most(float *to, Lane x, int64_t left) { left < LANES ? store(to, x, left) : store(to, x, LANES); }

/* Rows of N floats, `stride` apart, to lines, and back. */
static void read_lines(const Work *s, float *to, const float *from, int64_t stride, int64_t rows, int64_t room) {
    for (int64_t n = 0; n < s->size; n += LANES)
        for (int64_t t = 0; t < room; t++) {
            const float *here = from + t * stride + n;
            if (t >= rows)
                store(LINE(to, n, t), (Lane){0}, LANES);
            else
                store(LINE(to, n, t), load_most(here, s->size - n), LANES);
        }
}
static void write_lines(const Work *s, float *to, const float *from, int64_t stride, int64_t rows) {
    for (int64_t n = 0; n < s->size; n += LANES)
        for (int64_t t = 0; t < rows; t++) store_most(to + t * stride + n, load(LINE(from, n, t), LANES), s->size - n);
}

/* [N][N] of rows so wide. */
static void copy_matrix(const Work *s, float *to, int64_t to_width, const float *from, int64_t from_width) {
    if (to_width == from_width)
        memcpy(to, from, 4 * s->size * to_width);
    else
        for (int64_t i = 0; i < s->size; i++) memcpy(to + i * to_width, from + i * from_width, 4 * s->size);
}

/* `from` [N][N] itself where it has whole vectors, else a copy that has. */
static const float *whole_matrix(const Work *s, float *copy, const float *from) {
    if (s->width == s->size) return from;
    memset(copy, 0, 4 * s->width * s->width);
    copy_matrix(s, copy, s->width, from, s->size);
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

/* `all` in two parts, of which the second has the digits of a slow decay: w is the block's log-decay. */
INLINE void store_all(Block *b, int64_t n, Lane all, Lane w) {
    const LaneInt slow = w > SLOW;
    const float taylor[] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f};
    Lane less = (Lane){0} + 1.f / 40320; /* all - 1 */
    UNROLL for (int i = 0; i < 7; i++) less = less * w + taylor[i];
    less *= w;
    store(b->all + n, all, LANES);
    store(b->held + n, (Lane)((LaneInt)((Lane){0} + 1.f) & slow), LANES);
    store(b->added + n, (Lane)(((LaneInt)less & slow) | ((LaneInt)all & ~slow)), LANES);
}

/* decay and all, from log-decays in `decay`. */
static NOINLINE void make_decays(const Work *s, Block *b, int64_t room) {
    for (int64_t n = 0; n < s->width; n += LANES) {
        Lane all = (Lane){0} + 1.f, sum = {0};
        for (int64_t t = 0; t < room; t++) {
            const Lane w = load(LINE(b->decay, n, t), LANES), decay = exp_decay(w);
            store(LINE(b->decay, n, t), decay, LANES);
            sum += w;
            all *= decay;
        }
        store_all(b, n, all, sum);
    }
}

/* query and key. */
static NOINLINE void make_queries(const Work *s, Block *b, int64_t room) {
    for (int64_t n = 0; n < s->width; n += LANES) {
        Lane before = (Lane){0} + 1.f, after = before;
        for (int64_t t = 0; t < room; t++) {
            store(LINE(b->query, n, t), load(LINE(b->r, n, t), LANES) * before, LANES);
            before *= load(LINE(b->decay, n, t), LANES);
        }
        for (int64_t t = room - 1; t >= 0; t--) {
            store(LINE(b->key, n, t), load(LINE(b->k, n, t), LANES) * after, LANES);
            after *= load(LINE(b->decay, n, t), LANES);
        }
    }
}

/* out[PAIR(t, i)] = sum_n z_t x_i d_{i+1} .. d_{t-1} for i < t, sum_n z_t u x_t for i = t; NULL stands for ones. */
INLINE void make_pairs(float *out, const float *x, const float *z, const float *decay, const float *u, int64_t width,
                       int64_t room) {
    Lane sum[PAIRS + LANES];
    UNROLL for (int64_t i = 0; i < room; i++) {
        Lane part[ROWS] = {0};
        for (int64_t n = 0; n < width; n += LANES) {
            Lane product = load(LINE(x, n, i), LANES);
            part[i] += load(LINE(z, n, i), LANES) * (u ? product * load(u + n, LANES) : product);
            UNROLL for (int64_t t = i + 1; t < room; t++) {
                part[t] += load(LINE(z, n, t), LANES) * product;
                if (decay) product *= load(LINE(decay, n, t), LANES);
            }
        }
        UNROLL for (int64_t t = i; t < room; t++) sum[PAIR(t, i)] = part[t];
    }
    UNROLL_LANES for (int i = 0; i < LANES; i++) sum[PAIR(room, 0) + i] = (Lane){0};
    for (int64_t i = 0; i < PAIR(room, 0); i += LANES) store(out + i, sums(sum + i), LANES);
}
static NOINLINE void make_scores(const Work *s, Block *b) {
    make_pairs(b->score, b->k, b->r, b->decay, b->u, s->width, ROWS);
}

/* A block of another head, whose state lies at `state`, or in scratch. */
static void begin_block(const Call *c, Work *s, int64_t i, int64_t head, float *state) {
    Block *b = s->blocks + i;
    b->rows = 0;
    b->state = state ? state : s->states + i * s->width * s->width;
    memset(b->u, 0, 4 * s->width);
    memcpy(b->u, c->u + head * s->size, 4 * s->size);
}

/* Tokens of a head, the first of them t, and what follows from them alone; `room` for 1 or ROWS. */
INLINE void read_block(const Call *c, const Work *s, Block *b, int64_t row, int64_t head, int64_t t, int64_t rows,
                       int64_t room) {
    const int64_t N = s->size, stride = c->heads * N, at = (row * c->tokens + t) * stride + head * N;
    const int same = c->steady && b->rows == rows;
    b->rows = rows;
    b->stride = stride;
    b->next = at + ROWS * stride;
    read_lines(s, b->r, c->r + at, stride, rows, room);
    read_lines(s, b->k, c->k + at, stride, rows, room);
    read_lines(s, b->v, c->v + at, stride, rows, room);
    if (c->dy) read_lines(s, b->e, c->dy + at, stride, rows, room);
    if (!same) {
        read_lines(s, b->decay, c->steady ? c->w + head * N : c->w + at, c->steady ? 0 : stride, rows, room);
        make_decays(s, b, room);
    }
    if (room == ROWS)
        make_scores(s, b);
    else
        make_pairs(b->score, b->k, b->r, b->decay, b->u, s->width, 1);
    make_queries(s, b, room);
}

/* ---- a block and a matrix, LANES by LANES elements at once, m[i] being a part of row i ---- */

/* out_t += x_t m: x at the rows of m, out at its columns. */
INLINE void contract(const Lane *m, float *out, const float *x, int64_t rows) {
    for (int64_t t = 0; t < rows; t++, x += LANES, out += LANES) {
        Lane even = load(out, LANES), odd = {0}; /* each sum waits for its last term: two wait half as long */
        UNROLL for (int i = 0; i < LANES; i += 2) {
            even += x[i] * m[i];
            odd += x[i + 1] * m[i + 1];
        }
        store(out, even + odd, LANES);
    }
}

/* m += x_t^T z_t for all t. */
INLINE void extend(Lane *m, const float *x, const float *z, int64_t rows) {
    for (int64_t t = 0; t < rows; t++, x += LANES, z += LANES) {
        const Lane right = load(z, LANES);
        UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] += x[i] * right;
    }
}

INLINE void load_tile(Lane *m, const float *from, int64_t width) {
    UNROLL_LANES for (int i = 0; i < LANES; i++) m[i] = load(from + i * width, LANES);
}

/* Asks for channels n on of some tokens of the next block, y among them: they lie too far apart for the processor to
 * foresee. Each tile, from row `row` on, asks for a few, and all together for all: at once they would hold up what is
 * read now. */
INLINE void prefetch_next(const Call *c, const Block *b, int64_t width, int64_t row, int64_t n) {
    for (int64_t t = row * ROWS / width; t < (row + LANES) * ROWS / width; t++) {
        const int64_t at = b->next + t * b->stride + n;
        __builtin_prefetch(c->r + at);
        __builtin_prefetch(c->k + at);
        __builtin_prefetch(c->v + at);
        if (!c->steady) __builtin_prefetch(c->w + at);
        __builtin_prefetch(c->dy ? c->dy + at : c->y + at);
    }
}

/* ---- forward ---- */

/* Of the state, the part at keys `key` on and values `n` on. */
static NOINLINE void tile_forward(const Work *s, const Block *b, const float *state, int64_t key, int64_t n) {
    const int64_t width = s->width;
    Lane m[LANES], added[LANES]; /* what is added is summed first: the state is rounded but once */
    load_tile(m, state + key * width + n, width);
    contract(m, LINE(s->out, n, 0), LINE(b->query, key, 0), b->rows);
    UNROLL_LANES for (int i = 0; i < LANES; i++) added[i] = b->added[key + i] * m[i];
    extend(added, LINE(b->key, key, 0), LINE(b->v, n, 0), b->rows);
    float *to = b->state + key * width + n;
    UNROLL_LANES for (int i = 0; i < LANES; i++) store(to + i * width, b->held[key + i] * m[i] + added[i], LANES);
}

/* y of the block to `out`; the state before it, `state`, becomes that after it in b->state. */
INLINE void block_forward(const Call *c, const Work *s, const Block *b, const float *state, int64_t room) {
    const int64_t width = s->width;
    for (int64_t n = 0; n < width; n += LANES) {
        Lane y[ROWS] = {0};
        UNROLL for (int64_t i = 0; i < room; i++) {
            const Lane v = load(LINE(b->v, n, i), LANES);
            UNROLL for (int64_t t = i; t < room; t++) y[t] += b->score[PAIR(t, i)] * v;
        }
        UNROLL for (int64_t t = 0; t < room; t++) store(LINE(s->out, n, t), y[t], LANES);
    }
    for (int64_t key = 0; key < width; key += LANES)
        for (int64_t n = 0; n < width; n += LANES) {
            if (room > 1) prefetch_next(c, b, width, key, n);
            tile_forward(s, b, state, key, n);
        }
}

static void task_forward(const Call *c, Work *s, int64_t row, int64_t head) {
    const int64_t N = s->size, stride = c->heads * N, spans = (c->tokens + SPAN - 1) / SPAN;
    const int64_t length = c->lengths ? c->lengths[row] : c->tokens, task = row * c->heads + head;
    float *y = c->y + row * c->tokens * stride + head * N, *end = c->end + task * N * N;
    Block *b = s->blocks;
    begin_block(c, s, 0, head, s->width == N ? end : NULL);
    const float *state = whole_matrix(s, b->state, c->state + task * N * N);
    for (int64_t t = 0; t < length; t += ROWS, state = b->state) {
        const int64_t rows = length - t < ROWS ? length - t : ROWS;
        if (c->saved && t % SPAN == 0)
            copy_matrix(s, c->saved + (task * spans + t / SPAN) * N * N, N, state, s->width);
        if (rows == 1) {
            read_block(c, s, b, row, head, t, rows, 1);
            block_forward(c, s, b, state, 1);
        } else {
            read_block(c, s, b, row, head, t, rows, ROWS);
            block_forward(c, s, b, state, ROWS);
        }
        write_lines(s, y + t * stride, s->out, stride, rows);
    }
    if (state != end) copy_matrix(s, end, N, state, s->width);
    for (int64_t t = length; t < c->tokens; t++) memset(y + t * stride, 0, 4 * N);
}

/* ---- backward ---- */

/* `to` = all m + x^T z in a tile whose columns are the keys n on. */
INLINE void advance(const Lane *m, float *to, const Block *b, const float *x, int64_t n, const float *z,
                    int64_t width) {
    const Lane held = load(b->held + n, LANES), part = load(b->added + n, LANES);
    Lane added[LANES];
    UNROLL_LANES for (int i = 0; i < LANES; i++) added[i] = part * m[i];
    extend(added, x, LINE(z, n, 0), b->rows);
    UNROLL_LANES for (int i = 0; i < LANES; i++) store(to + i * width, held * m[i] + added[i], LANES);
}

static NOINLINE void tile_again(const Work *s, const Block *b, float *to, int64_t value, int64_t n) {
    const int64_t width = s->width;
    Lane m[LANES];
    load_tile(m, b->state + value * width + n, width);
    contract(m, LINE(b->past, n, 0), LINE(b->e, value, 0), b->rows);
    if (!to) return;
    advance(m, to + value * width + n, b, LINE(b->v, value, 0), n, b->key, width);
}

/* past of the block, and the state after it, transposed, to `to`, which may be NULL. */
static void block_again(const Call *c, const Work *s, const Block *b, float *to) {
    const int64_t width = s->width;
    memset(b->past, 0, 4 * ROWS * width);
    for (int64_t value = 0; value < width; value += LANES)
        for (int64_t n = 0; n < width; n += LANES) {
            prefetch_next(c, b, width, value, n);
            tile_again(s, b, to, value, n);
        }
}

static NOINLINE void tile_slopes(const Work *s, const Block *b, int64_t value, int64_t n) {
    const int64_t width = s->width;
    float *slope = s->matrix + value * width + n;
    Lane m[LANES], sum = load(s->sum + n, LANES);
    load_tile(m, slope, width);
    contract(m, LINE(s->later, n, 0), LINE(b->v, value, 0), b->rows);
    UNROLL_LANES for (int i = 0; i < LANES; i++) sum += m[i] * load(b->state + (value + i) * width + n, LANES);
    store(s->sum + n, sum, LANES);
    transpose(m);
    contract(m, LINE(s->out, value, 0), LINE(b->key, n, 0), b->rows);
    load_tile(m, slope, width);
    advance(m, slope, b, LINE(b->e, value, 0), n, b->query, width);
}

/* later, sum and dv of the block, and its transposed slope G' -> G in `matrix`. */
static void block_slopes(const Work *s, const Block *b) {
    const int64_t width = s->width;
    memset(s->later, 0, 4 * ROWS * width);
    memset(s->sum, 0, 4 * width);
    for (int64_t value = 0; value < width; value += LANES)
        for (int64_t n = 0; n < width; n += LANES) tile_slopes(s, b, value, n);
}

/* What later tokens of the block add to dv of each, in place of what `out` held. */
static NOINLINE void inner_dv(const Work *s, const Block *b) {
    for (int64_t n = 0; n < s->width; n += LANES) {
        Lane dv[ROWS] = {0};
        UNROLL for (int64_t t = 0; t < ROWS; t++) {
            const Lane e = load(LINE(b->e, n, t), LANES);
            UNROLL for (int64_t i = 0; i <= t; i++) dv[i] += b->score[PAIR(t, i)] * e;
        }
        UNROLL for (int64_t t = 0; t < ROWS; t++) store(LINE(s->out, n, t), dv[t], LANES);
    }
}

/* dr, dk, dw of channels n on, and what they add to du and, summed over tokens, to dw. */
INLINE void channel_slopes(Work *s, const Block *b, const float *slope, int64_t n, Lane *dr, Lane *dk, Lane *dw) {
    const Lane u = load(b->u + n, LANES);
    Lane du = {0}, through = load(b->all + n, LANES) * load(s->sum + n, LANES), product = (Lane){0} + 1.f;
#define AT(x, t) load(LINE(x, n, t), LANES)
    UNROLL for (int64_t t = 0; t < ROWS; t++) { /* through the state at the block's start, and at its end */
        dr[t] = product * AT(b->past, t);
        product *= AT(b->decay, t);
        dk[t] = AT(s->later, t);
        dw[t] = through;
        through += AT(b->key, t) * dk[t];
    }
    through = (Lane){0};
    product = (Lane){0} + 1.f;
    UNROLL for (int64_t t = ROWS - 1; t >= 0; t--) {
        dk[t] *= product;
        product *= AT(b->decay, t);
        dw[t] += through;
        through += AT(b->r, t) * dr[t];
    }
    UNROLL for (int64_t t = 0; t < ROWS; t++) {
        const Lane own = slope[PAIR(t, t)] * u;
        du += slope[PAIR(t, t)] * AT(b->r, t) * AT(b->k, t);
        dr[t] += own * AT(b->k, t);
        dk[t] += own * AT(b->r, t);
    }
    UNROLL for (int64_t i = 0; i < ROWS; i++) { /* between two tokens of the block */
        Lane pair[ROWS]; /* without k_i */
        const Lane k = AT(b->k, i);
        product = (Lane){0} + 1.f;
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
    through = (Lane){0};
    UNROLL for (int64_t t = 0; t < ROWS; t++)
        if (t < b->rows) through += dw[t];
    for (int i = 0; i < LANES; i++) {
        s->du[n + i] += du[i];
        s->dw[n + i] += through[i];
    }
}

INLINE void store_slopes(const Work *s, float *to, const Lane *slope, int64_t n, int64_t stride, int64_t rows) {
    for (int64_t t = 0; t < rows; t++) store_most(to + t * stride + n, slope[t], s->size - n);
}

/* Gradients of the block's tokens, which begin at `at`; the slope in `matrix` goes from its end to its start. */
static void block_backward(const Call *c, Work *s, const Block *b, int64_t at) {
    const int64_t N = s->size, stride = c->heads * N;
    float slope[PAIRS + LANES];
    make_pairs(slope, b->v, b->e, NULL, NULL, s->width, ROWS);
    inner_dv(s, b);
    block_slopes(s, b);
    write_lines(s, c->dv + at, s->out, stride, b->rows);
    for (int64_t n = 0; n < N; n += LANES) {
        Lane dr[ROWS], dk[ROWS], dw[ROWS];
        channel_slopes(s, b, slope, n, dr, dk, dw);
        store_slopes(s, c->dr + at, dr, n, stride, b->rows);
        store_slopes(s, c->dk + at, dk, n, stride, b->rows);
        if (!c->steady) store_slopes(s, c->dw + at, dw, n, stride, b->rows);
    }
}

static void task_backward(const Call *c, Work *s, int64_t row, int64_t head) {
    const int64_t N = s->size, width = s->width, stride = c->heads * N, spans = (c->tokens + SPAN - 1) / SPAN;
    const int64_t length = c->lengths ? c->lengths[row] : c->tokens, task = row * c->heads + head;
    const int64_t first = row * c->tokens * stride + head * N;
    transpose_matrix(s->matrix, whole_matrix(s, s->copy, c->state + task * N * N), width);
    memset(s->du, 0, width * sizeof *s->du);
    memset(s->dw, 0, width * sizeof *s->dw);
    for (int64_t i = 0; i < BLOCKS; i++) begin_block(c, s, i, head, NULL);
    for (int64_t t = (length - 1) / SPAN * SPAN; t >= 0 && length > 0; t -= SPAN) {
        const int64_t tokens = length - t < SPAN ? length - t : SPAN, blocks = (tokens + ROWS - 1) / ROWS;
        const float *saved = whole_matrix(s, s->copy, c->saved + (task * spans + t / SPAN) * N * N);
        transpose_matrix(s->states, saved, width);
        for (int64_t i = 0; i < blocks; i++) {
            const int64_t rows = tokens - i * ROWS < ROWS ? tokens - i * ROWS : ROWS;
            Block *b = s->blocks + i;
            read_block(c, s, b, row, head, t + i * ROWS, rows, ROWS);
            block_again(c, s, b, i + 1 < blocks ? b[1].state : NULL);
        }
        for (int64_t i = blocks - 1; i >= 0; i--) block_backward(c, s, s->blocks + i, first + (t + i * ROWS) * stride);
    }
    float *const outputs[] = {c->dr, c->dk, c->dv, c->dw};
    for (int i = 0; i < 4 - c->steady; i++)
        for (int64_t t = length; t < c->tokens; t++) memset(outputs[i] + first + t * stride, 0, 4 * N);
    transpose_matrix(s->copy, s->matrix, width);
    copy_matrix(s, c->start + task * N * N, N, s->copy, width);
    memcpy(c->du + task * N, s->du, N * sizeof *s->du);
    memcpy(c->steady_dw + task * N, s->dw, N * sizeof *s->dw);
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
    const int64_t N = c->size, width = (N + LANES - 1) / LANES * LANES, line = ROWS * width;
    const int64_t blocks = c->dy ? BLOCKS : 1, matrices = c->dy ? BLOCKS + 2 : width != N;
    const int64_t lines = c->dy ? 8 : 4, vectors = 5 + 2 * ROWS + blocks * (4 + lines * ROWS);
    const int64_t bytes = 4 * (vectors * width + matrices * width * width);
    float *const memory = aligned_alloc(64, (bytes + 63) / 64 * 64), *rest = memory;
    if (!memory) return NULL;
    s->size = N;
    s->width = width;
    s->du = (double *)take(&rest, 2 * width);
    s->dw = (double *)take(&rest, 2 * width);
    s->sum = take(&rest, width);
    s->out = take(&rest, line);
    s->later = take(&rest, line);
    for (Block *b = s->blocks; b < s->blocks + blocks; b++) {
        float **const line_of[] = {&b->r, &b->k, &b->v, &b->decay, &b->e, &b->past, &b->query, &b->key};
        float **const singles[] = {&b->u, &b->all, &b->held, &b->added};
        for (int i = 0; i < lines; i++) *line_of[i] = take(&rest, line);
        if (!c->dy) {
            b->query = b->r;
            b->key = b->k;
        }
        for (int i = 0; i < 4; i++) *singles[i] = take(&rest, width);
    }
    s->states = rest;
    s->matrix = s->states + blocks * width * width;
    s->copy = s->matrix + width * width;
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
        if (c->dy)
            task_backward(c, &s, row, head);
        else
            task_forward(c, &s, row, head);
    }
    free(memory);
}

int wkv_span(void) { return SPAN; }

int wkv_run(const Call *c) {
    const int64_t heads = c->batch * c->heads, most = heads * c->tokens * c->size * c->size / THREAD_ELEMENTS;
    int64_t threads = c->threads < most ? c->threads : most;
    if (threads > heads) threads = heads;
    Tasks tasks = {c, 0, 0};
    in_threads(work, &tasks, threads, c->parallel);
    return tasks.failed;
}
