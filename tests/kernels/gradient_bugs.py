"""The bugs of test_seeded_bugs.py in the kernels of gradients: see seeded_bugs.py, of which this goes on."""

from __future__ import annotations

from kernels.seeded_bugs import DEPTHWISE, F32, F64, PLAIN, SAME, Bug

WGRAD = dict(n=3, c=40, h=11, w=9, k=40, r=2, s=3, padding=(1, 0, 1, 1))

# With the pass, what seeded_bugs.py says of a problem.
PROBLEMS = {
    "dgrad by one block": dict(pass_="dgrad", family="dgrad by fprop_plain", **PLAIN, blocks=1),
    "wgrad": dict(pass_="wgrad", family="wgrad_tensor_core", **WGRAD, bias=True),
    "wgrad, dilated": dict(
        pass_="wgrad", family="wgrad_tensor_core", **{**WGRAD, "padding": (1, 1, 1, 1), "dilation": (2, 2)}, bias=True
    ),
    "wgrad, narrow": dict(pass_="wgrad", family="wgrad_tensor_core", **{**WGRAD, "c": 36}),
    "wgrad, patch": dict(pass_="wgrad", family="wgrad_patch", **{**WGRAD, **SAME}),
    "wgrad, patch, nan": dict(pass_="wgrad", family="wgrad_patch", **{**WGRAD, **SAME, "h": 5, "w": 4}, nan=True),
    "wgrad, patch, masked": dict(pass_="wgrad", family="wgrad_patch", **{**WGRAD, **SAME}, masked=True),
    "wgrad, masked": dict(pass_="wgrad", family="wgrad_tensor_core", **WGRAD, masked=True),
    "wgrad, plain": dict(
        pass_="wgrad", family="wgrad_plain", n=20, c=3, h=9, w=8, k=6, **SAME, dtype=F64, bias=True, masked=True
    ),
    "wgrad, ffma": dict(pass_="wgrad", family="wgrad_ffma", **WGRAD, dtype=F32),
    "wgrad, depthwise": dict(pass_="wgrad", family="wgrad_depthwise", **DEPTHWISE, bias=True),
}

