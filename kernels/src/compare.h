// Reading, pulling and comparing features at scattered places.
#pragma once
#include <cmath>
#include <vector>

#include "cells.h"
#include "threads.h"

namespace semreg {
namespace SEMREG_VARIANT {

constexpr int64_t PLACES = 4096;  // a block: its results stay in the cache, its sums are added in order

// Formulas. `each`: the derivative in a channel follows from this channel alone, so all is done in one pass.
// Otherwise `whole` gets all channels at once. Values are without the share of the sample, derivatives with it.
struct L2 {
  static constexpr bool each = true;
  template <class T>
  static T value(T f, T m) { return (m - f) * (m - f); }
  template <class T>
  static T slope(T f, T m) { return 2 * (m - f); }
};

struct L1 {
  static constexpr bool each = true;
  template <class T>
  static T value(T f, T m) { return m > f ? m - f : f - m; }
  template <class T>
  static T slope(T f, T m) { return T(m > f) - T(m < f); }
};

struct DotProduct {
  static constexpr bool each = true;
  template <class T>
  static T value(T f, T m) { return -f * m; }
  template <class T>
  static T slope(T f, T) { return -f; }
};

constexpr double SMALL = 1e-6;    // semreg.distances.samples
constexpr double DAMPING = 0.1;   // semreg.distances.angles

// Cosine of two vectors, their lengths and whether neither is a zero vector.
template <class T>
struct Angle {
  T cosine, fixed, moving;
  bool both;

