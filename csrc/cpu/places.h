// Stored indices decoded into places: 16-bit distances from the start of a chunk, which is some planes or
// some rows of windows. A vector then holds sixteen or more of them, and whatever is done with the indices
// after that is one flat loop, however small the planes are.
#pragma once

#include "cpu/simd.h"
#include "cpu/window.h"

namespace pyconvx::cpu::PYCONVX_ISA {

// A line is a row of windows; lines are counted through all planes. In NCHW a window has one element; in NHWC
// it has one for each channel, and the plane is the image. Chunks are whole planes if planes are small,
// otherwise lines of one plane.
struct Chunks {
  static constexpr int64_t kMost = 0xfffe;    // the largest place; 0xffff is none
  static constexpr int64_t kElements = 2048;  // of a chunk; with what is read and written that fills L1
  static constexpr int64_t kPlane = 4096;     // elements of what counts as a small plane
  static constexpr int64_t kFewestLines = 8;  // of a chunk, which may have to look at lines of the next

  Axis rows, columns;
  int64_t channels;
  int64_t run;        // elements of a line
  bool planes;        // are chunks whole planes?
  int64_t max_lines;  // of a chunk; 0 if places do not do here

  Chunks(const Axis& rows, const Axis& columns, int64_t channels)
      : rows(rows), columns(columns), channels(channels), run(columns.windows * channels),
        planes(rows.windows * run <= kPlane && rows.size * columns.size <= kMost), max_lines(0) {
    if (columns.dilation > 1 || rows.taps * columns.taps > 255) return;
    const int64_t room =
        columns.size <= kMost && rows.span() < kMost
            ? kMost / columns.size - 2 * rows.span() - 1  // in rows, besides the last window's
            : 0;
    if (room <= 0) return;
    if (planes)
      max_lines = rows.windows * max(1, min(kElements / (rows.windows * run), room / rows.size));
    else
      max_lines = min(max(kFewestLines, kElements / run), room / rows.stride);
  }

  // The first row of the plane that a line may have a tap on.
  int64_t top(int64_t p) const { return min(rows.size, max(0, rows.origin(p))); }

  // What the places of a chunk count from: a position, counted through all planes.
  int64_t base(int64_t line) const {
    return (line / rows.windows * rows.size + top(line % rows.windows)) * columns.size;
  }

  // The end of the chunk that starts with `line`.
  int64_t end(int64_t line, int64_t last) const {
    const int64_t plane_end = (line / rows.windows + 1) * rows.windows;
    return min(planes ? last : min(last, plane_end), line + max_lines);
  }
};

// Which flat indices are taken: all that point into the plane, or those that point into their own window.
enum class Reach { plane, window };

// Decodes group by group: a line, or planes. Tables hold what is the same in all groups.

template <class Index>
class Places {
public:
  static constexpr bool kFlat = std::is_same_v<Index, int64_t>;
  static constexpr int64_t kWidth = kLanes<uint16_t>;

  Places(const Chunks& chunks, Reach reach)
      : rows_(chunks.rows), columns_(chunks.columns), chunks_(chunks), reach_(reach),
        lines_(chunks.planes ? rows_.windows * max(1, kGroup / (rows_.windows * chunks.run)) : 1),
        size_(lines_ * chunks.run), first_(size_ + kWidth), width_(size_ + kWidth), last_(size_ + kWidth),
        plane_(size_ + kWidth) {
    if (chunks.planes) fill_tables(0);
  }

  // The places of lines [line, end), counted from `base`; false if some index is not taken. Places are inside
  // the tensor whatever the indices are. Writes up to kWidth elements more.
  bool decode(const Index* indices, int64_t line, int64_t end, int64_t base, uint16_t* places) {
    bool good = true;
    for (; line < end; line += lines_, places += size_) {
      const int64_t p = line % rows_.windows, lines = min(lines_, end - line);
      if (!chunks_.planes) use_tables_of(p);
      const int64_t top = chunks_.top(p) * columns_.size, plane = rows_.size * columns_.size;
      const int64_t extent = chunks_.planes ? lines / rows_.windows * plane : plane - top;
      const auto offset = static_cast<uint16_t>(chunks_.base(line) - base);
      good &= decode_group(indices + line * chunks_.run, lines * chunks_.run, top, extent, offset, places);
    }
    return good;
  }

private:
  static constexpr int64_t kGroup = 256;  // elements, at least, that keep a loop busy

  // Lines that lie alike share their tables.
  void use_tables_of(int64_t p) {
    const int64_t first = rows_.first_tap(p), end = rows_.end_tap(p), above = min(0, rows_.origin(p));
    if (first == first_tap_ && end == end_tap_ && above == above_) return;
    first_tap_ = first, end_tap_ = end, above_ = above;
    fill_tables(p);
  }

