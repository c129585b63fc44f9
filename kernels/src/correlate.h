// Correlation of two images over all samples and in windows, and its derivative: semreg.distances.correlation has the words.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "compare.h"
#include "threads.h"

namespace semreg {
namespace SEMREG_VARIANT {

constexpr double FLAT = 1e-5;    // semreg.distances.correlation: share of the whole variance that counts as none
constexpr int64_t PLANES = 32;   // a block: what its windows see beyond it is computed twice

// What all samples of one channel say.
struct Moments {
  double weight = 0, fixed = 0, moving = 0;                // sum of the weights, means
  double fixed_square = 0, moving_square = 0, product = 0; // mean products of what deviates from the means
};

// Sums of values(first, last) over blocks, in their order.
template <int N, class Values>
void sum_blocks(int64_t count, int threads, double* sums, const Values& values) {
  std::vector<double> parts(N * ((count + PLACES - 1) / PLACES));
  in_blocks(count, PLACES, threads, [&](int64_t first, int64_t last, int64_t number) {
    values(first, last, parts.data() + N * number);
  });
  for (int i = 0; i < N; ++i) sums[i] = 0;
  for (size_t i = 0; i < parts.size(); ++i) sums[i % N] += parts[i];
}

template <class T>
Moments moments_of(const semreg_images& of, const T* fixed, const T* moving, const T* weight, int64_t places) {
  const int64_t channels = of.channels;
  Moments result;
  double sums[3];
  sum_blocks<3>(places, of.threads, sums, [&](int64_t first, int64_t last, double* own) {
    double w = 0, f = 0, m = 0;
    for (int64_t p = first; p < last; ++p) {
      const double share = weight ? weight[p] : 1;
      w += share;
      f += share * fixed[p * channels];
      m += share * moving[p * channels];
    }
    own[0] = w, own[1] = f, own[2] = m;
  });
  result.weight = std::max(sums[0], SMALL);
  result.fixed = sums[1] / result.weight;
  result.moving = sums[2] / result.weight;
  sum_blocks<3>(places, of.threads, sums, [&](int64_t first, int64_t last, double* own) {
    double ff = 0, mm = 0, fm = 0;
    for (int64_t p = first; p < last; ++p) {
      const double share = weight ? weight[p] : 1;
      const double f = fixed[p * channels] - result.fixed, m = moving[p * channels] - result.moving;
      ff += share * f * f;
      mm += share * m * m;
      fm += share * f * m;
    }
    own[0] = ff, own[1] = mm, own[2] = fm;
  });
  result.fixed_square = sums[0] / result.weight;
  result.moving_square = sums[1] / result.weight;
  result.product = sums[2] / result.weight;
  return result;
}

// 1 − correlation of one channel, and its derivative times `scale`.
template <class T>
double correlate_all(const semreg_images& of, const T* fixed, const T* moving, const T* weight, int64_t places,
                     double scale, T* slope) {
  const Moments all = moments_of(of, fixed, moving, weight, places);
  constexpr double small = SMALL * SMALL;
  const double size = std::sqrt((all.fixed_square + small) * (all.moving_square + small));
  const double correlation = (all.product + small) / size;
  const double share = -scale / all.weight;
  const T to_fixed = static_cast<T>(share / size), to_moving = static_cast<T>(-share * correlation / (all.moving_square + small));
  const T mean_fixed = static_cast<T>(all.fixed), mean_moving = static_cast<T>(all.moving);
  in_blocks(places, PLACES, of.threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t i = p * of.channels;
      const T pull = to_fixed * (fixed[i] - mean_fixed) + to_moving * (moving[i] - mean_moving);
      slope[i] = weight ? weight[p] * pull : pull;
    }
  });
  return 1 - correlation;
}

// The last planes of some fields, each summed over windows within the plane.
template <class T, int FIELDS>
struct Ring {
  const int64_t depth, size;
  std::vector<T> values;
  Ring(int64_t planes, int64_t numbers) : depth(planes), size(numbers), values(planes * FIELDS * numbers) {}
  T* at(int64_t plane, int field) { return values.data() + ((plane % depth) * FIELDS + field) * size; }
};

