// How far a spline compresses space: the determinants of its derivatives, and the way back to its coefficients.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "semreg_kernels.h"
#include "threads.h"

namespace semreg {
namespace SEMREG_VARIANT {

constexpr int TAPS = 4;        // control points that a place sees along an axis
constexpr int DERIVATIVES = 9; // of three components along three axes
constexpr int WIDE = 16;       // the same, as whole vectors

// The weights of one axis: at each place the first control point that it sees, and those of its derivatives.
template <class T>
struct SplineBand {
  std::vector<int64_t> first;
  std::vector<T> weights;  // (places, TAPS, WIDE)
  int64_t taps = 0;

  // `along`: the derivatives along which axis take the slopes, all others the values. False: a place sees too many.
  bool lay(const T* values, const T* slopes, int64_t places, int64_t controls, int along) {
    taps = std::min<int64_t>(TAPS, controls);
    first.assign(places, 0);
    weights.assign(places * TAPS * WIDE, T(0));
    for (int64_t p = 0; p < places; ++p) {
      const T *value = values + p * controls, *slope = slopes + p * controls;
      int64_t low = 0, high = controls;
      while (low < high && value[low] == 0 && slope[low] == 0) ++low;
      while (high > low && value[high - 1] == 0 && slope[high - 1] == 0) --high;
      if (high - low > taps) return false;
      low = std::min(low, controls - taps);
      first[p] = low;
      for (int64_t t = 0; t < taps; ++t)
        for (int k = 0; k < DERIVATIVES; ++k)
          weights[(p * TAPS + t) * WIDE + k] = (k / 3 == along ? slope : value)[low + t];
    }
    return true;
  }
};

template <class T>
inline void add_weighted(T* to, const T* from, const T* weights) {
#pragma omp simd
  for (int k = 0; k < WIDE; ++k) to[k] += from[k] * weights[k];
}

// The determinant of 1 + g, g[3 j + i] the derivative of component i along axis j, and its derivatives.
template <class T>
inline T determinant_of(const T* g, T* cofactor) {
  T m[3][3];  // rows: components
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) m[i][j] = g[3 * j + i] + T(i == j);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      const int a = (i + 1) % 3, b = (i + 2) % 3, c = (j + 1) % 3, d = (j + 2) % 3;
      cofactor[3 * j + i] = m[a][c] * m[b][d] - m[a][d] * m[b][c];
    }
  }
  return m[0][0] * cofactor[0] + m[0][1] * cofactor[3] + m[0][2] * cofactor[6];
}

template <class T>
struct Pressed {  // a place whose determinant is below the limit
  int64_t y, x;
  T slope[DERIVATIVES];
};

// One plane of places after the other: first along its own axis, then line by line. What is pressed is carried back in
// the end in the order of the places, so that sums do not depend on the number of threads.
template <class T>
int compression_as(const semreg_spline& of, double* value, void* pull) {
  const int64_t *n = of.controls, *places = of.places;
  SplineBand<T> bands[3];
  for (int a = 0; a < 3; ++a) {
    const T *values = static_cast<const T*>(of.values[a]), *slopes = static_cast<const T*>(of.slopes[a]);
    if (!bands[a].lay(values, slopes, places[a], n[a], a)) return SEMREG_UNKNOWN;
  }
  const int64_t size = n[0] * n[1] * n[2];
  const T* given = static_cast<const T*>(of.coefficients);
  std::vector<T> wide(size * WIDE, T(0));  // the components side by side, once for each axis
  for (int64_t c = 0; c < size; ++c)
    for (int k = 0; k < DERIVATIVES; ++k) wide[c * WIDE + k] = given[k % 3 * size + c];
  std::vector<std::vector<Pressed<T>>> pressed(places[0]);
  std::vector<double> sums(places[0], 0.0);
  in_blocks(places[0], 1, of.threads, [&](int64_t z, int64_t, int64_t) {
    std::vector<T> plane(n[1] * n[2] * WIDE, T(0)), line((n[2] + TAPS) * WIDE, T(0));  // a last control point has zeros beside it
    for (int64_t t = 0; t < bands[0].taps; ++t) {
      const T* from = &wide[(bands[0].first[z] + t) * n[1] * n[2] * WIDE];
      const T* weights = &bands[0].weights[(z * TAPS + t) * WIDE];
      for (int64_t c = 0; c < n[1] * n[2]; ++c) add_weighted(&plane[c * WIDE], from + c * WIDE, weights);
    }
    for (int64_t y = 0; y < places[1]; ++y) {
      std::fill(line.begin(), line.end(), T(0));
      for (int64_t t = 0; t < bands[1].taps; ++t) {
        const T* from = &plane[(bands[1].first[y] + t) * n[2] * WIDE];
        const T* weights = &bands[1].weights[(y * TAPS + t) * WIDE];
        for (int64_t c = 0; c < n[2]; ++c) add_weighted(&line[c * WIDE], from + c * WIDE, weights);
      }
      for (int64_t x = 0; x < places[2]; ++x) {
        T found[WIDE] = {}, cofactor[DERIVATIVES];
        const T* from = &line[bands[2].first[x] * WIDE];
        const T* weights = &bands[2].weights[x * TAPS * WIDE];
        for (int t = 0; t < TAPS; ++t) add_weighted(found, from + t * WIDE, weights + t * WIDE);
        const T determinant = determinant_of(found, cofactor);
        if (determinant >= static_cast<T>(of.limit)) continue;
        const T shortfall = static_cast<T>(of.limit) - determinant;  // what is no number is kept, and told by its sum
        sums[z] += static_cast<double>(shortfall) * static_cast<double>(shortfall);
        Pressed<T> place{y, x, {}};
        for (int k = 0; k < DERIVATIVES; ++k) place.slope[k] = -2 * shortfall * cofactor[k];
        pressed[z].push_back(place);
      }
    }
  });
  T* out = static_cast<T*>(pull);
  std::fill(out, out + 3 * size, T(0));
  *value = 0;
  for (int64_t z = 0; z < places[0]; ++z) {
    *value += sums[z];
    for (const Pressed<T>& place : pressed[z]) {
      for (int64_t a = 0; a < bands[0].taps; ++a) {
        for (int64_t b = 0; b < bands[1].taps; ++b) {
          T part[DERIVATIVES];
          const T* first = &bands[0].weights[(z * TAPS + a) * WIDE];
          const T* second = &bands[1].weights[(place.y * TAPS + b) * WIDE];
          for (int k = 0; k < DERIVATIVES; ++k) part[k] = place.slope[k] * first[k] * second[k];
          const int64_t at = ((bands[0].first[z] + a) * n[1] + bands[1].first[place.y] + b) * n[2] + bands[2].first[place.x];
          for (int64_t c = 0; c < bands[2].taps; ++c) {
            const T* third = &bands[2].weights[(place.x * TAPS + c) * WIDE];
            for (int i = 0; i < 3; ++i)
              out[i * size + at + c] += part[i] * third[i] + part[3 + i] * third[3 + i] + part[6 + i] * third[6 + i];
          }
        }
      }
    }
  }
  return SEMREG_OK;
}

}  // namespace SEMREG_VARIANT
}  // namespace semreg
