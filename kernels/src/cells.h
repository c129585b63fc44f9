// Linear interpolation at scattered places and its derivative: the same as semreg.core.scattered, whose words hold.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "semreg_kernels.h"

namespace semreg {
namespace SEMREG_VARIANT {

// Half the width of the difference quotient in voxels.
constexpr double STEP = 1e-4;

// Where places may lie.
template <int D>
struct Lattice {
  int64_t shape[D], step[D], channels;

  explicit Lattice(const semreg_places& at) : channels(at.channels) {
    int64_t stride = 1;
    for (int a = D - 1; a >= 0; --a) {
      shape[a] = at.shape[a];
      step[a] = shape[a] > 1 ? stride * channels : 0;
      stride *= shape[a];
    }
  }
};

constexpr int SOME = 128;  // places whose cells are computed together

// Between which voxels some places lie.
template <class T, class I, int D>
struct Cells {
  int64_t row[SOME];     // of the lower corner, in numbers
  T fraction[D][SOME];
  T free[D][SOME];       // 1: not beyond the outer voxel centres, else 0
  int32_t near[SOME];    // whether some axis is so near a voxel centre that the cell beside counts

  Cells(const Lattice<D>& grid, const I* index, int64_t places, int64_t first, int count) {
    I low[SOME];
    for (int i = 0; i < count; ++i) row[i] = near[i] = 0;
    int64_t stride = grid.channels;
    for (int a = D - 1; a >= 0; --a) {
      const I* const where = index + a * places + first;
      const I last = static_cast<I>(grid.shape[a] - 1), top = last > 1 ? last - 1 : I(0);
      for (int i = 0; i < count; ++i) {
        // comparisons are false for what is not a number: then the corner is a valid one and the fraction is not a number
        const I x = where[i];
        const I above = x > 0 ? x : I(0), clamped = above < last ? above : last;
        const I floored = std::floor(clamped < top ? clamped : top);
        const T f = static_cast<T>((x == x ? clamped : x) - floored);
        const T half = f - T(0.5);
        low[i] = floored;
        fraction[a][i] = f;
        free[a][i] = clamped == x ? T(1) : T(0);
        near[i] |= (half < 0 ? -half : half) > T(0.5 - STEP) ? 1 : 0;
      }
      for (int i = 0; i < count; ++i) row[i] += static_cast<int64_t>(static_cast<int32_t>(low[i])) * stride;
      stride *= grid.shape[a];
    }
  }
};

// Values and slopes within a cell, channel by channel, written so that the compiler computes many channels at once.
template <class T, int D>
struct Corners;

template <class T>
struct Corners<T, 3> {
  const int64_t sz, sy, sx;
  const T fz, fy, fx;

  Corners(const int64_t* step, const T* f) : sz(step[0]), sy(step[1]), sx(step[2]), fz(f[0]), fy(f[1]), fx(f[2]) {}

  // The value of the channel whose lower corner is at r, and its slopes along the axes.
  T at(const T* r, T& dz, T& dy, T& dx) const {
    const T a000 = r[0], a010 = r[sy], a100 = r[sz], a110 = r[sz + sy];
    const T d00 = r[sx] - a000, d01 = r[sy + sx] - a010, d10 = r[sz + sx] - a100, d11 = r[sz + sy + sx] - a110;
    const T b00 = a000 + fx * d00, b01 = a010 + fx * d01, b10 = a100 + fx * d10, b11 = a110 + fx * d11;
    const T e0 = b01 - b00, e1 = b11 - b10;
    const T c0 = b00 + fy * e0, c1 = b10 + fy * e1;
    dz = c1 - c0;
    dy = e0 + fz * (e1 - e0);
    const T low = d00 + fy * (d01 - d00), high = d10 + fy * (d11 - d10);
    dx = low + fz * (high - low);
    return c0 + fz * dz;
  }
};

template <class T>
struct Corners<T, 2> {
  const int64_t sy, sx;
  const T fy, fx;

  Corners(const int64_t* step, const T* f) : sy(step[0]), sx(step[1]), fy(f[0]), fx(f[1]) {}

  T at(const T* r, T& dy, T& dx, T& none) const {
    const T d0 = r[sx] - r[0], d1 = r[sy + sx] - r[sy];
    const T b0 = r[0] + fx * d0, b1 = r[sy] + fx * d1;
    dy = b1 - b0;
    dx = d0 + fy * (d1 - d0);
    none = 0;
    return b0 + fy * dy;
  }
};

// Sums over the channels of `pull` times the slopes within the cell.
template <class T, int D>
inline void slopes(const Corners<T, D>& corner, const T* r, const T* pull, int64_t channels, T* own) {
  T o0 = 0, o1 = 0, o2 = 0;
#pragma omp simd reduction(+ : o0, o1, o2)
  for (int64_t c = 0; c < channels; ++c) {
    T d0, d1, d2;
    corner.at(r + c, d0, d1, d2);
    o0 += pull[c] * d0;
    o1 += pull[c] * d1;
    o2 += pull[c] * d2;
  }
  const T sums[3] = {o0, o1, o2};
  for (int a = 0; a < D; ++a) own[a] = sums[a];
}

// The slope in the index along each axis of what has the gradient `pull` (channels) in the values.
//
// `own` holds the slopes within the cell. On a voxel centre the slope is the mean of those on both sides, and within STEP
// of it a blend: the difference quotient over STEP to both sides, as over_steps says.
template <class T, class I, int D>
void finish(const Lattice<D>& grid, const Cells<T, I, D>& cells, int i, const T* rows, const T* pull, const T* own,
            const I* index, I* slope, int64_t places, int64_t p) {
  T fraction[D];
  for (int a = 0; a < D; ++a) fraction[a] = cells.fraction[a][i];
  for (int a = 0; a < D; ++a) {
    const I where = index[a * places + p], last = static_cast<I>(grid.shape[a] - 1);
    T result = own[a] * cells.free[a][i];
    const bool centred = std::abs(fraction[a] - T(0.5)) > T(0.5 - STEP);
    if (centred && where > I(-STEP) && where < last + I(STEP) && last > 0) {
      const I centre = std::nearbyint(where);
      const T above = static_cast<T>(I(0.5) + (where - centre) / I(2 * STEP));
      const bool upper = fraction[a] < T(0.5);  // the cell of the place is the one above the centre
      const int64_t way = upper ? (centre > 0 ? -grid.step[a] : 0) : (centre < last ? grid.step[a] : 0);
      T other[D] = {};  // 0 where there is no cell beside
      if (way != 0) {
        slopes<T, D>(Corners<T, D>(grid.step, fraction), rows + cells.row[i] + way, pull, grid.channels, other);
      }
      result = other[a] + (upper ? above : 1 - above) * (own[a] - other[a]);
    }
    slope[a * places + p] = static_cast<I>(result);
  }
}

}  // namespace SEMREG_VARIANT
}  // namespace semreg
