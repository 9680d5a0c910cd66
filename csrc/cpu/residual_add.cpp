// Residual add with an optional ReLU, and the ReLU's backward pass: one sweep over memory each.
#include "cpu/element.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements worth waking a thread for
constexpr int64_t kBlock = 256;      // 16-bit elements that are widened at a time, to stay in L1

// Written so that NaN passes: no comparison with it holds.
template <class A>
inline A relu(A x) {
  return x <= 0 ? A{} : x;
}

template <class T, bool kRelu>
void add_rows(int64_t count, const T* x, const T* residual, T* output) {
  constexpr int kUnroll = 4;
  constexpr int64_t kWidth = kLanes<T>;
  const auto finish = [](auto sum) { return kRelu ? relu(sum) : sum; };
  int64_t i = 0;
  if (residual) {
    for (; i + kUnroll * kWidth <= count; i += kUnroll * kWidth) {
      Vector<T> sum[kUnroll];  // all are read before one is written: the compiler cannot know that it may
      for (int u = 0; u < kUnroll; ++u) sum[u] = load(x + i + u * kWidth) + load(residual + i + u * kWidth);
      for (int u = 0; u < kUnroll; ++u) store<T>(output + i + u * kWidth, finish(sum[u]));
    }
    for (; i < count; ++i) output[i] = finish(x[i] + residual[i]);
  } else {
    PYCONVX_INDEPENDENT
    for (; i < count; ++i) output[i] = finish(x[i]);
  }
}

// A word of two bfloat16 is two floats when either half is cleared, so neither way needs lanes to move.
template <bool kRelu>
void add_rows(int64_t count, const bfloat16* x, const bfloat16* residual, bfloat16* output) {
  using Word = Vector<uint32_t>;
  using Value = Vector<float>;
  constexpr uint32_t kUpper = 0xffff0000;
  const auto words = [](const bfloat16* from) {
    Word word;
    std::memcpy(&word, from, sizeof word);
    return word;
  };
  const auto rounded = [](Word a, Word b) {  // their sum; as in narrow(), but left in the upper half
    Value sum = reinterpret_cast<Value>(a) + reinterpret_cast<Value>(b);
    if constexpr (kRelu) sum = relu(sum);
    const Word bits = reinterpret_cast<Word>(sum);
    return sum != sum ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
  };
  constexpr int64_t kWidth = kLanes<int16_t>;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    const Word a = words(x + i), b = words(residual + i);
    const Word result = (rounded(a << 16, b << 16) >> 16) | (rounded(a & kUpper, b & kUpper) & kUpper);
    std::memcpy(output + i, &result, sizeof result);
  }
  for (; i < count; ++i) {
    const float sum = widen(x[i]) + widen(residual[i]);
    output[i] = narrow<bfloat16>(kRelu ? relu(sum) : sum);
  }
}

template <class T, bool kRelu>
void add(int64_t count, const T* x, const T* residual, T* output) {
  if constexpr (std::is_same_v<T, bfloat16>)
    if (residual) return add_rows<kRelu>(count, x, residual, output);
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

// Bits are made and used by way of one byte a flag, 0 or 1: comparisons give those in vectors, and eight of
// them are a byte of the mask times a constant, whose bit 56 - 7 i takes flag i to bit 56 + i.

constexpr int64_t kMaskBlock = 512;  // elements at a time, to stay in L1

inline uint8_t byte_of_flags(const uint8_t* flags) {
  uint64_t eight;
  std::memcpy(&eight, flags, sizeof eight);
  return static_cast<uint8_t>(eight * 0x0102040810204080 >> 56);
}

// Copies of the byte, of which each keeps one bit; those that are not zero then carry into their highest bit.
inline void flags_of_byte(uint8_t byte, uint8_t* flags) {
  const uint64_t single = byte * 0x0101010101010101 & 0x8040201008040201;
  const uint64_t eight = (single + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101;
  std::memcpy(flags, &eight, sizeof eight);
}

// Of a ReLU's outputs, which are zero, positive or NaN.
template <class T>
[[gnu::noinline]] void flag_nonzero(int64_t count, const T* output, uint8_t* flags) {
  if constexpr (is_half<T>) {
    const auto* bits = reinterpret_cast<const int16_t*>(output);
    for (int64_t i = 0; i < count; ++i) flags[i] = bits[i] != 0;
  } else {
    for (int64_t i = 0; i < count; ++i) flags[i] = output[i] != 0;
  }
}

template <class T>
void add_with_mask(int64_t count, const T* x, const T* residual, T* output, uint8_t* mask) {
  uint8_t flags[kMaskBlock];
  for (int64_t i = 0; i < count; i += kMaskBlock) {
    const int64_t size = min(kMaskBlock, count - i);
    add<T, true>(size, x + i, residual + i, output + i);
    if (size % 8) std::memset(flags + size / 8 * 8, 0, 8);
    flag_nonzero(size, output + i, flags);
    for (int64_t k = 0; k < ceil_div(size, 8); ++k) mask[i / 8 + k] = byte_of_flags(flags + 8 * k);
  }
}

// Bits is an integer as wide as the elements: they are moved and not computed with.
template <class Bits>
[[gnu::noinline]] void keep_flagged(int64_t count, const Bits* from, const uint8_t* flags, Bits* to) {
  PYCONVX_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Bits>(from[i] & -static_cast<Bits>(flags[i]));
}

template <class Bits>
void pass_where_set(int64_t count, const Bits* grad_output, const uint8_t* mask, Bits* grad_input) {
  uint8_t flags[kMaskBlock];
  for (int64_t i = 0; i < count; i += kMaskBlock) {
    const int64_t size = min(kMaskBlock, count - i);
    for (int64_t k = 0; k < ceil_div(size, 8); ++k) flags_of_byte(mask[i / 8 + k], flags + 8 * k);
    keep_flagged(size, grad_output + i, flags, grad_input + i);
  }
}

// Parts of whole blocks, which begin with a byte of the mask.
template <class Body>
void for_blocks(int64_t count, const Body& body) {
  parallel_for(ceil_div(count, kMaskBlock), kGrain / kMaskBlock,
               [&](int64_t begin, int64_t end) { body(begin * kMaskBlock, min(count, end * kMaskBlock)); });
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

void residual_add_mask(int64_t count, DType dtype, const void* x, const void* residual, void* output,
                       uint8_t* mask) {
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    for_blocks(count, [&](int64_t begin, int64_t end) {
      add_with_mask(end - begin, static_cast<const T*>(x) + begin, static_cast<const T*>(residual) + begin,
                    static_cast<T*>(output) + begin, mask + begin / 8);
    });
  });
}

void relu_backward_mask(int64_t count, DType dtype, const void* grad_output, const uint8_t* mask,
                        void* grad_input) {
  const auto run = [&](auto bits) {
    using Bits = decltype(bits);
    for_blocks(count, [&](int64_t begin, int64_t end) {
      pass_where_set(end - begin, static_cast<const Bits*>(grad_output) + begin, mask + begin / 8,
                     static_cast<Bits*>(grad_input) + begin);
    });
  };
  dtype == DType::f64 ? run(int64_t{}) : dtype == DType::f32 ? run(int32_t{}) : run(int16_t{});
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
