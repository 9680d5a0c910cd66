"""The bugs of test_seeded_bugs.py: what is wrong, in which header, and on which problem it is noticed by what."""

from __future__ import annotations

from typing import NamedTuple

import torch

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

SAME = dict(r=3, s=3, padding=(1, 1, 1, 1))
TENSOR_CORE = dict(n=3, c=72, h=11, w=7, k=40, **SAME, stride=(2, 1), tile="64x32x64")
PATCH = dict(n=2, c=56, h=19, w=16, k=40, r=3, s=3, padding=(1, 0, 2, 1), tile="64x32x32")
SMALL_MAP = dict(n=3, c=264, h=6, w=7, k=40, r=3, s=3, padding=(1, 1, 1, 1), tile="64x32x64")
PATCH_F32 = dict(n=2, c=32, h=9, w=18, k=72, r=3, s=3, padding=(1, 0, 2, 1), dtype=F32, tile="64x128x16")
FFMA = dict(n=1, c=12, h=13, w=7, k=72, **SAME, stride=(2, 1), dtype=F32, tile="32x64x8")
PLAIN = dict(n=2, c=6, h=9, w=8, k=10, groups=2, r=3, s=2, padding=(2, 1, 1, 0), dilation=(2, 1), dtype=F64)
FEW_CHANNELS = dict(n=2, c=3, h=19, w=35, k=24, r=2, s=3, padding=(1, 0, 1, 1), stride=(2, 1))
DEPTHWISE = dict(n=2, c=40, h=9, w=11, k=40, r=2, s=3, padding=(1, 0, 1, 1), groups=40, stride=(2, 1))
STEM = dict(n=2, c=4, h=21, w=36, k=24, **SAME, stride=(2, 2), tile="8x16x32")
DEPTHWISE_3X3 = dict(n=2, c=24, h=19, w=21, k=24, **SAME, groups=24, tile="16x16x32")

# The kernel family that has to run it, the sizes of the convolution, and of the plan: tile, and blocks
# (instead of as many as there are tiles).
PROBLEMS = {
    "tensor core": dict(family="fprop_tensor_core", **TENSOR_CORE),
    "tensor core, epilogue": dict(family="fprop_tensor_core", **TENSOR_CORE, bias=True, residual=True, relu=True),
    "tensor core, bf16": dict(family="fprop_tensor_core", **TENSOR_CORE, dtype=BF16),
    "tensor core, NaN": dict(family="fprop_tensor_core", **TENSOR_CORE, relu=True, nan=True),
    "tensor core, groups": dict(family="fprop_tensor_core", **{**TENSOR_CORE, "k": 72}, groups=3),
    "tensor core, dilated": dict(family="fprop_tensor_core", **TENSOR_CORE, dilation=(1, 2)),
    "tensor core, 8 bytes": dict(family="fprop_tensor_core", **{**TENSOR_CORE, "c": 20}),
    "tensor core, far": dict(family="fprop_tensor_core", far=True),
    "patch": dict(family="fprop_resident_patch", **PATCH),
    "patch, bands": dict(family="fprop_resident_patch", **{**PATCH, "n": 1, "h": 5, "w": 66}),
    "patch, groups": dict(family="fprop_resident_patch", **{**PATCH, "c": 64}, groups=2),
    "patch, dilated": dict(family="fprop_resident_patch", **{**PATCH, "w": 24}, dilation=(2, 3)),
    "patch, far": dict(
        family="fprop_resident_patch", last_blocks=4, n=600, c=32, h=355, w=339, k=32, **SAME, tile="64x32x32"
    ),
    "patch, f32": dict(family="fprop_resident_patch", **PATCH_F32),
    "patch, f32, two taps": dict(family="fprop_resident_patch", **{**PATCH_F32, "r": 2, "s": 1, "k": 64}),
    "small map": dict(family="fprop_small_map", **SMALL_MAP),
    "small map, groups": dict(family="fprop_small_map", **{**SMALL_MAP, "c": 528}, groups=2),
    "ffma": dict(family="fprop_ffma", **FFMA),
    "ffma, two warps": dict(family="fprop_ffma", **{**FFMA, "tile": "64x64x8"}),
    "plain": dict(family="fprop_plain", **PLAIN),
    "plain, epilogue": dict(family="fprop_plain", **PLAIN, bias=True, scale=True, residual=True, relu=True),
    "plain, vectors": dict(family="fprop_plain", **{**PLAIN, "groups": 1}, residual=True, relu=True),
    "plain, NaN": dict(family="fprop_plain", **PLAIN, relu=True, nan=True),
    "few channels by one block": dict(family="fprop_few_channels", **FEW_CHANNELS, blocks=1),
    "few channels, 4 of them": dict(family="fprop_few_channels", **{**FEW_CHANNELS, "c": 4}, blocks=1),
    "stem by one block": dict(family="fprop_few_channels", **STEM, blocks=1),
    "stem": dict(family="fprop_few_channels", **STEM, bias=True),
    "stem, NaN": dict(family="fprop_few_channels", **{**STEM, "padding": (0, 0, 0, 0)}, nan=True),
    "depthwise 3x3 by one block": dict(family="fprop_depthwise", **DEPTHWISE_3X3, blocks=1),
    "depthwise": dict(family="fprop_depthwise", **DEPTHWISE),
    "transposes": dict(family="fprop_plain", **PLAIN, layout="nchw"),
    "transposes by one block": dict(family="fprop_plain", **{**PLAIN, "c": 70, "k": 2}, layout="nchw", blocks=1),
}


