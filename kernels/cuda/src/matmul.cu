// out[r, j] = sum over i of x[r, i] * w[j, i]: a warp for a column and TILE_ROWS rows.
//
// Lane l sums i = l, l + 32, ..; `fmaf` by name, so that every row rounds in the same places.
extern "C" __global__ void matmul(const float* x, const float* w, u64 rows, u64 n, u64 k,
                                  float* out) {
    const unsigned lane = threadIdx.x % WARP;
    const u64 tiles = (rows + TILE_ROWS - 1) / TILE_ROWS * n;
    for (u64 tile = first_warp(); tile < tiles; tile += warp_stride()) {
        const u64 j = tile % n, first = tile / n * TILE_ROWS;
        float sums[TILE_ROWS] = {};
        for (u64 i = lane; i < k; i += WARP) {
            const float weight = w[j * k + i];
#pragma unroll
            for (unsigned r = 0; r < TILE_ROWS; r++) {
                const u64 row = min(first + r, rows - 1);
                sums[r] = fmaf(x[row * k + i], weight, sums[r]);
            }
        }
#pragma unroll
        for (unsigned r = 0; r < TILE_ROWS; r++) {
            const float sum = warp_sum(sums[r]);
            if (lane == 0 && first + r < rows) {
                out[(first + r) * n + j] = sum;
            }
        }
    }
}