// Planes of an image, and sums over windows of 2 radius + 1 voxels an axis: of those that exist.
template <class T>
struct Windows {
  const int64_t planes, rows, columns, radius, size;
  std::vector<T> padded, along;  // a row with radius zeros on both sides; a plane of sums along its rows
  std::vector<T> inside;         // how many voxels of a plane each window holds

  Windows(int64_t nz, int64_t ny, int64_t nx, int64_t r)
      : planes(nz), rows(ny), columns(nx), radius(r), size(ny * nx), padded(nx + 2 * r), along(ny * nx), inside(ny * nx) {
    for (int64_t y = 0; y < ny; ++y)
      for (int64_t x = 0; x < nx; ++x) inside[y * nx + x] = static_cast<T>(count(y, ny) * count(x, nx));
  }

  int64_t first(int64_t at) const { return std::max<int64_t>(0, at - radius); }
  int64_t end(int64_t at, int64_t n) const { return std::min(n, at + radius + 1); }
  int64_t count(int64_t at, int64_t n) const { return end(at, n) - first(at); }

  // Sums of `plane` over windows within it, into `out`.
  void within(const T* plane, T* out) {
    for (int64_t y = 0; y < rows; ++y) {
      std::copy(plane + y * columns, plane + (y + 1) * columns, padded.begin() + radius);
      T* const to = along.data() + y * columns;
      const T* const from = padded.data();
      if (radius == 2) {  // the usual windows
        for (int64_t x = 0; x < columns; ++x) to[x] = ((from[x] + from[x + 1]) + (from[x + 2] + from[x + 3])) + from[x + 4];
      } else {
        std::copy(from, from + columns, to);
        for (int64_t k = 1; k <= 2 * radius; ++k)
          for (int64_t x = 0; x < columns; ++x) to[x] += from[x + k];
      }
    }
    for (int64_t y = 0; y < rows; ++y) {
      add([&](int64_t row) { return along.data() + row * columns; }, first(y), end(y, rows), columns, out + y * columns);
    }
  }

  // Sums over the planes around `plane`, into `out`.
  template <int FIELDS>
  void across(Ring<T, FIELDS>& ring, int field, int64_t plane, T* out) const {
    add([&](int64_t at) { return ring.at(at, field); }, first(plane), end(plane, planes), size, out);
  }

 private:
  template <class Part>
  static void add(const Part& part, int64_t from, int64_t to, int64_t count, T* out) {
    if (to - from == 5) {
      const T *a = part(from), *b = part(from + 1), *c = part(from + 2), *d = part(from + 3), *e = part(from + 4);
      for (int64_t i = 0; i < count; ++i) out[i] = ((a[i] + b[i]) + (c[i] + d[i])) + e[i];
      return;
    }
    const T* const one = part(from);
    std::copy(one, one + count, out);
    for (int64_t at = from + 1; at < to; ++at) {
      const T* const next = part(at);
      for (int64_t i = 0; i < count; ++i) out[i] += next[i];
    }
  }
};

// The correlation in windows of one channel: what one thread computes of some planes.
//
// With means over the window around p, weighted by w: c = (E[fm] − E[f]E[m] + flat) / √(vf vm), v = E[x²] − E[x]² + flat,
// and g the derivative of the value in c. A sample m_q is in all windows p around q:
// ∂/∂m_q = w_q Σ_p 1/N_p (a_p (f_q − E[f]_p) − b_p (m_q − E[m]_p)), a = g / √(vf vm), b = g c / vm, N the window's weight.
// So the derivative is four more sums over windows: of a/N, a/N E[f], b/N and b/N E[m].
template <class T, bool SQUARED>
struct LocalCorrelation {
  enum { W, F, M, FF, MM, FM, SEEN };
  enum { A, AF, B, BM, PULLED };
  // In double precision: where a window is constant, as most are beside a body, its variance is what rounding leaves of
  // a difference, and in single precision that is no longer small against what counts as flat.
  using S = double;
  const semreg_images& of;
  const T *fixed, *moving, *weight;
  const S mean_fixed, mean_moving, flat_fixed, flat_moving, flat;
  Windows<S> windows;
  Ring<S, SEEN> seen;
  Ring<S, PULLED> pulled;
  std::vector<S> plane, sums;
  double value = 0, to_flat = 0;  // of the planes that are finished: Σ w (1 − c), Σ g ∂c/∂flat_moving

