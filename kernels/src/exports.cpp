// The C interface: chooses the instruction set once, and lets no exception out.
#include <cstdlib>
#include <cstring>
#include <new>

#include "variant.h"

namespace {

using semreg::Functions;

const Functions& chosen() {
  static const Functions* functions = [] {
    const char* wanted = std::getenv("SEMREG_INSTRUCTIONS");  // a lesser set, to compare or to debug
    const auto allowed = [&](const char* name) { return !wanted || !*wanted || !std::strcmp(wanted, name); };
#ifdef SEMREG_X86
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (v4 && allowed("avx512")) return &semreg::avx512::FUNCTIONS;
    if (v3 && allowed("avx2")) return &semreg::avx2::FUNCTIONS;
#endif
    (void)allowed;
    return &semreg::plain::FUNCTIONS;
  }();
  return *functions;
}

template <class Call>
int32_t guarded(const Call& call) {
  try {
    return call();
  } catch (...) {  // nothing else is thrown than what says that memory is missing
    return SEMREG_NO_MEMORY;
  }
}

}  // namespace

extern "C" {

int32_t semreg_kernels_interface(void) { return SEMREG_KERNELS_INTERFACE; }

const char* semreg_kernels_instructions(void) { return chosen().name; }

int32_t semreg_read(const semreg_places* at, void* values) {
  return guarded([&] { return chosen().read(*at, values); });
}

int32_t semreg_pull(const semreg_places* at, const void* gradient, void* slope) {
  return guarded([&] { return chosen().pull(*at, gradient, slope); });
}

int32_t semreg_compare(const semreg_places* at, int32_t formula, const void* fixed, const void* change,
                       const void* share, double* value, void* slope) {
  return guarded([&] { return chosen().compare(*at, formula, fixed, change, share, value, slope); });
}

int32_t semreg_correlate(const semreg_images* of, int32_t formula, const void* fixed, const void* moving,
                         const void* weight, double* value, void* slope) {
  return guarded([&] { return chosen().correlate(*of, formula, fixed, moving, weight, value, slope); });
}

int32_t semreg_cost_volume(const semreg_costs* how, void* total, int64_t row, int64_t column) {
  return guarded([&] { return chosen().cost_volume(*how, total, row, column); });
}

int32_t semreg_choice(int32_t dimension, int32_t type, int32_t threads, int64_t nodes, int64_t candidates,
                      const void* cost, const void* offsets, const void* soft, double weight, int64_t* best) {
  return guarded([&] {
    return chosen().choice(dimension, type, threads, nodes, candidates, cost, offsets, soft, weight, best);
  });
}

int32_t semreg_patches(const semreg_images* of, int64_t dilation, const void* image, const void* mask, void* distances,
                       void* known) {
  return guarded([&] { return chosen().patches(*of, dilation, image, mask, distances, known); });
}

int32_t semreg_product(const semreg_matrix* of, const void* from, void* to) {
  return guarded([&] { return chosen().product(*of, from, to); });
}

int32_t semreg_jacobian(const semreg_images* of, const void* vox, void* to) {
  return guarded([&] { return chosen().jacobian(*of, vox, to); });
}

int32_t semreg_corners(const semreg_images* of, const void* vox, void* to) {
  return guarded([&] { return chosen().corners(*of, vox, to); });
}

int32_t semreg_compose(const semreg_images* of, const int64_t* wide, const double* forth, const double* back,
                       const void* first, const void* second, void* to) {
  return guarded([&] { return chosen().compose(*of, wide, forth, back, first, second, to); });
}

int32_t semreg_compression(const semreg_spline* of, double* value, void* pull) {
  return guarded([&] { return chosen().compression(*of, value, pull); });
}

}  // extern "C"
