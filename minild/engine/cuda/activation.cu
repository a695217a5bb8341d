// Activations, element by element; the grid's threads stride over all elements.
//
// scalar is float or __half, defined ahead of this file.

#define FOR_EACH(i, count)                                                                 \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (count); \
         i += (long long)gridDim.x * blockDim.x)

__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }  // exp may be infinite: then this is 0

// The normal distribution function, by erfc: 1 + erf would lose all digits far to the left.
__device__ float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678f * x); }

__device__ float gelu_slope(float x) { return normal_cdf(x) + x * 0.39894228f * expf(-0.5f * x * x); }

// y = x * sigmoid(sharpness * x): SiLU and CLIP's quick GELU.
extern "C" __global__ void gated(const scalar* x, scalar* y, float sharpness, long long count) {
    FOR_EACH(i, count) y[i] = scalar(float(x[i]) * sigmoid(sharpness * float(x[i])));
}

extern "C" __global__ void gated_backward(const scalar* dy, const scalar* x, scalar* dx, float sharpness,
                                          long long count) {
    FOR_EACH(i, count) {
        float gate = sigmoid(sharpness * float(x[i]));
        dx[i] = scalar(float(dy[i]) * gate * (1 + sharpness * float(x[i]) * (1 - gate)));
    }
}

extern "C" __global__ void gelu(const scalar* x, scalar* y, long long count) {
    FOR_EACH(i, count) y[i] = scalar(float(x[i]) * normal_cdf(float(x[i])));
}

extern "C" __global__ void gelu_backward(const scalar* dy, const scalar* x, scalar* dx, long long count) {
    FOR_EACH(i, count) dx[i] = scalar(float(dy[i]) * gelu_slope(float(x[i])));
}

// x (rows, 2D) holds hidden and gate side by side; y (rows, D) = hidden * gelu(gate). count = rows * D.
extern "C" __global__ void geglu(const scalar* x, scalar* y, int D, long long count) {
    FOR_EACH(i, count) {
        const scalar* hidden = x + i + i / D * D;  // each row before this one is D longer than in y
        float gate = float(hidden[D]);
        y[i] = scalar(float(hidden[0]) * gate * normal_cdf(gate));
    }
}

extern "C" __global__ void geglu_backward(const scalar* dy, const scalar* x, scalar* dx, int D, long long count) {
    FOR_EACH(i, count) {
        long long at = i + i / D * D;
        float hidden = float(x[at]), gate = float(x[at + D]), d = float(dy[i]);
        dx[at] = scalar(d * gate * normal_cdf(gate));
        dx[at + D] = scalar(d * hidden * gelu_slope(gate));
    }
}
