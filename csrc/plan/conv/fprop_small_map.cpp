// Small maps: warps as slices of channel blocks of 128 bytes. Those blocks, the slices and the splits make
// the order of summation; they follow from the filter, the map and the dtype.
#include "plan/conv/patch.h"
#include "plan/conv_arguments.h"

#include <algorithm>

namespace pyconvx {
namespace {

constexpr int64_t kSmallMap = 256;  // pixels of output

const std::vector<PatchTileShape>& tiles() {
  static const std::vector<PatchTileShape> table = {
      // pixels, filters, chunks, warps: of pixels, of filters, of channels, stages
      {128, 64, 8, 2, 1, 4, 3},
      {64, 128, 8, 1, 2, 4, 3},
      {64, 64, 8, 1, 1, 4, 3},
      {64, 32, 8, 1, 1, 4, 3},
  };
  return table;
}

bool is_common(const PatchTileShape& tile, int) {
  return tile.pixels == 64 && tile.filters == 64;
}

PatchFamily family() {
  return {"fprop_small_map", tiles(), false, is_common};
}

const PatchTileShape& common_tile() {
  return *std::find_if(tiles().begin(), tiles().end(),
                       [](const PatchTileShape& tile) { return is_common(tile, 16); });
}

// One image has few tiles. Where each has a long way to go, several blocks share it: about 1152 products of
// each output for one, as 128 channels of a 3 x 3 window have.
int64_t splits(const Conv2dProblem& x) {
  const int64_t blocks = ceil_div(x.c / x.groups, tiles()[0].depth(element_bytes(x.dtype)));
  const int64_t reduction = x.r * x.s * (x.c / x.groups), tiles_of_image = ceil_div(x.p() * x.q(), 64);
  const int64_t wanted = std::clamp<int64_t>(reduction / (1152 * tiles_of_image), 1, blocks);
  return ceil_div(blocks, ceil_div(blocks, wanted));
}

// The partial sums' workspace, and the kernel that adds them.
void add_sum(FpropPlanner& planner, Conv2dArguments args) {
  const Conv2dProblem& x = planner.x;
  const int64_t vectors = ceil_div(x.k / x.groups, 16 / planner.bytes);
  const auto blocks = [&](const Conv2dArguments& args) {
    return std::min(ceil_div(args.pixels * x.groups * vectors, 256), kMostBlocks);
  };
  const int64_t most_images = kMostPixels / (x.p() * x.q() * x.groups * vectors);
  planner.add_launches({text("pyconvx::sum_splits<", element_name(x.dtype, planner.options.tf32), ">"),
                        "conv/fprop_small_map.cuh"},
                       args, blocks, 256, 0, std::max<int64_t>(1, most_images));
}

}  // namespace

bool runs_small_map(const Conv2dProblem& x, bool tf32) {
  return !is_ffma(x.dtype, tf32) && x.p() * x.q() <= kSmallMap && suits_patch(x, common_tile(), tf32);
}

void list_fprop_small_map(std::vector<Kernel>& kernels) {
  list_kernels(family(), kernels);
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::tf32"})
    kernels.push_back({text("pyconvx::sum_splits<", element, ">"), "conv/fprop_small_map.cuh"});
}

std::string plan_fprop_small_map(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  const int64_t parts = splits(x);
  std::optional<ChosenPatch> chosen = choose_patch(planner, family(), parts);
  if (!chosen) return planner.no_tile();
  if (parts > 1) {
    const int64_t pitch =
        int64_t{chosen->arguments.by_filter_tiles.divisor} * chosen->tile->filters;  // of all groups
    PatchArguments& patch = chosen->arguments.patch;
    patch.partial_pitch = static_cast<int>(pitch);
    patch.by_vectors = division_by(static_cast<unsigned>(ceil_div(x.k / x.groups, 16 / planner.bytes)));
    patch.by_groups = division_by(static_cast<unsigned>(x.groups));
    planner.add_partial_sums(x.p() * x.q() * parts * pitch * 4);
  }
  add_launches(planner, *chosen);
  if (parts > 1) add_sum(planner, chosen->arguments);
  return {};
}

}  // namespace pyconvx
