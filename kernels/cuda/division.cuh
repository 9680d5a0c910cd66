// Division by a number that the host knows and the kernel does not: a multiplication and a shift.
//
// With L the smallest exponent such that d <= 2^L, and m = ceil(2^(31 + L) / d): m d = 2^(31 + L) + e with 0
// <= e < d <= 2^L, so x m / 2^(31 + L) = x / d + x e / (d 2^(31 + L)). For x < 2^31 the second term is below
// 1 / d, too little to reach the next integer. Hence floor(x / d) = floor(x m / 2^(31 + L)), and m < 2^32.
// Shared by host and device.
#pragma once

#ifdef __CUDACC__
#define PYCONVX_HOST_DEVICE __host__ __device__
#else
#define PYCONVX_HOST_DEVICE
#endif

namespace pyconvx {

struct Division {
  unsigned divisor;
  unsigned multiplier;
  unsigned shift;

  PYCONVX_HOST_DEVICE unsigned operator()(unsigned x) const {  // x < 2^31
    return static_cast<unsigned>((static_cast<unsigned long long>(x) * multiplier) >> shift);
  }
};

PYCONVX_HOST_DEVICE constexpr Division division_by(unsigned divisor) {  // 1 <= divisor < 2^31
  unsigned log = 0;
  while ((1u << log) < divisor) ++log;
  const unsigned long long power = 1ull << (31 + log);
  return {divisor, static_cast<unsigned>((power + divisor - 1) / divisor), 31 + log};
}

}  // namespace pyconvx
