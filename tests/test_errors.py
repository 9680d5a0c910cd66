"""Bad calls: each is refused in a sentence that says what is wrong, and nothing is written."""

import pytest
import torch
from checking import LAYOUTS, in_layout

import pyconvx
from pyconvx import InvalidCall, add_relu, conv2d, conv_transpose2d, max_pool2d, max_unpool2d, residual_add

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")

op = torch.ops.pyconvx
NAN = float("nan")
ONE, TWO, NONE, MOST = [1, 1], [2, 2], [0, 0, 0, 0], 2**63 - 1


class Operands:
    """The operands of good calls, which the bad ones change, all in one piece of memory that is watched."""

    def __init__(self, layout, grad=False):
        self._memory = torch.full((8192,), 1234.5)
        self._layout, self._used = layout, 16
        self.x = self._take(2, 4, 6, 7)
        self.weight, self.bias = self._take(6, 4, 3, 3), self._take(6)
        self.weight_t = self._take(4, 6, 3, 3)
        self.residual = self._take(2, 6, 4, 5)
        self.pooled = self._take(2, 4, 3, 3)
        self.large = self._take(1, 1, 16, 16)
        if grad:
            for name in ("x", "weight", "bias", "weight_t", "residual", "pooled", "large"):
                setattr(self, name, getattr(self, name).requires_grad_())
        self.offsets = in_layout(torch.zeros((2, 4, 3, 3), dtype=torch.uint8), layout)
        self.positions = in_layout(torch.arange(9).view(1, 1, 3, 3).expand(2, 4, 3, 3), layout)
        self._before = self._memory.clone()

    def _take(self, *shape):
        """A tensor of random values in the watched memory, with room on both sides."""
        strides = torch.empty(
            shape, memory_format=self._layout if len(shape) == 4 else torch.contiguous_format
        ).stride()
        tensor = self._memory.as_strided(shape, strides, self._used)
        tensor.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(self._used)))
        self._used += tensor.numel() + 16
        return tensor.detach()

    @staticmethod
    def with_index(indices, index):
        """The indices with another one in one place."""
        indices[1, 2, 2, 1] = index
        return indices

    def assert_untouched(self):
        assert torch.equal(self._memory, self._before)


