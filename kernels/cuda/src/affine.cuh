// Weights of `scale * (code - zero_point) + min`, a row after the other.
//
// A row is its codes (two in a byte, the first in the low half, if they have 4 bits), then
// cols / group scales, then as many minima where the format has them.

// The fields of `AffineShape` in affine.rs, in the same order.
struct Affine {
    u64 cols;
    u64 row_bytes;
    unsigned code_bits;
    unsigned group;
    unsigned zero_point;
    unsigned has_min;
};

__device__ inline const float* affine_scales(const Affine& shape, const unsigned char* row) {
    return (const float*)(row + shape.cols * shape.code_bits / 8);
}

__device__ inline float affine_min(const Affine& shape, const float* scales, u64 group) {
    return shape.has_min ? scales[shape.cols / shape.group + group] : 0.0f;
}

__device__ inline float affine_weight(const Affine& shape, const unsigned char* row, u64 col) {
    const unsigned code = shape.code_bits == 4 ? (row[col / 2] >> (col % 2 * 4)) & 15u : row[col];
    const float* scales = affine_scales(shape, row);
    const u64 group = col / shape.group;
    const float centered = (float)((int)code - (int)shape.zero_point);
    return fmaf(scales[group], centered, affine_min(shape, scales, group));
}

// Eight consecutive weights from `col`, a multiple of 8: they lie in one group.
__device__ inline void affine_eight(const Affine& shape, const unsigned char* row, u64 col,
                                    float out[8]) {
    const float* scales = affine_scales(shape, row);
    const u64 group = col / shape.group;
    const float scale = scales[group], min = affine_min(shape, scales, group);
    if (shape.code_bits == 4) {
        const unsigned codes = *(const unsigned*)(row + col / 2);
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
            const int code = (int)((codes >> (4 * i)) & 15u) - (int)shape.zero_point;
            out[i] = fmaf(scale, (float)code, min);
        }
    } else {
        const unsigned* words = (const unsigned*)(row + col);
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
            const int code = (int)((words[i / 4] >> (8 * (i % 4))) & 255u) - (int)shape.zero_point;
            out[i] = fmaf(scale, (float)code, min);
        }
    }
}
