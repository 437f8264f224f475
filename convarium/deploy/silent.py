"""OpenVINO: one core a process, imported without its converter, which reports each import to its makers.

`openvino` imports `openvino.tools.ovc` last, and does without where it is not there; importing that sends an event
to Google Analytics and leaves a folder in the user's home. What Convarium needs of OpenVINO is not in it.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from types import ModuleType
from typing import Any

from convarium.errors import MissingExtra

_CONVERTER = "openvino.tools.ovc"
_lock = threading.Lock()


def openvino() -> ModuleType:
    """The library; whoever wants its converter can still import that afterwards.

    Raises:
        MissingExtra: it is not installed.
    """
    modules: dict[str, Any] = sys.modules
    with _lock:
        absent = "openvino" not in modules and _CONVERTER not in modules
        if absent:
            modules[_CONVERTER] = None  # import of it raises ImportError, which openvino expects
        try:
            return importlib.import_module("openvino")
        except ImportError as error:
            raise MissingExtra(
                "openvino is not installed; pip install 'convarium[deploy]' brings it"
            ) from error
        finally:
            if absent:
                del modules[_CONVERTER]


@functools.cache
def core() -> Any:
    """The core, one for the whole process, which is never given up.

    Its processor plugin moves the stack that signal handlers run on. Where several are made and go in another order
    than they came, or in another thread, that stack is freed while in use, and the next Ctrl-C crashes the process.

    Raises:
        MissingExtra: it is not installed.
    """
    return openvino().Core()