CALLS = {
    "conv2d: the input is a list": (
        lambda o: conv2d([[1.0]], o.weight),
        "conv2d: input is of type list, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: the input is an array": (
        lambda o: conv2d(o.x.numpy(force=True), o.weight),
        "conv2d: input is of type ndarray, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: the input is None": (
        lambda o: conv2d(None, o.weight),
        "conv2d: input is of type NoneType, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: the weight is an array": (
        lambda o: conv2d(o.x, o.weight.numpy(force=True)),
        "conv2d: weight is of type ndarray, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: the weight is a list, padding 'same'": (
        lambda o: conv2d(o.x, [1.0], padding="same"),
        "conv2d: weight is of type list, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: the bias is a number": (
        lambda o: conv2d(o.x, o.weight, 1.0),
        "conv2d: bias is of type float, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: the residual is a number": (
        lambda o: conv2d(o.x, o.weight, residual=1.0),
        "conv2d: residual is of type float, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: the residual of one image is a number": (
        lambda o: conv2d(o.x[0], o.weight, residual=1.0),
        "conv2d: residual is of type float, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv2d: sparse input": (
        lambda o: conv2d(o.x.detach().to_sparse(), o.weight),
        "conv2d: input has the layout torch.sparse_coo, expected a dense tensor; call input.to_dense()",
    ),
    "conv2d: sparse weight": (
        lambda o: conv2d(o.x, o.weight.detach().to_sparse()),
        "conv2d: weight has the layout torch.sparse_coo, expected a dense tensor; call weight.to_dense()",
    ),
    "conv2d: compressed sparse weight": (
        lambda o: conv2d(o.x, o.x.detach()[0, 0].to_sparse_csr()),
        "conv2d: weight has the layout torch.sparse_csr, expected a dense tensor; call weight.to_dense()",
    ),
    "conv2d: complex input": (
        lambda o: conv2d(o.x.to(torch.complex64), o.weight),
        "conv2d: input has dtype complex64, expected float64, float32, bfloat16 or float16; convert it, for example "
        "with input.float()",
    ),
    "conv2d: integer input": (
        lambda o: conv2d(o.x.int(), o.weight.int()),
        "conv2d: input has dtype int32, expected float64, float32, bfloat16 or float16; convert it, for example with "
        "input.float()",
    ),
    "conv2d: boolean input": (
        lambda o: conv2d(o.x > 0, o.weight),
        "conv2d: input has dtype bool, expected float64, float32, bfloat16 or float16; convert it, for example with "
        "input.float()",
    ),
    "conv2d: 8-bit float input": (
        lambda o: conv2d(o.x.to(torch.float8_e4m3fn), o.weight),
        "conv2d: input has dtype float8_e4m3fn, expected float64, float32, bfloat16 or float16; convert it, for "
        "example with input.float()",
    ),
    "conv2d: weight of another dtype": (
        lambda o: conv2d(o.x, o.weight.double()),
        "conv2d: weight has dtype float64 but the input has float32; convert one of them, or run the call under "
        "torch.autocast",
    ),
    "conv2d: bias of another dtype": (
        lambda o: conv2d(o.x, o.weight, o.bias.half()),
        "conv2d: bias has dtype float16 but the input has float32; convert one of them, or run the call under "
        "torch.autocast",
    ),
    "conv2d: residual of another dtype": (
        lambda o: conv2d(o.x, o.weight, residual=o.residual.bfloat16()),
        "conv2d: residual has dtype bfloat16 but the input has float32; convert one of them, or run the call under "
        "torch.autocast",
    ),
    "conv2d: weight on another device": (
        lambda o: conv2d(o.x, o.weight.to("meta")),
        "conv2d: weight is on meta but the input is on cpu; move one with .to()",
    ),
    "conv2d: input on another device": (
        lambda o: conv2d(o.x.to("meta"), o.weight),
        "conv2d: weight is on cpu but the input is on meta; move one with .to()",
    ),
    "conv2d: bias on another device": (
        lambda o: conv2d(o.x, o.weight, o.bias.to("meta")),
        "conv2d: bias is on meta but the input is on cpu; move one with .to()",
    ),
    "conv2d: residual on another device": (
        lambda o: conv2d(o.x, o.weight, residual=o.residual.to("meta")),
        "conv2d: residual is on meta but the input is on cpu; move one with .to()",
    ),
    "conv2d: input of 2 dimensions": (
        lambda o: conv2d(o.x[0, 0], o.weight),
        "conv2d: input has 2 dimensions, shape (6, 7), expected 4; reshape it to (N, C, H, W)",
    ),
    "conv2d: input of 5 dimensions": (
        lambda o: conv2d(o.x[None], o.weight),
        "conv2d: input has 5 dimensions, shape (1, 2, 4, 6, 7), expected 4; reshape it to (N, C, H, W)",
    ),
    "conv2d: input of no dimension": (
        lambda o: conv2d(o.x.sum(), o.weight),
        "conv2d: input has 0 dimensions, shape (), expected 4; reshape it to (N, C, H, W)",
    ),
    "conv2d: weight of 3 dimensions": (
        lambda o: conv2d(o.x, o.weight[0]),
        "conv2d: weight has 3 dimensions, shape (4, 3, 3), expected 4; reshape it to (K, C / groups, R, S)",
    ),
    "conv2d: bias of 2 dimensions": (
        lambda o: conv2d(o.x, o.weight, o.bias[None]),
        "conv2d: bias has 2 dimensions, shape (1, 6), expected 1; reshape it to (K,)",
    ),
    "conv2d: bias of another length": (
        lambda o: conv2d(o.x, o.weight, o.bias[:5]),
        "conv2d: bias has shape (5,), expected (6,): one value per filter",
    ),
    "conv2d: channels that the weight lacks": (
        lambda o: conv2d(o.x, o.weight[:, :3]),
        "conv2d: input has 4 channels, but weight of shape (6, 3, 3, 3) with groups=1 expects 3 * 1 = 3; change groups "
        "or the channels of one of them",
    ),
    "conv2d: channels that groups lack": (
        lambda o: conv2d(o.x, o.weight, groups=2),
        "conv2d: input has 4 channels, but weight of shape (6, 4, 3, 3) with groups=2 expects 4 * 2 = 8; change groups "
        "or the channels of one of them",
    ),
    "conv2d: filters that groups do not divide": (
        lambda o: conv2d(o.x, o.weight[:5, :2], groups=2),
        "conv2d: groups must divide both the channels and the filters, got groups=2 for 4 channels and 5 filters; use "
        "a common divisor of the two",
    ),
    "conv2d: residual that would broadcast": (
        lambda o: conv2d(o.x, o.weight, residual=o.residual[:1]),
        "conv2d: residual has shape (1, 6, 4, 5), expected (2, 6, 4, 5): it is added to the output and must have its "
        "shape",
    ),
    "conv2d: residual of 3 dimensions": (
        lambda o: conv2d(o.x, o.weight, residual=o.residual[0]),
        "conv2d: residual has 3 dimensions, shape (6, 4, 5), expected 4; reshape it to (N, C, H, W)",
    ),
    "conv2d: residual of the input's size": (
        lambda o: conv2d(o.x, o.weight, residual=o.x),
        "conv2d: residual has shape (2, 4, 6, 7), expected (2, 6, 4, 5): it is added to the output and must have its "
        "shape",
    ),
    "conv2d: no filter": (
        lambda o: conv2d(o.x, o.weight[:0]),
        "conv2d: there must be at least one filter, got 0; give the weight out_channels >= 1",
    ),
    "conv2d: filters without taps": (
        lambda o: conv2d(o.x, o.weight[:, :, :0]),
        "conv2d: kernel_size must be at least 1 in both directions, got (0, 3); use kernel_size=1 for a window of one "
        "element",
    ),
    "conv2d: no channel": (
        lambda o: conv2d(o.x[:, :0], o.weight[:, :0]),
        "conv2d: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 0, 6, 7]; only the "
        "batch may be empty",
    ),
    "conv2d: no row": (
        lambda o: conv2d(o.x[:, :, :0], o.weight),
        "conv2d: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 4, 0, 7]; only the "
        "batch may be empty",
    ),
    "conv2d: filter larger than the padded input": (
        lambda o: conv2d(o.x[:, :, :2], o.weight, padding=(0, 1)),
        "conv2d: the window covers 3 x 3 with kernel_size=(3, 3) and dilation=(1, 1), but the padded input is only 2 x "
        "9; use a smaller kernel_size or dilation, or more padding",
    ),
    "conv2d: dilated filter larger than the input": (
        lambda o: conv2d(o.x, o.weight, dilation=(1, 4)),
        "conv2d: the window covers 3 x 9 with kernel_size=(3, 3) and dilation=(1, 4), but the padded input is only 6 x "
        "7; use a smaller kernel_size or dilation, or more padding",
    ),
    "conv2d: stride 0": (
        lambda o: conv2d(o.x, o.weight, stride=0),
        "conv2d: stride must be at least 1 in both directions, got (0, 0); use stride=1 for dense output",
    ),
    "conv2d: stride 0, padding 'same'": (
        lambda o: conv2d(o.x, o.weight, stride=(1, 0), padding="same"),
        "conv2d: stride must be at least 1 in both directions, got (1, 0); use stride=1 for dense output",
    ),
    "conv2d: negative stride": (
        lambda o: conv2d(o.x, o.weight, stride=(-1, 1)),
        "conv2d: stride must be at least 1 in both directions, got (-1, 1); use stride=1 for dense output",
    ),
    "conv2d: three strides": (
        lambda o: conv2d(o.x, o.weight, stride=(1, 1, 1)),
        "conv2d: stride is (1, 1, 1), expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: no stride": (
        lambda o: conv2d(o.x, o.weight, stride=()),
        "conv2d: stride is (), expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: stride of a half": (
        lambda o: conv2d(o.x, o.weight, stride=1.5),
        "conv2d: stride is 1.5, expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: stride NaN": (
        lambda o: conv2d(o.x, o.weight, stride=NAN),
        "conv2d: stride is nan, expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: stride of text": (
        lambda o: conv2d(o.x, o.weight, stride="2"),
        "conv2d: stride is '2', expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: stride None": (
        lambda o: conv2d(o.x, o.weight, stride=None),
        "conv2d: stride is None, expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: stride True": (
        lambda o: conv2d(o.x, o.weight, stride=True),
        "conv2d: stride is True, expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: stride beyond 31 bits": (
        lambda o: conv2d(o.x, o.weight, stride=2**40),
        "conv2d: kernel_size, stride, padding and dilation must be below 2^31, got kernel_size=(3, 3), "
        "stride=(1099511627776, 1099511627776), padding=(0, 0, 0, 0), dilation=(1, 1); reduce the one that is not",
    ),
    "conv2d: stride beyond 64 bits": (
        lambda o: conv2d(o.x, o.weight, stride=2**70),
        "conv2d: sizes and steps must fit into 64 bits, got n=2, c=4, h=6, w=7, k=6, r=3, s=3, "
        "stride=(1180591620717411303424, 1180591620717411303424), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1; use "
        "smaller ones",
    ),
    "conv2d: dilation 0": (
        lambda o: conv2d(o.x, o.weight, dilation=0),
        "conv2d: dilation must be at least 1 in both directions, got (0, 0); use dilation=1 for a window without holes",
    ),
    "conv2d: dilation of a float": (
        lambda o: conv2d(o.x, o.weight, dilation=(1, 2.0)),
        "conv2d: dilation is (1, 2.0), expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv2d: negative padding": (
        lambda o: conv2d(o.x, o.weight, padding=-1),
        "conv2d: padding must not be negative, got (top, bottom, left, right) = (-1, -1, -1, -1); use padding=0 and "
        "slice the input to crop it",
    ),
    "conv2d: negative padding on one side": (
        lambda o: conv2d(o.x, o.weight, padding=(1, 1, 1, -1)),
        "conv2d: padding must not be negative, got (top, bottom, left, right) = (1, 1, 1, -1); use padding=0 and slice "
        "the input to crop it",
    ),
    "conv2d: three paddings": (
        lambda o: conv2d(o.x, o.weight, padding=(1, 1, 1)),
        "conv2d: padding is (1, 1, 1), expected an int, (vertical, horizontal) or (top, bottom, left, right)",
    ),
    "conv2d: padding infinite": (
        lambda o: conv2d(o.x, o.weight, padding=(float("inf"), 0)),
        "conv2d: padding is (inf, 0), expected an int, (vertical, horizontal) or (top, bottom, left, right)",
    ),
    "conv2d: padding of another word": (
        lambda o: conv2d(o.x, o.weight, padding="full"),
        "conv2d: padding is 'full', expected one of 'same', 'valid'",
    ),
    "conv2d: padding beyond 31 bits": (
        lambda o: conv2d(o.x, o.weight, padding=2**62),
        "conv2d: kernel_size, stride, padding and dilation must be below 2^31, got kernel_size=(3, 3), stride=(1, 1), "
        "padding=(4611686018427387904, 4611686018427387904, 4611686018427387904, 4611686018427387904), dilation=(1, "
        "1); reduce the one that is not",
    ),
    "conv2d: no group": (
        lambda o: conv2d(o.x, o.weight, groups=0),
        "conv2d: groups must be at least 1, got 0; use groups=1 for a dense one",
    ),
    "conv2d: negative groups": (
        lambda o: conv2d(o.x, o.weight, groups=-1),
        "conv2d: groups must be at least 1, got -1; use groups=1 for a dense one",
    ),
    "conv2d: groups of a float": (
        lambda o: conv2d(o.x, o.weight, groups=1.0),
        "conv2d: groups is 1.0, expected an int",
    ),
    "conv2d: groups True": (
        lambda o: conv2d(o.x, o.weight, groups=True),
        "conv2d: groups is True, expected an int",
    ),
    "conv2d: groups NaN": (
        lambda o: conv2d(o.x, o.weight, groups=NAN),
        "conv2d: groups is nan, expected an int",
    ),
    "conv2d: groups beyond 64 bits": (
        lambda o: conv2d(o.x, o.weight, groups=2**62),
        "conv2d: input has 4 channels, but weight of shape (6, 4, 3, 3) with groups=4611686018427387904 expects 4 * "
        "4611686018427387904 = 18446744073709551616; change groups or the channels of one of them",
    ),
    "conv2d: another activation": (
        lambda o: conv2d(o.x, o.weight, activation="gelu"),
        "conv2d: activation is 'gelu', expected one of None, 'relu'",
    ),
    "conv2d: activation that is a list": (
        lambda o: conv2d(o.x, o.weight, activation=["relu"]),
        "conv2d: activation is ['relu'], expected one of None, 'relu'",
    ),
    "conv2d: activation that is empty": (
        lambda o: conv2d(o.x, o.weight, activation=""),
        "conv2d: activation is '', expected one of None, 'relu'",
    ),
    "conv_transpose2d: the input is a list": (
        lambda o: conv_transpose2d([[1.0]], o.weight),
        "conv_transpose2d: input is of type list, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv_transpose2d: the weight is None": (
        lambda o: conv_transpose2d(o.x, None),
        "conv_transpose2d: weight is of type NoneType, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "conv_transpose2d: integer input": (
        lambda o: conv_transpose2d(o.x.long(), o.weight_t.long()),
        "conv_transpose2d: input has dtype int64, expected float64, float32, bfloat16 or float16; convert it, for "
        "example with input.float()",
    ),
    "conv_transpose2d: weight of another dtype": (
        lambda o: conv_transpose2d(o.x, o.weight_t.double()),
        "conv_transpose2d: weight has dtype float64 but the input has float32; convert one of them, or run the call "
        "under torch.autocast",
    ),
    "conv_transpose2d: channels that the weight lacks": (
        lambda o: conv_transpose2d(o.x, o.weight_t[:3]),
        "conv_transpose2d: input has 4 channels, but weight of shape (3, 6, 3, 3) expects 3; its sizes are (C, K / "
        "groups, R, S)",
    ),
    "conv_transpose2d: bias of another length": (
        lambda o: conv_transpose2d(o.x, o.weight_t, o.bias[:5]),
        "conv_transpose2d: bias has shape (5,), expected (6,): one value per channel of the output",
    ),
    "conv_transpose2d: bias of a group": (
        lambda o: conv_transpose2d(o.x, o.weight_t, o.bias, groups=2),
        "conv_transpose2d: bias has shape (6,), expected (12,): one value per channel of the output",
    ),
    "conv_transpose2d: output_padding of a stride": (
        lambda o: conv_transpose2d(o.x, o.weight_t, stride=2, output_padding=(1, 2)),
        "conv_transpose2d: output_padding is (1, 2), expected each to be at least 0 and less than stride (2, 2) or "
        "dilation (1, 1); it settles which of several sizes the output has, and more would only add empty rows",
    ),
    "conv_transpose2d: negative output_padding": (
        lambda o: conv_transpose2d(o.x, o.weight_t, output_padding=-1),
        "conv_transpose2d: output_padding is (-1, -1), expected each to be at least 0 and less than stride (1, 1) or "
        "dilation (1, 1); it settles which of several sizes the output has, and more would only add empty rows",
    ),
    "conv_transpose2d: output_padding of a float": (
        lambda o: conv_transpose2d(o.x, o.weight_t, output_padding=0.5),
        "conv_transpose2d: output_padding is 0.5, expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "conv_transpose2d: padding beyond the output": (
        lambda o: conv_transpose2d(o.x, o.weight_t, padding=9),
        "conv_transpose2d: an input of 6 x 7 gives an output of -10 x -9, expected at least 1 x 1; use a larger input "
        "or less padding",
    ),
    "conv_transpose2d: padding of a word": (
        lambda o: conv_transpose2d(o.x, o.weight_t, padding="same"),
        "conv_transpose2d: padding is 'same', expected an int, (vertical, horizontal) or (top, bottom, left, right)",
    ),
    "conv_transpose2d: no row": (
        lambda o: conv_transpose2d(o.x[:, :, :0], o.weight_t),
        "conv_transpose2d: an input of 0 x 7 gives an output of 2 x 9, expected at least 1 x 1; use a larger input or "
        "less padding",
    ),
    "conv_transpose2d: stride 0": (
        lambda o: conv_transpose2d(o.x, o.weight_t, stride=0),
        "conv_transpose2d: stride must be at least 1 in both directions, got (0, 0); use stride=1 for dense output",
    ),
    "conv_transpose2d: negative stride": (
        lambda o: conv_transpose2d(o.x, o.weight_t, stride=-2),
        "conv_transpose2d: stride must be at least 1 in both directions, got (-2, -2); use stride=1 for dense output",
    ),
    "conv_transpose2d: dilation 0": (
        lambda o: conv_transpose2d(o.x, o.weight_t, dilation=0),
        "conv_transpose2d: dilation must be at least 1 in both directions, got (0, 0); use dilation=1 for a window "
        "without holes",
    ),
    "conv_transpose2d: no group": (
        lambda o: conv_transpose2d(o.x, o.weight_t, groups=0),
        "conv_transpose2d: groups must be at least 1, got 0; use groups=1 for a dense one",
    ),
    "conv_transpose2d: groups that do not divide": (
        lambda o: conv_transpose2d(o.x, o.weight_t, groups=3),
        "conv_transpose2d: groups must divide both the channels and the filters, got groups=3 for 18 channels and 4 "
        "filters; use a common divisor of the two",
    ),
    "conv_transpose2d: groups beyond 64 bits": (
        lambda o: conv_transpose2d(o.x, o.weight_t, groups=2**62),
        "conv_transpose2d: sizes and steps must fit into 64 bits, got n=2, c=27670116110564327424, h=8, w=9, k=4, r=3, "
        "s=3, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=4611686018427387904; use smaller ones",
    ),
    "conv_transpose2d: an output beyond 64 bits": (
        lambda o: conv_transpose2d(o.x, o.weight_t, stride=2**31 - 1),
        "conv_transpose2d: the input has more elements than 64 bits can address, got [N, C, H, W] = [2, 6, "
        "10737418238, 12884901885]; split the batch or the image",
    ),
    "conv_transpose2d: a size beyond 64 bits": (
        lambda o: conv_transpose2d(o.x, o.weight_t, stride=2**62),
        "conv_transpose2d: sizes and steps must fit into 64 bits, got n=2, c=6, h=23058430092136939523, "
        "w=27670116110564327427, k=4, r=3, s=3, stride=(4611686018427387904, 4611686018427387904), padding=(0, 0, 0, "
        "0), dilation=(1, 1), groups=1; use smaller ones",
    ),
    "max_pool2d: the input is a list": (
        lambda o: max_pool2d([[1.0]], 2),
        "max_pool2d: input is of type list, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "max_pool2d: sparse input": (
        lambda o: max_pool2d(o.x.detach().to_sparse(), 2),
        "max_pool2d: input has the layout torch.sparse_coo, expected a dense tensor; call input.to_dense()",
    ),
    "max_pool2d: integer input": (
        lambda o: max_pool2d(o.x.int(), 2),
        "max_pool2d: input has dtype int32, expected float64, float32, bfloat16 or float16; convert it, for example "
        "with input.float()",
    ),
    "max_pool2d: input of 2 dimensions": (
        lambda o: max_pool2d(o.x[0, 0], 2),
        "max_pool2d: input has 2 dimensions, shape (6, 7), expected 4; reshape it to (N, C, H, W)",
    ),
    "max_pool2d: no channel": (
        lambda o: max_pool2d(o.x[:, :0], 2),
        "max_pool2d: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 0, 6, 7]; only "
        "the batch may be empty",
    ),
    "max_pool2d: window of nothing": (
        lambda o: max_pool2d(o.x, 0),
        "max_pool2d: kernel_size must be at least 1 in both directions, got (0, 0); use kernel_size=1 for a window of "
        "one element",
    ),
    "max_pool2d: negative window": (
        lambda o: max_pool2d(o.x, (2, -2)),
        "max_pool2d: kernel_size must be at least 1 in both directions, got (2, -2); use kernel_size=1 for a window of "
        "one element",
    ),
    "max_pool2d: window of three sizes": (
        lambda o: max_pool2d(o.x, (2, 2, 2)),
        "max_pool2d: kernel_size is (2, 2, 2), expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "max_pool2d: window None": (
        lambda o: max_pool2d(o.x, None),
        "max_pool2d: kernel_size is None, expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "max_pool2d: window larger than the input": (
        lambda o: max_pool2d(o.x, 8),
        "max_pool2d: the window covers 8 x 8 with kernel_size=(8, 8) and dilation=(1, 1), but the padded input is only "
        "6 x 7; use a smaller kernel_size or dilation, or more padding",
    ),
    "max_pool2d: window larger than the input, ceil_mode": (
        lambda o: max_pool2d(o.x, 8, 1, ceil_mode=True),
        "max_pool2d: the output would be 0 x 0 for an input of 6 x 7; use a smaller kernel_size or dilation, or more "
        "padding",
    ),
    "max_pool2d: window beyond 64 bits": (
        lambda o: max_pool2d(o.x, 2**64),
        "max_pool2d: sizes and steps must fit into 64 bits, got n=2, c=4, h=6, w=7, r=18446744073709551616, "
        "s=18446744073709551616, stride=(18446744073709551616, 18446744073709551616), padding=(0, 0, 0, 0), "
        "dilation=(1, 1); use smaller ones",
    ),
    "max_pool2d: stride 0": (
        lambda o: max_pool2d(o.x, 2, 0),
        "max_pool2d: stride must be at least 1 in both directions, got (0, 0); use stride=1 for dense output",
    ),
    "max_pool2d: stride of a tensor of floats": (
        lambda o: max_pool2d(o.x, 2, torch.tensor(2.0)),
        "max_pool2d: stride is tensor(2.), expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "max_pool2d: padding of another word": (
        lambda o: max_pool2d(o.x, 2, padding="full"),
        "max_pool2d: padding is 'full', expected one of 'same', 'valid'",
    ),
    "max_pool2d: stride 0, padding 'same'": (
        lambda o: max_pool2d(o.x, 2, (0, 1), "same"),
        "max_pool2d: stride must be at least 1 in both directions, got (0, 1); use stride=1 for dense output",
    ),
    "max_pool2d: a matrix, padding 'same'": (
        lambda o: max_pool2d(o.x[0, 0], 2, padding="same"),
        "max_pool2d: input has 2 dimensions, shape (6, 7), expected 4; reshape it to (N, C, H, W)",
    ),
    "max_pool2d: padding beyond half of the window": (
        lambda o: max_pool2d(o.x, 3, padding=(2, 1)),
        "max_pool2d: padding must be at most half of the window on each side, got (top, bottom, left, right) = (2, 2, "
        "1, 1) for a window that covers 3 x 3; use a larger kernel_size, or pad the input with -inf beforehand",
    ),
    "max_pool2d: negative padding": (
        lambda o: max_pool2d(o.x, 3, padding=-1),
        "max_pool2d: padding must not be negative, got (top, bottom, left, right) = (-1, -1, -1, -1); use padding=0 "
        "and slice the input to crop it",
    ),
    "max_pool2d: ceil_mode where the dilation stands": (
        lambda o: max_pool2d(o.x, 2, 2, 0, True),
        "max_pool2d: dilation is True, expected an int or a pair of ints, (vertical, horizontal)",
    ),
    "max_pool2d: dilation 0": (
        lambda o: max_pool2d(o.x, 2, dilation=0),
        "max_pool2d: dilation must be at least 1 in both directions, got (0, 0); use dilation=1 for a window without "
        "holes",
    ),
    "max_pool2d: ceil_mode of text": (
        lambda o: max_pool2d(o.x, 2, ceil_mode="no"),
        "max_pool2d: ceil_mode is 'no', expected True or False",
    ),
    "max_pool2d: indices of 16 bits": (
        lambda o: max_pool2d(o.x, 2, return_indices=True, index_dtype=torch.int16),
        "max_pool2d: index_dtype is torch.int16, expected one of torch.uint8, torch.int32, torch.int64",
    ),
    "max_pool2d: indices of text": (
        lambda o: max_pool2d(o.x, 2, return_indices=True, index_dtype="uint8"),
        "max_pool2d: index_dtype is 'uint8', expected one of torch.uint8, torch.int32, torch.int64",
    ),
    "max_pool2d: indices of a byte for a larger window": (
        lambda o: max_pool2d(o.large, 16, return_indices=True, index_dtype=torch.uint8),
        "max_pool2d: torch.uint8 indices tell at most 255 elements of a window apart, got kernel_size=(16, 16) with "
        "256; use torch.int32 or torch.int64 indices",
    ),
    "max_unpool2d: the input is a list": (
        lambda o: max_unpool2d([[1.0]], o.positions, 2),
        "max_unpool2d: input is of type list, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "max_unpool2d: the indices are a list": (
        lambda o: max_unpool2d(o.pooled, [[1]], 2),
        "max_unpool2d: indices is of type list, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "max_unpool2d: integer input": (
        lambda o: max_unpool2d(o.positions, o.positions, 2),
        "max_unpool2d: input has dtype int64, expected float64, float32, bfloat16 or float16; convert it, for example "
        "with input.float()",
    ),
    "max_unpool2d: input of 2 dimensions": (
        lambda o: max_unpool2d(o.pooled[0, 0], o.positions, 2),
        "max_unpool2d: input has 2 dimensions, shape (3, 3), expected 4; reshape it to (N, C, H, W)",
    ),
    "max_unpool2d: floating indices": (
        lambda o: max_unpool2d(o.pooled, o.pooled, 2),
        "max_unpool2d: indices have dtype float32, expected int64 (positions in the plane), or uint8 or int32 (offsets "
        "in the window); pass the indices that max_pool2d returned",
    ),
    "max_unpool2d: indices of 16 bits": (
        lambda o: max_unpool2d(o.pooled, o.positions.short(), 2),
        "max_unpool2d: indices have dtype int16, expected int64 (positions in the plane), or uint8 or int32 (offsets "
        "in the window); pass the indices that max_pool2d returned",
    ),
    "max_unpool2d: sparse indices": (
        lambda o: max_unpool2d(o.pooled, o.positions.to_sparse(), 2),
        "max_unpool2d: indices have the layout torch.sparse_coo, expected a dense tensor; call indices.to_dense()",
    ),
    "max_unpool2d: indices on another device": (
        lambda o: max_unpool2d(o.pooled, o.positions.to("meta"), 2),
        "max_unpool2d: indices are on meta but the input is on cpu; move one with .to()",
    ),
    "max_unpool2d: indices of another shape": (
        lambda o: max_unpool2d(o.pooled, o.positions[:, :3], 2),
        "max_unpool2d: indices has shape (2, 3, 3, 3), expected (2, 4, 3, 3): one index per pooled value; pass the "
        "indices that max_pool2d returned",
    ),
    "max_unpool2d: indices of a batch for one image": (
        lambda o: max_unpool2d(o.pooled[0], o.positions, 2),
        "max_unpool2d: indices has shape (1, 2, 4, 3, 3), expected (1, 4, 3, 3): one index per pooled value; pass the "
        "indices that max_pool2d returned",
    ),
    "max_unpool2d: a position beyond the plane": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.positions, 42), 2, output_size=(6, 7)),
        "max_unpool2d: index 42 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (valid: 0 to 41); "
        "pass the output_size of the pooled input, or the indices that max_pool2d returned for it",
    ),
    "max_unpool2d: a negative position": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.positions, -1), 2, output_size=(6, 7)),
        "max_unpool2d: index -1 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (valid: 0 to 41); "
        "pass the output_size of the pooled input, or the indices that max_pool2d returned for it",
    ),
    "max_unpool2d: a position beyond all memory": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.positions, 2**62), 2, output_size=(6, 7)),
        "max_unpool2d: index 4611686018427387904 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane "
        "(valid: 0 to 41); pass the output_size of the pooled input, or the indices that max_pool2d returned for it",
    ),
    "max_unpool2d: the least of all positions": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.positions, -(2**63)), 2, output_size=(6, 7)),
        "max_unpool2d: index -9223372036854775808 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane "
        "(valid: 0 to 41); pass the output_size of the pooled input, or the indices that max_pool2d returned for it",
    ),
    "max_unpool2d: an offset beyond the window": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.offsets, 4), 2, output_size=(6, 7)),
        "max_unpool2d: index 4 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (it is an offset in "
        "a window of 2 x 2 at row 4, column 2); pass the output_size of the pooled input, or the indices that "
        "max_pool2d returned for it",
    ),
    "max_unpool2d: an offset of 255": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.offsets, 255), 2, output_size=(6, 7)),
        "max_unpool2d: index 255 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (it is an offset "
        "in a window of 2 x 2 at row 4, column 2); pass the output_size of the pooled input, or the indices that "
        "max_pool2d returned for it",
    ),
    "max_unpool2d: a negative offset": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.offsets.int(), -1), 2, output_size=(6, 7)),
        "max_unpool2d: index -1 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (it is an offset in "
        "a window of 2 x 2 at row 4, column 2); pass the output_size of the pooled input, or the indices that "
        "max_pool2d returned for it",
    ),
    "max_unpool2d: an offset into the padding": (
        lambda o: max_unpool2d(o.pooled, o.offsets.fill_(0), 3, 2, 1, output_size=(6, 6)),
        "max_unpool2d: index 0 at [n, c, p, q] = [0, 0, 0, 0] lies outside the 6 x 6 output plane (it is an offset in "
        "a window of 3 x 3 at row -1, column -1); pass the output_size of the pooled input, or the indices that "
        "max_pool2d returned for it",
    ),
    "max_unpool2d: an offset beyond a smaller image": (
        lambda o: max_unpool2d(o.pooled, o.with_index(o.offsets, 3), 2, output_size=(5, 6)),
        "max_unpool2d: index 3 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 5 x 6 output plane (it is an offset in "
        "a window of 2 x 2 at row 4, column 2); pass the output_size of the pooled input, or the indices that "
        "max_pool2d returned for it",
    ),
    "max_unpool2d: too large an output_size": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, output_size=(8, 7)),
        "max_unpool2d: output_size is (8, 7), expected its last two sizes between (5, 5) and (7, 7): other images are "
        "not pooled to 3 x 3",
    ),
    "max_unpool2d: too small an output_size": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, output_size=(2, 4, 6, 4)),
        "max_unpool2d: output_size is (2, 4, 6, 4), expected its last two sizes between (5, 5) and (7, 7): other "
        "images are not pooled to 3 x 3",
    ),
    "max_unpool2d: padding 'same' of an unknown size": (
        lambda o: max_unpool2d(o.pooled, o.offsets, 2, padding="same"),
        "max_unpool2d: padding is 'same', which depends on the size of the image that was pooled; pass that as "
        "output_size",
    ),
    "max_unpool2d: padding 'same' of one size": (
        lambda o: max_unpool2d(o.pooled, o.offsets, 2, padding="same", output_size=(6,)),
        "max_unpool2d: output_size is (6,), expected two ints, (H, W), or all sizes of the image that was pooled",
    ),
    "max_unpool2d: output_size of one": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, output_size=(6,)),
        "max_unpool2d: output_size is (6,), expected two ints, (H, W), or all sizes of the image that was pooled",
    ),
    "max_unpool2d: output_size of an int": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, output_size=6),
        "max_unpool2d: output_size is 6, expected two ints, (H, W), or all sizes of the image that was pooled",
    ),
    "max_unpool2d: output_size of floats": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, output_size=(6.0, 7.0)),
        "max_unpool2d: output_size is (6.0, 7.0), expected two ints, (H, W), or all sizes of the image that was pooled",
    ),
    "max_unpool2d: output_size NaN": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, output_size=(NAN, 7)),
        "max_unpool2d: output_size is (nan, 7), expected two ints, (H, W), or all sizes of the image that was pooled",
    ),
    "max_unpool2d: output_size of text": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, output_size="67"),
        "max_unpool2d: output_size is '67', expected two ints, (H, W), or all sizes of the image that was pooled",
    ),
    "max_unpool2d: negative stride": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, -1),
        "max_unpool2d: stride must be at least 1 in both directions, got (-1, -1); use stride=1 for dense output",
    ),
    "max_unpool2d: negative stride and an output_size": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, -1, output_size=(6, 7)),
        "max_unpool2d: stride must be at least 1 in both directions, got (-1, -1); use stride=1 for dense output",
    ),
    "max_unpool2d: padding that leaves nothing": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2, 2, 9),
        "max_unpool2d: the output must have at least one channel, row and column, got [N, C, H, W] = [2, 4, -12, -12]; "
        "only the batch may be empty",
    ),
    "max_unpool2d: window beyond 64 bits": (
        lambda o: max_unpool2d(o.pooled, o.positions, 2**62),
        "max_unpool2d: sizes and steps must fit into 64 bits, got n=2, c=4, p=3, q=3, h=13835058055282163712, "
        "w=13835058055282163712, r=4611686018427387904, s=4611686018427387904, stride=(4611686018427387904, "
        "4611686018427387904), padding=(0, 0, 0, 0), dilation=(1, 1); use smaller ones",
    ),
    "residual_add: x is a number": (
        lambda o: residual_add(1.0, o.x),
        "residual_add: x is of type float, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "residual_add: residual is a number": (
        lambda o: residual_add(o.x, 1.0),
        "residual_add: residual is of type float, expected a torch.Tensor; torch.as_tensor() makes one",
    ),
    "residual_add: sparse residual": (
        lambda o: residual_add(o.x, o.x.detach().to_sparse()),
        "residual_add: residual has the layout torch.sparse_coo, expected a dense tensor; call residual.to_dense()",
    ),
    "residual_add: integers": (
        lambda o: residual_add(o.x.int(), o.x.int()),
        "residual_add: x has dtype int32, expected float64, float32, bfloat16 or float16; convert it, for example with "
        "x.float()",
    ),
    "residual_add: residual of another dtype": (
        lambda o: residual_add(o.x, o.x.double()),
        "residual_add: residual has dtype float64 but the input has float32; convert one of them, or run the call "
        "under torch.autocast",
    ),
    "residual_add: residual on another device": (
        lambda o: residual_add(o.x, o.x.to("meta")),
        "residual_add: residual is on meta but the input is on cpu; move one with .to()",
    ),
    "residual_add: residual that would broadcast": (
        lambda o: residual_add(o.x, o.x[:1]),
        "residual_add: residual has shape (1, 4, 6, 7), expected (2, 4, 6, 7): the two are added element by element",
    ),
    "residual_add: another activation": (
        lambda o: residual_add(o.x, o.x, "sigmoid"),
        "residual_add: activation is 'sigmoid', expected one of None, 'relu'",
    ),
    "add_relu: residual of another shape": (
        lambda o: add_relu(o.x, o.x[..., :-1]),
        "residual_add: residual has shape (2, 4, 6, 6), expected (2, 4, 6, 7): the two are added element by element",
    ),
}

