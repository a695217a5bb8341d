// Group normalisation of x (N, P, C): P pixels, C channels last, in groups of `width` neighbouring channels.
//
// A block takes one image, a tile of pixels and whole groups, so that neighbouring threads read neighbouring channels.
// Its threads are (row, group, lane): rows x groups x lanes of them, lanes <= width. A thread visits every rows-th
// pixel of the tile, and of its group every lanes-th channel.
//
// Where `silu` is set, SiLU follows: its forward is part of the last kernel's writing, and its backward of every reading
// of dy, which costs less than to keep an array for it.
//
// scalar is float or __half, defined ahead of this file.

__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }  // exp may be infinite: then this is 0

// What reaches the normalisation of dy: dy times the slope of what follows at `normed`.
__device__ float through_activation(float dy, float normed, int silu) {
    if (!silu) return dy;
    float gate = sigmoid(normed);
    return dy * gate * (1 + normed * (1 - gate));
}

struct Place {  // what the thread works on
    int rows, row, group, lanes, lane, width, first_pixel, last_pixel;
    int in_block, member, members;  // the group's number in the block; the thread's among the group's threads
    long long image;                // where the image starts in x
};

__device__ Place find_place(int P, int C, int width, int lanes, int tile) {
    Place a;
    int groups = blockDim.x / lanes;  // in a block
    a.rows = blockDim.y, a.row = threadIdx.y, a.lanes = lanes, a.lane = threadIdx.x % lanes, a.width = width;
    a.in_block = threadIdx.x / lanes;
    a.group = blockIdx.y * groups + a.in_block;
    a.member = a.row * lanes + a.lane, a.members = a.rows * lanes;
    a.first_pixel = blockIdx.x * tile, a.last_pixel = min(P, a.first_pixel + tile);
    a.image = (long long)blockIdx.z * P * C;
    return a;
}

// The sum over the group's threads, for each of them. Every thread of the block must call it.
__device__ float group_sum(float value, const Place& a) {
    __shared__ float of_block[1024];
    float* shared = of_block + a.in_block * a.members;
    shared[a.member] = value;
    for (int left = a.members; left > 1;) {  // fold the upper half onto the lower; an odd one in the middle waits
        int half = (left + 1) / 2;
        __syncthreads();
        if (a.member < left - half) shared[a.member] += shared[a.member + half];
        left = half;
    }
    __syncthreads();
    float sum = shared[0];
    __syncthreads();  // all have read it before the next call writes
    return sum;
}

// Of each tile and group: its mean, and the sum of squares around that mean. partial (N, tiles, G, 2).
// The tile is read twice, the second time from the cache. No large squares are subtracted from each other.
extern "C" __global__ void group_norm_tiles(const scalar* x, float* partial, int P, int C, int width, int lanes,
                                            int tile) {
    Place a = find_place(P, C, width, lanes, tile);
    bool inside = a.group * width < C;  // the last block may have threads for groups that are not there
    float sum = 0, squares = 0;
    for (int p = a.first_pixel + a.row; inside && p < a.last_pixel; p += a.rows)
        for (int c = a.lane; c < width; c += lanes) sum += float(x[a.image + (long long)p * C + a.group * width + c]);
    float mean = group_sum(sum, a) / ((a.last_pixel - a.first_pixel) * width);
    for (int p = a.first_pixel + a.row; inside && p < a.last_pixel; p += a.rows)
        for (int c = a.lane; c < width; c += lanes) {
            float centred = float(x[a.image + (long long)p * C + a.group * width + c]) - mean;
            squares += centred * centred;
        }
    squares = group_sum(squares, a);
    if (inside && a.member == 0) {
        float* out = partial + 2 * (((long long)blockIdx.z * gridDim.x + blockIdx.x) * (C / width) + a.group);
        out[0] = mean, out[1] = squares;
    }
}

// The tiles of a group put together: a block is one group of one image. With n_i elements in tile i, n in all,
// mean = sum n_i mean_i / n and n var = sum (squares_i + n_i (mean_i - mean)^2). statistics (N, G, 2): mean, 1/sqrt(var).
extern "C" __global__ void group_norm_statistics(const float* partial, float* statistics, int P, int width, int tiles,
                                                 int tile, float eps) {
    Place a = {};
    a.member = threadIdx.x, a.members = blockDim.x;
    int G = gridDim.x;
    const float* of_group = partial + 2 * ((long long)blockIdx.y * tiles * G + blockIdx.x);
    float sum = 0, squares = 0;
    for (int i = a.member; i < tiles; i += a.members) sum += of_group[2LL * i * G] * min(tile, P - i * tile);
    float mean = group_sum(sum, a) / P;
    for (int i = a.member; i < tiles; i += a.members) {
        float off = of_group[2LL * i * G] - mean;
        squares += of_group[2LL * i * G + 1] + off * off * min(tile, P - i * tile) * width;
    }
    squares = group_sum(squares, a);
    if (a.member == 0) {
        float* out = statistics + 2 * (blockIdx.y * G + blockIdx.x);
        out[0] = mean, out[1] = 1 / sqrtf(squares / ((float)P * width) + eps);
    }
}

