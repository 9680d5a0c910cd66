// What the families of forward convolution's kernels plan with, and the families.
//
// A family's file has its tiles, what they need of a chip, a model of the time that a problem takes with
// each, and the function that turns the tile chosen into launches.
#pragma once

#include "../../../kernels/cuda/conv/arguments.cuh"
#include "plan/builder.h"

#include <algorithm>
#include <optional>

namespace pyconvx {

constexpr int64_t kIndexLimit = int64_t{1} << 31;    // of index arithmetic in 31 bits
constexpr int64_t kMostPixels = kIndexLimit - 1024;  // of a launch: the last tile may reach past them

constexpr int64_t kMostTaps = 31;  // R + S: a gather has one bit for each row and column of a window

// Shared memory that every chip has that runs these kernels, and that a block gets without asking for more.
constexpr int64_t kSharedEverywhere = 99 << 10, kSharedByDefault = 48 << 10;
constexpr int64_t kSharedOfLargest = 227 << 10;  // of a block, on the chip that has most

// A block's share: pixels x filters outputs, depth elements of the reduction at a time, stages slices in
// shared memory, warps_m x warps_n warps.
struct TileShape {
  int pixels, filters, depth;
  int warps_m, warps_n, stages;

  int threads() const { return 32 * warps_m * warps_n; }
  std::string name() const;     // "128x128x32"
  std::string spelled() const;  // as the kernels' template argument
};

// What stands for the operands of a convolution: the operation's own tensors, or what another operation uses
// it on. Bytes are skipped from the start of the filters' buffer.
struct FpropOperands {
  std::string input = "input", filter = "filter", output = "output", bias = "bias", residual = "residual";
  std::string relu_output = "relu_output";
  int64_t filter_skip = 0;
};

// Outputs that are a part of a larger tensor's pixels: rows first_h + p step_h of h, columns likewise.
struct Spread {
  int64_t h, w, first_h, first_w, step_h, step_w;
};

class FpropPlanner : public PlanBuilder {
public:
  FpropPlanner(const Conv2dProblem&, const Device&, const PlanOptions&);

  const Conv2dProblem& x;
  const Device& device;
  const PlanOptions& options;
  const int bytes;  // of an element
  FpropOperands operands;
  std::optional<Spread> spread;
  bool masked = false;  // is the input a gradient that kernels mask by the output of a ReLU as they load it?

  // The problem's sizes as kernels take them, all but the pointers and what depends on a tile.
  Conv2dArguments arguments() const;

  // The kernel, as it is compiled for that: its last template argument says whether it masks.
  Kernel loading(Kernel kernel) const;

  // How many images a launch can count the pixels of.
  int64_t images_in_31_bits() const;

  // The tile that was asked for, or the one with the best rating; null if none can run, and `no_tile` says
  // so.
  template <class Tile, class Rate>
  const Tile* choose(const std::vector<Tile>& tiles, Rate rate) {
    const Tile* best = nullptr;
    double least = 0;
    for (const Tile& tile : tiles) {
      const Candidate candidate = rate(tile);
      if (candidate.blocks_per_sm < 1) continue;
      plan.candidates.push_back(candidate);
      const bool wanted =
          options.tile.empty() ? !best || candidate.clocks < least : candidate.tile == options.tile;
      if (!wanted) continue;
      best = &tile, least = candidate.clocks;
      plan.tile = candidate.tile;
    }
    return best;
  }
  std::string no_tile() const;

  // One launch for as many images as a kernel can count the pixels of; more than one only beyond 2^31.
  // `blocks` finishes the arguments of so many images, and says how many blocks they take.
  template <class Blocks>
  void add_launches(const Kernel& kernel, const Conv2dArguments& whole, Blocks blocks, int block,
                    int shared_bytes, int64_t most_images) {
    for (Conv2dArguments args = of_images(whole, most_images); blocks(args) > kMostBlocks && most_images > 1;
         args = of_images(whole, most_images))
      most_images /= 2;
    for (int64_t first = 0; first < x.n; first += most_images) {
      Conv2dArguments args = of_images(whole, std::min(most_images, x.n - first));
      const int64_t grid = blocks(args);
      add_launch(kernel, args, grid, block, shared_bytes, first);
    }
  }

  // A workspace for sums of parts of the reduction, so many bytes of each image, for the launches from here
  // on.
  void add_partial_sums(int64_t bytes_of_image);

private:
  Conv2dArguments of_images(const Conv2dArguments& whole, int64_t images) const;
  void add_launch(const Kernel& kernel, const Conv2dArguments& args, int64_t grid, int block,
                  int shared_bytes, int64_t first_image);

  int64_t partial_bytes_ = 0;  // of an image
};

// Bytes by which a group's channels, or its filters, can be accessed.
int common_vector(int64_t in_group, int element_bytes, int alignment);

// Adds a family's launches to the plan. What it returns says why it cannot; it is empty if it can.
std::string plan_fprop_tensor_core(FpropPlanner&);
std::string plan_fprop_resident_patch(FpropPlanner&);
std::string plan_fprop_small_map(FpropPlanner&);
std::string plan_fprop_ffma(FpropPlanner&);
std::string plan_fprop_few_channels(FpropPlanner&);
std::string plan_fprop_depthwise(FpropPlanner&);
std::string plan_fprop_plain(FpropPlanner&);

// Which problems they are for, by all but the batch and the device.
bool runs_small_map(const Conv2dProblem&, bool tf32);
bool runs_resident_patch(const Conv2dProblem&, bool tf32);

// Adds the kernels of a family that are compiled ahead of time.
void list_fprop_tensor_core(std::vector<Kernel>&);
void list_fprop_resident_patch(std::vector<Kernel>&);
void list_fprop_small_map(std::vector<Kernel>&);
void list_fprop_ffma(std::vector<Kernel>&);
void list_fprop_few_channels(std::vector<Kernel>&);
void list_fprop_depthwise(std::vector<Kernel>&);
void list_fprop_plain(std::vector<Kernel>&);

// And those that dgrad needs beside them.
void list_dgrad(std::vector<Kernel>&);

// Adds the launches of the family that is right for the problem, whose tensors are channels last.
std::string plan_fprop(FpropPlanner&);

// Do the products that index arithmetic in 31 bits needs fit, for at least one image?
bool fits_31_bits(const Conv2dProblem&);

// Why no plan can be made for the device with these options; empty if one can.
std::string device_refusal(const Conv2dProblem&, const Device&, const PlanOptions&);

// What blocks of the families that keep a window's worth in shared memory need of it.
int64_t few_channels_shared_bytes(const Conv2dProblem&);  // in the smallest tile
int64_t depthwise_shared_bytes(const Conv2dProblem&);

}  // namespace pyconvx
