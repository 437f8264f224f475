"""The networks, in the order of history. One import line a family: this list is the table of contents."""

# The order is the order of `convarium list`; parts, residual, *_parts and tokenizer are no families.
# isort: off
from convarium.models import lenet, linear  # noqa: F401  # 1998: convolutions, and what they are measured by
from convarium.models import alexnet  # noqa: F401  # 2012: rectifiers, dropout, a million pictures
from convarium.models import nin  # noqa: F401  # 2013: 1x1 convolutions, global average pooling
from convarium.models import vgg  # noqa: F401  # 2014: 3x3 throughout, and more layers
from convarium.models import googlenet  # noqa: F401  # 2014: several sizes side by side
from convarium.models import inception_v2, inception_v3  # noqa: F401  # 2015: batch norm; kernels taken apart
from convarium.models import resnet  # noqa: F401  # 2015: shortcuts
from convarium.models import squeezenet  # noqa: F401  # 2016: squeeze, then expand
from convarium.models import preact  # noqa: F401  # 2016: norm before convolution; wide nets
from convarium.models import densenet  # noqa: F401  # 2016: each layer sees all before it
from convarium.models import mobilenet_v1  # noqa: F401  # 2017: depthwise convolutions, for phones
from convarium.models import senet  # noqa: F401  # 2017: channels gated by the whole picture
from convarium.models import mobilenet_v2  # noqa: F401  # 2018: shortcuts between narrow ends
from convarium.models import fixup  # noqa: F401  # January 2019: depth without normalisation
from convarium.models import mobilenet_v3  # noqa: F401  # May 2019: blocks found by search
from convarium.models import efficientnet  # noqa: F401  # May 2019: depth, width, resolution together
from convarium.models import vit  # noqa: F401  # 2020: attention among patches
from convarium.models import clip  # noqa: F401  # 2021: pictures and texts in one space
from convarium.models import convnext  # noqa: F401  # 2022: what convolutions learned from it

# isort: on
from convarium.models.front import create, variant
from convarium.models.registry import names

__all__ = ["create", "names", "variant"]