  LocalCorrelation(const semreg_images& images, const T* f, const T* m, const T* w, const Moments& all, int64_t nz,
                   int64_t ny, int64_t nx)
      : of(images), fixed(f), moving(m), weight(w), mean_fixed(all.fixed), mean_moving(all.moving),
        flat_fixed(FLAT * all.fixed_square + SMALL * SMALL), flat_moving(FLAT * all.moving_square + SMALL * SMALL),
        flat(std::sqrt(flat_fixed) * std::sqrt(flat_moving)), windows(nz, ny, nx, images.radius),
        seen(2 * images.radius + 1, ny * nx), pulled(2 * images.radius + 1, ny * nx), plane(PULLED * ny * nx),
        sums(SEEN * ny * nx) {}

  void load(int64_t z) {
    const int64_t size = windows.size, from = z * size;
    S* const p = sums.data();
    for (int64_t i = 0; i < size; ++i) {
      const S f = fixed[(from + i) * of.channels] - mean_fixed, m = moving[(from + i) * of.channels] - mean_moving;
      const S share = weight ? weight[from + i] : S(1);
      p[W * size + i] = share;
      p[F * size + i] = share * f;
      p[M * size + i] = share * m;
      p[FF * size + i] = share * f * f;
      p[MM * size + i] = share * m * m;
      p[FM * size + i] = share * f * m;
    }
    for (int field = weight ? W : F; field < SEEN; ++field) windows.within(p + field * size, seen.at(z, field));
  }

  // The windows around plane z; `counted`: whether it is one of those that this thread counts.
  void compare(int64_t z, bool counted, double scale) {
    const int64_t size = windows.size, from = z * size;
    const S high = static_cast<S>(windows.count(z, windows.planes));
    for (int field = weight ? W : F; field < SEEN; ++field) windows.across(seen, field, z, sums.data() + field * size);
    const S* const s = sums.data();
    S* const p = plane.data();
    S total = 0, into_flat = 0;
#pragma omp simd reduction(+ : total, into_flat)
    for (int64_t i = 0; i < size; ++i) {
      const S voxels = windows.inside[i] * high, least = S(SMALL) * voxels;
      const S held = weight ? (s[W * size + i] > least ? s[W * size + i] : least) : voxels;
      const S n = 1 / held;
      const S f = s[F * size + i] * n, m = s[M * size + i] * n;
      const S vf = s[FF * size + i] * n - f * f, vm = s[MM * size + i] * n - m * m;
      const S known_f = (vf > 0 ? vf : S(0)) + flat_fixed, known_m = (vm > 0 ? vm : S(0)) + flat_moving;
      const S size_inverse = 1 / (std::sqrt(known_f) * std::sqrt(known_m));
      const S c = (s[FM * size + i] * n - f * m + flat) * size_inverse;
      const S share = weight ? weight[from + i] : S(1);
      const S g = -share * scale * (SQUARED ? 2 * c : S(1));
      const S a = g * size_inverse, b = g * c / known_m;
      const S an = a * n, bn = vm > 0 ? b * n : S(0);
      p[A * size + i] = an;
      p[AF * size + i] = an * f;
      p[B * size + i] = bn;
      p[BM * size + i] = bn * m;
      total += share * (1 - (SQUARED ? c * c : c));
      into_flat += a * flat - b * flat_moving;
    }
    if (counted) {
      value += total;
      to_flat += into_flat / (2 * flat_moving);
    }
    for (int field = 0; field < PULLED; ++field) windows.within(p + field * size, pulled.at(z, field));
  }

