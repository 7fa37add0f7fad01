// Rows of a mini-batch from stored bytes.
#include "common.cuh"

// Where a row comes from: `PixelRow` of src/pixels.rs, as src/backend/cuda/pixels.rs writes it.
struct Row {
    const unsigned char* pixels;
    const u32* map;         // null: positions stay
    const float* tables;    // 256 numbers for each channel, or for all
    int tables_mirrored;    // twice their number, and 1 if columns are counted down from `left`
    int input_plane, input_width, width, top, left;
    int first_row, end_row, first_col, end_col;  // of the image, what is shown
};

// y[row][channel][position] for n rows of `size` numbers, `plane` positions in each channel. The grid covers
// the numbers of a row and the rows.
KERNEL void gather_pixels(float* y, const Row* rows, int n, int size, int plane) {
    for (int i = blockIdx.y; i < n; i += gridDim.y) {
        Row r = rows[i];
        int tables = r.tables_mirrored >> 1;
        bool mirrored = r.tables_mirrored & 1;
        for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < size; at += gridDim.x * blockDim.x) {
            int c = at / plane, p = at % plane, x = p % r.width;
            int row = r.top + p / r.width, col = mirrored ? r.left - x : r.left + x;
            u32 byte = 0;
            if (row >= r.first_row && row < r.end_row && col >= r.first_col && col < r.end_col) {
                u32 from = (u32)(row * r.input_width + col);
                if (r.map) from = r.map[from];
                if (from < (u32)r.input_plane) byte = r.pixels[(i64)c * r.input_plane + from];
            }
            y[(i64)i * size + at] = r.tables[(c < tables ? c : tables - 1) * 256 + (int)byte];
        }
    }
}
