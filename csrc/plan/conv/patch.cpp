#include "plan/conv/patch.h"

#include "plan/conv_arguments.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

namespace pyconvx {
namespace {

constexpr int kMostCopies = 8;  // with a tap: their table entries are in registers

int64_t round_up(int64_t x, int64_t to) {
  return ceil_div(x, to) * to;
}

// The smallest number from x on that is y modulo 8.
int64_t congruent(int64_t x, int64_t y) {
  return x + ((y - x) % 8 + 8) % 8;
}

// Any number of copies. The loop's body is a line of the window, if it is short; of FFMA, whose taps have 32
// instructions for one on tensor cores, one tap.
Rounds rounds_at_run_time(const Conv2dProblem& x, bool ffma) {
  const int64_t line = x.s == 1 ? x.r : x.s;
  const int taps = line <= 7 && !ffma ? static_cast<int>(line) : 1;
  Rounds rounds;
  for (int copies = 1; copies <= kMostCopies; ++copies) rounds.push_back({taps, copies});
  return rounds;
}

}  // namespace

std::string PatchTileShape::name(int element_bytes) const {
  return text(pixels, "x", filters, "x", depth(element_bytes));
}

std::string PatchTileShape::spelled() const {
  return text("pyconvx::PatchTile<", pixels, ", ", filters, ", ", chunks, ", ", warps_m, ", ", warps_n, ", ",
              slices, ", ", stages, ">");
}

// Every size that a kernel counts in 31 bits is bounded before it is narrowed: first by the size of a patch.
std::optional<PatchFit> fit_patch(const Conv2dProblem& x, const PatchTileShape& tile, int64_t band,
                                  bool masked, const Rounds& rounds) {
  const int64_t bands = ceil_div(x.q(), band), taps = x.r * x.s, p = x.p();
  const int64_t halo = (x.r - 1) * x.dilation_h, columns = band + (x.s - 1) * x.dilation_w;
  if (halo > 1 << 12 || columns > 1 << 12 || taps > 1 << 12) return {};

  // Lines that a run of pixels touches, and borders of strips that it crosses, at most. Runs begin with a
  // line, if lines divide them.
  const bool whole_lines = tile.pixels % band == 0;
  const int64_t lines = whole_lines ? tile.pixels / band : (tile.pixels + band - 2) / band + 1;
  const int64_t last_row = whole_lines ? p - std::gcd(lines, p) : p - 1;
  const int64_t borders = (last_row + lines - 1) / p;

  const int64_t pixel = tile.chunks + 1;  // in chunks
  const bool wraps = band % 8 != 0;
  const int64_t line = wraps ? congruent(columns * pixel, band * pixel) : columns * pixel;
  const int64_t skip = wraps ? congruent(0, -halo * line) : 0;
  const int64_t bytes = ((lines + (borders + 1) * halo) * line + borders * skip) * 16;

  const int64_t outside = std::max<int64_t>(0, halo - x.pad_top - x.pad_bottom);
  const int64_t copied_lines = lines + halo + borders * outside;
  const int64_t copied_columns = bands == 1 ? x.w : columns;
  const int64_t entries_of_line = tile.chunks == 4 ? round_up(copied_columns, 8) : copied_columns;
  const int64_t busy = ceil_div(copied_lines * entries_of_line, tile.rows_at_once());
  const int64_t taps_in_time = taps - tile.stages + 2;
  if (taps_in_time < 1) return {};
  // A round is a line of the window, or one tap.
  const int64_t line_of_window = x.s == 1 ? x.r : x.s;
  const auto suits = std::find_if(rounds.begin(), rounds.end(), [&](const std::array<int, 2>& kernel) {
    return (kernel[0] == line_of_window || kernel[0] == 1) && kernel[1] * taps_in_time >= busy;
  });
  if (suits == rounds.end()) return {};
  const auto [round, copies] = *suits;
  const int64_t passes = round_up(busy, int64_t{round} * copies) + int64_t{round} * copies;
  const int64_t outputs = masked ? int64_t{2} * copies * tile.threads() * 16 : 0;
  const int64_t shared = int64_t{tile.stages} * tile.filters * pixel * 16 + 2 * bytes +
                         passes * tile.rows_at_once() * 8 + outputs;
  // Slices hand their sums over in shared memory, two fragments of 16 x 8 floats by each lane at a time.
  const int64_t handed_over =
      tile.slices == 1 ? 0 : int64_t{2} * tile.slices * tile.warps_m * tile.filters * 64;
  const int64_t image = bands * band * p;
  if (shared > kSharedOfLargest || image >= kMostPixels || (borders + 2) * x.h >= kIndexLimit / x.w)
    return {};

  const auto division = [](int64_t by) { return division_by(static_cast<unsigned>(by)); };
  const auto narrow = [](int64_t size) { return static_cast<int>(size); };
  PatchFit fit{};
  PatchArguments& args = fit.arguments;
  args.by_band = division(band), args.by_rows = division(p), args.by_bands = division(bands);
  args.by_image_lines = division(x.h), args.by_columns = division(entries_of_line);
  args.columns = narrow(copied_columns), args.left = narrow(bands == 1 ? x.pad_left : 0);
  args.passes = narrow(passes), args.busy_passes = narrow(busy);
  args.line_pitch = narrow(line * 16), args.skip = narrow(skip * 16), args.bytes = narrow(bytes);
  const int64_t right = x.dilation_w * pixel * 16, below = x.dilation_h * line * 16;
  args.tap_step = narrow(x.s == 1 ? below : right);
  args.taps_of_line = narrow(line_of_window);
  args.line_step = narrow(x.s == 1 ? below : below - (x.s - 1) * right);
  args.one = 1;
  fit.round = round, fit.copies = copies, fit.shared_bytes = narrow(std::max(shared, handed_over));
  fit.image_pixels = image;
  // Halves of borders' lines lie outside the image; those of the left and right halo are in other bands.
  const double average_lines = static_cast<double>(tile.pixels) / static_cast<double>(band) +
                               (whole_lines ? 0 : 1) + static_cast<double>(halo);
  fit.copied_pixels = average_lines * static_cast<double>(std::min(copied_columns, x.w));
  return fit;
}

std::vector<int64_t> bands(const Conv2dProblem& x) {
  std::vector<int64_t> widths;
  for (int64_t width : {8, 16, 32})
    if (width <= round_up(x.q(), 8)) widths.push_back(width);
  for (int64_t count = 1; count <= 8; ++count) {
    const int64_t width = ceil_div(x.q(), count);
    if (width <= 64 && std::find(widths.begin(), widths.end(), width) == widths.end())
      widths.push_back(width);
  }
  return widths;
}

bool suits_patch(const Conv2dProblem& x, const PatchTileShape& smallest, bool tf32) {
  if (x.r * x.s == 1 || x.stride_h != 1 || x.stride_w != 1) return false;
  if (x.dtype == DType::f64) return false;
  const bool ffma = is_ffma(x.dtype, tf32);
  const int64_t channels = x.c / x.groups, depth = smallest.depth(element_bytes(x.dtype));
  // A quarter of zeros is too many; of those that FFMA multiplies, which are its time, a sixteenth.
  const int64_t zeros = round_up(channels, depth) - channels;
  if ((ffma ? 16 : 4) * zeros > channels) return false;
  const std::vector<int64_t> widths = bands(x);
  return std::any_of(widths.begin(), widths.end(), [&](int64_t width) {
    const std::optional<PatchFit> fit = fit_patch(x, smallest, width, false, rounds_ahead_of_time(ffma, 4));
    return fit && fit->shared_bytes <= kSharedEverywhere;
  });
}

bool is_ffma(DType dtype, bool tf32) {
  return dtype == DType::f32 && !tf32;
}

// A round of three taps with two copies, and of one tap with few or many of them.
Rounds rounds_ahead_of_time(bool ffma, int vector) {
  if (vector < 16) return {{1, kMostCopies}};
  if (ffma) return {{1, 2}, {1, kMostCopies}};
  return {{3, 2}, {1, 2}, {1, kMostCopies}};
}

namespace {

struct RatedPatch {
  PatchFit fit;
  Candidate candidate;
};

// Where a band makes next to no difference to time, the one with fewer tiles, fewer copies in the loop, less
// input.
bool is_better(const RatedPatch& x, const RatedPatch& y) {
  const auto order = [](const RatedPatch& rated) {
    return std::make_tuple(std::floor(std::log(rated.candidate.clocks) * 50), rated.candidate.waves,
                           rated.fit.copies, rated.fit.copied_pixels);
  };
  return order(x) < order(y);
}

// What a warp's multiplications of a tap take, and the registers of a thread.
struct WarpWork {
  double math;               // clocks of an SM
  double instructions;       // with the reads of operands
  double shared_wavefronts;  // of 128 bytes
  int registers;
};

WarpWork warp_work(const PatchTileShape& tile, bool ffma, const Device& device) {
  const int pixels = tile.pixels / tile.warps_m, filters = tile.filters / tile.warps_n;
  if (ffma) {
    // 4 channels at a time, of 8 pixels and 8 filters: 16 reads, of 4 wavefronts each.
    const double multiplications = pixels / 4.0 * filters / 8 * tile.chunks * 4, reads = multiplications / 16;
    return {multiplications * 32 / device.ffma_per_clock, multiplications + reads, reads * 4, 255};
  }
  const int steps = tile.chunks / 2 / tile.slices, m = pixels / 16, n = filters / 8;
  const double hmma = m * n * steps, ldmatrix = (m + n / 2) * steps;
  const int sets = steps % 2 == 0 ? 2 : 1;
  return {hmma * device.slots_per_hmma / 4, hmma + ldmatrix, ldmatrix * 4,
          std::min(m * n * 4 + sets * (m * 4 + n * 2) + 50, 255)};
}

// A tile's best fit and its rating.
std::optional<RatedPatch> rate_patch(const FpropPlanner& planner, const PatchTileShape& tile, bool ffma,
                                     int vector, int64_t splits) {
  const Conv2dProblem& x = planner.x;
  const Device& device = planner.device;
  const int bytes = element_bytes(x.dtype), warps = tile.threads() / 32;
  const int64_t taps = x.r * x.s, filters = x.k / x.groups;
  const int64_t channel_blocks = ceil_div(ceil_div(x.c / x.groups, tile.depth(bytes)), splits);
  const WarpWork warp = warp_work(tile, ffma, device);
  const Rounds rounds =
      planner.options.ahead_of_time ? rounds_ahead_of_time(ffma, vector) : rounds_at_run_time(x, ffma);
  std::optional<RatedPatch> best;
  for (int64_t band : bands(x)) {
    const std::optional<PatchFit> fit = fit_patch(x, tile, band, planner.masked, rounds);
    if (!fit || fit->shared_bytes > device.shared_per_block) continue;
    const double filter_bytes = tile.filters * tile.chunks * 16.0;
    const double patch_bytes = fit->copied_pixels * tile.chunks * 16 / static_cast<double>(taps);
    const double output_bytes = planner.masked ? patch_bytes : 0;  // of a ReLU
    // A copy takes its address and itself, and 15 instructions more where it is masked, which reads and
    // writes it again; 15 more make up a tap, 15 a round.
    const double instructions = warp.instructions + 2.0 * tile.filters / tile.rows_at_once() +
                                (planner.masked ? 20.0 : 5.0) * fit->copies + 15 + 15.0 / fit->round;
    SliceWork work;
    work.tensor = warp.math * warps;
    work.issue = instructions * warps / 4;
    work.shared = warp.shared_wavefronts * warps +
                  (filter_bytes + patch_bytes + 4 * output_bytes) / kSharedBytesPerClock;
    work.l2 = (filter_bytes + patch_bytes + output_bytes) / kL2BytesPerClock;
    BlockWork block;
    block.slices = channel_blocks * taps;
    block.slice = work;
    // The first patch's way and the epilogue, and partial sums that are written and read again.
    const double outputs = static_cast<double>(tile.pixels) * tile.filters;
    block.latency = 2000 + 0.5 * outputs / warps / 8 + (splits > 1 ? outputs * 8 / kL2BytesPerClock : 0);
    block.threads = tile.threads();
    const int64_t tiles = ceil_div(x.n * fit->image_pixels, tile.pixels);
    const int64_t blocks = tiles * ceil_div(filters, tile.filters) * x.groups * splits;
    const int resident = resident_blocks(tile.threads(), warp.registers, fit->shared_bytes, device);
    RatedPatch rated{*fit, rate(tile.name(bytes), block, blocks, resident, compulsory_bytes(x), device)};
    if (!best || is_better(rated, *best)) best = rated;
  }
  return best;
}

Kernel kernel_of(const PatchFamily& family, const char* element, const PatchTileShape& tile, int round,
                 int copies, int vector) {
  return {text("pyconvx::", family.name, "<", element, ", ", tile.spelled(), ", ", round, ", ", copies, ", ",
               vector, ">"),
          text("conv/", family.name, ".cuh")};
}

// Elements that are copied one by one need registers, which the largest tiles have not to spare.
bool copies_elements(const PatchTileShape& tile) {
  return tile.pixels * tile.filters <= 64 * tile.threads();
}

}  // namespace

void list_kernels(const PatchFamily& family, std::vector<Kernel>& kernels) {
  const std::vector<DType> dtypes =
      family.ffma ? std::vector<DType>{DType::f32} : std::vector<DType>{DType::f16, DType::bf16, DType::f32};
  for (DType dtype : dtypes)
    for (int vector : {16, element_bytes(dtype)})
      for (const PatchTileShape& tile : family.tiles)
        for (const auto& [round, copies] : rounds_ahead_of_time(family.ffma, vector))
          if (family.is_common(tile, vector))
            kernels.push_back(
                kernel_of(family, element_name(dtype, !family.ffma), tile, round, copies, vector));
}

std::optional<ChosenPatch> choose_patch(FpropPlanner& planner, const PatchFamily& family, int64_t splits) {
  const Conv2dProblem& x = planner.x;
  const bool ahead_of_time = planner.options.ahead_of_time;
  planner.plan.family = family.name;
  int vector = common_vector(x.c / x.groups, planner.bytes, planner.options.alignment);
  if (ahead_of_time && vector < 16) vector = planner.bytes;
  std::map<const PatchTileShape*, PatchFit> fits;
  const PatchTileShape* tile = planner.choose(family.tiles, [&](const PatchTileShape& tile) {
    Candidate candidate;
    const bool no_kernel =
        ahead_of_time ? !family.is_common(tile, vector) : vector < 4 && !copies_elements(tile);
    if (no_kernel) return candidate;
    if (const std::optional<RatedPatch> rated = rate_patch(planner, tile, family.ffma, vector, splits)) {
      fits[&tile] = rated->fit;
      candidate = rated->candidate;
    }
    return candidate;
  });
  if (!tile) return {};
  const PatchFit& fit = fits.at(tile);
  const char* element = element_name(x.dtype, planner.options.tf32);
  ChosenPatch chosen{tile, fit,
                     planner.loading(kernel_of(family, element, *tile, fit.round, fit.copies, vector)),
                     planner.arguments()};
  set_filter_tiles(chosen.arguments, tile->filters);
  chosen.arguments.patch = fit.arguments;
  const int64_t blocks = ceil_div(x.c / x.groups, tile->depth(planner.bytes));
  chosen.arguments.patch.blocks = static_cast<int>(ceil_div(blocks, splits));
  chosen.arguments.patch.by_splits = division_by(static_cast<unsigned>(splits));
  return chosen;
}

void add_launches(FpropPlanner& planner, const ChosenPatch& chosen) {
  const auto blocks = [&](const Conv2dArguments& args) {
    return ceil_div(args.n * chosen.fit.image_pixels, chosen.tile->pixels) * args.patch.by_splits.divisor *
           args.by_filter_tiles.divisor;
  };
  planner.add_launches(chosen.kernel, chosen.arguments, blocks, chosen.tile->threads(),
                       chosen.fit.shared_bytes, std::max<int64_t>(1, kMostPixels / chosen.fit.image_pixels));
}

}  // namespace pyconvx