// y = x * scale + shift, with scale and shift once for each thread and channel; or SiLU of it.
extern "C" __global__ void group_norm_normalise(const scalar* x, const scalar* gamma, const scalar* beta,
                                                const float* statistics, scalar* y, int silu, int P, int C, int width,
                                                int lanes, int tile) {
    Place a = find_place(P, C, width, lanes, tile);
    if (a.group * width >= C) return;
    const float* of_group = statistics + 2 * (blockIdx.z * (C / width) + a.group);
    float mean = of_group[0], rstd = of_group[1];
    for (int i = a.lane; i < width; i += lanes) {
        int c = a.group * width + i;
        float scale = rstd * float(gamma[c]), shift = float(beta[c]);
        for (int p = a.first_pixel + a.row; p < a.last_pixel; p += a.rows) {
            long long at = a.image + (long long)p * C + c;
            float normed = (float(x[at]) - mean) * scale + shift;
            y[at] = scalar(silu ? normed * sigmoid(normed) : normed);
        }
    }
}

// For each channel the sums over a tile of dy and of dy * xhat. partial (N, tiles, C, 2).
extern "C" __global__ void group_norm_channel_tiles(const scalar* dy, const scalar* x, const scalar* gamma,
                                                    const scalar* beta, const float* statistics, float* partial,
                                                    int silu, int P, int C, int width, int lanes, int tile) {
    Place a = find_place(P, C, width, lanes, tile);
    bool inside = a.group * width < C;
    const float* of_group = statistics + 2 * (blockIdx.z * (C / width) + (inside ? a.group : 0));
    float mean = of_group[0], rstd = of_group[1];
    Place channel = a;  // summed over is one channel: the threads of one lane
    channel.in_block = a.in_block * lanes + a.lane, channel.member = a.row, channel.members = a.rows;
    for (int i = 0; i < width; i += lanes) {
        int c = a.group * width + i + a.lane;
        bool mine = inside && i + a.lane < width;
        float scale = mine ? float(gamma[c]) : 0, shift = mine ? float(beta[c]) : 0;
        float dy_sum = 0, dy_xhat_sum = 0;
        for (int p = a.first_pixel + a.row; mine && p < a.last_pixel; p += a.rows) {
            long long at = a.image + (long long)p * C + c;
            float xhat = (float(x[at]) - mean) * rstd;
            float dnormed = through_activation(float(dy[at]), xhat * scale + shift, silu);
            dy_sum += dnormed;
            dy_xhat_sum += dnormed * xhat;
        }
        dy_sum = group_sum(dy_sum, channel);
        dy_xhat_sum = group_sum(dy_xhat_sum, channel);
        if (mine && a.row == 0) {
            float* out = partial + 2 * (((long long)blockIdx.z * gridDim.x + blockIdx.x) * C + c);
            out[0] = dy_sum, out[1] = dy_xhat_sum;
        }
    }
}

// The tiles put together: a block is one group of one image, its threads (row, lane) share tiles and channels.
// sums (N, 2, C) of each channel; means (N, G, 2) over the group of gamma * dy and of gamma * dy * xhat.
extern "C" __global__ void group_norm_means(const float* partial, const scalar* gamma, float* sums, float* means, int P,
                                            int width, int tiles) {
    Place whole = {}, channel = {};
    int lane = threadIdx.x, lanes = blockDim.x, row = threadIdx.y, rows = blockDim.y;
    int C = gridDim.x * width;
    whole.member = row * lanes + lane, whole.members = rows * lanes;
    channel.in_block = lane, channel.member = row, channel.members = rows;
    float through_mean = 0, through_variance = 0;
    for (int i = 0; i < width; i += lanes) {
        int c = blockIdx.x * width + i + lane;
        bool mine = i + lane < width;
        float dy_sum = 0, dy_xhat_sum = 0;
        for (int t = row; mine && t < tiles; t += rows) {
            const float* of_tile = partial + 2 * (((long long)blockIdx.y * tiles + t) * C + c);
            dy_sum += of_tile[0], dy_xhat_sum += of_tile[1];
        }
        dy_sum = group_sum(dy_sum, channel);
        dy_xhat_sum = group_sum(dy_xhat_sum, channel);
        if (mine && row == 0) {
            float* out = sums + 2LL * blockIdx.y * C + c;
            out[0] = dy_sum, out[C] = dy_xhat_sum;
            through_mean += float(gamma[c]) * dy_sum, through_variance += float(gamma[c]) * dy_xhat_sum;
        }
    }
    through_mean = group_sum(through_mean, whole);
    through_variance = group_sum(through_variance, whole);
    if (whole.member == 0) {
        float* out = means + 2 * (blockIdx.y * gridDim.x + blockIdx.x);
        float count = (float)P * width;
        out[0] = through_mean / count, out[1] = through_variance / count;
    }
}

// dx = rstd * (gamma * dy - mean(gamma * dy) - xhat * mean(gamma * dy * xhat)).
extern "C" __global__ void group_norm_differentiate(const scalar* dy, const scalar* x, const scalar* gamma,
                                                    const scalar* beta, const float* statistics, const float* means,
                                                    scalar* dx, int silu, int P, int C, int width, int lanes,
                                                    int tile) {
    Place a = find_place(P, C, width, lanes, tile);
    if (a.group * width >= C) return;
    int of_group = 2 * (blockIdx.z * (C / width) + a.group);
    float mean = statistics[of_group], rstd = statistics[of_group + 1];
    float through_mean = means[of_group], through_variance = means[of_group + 1];
    for (int i = a.lane; i < width; i += lanes) {
        int c = a.group * width + i;
        float scale = float(gamma[c]), shift = float(beta[c]);
        for (int p = a.first_pixel + a.row; p < a.last_pixel; p += a.rows) {
            long long at = a.image + (long long)p * C + c;
            float xhat = (float(x[at]) - mean) * rstd;
            float dnormed = through_activation(float(dy[at]), xhat * scale + shift, silu);
            dx[at] = scalar(rstd * (scale * dnormed - through_mean - xhat * through_variance));
        }
    }
}
