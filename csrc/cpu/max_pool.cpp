// Max pooling, and the gather of other values at the winners' places.
//
// A tap wins if it is greater than the best so far or NaN, in row-major order of taps, starting from -inf at
// the window's first tap inside the input: so the first of equals wins, and the last of NaNs.
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {
namespace {

constexpr int64_t kGrain = 1 << 14;  // outputs times taps worth waking a thread for

int64_t grain(int64_t work_per_item) {
  return max(1, kGrain / max(1, work_per_item));
}

// ---------------------------------------------------------------------------------------------------------
// The winner of a contest among taps, in one vector of windows or channels.

// 16-bit floats in an order that integers have: -0 equals +0, and both kinds of NaN come last.
template <class T, class V>
inline V ordered(V bits) {
  const V sign = bits >> 15, magnitude = bits & 0x7fff;
  const V finite = (magnitude ^ sign) - sign;
  return magnitude > infinity<T>() ? V{} + int16_t{0x7fff} : finite;
}

template <class T, bool kIndexed>
struct Contest {
  using Value = Vector<Raw<T>>;
  using Code = Vector<Lane<T>>;

  Value best;
  Code code;
  Vector<Lane<T>> key;  // of the best; only for 16-bit floats

  void open(Value first, Code first_code) {
    best = first;
    code = first_code;
    if constexpr (is_half<T>) key = ordered<T>(first);
  }

  void offer(Value value, Code tap) {
    Code wins;
    if constexpr (is_half<T>) {
      const Code challenger = ordered<T>(value);
      wins = (challenger > key) | (challenger == 0x7fff);
      key = wins ? challenger : key;
    } else {
      wins = (value > best) | (value != value);
    }
    best = wins ? value : best;
    if constexpr (kIndexed) code = wins ? tap : code;
  }
};

// The same for one window of one channel.
template <class T>
inline bool beats(Raw<T> value, Raw<T> best) {
  if constexpr (is_half<T>) {
    const auto key = [](int bits) {
      const int magnitude = bits & 0x7fff;
      return magnitude > infinity<T>() ? 0x7fff : bits < 0 ? -magnitude : magnitude;
    };
    return key(value) > key(best) || key(value) == 0x7fff;
  } else {
    return value > best || value != value;
  }
}

// ---------------------------------------------------------------------------------------------------------
// Forward.

template <class T>
struct Forward {
  Axis rows, columns;
  Codes codes;
  int64_t channels;
  IndexType index;
  const Raw<T>* input;
  Raw<T>* output;
  void* indices;

  // Turns the codes of `count` neighbouring outputs into indices; base grows by `step` from one to the next.
  template <class Code>
  void store_indices(int64_t place, int64_t count, const Code* code, int64_t base, int64_t step) const {
    for_index(index, [&](auto form) {
      using Index = decltype(form);
      Index* to = static_cast<Index*>(indices) + place;
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Index>(code[i] + base + i * step);
    });
  }

  // One window of one channel, in either layout: the way for what vectors do not fit.
  template <bool kIndexed>
  void pool_window(const Raw<T>* plane, int64_t pixel, int64_t p, int64_t q, int64_t place) const {
    const int64_t r0 = rows.first_tap(p), r1 = rows.end_tap(p), s0 = columns.first_tap(q),
                  s1 = columns.end_tap(q);
    const int64_t h = rows.origin(p), w = columns.origin(q);
    Raw<T> best = lowest<T>();
    int64_t code = codes.code(r0, s0);
    for (int64_t r = r0; r < r1; ++r)
      for (int64_t s = s0; s < s1; ++s) {
        const Raw<T> value =
            plane[((h + r * rows.dilation) * columns.size + w + s * columns.dilation) * pixel];
        if (beats<T>(value, best)) best = value, code = codes.code(r, s);
      }
    output[place] = best;
    if constexpr (kIndexed) store_indices(place, 1, &code, codes.base(p, q), 0);
  }

  // Can every code be held in a vector lane?
  bool codes_fit() const {
    return codes.code(rows.taps, columns.taps) <= std::numeric_limits<Lane<T>>::max();
  }

  template <bool kIndexed>
  void pool_nchw(int64_t begin, int64_t end) const;
  template <bool kIndexed, int kUnroll>
  void pool_channels(const Raw<T>* image, int64_t p, int64_t q, int64_t channel, Raw<T>* best,
                     Lane<T>* code) const;
  template <bool kIndexed>
  void pool_nhwc(int64_t begin, int64_t end) const;
  template <bool kIndexed>
  void pool_windows(Layout layout, int64_t begin, int64_t end) const;
};

// Copies every stride-th element from position `from` on, with -inf where the axis ends. -inf never wins, so
// windows need no bounds.
template <class T>
void copy_padded(const Raw<T>* row, const Axis& axis, int64_t from, int64_t count, Raw<T>* to) {
  const int64_t first = min(count, ceil_div(max(0, -from), axis.stride));
  const int64_t last = max(first, min(count, ceil_div(max(0, axis.size - from), axis.stride)));
  for (int64_t i = 0; i < first; ++i) to[i] = lowest<T>();
  const Raw<T>* source = row + from;
  if (axis.stride == 1)
    std::memcpy(to + first, source + first, static_cast<size_t>(last - first) * sizeof(Raw<T>));
  else if (axis.stride == 2)
    for (int64_t i = first; i < last; ++i) to[i] = source[2 * i];
  else
    for (int64_t i = first; i < last; ++i) to[i] = source[axis.stride * i];
  for (int64_t i = last; i < count; ++i) to[i] = lowest<T>();
}

// Rows [begin, end) of all planes' output rows. Every input row is first split into its phases, one for each
// remainder modulo the stride: neighbouring windows then read neighbouring elements, whatever the stride.
template <class T>
template <bool kIndexed>
void Forward<T>::pool_nchw(int64_t begin, int64_t end) const {
  constexpr int64_t kWidth = kLanes<Raw<T>>;
  const int64_t padded = ceil_div(columns.windows, kWidth) * kWidth;
  const int64_t phases = min(columns.stride, columns.span());
  const int64_t pitch = padded + (columns.span() - 1) / columns.stride;
  Scratch<Raw<T>> phase(phases * pitch), best(padded);
  Scratch<Lane<T>> code(padded), first_code(padded);
  Scratch<int64_t> tap_place(columns.taps);
  for (int64_t s = 0; s < columns.taps; ++s) {
    const int64_t distance = s * columns.dilation;
    tap_place[s] = distance % columns.stride * pitch + distance / columns.stride;
  }
  for (int64_t q = 0; q < padded; ++q)
    first_code[q] = static_cast<Lane<T>>(codes.code(0, columns.first_tap(min(q, columns.windows - 1))));

  for (int64_t line = begin; line < end; ++line) {
    const int64_t plane = line / rows.windows, p = line % rows.windows;
    const int64_t first = rows.first_tap(p), last = rows.end_tap(p);
    for (int64_t q = 0; q < padded; ++q) {
      best[q] = lowest<T>();
      code[q] = static_cast<Lane<T>>(first_code[q] + codes.code(first, 0));
    }
    for (int64_t r = first; r < last; ++r) {
      const int64_t h = rows.origin(p) + r * rows.dilation;
      const Raw<T>* row = input + (plane * rows.size + h) * columns.size;
      for (int64_t f = 0; f < phases; ++f)
        copy_padded<T>(row, columns, f - columns.pad, pitch, phase + f * pitch);
      for (int64_t q = 0; q < padded; q += kWidth) {
        Contest<T, kIndexed> contest;
        contest.open(load<Raw<T>>(best + q), load<Lane<T>>(code + q));
        for (int64_t s = 0; s < columns.taps; ++s)
          contest.offer(load<Raw<T>>(phase + tap_place[s] + q),
                        broadcast(static_cast<Lane<T>>(codes.code(r, s))));
        store<Raw<T>>(best + q, contest.best);
        if constexpr (kIndexed) store<Lane<T>>(code + q, contest.code);
      }
    }
    const int64_t place = line * columns.windows;
    std::memcpy(output + place, best, static_cast<size_t>(columns.windows) * sizeof(Raw<T>));
    if constexpr (kIndexed)
      store_indices<Lane<T>>(place, columns.windows, code, codes.base(p, 0), codes.across);
  }
}

// kUnroll vectors of channels, from `channel` on, of one output pixel: several contests at a time hide each
// other's latency.
template <class T>
template <bool kIndexed, int kUnroll>
void Forward<T>::pool_channels(const Raw<T>* image, int64_t p, int64_t q, int64_t channel, Raw<T>* best,
                               Lane<T>* code) const {
  constexpr int64_t kWidth = kLanes<Raw<T>>;
  const int64_t r0 = rows.first_tap(p), r1 = rows.end_tap(p), s0 = columns.first_tap(q),
                s1 = columns.end_tap(q);
  Contest<T, kIndexed> contest[kUnroll];
  for (auto& one : contest)
    one.open(broadcast(lowest<T>()), broadcast(static_cast<Lane<T>>(codes.code(r0, s0))));
  for (int64_t r = r0; r < r1; ++r) {
    const int64_t h = rows.origin(p) + r * rows.dilation;
    for (int64_t s = s0; s < s1; ++s) {
      const int64_t w = columns.origin(q) + s * columns.dilation;
      const Raw<T>* taps = image + (h * columns.size + w) * channels + channel;
      const auto tap = broadcast(static_cast<Lane<T>>(codes.code(r, s)));
      for (int u = 0; u < kUnroll; ++u) contest[u].offer(load<Raw<T>>(taps + u * kWidth), tap);
    }
  }
  for (int u = 0; u < kUnroll; ++u) {
    store<Raw<T>>(best + channel + u * kWidth, contest[u].best);
    if constexpr (kIndexed) store<Lane<T>>(code + channel + u * kWidth, contest[u].code);
  }
}

// Output pixels [begin, end) of all images.
template <class T>
template <bool kIndexed>
void Forward<T>::pool_nhwc(int64_t begin, int64_t end) const {
  constexpr int kUnroll = is_half<T> ? 2 : 4;
  constexpr int64_t kWidth = kLanes<Raw<T>>;
  Scratch<Lane<T>> code(channels);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t q = pixel % columns.windows, line = pixel / columns.windows;
    const int64_t p = line % rows.windows, n = line / rows.windows;
    const Raw<T>* image = input + n * rows.size * columns.size * channels;
    Raw<T>* best = output + pixel * channels;
    int64_t channel = 0;
    for (; channel + kUnroll * kWidth <= channels; channel += kUnroll * kWidth)
      pool_channels<kIndexed, kUnroll>(image, p, q, channel, best, code);
    for (; channel + kWidth <= channels; channel += kWidth)
      pool_channels<kIndexed, 1>(image, p, q, channel, best, code);
    // The rest is the end of one last full vector; what that shares with the one before comes out the same.
    if (channel < channels) pool_channels<kIndexed, 1>(image, p, q, channels - kWidth, best, code);
    if constexpr (kIndexed) store_indices<Lane<T>>(pixel * channels, channels, code, codes.base(p, q), 0);
  }
}

// Outputs [begin, end) in memory order, one by one.
template <class T>
template <bool kIndexed>
void Forward<T>::pool_windows(Layout layout, int64_t begin, int64_t end) const {
  const int64_t plane = rows.size * columns.size;
  for (int64_t place = begin; place < end; ++place) {
    const bool nhwc = layout == Layout::nhwc;
    const int64_t c = place % channels, window = nhwc ? place / channels : place;
    const int64_t q = window % columns.windows, line = window / columns.windows;
    const int64_t p = line % rows.windows, image = line / rows.windows;
    if (nhwc)
      pool_window<kIndexed>(input + image * plane * channels + c, channels, p, q, place);
    else
      pool_window<kIndexed>(input + image * plane, 1, p, q, place);
  }
}

template <class T, bool kIndexed>
void forward(const Pool2dProblem& problem, const Forward<T>& pool) {
  const int64_t taps = problem.r * problem.s, windows = pool.rows.windows * pool.columns.windows;
  if (!pool.codes_fit() || (problem.layout == Layout::nhwc && problem.c < kLanes<Raw<T>>))
    parallel_for(problem.n * problem.c * windows, grain(taps), [&](int64_t begin, int64_t end) {
      pool.template pool_windows<kIndexed>(problem.layout, begin, end);
    });
  else if (problem.layout == Layout::nhwc)
    parallel_for(problem.n * windows, grain(taps * problem.c),
                 [&](int64_t begin, int64_t end) { pool.template pool_nhwc<kIndexed>(begin, end); });
  else
    parallel_for(problem.n * problem.c * pool.rows.windows, grain(taps * pool.columns.windows),
                 [&](int64_t begin, int64_t end) { pool.template pool_nchw<kIndexed>(begin, end); });
}

// ---------------------------------------------------------------------------------------------------------
// Gather: what lies where the winners were.

template <class T, class Index>
void gather(const Pool2dProblem& problem, const Raw<T>* input, const Index* indices, Raw<T>* output) {
  const Axis row_axis = rows(problem), column_axis = columns(problem);
  const Positions<Index> position(row_axis, column_axis);
  const int64_t plane = problem.h * problem.w;
  const bool nhwc = problem.layout == Layout::nhwc;
  // A run is what shares one p: in NCHW one window after the other, in NHWC all channels of each.
  const int64_t channels = nhwc ? problem.c : 1, runs = nhwc ? problem.n : problem.n * problem.c;
  const int64_t run = column_axis.windows * channels;
  parallel_for(runs * row_axis.windows, grain(run), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t p = line % row_axis.windows;
      const Raw<T>* image = input + line / row_axis.windows * plane * channels;
      for (int64_t q = 0, i = line * run; q < column_axis.windows; ++q)
        for (int64_t c = 0; c < channels; ++c, ++i) {
          const int64_t from = position(p, q, indices[i]);
          output[i] = from < 0 ? Raw<T>(0) : image[from * channels + c];
        }
    }
  });
}

}  // namespace

void max_pool2d(const Pool2dProblem& problem, const void* input, void* output, void* indices) {
  for_dtype(problem.dtype, [&](auto element) {
    using T = decltype(element);
    const Axis row_axis = rows(problem), column_axis = columns(problem);
    const Forward<T> pool{row_axis,
                          column_axis,
                          Codes(row_axis, column_axis, problem.index == IndexType::i64),
                          problem.c,
                          problem.index,
                          static_cast<const Raw<T>*>(input),
                          static_cast<Raw<T>*>(output),
                          indices};
    if (problem.index == IndexType::none)
      forward<T, false>(problem, pool);
    else
      forward<T, true>(problem, pool);
  });
}

void max_pool2d_gather(const Pool2dProblem& problem, const void* input, const void* indices, void* output) {
  for_dtype(problem.dtype, [&](auto element) {
    for_index(problem.index, [&](auto index) {
      using T = decltype(element);
      using Index = decltype(index);
      gather<T, Index>(problem, static_cast<const Raw<T>*>(input), static_cast<const Index*>(indices),
                       static_cast<Raw<T>*>(output));
    });
  });
}

}  // namespace pyconvx::cpu::PYCONVX_ISA
