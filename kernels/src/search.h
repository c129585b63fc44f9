// Costs of candidates, and the choice among them.
#pragma once
#include <vector>

#include "semreg_kernels.h"
#include "threads.h"

namespace semreg {
namespace SEMREG_VARIANT {

constexpr int64_t TOGETHER = 16;  // candidates whose costs are written together: a line of the cache each node
constexpr int64_t NODES = 512;    // nodes that choose together

// Means over 3 nodes along each axis, over those that exist. x, y: nodes as (outer, n, inner).
template <class T>
void mean_of_three(const T* x, T* y, int64_t outer, int64_t n, int64_t inner) {
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < n; ++i) {
      const T* here = x + (o * n + i) * inner;
      T* to = y + (o * n + i) * inner;
      const bool before = i > 0, after = i + 1 < n;
      const T share = T(1) / (1 + before + after);
      if (before && after) {
        for (int64_t k = 0; k < inner; ++k) to[k] = (here[k - inner] + here[k] + here[k + inner]) * share;
      } else if (before) {
        for (int64_t k = 0; k < inner; ++k) to[k] = (here[k - inner] + here[k]) * share;
      } else if (after) {
        for (int64_t k = 0; k < inner; ++k) to[k] = (here[k] + here[k + inner]) * share;
      } else {
        for (int64_t k = 0; k < inner; ++k) to[k] = here[k];
      }
    }
  }
}

// In place; `spare` is as large as x.
template <class T>
void smoothed(std::vector<T>& x, std::vector<T>& spare, const int64_t (&shape)[3], int passes) {
  for (int pass = 0; pass < passes; ++pass) {
    for (int axis = 0; axis < 3; ++axis) {
      if (shape[axis] == 1) continue;
      int64_t outer = 1, inner = 1;
      for (int a = 0; a < axis; ++a) outer *= shape[a];
      for (int a = axis + 1; a < 3; ++a) inner *= shape[a];
      mean_of_three(x.data(), spare.data(), outer, shape[axis], inner);
      x.swap(spare);
    }
  }
}

// A problem in 2-D or 3-D, as one in 3-D.
template <class T>
struct Search {
  const semreg_costs& how;
  int64_t shape[3], wide[3], widths[3], stride[3], nodes = 1, samples = 1;
  const T *near, *far, *near_weight, *far_weight;

  explicit Search(const semreg_costs& given)
      : how(given),
        near(static_cast<const T*>(given.near)),
        far(static_cast<const T*>(given.far)),
        near_weight(static_cast<const T*>(given.near_weight)),
        far_weight(static_cast<const T*>(given.far_weight)) {
    const int missing = 3 - how.dimension;
    for (int a = 0; a < 3; ++a) {
      const bool there = a >= missing;
      shape[a] = there ? how.shape[a - missing] : 1;
      wide[a] = there ? how.wide[a - missing] : 1;
      widths[a] = there ? how.widths[a - missing] : 0;
      stride[a] = there ? how.stride : 1;
      nodes *= shape[a];
      samples *= wide[a];
    }
  }

  bool weighted() const { return near_weight || far_weight; }

  // Where the far side of the first node of a row lies.
  int64_t start(int64_t candidate, int64_t z, int64_t y) const {
    const int missing = 3 - how.dimension;
    int64_t o[3] = {0, 0, 0};
    for (int a = missing; a < 3; ++a) o[a] = how.offsets[candidate * how.dimension + a - missing];
    const int64_t fz = widths[0] + o[0] + z * stride[0], fy = widths[1] + o[1] + y * stride[1];
    return (fz * wide[1] + fy) * wide[2] + widths[2] + o[2];
  }

  // Costs of one candidate at all nodes, times their weights where there are any.
  void costs(int64_t candidate, std::vector<T>& cost, std::vector<T>& weight) const {
    const int64_t n = shape[2], s = stride[2];
    for (int64_t z = 0; z < shape[0]; ++z) {
      for (int64_t y = 0; y < shape[1]; ++y) {
        const int64_t here = (z * shape[1] + y) * n, there = start(candidate, z, y);
        T* to = cost.data() + here;
        for (int64_t x = 0; x < n; ++x) to[x] = 0;
        for (int64_t c = 0; c < how.channels; ++c) {
          const T* a = near + c * nodes + here;
          const T* b = far + c * samples + there;
          if (s == 1) {
            for (int64_t x = 0; x < n; ++x) to[x] += (b[x] - a[x]) * (b[x] - a[x]);
          } else {
            for (int64_t x = 0; x < n; ++x) to[x] += (b[x * s] - a[x]) * (b[x * s] - a[x]);
          }
        }
        if (weighted()) {
          T* w = weight.data() + here;
          for (int64_t x = 0; x < n; ++x) {
            w[x] = (near_weight ? near_weight[here + x] : T(1)) * (far_weight ? far_weight[there + x * s] : T(1));
            to[x] *= w[x];
          }
        }
      }
    }
  }
};

