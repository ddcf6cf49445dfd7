// out = silu(gate) * up over len elements; Shazeer, arXiv:2002.05202.
extern "C" __global__ void swiglu(const float* gate, const float* up, u64 len, float* out) {
    for (u64 at = first_element(); at < len; at += element_stride()) {
        out[at] = silu_of(gate[at]) * up[at];
    }
}
