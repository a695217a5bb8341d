// Runs CUDA kernels on the CPU: a std::thread for each thread of a block, the blocks of a grid one after the other.
#include <barrier>
#include <cmath>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // one block at a time
#define __launch_bounds__(...)

using std::max, std::min;
using __half = _Float16;

struct dim3 { unsigned x, y, z; };
struct Warp {
    std::barrier<> barrier;
    float values[32];
};
inline dim3 gridDim, blockDim;
inline thread_local dim3 blockIdx, threadIdx;
inline thread_local std::barrier<>* block_barrier;
inline thread_local Warp* warp;
inline thread_local int lane;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
    warp->values[lane] = value;
    warp->barrier.arrive_and_wait();
    float other = warp->values[lane ^ mask];
    warp->barrier.arrive_and_wait();  // all have read before the next call writes
    return other;
}

template <class... Parameters, std::size_t... I>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments, std::index_sequence<I...>) {
    gridDim = grid, blockDim = block;
    int threads = block.x * block.y * block.z;
    std::barrier<> barrier(threads);
    std::vector<std::unique_ptr<Warp>> warps;
    for (int first = 0; first < threads; first += 32) warps.emplace_back(new Warp{std::barrier<>(min(32, threads - first))});
    auto run = [&](unsigned t) {
        threadIdx = {t % block.x, t / block.x % block.y, t / block.x / block.y};
        block_barrier = &barrier, warp = warps[t / 32].get(), lane = t % 32;
        for (unsigned z = 0; z < grid.z; z++)
            for (unsigned y = 0; y < grid.y; y++)
                for (unsigned x = 0; x < grid.x; x++) {
                    blockIdx = {x, y, z};
                    kernel(*(std::remove_reference_t<Parameters>*)arguments[I]...);
                    barrier.arrive_and_wait();
                }
    };
    std::vector<std::jthread> team;
    for (int t = 0; t < threads; t++) team.emplace_back(run, t);
}

// One letter a parameter, for the caller to hold its arguments against.
template <class T> constexpr char letter() {
    using Element = std::remove_const_t<std::remove_pointer_t<T>>;
    if (std::is_pointer_v<T>) return std::is_same_v<Element, float> ? 'F' : std::is_same_v<Element, __half> ? 'H' : '?';
    return std::is_same_v<T, int> ? 'i' : std::is_same_v<T, long long> ? 'q' : std::is_same_v<T, float> ? 'f' : '?';
}
template <class... Parameters> const char* signature(void (*)(Parameters...)) {
    static const char letters[] = {letter<Parameters>()..., 0};
    return letters;
}
template <class... Parameters> void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments) {
    launch(kernel, grid, block, arguments, std::index_sequence_for<Parameters...>());
}

#define EXPORT(kernel)                                                          \
    extern "C" const char* signature_##kernel() { return signature(kernel); } \
    extern "C" void launch_##kernel(const unsigned* g, const unsigned* b, void** arguments) { \
        launch(kernel, dim3{g[0], g[1], g[2]}, dim3{b[0], b[1], b[2]}, arguments); \
    }