OPERATIONS = {
    "conv2d: input of 3 dimensions": (
        lambda o: op.conv2d(o.x[0], o.weight, None, None, ONE, NONE, ONE, 1, "none"),
        "conv2d: input has 3 dimensions, shape (4, 6, 7), expected 4; reshape it to (N, C, H, W)",
    ),
    "conv2d: one stride": (
        lambda o: op.conv2d(o.x, o.weight, None, None, [1], NONE, ONE, 1, "none"),
        "conv2d: stride is (1,), expected 2 numbers",
    ),
    "conv2d: no stride": (
        lambda o: op.conv2d(o.x, o.weight, None, None, [], NONE, ONE, 1, "none"),
        "conv2d: stride is (), expected 2 numbers",
    ),
    "conv2d: three dilations": (
        lambda o: op.conv2d(o.x, o.weight, None, None, ONE, NONE, [1, 1, 1], 1, "none"),
        "conv2d: dilation is (1, 1, 1), expected 2 numbers",
    ),
    "conv2d: two paddings": (
        lambda o: op.conv2d(o.x, o.weight, None, None, ONE, [0, 0], ONE, 1, "none"),
        "conv2d: padding is (0, 0), expected 4 numbers",
    ),
    "conv2d: another activation": (
        lambda o: op.conv2d(o.x, o.weight, None, None, ONE, NONE, ONE, 1, "tanh"),
        "conv2d: activation is 'tanh', expected one of 'none', 'relu'",
    ),
    "conv2d: padding beyond all bounds": (
        lambda o: op.conv2d(o.x, o.weight, None, None, ONE, [MOST] * 4, ONE, 1, "none"),
        "conv2d: kernel_size, stride, padding and dilation must be below 2^31, got kernel_size=(3, 3), stride=(1, 1), "
        "padding=(9223372036854775807, 9223372036854775807, 9223372036854775807, 9223372036854775807), dilation=(1, "
        "1); reduce the one that is not",
    ),
    "conv2d: dilation beyond all bounds": (
        lambda o: op.conv2d(o.x, o.weight, None, None, ONE, NONE, [MOST, MOST], 1, "none"),
        "conv2d: kernel_size, stride, padding and dilation must be below 2^31, got kernel_size=(3, 3), stride=(1, 1), "
        "padding=(0, 0, 0, 0), dilation=(9223372036854775807, 9223372036854775807); reduce the one that is not",
    ),
    "conv2d: the least stride of all": (
        lambda o: op.conv2d(o.x, o.weight, None, None, [-MOST - 1] * 2, NONE, ONE, 1, "none"),
        "conv2d: stride must be at least 1 in both directions, got (-9223372036854775808, -9223372036854775808); use "
        "stride=1 for dense output",
    ),
    "conv2d_dgrad: gradient without the filters' channels": (
        lambda o: op.conv2d_dgrad(o.x, o.weight, [6, 7], ONE, NONE, ONE, 1),
        "conv2d_dgrad: grad_output has 4 channels, expected one per filter: weight has 6 filters",
    ),
    "conv2d_dgrad: gradient of another input": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight, [6, 9], ONE, NONE, ONE, 1),
        "conv2d_dgrad: grad_output has shape (2, 6, 4, 5), expected (2, 6, 4, 7): the output of an input of that size",
    ),
    "conv2d_dgrad: negative input": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight, [-6, 7], ONE, NONE, ONE, 1),
        "conv2d_dgrad: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 4, -6, 7]; "
        "only the batch may be empty",
    ),
    "conv2d_dgrad: input of one size": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight, [6], ONE, NONE, ONE, 1),
        "conv2d_dgrad: input_size is (6,), expected 2 numbers",
    ),
    "conv2d_dgrad: input beyond 64 bits": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight, [2**62, 2**62], ONE, NONE, ONE, 1),
        "conv2d_dgrad: the input has more elements than 64 bits can address, got [N, C, H, W] = [2, 4, "
        "4611686018427387904, 4611686018427387904]; split the batch or the image",
    ),
    "conv2d_dgrad: the largest of inputs": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight, [MOST, MOST], ONE, [1] * 4, ONE, 1),
        "conv2d_dgrad: the input has more elements than 64 bits can address, got [N, C, H, W] = [2, 4, "
        "9223372036854775807, 9223372036854775807]; split the batch or the image",
    ),
    "conv2d_dgrad: no group": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight, [6, 7], ONE, NONE, ONE, 0),
        "conv2d_dgrad: groups must be at least 1, got 0; use groups=1 for a dense one",
    ),
    "conv2d_dgrad: groups beyond 64 bits": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight, [6, 7], ONE, NONE, ONE, 2**62),
        "conv2d_dgrad: sizes and steps must fit into 64 bits, got n=2, c=18446744073709551616, h=6, w=7, k=6, r=3, "
        "s=3, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=4611686018427387904; use smaller ones",
    ),
    "conv2d_dgrad: weight of 3 dimensions": (
        lambda o: op.conv2d_dgrad(o.residual, o.weight[0], [6, 7], ONE, NONE, ONE, 1),
        "conv2d_dgrad: weight has 3 dimensions, shape (4, 3, 3), expected 4; reshape it to (K, C / groups, R, S)",
    ),
    "conv2d_wgrad: gradient of another filter": (
        lambda o: op.conv2d_wgrad(o.residual, o.x, [4, 4], ONE, NONE, ONE, 1, True),
        "conv2d_wgrad: grad_output has shape (2, 6, 4, 5), expected (2, 6, 3, 4): the output of an input of that size",
    ),
    "conv2d_wgrad: gradient of another dtype": (
        lambda o: op.conv2d_wgrad(o.residual.double(), o.x, [3, 3], ONE, NONE, ONE, 1, True),
        "conv2d_wgrad: grad_output has dtype float64 but the input has float32; convert one of them, or run the call "
        "under torch.autocast",
    ),
    "conv2d_wgrad: gradient of another batch": (
        lambda o: op.conv2d_wgrad(o.residual[:1], o.x, [3, 3], ONE, NONE, ONE, 1, True),
        "conv2d_wgrad: grad_output has shape (1, 6, 4, 5), expected (2, 6, 4, 5): the output of an input of that size",
    ),
    "conv2d_wgrad: filter beyond all bounds": (
        lambda o: op.conv2d_wgrad(o.residual, o.x, [MOST, MOST], ONE, NONE, ONE, 1, True),
        "conv2d_wgrad: kernel_size, stride, padding and dilation must be below 2^31, got "
        "kernel_size=(9223372036854775807, 9223372036854775807), stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1); "
        "reduce the one that is not",
    ),
    "conv2d_wgrad: negative filter": (
        lambda o: op.conv2d_wgrad(o.residual, o.x, [-3, 3], ONE, NONE, ONE, 1, True),
        "conv2d_wgrad: kernel_size must be at least 1 in both directions, got (-3, 3); use kernel_size=1 for a window "
        "of one element",
    ),
    "conv2d_wgrad: no group": (
        lambda o: op.conv2d_wgrad(o.residual, o.x, [3, 3], ONE, NONE, ONE, 0, False),
        "conv2d_wgrad: groups must be at least 1, got 0; use groups=1 for a dense one",
    ),
    "conv_transpose2d: no stride": (
        lambda o: op.conv_transpose2d(o.x, o.weight_t, None, [], NONE, [0, 0], ONE, 1),
        "conv_transpose2d: stride is (), expected 2 numbers",
    ),
    "conv_transpose2d: one output_padding": (
        lambda o: op.conv_transpose2d(o.x, o.weight_t, None, ONE, NONE, [0], ONE, 1),
        "conv_transpose2d: output_padding is (0,), expected 2 numbers",
    ),
    "conv_transpose2d: three paddings": (
        lambda o: op.conv_transpose2d(o.x, o.weight_t, None, ONE, [0, 0, 0], [0, 0], ONE, 1),
        "conv_transpose2d: padding is (0, 0, 0), expected 4 numbers",
    ),
    "max_pool2d: input of 3 dimensions": (
        lambda o: op.max_pool2d(o.x[0], TWO, TWO, NONE, ONE, False, torch.int64, "none"),
        "max_pool2d: input has 3 dimensions, shape (4, 6, 7), expected 4; reshape it to (N, C, H, W)",
    ),
    "max_pool2d: window of one size": (
        lambda o: op.max_pool2d(o.x, [2], TWO, NONE, ONE, False, torch.int64, "none"),
        "max_pool2d: kernel_size is (2,), expected 2 numbers",
    ),
    "max_pool2d: indices of floats": (
        lambda o: op.max_pool2d(o.x, TWO, TWO, NONE, ONE, False, torch.float32, "none"),
        "max_pool2d: index_dtype is torch.float32, expected one of None, torch.uint8, torch.int32, torch.int64",
    ),
    "max_pool2d: stride 0": (
        lambda o: op.max_pool2d(o.x, TWO, [0, 0], NONE, ONE, False, None, "none"),
        "max_pool2d: stride must be at least 1 in both directions, got (0, 0); use stride=1 for dense output",
    ),
    "max_pool2d_backward: stride 0": (
        lambda o: op.max_pool2d_backward(o.pooled, o.positions, [6, 7], TWO, [0, 0], NONE, ONE, False),
        "max_pool2d_backward: stride must be at least 1 in both directions, got (0, 0); use stride=1 for dense output",
    ),
    "max_pool2d_backward: gradient of another input": (
        lambda o: op.max_pool2d_backward(o.pooled, o.positions, [6, 17], TWO, TWO, NONE, ONE, False),
        "max_pool2d_backward: grad_output has shape (2, 4, 3, 3), expected (2, 4, 3, 8): the output of an input of "
        "that size",
    ),
    "max_pool2d_backward: negative input": (
        lambda o: op.max_pool2d_backward(o.pooled, o.positions, [-6, -7], TWO, TWO, NONE, ONE, False),
        "max_pool2d_backward: the input must have at least one channel, row and column, got [N, C, H, W] = [2, 4, -6, "
        "-7]; only the batch may be empty",
    ),
    "max_pool2d_backward: input of one size": (
        lambda o: op.max_pool2d_backward(o.pooled, o.positions, [6], TWO, TWO, NONE, ONE, False),
        "max_pool2d_backward: input_size is (6,), expected 2 numbers",
    ),
    "max_pool2d_backward: floating indices": (
        lambda o: op.max_pool2d_backward(o.pooled, o.pooled, [6, 7], TWO, TWO, NONE, ONE, False),
        "max_pool2d_backward: indices have dtype float32, expected int64 (positions in the plane), or uint8 or int32 "
        "(offsets in the window); pass the indices that max_pool2d returned",
    ),
    "max_pool2d_backward: indices of one image": (
        lambda o: op.max_pool2d_backward(o.pooled, o.positions[0], [6, 7], TWO, TWO, NONE, ONE, False),
        "max_pool2d_backward: indices has shape (4, 3, 3), expected (2, 4, 3, 3): one index per pooled value; pass the "
        "indices that max_pool2d returned",
    ),
    "max_pool2d_backward: gradient of 3 dimensions": (
        lambda o: op.max_pool2d_backward(o.pooled[0], o.positions, [6, 7], TWO, TWO, NONE, ONE, False),
        "max_pool2d_backward: grad_output has 3 dimensions, shape (4, 3, 3), expected 4; reshape it to (N, C, H, W)",
    ),
    "max_pool2d_gather: stride 0": (
        lambda o: op.max_pool2d_gather(o.x, o.positions, TWO, [0, 0], NONE, ONE, False),
        "max_pool2d_gather: stride must be at least 1 in both directions, got (0, 0); use stride=1 for dense output",
    ),
    "max_pool2d_gather: no stride": (
        lambda o: op.max_pool2d_gather(o.x, o.positions, TWO, [], NONE, ONE, False),
        "max_pool2d_gather: stride is (), expected 2 numbers",
    ),
    "max_pool2d_gather: indices of another shape": (
        lambda o: op.max_pool2d_gather(o.x, o.positions[:, :, :1], TWO, TWO, NONE, ONE, False),
        "max_pool2d_gather: indices has shape (2, 4, 1, 3), expected (2, 4, 3, 3): one index per pooled value; pass "
        "the indices that max_pool2d returned",
    ),
    "max_pool2d_gather: indices of another batch": (
        lambda o: op.max_pool2d_gather(o.x, o.positions[:1], TWO, TWO, NONE, ONE, False),
        "max_pool2d_gather: indices has shape (1, 4, 3, 3), expected (2, 4, 3, 3): one index per pooled value; pass "
        "the indices that max_pool2d returned",
    ),
    "max_unpool2d: negative output": (
        lambda o: op.max_unpool2d(o.pooled, o.positions, TWO, TWO, NONE, ONE, [-6, 7]),
        "max_unpool2d: the output must have at least one channel, row and column, got [N, C, H, W] = [2, 4, -6, 7]; "
        "only the batch may be empty",
    ),
    "max_unpool2d: output of one size": (
        lambda o: op.max_unpool2d(o.pooled, o.positions, TWO, TWO, NONE, ONE, [6]),
        "max_unpool2d: output_size is (6,), expected 2 numbers",
    ),
    "max_unpool2d: output beyond 64 bits": (
        lambda o: op.max_unpool2d(o.pooled, o.positions, TWO, TWO, NONE, ONE, [2**62, 2**62]),
        "max_unpool2d: the output has more elements than 64 bits can address, got [N, C, H, W] = [2, 4, "
        "4611686018427387904, 4611686018427387904]; split the batch or the image",
    ),
    "max_unpool2d: a position beyond the plane": (
        lambda o: op.max_unpool2d(o.pooled, o.with_index(o.positions, 99), TWO, TWO, NONE, ONE, [6, 7]),
        "max_unpool2d: index 99 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (valid: 0 to 41); "
        "pass the output_size of the pooled input, or the indices that max_pool2d returned for it",
    ),
    "max_unpool2d: indices of no dimension": (
        lambda o: op.max_unpool2d(o.pooled, torch.tensor(1), TWO, TWO, NONE, ONE, [6, 7]),
        "max_unpool2d: indices has shape (), expected (2, 4, 3, 3): one index per pooled value; pass the indices that "
        "max_pool2d returned",
    ),
    "max_unpool2d_backward: a position beyond the plane": (
        lambda o: op.max_unpool2d_backward(o.x, o.with_index(o.positions, 99), TWO, TWO, NONE, ONE, [6, 7]),
        "max_unpool2d_backward: index 99 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (valid: 0 "
        "to 41); pass the output_size of the pooled input, or the indices that max_pool2d returned for it",
    ),
    "max_unpool2d_backward: a negative position": (
        lambda o: op.max_unpool2d_backward(o.x, o.with_index(o.positions, -9), TWO, TWO, NONE, ONE, [6, 7]),
        "max_unpool2d_backward: index -9 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (valid: 0 "
        "to 41); pass the output_size of the pooled input, or the indices that max_pool2d returned for it",
    ),
    "max_unpool2d_backward: an offset beyond the window": (
        lambda o: op.max_unpool2d_backward(o.x, o.with_index(o.offsets, 4), TWO, TWO, NONE, ONE, [6, 7]),
        "max_unpool2d_backward: index 4 at [n, c, p, q] = [1, 2, 2, 1] lies outside the 6 x 7 output plane (it is an "
        "offset in a window of 2 x 2 at row 4, column 2); pass the output_size of the pooled input, or the indices "
        "that max_pool2d returned for it",
    ),
    "max_unpool2d_backward: gradient of another size": (
        lambda o: op.max_unpool2d_backward(o.x, o.positions, TWO, TWO, NONE, ONE, [6, 8]),
        "max_unpool2d_backward: grad_output has shape (2, 4, 6, 7), expected (2, 4, 6, 8): the unpooled size",
    ),
    "max_unpool2d_backward: indices of 2 dimensions": (
        lambda o: op.max_unpool2d_backward(o.x, o.positions[0, 0], TWO, TWO, NONE, ONE, [6, 7]),
        "max_unpool2d_backward: indices has shape (3, 3), expected (2, 4): one index per pooled value; pass the "
        "indices that max_pool2d returned",
    ),
    "residual_add: residual of another shape": (
        lambda o: op.residual_add(o.x, o.x[0], "none"),
        "residual_add: residual has shape (4, 6, 7), expected (2, 4, 6, 7): the two are added element by element",
    ),
    "residual_add: another activation": (
        lambda o: op.residual_add(o.x, o.x, "gelu"),
        "residual_add: activation is 'gelu', expected one of 'none', 'relu'",
    ),
    "relu_backward: gradient of another dtype": (
        lambda o: op.relu_backward(o.x.double(), o.x),
        "relu_backward: grad_output has dtype float64 but the input has float32; convert one of them, or run the call "
        "under torch.autocast",
    ),
    "relu_backward: gradient of another shape": (
        lambda o: op.relu_backward(o.x[:1], o.x),
        "relu_backward: grad_output has shape (1, 4, 6, 7), expected (2, 4, 6, 7): the shape of the output",
    ),
    "relu_backward: integers": (
        lambda o: op.relu_backward(o.positions, o.positions),
        "relu_backward: output has dtype int64, expected float64, float32, bfloat16 or float16; convert it, for "
        "example with output.float()",
    ),
}


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("call", "sentence"), CALLS.values(), ids=CALLS)
def test_a_bad_call_is_refused_in_a_sentence(call, sentence, layout, grad):
    operands = Operands(layout, grad)
    with pytest.raises(InvalidCall) as refusal:
        call(operands)
    assert str(refusal.value) == sentence
    operands.assert_untouched()


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("call", "sentence"), OPERATIONS.values(), ids=OPERATIONS)
def test_a_bad_call_of_a_registered_operation_is_refused_too(call, sentence, layout, grad):
    operands = Operands(layout, grad)
    with pytest.raises(InvalidCall) as refusal:
        call(operands)
    assert str(refusal.value) == sentence
    operands.assert_untouched()


