"""Looking into networks: what a unit has seen, filters and activation maps, as pictures.

    pyconvx.visualize.deconvnet(model, "features.7", 12, image, path="unit.png")   Zeiler and Fergus's view of a unit
    pyconvx.visualize.strongest(model, "features.7", 12, images)                   the images that it fires most on
    pyconvx.visualize.filters(model, path="filters.png")                           the first layer's filters
    pyconvx.visualize.activation_maps(model, "features.2", image, path="maps.png") what a layer makes of an image

A picture is a tensor of numbers from 0 to 1, (H, W) if it is grey and (3, H, W) if it has colours; :func:`save` writes
it. Files are written by Pillow (``pip install pyconvx[visualize]``), which nothing else here needs.
"""

from ._deconvnet import Projection, deconvnet
from ._maps import activation_maps, activations, filters, strongest
from ._picture import around_grey, save, tiles, to_range

__all__ = [
    "Projection",
    "activation_maps",
    "activations",
    "around_grey",
    "deconvnet",
    "filters",
    "save",
    "strongest",
    "tiles",
    "to_range",
]
