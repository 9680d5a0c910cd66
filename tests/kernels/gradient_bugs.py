"""The bugs of test_seeded_bugs.py in the kernels of gradients: see seeded_bugs.py, of which this goes on."""

from __future__ import annotations

from kernels.seeded_bugs import BF16, DEPTHWISE, DEPTHWISE_3X3, F32, F64, PLAIN, SAME, Bug

WGRAD = dict(n=3, c=40, h=11, w=9, k=40, r=2, s=3, padding=(1, 0, 1, 1))

DGRAD = dict(pass_="dgrad", family="dgrad by fprop_tensor_core")
FAR_APART = dict(c=10, h=19, w=37, k=6, r=2, s=3, stride=(17, 18))
MASKED = dict(pass_="dgrad", masked=True)
MASKED_PATCH = dict(**MASKED, family="dgrad by fprop_resident_patch", n=1, tile="64x32x32", h=19, w=16)

# With the pass, what seeded_bugs.py says of a problem.
PROBLEMS = {
    "dgrad by one block": dict(pass_="dgrad", family="dgrad by fprop_plain", **PLAIN, blocks=1),
    "dgrad, rows left over": dict(**DGRAD, n=2, c=20, h=7, w=6, k=24, r=1, s=1, stride=(2, 3), bias=True),
    "dgrad, plain": dict(
        pass_="dgrad", family="dgrad_plain", n=2, **FAR_APART, padding=(1, 0, 0, 1), groups=2, dtype=F64, bias=True
    ),
    "masked patch": dict(**MASKED_PATCH, c=40, k=96, **SAME),
    "masked patch, two taps": dict(**MASKED_PATCH, c=40, k=96, r=1, s=2),
    "masked patch, bf16": dict(**MASKED_PATCH, c=8, k=32, **SAME, dtype=BF16),
    "masked gather": dict(**DGRAD, masked=True, n=1, c=40, h=9, w=8, k=200, r=1, s=1, tile="64x32x64"),
    "masked ffma": dict(
        **MASKED, family="dgrad by fprop_ffma", n=1, c=40, h=9, w=8, k=36, r=2, s=1, dtype=F32, tile="64x64x8"
    ),
    "masked few channels": dict(
        **MASKED, family="dgrad by fprop_few_channels", n=2, c=24, h=19, w=20, k=3, r=2, s=3, blocks=1
    ),
    "masked depthwise": dict(**MASKED, family="dgrad by fprop_depthwise", **{**DEPTHWISE, "stride": (1, 1)}),
    "masked depthwise 3x3": dict(**MASKED, family="dgrad by fprop_depthwise", **DEPTHWISE_3X3, blocks=1),
    "masked depthwise, odd": dict(
        **MASKED, family="dgrad by fprop_depthwise", **{**DEPTHWISE, "c": 12, "k": 12, "groups": 12}
    ),
    "masked plain": dict(**MASKED, family="dgrad by fprop_plain", **PLAIN),
    "masked, transposed": dict(**MASKED, family="dgrad by fprop_plain", **PLAIN, layout="nchw"),
    "masked, strides without number": dict(**MASKED, family="dgrad_plain", n=1, **FAR_APART),
    "wgrad": dict(pass_="wgrad", family="wgrad_tensor_core", **WGRAD, bias=True),
    "wgrad, far": dict(pass_="wgrad", family="wgrad_tensor_core", far=True),
    "wgrad, dilated": dict(
        pass_="wgrad", family="wgrad_tensor_core", **{**WGRAD, "padding": (1, 1, 1, 1), "dilation": (2, 2)}, bias=True
    ),
    "wgrad, runs": dict(
        pass_="wgrad",
        family="wgrad_tensor_core",
        n=2,
        c=3,
        h=15,
        w=12,
        k=24,
        r=5,
        s=5,
        padding=(1, 1, 1, 1),
        stride=(2, 2),
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
    "wgrad: runs of taps begin with the first": Bug(
        "conv/wgrad.cuh", "(args_.c * BYTES) - wgrad_.lead * BYTES", "(args_.c * BYTES)", "wgrad, runs", "misaligned"
    ),
    "wgrad: the columns before the first are stored": Bug(
        "conv/wgrad.cuh", "i >= 0 && i < of_row", "i < of_row", "wgrad, runs", "block-race"
    ),
    "wgrad: an image's address in 31 bits": Bug(
        "conv/wgrad.cuh", "x_ + n * wgrad_.x_image", "x_ + static_cast<int>(n * wgrad_.x_image)", "wgrad, far",
        "numbers",
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
    "fill: not where the outputs go": Bug(
        "conv/fill.cuh", "spread_place(args, row / args.p, row % args.p, pixel % args.q)", "pixel",
        "dgrad, rows left over", "numbers",
    ),
    "fill: the last vector of channels is left out": Bug(
        "conv/fill.cuh", "(args.k + V - 1) / V", "args.k / V", "dgrad, rows left over", "numbers"
    ),
    "fill: every channel's bias is the first's": Bug(
        "conv/fill.cuh", "(args, first, args.k - first)", "(args, 0, args.k - first)",
        "dgrad, rows left over", "numbers",
    ),
    "dgrad, plain: between outputs, too": Bug(
        "conv/dgrad_plain.cuh", "from % stride == 0 &&", "", "dgrad, plain", "numbers"
    ),
    "dgrad, plain: outputs past the last": Bug(
        "conv/dgrad_plain.cuh", "from / stride < size", "true", "dgrad, plain", "out-of-bounds"
    ),
    "dgrad, plain: the padding on the wrong side": Bug(
        "conv/dgrad_plain.cuh", "at + pad - tap * dilation", "at - pad - tap * dilation",
        "dgrad, plain", "numbers",
    ),
    "dgrad, plain: gradients of the first group": Bug(
        "conv/dgrad_plain.cuh", "* args.k + group * args.group_filters;", "* args.k;",
        "dgrad, plain", "numbers",
    ),
    "dgrad, plain: channels past the group's last": Bug(
        "conv/dgrad_plain.cuh", "if (v < left) { const Number bias", "if (true) { const Number bias",
        "dgrad, plain", "out-of-bounds",
    ),
    "mask: the output's zeros let it pass": Bug(
        "ptx.cuh", "set.gtu.u32.f16x2", "set.geu.u32.f16x2", "masked gather", "numbers"
    ),
    "mask: NaNs don't let it pass": Bug("ptx.cuh", "set.gtu.u32.f16x2", "set.gt.u32.f16x2", "masked gather", "numbers"),
    "mask: the output's zeros let it pass, f32": Bug(
        "conv/mask.cuh", "ptx::bits_to_f32(output) <= 0.0f", "ptx::bits_to_f32(output) < 0.0f", "masked ffma", "numbers"
    ),
    "mask: the output's zeros let it pass, bf16": Bug(
        "conv/mask.cuh", "0x7fff7fffu", "0x80008000u", "masked patch, bf16", "numbers"
    ),
    "mask: both halves by the upper's, bf16": Bug("ptx.cuh", "0xbb99", "0xbbbb", "masked patch, bf16", "numbers"),
    "mask: the output's zeros let it pass, element by element": Bug(
        "conv/mask.cuh", "widen(output[i]) <= 0", "widen(output[i]) < 0", "masked plain", "numbers"
    ),
    "masked gather: by the gradient": Bug(
        "conv/fprop_tensor_core.cuh", "rows_.address(i, at) + to_outputs_", "rows_.address(i, at)",
        "masked gather", "numbers",
    ),
    "masked gather: not the first slice": Bug(
        "conv/fprop_tensor_core.cuh", "mask_slice(0);", ";", "masked gather", "numbers"
    ),
    "masked gather: a slice too late": Bug(
        "conv/fprop_tensor_core.cuh",
        "read = read == LAST_STAGE ? 0 : read + STAGE; if constexpr (MASKED) mask_slice(read);",
        "if constexpr (MASKED) mask_slice(read); read = read == LAST_STAGE ? 0 : read + STAGE;",
        "masked gather", "shared-race",
    ),
    "masked gather: the slice that is on its way": Bug(
        "conv/fprop_tensor_core.cuh", "mask_slice(read); __syncthreads();",
        "mask_slice(read == LAST_STAGE ? 0 : read + STAGE); __syncthreads();", "masked gather", "unfinished-copy",
    ),
    "masked gather: behind the barrier": Bug(
        "conv/fprop_tensor_core.cuh", "if constexpr (MASKED) mask_slice(read); __syncthreads();",
        "__syncthreads(); if constexpr (MASKED) mask_slice(read);", "masked gather", "shared-race",
    ),
    "masked gather: of another row": Bug(
        "conv/fprop_tensor_core.cuh", "copy<VECTOR>(to + OUTPUTS + i * ROWS_AT_ONCE * Rows::PITCH,",
        "copy<VECTOR>(to + OUTPUTS + (PIXEL_ROWS - 1 - i) * ROWS_AT_ONCE * Rows::PITCH,", "masked gather", "numbers",
    ),
    "masked ffma: forgotten": Bug(
        "conv/fprop_ffma.cuh", "if constexpr (MASKED) mask_slice(read);", "", "masked ffma", "numbers"
    ),
    "masked ffma: behind the barrier": Bug(
        "conv/fprop_ffma.cuh", "if constexpr (MASKED) mask_slice(read); __syncthreads();",
        "__syncthreads(); if constexpr (MASKED) mask_slice(read);", "masked ffma", "shared-race",
    ),
    "masked ffma: by the next element": Bug(
        "conv/fprop_ffma.cuh", "masked_word(ptx::load_shared(at), ptx::load_shared(at + OUTPUTS * 4), f32{})",
        "masked_word(ptx::load_shared(at), ptx::load_shared(at + OUTPUTS * 4 + 4), f32{})",
        "masked ffma", "shared-race",
    ),
    "masked patch: not the first": Bug(
        "conv/patch_product.cuh", "patch_.mask_first(args_.patch.busy_passes);", ";", "masked patch", "numbers"
    ),
    "masked patch: the first one alone": Bug(
        "conv/patch_product.cuh", "if constexpr (MASKED) patch_.mask_part();", "", "masked patch", "numbers"
    ),
    "masked patch: behind the barrier": Bug(
        "conv/patch_product.cuh", "if constexpr (MASKED) patch_.mask_part(); __syncthreads();",
        "__syncthreads(); if constexpr (MASKED) patch_.mask_part();", "masked patch, two taps", "shared-race",
    ),
    "masked patch: what is on its way": Bug(
        "conv/patch.cuh", "mask_in_place(masked_now_[j],", "mask_in_place(masked_next_[j],",
        "masked patch", "unfinished-copy",
    ),
    "masked patch: by the outputs of the next tap": Bug(
        "conv/patch.cuh", "mask_in_place(masked_now_[j], outputs_ + turn_ +",
        "mask_in_place(masked_now_[j], outputs_ + COPIES * OUTPUTS - turn_ +", "masked patch", "unfinished-copy",
    ),
    "masked patch: all of the first by one pixel's outputs": Bug(
        "conv/patch.cuh", "copy(entry, 0, to_ + second_patch_ + entry.y);", "copy(entry, 0, to_ + second_patch_);",
        "masked patch", "shared-race",
    ),
    "masked patch: where nothing was copied": Bug(
        "conv/patch.cuh", "static_cast<int>(entry_[j].x) < 0 ? outputs : to_", "false ? outputs : to_",
        "masked patch", "shared-race",
    ),
    "masked few channels: forgotten": Bug(
        "conv/fprop_few_channels_any.cuh", "if constexpr (MASKED) mask_patch(patch);", "",
        "masked few channels", "numbers",
    ),
    "masked few channels: behind the barrier": Bug(
        "conv/fprop_few_channels_any.cuh", "if constexpr (MASKED) mask_patch(patch); __syncthreads();",
        "__syncthreads(); if constexpr (MASKED) mask_patch(patch);", "masked few channels", "shared-race",
    ),
    "masked few channels: the outputs in the next patch's place": Bug(
        "conv/fprop_few_channels_any.cuh", "return patches_ + 2 * patch_bytes();", "return patches_ + patch_bytes();",
        "masked few channels", "shared-race",
    ),
    "masked depthwise: forgotten": Bug(
        "conv/fprop_depthwise_any.cuh", "if constexpr (MASKED) if (inside)", "if constexpr (false) if (inside)",
        "masked depthwise", "numbers",
    ),
    "masked depthwise 3x3: forgotten": Bug(
        "conv/fprop_depthwise.cuh", "if constexpr (MASKED) mask_patch(patch);", "", "masked depthwise 3x3", "numbers"
    ),
    "masked depthwise 3x3: behind the barrier": Bug(
        "conv/fprop_depthwise.cuh", "if constexpr (MASKED) mask_patch(patch); __syncthreads();",
        "__syncthreads(); if constexpr (MASKED) mask_patch(patch);", "masked depthwise 3x3", "shared-race",
    ),
    "masked depthwise 3x3: not the columns that are left": Bug(
        "conv/fprop_depthwise.cuh", "if (other_row(i) < ROWS) {", "if (false) {", "masked depthwise 3x3", "numbers"
    ),
    "masked depthwise, odd: by the first channels": Bug(
        "conv/fprop_depthwise_any.cuh", "load_masked<MASKED>(pixel, masks_of(pixel), args_.by_multiplier(k_ + v))",
        "load_masked<MASKED>(pixel + args_.by_multiplier(k_ + v), masks_of(pixel), 0)",
        "masked depthwise, odd", "numbers",
    ),
    "masked, transposed: by another row": Bug(
        "conv/transpose.cuh", "args.relu_output, matrix + (row + j) * args.columns + column + x",
        "args.relu_output, matrix + row * args.columns + column + x", "masked, transposed", "numbers",
    ),
    "masked, transposed: the output's zeros let it pass": Bug(
        "conv/mask.cuh", "!(widen(static_cast<const Element*>(output)[i]) <= 0)",
        "!(widen(static_cast<const Element*>(output)[i]) < 0)", "masked, transposed", "numbers",
    ),
    "masked plain: by the first pixel": Bug(
        "conv/fprop_plain.cuh", "(x - static_cast<const Element*>(args.input))", "0", "masked plain", "numbers"
    ),
    "masked, strides without number: by the first pixel": Bug(
        "conv/dgrad_plain.cuh", "static_cast<const Element*>(args.relu_output) + at;",
        "static_cast<const Element*>(args.relu_output);", "masked, strides without number", "numbers",
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
