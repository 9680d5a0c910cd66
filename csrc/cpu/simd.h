// Vectors as wide as the instruction set's registers, by the compilers' own vector extension: the same source
// on every architecture, and operators instead of intrinsics. Comparisons give lanes of all ones or zeros.
#pragma once

#include "cpu/element.h"

#include <cstdlib>
#include <new>

namespace pyconvx::cpu::PYCONVX_ISA {

#if defined(__AVX512BW__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class T>
inline void store(T* to, Vector<T> vector) {
  std::memcpy(to, &vector, sizeof vector);
}

template <class T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};  // and not a sum with zero, which would lose the sign of -0
}

// Memory that one thread works in. (std::vector's members would be shared between instruction sets.)
template <class T>
class Scratch {
public:
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(std::malloc(static_cast<size_t>(max_bytes(count))))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  operator T*() { return data_; }

private:
  static int64_t max_bytes(int64_t count) { return count > 0 ? count * static_cast<int64_t>(sizeof(T)) : 1; }
  T* data_;
};

}  // namespace pyconvx::cpu::PYCONVX_ISA