  Angle(const T* f, const T* m, int64_t n) {
    T ff = 0, mm = 0, fm = 0;
    for (int64_t c = 0; c < n; ++c) {
      ff += f[c] * f[c];
      mm += m[c] * m[c];
      fm += f[c] * m[c];
    }
    const bool known_f = ff > T(SMALL * SMALL), known_m = mm > T(SMALL * SMALL);
    both = known_f && known_m;
    fixed = known_f ? std::sqrt(ff) : T(1);
    moving = known_m ? std::sqrt(mm) : T(1);
    cosine = both ? fm / (fixed * moving) : T(known_f == known_m);
  }
  // The derivative of the cosine in one channel of m.
  T slope(T f, T m) const { return (f / fixed - m * cosine / moving) / moving * T(both); }
};

struct Cosine {
  static constexpr bool each = false;
  template <class T>
  static T whole(const T* f, const T* m, T* pull, int64_t n, T share) {
    const Angle<T> angle(f, m, n);
    for (int64_t c = 0; c < n; ++c) pull[c] = -share * angle.slope(f[c], m[c]);
    return 1 - angle.cosine;
  }
};

struct L1Cosine {
  static constexpr bool each = false;
  template <class T>
  static T whole(const T* f, const T* m, T* pull, int64_t n, T share) {
    const Angle<T> angle(f, m, n);
    T likeness = 0;
    for (int64_t c = 0; c < n; ++c) {
      pull[c] = std::exp(T(-DAMPING) * std::abs(m[c] - f[c]));
      likeness += pull[c];
    }
    likeness /= n;
    for (int64_t c = 0; c < n; ++c) {
      const T sign = T(m[c] > f[c]) - T(m[c] < f[c]);
      pull[c] = share * (T(DAMPING) / n * angle.cosine * pull[c] * sign - likeness * angle.slope(f[c], m[c]));
    }
    return 1 - angle.cosine * likeness;
  }
};

struct Dice {
  static constexpr bool each = false;
  template <class T>
  static T whole(const T* f, const T* m, T* pull, int64_t n, T share) {
    T apart = 0, size = 0;
    for (int64_t c = 0; c < n; ++c) {
      apart += (m[c] - f[c]) * (m[c] - f[c]);
      size += f[c] * f[c] + m[c] * m[c];
    }
    size += T(SMALL);
    const T term = apart / size, scale = 2 * share / size;
    for (int64_t c = 0; c < n; ++c) pull[c] = (m[c] - f[c] - term * m[c]) * scale;
    return term;
  }
};

// Work of one thread for one block: values and derivatives of a sample.
template <class T>
struct Scratch {
  std::vector<T> values, pull;
  explicit Scratch(int64_t channels) : values(channels), pull(channels) {}
};

// N: the number of channels where it is known when compiled, else 0.
template <class T, class I, int D, int N, class Formula>
double compare_block(const semreg_places& at, const T* fixed, const T* change, const T* share, I* slope, int64_t first,
                     int64_t last) {
  const Lattice<D> grid(at);
  const T* rows = static_cast<const T*>(at.rows);
  const I* index = static_cast<const I*>(at.index);
  const int64_t channels = N ? N : grid.channels;
  Scratch<T> scratch(channels);
  T* const values = scratch.values.data();
  T* const pull = scratch.pull.data();
  double total = 0;
  for (int64_t begin = first; begin < last; begin += SOME) {
    const int count = static_cast<int>(std::min<int64_t>(SOME, last - begin));
    const Cells<T, I, D> cells(grid, index, at.places, begin, count);
    for (int i = 0; i < count; ++i) {
      const int64_t p = begin + i;
      T fraction[D];
      for (int a = 0; a < D; ++a) fraction[a] = cells.fraction[a][i];
      const Corners<T, D> corner(grid.step, fraction);
      const T* r = rows + cells.row[i];
      const T* f = fixed + p * channels;
      T own[D], value = 0;
      if constexpr (Formula::each) {
        if (!cells.near[i] && !change) {
          T o0 = 0, o1 = 0, o2 = 0;
#pragma omp simd simdlen(4) reduction(+ : value, o0, o1, o2)
          for (int64_t c = 0; c < channels; ++c) {
            T d0, d1, d2;
            const T m = corner.at(r + c, d0, d1, d2);
            const T g = Formula::slope(f[c], m);
            value += Formula::value(f[c], m);
            o0 += g * d0;
            o1 += g * d1;
            o2 += g * d2;
          }
          const T sums[3] = {o0, o1, o2};
          for (int a = 0; a < D; ++a) slope[a * at.places + p] = static_cast<I>(share[p] * sums[a] * cells.free[a][i]);
          total += static_cast<double>(share[p]) * value;
          continue;
        }
      }
      const T* more = change ? change + p * channels : nullptr;
      for (int64_t c = 0; c < channels; ++c) {
        T d0, d1, d2;
        values[c] = corner.at(r + c, d0, d1, d2) + (more ? more[c] : T(0));
      }
      if constexpr (Formula::each) {
        for (int64_t c = 0; c < channels; ++c) {
          value += Formula::value(f[c], values[c]);
          pull[c] = share[p] * Formula::slope(f[c], values[c]);
        }
      } else {
        value = Formula::template whole<T>(f, values, pull, channels, share[p]);
      }
      slopes<T, D>(corner, r, pull, channels, own);
      finish<T, I, D>(grid, cells, i, rows, pull, own, index, slope, at.places, p);
      total += static_cast<double>(share[p]) * value;
    }
  }
  return total;
}

template <class T, class I, int D, int N, class Formula>
double compare_all(const semreg_places& at, const void* fixed, const void* change, const void* share, void* slope) {
  std::vector<double> parts((at.places + PLACES - 1) / PLACES);
  in_blocks(at.places, PLACES, at.threads, [&](int64_t first, int64_t last, int64_t number) {
    parts[number] = compare_block<T, I, D, N, Formula>(at, static_cast<const T*>(fixed), static_cast<const T*>(change),
                                                       static_cast<const T*>(share), static_cast<I*>(slope), first, last);
  });
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

template <class T, class I, int D>
int compare_as(const semreg_places& at, int formula, const void* fixed, const void* change, const void* share,
               double* value, void* slope) {
  switch (formula) {
    case SEMREG_L2:
      if constexpr (sizeof(T) == sizeof(float)) {
        constexpr int MIND = D == 3 ? 12 : 4;  // channels of MIND-SSC
        if (at.channels == MIND || at.channels == 1) {
          *value = at.channels == 1 ? compare_all<T, I, D, 1, L2>(at, fixed, change, share, slope)
                                    : compare_all<T, I, D, MIND, L2>(at, fixed, change, share, slope);
          return SEMREG_OK;
        }
      }
      *value = compare_all<T, I, D, 0, L2>(at, fixed, change, share, slope);
      return SEMREG_OK;
    case SEMREG_L1: *value = compare_all<T, I, D, 0, L1>(at, fixed, change, share, slope); return SEMREG_OK;
    case SEMREG_DOTPRODUCT:
      *value = compare_all<T, I, D, 0, DotProduct>(at, fixed, change, share, slope);
      return SEMREG_OK;
    case SEMREG_COSINE: *value = compare_all<T, I, D, 0, Cosine>(at, fixed, change, share, slope); return SEMREG_OK;
    case SEMREG_L1COSINE: *value = compare_all<T, I, D, 0, L1Cosine>(at, fixed, change, share, slope); return SEMREG_OK;
    case SEMREG_DICE: *value = compare_all<T, I, D, 0, Dice>(at, fixed, change, share, slope); return SEMREG_OK;
    default: return SEMREG_UNKNOWN;
  }
}

// Calls work(cells, number of the cell, place) for all places.
template <class T, class I, int D, class Work>
void for_places(const semreg_places& at, const Lattice<D>& grid, const Work& work) {
  in_blocks(at.places, PLACES, at.threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t begin = first; begin < last; begin += SOME) {
      const int count = static_cast<int>(std::min<int64_t>(SOME, last - begin));
      const Cells<T, I, D> cells(grid, static_cast<const I*>(at.index), at.places, begin, count);
      for (int i = 0; i < count; ++i) work(cells, i, begin + i);
    }
  });
}

template <class T, class I, int D>
int read_as(const semreg_places& at, void* out) {
  const Lattice<D> grid(at);
  for_places<T, I, D>(at, grid, [&](const Cells<T, I, D>& cells, int i, int64_t p) {
    T fraction[D];
    for (int a = 0; a < D; ++a) fraction[a] = cells.fraction[a][i];
    const Corners<T, D> corner(grid.step, fraction);
    const T* r = static_cast<const T*>(at.rows) + cells.row[i];
    T* to = static_cast<T*>(out) + p * grid.channels;
    for (int64_t c = 0; c < grid.channels; ++c) {
      T d0, d1, d2;
      to[c] = corner.at(r + c, d0, d1, d2);
    }
  });
  return SEMREG_OK;
}

template <class T, class I, int D>
int pull_as(const semreg_places& at, const void* gradient, void* slope) {
  const Lattice<D> grid(at);
  const T* rows = static_cast<const T*>(at.rows);
  for_places<T, I, D>(at, grid, [&](const Cells<T, I, D>& cells, int i, int64_t p) {
    T fraction[D], own[D];
    for (int a = 0; a < D; ++a) fraction[a] = cells.fraction[a][i];
    const T *pull = static_cast<const T*>(gradient) + p * grid.channels, *r = rows + cells.row[i];
    const Corners<T, D> corner(grid.step, fraction);
    if (grid.channels == 1) {
      slopes<T, D>(corner, r, pull, 1, own);  // without a loop
    } else {
      slopes<T, D>(corner, r, pull, grid.channels, own);
    }
    I* const to = static_cast<I*>(slope);
    if (cells.near[i]) {
      finish<T, I, D>(grid, cells, i, rows, pull, own, static_cast<const I*>(at.index), to, at.places, p);
    } else {
      for (int a = 0; a < D; ++a) to[a * at.places + p] = static_cast<I>(own[a] * cells.free[a][i]);
    }
  });
  return SEMREG_OK;
}

}  // namespace SEMREG_VARIANT
}  // namespace semreg