  void finish(int64_t z, T* slope) {
    const int64_t size = windows.size, from = z * size;
    S* const s = sums.data();
    for (int field = 0; field < PULLED; ++field) windows.across(pulled, field, z, s + field * size);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t at = (from + i) * of.channels;
      const S f = fixed[at] - mean_fixed, m = moving[at] - mean_moving;
      const S pull = f * s[A * size + i] - s[AF * size + i] - m * s[B * size + i] + s[BM * size + i];
      slope[at] = static_cast<T>(weight ? weight[from + i] * pull : pull);
    }
  }

  // Planes first to last: each is loaded, compared and finished as soon as what it needs is there.
  void run(int64_t first, int64_t last, double scale, T* slope) {
    int64_t compared = windows.first(first), loaded = windows.first(compared);
    for (int64_t z = first; z < last; ++z) {
      for (; compared < windows.end(z, windows.planes); ++compared) {
        for (; loaded < windows.end(compared, windows.planes); ++loaded) load(loaded);
        compare(compared, compared >= first && compared < last, scale);
      }
      finish(z, slope);
    }
  }
};

template <class T, bool SQUARED>
double correlate_windows(const semreg_images& of, const T* fixed, const T* moving, const T* weight, int64_t places,
                         double scale, T* slope) {
  // a picture is a stack of rows
  const int64_t nz = of.shape[0], ny = of.dimension == 3 ? of.shape[1] : 1, nx = of.shape[of.dimension - 1];
  const Moments all = moments_of(of, fixed, moving, weight, places);
  const double share = scale / all.weight;
  std::vector<double> parts(2 * ((nz + PLANES - 1) / PLANES));
  in_blocks(nz, PLANES, of.threads, [&](int64_t first, int64_t last, int64_t number) {
    LocalCorrelation<T, SQUARED> work(of, fixed, moving, weight, all, nz, ny, nx);
    work.run(first, last, share, slope);
    parts[2 * number] = work.value;
    parts[2 * number + 1] = work.to_flat;
  });
  double value = 0, to_flat = 0;
  for (size_t i = 0; i < parts.size(); i += 2) {
    value += parts[i];
    to_flat += parts[i + 1];
  }
  // what counts as flat is a share of the variance of the whole
  const T flat = static_cast<T>(2 * FLAT / all.weight * to_flat), mean = static_cast<T>(all.moving);
  in_blocks(places, PLACES, of.threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t p = first; p < last; ++p) {
      const T pull = flat * (moving[p * of.channels] - mean);
      slope[p * of.channels] += weight ? weight[p] * pull : pull;
    }
  });
  return value / all.weight;
}

template <class T>
int correlate_as(const semreg_images& of, int formula, const void* fixed, const void* moving, const void* weight,
                 double* value, void* slope) {
  int64_t places = 1;
  for (int a = 0; a < of.dimension; ++a) places *= of.shape[a];
  const double scale = 1.0 / of.channels;
  const T* const w = static_cast<const T*>(weight);
  double total = 0;
  for (int64_t c = 0; c < of.channels; ++c) {
    const T *f = static_cast<const T*>(fixed) + c, *m = static_cast<const T*>(moving) + c;
    T* const to = static_cast<T*>(slope) + c;
    switch (formula) {
      case SEMREG_NCC: total += correlate_all<T>(of, f, m, w, places, scale, to); break;
      case SEMREG_LNCC: total += correlate_windows<T, false>(of, f, m, w, places, scale, to); break;
      case SEMREG_LNCC_SQUARED: total += correlate_windows<T, true>(of, f, m, w, places, scale, to); break;
      default: return SEMREG_UNKNOWN;
    }
  }
  *value = total * scale;
  return SEMREG_OK;
}

}  // namespace SEMREG_VARIANT
}  // namespace semreg