class Bug(NamedTuple):
    header: str
    text: str  # where any white space may stand for any other
    wrong: str
    problem: str
    noticed: str  # by the checker, under this kind of report; or "numbers"; or "bank conflicts"


BUGS = {
    # --- gather.cuh: addresses and what is outside
    "padding off by one": Bug(
        "conv/gather.cuh", "p * args.stride_h - args.pad_top,", "p * args.stride_h - args.pad_top + 1,",
        "tensor core", "numbers",
    ),
    "the rows' stride for the columns": Bug(
        "conv/gather.cuh", "q * args.stride_w", "q * args.stride_h", "tensor core", "numbers"
    ),
    "dilation forgotten": Bug(
        "conv/gather.cuh", "outside(w + s * args.dilation_w, args.w)", "outside(w + s, args.w)",
        "tensor core, dilated", "out-of-bounds",
    ),
    "a column is a row further": Bug(
        "conv/gather.cuh", "s * args.column_step", "s * args.row_step", "tensor core", "out-of-bounds"
    ),
    "what is outside the image is read": Bug(
        "conv/gather.cuh", "!(outside_[i] & at.bits)", "at.exists", "tensor core", "out-of-bounds"
    ),
    "all columns share a bit": Bug(
        "conv/gather.cuh", "<< (taps_h(args) + s);", "<< taps_h(args);", "tensor core", "out-of-bounds"
    ),
    "rows past the last pixel are read": Bug(
        "conv/gather.cuh", "m = m < args.pixels ? m : args.pixels - 1;", "", "tensor core", "out-of-bounds"
    ),
    "elements past the reduction are read": Bug(
        "conv/gather.cuh", "const bool exists = j < args.reduction;", "const bool exists = true;",
        "tensor core", "out-of-bounds",
    ),
    "channels of the first group": Bug(
        "conv/gather.cuh", "+ group * args.group_channels)", ")", "tensor core, groups", "numbers"
    ),
    "filters of the first group": Bug(
        "conv/gather.cuh", "static_cast<long long>(group) * args.group_filters + filter + row", "filter + row",
        "tensor core, groups", "numbers",
    ),
    "a pixel's address in 31 bits": Bug(
        "conv/gather.cuh", "const long long pixel =", "const int pixel =", "tensor core, far", "numbers"
    ),
    "16 bytes where 8 are aligned": Bug(
        "conv/gather.cuh", "ptx::cp_async<VECTOR>(", "ptx::cp_async<16>(", "tensor core, 8 bytes", "misaligned"
    ),
    # --- fprop_tensor_core.cuh
    "the first wait allows one group too many": Bug(
        "conv/fprop_tensor_core.cuh", "copy_slice(stage); ptx::cp_async_wait<Tile::STAGES - 2>();",
        "copy_slice(stage); ptx::cp_async_wait<Tile::STAGES - 1>();", "tensor core", "unfinished-copy",
    ),
    "the loop's wait allows one group too many": Bug(
        "conv/fprop_tensor_core.cuh", "if (step == STEPS - 1) { ptx::cp_async_wait<Tile::STAGES - 2>();",
        "if (step == STEPS - 1) { ptx::cp_async_wait<Tile::STAGES - 1>();", "tensor core", "unfinished-copy",
    ),
    "the last copies are not waited for": Bug(
        "conv/fprop_tensor_core.cuh", "ptx::cp_async_wait<0>();", "", "tensor core", "abandoned-copy"
    ),
    "the swizzle adds": Bug(
        "conv/fprop_tensor_core.cuh", "(chunk ^ row / (8 / CHUNKS) % CHUNKS)",
        "((chunk + row / (8 / CHUNKS)) % CHUNKS)", "tensor core", "numbers",
    ),
    "no swizzle": Bug(
        "conv/fprop_tensor_core.cuh", "(chunk ^ row / (8 / CHUNKS) % CHUNKS)", "chunk", "tensor core", "bank conflicts"
    ),
    "readers use another row's swizzle": Bug(
        "conv/fprop_tensor_core.cuh", "Rows::at(warp_pixel() + lane % 16, lane / 16)",
        "Rows::at(warp_pixel(), lane / 16) + lane % 16 * Rows::PITCH", "tensor core", "numbers",
    ),
    "half the matrices are read twice": Bug(
        "conv/fprop_tensor_core.cuh", "lane / 8 % 2)", "lane / 16)", "tensor core", "numbers"
    ),
    "pixels are copied a pass short": Bug(
        "conv/fprop_tensor_core.cuh", "i < PIXEL_ROWS; ++i) { copy<", "i < PIXEL_ROWS - 1; ++i) { copy<",
        "tensor core", "uninitialised-shared",
    ),
    "filters are copied a pass short": Bug(
        "conv/fprop_tensor_core.cuh", "i < FILTER_ROWS; ++i) {", "i < FILTER_ROWS - 1; ++i) {",
        "tensor core", "uninitialised-shared",
    ),
    "a slice short": Bug(
        "conv/fprop_tensor_core.cuh", "(args_.reduction + Tile::DEPTH - 1) / Tile::DEPTH",
        "args_.reduction / Tile::DEPTH", "tensor core", "numbers",
    ),
    "slices overlap": Bug(
        "conv/fprop_tensor_core.cuh", "next_ += Tile::DEPTH;", "next_ += Tile::DEPTH - V;",
        "tensor core", "out-of-bounds",
    ),
    "copies go to one stage": Bug(
        "conv/fprop_tensor_core.cuh", "write = write == LAST_STAGE ? 0 : write + STAGE;", "",
        "tensor core", "unfinished-copy",
    ),
    "filters begin in the pixels' last rows": Bug(
        "conv/fprop_tensor_core.cuh", "FIRST = Tile::PIXELS * Rows::PITCH", "FIRST = (Tile::PIXELS - 8) * Rows::PITCH",
        "tensor core", "shared-race",
    ),
    "pixels past the last are stored": Bug(
        "conv/fprop_tensor_core.cuh", "if (pixel >= args_.pixels) continue;", "", "tensor core", "out-of-bounds"
    ),
    "filters past the last are read": Bug(
        "conv/fprop_tensor_core.cuh", "at.exists && row < filters_left_", "at.exists", "tensor core", "out-of-bounds"
    ),
    "all groups are stored to the first": Bug(
        "conv/fprop_tensor_core.cuh", "tile_.group * args_.group_filters + filter", "filter",
        "tensor core, groups", "block-race",
    ),
    "swapped registers of filters": Bug(
        "conv/fprop_tensor_core.cuh",
        "filters_[step % 2][j / 2][j % 2 * 2], filters_[step % 2][j / 2][j % 2 * 2 + 1]",
        "filters_[step % 2][j / 2][j % 2 * 2 + 1], filters_[step % 2][j / 2][j % 2 * 2]", "tensor core", "numbers",
    ),
    "swapped registers of sums": Bug(
        "conv/fprop_tensor_core.cuh", "[i % 2 * 2 + v % 2]", "[v % 2 * 2 + i % 2]", "tensor core", "numbers"
    ),
    "operands read ahead over those in use": Bug(
        "conv/fprop_tensor_core.cuh", "load_operands((step + 1) % 2,", "load_operands(step % 2,",
        "tensor core", "numbers",
    ),
    # --- patch.cuh, patch_product.cuh, fprop_resident_patch.cuh
    "patch: padding off by one": Bug(
        "conv/patch.cuh", "h = row - args_.pad_top,", "h = row - args_.pad_top + 1,", "patch", "out-of-bounds"
    ),
    "patch: dilation forgotten": Bug(
        "conv/patch.cuh", "(args_.r - 1) * args_.dilation_h", "(args_.r - 1)", "patch, dilated", "numbers"
    ),
    "patch: what is beside the image is read": Bug(
        "conv/patch.cuh", "&& w >= 0 && w < args_.w;", ";", "patch, bands", "out-of-bounds"
    ),
    "patch: images past the last are read": Bug("conv/patch.cuh", "n < args_.n &&", "", "patch", "out-of-bounds"),
    "patch: pixels past the last are stored": Bug(
        "conv/patch.cuh", "if (n >= args_.n || q >= args_.q) return -1;", "", "patch, bands", "block-race"
    ),
    "patch: strips lie without what they skip": Bug(
        "conv/patch.cuh", "args_.patch.line_pitch + strip * args_.patch.skip + patch_column",
        "args_.patch.line_pitch + patch_column", "patch", "numbers",
    ),
    "patch: neighbours are copied to the same banks": Bug(
        "conv/patch.cuh", "threadIdx.x / 8 % 4 + threadIdx.x / 4 % 2 * 4", "threadIdx.x / 4 % 8",
        "patch", "bank conflicts",
    ),
    "patch: the next one goes to the present one's place": Bug(
        "conv/patch_product.cuh", "copy_part(args_.patch.bytes - patch_read_)", "copy_part(patch_read_)",
        "patch", "shared-race",
    ),
    "patch: the first one is copied a pass short": Bug(
        "conv/patch.cuh", "copy_first(int passes) { for (int i = 0; i < passes; ++i)",
        "copy_first(int passes) { for (int i = 0; i < passes - 1; ++i)",
        "patch", "numbers",
    ),
    "patch: the wait allows one group too many": Bug(
        "conv/patch_product.cuh", "next_tap(int i) { ptx::cp_async_wait<Tile::STAGES - 2>",
        "next_tap(int i) { ptx::cp_async_wait<Tile::STAGES - 1>",
        "patch", "unfinished-copy",
    ),
    "patch: the last copies are not waited for": Bug(
        "conv/patch_product.cuh", "ptx::cp_async_wait<0>();", "", "patch", "abandoned-copy"
    ),
    "patch: filters past the last are read": Bug(
        "conv/patch_product.cuh", "k = k < args.group_filters ? k : args.group_filters - 1;", "",
        "patch", "out-of-bounds",
    ),
    "patch: channels past the last are read": Bug(
        "conv/patch_product.cuh", "from + byte, byte / BYTES < left_);", "from + byte, true);",
        "patch", "out-of-bounds",
    ),
    "patch: every block has the first one's filters": Bug(
        "conv/patch_product.cuh", "(Tile::CHUNKS * V - taps_ * args.group_channels)",
        "(0 - taps_ * args.group_channels)", "patch", "numbers",
    ),
    "patch: half the matrices are read twice": Bug(
        "conv/patch_tensor_core.cuh", "lane / 8 % 2 * 16 + slice", "lane / 16 * 16 + slice", "patch", "numbers"
    ),
    "patch: swapped registers of filters": Bug(
        "conv/patch_tensor_core.cuh", "filter_[set][j / 2][j % 2 * 2], filter_[set][j / 2][j % 2 * 2 + 1]",
        "filter_[set][j / 2][j % 2 * 2 + 1], filter_[set][j / 2][j % 2 * 2]", "patch", "numbers",
    ),
    "patch: operands read ahead over those in use": Bug(
        "conv/patch_product.cuh", "load_operands((step + 1) % 2,", "load_operands(step % 2,", "patch", "numbers"
    ),
    "patch: lines follow each other too closely": Bug(
        "conv/patch_product.cuh", "line_ends ? args_.patch.line_step : args_.patch.tap_step", "args_.patch.tap_step",
        "patch", "numbers",
    ),
    "patch: channels of the first group": Bug(
        "conv/patch_product.cuh", "patch_(args, pixels_, group * args.group_channels + first,",
        "patch_(args, pixels_, first,", "patch, groups", "numbers",
    ),
    "patch: all groups are stored to the first": Bug(
        "conv/fprop_resident_patch.cuh", "tile.group * args.group_filters + filter", "filter",
        "patch, groups", "block-race",
    ),
    "patch: a window of two taps begins with three": Bug(
        "conv/patch_product.cuh", "copy_tap(i % ROUND, false)", "copy_tap(i, false)",
        "patch, f32, two taps", "out-of-bounds",
    ),
    "patch: an image's address in 31 bits": Bug(
        "conv/patch.cuh", "image * pixel_bytes_", "static_cast<int>(image * pixel_bytes_)", "patch, far", "numbers",
    ),
    # --- patch_ffma.cuh
    "patch, f32: filters in the order of rows": Bug(
        "conv/patch_ffma.cuh", "row - row % 32 + 4 * (row % 8) + row / 8 % 4", "row", "patch, f32", "numbers"
    ),
    "patch, f32: all steps multiply the first pixels' channels": Bug(
        "conv/patch_ffma.cuh", "pixels_from_[i] + tap + step * 16", "pixels_from_[i] + tap", "patch, f32", "numbers"
    ),
    "patch, f32: all steps multiply the first filters' channels": Bug(
        "conv/patch_ffma.cuh", "filters_from_ + filters + step * 16", "filters_from_ + filters", "patch, f32", "numbers"
    ),
    "patch, f32: lanes have other pixels than they store": Bug(
        "conv/patch_ffma.cuh", "first_pixel + pixel(i), Tile::PITCH", "first_pixel + pixel(i ^ 1), Tile::PITCH",
        "patch, f32", "numbers",
    ),
    "patch, f32: a filter is left out": Bug(
        "conv/patch_ffma.cuh", "k < FILTERS; ++k", "k < FILTERS - 1; ++k", "patch, f32", "numbers"
    ),
    "patch, f32: vectors in the other order": Bug(
        "conv/patch_ffma.cuh", "sum_[i][vector * V + v]", "sum_[i][(1 - vector) * V + v]", "patch, f32", "numbers"
    ),
    # --- fprop_small_map.cuh
    "small map: a slice is left out": Bug(
        "conv/fprop_small_map.cuh", "other < Tile::SLICES; ++other", "other < Tile::SLICES - 1; ++other",
        "small map", "numbers",
    ),
    "small map: one place for all rows": Bug(
        "conv/fprop_small_map.cuh", "mine + i % 2 * Tile::SLICES * SLICE", "mine", "small map", "shared-race"
    ),
    "small map: slices store each other's rows": Bug(
        "conv/fprop_small_map.cuh", "if (slice != i) continue;", "if (slice != (i ^ 1)) continue;",
        "small map", "numbers",
    ),
    "small map: splits overlap": Bug(
        "conv/fprop_small_map.cuh", "first = split * args.patch.blocks * DEPTH,", "first = split * DEPTH,",
        "small map", "numbers",
    ),
    "small map: a split is left out": Bug(
        "conv/fprop_small_map.cuh", "for (int split = 0; split < static_cast<int>(args.patch.by_splits.divisor)",
        "for (int split = 1; split < static_cast<int>(args.patch.by_splits.divisor)", "small map", "numbers",
    ),
    "small map: splits in one place": Bug(
        "conv/fprop_small_map.cuh", "pixel * args.patch.by_splits.divisor + split", "pixel", "small map", "block-race"
    ),
    "small map: sums of the first group": Bug(
        "conv/fprop_small_map.cuh", "args.patch.partial_pitch + group * group_pitch +", "args.patch.partial_pitch +",
        "small map, groups", "block-race",
    ),
    "small map: the sums' vectors are the workspace's first": Bug(
        "conv/fprop_small_map.cuh", "four_vectors) + vector;", "four_vectors);", "small map", "numbers"
    ),
    # --- fragments.cuh, device.cuh, division.cuh, ptx.cuh
    "filters in another order than the sums": Bug(
        "conv/fragments.cuh", "V * x + 2 * i + e", "V * x + V / 2 * e + i", "tensor core", "numbers"
    ),
    "bf16 multiplied as f16": Bug(
        "conv/fragments.cuh", "ptx::mma_m16n8k16_bf16(", "ptx::mma_m16n8k16_f16(", "tensor core, bf16", "numbers"
    ),
    "swapped halves of a word": Bug(
        "device.cuh", "cvt_rn_f16x2_f32(x[0], x[1])", "cvt_rn_f16x2_f32(x[1], x[0])", "tensor core", "numbers"
    ),
    "division in 32 bits": Bug(
        "division.cuh", "(static_cast<unsigned long long>(x) * multiplier)", "0ull + x * multiplier",
        "tensor core", "numbers",
    ),
    "ReLU drops NaN": Bug("ptx.cuh", "max.NaN.f16x2", "max.f16x2", "tensor core, NaN", "numbers"),
    "ReLU drops NaN in f64": Bug(
        "device.cuh", "return x < y ? y : x;", "return x > y ? x : y;", "plain, NaN", "numbers"
    ),
    # --- fprop_ffma.cuh
    "ffma: the wait allows one group too many": Bug(
        "conv/fprop_ffma.cuh", "cp_async_wait<Tile::STAGES - 2>", "cp_async_wait<Tile::STAGES - 1>",
        "ffma", "unfinished-copy",
    ),
    "ffma: the last copies are not waited for": Bug(
        "conv/fprop_ffma.cuh", "ptx::cp_async_wait<0>();", "", "ffma", "abandoned-copy"
    ),
    "ffma: rows of pixels overlap": Bug(
        "conv/fprop_ffma.cuh", "PIXEL_PITCH = Tile::PIXELS + 4", "PIXEL_PITCH = Tile::PIXELS - 4",
        "ffma, two warps", "shared-race",
    ),
    "ffma: rows begin in the same bank": Bug(
        "conv/fprop_ffma.cuh", "PIXEL_PITCH = Tile::PIXELS + 4", "PIXEL_PITCH = Tile::PIXELS", "ffma", "bank conflicts"
    ),
    "ffma: misaligned vectors": Bug(
        "conv/fprop_ffma.cuh", "load(pixels, 4, from + 16);", "load(pixels, 4, from + 18);", "ffma", "misaligned"
    ),
    "ffma: a product short": Bug(
        "conv/fprop_ffma.cuh", "j < DEPTH; ++j) multiply(read, j)", "j < DEPTH - 1; ++j) multiply(read, j)",
        "ffma", "numbers",
    ),
    "ffma: filters are copied a pass short": Bug(
        "conv/fprop_ffma.cuh", "i < FILTER_ROWS; ++i) {", "i < FILTER_ROWS - 1; ++i) {", "ffma", "uninitialised-shared"
    ),
    "ffma: filters past the last are read": Bug(
        "conv/fprop_ffma.cuh", "at.exists && row < filters_left_", "at.exists", "ffma", "out-of-bounds"
    ),
    "ffma: pixels past the last are stored": Bug(
        "conv/fprop_ffma.cuh", "if (pixel >= args_.pixels) continue;", "", "ffma", "out-of-bounds"
    ),
    "ffma: pixels stored in the order of registers": Bug(
        "conv/fprop_ffma.cuh", "i / 4 * 16 + i % 4", "i", "ffma", "numbers"
    ),
    # --- fprop_few_channels.cuh
    "stem: what is no tap is not replaced": Bug(
        "conv/fprop_few_channels.cuh", "to[2 * half] & mask | ones;", "to[2 * half];", "stem, NaN", "numbers"
    ),
    "stem: the tap of ones on the other side": Bug(
        "conv/fprop_few_channels.cuh", "first ? one_if_second_ : second ? one_if_first_ : 0u",
        "first ? one_if_first_ : second ? one_if_second_ : 0u", "stem", "numbers",
    ),
    "stem: operands of another row": Bug(
        "conv/fprop_few_channels.cuh", "pixels[i][step][x] = pixels[i + 1][step][x];",
        "pixels[i][step][x] = pixels[i][step][x];", "stem", "numbers",
    ),
    "stem: a row of filters is another's": Bug(
        "conv/fprop_few_channels.cuh", "(r * STEPS + step) * 32", "(step * R + r) * 32 + 32", "stem", "numbers"
    ),
    "stem: a pass short": Bug(
        "conv/fprop_few_channels.cuh", "i < LAST; ++i, from += step", "i < LAST - 1; ++i, from += step",
        "stem", "numbers",
    ),
    "stem: not waited for": Bug(
        "conv/fprop_few_channels.cuh", "ptx::cp_async_wait<0>();", "ptx::cp_async_wait<1>();",
        "stem by one block", "unfinished-copy",
    ),
    "stem: no zeros past the channels and taps": Bug(
        "conv/fprop_few_channels.cuh", "clear(); __syncthreads();", "__syncthreads();", "stem", "uninitialised-shared"
    ),
    "stem: rows past the last are stored": Bug(
        "conv/fprop_few_channels.cuh", "floor.pack(x), i < rows[half][vector]", "floor.pack(x), rows[half][vector]",
        "stem", "out-of-bounds",
    ),
    "stem: rows above and below the image are read": Bug(
        "conv/fprop_few_channels.cuh", "bool inside = static_cast<unsigned>(h + i * ROWS_AT_ONCE)",
        "bool inside = 0 * static_cast<unsigned>(h + i * ROWS_AT_ONCE)", "stem", "out-of-bounds",
    ),
    "few channels: no zeros past the channels and taps": Bug(
        "conv/fprop_few_channels_any.cuh", "clear(); __syncthreads();", "__syncthreads();",
        "few channels by one block", "uninitialised-shared",
    ),
    "few channels: not waited for": Bug(
        "conv/fprop_few_channels_any.cuh", "ptx::cp_async_wait<0>();", "ptx::cp_async_wait<1>();",
        "few channels, 4 of them", "unfinished-copy",
    ),
    "few channels: pixels past the last are stored": Bug(
        "conv/pixel_tiles.cuh", "if (row >= args.p || q >= args.q) continue;", "",
        "few channels by one block", "out-of-bounds",
    ),
    "few channels: a patch a column short": Bug(
        "conv/fprop_few_channels_any.cuh", "i < patch_rows() * patch_columns(); i += THREADS) { const int row",
        "i < patch_rows() * patch_columns() - THREADS; i += THREADS) { const int row",
        "few channels by one block", "numbers",
    ),
    # --- fprop_depthwise.cuh
    "depthwise: not waited for": Bug(
        "conv/fprop_depthwise.cuh", "ptx::cp_async_wait<0>();", "ptx::cp_async_wait<1>();",
        "depthwise 3x3 by one block", "unfinished-copy",
    ),
    "depthwise: columns past the last are stored": Bug(
        "conv/fprop_depthwise.cuh", "j < q_left && i < p_left);", "i < p_left);",
        "depthwise 3x3 by one block", "out-of-bounds",
    ),
    "depthwise: rows above and below the image are read": Bug(
        "conv/fprop_depthwise.cuh", "inside && is_inside(top + row + i, args_.h)", "inside",
        "depthwise 3x3 by one block", "out-of-bounds",
    ),
    "depthwise: columns left of the image are read": Bug(
        "conv/fprop_depthwise.cuh", "is_inside(left + column, width_) && is_needed(column);",
        "left + column < width_ && is_needed(column);", "depthwise 3x3 by one block", "out-of-bounds",
    ),
    "depthwise: filters past the last are read": Bug(
        "conv/fprop_depthwise.cuh", "exists ? widen(*from) : 0.0f", "widen(*from)",
        "depthwise 3x3 by one block", "out-of-bounds",
    ),
    # --- fprop_depthwise_any.cuh
    "depthwise: the run's tail is stored": Bug(
        "conv/fprop_depthwise_any.cuh", "if (q + j < args_.q) epilogue", "epilogue", "depthwise", "out-of-bounds"
    ),
    "depthwise: runs past the last": Bug(
        "conv/fprop_depthwise_any.cuh", "run_ >= args_.tiles || k_ >= args_.k", "k_ >= args_.k",
        "depthwise", "out-of-bounds",
    ),
    "depthwise: columns right of the image are read": Bug(
        "conv/fprop_depthwise_any.cuh", "row_inside && w >= 0 && w < args_.w", "row_inside && w >= 0",
        "depthwise", "out-of-bounds",
    ),
    "depthwise: the rows' stride for the columns": Bug(
        "conv/fprop_depthwise_any.cuh", "j * args_.stride_w", "j * args_.stride_h", "depthwise", "numbers"
    ),
    "depthwise: filters of the block's first channel": Bug(
        "conv/fprop_depthwise_any.cuh", "static_cast<long long>(first_ + channel) * taps",
        "static_cast<long long>(first_) * taps", "depthwise", "numbers",
    ),
    "depthwise: the other columns a pass short": Bug(
        "conv/fprop_depthwise.cuh", "i < OTHER_PASSES; ++i) { const int row", "i < 1; ++i) { const int row",
        "depthwise 3x3 by one block", "uninitialised-shared",
    ),
    "depthwise: the row below is the image's first": Bug(
        "conv/fprop_depthwise.cuh", "at.q = 0, at.p += P;", "at.q = 0, at.p += Q / 2;",
        "depthwise 3x3 by one block", "numbers",
    ),
    # --- fprop_plain.cuh
    "plain: one row below the image": Bug(
        "conv/fprop_plain.cuh", "h >= args.h", "h > args.h", "plain", "out-of-bounds"
    ),
    "plain: dilation forgotten": Bug("conv/fprop_plain.cuh", "r * args.dilation_h", "r", "plain", "numbers"),
    "plain: padding of the other side": Bug(
        "conv/fprop_plain.cuh", "- args.pad_left", "- args.pad_top", "plain", "numbers"
    ),
    "plain: filters past the last are read": Bug(
        "conv/fprop_plain.cuh", "if (v < left) sum[v]", "sum[v]", "plain", "out-of-bounds"
    ),
    "plain: blocks step on each other": Bug(
        "conv/fprop_plain.cuh", "i += gridDim.x * 256ll", "i += 256ll", "plain", "block-race"
    ),
    "plain: all images are the first": Bug(
        "conv/fprop_plain.cuh", "n * args.h * args.w * args.c +", "", "plain", "numbers"
    ),
    # --- epilogue.cuh
    "bias of the vector's place": Bug(
        "conv/epilogue.cuh", "(args.bias)[k]", "(args.bias)[v]", "plain, epilogue", "numbers"
    ),
    "bias past the last filter": Bug(
        "conv/epilogue.cuh", "args.bias && exists", "args.bias", "tensor core, epilogue", "out-of-bounds"
    ),
    "bias is not scaled": Bug(
        "conv/epilogue.cuh", "multiply_add(bias, scale_[v], shift)", "bias + shift", "plain, epilogue", "numbers"
    ),
    "residual of the first pixel": Bug(
        "conv/epilogue.cuh", "(args_.residual) + at", "(args_.residual)", "plain, epilogue", "numbers"
    ),
    "residual after ReLU": Bug(
        "conv/epilogue.cuh", "x[v] += added[v];", "x[v] = floor.of(x[v]) + added[v];", "plain, vectors", "numbers",
    ),
    "a filter too many": Bug(
        "conv/epilogue.cuh", "if (v < count_)", "if (v <= count_)", "plain, epilogue", "out-of-bounds"
    ),
    "vectors past the last filter are stored": Bug(
        "conv/epilogue.cuh", "if (count_ <= 0) return;", "", "tensor core, epilogue", "out-of-bounds"
    ),
    "vectors where they are not aligned": Bug(
        "conv/epilogue.cuh", "if (args_.vector_output)", "if (true)", "plain", "misaligned"
    ),
    # --- transpose.cuh
    "not transposed": Bug("conv/transpose.cuh", "= tile[x][j];", "= tile[j][x];", "transposes", "uninitialised-shared"),
    "transpose: columns in one bank": Bug(
        "conv/transpose.cuh", "(sizeof(Bits) == 2 ? 2 : 1)", "0", "transposes", "bank conflicts"
    ),
    "transpose: columns past the last are read": Bug(
        "conv/transpose.cuh", "&& column + x < args.columns", "", "transposes", "out-of-bounds"
    ),
    "transpose: all matrices are the first": Bug(
        "conv/transpose.cuh", "i_row / args.row_tiles * args.rows * args.columns", "0", "transposes", "block-race"
    ),
    "transpose: a pass short": Bug(
        "conv/transpose.cuh", "j < TILE; j += ROWS_AT_ONCE) if (row + j",
        "j < TILE - ROWS_AT_ONCE; j += ROWS_AT_ONCE) if (row + j", "transposes", "uninitialised-shared",
    ),
}  # fmt: skip

# The headers whose kernels have barriers, with the problems that need each of them.
BARRIERS = {
    "conv/fprop_tensor_core.cuh": ["tensor core"],
    "conv/patch_product.cuh": ["patch"],
    "conv/fprop_small_map.cuh": ["small map"],
    "conv/fprop_ffma.cuh": ["ffma, two warps"],
    "conv/fprop_few_channels.cuh": ["stem by one block"],
    "conv/fprop_few_channels_any.cuh": ["few channels by one block"],
    "conv/fprop_depthwise.cuh": ["depthwise 3x3 by one block"],
    "conv/fprop_depthwise_any.cuh": ["depthwise"],
    "conv/transpose.cuh": ["transposes by one block"],
}
