// Rows of a table [rows, width] at ids [count]; NaN for ids that point outside.
extern "C" __global__ void embed(const float* table, u64 rows, u64 width, const unsigned* ids,
                                 u64 count, float* out) {
    for (u64 at = first_element(); at < count * width; at += element_stride()) {
        const u64 id = ids[at / width];
        out[at] = id < rows ? table[id * width + at % width] : __int_as_float(0x7fc00000);
    }
}

// The same from a table of affine rows.
extern "C" __global__ void embed_affine(const unsigned char* table, Affine shape, u64 rows,
                                        const unsigned* ids, u64 count, float* out) {
    for (u64 at = first_element(); at < count * shape.cols; at += element_stride()) {
        const u64 id = ids[at / shape.cols];
        out[at] = id < rows
            ? affine_weight(shape, table + id * shape.row_bytes, at % shape.cols)
            : __int_as_float(0x7fc00000);
    }
}
