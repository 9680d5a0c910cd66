"""AlexNet's augmentation: every variant is the patch that it says, all are drawn, and each image has its own."""

import numpy as np
import pytest
import torch
from torch import nn

from pyconvx import InvalidCall
from pyconvx.augment import CropAndFlip, PCALighting


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_paper_counts_2048_variants():
    assert CropAndFlip(224).variants(256, 256) == 2048
    assert CropAndFlip(224, flip=False).variants(256, 256) == 1024
    assert CropAndFlip((3, 2)).variants(5, 6) == 2 * 4 * 2
    assert CropAndFlip(7).variants(7, 7) == 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_variant_is_its_patch(layout):
    crops = CropAndFlip((3, 2))
    count = crops.variants(5, 6)
    images = torch.arange(count * 3 * 5 * 6.0).view(count, 3, 5, 6).contiguous(memory_format=layout)
    patches = crops.variant(images, torch.arange(count))
    assert patches.shape == (count, 3, 3, 2) and patches.is_contiguous(memory_format=layout)
    for number in range(count):
        mirrored, place = divmod(number, 2 * 4)
        top, left = divmod(place, 4)
        expected = images[number, :, top : top + 3, left : left + 2]
        expected = expected.flip(2) if mirrored else expected
        assert torch.equal(patches[number], expected)
        assert torch.equal(crops.variant(images[number], number), expected)


def test_every_image_of_a_batch_has_its_own_draw_and_all_variants_come():
    crops = CropAndFlip(2, generator=generator())
    image = torch.arange(12.0).view(1, 1, 3, 4)
    patches = crops(image.expand(400, -1, -1, -1))
    seen, times = torch.unique(patches.flatten(1), dim=0, return_counts=True)
    assert len(seen) == crops.variants(3, 4) == 4
    assert times.min() > 70
    single = {tuple(crops(image[0]).flatten().tolist()) for _ in range(40)}
    assert single == {tuple(row) for row in seen.tolist()}


def test_evaluation_takes_the_centre(rng):
    images = torch.randn(2, 3, 9, 8, generator=rng)
    crops = CropAndFlip((4, 6)).eval()
    assert torch.equal(crops(images), images[:, :, 2:6, 1:7])
    assert torch.equal(crops(images[0]), images[0, :, 2:6, 1:7])
    assert PCALighting().eval()(images) is images


def test_the_same_seed_gives_the_same_draws(rng):
    images = torch.randn(5, 3, 9, 8, generator=rng)
    for make in (lambda g: CropAndFlip(4, generator=g), lambda g: PCALighting(generator=g)):
        assert torch.equal(make(generator(1))(images), make(generator(1))(images))
        assert not torch.equal(make(generator(1))(images), make(generator(2))(images))


def test_lighting_adds_the_formula_of_the_paper(rng):
    images = torch.rand(4, 3, 6, 5, generator=rng)
    lighting = PCALighting(deviation=0.5, generator=generator(3))
    draws = torch.randn(4, 3, generator=generator(3)) * 0.5
    lit = lighting(images)
    for image, out, a in zip(images, lit, draws.tolist(), strict=True):
        p, lam = lighting.eigenvectors.numpy(), lighting.eigenvalues.tolist()
        shift = p[:, 0] * a[0] * lam[0] + p[:, 1] * a[1] * lam[1] + p[:, 2] * a[2] * lam[2]
        torch.testing.assert_close(
            out - image, torch.from_numpy(shift)[:, None, None].expand_as(image), atol=1e-6, rtol=0
        )
    assert lighting(images[0]).shape == images[0].shape
    assert lighting(images.to(torch.bfloat16)).dtype == torch.bfloat16


def test_lighting_of_a_training_set_is_its_principal_components(rng):
    mix = torch.tensor([[1.0, 0.2, 0.0], [0.5, 0.3, 0.1], [0.1, 0.4, 0.2]])
    images = torch.einsum("ij,njhw->nihw", mix, torch.randn(20, 3, 8, 8, generator=rng))
    lighting = PCALighting.of(images)
    colours = images.permute(1, 0, 2, 3).flatten(1).double().numpy()
    covariance = np.cov(colours)
    p, lam = lighting.eigenvectors.double().numpy(), lighting.eigenvalues.double().numpy()
    assert lam[0] > lam[1] > lam[2] > 0
    np.testing.assert_allclose(p @ np.diag(lam) @ p.T, covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(p.T @ p, np.eye(3), atol=1e-6)


def test_imagenets_eigenvectors_are_orthonormal():
    p = PCALighting().eigenvectors
    torch.testing.assert_close(p.T @ p, torch.eye(3), atol=1e-3, rtol=0)


def test_they_are_modules_like_others(rng):
    pipeline = nn.Sequential(CropAndFlip(4), PCALighting())
    assert set(pipeline.state_dict()) == {"1.eigenvalues", "1.eigenvectors"}
    assert pipeline(torch.rand(2, 3, 6, 6, generator=rng)).shape == (2, 3, 4, 4)
    assert "size=(4, 4), flip=True" in repr(pipeline) and "deviation=0.1" in repr(pipeline)


IMAGES = torch.zeros(2, 3, 6, 6)

REFUSED = {
    "size 0": (lambda: CropAndFlip(0), r"size is 0, expected a positive int or two of them, \(height, width\)"),
    "size of three": (lambda: CropAndFlip((1, 2, 3)), r"size is \(1, 2, 3\), expected"),
    "too small": (lambda: CropAndFlip(7)(IMAGES), "images are 6 x 6, smaller than the patches of 7 x 7; resize"),
    "too small at the centre": (lambda: CropAndFlip(7).eval()(IMAGES), "images are 6 x 6, smaller than the patches"),
    "no such variant": (lambda: CropAndFlip(5).variant(IMAGES, 2), "variant is 2, expected 0 to 1"),
    "a negative variant": (lambda: CropAndFlip(5).variant(IMAGES, -1), "variant is -1, expected 0 to 1"),
    "no images": (lambda: CropAndFlip(5)([1]), "images are a list, expected a tensor"),
    "a matrix": (lambda: CropAndFlip(5)(IMAGES[0, 0]), r"images are \(6, 6\), expected a tensor of \(N, C, H, W\) or"),
    "bytes": (lambda: PCALighting()(IMAGES.byte()), "images are of torch.uint8, expected floating point; divide"),
    "grey": (lambda: PCALighting()(IMAGES[:, :1]), "images have 1 channels, expected the three colours"),
    "a grey set": (lambda: PCALighting.of(IMAGES[:, :1]), "images have 1 channels, expected the three colours"),
    "eigenvalues": (lambda: PCALighting(eigenvalues=[1.0]), r"eigenvalues have shape \(1,\), expected \(3,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, sentence = REFUSED[case]
    with pytest.raises(InvalidCall, match=sentence):
        call()
