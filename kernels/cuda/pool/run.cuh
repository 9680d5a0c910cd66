// A run: elements that follow each other in global memory, and their copy in shared memory, which all threads
// of a block bring there or back. Pieces of 16 bytes lie in shared memory as they lie in global memory, so
// that each moves by one access, however the run begins and ends:
//
//   global    ...|. . . 0 1 2 3 4|5 6 ...        a piece between bars, the run's first element is 0
//   shared       |. . . 0 1 2 3 4|5 6 ...
//
// A piece is read whole if the tensor has all of it, though the run may have a part only: it lies in the same
// sector. It is written whole if the run has all of it. What is left, at most a piece at either end, moves by
// elements, a thread for each.
#pragma once

#include "words.cuh"

namespace pyconvx {

// Bits is an unsigned integer as wide as the elements: they are only moved.
template <class Bits>
class Run {
  static constexpr int V = 16 / sizeof(Bits);
  static constexpr int THREADS = 256, AT_ONCE = 4;  // pieces that a thread has on their way

public:
  // `count` elements from `first` on of a tensor. `shared` has 16 bytes more than they are.
  __device__ Run(unsigned char* shared, const void* tensor, long long first, int count)
      : shared_(shared), global_(static_cast<const Bits*>(tensor) + first),
        lead_(static_cast<int>(reinterpret_cast<unsigned long long>(global_) % 16 / sizeof(Bits))),
        count_(count), pieces_((lead_ + count + V - 1) / V) {}

  __device__ Bits& operator[](int i) const { return reinterpret_cast<Bits*>(shared_)[lead_ + i]; }

  // From a tensor of `elements`, of which the run begins with the `first`.
  __device__ void load(long long first, long long elements) const {
    const int front = first < lead_, back = elements - first < pieces_ * V - lead_;
    const unsigned char* from = reinterpret_cast<const unsigned char*>(global_ - lead_);
#pragma unroll 1
    for (int k = front + static_cast<int>(threadIdx.x); k < pieces_ - back; k += AT_ONCE * THREADS) {
      unsigned piece[AT_ONCE][4];
#pragma unroll
      for (int u = 0; u < AT_ONCE; ++u)
        if (k + u * THREADS < pieces_ - back) load_words<16>(piece[u], from + 16ll * (k + u * THREADS));
#pragma unroll
      for (int u = 0; u < AT_ONCE; ++u)
        if (k + u * THREADS < pieces_ - back)
          *reinterpret_cast<uint4*>(shared_ + 16 * (k + u * THREADS)) = {piece[u][0], piece[u][1],
                                                                         piece[u][2], piece[u][3]};
    }
    by_elements(front, back, [&](int i) { (*this)[i] = global_[i]; });
  }

  __device__ void store() const {
    const int front = lead_ > 0, back = (lead_ + count_) % V > 0;
    unsigned char* to = reinterpret_cast<unsigned char*>(const_cast<Bits*>(global_ - lead_));
#pragma unroll 1
    for (int k = front + static_cast<int>(threadIdx.x); k < pieces_ - back; k += THREADS)
      ptx::store_global(to + 16ll * k, *reinterpret_cast<const uint4*>(shared_ + 16 * k));
    by_elements(front, back, [&](int i) { const_cast<Bits*>(global_)[i] = (*this)[i]; });
  }

private:
  // The elements of the first piece, if it is not whole, and of the last.
  template <class Move>
  __device__ void by_elements(bool front, bool back, Move move) const {
    if (threadIdx.x >= V) return;
    if (front) {
      const int i = static_cast<int>(threadIdx.x) - lead_;
      if (i >= 0 && i < count_) move(i);
    }
    if (back && !(front && pieces_ == 1)) {
      const int i = (pieces_ - 1) * V - lead_ + static_cast<int>(threadIdx.x);
      if (i >= 0 && i < count_) move(i);
    }
  }

  unsigned char* shared_;
  const Bits* global_;
  int lead_;  // elements of the first piece before the run
  int count_, pieces_;
};

// An unsigned integer as wide as an element.
template <int BYTES>
struct BitsOf;
template <>
struct BitsOf<1> {
  using type = unsigned char;
};
template <>
struct BitsOf<2> {
  using type = unsigned short;
};
template <>
struct BitsOf<4> {
  using type = unsigned;
};
template <>
struct BitsOf<8> {
  using type = unsigned long long;
};
template <class Element>
using Bits = typename BitsOf<sizeof(Element)>::type;

// One element as words, and back.
template <class Bits>
__device__ inline void to_words(unsigned (&words)[kWords<sizeof(Bits)>], Bits bits) {
  words[0] = static_cast<unsigned>(bits);
  if constexpr (sizeof(Bits) == 8) words[1] = static_cast<unsigned>(bits >> 32);
}
template <class Bits>
__device__ inline Bits from_words(const unsigned (&words)[kWords<sizeof(Bits)>]) {
  if constexpr (sizeof(Bits) == 8)
    return static_cast<Bits>(words[1]) << 32 | words[0];
  else
    return static_cast<Bits>(words[0]);
}

}  // namespace pyconvx
