// mma.sync: D = A B + C of small matrices spread over the registers of a warp.
//
// Products are exact; a sum is made in double and rounded once. A chip truncates partial sums in its own way,
// so the last bits of floating-point results differ from it; integer results, and floats that hold integers,
// are exact.
//
// Where an element lives: a register of all lanes is a row-major matrix of 8 rows, four lanes a row, so 4, 8
// or 16 columns for elements of 4, 2 or 1 bytes. A's registers are its upper 8 rows and its lower 8 rows of
// the first columns, then of the next; B's registers are columns of B as rows. C and D: registers 0 and 1
// hold the even and the odd columns of the upper 8 rows, 2 and 3 of the lower.
#include <algorithm>
#include <cmath>
#include <cstring>

#ifdef __FMA__
#include <immintrin.h>
#endif

#include "../access.h"
#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

constexpr int kM = 16, kN = 8, kMaxK = 32;

// The elements of a register of all lanes, in the order of the lanes; every type is exact as a float.
struct HalfElements {
  static constexpr int per_register = 2;
  static void unpack(const uint32_t* lanes, float* out) {
    halves_to_floats(reinterpret_cast<const uint16_t*>(lanes), out, 2 * kLanes);
  }
};
struct BfloatElements {
  static constexpr int per_register = 2;
  static void unpack(const uint32_t* lanes, float* out) {
    const uint16_t* bits = reinterpret_cast<const uint16_t*>(lanes);
    for (int k = 0; k < 2 * kLanes; ++k) out[k] = bfloat_to_float(bits[k]);
  }
};
struct Tf32Elements {  // the low 13 bits of a tf32 operand are not looked at
  static constexpr int per_register = 1;
  static void unpack(const uint32_t* lanes, float* out) {
    for (int k = 0; k < kLanes; ++k) out[k] = bit_cast<float>(lanes[k] & 0xffffe000u);
  }
};
template <class Byte>
struct ByteElements {
  static constexpr int per_register = 4;
  static void unpack(const uint32_t* lanes, float* out) {
    const Byte* bytes = reinterpret_cast<const Byte*>(lanes);
    for (int k = 0; k < 4 * kLanes; ++k) out[k] = bytes[k];
  }
};

template <class Elements, int K>
void gather_a(Warp& w, const Instruction& i, double (&a)[kM][kMaxK]) {
  constexpr int columns = 4 * Elements::per_register;
  for (int r = 0; r < 2 * K / columns; ++r) {
    float part[8][columns];
    Elements::unpack(w.lanes<uint32_t>(i.source[r]), part[0]);
    for (int row = 0; row < 8; ++row) {
      for (int k = 0; k < columns; ++k) a[row + 8 * (r % 2)][columns * (r / 2) + k] = part[row][k];
    }
  }
}

template <class Elements, int K>
void gather_b(Warp& w, const Instruction& i, double (&b)[kMaxK][kN]) {
  constexpr int columns = 4 * Elements::per_register, registers_of_a = 2 * K / columns;
  for (int r = 0; r < K / columns; ++r) {
    float part[kN][columns];
    Elements::unpack(w.lanes<uint32_t>(i.source[registers_of_a + r]), part[0]);
    for (int k = 0; k < columns; ++k) {
      for (int n = 0; n < kN; ++n) b[columns * r + k][n] = part[n][k];
    }
  }
}

