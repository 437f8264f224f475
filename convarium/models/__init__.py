"""The networks, in the order of history. One import line a family: this list is the table of contents."""

from convarium.models import lenet, linear, resnet  # noqa: F401
from convarium.models.registry import create, names, variant

__all__ = ["create", "names", "variant"]
