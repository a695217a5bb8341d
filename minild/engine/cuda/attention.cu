// Attention in tiles, without the matrix of scores (Dao et al. 2022, arXiv 2205.14135). q and y are (N, Lq, D), k and v
// (N, Lk, D); a head is D / heads neighbouring columns of them: `width` columns.
//
// A block of 16 x 16 threads works on tiles of 64 queries by 64 keys; thread (tx, ty) on the scores of queries
// ty, ty + 16, ... by keys tx, tx + 16, ..., and on columns tx, tx + 16, ... of the results of those queries. The 16
// threads that share a query are half a warp.
//
// With m the largest of a query's scores s_j so far, l = sum exp(s_j - m) and o = sum exp(s_j - m) v_j, a tile with a
// larger maximum m' turns l into l exp(m - m') and o likewise, and then adds its own terms. In the end y = o / l, and
// m + log l is all that the backward needs to have a weight again: exp(s_j - (m + log l)).
//
// scalar is float or __half and SLICES the least number of 16 columns that hold a head, both defined ahead of this file.

#define SIDE 16           // threads
#define EACH 4            // queries, and keys, of a thread
#define TILE (SIDE * EACH)
#define STRIDE (TILE + 4) // of a tile in shared memory: what a column's threads read lies in different banks
#define LOWEST -3.4e38f    // of a score that is not seen: its exponential is 0

struct Tokens {  // of one head of one image
    const scalar* start;
    int count, width, D;
    __device__ float at(int token, int column) const {
        return token < count && column < width ? float(start[(long long)token * D + column]) : 0.0f;
    }
};

__device__ Tokens head_of(const scalar* x, int L, int width, int heads) {
    int D = width * heads;
    return {x + (long long)blockIdx.z * L * D + blockIdx.y * width, L, width, D};
}

// products[i][j] = a_i . b_j for the tiles of tokens that begin at first_a and first_b: 16 columns at a time.
__device__ void multiply_tokens(float (&products)[EACH][EACH], Tokens a, int first_a, Tokens b, int first_b) {
    __shared__ float a_slice[TILE][SIDE + 1], b_slice[TILE][SIDE + 1];
    int tx = threadIdx.x, ty = threadIdx.y;
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) products[i][j] = 0;
    for (int first = 0; first < a.width; first += SIDE) {
        __syncthreads();  // the slices before these have been read
        for (int i = 0; i < EACH; i++) {
            a_slice[ty + SIDE * i][tx] = a.at(first_a + ty + SIDE * i, first + tx);
            b_slice[ty + SIDE * i][tx] = b.at(first_b + ty + SIDE * i, first + tx);
        }
        __syncthreads();
        for (int c = 0; c < SIDE; c++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++)
                    products[i][j] += a_slice[ty + SIDE * i][c] * b_slice[tx + SIDE * j][c];
    }
}

// sums[i][s] += sum over the tile's tokens j of weights[i][j] * b_j, in the thread's column of slice s. Each thread
// gives the weights that it has; they are laid out in shared memory for all.
__device__ void add_weighted(float (&sums)[EACH][SLICES], const float (&weights)[EACH][EACH], Tokens b, int first_b) {
    __shared__ float of_block[TILE][STRIDE], b_slice[TILE][SIDE];
    int tx = threadIdx.x, ty = threadIdx.y;
    __syncthreads();
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) of_block[ty + SIDE * i][tx + SIDE * j] = weights[i][j];
#pragma unroll  // for sums to be registers
    for (int s = 0; s < SLICES; s++) {
        __syncthreads();
        for (int i = 0; i < EACH; i++) b_slice[ty + SIDE * i][tx] = b.at(first_b + ty + SIDE * i, s * SIDE + tx);
        __syncthreads();
        for (int j = 0; j < TILE; j++)
            for (int i = 0; i < EACH; i++) sums[i][s] += of_block[ty + SIDE * i][j] * b_slice[j][tx];
    }
}