// Four rows at a time keep the adders busy. Products are exact in double, so fused or not the sums are the
// same.
template <int K>
void multiply(const double (&a)[kM][kMaxK], const double (&b)[kMaxK][kN], double (&sum)[kM][kN]) {
  constexpr int kRows = 4;
  for (int m = 0; m < kM; m += kRows) {
#ifdef __FMA__
    __m256d left[kRows] = {}, right[kRows] = {};  // four columns each
    for (int k = 0; k < K; ++k) {
      const __m256d b_left = _mm256_load_pd(b[k]), b_right = _mm256_load_pd(b[k] + 4);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m256d x = _mm256_broadcast_sd(&a[m + r][k]);
        left[r] = _mm256_fmadd_pd(x, b_left, left[r]);
        right[r] = _mm256_fmadd_pd(x, b_right, right[r]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      _mm256_store_pd(sum[m + r], left[r]);
      _mm256_store_pd(sum[m + r] + 4, right[r]);
    }
#else
    double rows[kRows][kN] = {};
    for (int k = 0; k < K; ++k) {
      for (int r = 0; r < kRows; ++r) {
        for (int n = 0; n < kN; ++n) rows[r][n] += a[m + r][k] * b[k][n];
      }
    }
    std::memcpy(sum[m], rows, sizeof rows);
#endif
  }
}

// Accumulators: four f32 or s32 registers, or two of f16 pairs. Two registers of all lanes, taken in turns,
// are eight rows of the matrix as they lie in memory.
template <class Store>
void for_accumulators(double (&sum)[kM][kN], Store&& store) {
  for (int half = 0; half < 2; ++half) {
    double* rows = sum[8 * half];
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int e = 0; e < 2; ++e) store(lane, 2 * half + e, rows[2 * lane + e]);
    }
  }
}

enum AccumulatorMode : uint8_t { kSingleC = 1, kSingleD = 2 };  // otherwise f16

template <class A, class B, int K>
void mma_float(Warp& w, const Instruction& i, LaneMask active) {
  require_sources_defined(w, i, active);
  alignas(64) double a[kM][kMaxK], b[kMaxK][kN], sum[kM][kN];
  gather_a<A, K>(w, i, a);
  gather_b<B, K>(w, i, b);
  multiply<K>(a, b, sum);
  const int c = 3 * K / (4 * A::per_register);  // registers of A and B come first
  if (i.mode & kSingleC) {
    const float* of[4];
    for (int e = 0; e < 4; ++e) of[e] = w.lanes<float>(i.source[c + e]);
    for_accumulators(sum, [&](int lane, int e, double& value) { value += of[e][lane]; });
  } else {
    const uint16_t* of[2] = {w.lanes<uint16_t>(i.source[c]), w.lanes<uint16_t>(i.source[c + 1])};
    for_accumulators(
        sum, [&](int lane, int e, double& value) { value += half_to_float(of[e / 2][2 * lane + e % 2]); });
  }
  if (i.mode & kSingleD) {
    float* of[4];
    for (int e = 0; e < 4; ++e) of[e] = w.lanes<float>(i.destination[e]);
    for_accumulators(sum, [&](int lane, int e, double& value) { of[e][lane] = static_cast<float>(value); });
  } else {
    uint16_t* of[2] = {w.lanes<uint16_t>(i.destination[0]), w.lanes<uint16_t>(i.destination[1])};
    for_accumulators(sum, [&](int lane, int e, double& value) {
      of[e / 2][2 * lane + e % 2] = static_cast<uint16_t>(encode(value, kHalf));
    });
  }
}

template <class A, class B, int K>
void mma_integer(Warp& w, const Instruction& i, LaneMask active) {
  require_sources_defined(w, i, active);
  alignas(64) double a[kM][kMaxK], b[kMaxK][kN], sum[kM][kN];
  gather_a<A, K>(w, i, a);
  gather_b<B, K>(w, i, b);
  multiply<K>(a, b, sum);
  const int c = 3 * K / (4 * A::per_register);
  for_accumulators(sum,
                   [&](int lane, int e, double& value) { value += w.lanes<int32_t>(i.source[c + e])[lane]; });
  for_accumulators(sum, [&](int lane, int e, double& value) {
    int64_t integer = static_cast<int64_t>(value);
    if (i.saturate) integer = std::clamp<int64_t>(integer, INT32_MIN, INT32_MAX);
    w.lanes<uint32_t>(i.destination[e])[lane] = static_cast<uint32_t>(integer);
  });
}

// m8n8k4 of f64: A's row and B's column are lane / 4, their k is lane % 4; D's columns are 2t and 2t + 1.
void mma_double(Warp& w, const Instruction& i, LaneMask active) {
  require_sources_defined(w, i, active);
  const double *a = w.lanes<double>(i.source[0]), *b = w.lanes<double>(i.source[1]);
  double result[2][kLanes];
  for (int e = 0; e < 2; ++e) {
    for (int lane = 0; lane < kLanes; ++lane) {
      double sum = w.lanes<double>(i.source[2 + e])[lane];
      for (int k = 0; k < 4; ++k) sum = std::fma(a[lane / 4 * 4 + k], b[(lane % 4 * 2 + e) * 4 + k], sum);
      result[e][lane] = sum;
    }
  }
  for (int e = 0; e < 2; ++e) std::copy_n(result[e], kLanes, w.lanes<double>(i.destination[e]));
}

