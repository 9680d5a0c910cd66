// A patch of the input for all taps. Channel blocks of 64 bytes in every tile: they make the order of
// summation.
#include "plan/conv/patch.h"
#include "plan/conv_arguments.h"

#include <map>

namespace pyconvx {
namespace {

const std::vector<PatchTileShape>& tiles() {
  static const std::vector<PatchTileShape> table = {
      // pixels, filters, chunks, warps: of pixels, of filters, of channels, stages
      {256, 128, 4, 4, 2, 1, 3}, {128, 256, 4, 2, 4, 1, 3}, {256, 64, 4, 4, 1, 1, 3},
      {128, 128, 4, 2, 2, 1, 3}, {128, 64, 4, 4, 1, 1, 3},  {64, 128, 4, 1, 4, 1, 3},
      {128, 32, 4, 4, 1, 1, 3},  {64, 64, 4, 2, 2, 1, 3},   {64, 32, 4, 4, 1, 1, 3},
  };
  return table;
}

// Of all tiles, those that are compiled ahead of time: for aligned channels, and to copy element by element.
bool is_common(const PatchTileShape& tile, int vector) {
  return (tile.pixels == 64 && tile.filters == 32) ||
         (vector == 16 && tile.pixels == 128 && (tile.filters == 128 || tile.filters == 64));
}

bool copies_elements(const PatchTileShape& tile) {
  // Elements that are copied one by one need registers, which the largest tiles have not to spare.
  return tile.pixels * tile.filters <= 64 * tile.threads();
}

Kernel kernel_of(const char* element, const PatchTileShape& tile, int round, int copies, int vector) {
  return {text("pyconvx::fprop_resident_patch<", element, ", ", tile.spelled(), ", ", round, ", ", copies,
               ", ", vector, ">"),
          "conv/fprop_resident_patch.cuh"};
}

}  // namespace

bool runs_resident_patch(const Conv2dProblem& x, bool tf32) {
  return suits_patch(x, tiles().back(), tf32);
}

void list_fprop_resident_patch(std::vector<Kernel>& kernels) {
  for (const char* element : {"pyconvx::f16", "pyconvx::bf16", "pyconvx::tf32"})
    for (int vector : {16, element == std::string("pyconvx::tf32") ? 4 : 2})
      for (const PatchTileShape& tile : tiles())
        for (const auto& [round, copies] : rounds_and_copies_ahead_of_time(vector))
          if (is_common(tile, vector)) kernels.push_back(kernel_of(element, tile, round, copies, vector));
}

std::string plan_fprop_resident_patch(FpropPlanner& planner) {
  const Conv2dProblem& x = planner.x;
  const bool ahead_of_time = planner.options.ahead_of_time;
  planner.plan.family = "fprop_resident_patch";
  int vector = common_vector(x.c / x.groups, planner.bytes, planner.options.alignment);
  if (ahead_of_time && vector < 16) vector = planner.bytes;
  std::map<const PatchTileShape*, PatchFit> fits;
  const PatchTileShape* tile = planner.choose(tiles(), [&](const PatchTileShape& tile) {
    Candidate candidate;
    const bool no_kernel = ahead_of_time ? !is_common(tile, vector) : vector < 4 && !copies_elements(tile);
    if (no_kernel) return candidate;
    if (const std::optional<RatedPatch> rated = rate_patch(planner, tile, vector, 1)) {
      fits[&tile] = rated->fit;
      candidate = rated->candidate;
    }
    return candidate;
  });
  if (!tile) return planner.no_tile();
  const PatchFit& fit = fits.at(tile);
  Conv2dArguments args = planner.arguments();
  set_filter_tiles(args, tile->filters);
  args.patch = fit.arguments;
  args.patch.splits = 1;
  args.patch.blocks = static_cast<int>(ceil_div(x.c / x.groups, tile->depth(planner.bytes)));
  const Kernel kernel =
      kernel_of(element_name(x.dtype, planner.options.tf32), *tile, fit.round, fit.copies, vector);
  const auto blocks = [&](const Conv2dArguments& args) {
    return ceil_div(args.n * fit.image_pixels, tile->pixels) * args.by_filter_tiles.divisor;
  };
  planner.add_launches(kernel, args, blocks, tile->threads(), fit.shared_bytes,
                       std::max<int64_t>(1, kMostPixels / fit.image_pixels));
  return {};
}

}  // namespace pyconvx
