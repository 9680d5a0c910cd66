// Launches whose threads sweep over the places of images; see kernels/cuda/pool/sweep.cuh.
#pragma once

#include "../../../kernels/cuda/pool/sweep.cuh"
#include "plan/plan.h"
#include "plan/words.h"

#include <algorithm>

namespace pyconvx {

constexpr int kSweepThreads = 256;                         // of a block
constexpr int64_t kMostSwept = (int64_t{1} << 31) - 1024;  // threads of a launch

// What a kernel's threads are divided over.
struct SweepExtent {
  int64_t images, rows, columns, chunks;

  int64_t line() const { return columns * chunks; }  // threads of a row
};

// A pointer of a sweeping kernel's arguments, and how far apart two images lie there.
struct SweptBuffer {
  std::string buffer;
  size_t at;
  int64_t image_bytes;
};

// Adds the launches: one, or where there are 2^31 threads or more one for as many images as have fewer; or
// for as many rows of one image. Arguments have a member `sweep`.
template <class Arguments>
void add_sweep(LaunchPlan& plan, const std::string& kernel, const char* header, Arguments args,
               const SweepExtent& extent, const std::vector<SweptBuffer>& buffers) {
  const auto narrow = [](int64_t size) { return static_cast<unsigned>(size); };
  const int64_t most_lines = kMostSwept / extent.line();
  const int64_t most_images = std::max<int64_t>(1, std::min(extent.images, most_lines / extent.rows));
  args.sweep.by_line = division_by(narrow(extent.line()));
  args.sweep.by_chunks = division_by(narrow(extent.chunks));
  args.sweep.by_rows = division_by(narrow(extent.rows));
  for (int64_t image = 0; image < extent.images; image += most_images) {
    const int64_t lines = std::min(most_images, extent.images - image) * extent.rows;
    for (int64_t line = 0; line < lines; line += most_lines) {
      args.sweep.first_image = image;
      args.sweep.first_line = narrow(line);
      args.sweep.threads = narrow(std::min(most_lines, lines - line) * extent.line());
      Launch launch{
          kernel,         header, {ceil_div(args.sweep.threads, kSweepThreads), 1, 1}, kSweepThreads, 0,
          bytes_of(args), {}};
      for (const SweptBuffer& buffer : buffers)
        launch.pointers.push_back({buffer.buffer, buffer.at, image * buffer.image_bytes});
      plan.launches.push_back(std::move(launch));
    }
  }
}

inline std::string no_tile(const char* op, const std::string& tile) {
  return text(op, ": there is no tile ", tile,
              " for this window; leave the tile open, or take one of the plan's candidates");
}

// A value as kernels spell it that move it and compute nothing with it.
inline const char* value_name(int bytes) {
  return bytes == 8 ? "unsigned long long" : bytes == 4 ? "unsigned int" : "unsigned short";
}

// How many neighbouring channels a thread accesses at once: as many as 16 bytes hold of every type, of which
// `element_bytes` has the sizes; as alignment and the number of channels allow.
inline int64_t channels_at_once(int64_t channels, std::initializer_list<int64_t> element_bytes,
                                int alignment) {
  const int64_t widest = std::max(element_bytes);
  int64_t count = std::max<int64_t>(1, std::min<int64_t>(16, alignment) / widest);
  while (channels % count) count /= 2;
  return count;
}

}  // namespace pyconvx