BUGS = {
    "wgrad: the wait allows one group too many": Bug(
        "conv/wgrad_tensor_core.cuh", "ptx::cp_async_wait<Tile::STAGES - 2>(); slices_.mask(read);",
        "ptx::cp_async_wait<Tile::STAGES - 1>(); slices_.mask(read);", "wgrad", "unfinished-copy",
    ),
    "wgrad: the last copies are not waited for": Bug(
        "conv/wgrad_tensor_core.cuh", "ptx::cp_async_wait<0>();", "", "wgrad", "abandoned-copy"
    ),
    "wgrad: filters past the last are stored": Bug(
        "conv/wgrad_tensor_core.cuh", "if (filter >= conv.group_filters) continue;", "", "wgrad", "out-of-bounds"
    ),
    "wgrad: swapped registers of columns": Bug(
        "conv/wgrad_tensor_core.cuh", "x_[step % 2][j / 2][j % 2 * 2], x_[step % 2][j / 2][j % 2 * 2 + 1]",
        "x_[step % 2][j / 2][j % 2 * 2 + 1], x_[step % 2][j / 2][j % 2 * 2]", "wgrad", "numbers",
    ),
    "wgrad: the bias of every column": Bug(
        "conv/wgrad_tensor_core.cuh", "lane % 4 == 0 && i / 2 % Tile::WARPS_N == warp_n()", "lane % 4 == 1",
        "wgrad", "numbers",
    ),
    "wgrad: pixels past the split's last": Bug(
        "conv/wgrad.cuh", "const unsigned exists = static_cast<unsigned>((m - end_) >> 31);",
        "const unsigned exists = ~0u;", "wgrad", "out-of-bounds",
    ),
    "wgrad: copies go on with the table that is made next": Bug(
        "conv/wgrad.cuh", "tables_ + (made_ ^ TABLE) +", "tables_ + made_ +", "wgrad", "shared-race"
    ),
    "wgrad: a table begins a slice too late": Bug(
        "conv/wgrad.cuh", "table_pixel_ += slices * Tile::DEPTH", "table_pixel_ += (slices + 1) * Tile::DEPTH",
        "wgrad", "numbers",
    ),
    "wgrad: the table of columns is written in their order": Bug(
        "conv/wgrad.cuh", "(i % V * X_CHUNKS + i / V) * COLUMN", "i * COLUMN", "wgrad, narrow", "misaligned"
    ),
    "wgrad: gradients past the split's last": Bug(
        "conv/wgrad.cuh", "const bool exists = i * Y_AT_ONCE < y_left_;", "const bool exists = true;",
        "wgrad", "out-of-bounds",
    ),
    "wgrad: rows below the image are read": Bug(
        "conv/wgrad.cuh", "(1u << until) - (1u << before)", "(1u << taps) - (1u << before)", "wgrad", "out-of-bounds"
    ),
    "wgrad: rows before the image are rounded down": Bug(
        "conv/wgrad.cuh", "max(dilation - 1 - first, 0)", "max(-first, 0)", "wgrad, dilated", "out-of-bounds"
    ),
    "wgrad: padding off by one": Bug(
        "conv/wgrad.cuh", "w = q * args_.stride_w - args_.pad_left", "w = q * args_.stride_w - args_.pad_left + 1",
        "wgrad", "numbers",
    ),
    "wgrad: rows begin in the same bank": Bug(
        "conv/wgrad.cuh", "PAD = BYTES == 2 ? 16 : 32", "PAD = 0", "wgrad", "bank conflicts"
    ),
    "wgrad: a split too few": Bug(
        "conv/wgrad_sum.cuh", "split < args.splits", "split < args.splits - 1", "wgrad, depthwise", "numbers"
    ),
    "wgrad: every bias is the first": Bug(
        "conv/wgrad_sum.cuh", "args.bias_at + i - args.weights", "args.bias_at", "wgrad", "numbers"
    ),
    "wgrad: outputs that mask the slice behind": Bug(
        "conv/wgrad.cuh", "i * Y_AT_ONCE - earlier * Tile::DEPTH", "i * Y_AT_ONCE - (earlier - 1) * Tile::DEPTH",
        "wgrad, masked", "numbers",
    ),
    "wgrad: gradients are masked in the stage of another slice": Bug(
        "conv/wgrad_tensor_core.cuh", "slices_.mask(read);", "slices_.mask(write);", "wgrad, masked", "shared-race"
    ),
    "wgrad, patch: the wait allows one group too many": Bug(
        "conv/wgrad_patch.cuh", "ptx::cp_async_wait<STAGES - 2>();", "ptx::cp_async_wait<STAGES - 1>();",
        "wgrad, patch", "unfinished-copy",
    ),
    "wgrad, patch: swapped rows of a pair": Bug(
        "conv/wgrad_patch.cuh", "put(x[0][s], four[0], four[1]);", "put(x[0][s], four[1], four[0]);",
        "wgrad, patch", "numbers",
    ),
    "wgrad, patch: rows past the output meet their input": Bug(
        "conv/wgrad_patch.cuh", "step * 2 + row < rows_ ? mask : 0", "mask", "wgrad, patch, nan", "numbers"
    ),
    "wgrad, patch: a row of tiles ends a tile late": Bug(
        "conv/wgrad_patch.cuh", "tile_ == across;", "tile_ == across + 1;", "wgrad, patch", "numbers"
    ),
    "wgrad, patch: pixels begin in few banks": Bug(
        "conv/wgrad_patch.cuh", "X_PITCH = CHANNELS * 2 + 16", "X_PITCH = CHANNELS * 2", "wgrad, patch",
        "bank conflicts",
    ),
    "wgrad, patch: gradients mask themselves": Bug(
        "conv/wgrad_patch.cuh", "mask_in_place(at, at + OUTPUTS_AT", "mask_in_place(at, at", "wgrad, patch, masked",
        "numbers",
    ),
    "wgrad, plain: a row below the image is read": Bug(
        "conv/wgrad_plain.cuh", "h >= 0 && h < args.h && w >= 0", "h >= 0 && w >= 0", "wgrad, plain", "out-of-bounds"
    ),
    "wgrad, plain: channels past the last are stored": Bug(
        "conv/wgrad_plain.cuh", "if (v < left) to[v] = sum[v];", "to[v] = sum[v];", "wgrad, plain", "block-race"
    ),
    "wgrad, plain: splits meet in a row of images": Bug(
        "conv/wgrad_plain.cuh", "if (++p == args.p) p = 0, ++n;", "++p;", "wgrad, plain", "numbers"
    ),
    "wgrad, plain: the outputs of the first filter": Bug(
        "conv/wgrad_plain.cuh", "static_cast<const Element*>(args.relu_output) + k",
        "static_cast<const Element*>(args.relu_output)", "wgrad, plain", "numbers",
    ),
    "wgrad, ffma: the wait allows one group too many": Bug(
        "conv/wgrad_ffma.cuh", "cp_async_wait<Tile::STAGES - 2>", "cp_async_wait<Tile::STAGES - 1>",
        "wgrad, ffma", "unfinished-copy",
    ),
    "wgrad, ffma: a pixel short": Bug(
        "conv/wgrad_ffma.cuh", "row < Tile::DEPTH", "row < Tile::DEPTH - 1", "wgrad, ffma", "numbers"
    ),
    "wgrad, depthwise: walkers leave lanes out": Bug(
        "conv/wgrad_depthwise.cuh", "lanes < 32; lanes *= 2", "lanes < 16; lanes *= 2", "wgrad, depthwise", "numbers"
    ),
    "wgrad, depthwise: a row above the image is read": Bug(
        "conv/wgrad_depthwise.cuh", "inside = h >= 0 && h < conv_.h", "inside = h < conv_.h",
        "wgrad, depthwise", "out-of-bounds",
    ),
    "dgrad: taps in the order of the window": Bug(
        "conv/dgrad_filter.cuh", "(rows - 1 - r / args.apart_h)", "(r / args.apart_h)", "dgrad by one block", "numbers"
    ),
    "dgrad: filters of the first group": Bug(
        "conv/dgrad_filter.cuh", "filter + group * args.group_filters * args.step_k +", "filter +",
        "dgrad by one block", "numbers",
    ),
}  # fmt: skip

BARRIERS = {
    "conv/dgrad_filter.cuh": ["dgrad by one block"],
    "conv/wgrad_tensor_core.cuh": ["wgrad"],
    "conv/wgrad_patch.cuh": ["wgrad, patch"],
    "conv/wgrad_ffma.cuh": ["wgrad, ffma"],
    "conv/wgrad_depthwise.cuh": ["wgrad, depthwise"],
}
