// One named function for each PTX instruction that the kernels use and C++ has no word for.
// Shared-memory addresses are 32-bit offsets in the shared window, as the instructions take them.
#pragma once

namespace pyconvx::ptx {

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// ---------------------------------------------------------------------------------------------------------
// Copies from global to shared memory that bypass the registers. If `keep` is false the destination is filled
// with zeros and the source is not read: it may point anywhere. 16 bytes go through L2 alone (.cg), fewer
// need L1 (.ca).

template <int BYTES>
__device__ inline void cp_async(unsigned shared, const void* global, bool keep) {
  if constexpr (BYTES == 16)
    asm volatile("{ .reg .pred skip; setp.eq.u32 skip, %2, 0;\n"
                 "  cp.async.cg.shared.global [%0], [%1], 16, skip; }" ::"r"(shared),
                 "l"(global), "r"(static_cast<unsigned>(keep)));
  else
    asm volatile("{ .reg .pred skip; setp.eq.u32 skip, %2, 0;\n"
                 "  cp.async.ca.shared.global [%0], [%1], %3, skip; }" ::"r"(shared),
                 "l"(global), "r"(static_cast<unsigned>(keep)), "n"(BYTES));
}

// The same, where `number` is not negative.
template <int BYTES>
__device__ inline void cp_async_if_not_negative(int number, unsigned shared, const void* global, bool keep) {
  if constexpr (BYTES == 16)
    asm volatile("{ .reg .pred take, skip; setp.ge.s32 take, %3, 0; setp.eq.u32 skip, %2, 0;\n"
                 "  @take cp.async.cg.shared.global [%0], [%1], 16, skip; }" ::"r"(shared),
                 "l"(global), "r"(static_cast<unsigned>(keep)), "r"(number));
  else
    asm volatile("{ .reg .pred take, skip; setp.ge.s32 take, %4, 0; setp.eq.u32 skip, %2, 0;\n"
                 "  @take cp.async.ca.shared.global [%0], [%1], %3, skip; }" ::"r"(shared),
                 "l"(global), "r"(static_cast<unsigned>(keep)), "n"(BYTES), "r"(number));
}

// The same by those threads alone that `take_part`. As a predicate rather than a branch, which would cost
// more than the copy.
__device__ inline void cp_async_16_if(bool take_part, unsigned shared, const void* global, bool keep) {
  asm volatile("{ .reg .pred skip, part; setp.eq.u32 skip, %2, 0; setp.ne.u32 part, %3, 0;\n"
               "  @part cp.async.cg.shared.global [%0], [%1], 16, skip; }" ::"r"(shared),
               "l"(global), "r"(static_cast<unsigned>(keep)), "r"(static_cast<unsigned>(take_part)));
}

__device__ inline void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until all but the newest PENDING groups of this thread have arrived.
template <int PENDING>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// By address in the shared window.

__device__ inline void store_shared(unsigned shared, unsigned short bits) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(shared), "h"(bits) : "memory");
}

__device__ inline void store_shared(unsigned shared, uint4 bits) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(bits.x), "r"(bits.y),
               "r"(bits.z), "r"(bits.w)
               : "memory");
}

__device__ inline void store_shared(unsigned shared, uint2 bits) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(shared), "r"(bits.x), "r"(bits.y) : "memory");
}

__device__ inline void store_shared(unsigned shared, unsigned bits) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(bits) : "memory");
}

__device__ inline unsigned load_shared(unsigned shared) {
  unsigned bits;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(bits) : "r"(shared));
  return bits;
}

__device__ inline uint4 load_shared_16(unsigned shared) {
  uint4 bits;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "r"(shared));
  return bits;
}

// To global memory, in one access: a store of words that come from elsewhere may be split by the compiler.

__device__ inline void store_global(void* global, uint4 bits) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(global)),
               "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
               : "memory");
}

__device__ inline void store_global(void* global, uint2 bits) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(global)), "r"(bits.x),
               "r"(bits.y)
               : "memory");
}

// The same under a predicate, rather than behind a branch.
__device__ inline void store_global(void* global, uint4 bits, bool keep) {
  asm volatile("{ .reg .pred keep; setp.ne.u32 keep, %5, 0;\n"
               "  @keep st.global.v4.u32 [%0], {%1, %2, %3, %4}; }" ::"l"(__cvta_generic_to_global(global)),
               "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w), "r"(static_cast<unsigned>(keep))
               : "memory");
}

// Four floats.

__device__ inline void store_shared(unsigned shared, const float (&x)[4]) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "f"(x[0]), "f"(x[1]), "f"(x[2]),
               "f"(x[3])
               : "memory");
}

