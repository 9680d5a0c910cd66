// The vocabulary of PTX that every part of the emulator shares: types, state spaces, lane masks, errors.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pyconvx::emulator {

enum class Type : uint8_t {
  none,
  pred,
  b8,
  u8,
  s8,
  b16,
  u16,
  s16,
  b32,
  u32,
  s32,
  b64,
  u64,
  s64,
  b128,
  f16,
  bf16,
  f16x2,
  bf16x2,
  tf32,
  f32,
  f64,
  f32x2,
};

enum class Space : uint8_t { generic, global, shared, local, constant, param };

struct TypeFacts {
  std::string_view name;
  uint8_t bytes;
  bool is_float;
  bool is_signed;
};

const TypeFacts& facts(Type type);
Type type_named(std::string_view name);  // Type::none when it is no type

inline uint32_t bytes_of(Type type) {
  return facts(type).bytes;
}
inline bool is_float(Type type) {
  return facts(type).is_float;
}
inline bool is_signed(Type type) {
  return facts(type).is_signed;
}

using LaneMask = uint32_t;
constexpr int kLanes = 32;
constexpr LaneMask kAllLanes = ~LaneMask(0);

// Raised for text that is no PTX we know and for launches that no chip would accept.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));
std::string lanes_text(LaneMask lanes);  // "0-3,7"

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class F>
inline void for_lanes(LaneMask lanes, F&& body) {
  // The full warp is written as a counted loop so that the compiler can turn it into vector code.
  if (lanes == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) body(lane);
  } else {
    for (; lanes; lanes &= lanes - 1) body(__builtin_ctz(lanes));
  }
}

inline int first_lane(LaneMask lanes) {
  return __builtin_ctz(lanes);
}
inline int lane_count(LaneMask lanes) {
  return __builtin_popcount(lanes);
}

}  // namespace pyconvx::emulator
