// Launches whose blocks own rows of planes; see kernels/cuda/pool/bands.cuh.
#pragma once

#include "../../../kernels/cuda/pool/bands.cuh"
#include "plan/pool/sweep.h"

#include <cmath>
#include <functional>
#include <optional>

namespace pyconvx {

constexpr int kBandThreads = 256;             // of a block
constexpr int64_t kMostBandBytes = 48 << 10;  // of shared memory, which every chip gives a block unasked

// A run that a block has in shared memory.
struct BandRun {
  int64_t row_bytes;
  // How many rows, at most, for so many rows of what the block owns that begin in one plane and end in the
  // `planes`-th from it.
  std::function<int64_t(int64_t owned, int64_t planes)> rows;
};

// Rows that a block reads where row p of a plane needs `extent` rows from p step + constant on.
inline BandRun rows_under(int64_t row_bytes, int64_t image_rows, int64_t owned_in_image, int64_t step,
                          int64_t extent) {
  return {row_bytes, [=](int64_t owned, int64_t planes) {
            const int64_t between = std::max<int64_t>(0, image_rows - owned_in_image * step);
            return std::min((owned - 1) * step + extent + planes * between, (planes + 1) * image_rows);
          }};
}

struct BandChoice {
  int64_t rows = 0;  // 0: no band fits, or none is the tile that was asked for
  int64_t starts[4] = {};
  int64_t shared_bytes = 0;
};

// How many rows a block has. More of them share more of what they read, and leave fewer blocks. The model:
// memory is busy while each SM has 32 KB on their way, of which every block asks for what it reads, and half
// of its threads; a block keeps an SM's issue slots for 300 clocks at least, and, as it reads, waits,
// computes and writes, takes 2000 clocks. Of equals, the larger. Bands whose runs begin at multiples of 16
// bytes have no pieces that two blocks share. Candidates are added to the plan.
inline BandChoice choose_band(LaunchPlan& plan, int64_t images, int64_t rows, int64_t columns,
                              const std::vector<BandRun>& read, const std::vector<BandRun>& written,
                              const Device& device, const std::string& tile) {
  BandChoice best;
  double least = 0;
  std::vector<int64_t> counts;
  for (int64_t count = 1; count < rows; count *= 2) counts.push_back(count);
  for (int64_t planes = 1; planes == 1 || planes <= images; planes *= 2) counts.push_back(rows * planes);
  for (int64_t count : counts) {
    const int64_t planes = count % rows == 0 ? count / rows - 1 : rows % count == 0 ? 0 : 1;
    BandChoice choice{count, {}, 0};
    double in = 0, out = 0;
    int run = 0;
    const auto place = [&](const BandRun& each) {
      const int64_t bytes = each.rows(count, planes) * each.row_bytes;
      choice.starts[run++] = choice.shared_bytes;
      choice.shared_bytes += ceil_div(bytes + 15, 16) * 16;
      return static_cast<double>(bytes);
    };
    for (const BandRun& each : read) in += place(each);
    for (const BandRun& each : written) {
      out += place(each);
      if (count * each.row_bytes % 16) out += 64;
    }
    if (choice.shared_bytes > kMostBandBytes) break;
    const int64_t resident = std::min<int64_t>(device.shared_per_sm / (choice.shared_bytes + 1024),
                                               device.threads_per_sm / kBandThreads);
    const double blocks = static_cast<double>(ceil_div(images * rows, count));
    const double waves = blocks / static_cast<double>(resident * device.sms);
    const double active = std::min<double>(device.sms, blocks);
    double busy = 1;  // if all blocks are there at once, all of their reads are on their way
    if (waves > 1)
      busy = std::min(1.0, in * static_cast<double>(resident) / (32 << 10)) *
             std::min(1.0, static_cast<double>(resident) * kBandThreads / (device.threads_per_sm / 2.0));
    constexpr double kBytesPerClock = 14;  // from DRAM, for each SM, within a fifth of every chip's
    const double each = waves > 1 ? blocks / active : std::ceil(blocks / active);  // of an SM
    const double moving = each * (in + out) / kBytesPerClock / busy;
    const double waiting = 2000 * std::max(0.0, waves - 1), issuing = 300 * each;
    const Candidate candidate{text(count, "x", columns), static_cast<int>(resident), waves,
                              2000 + std::max({moving, waiting, issuing})};
    plan.candidates.push_back(candidate);
    if (tile.empty() ? best.rows && candidate.clocks > least : candidate.tile != tile) continue;
    best = choice, least = candidate.clocks;
    plan.tile = candidate.tile;
  }
  return best;
}

// Adds the launches: one, or where planes have 2^31 rows or more several. Arguments have a member `bands`.
template <class Arguments>
void add_bands(LaunchPlan& plan, const Kernel& kernel, Arguments args, const BandChoice& choice,
               int64_t images, int64_t rows, int64_t columns, const std::vector<SweptBuffer>& buffers) {
  const auto narrow = [](int64_t size) { return static_cast<int>(size); };
  const int64_t most_images = std::max<int64_t>(1, kMostSwept / rows);
  args.bands.rows = narrow(choice.rows);
  args.bands.second = narrow(choice.starts[1]), args.bands.third = narrow(choice.starts[2]);
  args.bands.fourth = narrow(choice.starts[3]);
  args.bands.by_rows = division_by(static_cast<unsigned>(rows));
  args.bands.by_columns = division_by(static_cast<unsigned>(columns));
  for (int64_t image = 0; image < images; image += most_images) {
    args.bands.first_image = image;
    args.bands.images = narrow(std::min(most_images, images - image));
    args.bands.all_rows = narrow(args.bands.images * rows);
    Launch launch{kernel.name,
                  kernel.header,
                  {ceil_div(args.bands.all_rows, choice.rows), 1, 1},
                  kBandThreads,
                  narrow(choice.shared_bytes),
                  bytes_of(args),
                  {}};
    for (const SweptBuffer& buffer : buffers)
      launch.pointers.push_back({buffer.buffer, buffer.at, image * buffer.image_bytes});
    plan.launches.push_back(std::move(launch));
  }
}

}  // namespace pyconvx
