// As `matmul`, with weights decoded on the way: lane l takes columns 8 l to 8 l + 7, then 256 on.
extern "C" __global__ void matmul_affine(const float* x, const unsigned char* w, Affine shape,
                                         u64 rows, u64 n, float* out) {
    const unsigned lane = threadIdx.x % WARP;
    const u64 k = shape.cols;
    const u64 tiles = (rows + TILE_ROWS - 1) / TILE_ROWS * n;
    for (u64 tile = first_warp(); tile < tiles; tile += warp_stride()) {
        const u64 j = tile % n, first = tile / n * TILE_ROWS;
        float sums[TILE_ROWS] = {};
        for (u64 i = 8 * lane; i < k; i += 8 * WARP) {
            float weights[8];
            affine_eight(shape, w + j * shape.row_bytes, i, weights);
#pragma unroll
            for (unsigned r = 0; r < TILE_ROWS; r++) {
                const u64 row = min(first + r, rows - 1);
                // Rows are whole groups, so multiples of 16 floats.
                const float4* four = (const float4*)(x + row * k + i);
                const float4 a = four[0], b = four[1];
                float sum = sums[r];
                sum = fmaf(a.x, weights[0], sum);
                sum = fmaf(a.y, weights[1], sum);
                sum = fmaf(a.z, weights[2], sum);
                sum = fmaf(a.w, weights[3], sum);
                sum = fmaf(b.x, weights[4], sum);
                sum = fmaf(b.y, weights[5], sum);
                sum = fmaf(b.z, weights[6], sum);
                sums[r] = fmaf(b.w, weights[7], sum);
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
