"""The operations that PyTorch knows as ``torch.ops.pyconvx.*``, one file each; ``functional`` is their public face."""

from ._operator import is_transformed
from .conv2d import conv2d, conv2d_dgrad, conv2d_dgrad_relu, conv2d_wgrad, conv2d_wgrad_relu
from .conv_transpose2d import conv_transpose2d
from .max_pool import max_pool2d, max_pool2d_backward, max_pool2d_backward_relu, max_pool2d_gather, offset_dtype
from .max_unpool import max_unpool2d, max_unpool2d_backward
from .nearest_unpool import nearest_unpool2d, nearest_unpool2d_backward
from .residual_add import relu_backward, relu_backward_mask, residual_add, residual_add_mask

__all__ = [
    "conv2d", "conv2d_dgrad", "conv2d_dgrad_relu", "conv2d_wgrad", "conv2d_wgrad_relu", "conv_transpose2d",
    "is_transformed", "max_pool2d", "max_pool2d_backward", "max_pool2d_backward_relu", "max_pool2d_gather",
    "max_unpool2d", "max_unpool2d_backward", "nearest_unpool2d", "nearest_unpool2d_backward", "offset_dtype",
    "relu_backward", "relu_backward_mask", "residual_add", "residual_add_mask",
]  # fmt: skip
