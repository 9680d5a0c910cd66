// Instructions that do one thing in every lane. An operation is a generic lambda; the templates here make
// handlers of it.
#pragma once

#include "../decoder.h"
#include "../warp.h"

namespace pyconvx::emulator {

template <class Out, class A, const auto& op>
void lanes1(Warp& w, const Instruction& i, LaneMask active) {
  Out* d = w.lanes<Out>(i.destination[0]);
  const A* a = w.lanes<A>(i.source[0]);
  for_lanes(active, [&](int l) { d[l] = static_cast<Out>(op(a[l])); });
}

template <class Out, class A, class B, const auto& op>
void lanes2(Warp& w, const Instruction& i, LaneMask active) {
  Out* d = w.lanes<Out>(i.destination[0]);
  const A* a = w.lanes<A>(i.source[0]);
  const B* b = w.lanes<B>(i.source[1]);
  for_lanes(active, [&](int l) { d[l] = static_cast<Out>(op(a[l], b[l])); });
}

template <class Out, class A, class B, class C, const auto& op>
void lanes3(Warp& w, const Instruction& i, LaneMask active) {
  Out* d = w.lanes<Out>(i.destination[0]);
  const A* a = w.lanes<A>(i.source[0]);
  const B* b = w.lanes<B>(i.source[1]);
  const C* c = w.lanes<C>(i.source[2]);
  for_lanes(active, [&](int l) { d[l] = static_cast<Out>(op(a[l], b[l], c[l])); });
}

// Operands and result of one type.
template <class T, const auto& op>
constexpr Handler unary = lanes1<T, T, op>;
template <class T, const auto& op>
constexpr Handler binary = lanes2<T, T, T, op>;
template <class T, const auto& op>
constexpr Handler ternary = lanes3<T, T, T, T, op>;

// make(T{}) for the C++ type of an integer type of PTX, null for other types. Bits count as unsigned.
template <class Make>
Handler for_integer(Type type, Make make) {
  switch (type) {
  case Type::b16:
  case Type::u16:
    return make(uint16_t{});
  case Type::s16:
    return make(int16_t{});
  case Type::b32:
  case Type::u32:
    return make(uint32_t{});
  case Type::s32:
    return make(int32_t{});
  case Type::b64:
  case Type::u64:
    return make(uint64_t{});
  case Type::s64:
    return make(int64_t{});
  default:
    return nullptr;
  }
}

template <const auto& op>
Handler integer_unary(Type type) {
  return for_integer(type, [](auto x) { return unary<decltype(x), op>; });
}
template <const auto& op>
Handler integer_binary(Type type) {
  return for_integer(type, [](auto x) { return binary<decltype(x), op>; });
}
template <const auto& op>
Handler integer_ternary(Type type) {
  return for_integer(type, [](auto x) { return ternary<decltype(x), op>; });
}

}  // namespace pyconvx::emulator