__device__ void store(scalar* x, Tokens like, const scalar* start, int first, const float (&sums)[EACH][SLICES]) {
    x += like.start - start;
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int s = 0; s < SLICES; s++) {
            int token = first + threadIdx.y + SIDE * i, column = s * SIDE + threadIdx.x;
            if (token < like.count && column < like.width) x[(long long)token * like.D + column] = scalar(sums[i][s]);
        }
}

// The sum, and the largest, over the 16 threads that share a query.
__device__ float sum_of_query(float value) {
    for (int away = SIDE / 2; away > 0; away /= 2) value += __shfl_xor_sync(0xffffffffu, value, away);
    return value;
}
__device__ float largest_of_query(float value) {
    for (int away = SIDE / 2; away > 0; away /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, away));
    return value;
}

__device__ bool visible(int query, int key, int Lk, int causal) { return key < Lk && (!causal || key <= query); }

// A block is a tile of queries of one head of one image. log_sums (N, heads, Lq) = m + log l.
extern "C" __global__ void __launch_bounds__(SIDE * SIDE)
attention(const scalar* q, const scalar* k, const scalar* v, scalar* y, float* log_sums, int Lq, int Lk, int width,
          float scale, int causal) {
    Tokens queries = head_of(q, Lq, width, gridDim.y), keys = head_of(k, Lk, width, gridDim.y);
    Tokens values = head_of(v, Lk, width, gridDim.y);
    int first = blockIdx.x * TILE, end = causal ? min(Lk, first + TILE) : Lk;
    float largest[EACH], sum[EACH] = {}, mixed[EACH][SLICES] = {}, s[EACH][EACH];
    for (int i = 0; i < EACH; i++) largest[i] = LOWEST;
    for (int first_key = 0; first_key < end; first_key += TILE) {
        multiply_tokens(s, queries, first, keys, first_key);
        for (int i = 0; i < EACH; i++) {
            float now = largest[i], added = 0;
            for (int j = 0; j < EACH; j++) {
                bool seen = visible(first + threadIdx.y + SIDE * i, first_key + threadIdx.x + SIDE * j, Lk, causal);
                s[i][j] = seen ? s[i][j] * scale : LOWEST;
                now = fmaxf(now, s[i][j]);
            }
            now = largest_of_query(now);  // finite: every query sees key 0
            for (int j = 0; j < EACH; j++) s[i][j] = expf(s[i][j] - now), added += s[i][j];
            float shrink = expf(largest[i] - now);
            sum[i] = sum[i] * shrink + sum_of_query(added);
            for (int c = 0; c < SLICES; c++) mixed[i][c] *= shrink;
            largest[i] = now;
        }
        add_weighted(mixed, s, values, first_key);
    }
    for (int i = 0; i < EACH; i++) {
        int query = first + threadIdx.y + SIDE * i;
        for (int c = 0; c < SLICES; c++) mixed[i][c] /= sum[i];
        if (threadIdx.x == 0 && query < Lq)
            log_sums[((long long)blockIdx.z * gridDim.y + blockIdx.y) * Lq + query] = largest[i] + logf(sum[i]);
    }
    store(y, queries, q, first, mixed);
}

// The backward computes the weights w once more. With dw_ij = dy_i . v_j, through the softmax
// ds_ij = w_ij (dw_ij - sum_j w_ij dw_ij), and that sum over all keys is dy_i . y_i, known beforehand.

// dots (N, heads, Lq) = dy . y of each head: a warp for each.
extern "C" __global__ void attention_dots(const scalar* dy, const scalar* y, float* dots, int L, int width) {
    int query = blockIdx.x * blockDim.y + threadIdx.y;
    if (query >= L) return;
    Tokens a = head_of(dy, L, width, gridDim.y), b = head_of(y, L, width, gridDim.y);
    float sum = 0;
    for (int c = threadIdx.x; c < width; c += 32) sum += a.at(query, c) * b.at(query, c);
    for (int away = 16; away > 0; away /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, away);
    if (threadIdx.x == 0) dots[((long long)blockIdx.z * gridDim.y + blockIdx.y) * L + query] = sum;
}

