// out = op(x) over len elements; op is a `UnaryOp` of unary.rs, by its factor or summand.
extern "C" __global__ void unary(unsigned op, float by, const float* x, u64 len, float* out) {
    for (u64 at = first_element(); at < len; at += element_stride()) {
        const float v = x[at];
        float y;
        switch (op) {
            case 0: y = -v; break;
            case 1: y = expf(v); break;
            case 2: y = logf(v); break;
            case 3: y = sqrtf(v); break;
            case 4: y = 1.0f / sqrtf(v); break;
            case 5: y = tanhf(v); break;
            case 6: y = 1.0f / (1.0f + expf(-v)); break;
            case 7: y = silu_of(v); break;
            case 8: {
                // Hendrycks and Gimpel, arXiv:1606.08415, section 2; the root is sqrt(2 / pi).
                const float inner = 0.797884560802865f * (v + 0.044715f * v * v * v);
                y = 0.5f * v * (1.0f + tanhf(inner));
                break;
            }
            case 9: y = cosf(v); break;
            case 10: y = sinf(v); break;
            case 11: y = v * by; break;
            default: y = v + by; break;
        }
        out[at] = y;
    }
}
