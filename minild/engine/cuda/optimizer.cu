// AdamW's step and the moving average of the weights: every array is read once and written once.
//
// scalar is float or __half, defined ahead of this file.

// m <- m + (1 - beta1) (g - m);  v <- beta2 v + (1 - beta2) g^2;
// w <- w (1 - decay * decays) - rate * m / (sqrt(v) + eps), where rate and eps hold the corrections of the bias to zero.
extern "C" __global__ void adamw(const scalar* gradient, scalar* m, scalar* v, scalar* weights, const scalar* decays,
                                 float one_minus_beta1, float beta2, float one_minus_beta2, float rate, float eps,
                                 float decay, long long count) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        float g = float(gradient[i]);
        float first = float(m[i]) + one_minus_beta1 * (g - float(m[i]));
        float second = beta2 * float(v[i]) + one_minus_beta2 * g * g;
        m[i] = scalar(first), v[i] = scalar(second);
        weights[i] = scalar(float(weights[i]) * (1 - decay * float(decays[i])) - rate * first / (sqrtf(second) + eps));
    }
}

// average <- average + rate (weights - average).
extern "C" __global__ void move_average(scalar* average, const scalar* weights, float rate, long long count) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride)
        average[i] = scalar(float(average[i]) + rate * (float(weights[i]) - float(average[i])));
}
