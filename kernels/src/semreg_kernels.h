// The C interface: plain memory in, plain memory out, nothing of torch, Python or the C++ run time in between.
//
// Arrays are dense and row-major. Shapes are in tensor order, the last axis fastest; `dimension` is 2 or 3. Types of numbers
// are told by `semreg_type`. What a function computes does not depend on `threads`: blocks of fixed size are summed in
// their order. Every function returns a `semreg_status`.
#ifndef SEMREG_KERNELS_H
#define SEMREG_KERNELS_H

#include <stdint.h>

#define SEMREG_KERNELS_INTERFACE 3

#if defined(_WIN32)
#define SEMREG_EXPORT __declspec(dllexport)
#else
#define SEMREG_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SEMREG_OK = 0, SEMREG_UNKNOWN = 1, SEMREG_NO_MEMORY = 2 } semreg_status;
typedef enum { SEMREG_F32 = 0, SEMREG_F64 = 1 } semreg_type;

// How two features f and m of one sample are compared; see semreg.distances for each formula.
typedef enum {
  SEMREG_L2 = 0,
  SEMREG_L1 = 1,
  SEMREG_COSINE = 2,
  SEMREG_L1COSINE = 3,
  SEMREG_DOTPRODUCT = 4,
  SEMREG_DICE = 5
} semreg_formula;

// How two images are correlated; see semreg.distances.correlation.
typedef enum { SEMREG_NCC = 0, SEMREG_LNCC = 1, SEMREG_LNCC_SQUARED = 2 } semreg_correlation;

// A table of features, one row of `channels` numbers a voxel, and places between its voxels.
typedef struct {
  int32_t dimension;
  int32_t table_type;  // of `rows` and of all values
  int32_t index_type;  // of `index` and of gradients in it: the same
  int32_t threads;
  int64_t shape[3];  // voxels an axis; the first `dimension` count
  int64_t channels;
  int64_t places;
  const void* rows;   // (voxels, channels)
  const void* index;  // (dimension, places), fractional voxels, centres at integers
} semreg_places;

SEMREG_EXPORT int32_t semreg_kernels_interface(void);
// The instruction set in use, chosen when the library is loaded.
SEMREG_EXPORT const char* semreg_kernels_instructions(void);

// values (places, channels): what the table holds at the index, by linear interpolation; border values hold beyond.
SEMREG_EXPORT int32_t semreg_read(const semreg_places* at, void* values);

// slope (dimension, places): the derivative in the index of what has the `gradient` (places, channels) in the values.
SEMREG_EXPORT int32_t semreg_pull(const semreg_places* at, const void* gradient, void* slope);

// *value: the sum over the places of share · formula(fixed, values + change); slope: its derivative in the index.
// fixed, change (places, channels), change may be null; share (places).
SEMREG_EXPORT int32_t semreg_compare(const semreg_places* at, int32_t formula, const void* fixed, const void* change,
                                     const void* share, double* value, void* slope);

// Two images of one shape, sample by sample.
typedef struct {
  int32_t dimension;
  int32_t type;
  int32_t threads;
  int32_t radius;    // half the width of a window in samples
  int64_t shape[3];  // samples an axis; the first `dimension` count
  int64_t channels;
} semreg_images;

// *value: 1 − correlation (or its square), the mean over the channels; slope (samples, channels): its derivative in `moving`.
// fixed, moving (samples, channels), weight (samples) or null.
SEMREG_EXPORT int32_t semreg_correlate(const semreg_images* of, int32_t formula, const void* fixed, const void* moving,
                                       const void* weight, double* value, void* slope);

