// Tensor-core operands and sums: what the kernels that use mma.sync share.
//
// Filters are stored in shared memory in another order than they have, so that the sums which a lane gets
// belong to V neighbouring filters, 16 bytes of output. A matrix instruction gives lane l the columns 2 (l %
// 4) + {0, 1} of its 8; V / 2 instructions give V values. So row 8 i + 2 x + e (e < 2, x < 4, i < V / 2) of
// each 4 V rows holds filter V x + 2 i + e of them.
#pragma once

#include "../device.cuh"

namespace pyconvx {

// 16 x 8 sums = what they start with + 16 x 32 bytes of activations times 32 bytes of 8 filters.
__device__ inline void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                const float (&start)[4], f16) {
  ptx::mma_m16n8k16_f16(sum, a, b0, b1, start);
}
__device__ inline void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                const float (&start)[4], bf16) {
  ptx::mma_m16n8k16_bf16(sum, a, b0, b1, start);
}
__device__ inline void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                const float (&start)[4], tf32) {
  ptx::mma_m16n8k8_tf32(sum, a, b0, b1, start);
}

// The same, added to the sums.
template <class Element>
__device__ inline void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Element) {
  multiply(sum, a, b0, b1, sum, Element{});
}

// Two 16-bit elements of a register: 1 in the lower half, 0 in the upper. (There is one tf32 in a register.)
__device__ inline unsigned one_and_zero(f16) {
  return ptx::cvt_rn_f16x2_f32(1.0f, 0.0f);
}
__device__ inline unsigned one_and_zero(bf16) {
  return ptx::cvt_rn_bf16x2_f32(1.0f, 0.0f);
}
__device__ inline unsigned one_and_zero(tf32) {
  return 0;
}

// Two ones of 16 bits, or one of tf32.
__device__ inline unsigned ones(f16) {
  return 0x3c003c00;
}
__device__ inline unsigned ones(bf16) {
  return 0x3f803f80;
}
__device__ inline unsigned ones(tf32) {
  return 0x3f800000;
}

// The filter in row `row` of shared memory.
template <int V>
__device__ constexpr int filter_of_row(int row) {
  const int e = row % 2, x = row / 2 % 4, i = row / 8 % (V / 2);
  return row - row % (4 * V) + V * x + 2 * i + e;
}

}  // namespace pyconvx