@pytest.mark.parametrize("backend", ["cpu", "aten"])
@pytest.mark.parametrize("name", [name for name in (*CALLS, *OPERATIONS) if "position" in name or "offset" in name])
def test_all_backends_refuse_an_index_in_the_same_words(name, layout, backend):
    call, sentence = CALLS.get(name) or OPERATIONS[name]
    operands = Operands(layout)
    with pyconvx.backend(backend), pytest.raises(InvalidCall) as refusal:
        call(operands)
    assert str(refusal.value) == sentence


def test_a_call_that_is_bad_in_a_gradient_alone_is_refused(layout):
    operands = Operands(layout, grad=True)
    output = conv2d(operands.x, operands.weight)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(output, operands.x, torch.zeros(2, 6, 4, 4))
    operands.assert_untouched()


def test_a_good_call_after_a_bad_one_is_run(layout):
    operands = Operands(layout)
    for bad in (0, 1.0, 2**70):
        with pytest.raises(InvalidCall):
            conv2d(operands.x, operands.weight, groups=bad)
    assert conv2d(operands.x, operands.weight, groups=1).shape == (2, 6, 4, 5)
    with pytest.raises(InvalidCall):  # 1.0 and True are equal to the 1 that has just been run
        conv2d(operands.x, operands.weight, groups=1.0)
    with pytest.raises(InvalidCall):
        conv2d(operands.x, operands.weight, groups=True)
    with pytest.raises(InvalidCall):
        conv2d(operands.x, operands.weight, stride=1.0)


