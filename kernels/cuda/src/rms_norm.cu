// out = x * (mean(x^2) + eps)^-1/2 * (w + weight_offset), a warp for a row of [rows, width].
//
// Source: Zhang and Sennrich, arXiv:1910.07467, equation 4.
extern "C" __global__ void rms_norm(const float* x, const float* w, float eps,
                                    float weight_offset, u64 rows, u64 width, float* out) {
    const unsigned lane = threadIdx.x % WARP;
    for (u64 row = first_warp(); row < rows; row += warp_stride()) {
        const float* from = x + row * width;
        float squares = 0.0f;
        for (u64 c = lane; c < width; c += WARP) {
            squares = fmaf(from[c], from[c], squares);
        }
        const float inverse = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
        for (u64 c = lane; c < width; c += WARP) {
            out[row * width + c] = from[c] * inverse * (w[c] + weight_offset);
        }
    }
}
