// Displacements: products with one matrix an axis, determinants, compositions. semreg.core.kernels.contract has the words.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "cells.h"
#include "threads.h"

namespace semreg {
namespace SEMREG_VARIANT {

constexpr int64_t NUMBERS = 1 << 15;  // about so many in a block

inline int64_t rows_of(int64_t row) { return std::max<int64_t>(1, NUMBERS / std::max<int64_t>(row, 1)); }

// Which inputs an output sees: from the first to the last that is not 0.
struct Band {
  int64_t first, count;
};

template <class T>
std::vector<Band> bands_of(const semreg_matrix& of) {
  const T* const m = static_cast<const T*>(of.values);
  std::vector<Band> bands(of.outputs);
  for (int64_t o = 0; o < of.outputs; ++o) {
    const T* const row = m + o * of.row;
    int64_t first = 0, end = of.inputs;
    while (first < end && row[first * of.column] == 0) ++first;
    while (end > first && row[(end - 1) * of.column] == 0) --end;
    bands[o] = {first, end - first};
  }
  return bands;
}

constexpr int64_t ROW = 1024;

// out (count): the sum of `terms` rows, `after` numbers apart, each times its weight.
template <class T>
void add_rows(const T* w, int64_t column, const T* in, int64_t after, int64_t terms, int64_t count, T* out) {
  int64_t k = terms % 4;
  if (k == 0 && terms > 0) {  // a cubic spline sees four
    const T a = w[0], b = w[column], c = w[2 * column], d = w[3 * column];
    const T *const p = in, *const q = p + after, *const r = q + after, *const s = r + after;
    for (int64_t i = 0; i < count; ++i) out[i] = (a * p[i] + b * q[i]) + (c * r[i] + d * s[i]);
    k = 4;
  } else {
    std::fill(out, out + count, T(0));
    for (int64_t j = 0; j < k; ++j) {
      const T a = w[j * column];
      const T* const p = in + j * after;
      for (int64_t i = 0; i < count; ++i) out[i] += a * p[i];
    }
  }
  for (; k < terms; k += 4) {
    const T a = w[k * column], b = w[(k + 1) * column], c = w[(k + 2) * column], d = w[(k + 3) * column];
    const T *const p = in + k * after, *const q = p + after, *const r = q + after, *const s = r + after;
    for (int64_t i = 0; i < count; ++i) out[i] += (a * p[i] + b * q[i]) + (c * r[i] + d * s[i]);
  }
}

// y (before, outputs, after) from x (before, inputs, after).
template <class T>
int product_as(const semreg_matrix& of, const void* from, void* to) {
  const std::vector<Band> bands = bands_of<T>(of);
  const T *const m = static_cast<const T*>(of.values), *const x = static_cast<const T*>(from);
  T* const y = static_cast<T*>(to);
  in_blocks(of.before * of.outputs, rows_of(of.after), of.threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t b = at / of.outputs, o = at % of.outputs;
      const Band band = bands[o];
      const T* const w = m + o * of.row + band.first * of.column;
      const T* const in = x + (b * of.inputs + band.first) * of.after;
      T* const out = y + at * of.after;
      if (of.after == 1) {
        T sum = 0;
        for (int64_t k = 0; k < band.count; ++k) sum += w[k * of.column] * in[k];
        *out = sum;
        continue;
      }
      for (int64_t begin = 0; begin < of.after; begin += ROW) {  // so that the sums stay in the cache
        add_rows(w, of.column, in + begin, of.after, band.count, std::min(ROW, of.after - begin), out + begin);
      }
    }
  });
  return SEMREG_OK;
}

template <class T>
inline T determinant(const T (&m)[2][2]) {
  return m[0][0] * m[1][1] - m[0][1] * m[1][0];
}

template <class T>
inline T determinant(const T (&m)[3][3]) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

// Vectors (D, *S) in voxels.
template <class T, int D>
struct Vectors {
  int64_t shape[D], step[D], size = 1;
  const T* component[D];

