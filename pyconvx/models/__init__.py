"""Networks, built from :mod:`pyconvx.nn`, one file per family.

    pyconvx.models.list_models()                         their names
    pyconvx.models.create_model("resnet50", num_classes=10)
    pyconvx.models.ResNet                                their classes: the paper, the sizes, the costs
    pyconvx.models.cost(model, x)                        parameters and multiply-adds

Weights begin random. Where torchvision or timm has the network, its weights load: the names in the state_dict are
theirs.
"""

from ._cost import Cost, cost
from ._registry import create_model, list_models
from .alexnet import AlexNet, TwoGroupAlexNet, alexnet, alexnet_two_groups
from .block_qnn import BlockQNN, Layer, block_qnn_b, block_qnn_s
from .bn_inception import BNInception, bn_inception
from .captioner import ShowAndTell, show_and_tell
from .chair_generator import ChairGenerator, Drawing, chair_generator
from .deconvnet import DeconvNet, deconvnet
from .fcn import FCN, PixelClassifier, fcn8s, fcn16s, fcn32s, pixel_classifier
from .googlenet import GoogLeNet, GoogLeNetOutputs, googlenet, inception_v1
from .inception_resnet import InceptionResNetV1, InceptionResNetV2, inception_resnet_v1, inception_resnet_v2
from .inception_v3 import InceptionOutputs, InceptionV3, inception_v3
from .inception_v4 import InceptionV4, inception_v4
from .lenet import LeNet5, lenet5
from .localizer import Localization, Localizer, localizer
from .nasnet import NASNet, nasnet_large, nasnet_mobile
from .nin import CifarNetworkInNetwork, NetworkInNetwork, nin, nin_cifar
from .preact_resnet import CifarPreActResNet, PreActResNet, preact_resnet50, preact_resnet164, preact_resnet1001
from .resnet import (
    ResNet,
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_64x4d,
)
from .segnet import SegNet, segnet
from .unet import UNet, unet, unet_same
from .vgg import VGG, vgg11, vgg11_bn, vgg11_lrn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg16_c, vgg16_c_bn, vgg19, vgg19_bn
from .xception import Xception, xception
from .zfnet import ZFNet, zfnet

__all__ = [
    "FCN",
    "VGG",
    "AlexNet",
    "BNInception",
    "BlockQNN",
    "ChairGenerator",
    "CifarNetworkInNetwork",
    "CifarPreActResNet",
    "Cost",
    "DeconvNet",
    "Drawing",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "InceptionOutputs",
    "InceptionResNetV1",
    "InceptionResNetV2",
    "InceptionV3",
    "InceptionV4",
    "Layer",
    "LeNet5",
    "Localization",
    "Localizer",
    "NASNet",
    "NetworkInNetwork",
    "PixelClassifier",
    "PreActResNet",
    "ResNet",
    "SegNet",
    "ShowAndTell",
    "TwoGroupAlexNet",
    "UNet",
    "Xception",
    "ZFNet",
    "alexnet",
    "alexnet_two_groups",
    "block_qnn_b",
    "block_qnn_s",
    "bn_inception",
    "chair_generator",
    "cost",
    "create_model",
    "deconvnet",
    "fcn8s",
    "fcn16s",
    "fcn32s",
    "googlenet",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "inception_v1",
    "inception_v3",
    "inception_v4",
    "lenet5",
    "list_models",
    "localizer",
    "nasnet_large",
    "nasnet_mobile",
    "nin",
    "nin_cifar",
    "pixel_classifier",
    "plain18",
    "plain34",
    "preact_resnet50",
    "preact_resnet164",
    "preact_resnet1001",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_64x4d",
    "segnet",
    "show_and_tell",
    "unet",
    "unet_same",
    "vgg11",
    "vgg11_bn",
    "vgg11_lrn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg16_c",
    "vgg16_c_bn",
    "vgg19",
    "vgg19_bn",
    "xception",
    "zfnet",
]
