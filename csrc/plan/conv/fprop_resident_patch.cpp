// A patch of the input for all taps. Channel blocks of 64 bytes in every tile: they make the order of
// summation.
#include "plan/conv/patch.h"

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

// For aligned channels, and to copy element by element.
bool is_common(const PatchTileShape& tile, int vector) {
  return (tile.pixels == 64 && tile.filters == 32) ||
         (vector == 16 && tile.pixels == 128 && (tile.filters == 128 || tile.filters == 64));
}

PatchFamily family() {
  return {"fprop_resident_patch", tiles(), is_common};
}

}  // namespace

bool runs_resident_patch(const Conv2dProblem& x, bool tf32) {
  return suits_patch(x, tiles().back(), tf32);
}

void list_fprop_resident_patch(std::vector<Kernel>& kernels) {
  list_kernels(family(), kernels);
}

std::string plan_fprop_resident_patch(FpropPlanner& planner) {
  const std::optional<ChosenPatch> chosen = choose_patch(planner, family(), 1);
  if (!chosen) return planner.no_tile();
  add_launches(planner, *chosen);
  return {};
}

}  // namespace pyconvx
