// What the families of wgrad's kernels plan with, and the families.
#pragma once

#include "plan/conv/rating.h"

#include <array>

namespace pyconvx {

// Of a tile of wgrad, `pixels` are filters and `filters` a filter's elements: the rows and columns of the
// product. Its depth is in output pixels.
class WgradPlanner : public FpropPlanner {
public:
  using FpropPlanner::FpropPlanner;

  // How the reduction is split: `splits` runs of `run` units of it.
  struct Split {
    int64_t run, splits;
  };

  // The more runs, the more blocks work at once, and the more bytes of sums are written and read once more: r
  // runs take alone / r + r bytes clocks of the chip that all reductions are split for, which is least at
  // sqrt(alone / bytes). No more than fill the chip with tiles of 128 x 128, and none of less than `shortest`
  // units. `units` are those of `images` images; runs are multiples of `step`. Of the device nothing is
  // asked.
  Split split(int64_t images, int64_t units, int64_t step, int64_t shortest) const;

  // Launches over all images, by as many at a time as a kernel can count the pixels of, and the sums'
  // addition. `units` says how many units of the reduction so many images have, `blocks` how many blocks a
  // split takes.
  template <class Units, class Blocks>
  void add_wgrad(const Kernel& kernel, WgradArguments args, int64_t most_images, int64_t step,
                 int64_t shortest, Units units, Blocks blocks, int block, int shared_bytes) {
    std::vector<Part> parts;
    for (int64_t first = 0; first < x.n; first += most_images) {
      const int64_t images = std::min(most_images, x.n - first);
      const Split runs = split(images, units(images), step, shortest);
      parts.push_back({first, images, runs, std::min(blocks(images) * runs.splits, kMostBlocks)});
    }
    add_parts(kernel, args, parts, block, shared_bytes);
  }

  // A tile that works through `slices` of each split, in tiles of so many columns.
  Candidate rate_tile(const TileShape&, const Split&, int64_t slices, int64_t columns, const SliceWork&,
                      int resident, double latency) const;

  // Bytes that gradients and activations are read by. Ahead of time there are kernels for whole vectors of
  // both, and for single elements of both.
  std::array<int, 2> vectors() const;
  // By a gather, which copies vectors of any taps where it can.
  std::array<int, 2> gather_vectors() const;

  // How the columns of the product are those of the window: wgrad.cuh.
  struct Columns {
    int64_t of_row, lead;  // of a row of the window, and of them before its first element
    int64_t all(const Conv2dProblem& x) const { return x.r * of_row; }
  };
  Columns window_columns() const { return window_columns(gather_vectors()[1]); }

  // As template arguments: does a kernel sum the bias, and does it mask? Those that are compiled ahead of
  // time do the first if they are asked, and never the second.
  std::string flags() const {
    return text(x.bias || options.ahead_of_time ? "true" : "false", x.masked ? ", true" : "");
  }

  // What the kernels that copy slices keep of them, and of where they come from: wgrad.cuh.
  int shared_bytes(const TileShape&) const;

  // All that does not depend on a tile.
  WgradArguments wgrad_arguments() const;

  // A tile that was asked for where there is but one.
  bool has_no_tiles(const char* family);

  int64_t group_channels() const { return x.c / x.groups; }
  int64_t group_filters() const { return x.k / x.groups; }
  int64_t columns() const { return x.r * x.s * group_channels(); }
  int number_bytes() const { return bytes == 8 ? 8 : 4; }  // of a sum

private:
  Columns window_columns(int vector) const;
  int window_vector() const;
  std::array<int, 2> compiled(int y, int x) const;

  struct Part {
    int64_t first, images;
    Split runs;
    int64_t grid;
  };
  void add_parts(const Kernel& kernel, WgradArguments args, const std::vector<Part>& parts, int block,
                 int shared_bytes);
  void add_sum(int64_t splits, int64_t split_size, int64_t bias_at);
};

// For a gather in such tiles.
void set_wgrad_tiles(WgradArguments&, const Conv2dProblem&, const TileShape&, const WgradPlanner::Columns&);

// A tile as the kernels' template argument.
std::string wgrad_tile(const TileShape&);

bool has_wgrad_patch(const Conv2dProblem&);  // is there a patch kernel for it?
bool never_outside(const Conv2dProblem&);    // one tap, stride 1, no padding

std::string plan_wgrad_tensor_core(WgradPlanner&);
std::string plan_wgrad_patch(WgradPlanner&);
std::string plan_wgrad_ffma(WgradPlanner&);
std::string plan_wgrad_depthwise(WgradPlanner&);
std::string plan_wgrad_plain(WgradPlanner&);

// Adds the kernels that are compiled ahead of time: of a family, and those that all share.
void list_wgrad_tensor_core(std::vector<Kernel>&);
void list_wgrad_patch(std::vector<Kernel>&);
void list_wgrad_ffma(std::vector<Kernel>&);
void list_wgrad_depthwise(std::vector<Kernel>&);
void list_wgrad_plain(std::vector<Kernel>&);
void list_wgrad_sum(std::vector<Kernel>&);

}  // namespace pyconvx
