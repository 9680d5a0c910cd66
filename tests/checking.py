"""What counts as right, and data on which it can be said exactly.

The checks here are themselves checked, by kernels that are made wrong on purpose: see the fixture ``wrong_kernel``.
"""

import numpy as np
import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def tolerance(dtype, length, factor=2.0):
    """How far a sum of ``length`` products may be off, as a share of the sum of their magnitudes."""
    return factor * torch.finfo(dtype).eps * length**0.5


def integers(rng, shape, dtype=torch.float32, layout=torch.contiguous_format, most=2):
    """Whole numbers from -most to most: sums of their products are exact, in whatever order they are taken."""
    return in_layout(torch.randint(-most, most + 1, shape, generator=rng).to(dtype), layout)


def normal(rng, shape, dtype=torch.float32, layout=torch.contiguous_format):
    return in_layout(torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype), layout)


def in_layout(tensor, layout):
    """The values with the strides of ``layout``, where C or H * W is 1 too: ``contiguous()`` then leaves others."""
    if tensor.dim() != 4:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, memory_format=layout).copy_(tensor)


def array(tensor):
    """The values as the float64 array that references take."""
    return None if tensor is None else tensor.detach().double().numpy()


def assert_exact(actual, exact):
    """Assert that every value is the exact one, rounded once."""
    expected = torch.from_numpy(np.ascontiguousarray(exact)).to(actual.dtype)
    assert actual.shape == expected.shape
    assert_same_values(actual, expected)


def assert_within(actual, exact, scale, length):
    """Assert that every value is as near to the exact one as a sum of ``length`` terms can be held to, whose magnitudes
    add up to ``scale``."""
    assert actual.shape == exact.shape
    error = np.abs(array(actual) - exact)
    allowed = tolerance(actual.dtype, length) * scale + torch.finfo(actual.dtype).smallest_normal
    worst = np.unravel_index(np.argmax(error / allowed), error.shape) if error.size else ()
    assert error.size == 0 or (error <= allowed).all(), (
        f"at {worst} {array(actual)[worst]} is {error[worst] / allowed[worst]:.3g} times as far from {exact[worst]} "
        f"as may be"
    )


def assert_same_values(actual, expected):
    """Assert equality, NaN equal to NaN and -0 equal to +0."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    assert same.all(), _difference(actual, expected, ~same)


def assert_same_bits(actual, expected):
    """Assert equality to the bit, the sign of zero included; only NaNs of different payload are equal."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if actual.dtype not in BITS:
        same = actual == expected
    else:
        same = actual.contiguous().view(BITS[actual.dtype]) == expected.contiguous().view(BITS[actual.dtype])
        same |= actual.isnan() & expected.isnan()
    assert same.all(), _difference(actual, expected, ~same)


def _difference(actual, expected, wrong):
    first = tuple(wrong.nonzero()[0].tolist())
    count = f"{int(wrong.sum())} of {wrong.numel()} differ"
    return f"{count}; first at {first}: {actual[first]}, expected {expected[first]}"


def is_in(layout, tensor):
    """Whether a 4-D tensor is dense in ``layout``, with the strides that torch gives a new one."""
    return tensor.stride() == torch.empty(tensor.shape, memory_format=layout, device="meta").stride()


def opinfo(name, variant=""):
    """torch's own description of an operation, with the samples that its own tests use."""
    from torch.testing._internal.common_methods_invocations import op_db

    (found,) = [op for op in op_db if (op.name, op.variant_test_name) == (name, variant)]
    return found
