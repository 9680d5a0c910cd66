"""What the operations mean, in loops over taps and windows of float64 arrays: slow, plain, independent of the package.

Arrays are (N, C, H, W); padding is (top, bottom, left, right); all other geometry is (vertical, horizontal).
"""

import numpy as np

NOWHERE = -1
"""The position of the winner of a window that has no element inside the input."""


def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    k, _, taps_h, taps_w = weight.shape
    canvas = padded(x, padding)
    p, q = conv_size(x.shape[2:], (taps_h, taps_w), stride, padding, dilation)
    output = np.zeros((x.shape[0], k, p, q))
    for filters, channels in _group_slices(k, x.shape[1], groups):
        for r, s in np.ndindex(taps_h, taps_w):
            seen = canvas[(slice(None), channels, *_windows(r, s, p, q, stride, dilation))]
            output[:, filters] += np.einsum("ncpq,kc->nkpq", seen, weight[filters, :, r, s])
    return output if bias is None else output + bias[:, None, None]


def conv2d_dgrad(grad, weight, input_size, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    k, per_group, taps_h, taps_w = weight.shape
    p, q = grad.shape[2:]
    canvas = padded(np.zeros((grad.shape[0], per_group * groups, *input_size)), padding)
    for filters, channels in _group_slices(k, per_group * groups, groups):
        for r, s in np.ndindex(taps_h, taps_w):
            part = np.einsum("nkpq,kc->ncpq", grad[:, filters], weight[filters, :, r, s])
            canvas[(slice(None), channels, *_windows(r, s, p, q, stride, dilation))] += part
    return cropped(canvas, padding)


def conv2d_wgrad(grad, x, filter_size, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    k, (p, q) = grad.shape[1], grad.shape[2:]
    canvas = padded(x, padding)
    grad_weight = np.zeros((k, x.shape[1] // groups, *filter_size))
    for filters, channels in _group_slices(k, x.shape[1], groups):
        for r, s in np.ndindex(*filter_size):
            seen = canvas[(slice(None), channels, *_windows(r, s, p, q, stride, dilation))]
            grad_weight[filters, :, r, s] = np.einsum("nkpq,ncpq->kc", grad[:, filters], seen)
    return grad_weight


def conv_transpose2d(
    x, weight, bias=None, stride=(1, 1), padding=(0, 0, 0, 0), output_padding=(0, 0), groups=1, dilation=(1, 1)
):
    """Every input value adds its filter to a canvas, from which the padding is then cut off."""
    whole = tuple(
        (size - 1) * step + gap * (taps - 1) + 1 + more
        for size, step, gap, taps, more in zip(
            x.shape[2:], stride, dilation, weight.shape[2:], output_padding, strict=True
        )
    )
    canvas = conv2d_dgrad(x, weight, whole, stride, (0, 0, 0, 0), dilation, groups)
    output = cropped(canvas, padding)
    return output if bias is None else output + bias[:, None, None]


def max_pool2d(x, kernel_size, stride, padding=(0, 0, 0, 0), dilation=(1, 1), ceil_mode=False):
    """Return the maxima, their offsets in the windows and their positions in the planes.

    A later tap wins if it is greater or NaN. A window without any tap has -inf, NOWHERE.
    """
    n, c, h, w = x.shape
    p, q = pool_size((h, w), kernel_size, stride, padding, dilation, ceil_mode)
    values = np.full((n, c, p, q), -np.inf)
    offsets = np.full((n, c, p, q), NOWHERE, dtype=np.int64)
    positions = np.full((n, c, p, q), NOWHERE, dtype=np.int64)
    for i, j in np.ndindex(p, q):
        for r, s in np.ndindex(*kernel_size):
            row, column = i * stride[0] - padding[0] + r * dilation[0], j * stride[1] - padding[2] + s * dilation[1]
            if not (0 <= row < h and 0 <= column < w):
                continue
            tap = x[:, :, row, column]
            wins = (tap > values[:, :, i, j]) | np.isnan(tap) | (offsets[:, :, i, j] == NOWHERE)
            values[:, :, i, j] = np.where(wins, tap, values[:, :, i, j])
            offsets[:, :, i, j] = np.where(wins, r * kernel_size[1] + s, offsets[:, :, i, j])
            positions[:, :, i, j] = np.where(wins, row * w + column, positions[:, :, i, j])
    return values, offsets, positions


def max_pool2d_backward(grad, positions, input_size):
    """Add every window's gradient to its winner's, in row-major order of the windows."""
    grad_input = np.zeros((*grad.shape[:2], input_size[0] * input_size[1]))
    for n, c, p, q in np.ndindex(*grad.shape):
        if positions[n, c, p, q] != NOWHERE:
            grad_input[n, c, positions[n, c, p, q]] += grad[n, c, p, q]
    return grad_input.reshape(*grad.shape[:2], *input_size)


def max_unpool2d(x, positions, output_size):
    """Put values at their positions one after the other, so that the last of several stays."""
    output = np.zeros((*x.shape[:2], output_size[0] * output_size[1]))
    for n, c, p, q in np.ndindex(*x.shape):
        output[n, c, positions[n, c, p, q]] = x[n, c, p, q]
    return output.reshape(*x.shape[:2], *output_size)


def max_unpool2d_backward(grad, positions):
    """The value that stayed receives the gradient of its place, the others none."""
    planes = grad.reshape(*grad.shape[:2], -1)
    grad_input = np.zeros(positions.shape)
    last = {
        (n, c, positions[n, c, p, q]): (p, q) for n, c, p, q in np.ndindex(*positions.shape)
    }  # a later entry takes the place of an earlier one
    for (n, c, position), (p, q) in last.items():
        grad_input[n, c, p, q] = planes[n, c, position]
    return grad_input


def conv_size(size, taps, stride, padding, dilation):
    """Count the windows along both axes by trying every place."""
    return tuple(_count(size[i] + padding[2 * i] + padding[2 * i + 1], taps[i], stride[i], dilation[i]) for i in (0, 1))


def pool_size(size, taps, stride, padding, dilation, ceil_mode):
    """Count the windows; with ceil_mode also one that ends beyond the padding, if it starts before the end padding."""
    counts = []
    for i in (0, 1):
        before, after = padding[2 * i], padding[2 * i + 1]
        count = _count(size[i] + before + after, taps[i], stride[i], dilation[i])
        # It covers something that the windows so far do not, and starts inside.
        uncovered = (count - 1) * stride[i] + dilation[i] * (taps[i] - 1) + 1 < size[i] + before + after
        if ceil_mode and uncovered and count * stride[i] < size[i] + before:
            count += 1
        counts.append(count)
    return tuple(counts)


def _count(room, taps, stride, dilation):
    return sum(start + dilation * (taps - 1) < room for start in range(0, room, stride))


def padded(x, padding):
    top, bottom, left, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def cropped(x, padding):
    top, bottom, left, right = padding
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def _windows(r, s, p, q, stride, dilation):
    """Where tap (r, s) of all windows lies."""
    return (
        slice(r * dilation[0], r * dilation[0] + (p - 1) * stride[0] + 1, stride[0]),
        slice(s * dilation[1], s * dilation[1] + (q - 1) * stride[1] + 1, stride[1]),
    )


def _group_slices(k, c, groups):
    for g in range(groups):
        yield slice(g * k // groups, (g + 1) * k // groups), slice(g * c // groups, (g + 1) * c // groups)