__device__ inline void load_shared(float (&x)[4], unsigned shared) {
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3])
               : "r"(shared));
}

__device__ inline uint2 load_shared_pair(unsigned shared) {
  uint2 pair;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(pair.x), "=r"(pair.y) : "r"(shared));
  return pair;
}

// ---------------------------------------------------------------------------------------------------------
// Matrices. ldmatrix_x4 reads four 8 x 8 matrices of 16-bit elements, whose rows are the 16 bytes that lanes
// 0-7, 8-15, 16-23 and 24-31 point to; lane l gets, of each, columns 2(l % 4) and 2(l % 4) + 1 of row l / 4.

__device__ inline void ldmatrix_x4(unsigned (&to)[4], unsigned shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared));
}

// The same matrices transposed: lane l gets rows 2(l % 4) and 2(l % 4) + 1 of column l / 4.
__device__ inline void ldmatrix_x4_trans(unsigned (&to)[4], unsigned shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared));
}

__device__ inline void ldmatrix_x2_trans(unsigned& first, unsigned& second, unsigned shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(first), "=r"(second)
               : "r"(shared));
}

// sum (16 x 8, f32) = start + a (16 x k) times b (k x 8, by columns)

__device__ inline void mma_m16n8k16_f16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                        const float (&start)[4]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
               : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(start[0]), "f"(start[1]),
                 "f"(start[2]), "f"(start[3]));
}

__device__ inline void mma_m16n8k16_bf16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                         const float (&start)[4]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
               : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(start[0]), "f"(start[1]),
                 "f"(start[2]), "f"(start[3]));
}

__device__ inline void mma_m16n8k8_tf32(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                        const float (&start)[4]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
               : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(start[0]), "f"(start[1]),
                 "f"(start[2]), "f"(start[3]));
}

// ---------------------------------------------------------------------------------------------------------
// A contest's step without branches: best and code become x and tap if `first`, or x is NaN or greater than
// best.

template <class Code>
__device__ inline void challenge_f32(float& best, Code& code, float x, Code tap, bool first) {
  if constexpr (sizeof(Code) == 4)
    asm("{ .reg .pred wins, firm; setp.ne.u32 firm, %4, 0;\n"
        "  setp.nan.or.f32 firm, %2, %2, firm; setp.gt.or.f32 wins, %2, %0, firm;\n"
        "  selp.f32 %0, %2, %0, wins; selp.b32 %1, %3, %1, wins; }"
        : "+f"(best), "+r"(code)
        : "f"(x), "r"(tap), "r"(static_cast<unsigned>(first)));
  else
    asm("{ .reg .pred wins, firm; setp.ne.u32 firm, %4, 0;\n"
        "  setp.nan.or.f32 firm, %2, %2, firm; setp.gt.or.f32 wins, %2, %0, firm;\n"
        "  selp.f32 %0, %2, %0, wins; selp.b64 %1, %3, %1, wins; }"
        : "+f"(best), "+l"(code)
        : "f"(x), "l"(tap), "r"(static_cast<unsigned>(first)));
}

template <class Code>
__device__ inline void challenge_f64(double& best, Code& code, double x, Code tap, bool first) {
  if constexpr (sizeof(Code) == 4)
    asm("{ .reg .pred wins, firm; setp.ne.u32 firm, %4, 0;\n"
        "  setp.nan.or.f64 firm, %2, %2, firm; setp.gt.or.f64 wins, %2, %0, firm;\n"
        "  selp.f64 %0, %2, %0, wins; selp.b32 %1, %3, %1, wins; }"
        : "+d"(best), "+r"(code)
        : "d"(x), "r"(tap), "r"(static_cast<unsigned>(first)));
  else
    asm("{ .reg .pred wins, firm; setp.ne.u32 firm, %4, 0;\n"
        "  setp.nan.or.f64 firm, %2, %2, firm; setp.gt.or.f64 wins, %2, %0, firm;\n"
        "  selp.f64 %0, %2, %0, wins; selp.b64 %1, %3, %1, wins; }"
        : "+d"(best), "+l"(code)
        : "d"(x), "l"(tap), "r"(static_cast<unsigned>(first)));
}

