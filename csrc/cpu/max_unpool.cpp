// Max unpooling, which puts every input back where its index says among zeros. Of several inputs for one
// place the last in row-major order wins.
#include "cpu/disjoint.h"
#include "cpu/kernels.h"
#include "cpu/unpool_walk.h"

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

template <class T, class Index>
void unpool(const Unpool2dProblem& x, const T* input, const Index* indices, T* output) {
  const bool nhwc = x.layout == Layout::nhwc;
  if (!std::is_same_v<Index, int64_t> && !x.overlapping() && (nhwc ? x.c : x.q) >= kVectorRun) {
    const Axis row_axis = rows(x), column_axis = columns(x);
    const Codes codes(row_axis, column_axis, false);
    const Disjoint<T, Index> disjoint{row_axis, column_axis, codes, x.c, input, indices, output};
    parallel_for(nhwc ? x.n * x.h : x.n * x.c * x.h, unpool_grain(nhwc ? x.w * x.c : x.w),
                 [&](int64_t begin, int64_t end) {
                   nhwc ? disjoint.fill_nhwc(begin, end) : disjoint.fill_nchw(begin, end);
                 });
  } else if (nhwc) {
    Walk<T, Index, false>(x).scatter(input, indices, output);
  } else {
    Walk<T, Index, true>(x).scatter(input, indices, output);
  }
}

}  // namespace

void max_unpool2d(const Unpool2dProblem& problem, const void* input, const void* indices, void* output) {
  for_bits(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      unpool(problem, static_cast<const T*>(input), static_cast<const decltype(index)*>(indices),
             static_cast<T*>(output));
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