// A block is a tile of queries, and goes over the keys: dq_i = scale * sum_j ds_ij k_j.
extern "C" __global__ void __launch_bounds__(SIDE * SIDE)
attention_dq(const scalar* dy, const scalar* q, const scalar* k, const scalar* v, const float* log_sums,
             const float* dots, scalar* dq, int Lq, int Lk, int width, float scale, int causal) {
    Tokens dys = head_of(dy, Lq, width, gridDim.y), queries = head_of(q, Lq, width, gridDim.y);
    Tokens keys = head_of(k, Lk, width, gridDim.y), values = head_of(v, Lk, width, gridDim.y);
    int first = blockIdx.x * TILE, end = causal ? min(Lk, first + TILE) : Lk;
    long long of_head = ((long long)blockIdx.z * gridDim.y + blockIdx.y) * Lq;
    float sums[EACH][SLICES] = {}, s[EACH][EACH], dw[EACH][EACH];
    for (int first_key = 0; first_key < end; first_key += TILE) {
        multiply_tokens(s, queries, first, keys, first_key);
        multiply_tokens(dw, dys, first, values, first_key);
        for (int i = 0; i < EACH; i++)
            for (int j = 0; j < EACH; j++) {
                int query = first + threadIdx.y + SIDE * i, key = first_key + threadIdx.x + SIDE * j;
                bool seen = query < Lq && visible(query, key, Lk, causal);
                float w = seen ? expf(s[i][j] * scale - log_sums[of_head + query]) : 0;
                s[i][j] = seen ? w * (dw[i][j] - dots[of_head + query]) * scale : 0;
            }
        add_weighted(sums, s, keys, first_key);
    }
    store(dq, queries, q, first, sums);
}

// A block is a tile of keys, and goes over the queries, which take the other role in the tiles:
// dv_j = sum_i w_ij dy_i and dk_j = scale * sum_i ds_ij q_i.
extern "C" __global__ void __launch_bounds__(SIDE * SIDE)
attention_dk_dv(const scalar* dy, const scalar* q, const scalar* k, const scalar* v, const float* log_sums,
                const float* dots, scalar* dk, scalar* dv, int Lq, int Lk, int width, float scale, int causal) {
    Tokens dys = head_of(dy, Lq, width, gridDim.y), queries = head_of(q, Lq, width, gridDim.y);
    Tokens keys = head_of(k, Lk, width, gridDim.y), values = head_of(v, Lk, width, gridDim.y);
    int first = blockIdx.x * TILE, first_query = causal ? first : 0;
    long long of_head = ((long long)blockIdx.z * gridDim.y + blockIdx.y) * Lq;
    float dk_sums[EACH][SLICES] = {}, dv_sums[EACH][SLICES] = {}, s[EACH][EACH], dw[EACH][EACH];
    for (; first_query < Lq; first_query += TILE) {
        multiply_tokens(s, keys, first, queries, first_query);
        multiply_tokens(dw, values, first, dys, first_query);
        for (int j = 0; j < EACH; j++)
            for (int i = 0; i < EACH; i++) {
                int key = first + threadIdx.y + SIDE * j, query = first_query + threadIdx.x + SIDE * i;
                bool seen = query < Lq && visible(query, key, Lk, causal);
                s[j][i] = seen ? expf(s[j][i] * scale - log_sums[of_head + query]) : 0;
                dw[j][i] = seen ? s[j][i] * (dw[j][i] - dots[of_head + query]) * scale : 0;
            }
        add_weighted(dv_sums, s, dys, first_query);
        add_weighted(dk_sums, dw, queries, first_query);
    }
    store(dk, keys, k, first, dk_sums);
    store(dv, keys, k, first, dv_sums);
}
