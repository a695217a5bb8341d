// Winograd's transforms of F(4 x 4, 3 x 3), as minild.engine.cpu.winograd derives them: M tile M^T, of a tile in registers.
//
// A thread takes one channel of one tile, neighbouring threads neighbouring channels. Transformed values stand as
// (36, tiles, C): a matrix for each of the 36. `count` is tiles * C, and tiles are counted across, down, by image.

#define FOR_EACH(i, count)                                                                 \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (count); \
         i += (long long)gridDim.x * blockDim.x)

// result (rows x rows) = matrix (rows x side) tile (side x side) matrix^T
template <int rows, int side>
__device__ void transform(const float* matrix, const float (&tile)[side][side], float (&result)[rows][rows]) {
    float half[rows][side];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < side; j++) {
            half[i][j] = 0;
            for (int k = 0; k < side; k++) half[i][j] += matrix[i * side + k] * tile[k][j];
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < rows; j++) {
            result[i][j] = 0;
            for (int k = 0; k < side; k++) result[i][j] += half[i][k] * matrix[j * side + k];
        }
}

// From the side x side pixels at every fourth pixel of x (N, H, W, C), which begins top rows and left columns late, to
// values (36, tiles, C). Outside of x are zeros.
template <int side>
__device__ void gather(const float* x, const float* matrix, float* values, int H, int W, int C, int top, int left,
                       int down, int across, long long count) {
    FOR_EACH(i, count) {
        int c = i % C, column = i / C % across, row = i / C / across % down;
        const float* image = x + i / C / across / down * H * W * C;
        float tile[side][side], result[6][6];
        for (int a = 0; a < side; a++)
            for (int b = 0; b < side; b++) {
                int h = 4 * row + a - top, w = 4 * column + b - left;
                bool inside = h >= 0 && h < H && w >= 0 && w < W;
                tile[a][b] = inside ? image[((long long)h * W + w) * C + c] : 0;
            }
        transform<6, side>(matrix, tile, result);
        for (int k = 0; k < 36; k++) values[k * count + i] = result[k / 6][k % 6];
    }
}

// V = B^T d B of the inputs d; b_t (6, 6).
extern "C" __global__ void winograd_inputs(const float* x, const float* b_t, float* V, int H, int W, int C, int top,
                                           int left, int down, int across, long long count) {
    gather<6>(x, b_t, V, H, W, C, top, left, down, across, count);
}

// dM = A dy A^T of the outputs' gradients; a (6, 4).
extern "C" __global__ void winograd_gradients(const float* dy, const float* a, float* dM, int H, int W, int C, int down,
                                              int across, long long count) {
    gather<4>(dy, a, dM, H, W, C, 0, 0, down, across, count);
}

// y (N, H, W, C) = A^T M A + bias, tile by tile; what is beyond the edge of y is dropped. a_t (4, 6).
extern "C" __global__ void winograd_outputs(const float* M, const float* a_t, const float* bias, float* y, int H, int W,
                                            int C, int down, int across, long long count) {
    FOR_EACH(i, count) {
        int c = i % C, column = i / C % across, row = i / C / across % down;
        float* image = y + i / C / across / down * H * W * C;
        float tile[6][6], result[4][4];
        for (int k = 0; k < 36; k++) tile[k / 6][k % 6] = M[k * count + i];
        transform<4, 6>(a_t, tile, result);
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < 4; b++) {
                int h = 4 * row + a, w = 4 * column + b;
                if (h < H && w < W) image[((long long)h * W + w) * C + c] = result[a][b] + bias[c];
            }
    }
}
