// What every kernel is written with: sizes, and sums whose order does not depend on anything.

typedef unsigned long long u64;

#define WARP 32u
#define EVERYONE 0xffffffffu
// Rows that share one read of a weight.
#define TILE_ROWS 4u

// The first element of this thread, and how far it is to its next one.
__device__ inline u64 first_element() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline u64 element_stride() { return (u64)gridDim.x * blockDim.x; }

// The same for warps.
__device__ inline u64 first_warp() { return first_element() / WARP; }
__device__ inline u64 warp_stride() { return element_stride() / WARP; }

// The sum over a warp, by a tree: the same bits in every lane.
__device__ inline float warp_sum(float x) {
    for (unsigned offset = WARP / 2; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(EVERYONE, x, offset);
    }
    return x;
}

// x / (1 + e^-x); Elfwing et al., arXiv:1702.03118.
__device__ inline float silu_of(float x) { return x / (1.0f + expf(-x)); }