def test_refusals_are_value_errors_and_runtime_errors():
    assert issubclass(InvalidCall, ValueError)
    assert issubclass(InvalidCall, RuntimeError)  # which is what code written for torch catches


def test_whole_numbers_of_every_kind_are_taken(layout):
    import numpy

    operands = Operands(layout)
    expected = max_pool2d(operands.x, 2, 1)
    for one, two in ((numpy.int64(1), numpy.int32(2)), (torch.tensor(1), torch.tensor(2))):
        assert torch.equal(max_pool2d(operands.x, (two, 2), one), expected)
        assert conv2d(operands.x, operands.weight, stride=(one, 1), groups=one).shape == (2, 6, 4, 5)


@pytest.mark.parametrize("name", ["groups", "stride"])
def test_what_torch_takes_for_no_number_is_none_here(name):
    operands = Operands(LAYOUTS["contiguous"])
    for value in (1.0, True, "1", NAN, torch.tensor(1.0)):
        with pytest.raises((TypeError, RuntimeError)):
            torch.nn.functional.conv2d(operands.x, operands.weight, **{name: value})
        with pytest.raises(InvalidCall):
            conv2d(operands.x, operands.weight, **{name: value})


# The checks are checked.


def test_the_watch_sees_a_write_beside_an_operand(layout):
    operands = Operands(layout)
    operands.assert_untouched()
    operands._memory[operands.x.storage_offset() - 1] = 0
    with pytest.raises(AssertionError):
        operands.assert_untouched()