// Where NaNs are the numbers whose magnitude is above `most`, negative ones too.
template <class Code>
__device__ inline void challenge_bounded_f32(float& best, Code& code, float x, Code tap, bool first,
                                             float most) {
  if constexpr (sizeof(Code) == 4)
    asm("{ .reg .pred wins, firm; setp.ne.u32 firm, %4, 0;\n"
        "  .reg .f32 magnitude; abs.f32 magnitude, %2; setp.gtu.or.f32 firm, magnitude, %5, firm;\n"
        "  abs.f32 magnitude, %0; setp.le.f32 wins, magnitude, %5; setp.gt.and.f32 wins, %2, %0, wins;\n"
        "  or.pred wins, wins, firm;\n"
        "  selp.f32 %0, %2, %0, wins; selp.b32 %1, %3, %1, wins; }"
        : "+f"(best), "+r"(code)
        : "f"(x), "r"(tap), "r"(static_cast<unsigned>(first)), "f"(most));
  else
    asm("{ .reg .pred wins, firm; setp.ne.u32 firm, %4, 0;\n"
        "  .reg .f32 magnitude; abs.f32 magnitude, %2; setp.gtu.or.f32 firm, magnitude, %5, firm;\n"
        "  abs.f32 magnitude, %0; setp.le.f32 wins, magnitude, %5; setp.gt.and.f32 wins, %2, %0, wins;\n"
        "  or.pred wins, wins, firm;\n"
        "  selp.f32 %0, %2, %0, wins; selp.b64 %1, %3, %1, wins; }"
        : "+f"(best), "+l"(code)
        : "f"(x), "l"(tap), "r"(static_cast<unsigned>(first)), "f"(most));
}

// ---------------------------------------------------------------------------------------------------------
// Arithmetic, conversions and bit casts.

// z + x y. Written with + it may become an addition of 64 bits besides, which is two instructions.
__device__ inline const char* mad_wide(unsigned x, unsigned y, const char* z) {
  const char* sum;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(sum) : "r"(x), "r"(y), "l"(z));
  return sum;
}

// x, of which the compiler knows nothing: so that it keeps it in a register, rather than work it out again.
__device__ inline unsigned keep(unsigned x) {
  asm volatile("mov.u32 %0, %1;" : "=r"(x) : "r"(x));
  return x;
}

__device__ inline float max_nan_f32(float x, float y) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(x), "f"(y));
  return larger;
}

// Of two halves each.
__device__ inline unsigned max_nan_f16x2(unsigned x, unsigned y) {
  unsigned larger;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(larger) : "r"(x), "r"(y));
  return larger;
}

__device__ inline unsigned max_nan_bf16x2(unsigned x, unsigned y) {
  unsigned larger;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(x), "r"(y));
  return larger;
}

// All bits of each half that is not <= 0 (a NaN is not), none of the others.
__device__ inline unsigned set_not_le_zero_f16x2(unsigned x) {
  unsigned bits;
  asm("set.gtu.u32.f16x2 %0, %1, %2;" : "=r"(bits) : "r"(x), "r"(0));
  return bits;
}

// Each half's top bit in all of its bits.
__device__ inline unsigned spread_signs(unsigned x) {
  unsigned bits;
  asm("prmt.b32 %0, %1, %1, 0xbb99;" : "=r"(bits) : "r"(x));
  return bits;
}

// 32 bits of high:low, from bit `shift` on.
__device__ inline unsigned funnel_shift_right(unsigned low, unsigned high, unsigned shift) {
  return __funnelshift_r(low, high, shift);
}

__device__ inline float cvt_f32_f16(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

__device__ inline unsigned short cvt_rn_f16_f32(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

__device__ inline unsigned short cvt_rn_bf16_f32(float x) {
#if __CUDA_ARCH__ >= 800
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else  // by hand: sm_75 has no such instruction
  const unsigned bits = __float_as_uint(x);
  return static_cast<unsigned short>(x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

__device__ inline unsigned cvt_rn_f16x2_f32(float low, float high) {
#if __CUDA_ARCH__ >= 800
  unsigned bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  return cvt_rn_f16_f32(low) | static_cast<unsigned>(cvt_rn_f16_f32(high)) << 16;
#endif
}

__device__ inline unsigned cvt_rn_bf16x2_f32(float low, float high) {
#if __CUDA_ARCH__ >= 800
  unsigned bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  return cvt_rn_bf16_f32(low) | static_cast<unsigned>(cvt_rn_bf16_f32(high)) << 16;
#endif
}

__device__ inline float bits_to_f32(unsigned bits) {
  return __uint_as_float(bits);
}
__device__ inline unsigned f32_to_bits(float x) {
  return __float_as_uint(x);
}
__device__ inline double bits_to_f64(unsigned low, unsigned high) {
  return __hiloint2double(high, low);
}
__device__ inline uint2 f64_to_bits(double x) {
  return {static_cast<unsigned>(__double2loint(x)), static_cast<unsigned>(__double2hiint(x))};
}

}  // namespace pyconvx::ptx