  Vectors(const semreg_images& of, const void* values) {
    for (int a = D - 1; a >= 0; --a) {
      shape[a] = of.shape[a];
      step[a] = size;
      size *= shape[a];
    }
    for (int a = 0; a < D; ++a) component[a] = static_cast<const T*>(values) + a * size;
  }
  int64_t rows() const { return size / shape[D - 1]; }
  // Indices of a row along the axes before the last.
  void place(int64_t row, int64_t* index) const {
    for (int a = D - 2; a >= 0; --a) {
      index[a] = row % shape[a];
      row /= shape[a];
    }
  }
};

// The determinant of ∂(index + vox)/∂index by central differences: (D, *S) to (*S).
template <class T, int D>
int jacobian_as(const semreg_images& of, const void* vox, void* to) {
  const Vectors<T, D> v(of, vox);
  const int64_t columns = v.shape[D - 1];
  in_blocks(v.rows(), rows_of(columns), of.threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t row = first; row < last; ++row) {
      int64_t index[D] = {}, below[D] = {}, above[D] = {};
      v.place(row, index);
      for (int a = 0; a + 1 < D; ++a) {
        below[a] = index[a] > 0 ? -v.step[a] : 0;
        above[a] = index[a] + 1 < v.shape[a] ? v.step[a] : 0;
      }
      T* const out = static_cast<T*>(to) + row * columns;
      const auto at = [&](int64_t x, int64_t low, int64_t high) {
        T m[D][D];
        for (int i = 0; i < D; ++i) {
          const T* const p = v.component[i] + row * columns + x;
          for (int a = 0; a + 1 < D; ++a) m[i][a] = T(0.5) * (p[above[a]] - p[below[a]]);
          m[i][D - 1] = T(0.5) * (p[high] - p[low]);
          m[i][i] += 1;
        }
        out[x] = determinant(m);
      };
      at(0, 0, columns > 1 ? 1 : 0);
#pragma omp simd
      for (int64_t x = 1; x < columns - 1; ++x) at(x, -1, 1);
      if (columns > 1) at(columns - 1, -1, 0);
    }
  });
  return SEMREG_OK;
}

// The least determinant of the tetrahedra (triangles) of each cell, relative to their size: (D, *S) to (*S − 1).
// An axis of one sample counts as unchanging and as one cell. At most 1.
template <class T, int D>
int corners_as(const semreg_images& of, const void* vox, void* to) {
  const Vectors<T, D> v(of, vox);
  int64_t cells[D], step[D], rows = 1;
  bool whole = true;
  for (int a = 0; a < D; ++a) {
    cells[a] = std::max<int64_t>(1, v.shape[a] - 1);
    step[a] = v.shape[a] > 1 ? v.step[a] : 0;
    whole = whole && v.shape[a] > 1;
    rows *= a + 1 < D ? cells[a] : 1;
  }
  in_blocks(rows, rows_of(cells[D - 1]), of.threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t row = first; row < last; ++row) {
      int64_t rest = row, start = 0;
      for (int a = D - 2; a >= 0; --a) {
        start += rest % cells[a] * v.step[a];
        rest /= cells[a];
      }
      T* const out = static_cast<T*>(to) + row * cells[D - 1];
      for (int64_t begin = 0; begin < cells[D - 1]; begin += SOME) {
        const int count = static_cast<int>(std::min<int64_t>(SOME, cells[D - 1] - begin));
        const T* corner[1 << D][D];  // bit a of a corner's number: its side on axis a
        for (int c = 0; c < 1 << D; ++c) {
          int64_t at = start + begin;
          for (int a = 0; a < D; ++a) at += (c >> a & 1) * step[a];
          for (int i = 0; i < D; ++i) corner[c][i] = v.component[i] + at;
        }
        T least[SOME];
        std::fill(least, least + count, T(1));  // without deformation
        for (int c = 0; c < 1 << D; ++c) {
          const T *low[D][D], *high[D][D];
          for (int a = 0; a < D; ++a) {
            for (int i = 0; i < D; ++i) {
              low[i][a] = corner[c & ~(1 << a)][i];
              high[i][a] = corner[c | (1 << a)][i];
            }
          }
#pragma omp simd
          for (int k = 0; k < count; ++k) {
            T m[D][D];
            for (int a = 0; a < D; ++a)
              for (int i = 0; i < D; ++i) m[i][a] = high[i][a][k] - low[i][a][k] + T(i == a);
            const T found = determinant(m);
            least[k] = found < least[k] ? found : least[k];
          }
        }
        if constexpr (D == 3) {
          // the two between: of the corners whose sides add up to an even number, and to an odd one
          constexpr int OTHERS[2][4] = {{0, 3, 5, 6}, {7, 4, 2, 1}};
          for (int odd = 0; odd < (whole ? 2 : 0); ++odd) {
            const T *from[3], *other[3][3];
            T apart[3][3];
            for (int i = 0; i < 3; ++i) {
              from[i] = corner[OTHERS[odd][0]][i];
              for (int e = 0; e < 3; ++e) {
                other[i][e] = corner[OTHERS[odd][e + 1]][i];
                apart[i][e] = static_cast<T>((OTHERS[odd][e + 1] >> i & 1) - (OTHERS[odd][0] >> i & 1));
              }
            }
            const T size = odd ? T(0.5) : T(-0.5);
#pragma omp simd
            for (int k = 0; k < count; ++k) {
              T m[3][3];
              for (int i = 0; i < 3; ++i)
                for (int e = 0; e < 3; ++e) m[i][e] = other[i][e][k] - from[i][k] + apart[i][e];
              const T found = determinant(m) * size;
              least[k] = found < least[k] ? found : least[k];
            }
          }
        }
        std::copy(least, least + count, out + begin);
      }
    }
  });
  return SEMREG_OK;
}

