// Tiles whose blocks keep a patch of the input in shared memory (kernels/cuda/conv/patch.cuh), and how a
// problem's patches lie in them.
#pragma once

#include "plan/conv/rating.h"

#include <optional>

namespace pyconvx {

// pixels x filters outputs; channel blocks of `chunks` times 16 bytes; warps that share pixels, filters and
// channels; the filters of `stages` taps in shared memory.
struct PatchTileShape {
  int pixels, filters, chunks;
  int warps_m, warps_n, slices, stages;

  int threads() const { return 32 * warps_m * warps_n * slices; }
  int depth(int element_bytes) const { return chunks * 16 / element_bytes; }  // elements of a channel block
  int rows_at_once() const { return threads() / chunks; }
  std::string name(int element_bytes) const;  // "128x128x32"
  std::string spelled() const;                // as the kernels' template argument
};

// A problem's patches in a tile, with bands of a certain width.
struct PatchFit {
  PatchArguments arguments;
  int round, copies;  // taps of the loop's body, and pieces of the next patch that go with each
  int shared_bytes;
  int64_t image_pixels;  // of one image, numbered as tiles are: bands may reach past Q
  double copied_pixels;  // of input, on average for a tile
};

// Rounds and copies that a kernel has, the best first.
using Rounds = std::vector<std::array<int, 2>>;

// What multiplies: tensor cores, or FFMA where float32 is to be that.
bool is_ffma(DType, bool tf32);

// Those that kernels are compiled for ahead of time, with a vector length.
Rounds rounds_ahead_of_time(bool ffma, int vector);

// Empty if it doesn't fit shared memory that some chip has, or isn't there in time with any of the rounds.
// Where kernels mask what they load, threads keep outputs of a ReLU for it.
std::optional<PatchFit> fit_patch(const Conv2dProblem&, const PatchTileShape&, int64_t band, bool masked,
                                  const Rounds&);

// The widths worth trying.
std::vector<int64_t> bands(const Conv2dProblem&);

// Can a patch be kept at all, and are few channels added up in vain?
bool suits_patch(const Conv2dProblem&, const PatchTileShape& smallest, bool tf32);

// The kernels of a family: pyconvx::<name><element, tile, round, copies, vector>, declared in
// conv/<name>.cuh.
struct PatchFamily {
  const char* name;
  const std::vector<PatchTileShape>& tiles;
  bool ffma;
  bool (*is_common)(const PatchTileShape&, int vector);  // compiled ahead of time?
};

void list_kernels(const PatchFamily&, std::vector<Kernel>&);

// The family's tile for a problem, of which `splits` runs of channels are computed by blocks of their own.
struct ChosenPatch {
  const PatchTileShape* tile;
  PatchFit fit;
  Kernel kernel;
  Conv2dArguments arguments;
};
std::optional<ChosenPatch> choose_patch(FpropPlanner&, const PatchFamily&, int64_t splits);

// Launches all blocks of it, for each split.
void add_launches(FpropPlanner&, const ChosenPatch&);

}  // namespace pyconvx
