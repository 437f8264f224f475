"""Convarium: a workbench for image classification with convolutional networks.

import convarium
run = convarium.train("photos", model="resnet20", epochs=5)
convarium.load(run.model).predict("one.jpg")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Imported when used: the command line answers `--help` without torch.
_PUBLIC = {
    "names": "convarium.models.registry",
    "create": "convarium.models.front",
    "cost": "convarium.api",
    "train": "convarium.api",
    "resume": "convarium.api",
    "Run": "convarium.api",
    "Extractor": "convarium.extract",
    "load": "convarium.classifier",
    "evaluate": "convarium.evaluation",
    "Classifier": "convarium.classifier",
    "Preprocessing": "convarium.data.preprocessing",
    "ConvariumError": "convarium.errors",
}

if TYPE_CHECKING:
    from convarium.api import Run, cost, resume, train
    from convarium.classifier import Classifier, load
    from convarium.data.preprocessing import Preprocessing
    from convarium.errors import ConvariumError
    from convarium.evaluation import evaluate
    from convarium.extract import Extractor
    from convarium.models.front import create
    from convarium.models.registry import names

__all__ = [
    "Classifier",
    "ConvariumError",
    "Extractor",
    "Preprocessing",
    "Run",
    "cost",
    "create",
    "evaluate",
    "load",
    "names",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convarium' has no attribute {name!r}")
    if _PUBLIC[name].startswith("convarium.models."):
        import_module("convarium.models")  # registers the families
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
