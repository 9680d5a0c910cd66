"""AlexNet's augmentation, on batches, every image with a draw of its own.

torchvision.transforms.v2 crops and flips a batch by one draw, and has no PCA lighting; for what it has (colour jitter,
resized crops, mixing) use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InvalidCall


class CropAndFlip(nn.Module):
    """A random patch of each image, mirrored or not (Krizhevsky et al. 2012, section 4.1, first form).

    An image of H x W has (H - size) * (W - size) * 2 variants: 2048 of 224 x 224 patches of 256 x 256 images, as the
    paper counts them. (The rightmost and the lowest place are not counted; an image of ``size`` itself has one.)

    Args:
        size: of the patch, an int or (height, width).
        flip: whether patches may be mirrored.
        generator: the source of random numbers; torch's own if None.

    Shape: (N, C, H, W) -> (N, C, *size), or without N. In evaluation mode it is the unmirrored patch at the centre.

    Raises:
        InvalidCall: the images are smaller than the patch, or no images.
    """

    def __init__(self, size: int | Sequence[int], flip: bool = True, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.size = patch_size("CropAndFlip", size)
        self.flip = flip
        self.generator = generator

    def variants(self, height: int, width: int) -> int:
        """Return how many different patches an image of these sizes has, mirrored ones counted."""
        rows, columns = self._places(height, width)
        return rows * columns * (2 if self.flip else 1)

    def variant(self, images: Tensor, number: Any) -> Tensor:
        """Return a certain variant.

        Args:
            images: (N, C, H, W) or (C, H, W).
            number: from 0 to :meth:`variants` - 1, an int or, for a batch, one for each image. They run through the
                columns, then the rows, then the mirrored ones.

        Raises:
            InvalidCall: there is no such variant.
        """
        check_images("CropAndFlip", images)
        batch = images if images.dim() == 4 else images[None]
        rows, columns = self._places(*batch.shape[-2:])
        count = self.variants(*batch.shape[-2:])
        numbers = torch.as_tensor(number, device=batch.device).expand(len(batch))
        if numbers.numel() and (int(numbers.min()) < 0 or int(numbers.max()) >= count):
            raise InvalidCall(f"CropAndFlip: variant is {number!r}, expected 0 to {count - 1}")
        left, top = numbers % columns, numbers // columns % rows
        mirrored = numbers // (rows * columns) == 1
        down = torch.arange(self.size[0], device=batch.device)
        across = torch.arange(self.size[1], device=batch.device)
        y = top[:, None] + down
        x = left[:, None] + torch.where(mirrored[:, None], across.flip(0), across)
        one = torch.arange(len(batch), device=batch.device)[:, None, None]
        # Indices on both sides of the channels put them last: a view in the layout of images that are channels_last.
        patches = batch[one, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
        like = (
            torch.channels_last if batch.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        patches = patches.contiguous(memory_format=like)
        return patches if images.dim() == 4 else patches[0]

    def forward(self, images: Tensor) -> Tensor:
        """Return a patch of every image."""
        check_images("CropAndFlip", images)
        height, width = images.shape[-2:]
        if not self.training:
            self._places(height, width)
            return crop(images, self.size, (height - self.size[0]) // 2, (width - self.size[1]) // 2)
        shape = images.shape[:1] if images.dim() == 4 else ()
        numbers = torch.randint(self.variants(height, width), shape, generator=self.generator)
        return self.variant(images, numbers)

    def _places(self, height: int, width: int) -> tuple[int, int]:
        """Return how many rows and columns a patch may begin at."""
        if height < self.size[0] or width < self.size[1]:
            raise InvalidCall(
                f"CropAndFlip: images are {height} x {width}, smaller than the patches of {self.size[0]} x "
                f"{self.size[1]}; resize them first"
            )
        return max(height - self.size[0], 1), max(width - self.size[1], 1)

    def extra_repr(self) -> str:
        return f"size={self.size}, flip={self.flip}"


class PCALighting(nn.Module):
    """Colours shifted along their principal components (Krizhevsky et al. 2012, section 4.1, second form).

    To every pixel (R, G, B) of an image is added p1 * a1 * l1 + p2 * a2 * l2 + p3 * a3 * l3, where p and l are the
    eigenvectors and eigenvalues of the covariance of the training set's colours, and each a is drawn from
    N(0, deviation) once for the image. An object keeps its identity when the light's colour and strength change.

    Args:
        deviation: of the draws, 0.1 in the paper.
        eigenvalues: (3,), for pixels in the units of the images.
        eigenvectors: (3, 3), one in each column. Both default to ImageNet's for pixels from 0 to 1, as they came with
            Torch's ResNet training code; :meth:`of` computes those of another set. Where images are normalized behind
            this, nothing else is to do; where before, divide the rows of ``eigenvectors`` by the deviations.
        generator: the source of random numbers; torch's own if None.

    Shape: (N, 3, H, W) -> (N, 3, H, W), or without N; nothing is cut off at 0 or 1. In evaluation mode the identity.

    Raises:
        InvalidCall: the images have no three colours, or the eigenvalues or eigenvectors not their shapes.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor

    def __init__(
        self,
        deviation: float = 0.1,
        eigenvalues: Any = (0.2175, 0.0188, 0.0045),
        eigenvectors: Any = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.deviation = deviation
        self.generator = generator
        for name, value, shape in (("eigenvalues", eigenvalues, (3,)), ("eigenvectors", eigenvectors, (3, 3))):
            tensor = torch.as_tensor(value, dtype=torch.float32)
            if tensor.shape != shape:
                raise InvalidCall(f"PCALighting: {name} have shape {tuple(tensor.shape)}, expected {shape}")
            self.register_buffer(name, tensor)

    @classmethod
    def of(cls, images: Tensor, deviation: float = 0.1, generator: torch.Generator | None = None) -> PCALighting:
        """Return the lighting of a training set: the eigenvectors and eigenvalues of its colours' covariance.

        Args:
            images: (N, 3, H, W), the training set or a good sample of it.
            deviation, generator: as in the constructor.

        Raises:
            InvalidCall: the images have no three colours.
        """
        _check_colours(images)
        colours = images.detach().double().movedim(-3, 0).flatten(1)
        values, vectors = torch.linalg.eigh(torch.cov(colours))
        return cls(deviation, values.flip(0), vectors.flip(1), generator)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images in other lights."""
        _check_colours(images)
        if not self.training:
            return images
        shape = (*images.shape[:-3], 3)
        draws = torch.randn(shape, generator=self.generator).to(self.eigenvalues) * self.deviation
        light = (draws * self.eigenvalues) @ self.eigenvectors.T
        return images + light[..., None, None].to(images)

    def extra_repr(self) -> str:
        return f"deviation={self.deviation}"


def _check_colours(images: Tensor) -> None:
    check_images("PCALighting", images)
    if images.shape[-3] != 3:
        raise InvalidCall(f"PCALighting: images have {images.shape[-3]} channels, expected the three colours R, G, B")


def patch_size(name: str, size: Any) -> tuple[int, int]:
    """Read the size of a patch, an int or two."""
    sizes = (size, size) if type(size) is int else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sizes) != 2 or not all(type(number) is int and number > 0 for number in sizes):
        raise InvalidCall(f"{name}: size is {size!r}, expected a positive int or two of them, (height, width)")
    return sizes[0], sizes[1]


def check_images(name: str, images: Any) -> None:
    """Raise unless ``images`` are (N, C, H, W) or (C, H, W), of floating point."""
    if not isinstance(images, Tensor) or images.dim() not in (3, 4):
        got = tuple(images.shape) if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise InvalidCall(f"{name}: images are {got}, expected a tensor of (N, C, H, W) or (C, H, W)")
    if not images.dtype.is_floating_point:
        raise InvalidCall(f"{name}: images are of {images.dtype}, expected floating point; divide bytes by 255 first")


def crop(images: Tensor, size: tuple[int, int], top: int, left: int) -> Tensor:
    """Return the patch of this size at this place."""
    return images[..., top : top + size[0], left : left + size[1]]
