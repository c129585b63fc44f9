// All functions for one instruction set. Compiled once for each, under another name.
#include "variant.h"

#include "compare.h"
#include "compression.h"
#include "correlate.h"
#include "fields.h"
#include "patches.h"
#include "search.h"

namespace semreg {
namespace SEMREG_VARIANT {
namespace {

// Calls `Call<T, I, D>` for the types and the dimension that are told.
#define SEMREG_FOR_TYPES(call, at, ...)                                                                  \
  do {                                                                                                   \
    const int code = (at).dimension * 4 + (at).table_type * 2 + (at).index_type;                         \
    switch (code) {                                                                                      \
      case 8: return call<float, float, 2>(__VA_ARGS__);                                                 \
      case 11: return call<double, double, 2>(__VA_ARGS__);                                              \
      case 12: return call<float, float, 3>(__VA_ARGS__);                                                \
      case 15: return call<double, double, 3>(__VA_ARGS__);                                              \
      default: return static_cast<int>(SEMREG_UNKNOWN);                                                  \
    }                                                                                                    \
  } while (0)

int read(const semreg_places& at, void* values) { SEMREG_FOR_TYPES(read_as, at, at, values); }

int pull(const semreg_places& at, const void* gradient, void* slope) {
  SEMREG_FOR_TYPES(pull_as, at, at, gradient, slope);
}

int compare(const semreg_places& at, int formula, const void* fixed, const void* change, const void* share,
            double* value, void* slope) {
  SEMREG_FOR_TYPES(compare_as, at, at, formula, fixed, change, share, value, slope);
}

int correlate(const semreg_images& of, int formula, const void* fixed, const void* moving, const void* weight,
              double* value, void* slope) {
  if (of.type == SEMREG_F32) return correlate_as<float>(of, formula, fixed, moving, weight, value, slope);
  if (of.type == SEMREG_F64) return correlate_as<double>(of, formula, fixed, moving, weight, value, slope);
  return SEMREG_UNKNOWN;
}

int cost_volume(const semreg_costs& how, void* total, int64_t row, int64_t column) {
  if (how.type == SEMREG_F32) return cost_volume_as<float>(how, total, row, column);
  if (how.type == SEMREG_F64) return cost_volume_as<double>(how, total, row, column);
  return SEMREG_UNKNOWN;
}

int choice(int dimension, int type, int threads, int64_t nodes, int64_t candidates, const void* cost,
           const void* offsets, const void* soft, double weight, int64_t* best) {
  if (type == SEMREG_F32) return choice_as<float>(dimension, threads, nodes, candidates, cost, offsets, soft, weight, best);
  if (type == SEMREG_F64) return choice_as<double>(dimension, threads, nodes, candidates, cost, offsets, soft, weight, best);
  return SEMREG_UNKNOWN;
}

int patches(const semreg_images& of, int64_t dilation, const void* image, const void* mask, void* distances, void* known) {
  if (of.type == SEMREG_F32) return patches_as<float>(of, dilation, image, mask, distances, known);
  if (of.type == SEMREG_F64) return patches_as<double>(of, dilation, image, mask, distances, known);
  return SEMREG_UNKNOWN;
}

int product(const semreg_matrix& of, const void* from, void* to) {
  if (of.type == SEMREG_F32) return product_as<float>(of, from, to);
  if (of.type == SEMREG_F64) return product_as<double>(of, from, to);
  return SEMREG_UNKNOWN;
}

// Calls `Call<T, D>` for the type and the dimension of images.
#define SEMREG_FOR_IMAGES(call, of, ...)                           \
  do {                                                             \
    switch ((of).dimension * 2 + (of).type) {                      \
      case 4: return call<float, 2>(of, __VA_ARGS__);              \
      case 5: return call<double, 2>(of, __VA_ARGS__);             \
      case 6: return call<float, 3>(of, __VA_ARGS__);              \
      case 7: return call<double, 3>(of, __VA_ARGS__);             \
      default: return static_cast<int>(SEMREG_UNKNOWN);            \
    }                                                              \
  } while (0)

int jacobian(const semreg_images& of, const void* vox, void* to) { SEMREG_FOR_IMAGES(jacobian_as, of, vox, to); }

int corners(const semreg_images& of, const void* vox, void* to) { SEMREG_FOR_IMAGES(corners_as, of, vox, to); }

int compose(const semreg_images& of, const int64_t* wide, const double* forth, const double* back, const void* first,
            const void* second, void* to) {
  SEMREG_FOR_IMAGES(compose_as, of, wide, forth, back, first, second, to);
}

int compression(const semreg_spline& of, double* value, void* pull) {
  if (of.type == SEMREG_F32) return compression_as<float>(of, value, pull);
  if (of.type == SEMREG_F64) return compression_as<double>(of, value, pull);
  return SEMREG_UNKNOWN;
}

}  // namespace

const Functions FUNCTIONS = {SEMREG_NAME(SEMREG_VARIANT), read, pull, compare, correlate,
                             cost_volume, choice, patches, product, jacobian, corners, compose, compression};

}  // namespace SEMREG_VARIANT
}  // namespace semreg
