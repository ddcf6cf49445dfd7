// out = lhs op rhs over [rows, width]; op is a `BinaryOp`, layout an `Rhs` of elementwise.rs.
extern "C" __global__ void elementwise(unsigned op, unsigned layout, const float* lhs,
                                       const float* rhs, u64 rows, u64 width, float* out) {
    for (u64 at = first_element(); at < rows * width; at += element_stride()) {
        const u64 from = layout == 0 ? at : layout == 1 ? at % width : at / width;
        const float l = lhs[at], r = rhs[from];
        float y;
        switch (op) {
            case 0: y = l + r; break;
            case 1: y = l - r; break;
            case 2: y = l * r; break;
            case 3: y = l / r; break;
            // The right side if either is NaN.
            case 4: y = l > r ? l : r; break;
            default: y = l < r ? l : r; break;
        }
        out[at] = y;
    }
}
