// The mask of a ReLU, on the gradient of its output: the gradient counts where the output is not <= 0. A NaN
// lets it pass, and what does not count becomes a zero, whatever it is.
//
// Kernels that are compiled to mask do it where they load the gradient. A thread copies pieces of the
// gradient to shared memory, and the same pieces of the output to a place that no other thread looks at; once
// both have arrived it masks its pieces where they lie, before the barrier behind which all may read them. So
// the copies stay asynchronous, and for 16 bytes of 16-bit elements that takes 2 loads, 8 instructions (16 in
// bf16) and a store.
#pragma once

#include "../device.cuh"

namespace pyconvx {

// 4 bytes of gradients by the same of outputs.

__device__ inline unsigned masked_word(unsigned gradient, unsigned output, f16) {
  return gradient & ptx::set_not_le_zero_f16x2(output);
}

// There is no such comparison before sm_90. What max(output, 0) makes of a half lies in 0 .. 0x7fff, 0 where
// the output is <= 0, and is in bit 15 once 0x7fff is added; which then fills the half.
__device__ inline unsigned masked_word(unsigned gradient, unsigned output, bf16) {
  return gradient & ptx::spread_signs(ptx::max_nan_bf16x2(output, 0) + 0x7fff7fffu);
}

__device__ inline unsigned masked_word(unsigned gradient, unsigned output, f32) {
  return ptx::bits_to_f32(output) <= 0.0f ? 0u : gradient;
}

__device__ inline unsigned masked_word(unsigned gradient, unsigned output, tf32) {
  return masked_word(gradient, output, f32{});
}

// 16 bytes of them.
template <class Element>
__device__ inline uint4 masked(uint4 gradient, uint4 output, Element) {
  return {masked_word(gradient.x, output.x, Element{}), masked_word(gradient.y, output.y, Element{}),
          masked_word(gradient.z, output.z, Element{}), masked_word(gradient.w, output.w, Element{})};
}

// 16 bytes of gradients where they lie in shared memory.
template <class Element>
__device__ inline void mask_in_place(unsigned gradients, unsigned outputs, Element) {
  ptx::store_shared(gradients,
                    masked(ptx::load_shared_16(gradients), ptx::load_shared_16(outputs), Element{}));
}

// Does element i of a gradient count?
template <class Element, bool MASKED>
__device__ inline bool passes(const void* output, long long i) {
  if constexpr (MASKED)
    return !(widen(static_cast<const Element*>(output)[i]) <= 0);
  else
    return true;
}

// Element i of a gradient in global memory, widened.
template <bool MASKED, class Element>
__device__ inline Accumulator<Element> load_masked(const Element* gradient, const Element* output,
                                                   long long i) {
  if (MASKED && widen(output[i]) <= 0) return 0;
  return widen(gradient[i]);
}

// From where a gradient is, to where the output is that masks it, in bytes.
__device__ inline long long way_to_outputs(const void* gradient, const void* output) {
  return static_cast<const char*>(output) - static_cast<const char*>(gradient);
}

}  // namespace pyconvx
