// Upsampling, FIR filter and downsampling of images [N, C, H, W], as brgm_med/ops/upfirdn2d.py defines them.
//
// Along one axis, with f taps t, y[j] = sum_q x[q] t[q up + before - j down] over the q for which both exist: inserted
// zeros and padding are never read. A thread makes ROWS x COLUMNS neighbouring results of PACK neighbouring channels.
//
// Beside SCALAR and INDEX the macros are CHANNELS_LAST (1 where channels are neighbours in memory, else 0) and PACK,
// and for the instances whose loops unroll TAPS, UP, DOWN, ROWS and COLUMNS, the same along both axes.
#include "common.cuh"

#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

#ifndef TAPS
#define ROWS 1
#define COLUMNS 1
#endif

struct Axis {
    int size, results, taps, up, down, before;
    int origin;  // where the first tile begins, at most 0, so that every tile's first result meets tap 0
    int tiles;
};

struct Arguments {
    const SCALAR* x;
    const Wide* filter;  // [rows.taps, columns.taps]
    SCALAR* y;
    long long threads;
    long long x_strides[4], y_strides[4];
    Axis rows, columns;
    int channels;
    int flip;  // 1: correlate with the filter as it is; 0: convolve
    double gain;
};

HD INDEX offset(const long long* strides, INDEX image, INDEX channel, int row, int column) {
    return image * static_cast<INDEX>(strides[0]) + channel * static_cast<INDEX>(strides[1]) +
           static_cast<INDEX>(row) * static_cast<INDEX>(strides[2]) +
           static_cast<INDEX>(column) * static_cast<INDEX>(strides[3]);
}

HD int divide_down(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

HD Wide tap(const Arguments& arguments, int row, int column) {
    const int index = row * arguments.columns.taps + column;
    const int last = arguments.rows.taps * arguments.columns.taps - 1;
    return arguments.filter[arguments.flip ? index : last - index];
}

using Channels = Pack<SCALAR, PACK>;

struct Sums {
    Wide at[ROWS][COLUMNS][PACK];
};

HD const Channels& read(const Arguments& arguments, INDEX image, INDEX channel, int row, int column) {
    return *reinterpret_cast<const Channels*>(arguments.x + offset(arguments.x_strides, image, channel, row, column));
}

#ifdef TAPS
// A tile whose window of the image begins at tap 0: result r meets row k of the window with tap k UP - r DOWN.
HD void correlate(const Arguments& arguments, INDEX image, INDEX channel, int first_row, int first_column, Sums& sums) {
    constexpr int height = ((ROWS - 1) * DOWN + TAPS - 1) / UP + 1, width = ((COLUMNS - 1) * DOWN + TAPS - 1) / UP + 1;
    const int top = (first_row * DOWN - arguments.rows.before) / UP;  // without remainder, see Axis::origin
    const int left = (first_column * DOWN - arguments.columns.before) / UP;
    Wide taps[TAPS][TAPS];
    UNROLL
    for (int a = 0; a < TAPS; a++)
        UNROLL
        for (int b = 0; b < TAPS; b++) taps[a][b] = tap(arguments, a, b);
    UNROLL
    for (int k = 0; k < height; k++) {
        if (top + k < 0 || top + k >= arguments.rows.size) continue;
        UNROLL
        for (int l = 0; l < width; l++) {
            if (left + l < 0 || left + l >= arguments.columns.size) continue;
            const Channels values = read(arguments, image, channel, top + k, left + l);
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                const int a = k * UP - r * DOWN;
                if (a < 0 || a >= TAPS) continue;
                UNROLL
                for (int c = 0; c < COLUMNS; c++) {
                    const int b = l * UP - c * DOWN;
                    if (b < 0 || b >= TAPS) continue;
                    UNROLL
                    for (int p = 0; p < PACK; p++) sums.at[r][c][p] += taps[a][b] * widen(values.at[p]);
                }
            }
        }
    }
}
#else
struct Span {
    int first, last, tap;  // samples first..last of the image; the first of them meets `tap`, each next one `up` on
};

HD Span met(const Axis& axis, int result) {
    const int start = result * axis.down - axis.before;  // where tap 0 lies, counted in upsampled samples
    const int first = -divide_down(-start, axis.up), last = divide_down(start + axis.taps - 1, axis.up);
    const int from = first < 0 ? 0 : first;
    return {from, last < axis.size ? last : axis.size - 1, from * axis.up - start};
}

HD void correlate(const Arguments& arguments, INDEX image, INDEX channel, int row, int column, Sums& sums) {
    const Span rows = met(arguments.rows, row), columns = met(arguments.columns, column);
    for (int i = rows.first, a = rows.tap; i <= rows.last; i++, a += arguments.rows.up)
        for (int j = columns.first, b = columns.tap; j <= columns.last; j++, b += arguments.columns.up) {
            const Channels values = read(arguments, image, channel, i, j);
            const Wide weight = tap(arguments, a, b);
            for (int p = 0; p < PACK; p++) sums.at[0][0][p] += weight * widen(values.at[p]);
        }
}
#endif

HD void upfirdn2d_thread(const Arguments& arguments, INDEX thread) {
    if (thread >= static_cast<INDEX>(arguments.threads)) return;
    const INDEX packs = static_cast<INDEX>(arguments.channels / PACK);
    const INDEX across = static_cast<INDEX>(arguments.columns.tiles), down = static_cast<INDEX>(arguments.rows.tiles);
    INDEX pack = 0, column_tile = 0;  // neighbouring threads write neighbouring memory
    if (CHANNELS_LAST) {
        pack = thread % packs, thread /= packs;
        column_tile = thread % across, thread /= across;
    } else {
        column_tile = thread % across, thread /= across;
    }
    const INDEX row_tile = thread % down;
    thread /= down;
    if (!CHANNELS_LAST) pack = thread % packs, thread /= packs;

    const INDEX image = thread, channel = pack * PACK;
    const int first_row = static_cast<int>(row_tile) * ROWS + arguments.rows.origin;
    const int first_column = static_cast<int>(column_tile) * COLUMNS + arguments.columns.origin;
    Sums sums = {};
    correlate(arguments, image, channel, first_row, first_column, sums);
    UNROLL
    for (int r = 0; r < ROWS; r++)
        UNROLL
        for (int c = 0; c < COLUMNS; c++) {
            const int row = first_row + r, column = first_column + c;
            if (row < 0 || row >= arguments.rows.results || column < 0 || column >= arguments.columns.results) continue;
            Channels values;
            UNROLL
            for (int p = 0; p < PACK; p++)
                values.at[p] = narrow<SCALAR>(sums.at[r][c][p] * static_cast<Wide>(arguments.gain));
            *reinterpret_cast<Channels*>(arguments.y + offset(arguments.y_strides, image, channel, row, column)) = values;
        }
}

KERNEL(upfirdn2d, Arguments)
