// Layer normalisation of x (rows, D) over D. A warp takes a row, threadIdx.x being the lane and threadIdx.y the warp.
//
// scalar is float or __half, defined ahead of this file.

// The sum over the warp, for each of its lanes: each adds what the lane 16, 8, 4, 2, 1 away has.
__device__ float warp_sum(float value) {
    for (int away = 16; away > 0; away /= 2) value += __shfl_xor_sync(0xffffffffu, value, away);
    return value;
}

// y = gamma * (x - mean) * rstd + beta; statistics (rows, 2): mean, rstd. The row is read again from the cache.
extern "C" __global__ void layer_norm(const scalar* x, const scalar* gamma, const scalar* beta, scalar* y,
                                      float* statistics, int rows, int D, float eps) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // the whole warp
    x += (long long)row * D, y += (long long)row * D;
    float sum = 0, squares = 0;
    for (int i = threadIdx.x; i < D; i += 32) sum += float(x[i]);
    float mean = warp_sum(sum) / D;
    for (int i = threadIdx.x; i < D; i += 32) squares += (float(x[i]) - mean) * (float(x[i]) - mean);
    float rstd = 1 / sqrtf(warp_sum(squares) / D + eps);
    for (int i = threadIdx.x; i < D; i += 32)
        y[i] = scalar((float(x[i]) - mean) * rstd * float(gamma[i]) + float(beta[i]));
    if (threadIdx.x == 0) statistics[2LL * row] = mean, statistics[2LL * row + 1] = rstd;
}

// dx = rstd * (gamma * dy - mean(gamma * dy) - xhat * mean(gamma * dy * xhat)).
extern "C" __global__ void layer_norm_differentiate(const scalar* dy, const scalar* x, const scalar* gamma,
                                                    const float* statistics, scalar* dx, int rows, int D) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    dy += (long long)row * D, x += (long long)row * D, dx += (long long)row * D;
    float mean = statistics[2LL * row], rstd = statistics[2LL * row + 1];
    float through_mean = 0, through_variance = 0;
    for (int i = threadIdx.x; i < D; i += 32) {
        float dxhat = float(gamma[i]) * float(dy[i]);
        through_mean += dxhat;
        through_variance += dxhat * ((float(x[i]) - mean) * rstd);
    }
    through_mean = warp_sum(through_mean) / D;
    through_variance = warp_sum(through_variance) / D;
    for (int i = threadIdx.x; i < D; i += 32) {
        float xhat = (float(x[i]) - mean) * rstd;
        dx[i] = scalar(rstd * (float(gamma[i]) * float(dy[i]) - through_mean - xhat * through_variance));
    }
}

// For each of D the sums over a chunk of rows of dy * xhat and of dy: partial (chunks, 2, D).
// A block of 32 x 8 threads takes 32 neighbouring columns; thread (i, j) every eighth row of column i.
extern "C" __global__ void layer_norm_sum_rows(const scalar* dy, const scalar* x, const float* statistics,
                                               float* partial, int rows, int D, int chunk) {
    __shared__ float sums[2][8][32];
    int column = blockIdx.x * 32 + threadIdx.x, last = min(rows, (int)(blockIdx.y + 1) * chunk);
    float dy_sum = 0, dy_xhat_sum = 0;
    for (int row = blockIdx.y * chunk + threadIdx.y; column < D && row < last; row += 8) {
        float xhat = (float(x[(long long)row * D + column]) - statistics[2LL * row]) * statistics[2LL * row + 1];
        dy_xhat_sum += float(dy[(long long)row * D + column]) * xhat;
        dy_sum += float(dy[(long long)row * D + column]);
    }
    sums[0][threadIdx.y][threadIdx.x] = dy_xhat_sum;
    sums[1][threadIdx.y][threadIdx.x] = dy_sum;
    __syncthreads();
    if (column < D && threadIdx.y < 2) {  // two of the eight warps add up one sum each
        float sum = 0;
        for (int j = 0; j < 8; j++) sum += sums[threadIdx.y][j][threadIdx.x];
        partial[(2LL * blockIdx.y + threadIdx.y) * D + column] = sum;
    }
}