// Squared differences of features at nodes and, `offset` samples away, at others: the costs of candidates.
typedef struct {
  int32_t dimension;
  int32_t type;
  int32_t threads;
  int32_t smoothing;  // passes of means over 3 nodes an axis
  int64_t shape[3];   // nodes
  int64_t wide[3];    // samples of the far side, widths included
  int64_t widths[3];  // additional samples on every side
  int64_t stride;     // samples a node of the far side
  int64_t channels;
  int64_t candidates;
  int64_t counted;     // of how many of the first candidates the mean stands for what nobody has seen
  double unseen;       // share of a voxel that this mean counts for
  double factor;
  int32_t add;         // whether costs are added to what is there
  const int64_t* offsets;  // (candidates, dimension)
  const void* near;        // (channels, *shape)
  const void* far;         // (channels, *wide)
  const void* near_weight; // (*shape) or null
  const void* far_weight;  // (*wide) or null
} semreg_costs;

// total (nodes, candidates): nodes are `row` numbers apart, candidates `column`.
SEMREG_EXPORT int32_t semreg_cost_volume(const semreg_costs* how, void* total, int64_t row, int64_t column);

// For each node the first candidate of least cost + weight · (|o|² − 2 o·soft): its number in `best` and its cost.
// cost (nodes, candidates), offsets (dimension, candidates), soft (dimension, nodes).
SEMREG_EXPORT int32_t semreg_choice(int32_t dimension, int32_t type, int32_t threads, int64_t nodes, int64_t candidates,
                                    const void* cost, const void* offsets, const void* soft, double weight,
                                    int64_t* best);

// distances (channels, *inner): mean squared differences of the pairs of patches of MIND-SSC; inner is radius + dilation
// less on every side. known (*inner): 1 where every pair has a sample that counts. image, mask (*S); mask and known may be
// null together.
SEMREG_EXPORT int32_t semreg_patches(const semreg_images* of, int64_t dilation, const void* image, const void* mask,
                                     void* distances, void* known);

// A matrix (outputs, inputs) along one axis of dense numbers (before, inputs, after).
typedef struct {
  int32_t type;
  int32_t threads;
  int64_t before;
  int64_t inputs;
  int64_t outputs;
  int64_t after;
  int64_t row;     // numbers from one row of the matrix to the next
  int64_t column;  // and from one column to the next
  const void* values;
} semreg_matrix;

// to (before, outputs, after): the product. What lies beyond the first and last number of a row that is not 0 is not read.
SEMREG_EXPORT int32_t semreg_product(const semreg_matrix* of, const void* from, void* to);

// to (*S): the determinant of ∂(index + vox)/∂index, vox (dimension, *S) in voxels, by central differences; one-sided
// and halved at the border.
SEMREG_EXPORT int32_t semreg_jacobian(const semreg_images* of, const void* vox, void* to);

// to (*S − 1): the least determinant of the tetrahedra (triangles) of each cell, relative to their size.
SEMREG_EXPORT int32_t semreg_corners(const semreg_images* of, const void* vox, void* to);

// to (dimension, *S): first + back · second at forth · (index + first). `wide`: the shape of the second; forth, back: homogeneous.
SEMREG_EXPORT int32_t semreg_compose(const semreg_images* of, const int64_t* wide, const double* forth,
                                     const double* back, const void* first, const void* second, void* to);

// A spline in 3-D at places on a lattice: per axis the weight of each control point at each place, of the value and of the
// derivative along that axis. A place sees up to 4 control points in a row.
typedef struct {
  int32_t type;
  int32_t threads;
  int64_t controls[3];
  int64_t places[3];
  double limit;
  const void* values[3];  // (places, controls)
  const void* slopes[3];  // the same
  const void* coefficients;  // (3, *controls)
} semreg_spline;

// *value: the sum over the places of the squares of what the determinant of 1 + ∂u lacks of `limit`, u the spline;
// pull (3, *controls): its derivative in the coefficients. SEMREG_UNKNOWN where a place sees more control points.
SEMREG_EXPORT int32_t semreg_compression(const semreg_spline* of, double* value, void* pull);

#ifdef __cplusplus
}
#endif
#endif
