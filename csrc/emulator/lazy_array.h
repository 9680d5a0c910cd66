// Zeros that cost memory only where they are touched, so that a shadow of an allocation of many gigabytes is
// affordable.
#pragma once

#include <sys/mman.h>

#include <cstddef>

#include "types.h"

namespace pyconvx::emulator {

// Elements must be valid when all their bytes are zero. Begins at a page.
template <class T>
class LazyArray {
public:
  explicit LazyArray(size_t count) : bytes_(count * sizeof(T) + 1) {
    void* map =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw Error(format("the system gives no %zu bytes of address space", bytes_));
    data_ = static_cast<T*>(map);
  }
  ~LazyArray() { munmap(data_, bytes_); }
  LazyArray(const LazyArray&) = delete;
  LazyArray& operator=(const LazyArray&) = delete;

  T* data() { return data_; }
  T& operator[](size_t i) { return data_[i]; }

private:
  T* data_;
  size_t bytes_;
};

}  // namespace pyconvx::emulator
