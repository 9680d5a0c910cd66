// Residual add with an optional ReLU, and the ReLU's backward pass: one sweep over memory each.
#include "cpu/element.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements worth waking a thread for
constexpr int64_t kBlock = 256;      // 16-bit elements that are widened at a time, to stay in L1

// Written so that NaN passes: no comparison with it holds.
template <class A>
inline A relu(A x) {
  return x <= 0 ? A(0) : x;
}

template <class T, bool kRelu>
void add_rows(int64_t count, const T* x, const T* residual, T* output) {
  PYCONVX_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const T sum = residual ? x[i] + residual[i] : x[i];
    output[i] = kRelu ? relu(sum) : sum;
  }
}

template <class T, bool kRelu>
void add(int64_t count, const T* x, const T* residual, T* output) {
  if constexpr (is_half<T>) {
    float a[kBlock], b[kBlock];
    for (int64_t i = 0; i < count; i += kBlock) {
      const int64_t size = min(kBlock, count - i);
      widen(size, x + i, a);
      if (residual) widen(size, residual + i, b);
      add_rows<float, kRelu>(size, a, residual ? b : nullptr, a);
      narrow(size, a, output + i);
    }
  } else {
    add_rows<T, kRelu>(count, x, residual, output);
  }
}

template <class T>
void pass_where_positive(int64_t count, const T* grad_output, const T* output, T* grad_input) {
  if constexpr (is_half<T>) {
    // On bits: above zero means no sign and some magnitude; NaN of either sign passes too.
    const auto* grad = reinterpret_cast<const int16_t*>(grad_output);
    const auto* y = reinterpret_cast<const int16_t*>(output);
    auto* result = reinterpret_cast<int16_t*>(grad_input);
    PYCONVX_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
      const int16_t magnitude = static_cast<int16_t>(y[i] & 0x7fff);
      const int16_t gradient = grad[i];  // loaded in any case: no branch
      result[i] = (y[i] > 0) | (magnitude > infinity<T>()) ? gradient : int16_t{0};
    }
  } else {
    PYCONVX_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) grad_input[i] = output[i] <= 0 ? T(0) : grad_output[i];
  }
}

}  // namespace

void residual_add(int64_t count, DType dtype, Activation activation, const void* x, const void* residual,
                  void* output) {
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const auto body = activation == Activation::relu ? add<T, true> : add<T, false>;
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      const T* r = static_cast<const T*>(residual);
      body(end - begin, static_cast<const T*>(x) + begin, r ? r + begin : nullptr,
           static_cast<T*>(output) + begin);
    });
  });
}

void relu_backward(int64_t count, DType dtype, const void* grad_output, const void* output,
                   void* grad_input) {
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      pass_where_positive(end - begin, static_cast<const T*>(grad_output) + begin,
                          static_cast<const T*>(output) + begin, static_cast<T*>(grad_input) + begin);
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
