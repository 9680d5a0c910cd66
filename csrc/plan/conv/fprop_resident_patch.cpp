// A patch of the input for all taps. Channel blocks of 64 bytes in every tile: they make the order of
// summation.
#include "plan/conv/patch.h"

namespace pyconvx {
namespace {

// pixels, filters, chunks, warps: of pixels, of filters, of channels, stages
const std::vector<PatchTileShape>& tiles(bool ffma) {
  static const std::vector<PatchTileShape> of_tensor_cores = {
      {256, 128, 4, 4, 2, 1, 3}, {128, 256, 4, 2, 4, 1, 3}, {256, 64, 4, 4, 1, 1, 3},
      {128, 128, 4, 2, 2, 1, 3}, {128, 64, 4, 4, 1, 1, 3},  {64, 128, 4, 1, 4, 1, 3},
      {128, 32, 4, 4, 1, 1, 3},  {64, 64, 4, 2, 2, 1, 3},   {64, 32, 4, 4, 1, 1, 3},
  };
  static const std::vector<PatchTileShape> of_ffma = {
      {256, 64, 4, 8, 1, 1, 3}, {128, 128, 4, 4, 2, 1, 3}, {128, 64, 4, 4, 1, 1, 3},
      {64, 128, 4, 2, 2, 1, 3}, {64, 64, 4, 2, 1, 1, 3},   {32, 64, 4, 1, 1, 1, 3},
  };
  return ffma ? of_ffma : of_tensor_cores;
}

// For aligned channels, and to copy element by element.
bool is_common(const PatchTileShape& tile, int vector) {
  return (tile.pixels == 64 && tile.filters == 32) ||
         (vector == 16 && tile.pixels == 128 && (tile.filters == 128 || tile.filters == 64));
}

bool is_common_ffma(const PatchTileShape& tile, int vector) {
  return tile.pixels == 32 || (vector == 16 && tile.pixels == 128 && tile.filters == 64);
}

PatchFamily family(bool ffma) {
  return {"fprop_resident_patch", tiles(ffma), ffma, ffma ? is_common_ffma : is_common};
}

}  // namespace

bool runs_resident_patch(const Conv2dProblem& x, bool tf32) {
  return suits_patch(x, tiles(is_ffma(x.dtype, tf32)).back(), tf32);
}

void list_fprop_resident_patch(std::vector<Kernel>& kernels) {
  for (bool ffma : {false, true}) list_kernels(family(ffma), kernels);
}

std::string plan_fprop_resident_patch(FpropPlanner& planner) {
  const bool ffma = is_ffma(planner.x.dtype, planner.options.tf32);
  const std::optional<ChosenPatch> chosen = choose_patch(planner, family(ffma), 1);
  if (!chosen) return planner.no_tile();
  add_launches(planner, *chosen);
  return {};
}

}  // namespace pyconvx