template <class T>
int cost_volume_as(const semreg_costs& how, void* total, int64_t row, int64_t column) {
  const Search<T> search(how);
  T* const out = static_cast<T*>(total);
  double unseen = 0;
  if (search.weighted()) {  // the same for all candidates, so it comes first
    std::vector<double> costs(how.counted), shares(how.counted);
    in_blocks(how.counted, 1, how.threads, [&](int64_t k, int64_t, int64_t) {
      std::vector<T> cost(search.nodes), weight(search.nodes);
      search.costs(k, cost, weight);
      for (int64_t i = 0; i < search.nodes; ++i) {
        costs[k] += cost[i];
        shares[k] += weight[i];
      }
    });
    double cost = 0, share = 0;
    for (int64_t k = 0; k < how.counted; ++k) {
      cost += costs[k];
      share += shares[k];
    }
    unseen = how.unseen * cost / std::max(share, how.unseen);
  }
  in_blocks(how.candidates, TOGETHER, how.threads, [&](int64_t first, int64_t last, int64_t) {
    std::vector<std::vector<T>> found(last - first, std::vector<T>(search.nodes));
    std::vector<T> spare(search.nodes), weight(search.weighted() ? search.nodes : 0);
    for (int64_t k = first; k < last; ++k) {
      std::vector<T>& cost = found[k - first];
      search.costs(k, cost, weight);
      smoothed(cost, spare, search.shape, how.smoothing);
      if (search.weighted()) {
        smoothed(weight, spare, search.shape, how.smoothing);
        for (int64_t i = 0; i < search.nodes; ++i) cost[i] = (cost[i] + T(unseen)) / (weight[i] + T(how.unseen));
      }
    }
    const T factor = static_cast<T>(how.factor);
    const auto put = [&](int64_t i, int64_t k) {
      T& to = out[i * row + (first + k) * column];
      to = factor * found[k][i] + (how.add ? to : T(0));
    };
    if (column < row) {
      for (int64_t i = 0; i < search.nodes; ++i)
        for (int64_t k = 0; k < last - first; ++k) put(i, k);
    } else {
      for (int64_t k = 0; k < last - first; ++k)
        for (int64_t i = 0; i < search.nodes; ++i) put(i, k);
    }
  });
  return SEMREG_OK;
}

template <class T>
int choice_as(int dimension, int threads, int64_t nodes, int64_t candidates, const void* cost, const void* offsets,
              const void* soft, double weight, int64_t* best) {
  const T* const o = static_cast<const T*>(offsets);
  const T* const s = static_cast<const T*>(soft);
  std::vector<T> squares(candidates);
  for (int a = 0; a < dimension; ++a)
    for (int64_t k = 0; k < candidates; ++k) squares[k] += static_cast<T>(weight) * o[a * candidates + k] * o[a * candidates + k];
  in_blocks(nodes, NODES, threads, [&](int64_t first, int64_t last, int64_t) {
    std::vector<T> sums(candidates);
    for (int64_t i = first; i < last; ++i) {
      const T* c = static_cast<const T*>(cost) + i * candidates;
      T pull[3] = {};
      for (int a = 0; a < dimension; ++a) pull[a] = static_cast<T>(-2 * weight) * s[a * nodes + i];
      const T *o0 = o, *o1 = o + candidates, *o2 = dimension == 3 ? o + 2 * candidates : o;
      T* const sum = sums.data();
      for (int64_t k = 0; k < candidates; ++k)
        sum[k] = c[k] + (pull[0] * o0[k] + pull[1] * o1[k] + pull[2] * o2[k]) + squares[k];
      T least = sum[0];
      for (int64_t k = 1; k < candidates; ++k) least = sum[k] < least ? sum[k] : least;
      int64_t k = 0;
      while (k + 1 < candidates && !(sum[k] == least)) ++k;
      best[i] = k;
    }
  });
  return SEMREG_OK;
}

}  // namespace SEMREG_VARIANT
}  // namespace semreg
