// What each instruction set brings.
#pragma once
#include "semreg_kernels.h"

#define SEMREG_QUOTED(x) #x
#define SEMREG_NAME(x) SEMREG_QUOTED(x)

namespace semreg {

struct Functions {
  const char* name;
  int (*read)(const semreg_places&, void*);
  int (*pull)(const semreg_places&, const void*, void*);
  int (*compare)(const semreg_places&, int, const void*, const void*, const void*, double*, void*);
  int (*correlate)(const semreg_images&, int, const void*, const void*, const void*, double*, void*);
  int (*cost_volume)(const semreg_costs&, void*, int64_t, int64_t);
  int (*choice)(int, int, int, int64_t, int64_t, const void*, const void*, const void*, double, int64_t*);
  int (*patches)(const semreg_images&, int64_t, const void*, const void*, void*, void*);
  int (*product)(const semreg_matrix&, const void*, void*);
  int (*jacobian)(const semreg_images&, const void*, void*);
  int (*corners)(const semreg_images&, const void*, void*);
  int (*compose)(const semreg_images&, const int64_t*, const double*, const double*, const void*, const void*, void*);
  int (*compression)(const semreg_spline&, double*, void*);
};

namespace plain {
extern const Functions FUNCTIONS;
}
#ifdef SEMREG_X86
namespace avx2 {
extern const Functions FUNCTIONS;
}
namespace avx512 {
extern const Functions FUNCTIONS;
}
#endif

}  // namespace semreg