template <class A, class B>
Handler integer_handler_of(int k) {
  return k == 16 ? mma_integer<A, B, 16> : k == 32 ? mma_integer<A, B, 32> : nullptr;
}

Handler handler_of(Type a, Type b, int k) {
  using S = ByteElements<int8_t>;
  using U = ByteElements<uint8_t>;
  if (a == Type::f16 && b == a)
    return k == 16  ? mma_float<HalfElements, HalfElements, 16>
           : k == 8 ? mma_float<HalfElements, HalfElements, 8>
                    : nullptr;
  if (a == Type::bf16 && b == a)
    return k == 16  ? mma_float<BfloatElements, BfloatElements, 16>
           : k == 8 ? mma_float<BfloatElements, BfloatElements, 8>
                    : nullptr;
  if (a == Type::tf32 && b == a)
    return k == 8   ? mma_float<Tf32Elements, Tf32Elements, 8>
           : k == 4 ? mma_float<Tf32Elements, Tf32Elements, 4>
                    : nullptr;
  if (a == Type::s8)
    return b == Type::s8   ? integer_handler_of<S, S>(k)
           : b == Type::u8 ? integer_handler_of<S, U>(k)
                           : nullptr;
  if (a == Type::u8)
    return b == Type::s8   ? integer_handler_of<U, S>(k)
           : b == Type::u8 ? integer_handler_of<U, U>(k)
                           : nullptr;
  return nullptr;
}

void operands(Decoder& d, size_t index, size_t count, Type type) {
  for (const Operand& element : d.elements(d.operand(index), count)) {
    if (index == 0)
      d.destination(element, type);
    else
      d.source(element, type);
  }
}

bool decode_mma(Decoder& d) {
  Instruction& i = d.out();
  if (!d.take("sync") || !d.take("aligned") || !d.take("row") || !d.take("col"))
    d.unsupported("only .sync.aligned and .row.col");
  i.flow = Flow::whole_warp;
  i.saturate = d.take("satfinite");
  d.expect_operands(4);
  if (d.take("m8n8k4")) {
    for (int k = 0; k < 4; ++k) {
      if (d.take_type() != Type::f64) d.unsupported("m8n8k4 of f64 only");
    }
    operands(d, 0, 2, Type::f64);
    operands(d, 1, 1, Type::f64);
    operands(d, 2, 1, Type::f64);
    operands(d, 3, 2, Type::f64);
    d.run(mma_double);
    return true;
  }
  const int k = d.take("m16n8k16")   ? 16
                : d.take("m16n8k8")  ? 8
                : d.take("m16n8k4")  ? 4
                : d.take("m16n8k32") ? 32
                                     : 0;
  const Type result = d.take_type(), a = d.take_type(), b = d.take_type(), c = d.take_type();
  const bool integers = bytes_of(a) == 1;
  const bool half_accumulators = a == Type::f16;
  const bool known = integers ? result == Type::s32 && c == Type::s32
                              : (result == Type::f32 || (half_accumulators && result == Type::f16)) &&
                                    (c == Type::f32 || (half_accumulators && c == Type::f16));
  const Handler handler = known && k ? handler_of(a, b, k) : nullptr;
  if (!handler) d.unsupported("this combination of shape and types");
  const size_t slice = 16 / bytes_of(a);  // columns of one register of all lanes
  operands(d, 0, result == Type::f16 ? 2 : 4, Type::b32);
  operands(d, 1, 2 * k / slice, Type::b32);
  operands(d, 2, k / slice, Type::b32);
  operands(d, 3, c == Type::f16 ? 2 : 4, Type::b32);
  i.mode = (c == Type::f32 ? kSingleC : 0) | (result == Type::f32 ? kSingleD : 0);
  d.run(handler);
  return true;
}

}  // namespace

void add_mma(InstructionSet& set) {
  set.add("mma", decode_mma);
}

}  // namespace pyconvx::emulator
