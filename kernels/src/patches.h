// The pairs of patches of MIND-SSC: semreg.core.kernels.contract has the words.
#pragma once
#include <algorithm>
#include <array>
#include <vector>

#include "correlate.h"
#include "threads.h"

namespace semreg {
namespace SEMREG_VARIANT {

using Offset = std::array<int64_t, 3>;

// Pairs of patches that lie `apart` from one another: compared once, and seen from each of the starts.
struct Pairs {
  Offset apart;
  std::vector<Offset> starts;
  std::vector<int64_t> channels;
};

// Neighbours along two different axes, by what lies between them: (a, b) as a under b − a, or as b under a − b.
inline std::vector<Pairs> pairs_of(int first_axis, int64_t dilation) {
  std::vector<Offset> neighbours;
  for (int axis = first_axis; axis < 3; ++axis) {
    for (int sign = -1; sign <= 1; sign += 2) {
      Offset at{};
      at[axis] = sign * dilation;
      neighbours.push_back(at);
    }
  }
  std::vector<Pairs> groups;
  int64_t count = 0;
  const auto add = [&](const Offset& apart, const Offset& start, bool make) {
    for (Pairs& group : groups) {
      if (group.apart == apart) return group.starts.push_back(start), true;
    }
    if (make) groups.push_back({apart, {start}, {}});
    return make;
  };
  for (size_t i = 0; i < neighbours.size(); ++i) {
    for (size_t j = i + 1; j < neighbours.size(); ++j) {
      if (i / 2 == j / 2) continue;  // opposite neighbours on one axis are not compared
      Offset apart, back;
      for (int a = 0; a < 3; ++a) {
        apart[a] = neighbours[j][a] - neighbours[i][a];
        back[a] = -apart[a];
      }
      if (!add(back, neighbours[j], false)) add(apart, neighbours[i], true);
    }
  }
  for (Pairs& group : groups) {
    for (size_t i = 0; i < group.starts.size(); ++i) group.channels.push_back(count++);
  }
  return groups;
}

// Work of one thread: sums over patches of the planes of one image.
template <class T>
struct Patches {
  const int64_t nz, ny, nx, rz, ry, rx;  // shape, and half widths of a patch: 0 along an axis that is not there
  std::vector<T> plane, along, ring, share_ring, sums, shares;

  Patches(int64_t z, int64_t y, int64_t x, int64_t radius, bool flat)
      : nz(z), ny(y), nx(x), rz(radius), ry(flat ? 0 : radius), rx(radius), plane(y * x), along(y * x),
        ring((2 * radius + 1) * y * x), share_ring(ring.size()), sums(y * x), shares(y * x) {}

  // Sums of `plane` (rows, columns) over patches within it, into (rows − 2 ry, columns − 2 rx) of `out`.
  void within(int64_t rows, int64_t columns, T* out) {
    const int64_t width = columns - 2 * rx, height = rows - 2 * ry;
    for (int64_t y = 0; y < rows; ++y) {
      const T* const from = plane.data() + y * columns;
      T* const to = along.data() + y * width;
      if (rx == 1) {
        for (int64_t x = 0; x < width; ++x) to[x] = from[x] + from[x + 1] + from[x + 2];
      } else {
        std::copy(from, from + width, to);
        for (int64_t k = 1; k <= 2 * rx; ++k)
          for (int64_t x = 0; x < width; ++x) to[x] += from[x + k];
      }
    }
    for (int64_t y = 0; y < height; ++y) add(along.data() + y * width, width, width, 2 * ry + 1, out + y * width);
  }

  // Sums of the planes in a ring from the one in the slot `first` on: in the order of the planes, so that a patch has
  // the same value wherever it lies.
  static void across(const std::vector<T>& ring, int64_t first, int64_t depth, int64_t numbers, T* out) {
    const auto slot = [&](int64_t k) { return ring.data() + (first + k) % depth * numbers; };
    if (depth == 3) {
      const T *const a = slot(0), *const b = slot(1), *const c = slot(2);
      for (int64_t i = 0; i < numbers; ++i) out[i] = a[i] + b[i] + c[i];
      return;
    }
    std::copy(slot(0), slot(0) + numbers, out);
    for (int64_t k = 1; k < depth; ++k) {
      const T* const next = slot(k);
      for (int64_t i = 0; i < numbers; ++i) out[i] += next[i];
    }
  }