// first + back · second at forth · (index + first): displacements (D, *S) and (D, *wide) in voxels of their grids.
template <class T, int D>
int compose_as(const semreg_images& of, const int64_t* wide, const double* forth, const double* back, const void* first,
               const void* second, void* to) {
  const Vectors<T, D> v(of, first);
  semreg_images other = of;
  for (int a = 0; a < D; ++a) other.shape[a] = wide[a];
  const Vectors<T, D> w(other, second);
  const int64_t columns = v.shape[D - 1];
  int64_t step[D];
  for (int a = 0; a < D; ++a) step[a] = w.shape[a] > 1 ? w.step[a] : 0;
  in_blocks(v.rows(), rows_of(columns), of.threads, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t index[D] = {};
      v.place(row, index);
      for (int64_t x = 0; x < columns; ++x) {
        index[D - 1] = x;
        const int64_t here = row * columns + x;
        T moved[D], fraction[D], more[D];
        for (int a = 0; a < D; ++a) moved[a] = static_cast<T>(index[a]) + v.component[a][here];
        int64_t low = 0;
        for (int a = 0; a < D; ++a) {
          T where = static_cast<T>(forth[a * (D + 1) + D]);
          for (int b = 0; b < D; ++b) where += static_cast<T>(forth[a * (D + 1) + b]) * moved[b];
          const T last = static_cast<T>(w.shape[a] - 1);
          const T within = where > 0 ? (where < last ? where : last) : T(0);  // what is no number is read at 0, and told below
          const T floored = std::floor(std::min(within, std::max(last - 1, T(0))));
          fraction[a] = where == where ? within - floored : where;
          low += static_cast<int64_t>(floored) * w.step[a];
        }
        for (int i = 0; i < D; ++i) {
          T unused[3];
          more[i] = Corners<T, D>(step, fraction).at(w.component[i] + low, unused[0], unused[1], unused[2]);
        }
        for (int i = 0; i < D; ++i) {
          T sum = v.component[i][here];
          for (int j = 0; j < D; ++j) sum += static_cast<T>(back[i * (D + 1) + j]) * more[j];
          static_cast<T*>(to)[i * v.size + here] = sum;
        }
      }
    }
  });
  return SEMREG_OK;
}

}  // namespace SEMREG_VARIANT
}  // namespace semreg