  // For the group that begins with line p of a plane. For offsets, the place of each window's first tap,
  // which may be outside the plane. For flat indices, the place of its first tap inside, how far the others
  // are, and where the plane begins.
  void fill_tables(int64_t first_line) {
    const int64_t top = chunks_.top(first_line);
    int64_t i = 0;
    for (int64_t line = first_line; line < first_line + lines_; ++line) {
      const int64_t p = line % rows_.windows, plane = line / rows_.windows * rows_.size * columns_.size;
      const int64_t first_r = kFlat ? rows_.first_tap(p) : 0, more_r = rows_.end_tap(p) - first_r - 1;
      const int64_t h = rows_.origin(p) + first_r * rows_.dilation - top;
      for (int64_t q = 0; q < columns_.windows; ++q) {
        const int64_t first_s = kFlat ? columns_.first_tap(q) : 0, more_s = columns_.end_tap(q) - first_s - 1;
        const bool empty = kFlat && (more_r < 0 || more_s < 0);  // then no place is near
        const int64_t place = h * columns_.size + columns_.origin(q) + first_s;
        const int64_t last = more_r * rows_.dilation * columns_.size + more_s;
        for (int64_t c = 0; c < chunks_.channels; ++c, ++i) {
          first_[i] = static_cast<uint16_t>(empty ? 0xffff : kFlat ? place : place + plane);
          width_[i] = static_cast<uint16_t>(empty ? 0 : more_s);
          last_[i] = static_cast<uint16_t>(empty ? 0 : last);
          plane_[i] = static_cast<uint16_t>(plane);
        }
      }
    }
  }

  // `count` elements, whose places begin at `top` in the plane and at `offset` in the chunk.
  bool decode_group(const Index* index, int64_t count, int64_t top, int64_t extent, uint16_t offset,
                    uint16_t* places) {
    if constexpr (kFlat) {
      const auto most = static_cast<uint64_t>(min(rows_.size * columns_.size - top - 1, Chunks::kMost));
      uint64_t outside = 0;  // its sign says whether any is
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t from = static_cast<uint64_t>(index[i]), place = from - static_cast<uint64_t>(top);
        outside |= from | place | (most - place);
        places[i] = static_cast<uint16_t>(place);
      }
      if (static_cast<int64_t>(outside) < 0) return false;
      return reach_ == Reach::window ? move<true>(count, offset, places) : move<false>(count, offset, places);
    } else {
      const uint16_t* first = first_;
      const auto across = static_cast<uint32_t>(columns_.taps);
      const auto taps = static_cast<uint32_t>(columns_.taps * rows_.taps);
      const uint32_t reciprocal = (0xffff + across) / across;  // exact for codes of a byte
      const auto next_row = static_cast<uint16_t>(rows_.dilation * columns_.size - columns_.taps);
      uint16_t farthest = 0, highest = 0;
      uint32_t high_bits = 0;
      for (int64_t i = 0; i < count; ++i) {
        const auto code = static_cast<uint16_t>(index[i]);
        highest = code > highest ? code : highest;
        if constexpr (sizeof(Index) > 1) high_bits |= static_cast<uint32_t>(index[i]);
        const auto row = static_cast<uint16_t>(code * reciprocal >> 16);
        const auto place = static_cast<uint16_t>(first[i] + code + row * next_row);
        farthest = place > farthest ? place : farthest;
        places[i] = static_cast<uint16_t>(place + offset);
      }
      return highest < taps && high_bits < 256 && farthest < min(extent, Chunks::kMost + 1);
    }
  }

  // Makes places that count from the plane's start, or from a line's, count from the chunk's. False if kOwn
  // and some are not in their own windows.
  template <bool kOwn>
  bool move(int64_t count, uint16_t offset, uint16_t* places) {
    using V = Vector<uint16_t>;
    const V down = broadcast(static_cast<uint16_t>(rows_.dilation * columns_.size)), away = broadcast(offset);
    const int64_t taps = rows_.taps;
    Vector<int16_t> bad{};
    for (int64_t i = count; i < count + kWidth; ++i)
      places[i] = first_[i];  // what vectors see beyond the end
    for (int64_t i = 0; i < count; i += kWidth) {
      const V place = load<uint16_t>(places + i);
      if constexpr (kOwn) {
        const V width = load<uint16_t>(width_ + i);
        V distance = place - load<uint16_t>(first_ + i);
        const Vector<int16_t> far = distance > load<uint16_t>(last_ + i);
        Vector<int16_t> outside = distance > width;
        for (int64_t r = 1; r < taps; ++r) {
          distance -= down;
          outside &= distance > width;
        }
        bad |= far | outside;
      }
      store<uint16_t>(places + i, place + load<uint16_t>(plane_ + i) + away);
    }
    bool good = true;
    for (int lane = 0; lane < kWidth; ++lane) good &= !bad[lane];
    return good;
  }

  Axis rows_, columns_;
  Chunks chunks_;
  Reach reach_;
  int64_t lines_, size_;  // of a group, and their elements
  Scratch<uint16_t> first_, width_, last_, plane_;
  int64_t first_tap_ = -1, end_tap_ = -1, above_ = 1;  // of the line that the tables are of
};

}  // namespace pyconvx::cpu::PYCONVX_ISA