  static void add(const T* from, int64_t step, int64_t count, int64_t planes, T* out) {
    if (planes == 3) {
      for (int64_t i = 0; i < count; ++i) out[i] = from[i] + from[i + step] + from[i + 2 * step];
      return;
    }
    std::copy(from, from + count, out);
    for (int64_t k = 1; k < planes; ++k)
      for (int64_t i = 0; i < count; ++i) out[i] += from[k * step + i];
  }
};

template <class T>
int patches_as(const semreg_images& of, int64_t dilation, const void* image_, const void* mask_, void* distances, void* known_) {
  // a picture is a stack of rows: its patches have one row
  const bool flat = of.dimension == 2;
  const int64_t nz = of.shape[0], ny = flat ? 1 : of.shape[1], nx = of.shape[of.dimension - 1], radius = of.radius;
  const int64_t halo = radius + dilation, iz = nz - 2 * halo, iy = flat ? 1 : ny - 2 * halo, ix = nx - 2 * halo;
  const T *const image = static_cast<const T*>(image_), *const mask = static_cast<const T*>(mask_);
  T *const to = static_cast<T*>(distances), *const known = static_cast<T*>(known_);
  std::vector<Pairs> groups = pairs_of(flat ? 1 : 0, dilation);
  if (flat) {  // its axes are the first and the last of three
    for (Pairs& group : groups) {
      group.apart = {group.apart[1], 0, group.apart[2]};
      for (Offset& start : group.starts) start = {start[1], 0, start[2]};
    }
  }
  const int64_t size = iz * iy * ix;
  in_blocks(iz, PLANES, of.threads, [&](int64_t first, int64_t last, int64_t) {
    Patches<T> work(nz, ny, nx, radius, flat);
    if (known) std::fill(known + first * iy * ix, known + last * iy * ix, T(1));
    for (const Pairs& group : groups) {
      const Offset& d = group.apart;
      // the planes of squared differences begin at `corner`: there and at corner + d is the image
      Offset corner, begin;
      for (int a = 0; a < 3; ++a) corner[a] = std::max<int64_t>(0, -d[a]);
      const int64_t rows = ny - std::abs(d[1]), columns = nx - std::abs(d[2]);
      const int64_t width = columns - 2 * work.rx, height = rows - 2 * work.ry, numbers = width * height;
      int64_t from = nz, until = 0;
      for (const Offset& s : group.starts) {
        from = std::min(from, first + halo + s[0] - corner[0] - work.rz);
        until = std::max(until, last + halo + s[0] - corner[0] - work.rz);
      }
      const int64_t depth = 2 * work.rz + 1;
      for (int64_t z = from; z < until + 2 * work.rz; ++z) {
        for (int share = mask ? 1 : 0; share >= 0; --share) {
          for (int64_t y = 0; y < rows; ++y) {
            const int64_t here = ((z + corner[0]) * ny + y + corner[1]) * nx + corner[2];
            const int64_t there = here + (d[0] * ny + d[1]) * nx + d[2];
            T* const row = work.plane.data() + y * columns;
            if (share) {
              for (int64_t x = 0; x < columns; ++x) row[x] = mask[here + x] * mask[there + x];
              continue;
            }
            for (int64_t x = 0; x < columns; ++x) {
              const T apart = image[here + x] - image[there + x];
              row[x] = mask ? mask[here + x] * mask[there + x] * (apart * apart) : apart * apart;
            }
          }
          work.within(rows, columns, (share ? work.share_ring : work.ring).data() + (z - from) % depth * numbers);
        }
        const int64_t at = z - 2 * work.rz;  // the plane of patches that is whole now
        if (at < from) continue;
        work.across(work.ring, (at - from) % depth, depth, numbers, work.sums.data());
        if (mask) work.across(work.share_ring, (at - from) % depth, depth, numbers, work.shares.data());
        for (size_t i = 0; i < group.starts.size(); ++i) {
          for (int a = 0; a < 3; ++a) begin[a] = (flat && a == 1 ? 0 : halo) + group.starts[i][a] - corner[a] - (flat && a == 1 ? 0 : radius);
          const int64_t plane = at - begin[0];
          if (plane < first || plane >= last) continue;
          const T factor = 1 / (static_cast<T>(depth) * static_cast<T>(2 * work.ry + 1) * static_cast<T>(2 * work.rx + 1));
          for (int64_t y = 0; y < iy; ++y) {
            const T* const sum = work.sums.data() + (y + begin[1]) * width + begin[2];
            T* const out = to + group.channels[i] * size + (plane * iy + y) * ix;
            if (!mask) {
              for (int64_t x = 0; x < ix; ++x) out[x] = sum[x] * factor;
              continue;
            }
            const T* const held = work.shares.data() + (y + begin[1]) * width + begin[2];
            T* const all = known + (plane * iy + y) * ix;
            for (int64_t x = 0; x < ix; ++x) {
              const bool any = held[x] > T(SMALL);
              out[x] = sum[x] / (any ? held[x] : T(SMALL));
              all[x] = any ? all[x] : T(0);
            }
          }
        }
      }
    }
  });
  return SEMREG_OK;
}

}  // namespace SEMREG_VARIANT
}  // namespace semreg
