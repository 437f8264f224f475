"""A network that is run for its figures alone is left as it was, with all that its code keeps things in."""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

# Of exactly these kinds is most of what modules hold; nothing can be kept in them.
_PLAIN = {str, bytes, bool, int, float, complex, type(None), type, ModuleType, torch.dtype, torch.device}
_CONTAINERS = (dict, list, set, deque)
_EMPTIED = {dict, OrderedDict, list, set, deque}


@contextlib.contextmanager
def untouched(net: nn.Module) -> Iterator[list[Tensor]]:
    """What a forward pass sets, caches or collects while inside is undone.

    Looked through before are the attributes of modules and of the objects that they hold; dictionaries, lists, sets
    and deques, however nested; what functions (hooks, methods) keep in closures and defaults; containers that these
    functions name in their file or that belong to a class. A name in a file that is given another value is not seen.

    Args:
        net: any module.

    Yields:
        The tensors that were met. Their values are not kept here.
    """
    before = _Before(net)
    try:
        yield before.tensors
    finally:
        before.put_back()


class _Before:
    """All that can be reached from a network, as it is now.

    Attributes:
        tensors: that were met.
    """

    def __init__(self, net: nn.Module) -> None:
        self.tensors: list[Tensor] = []
        self._empty: list[Any] = []  # nine in ten: torch has a dozen in each module
        # What is kept in each of the others; in two lists, for pairs are what Python's collector looks through.
        self._containers: list[Any] = []
        self._contents: list[Any] = []
        self._cells: list[tuple[Any, Any]] = []
        self._slots: list[tuple[Any, MemberDescriptorType, Any]] = []
        self._met: dict[int, Any] = {}  # by number; held, lest a number is given again
        waiting: list[Any] = [net]
        while waiting:
            item = waiting.pop()
            if id(item) not in self._met:
                self._met[id(item)] = item
                for inner in self._inside(item):
                    if type(inner) in _EMPTIED and not inner:
                        self._empty.append(inner)
                    elif type(inner) not in _PLAIN:
                        waiting.append(inner)

    def put_back(self) -> None:
        """Make all of it as it was; what did not change is not written to, for another thread may be reading it."""
        for item in self._empty:
            if item:
                item.clear()
        for item, content in zip(self._containers, self._contents, strict=True):
            _refill(item, content)
        for cell, content in self._cells:
            cell.cell_contents = content
        for item, slot, value in self._slots:
            slot.__set__(item, value)

    def _inside(self, item: Any) -> Iterable[Any]:
        """Write down what an object keeps, and give it."""
        if isinstance(item, Tensor):
            self.tensors.append(item)
        elif isinstance(item, _CONTAINERS):
            self._containers.append(item)
            self._contents.append(_content(item))
            return item.values() if isinstance(item, dict) else item
        elif isinstance(item, tuple | frozenset):
            return item
        elif isinstance(item, partial):
            return item.func, item.args, item.keywords
        elif isinstance(item, MethodType):
            return item.__self__, item.__func__
        elif isinstance(item, FunctionType):
            return self._inside_function(item)
        elif _is_followed(type(item)):
            slots = list(_slots(item))
            self._slots += [(item, slot, value) for slot, value in slots]
            return (
                getattr(item, "__dict__", None),
                *(value for _, value in slots),
                *self._of_class(type(item)),
            )
        return ()

    def _inside_function(self, function: FunctionType) -> list[Any]:
        """What a closure and defaults hold, and the containers of its file that it names."""
        found = [function.__defaults__, function.__kwdefaults__, function.__dict__]
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                found.append(cell.cell_contents)
                self._cells.append((cell, cell.cell_contents))
        named = (function.__globals__.get(name) for name in function.__code__.co_names)
        return found + [value for value in named if isinstance(value, _CONTAINERS)]

    def _of_class(self, kind: type) -> list[Any]:
        """Containers and functions of a class and of those that it inherits from; nothing the second time."""
        found: list[Any] = []
        if id(kind) in self._met:
            return found
        for cls in kind.__mro__:
            if id(cls) not in self._met and _is_followed(cls) and not cls.__module__.startswith("torch."):
                values = (getattr(value, "__func__", value) for value in vars(cls).values())
                found += [value for value in values if isinstance(value, (*_CONTAINERS, FunctionType))]
            self._met[id(cls)] = cls
        return found


def _is_followed(kind: type) -> bool:
    """Whether objects of a class may hold what a network's code keeps: not those of Python's and torch's own."""
    root = kind.__module__.partition(".")[0]
    return issubclass(kind, nn.Module | SimpleNamespace) or (
        root != "torch" and root not in sys.stdlib_module_names
    )


def _slots(item: Any) -> Iterator[tuple[MemberDescriptorType, Any]]:
    """Attributes that have a place of their own in the object, with their values."""
    for cls in type(item).__mro__:
        for slot in vars(cls).values() if "__slots__" in vars(cls) else ():
            if isinstance(slot, MemberDescriptorType):
                with contextlib.suppress(AttributeError):
                    yield slot, slot.__get__(item)


def _content(item: Any) -> Any:
    """What a container holds, by its kind's own way: a class of the user's may have another."""
    if isinstance(item, OrderedDict):
        return list(OrderedDict.items(item))
    return list(dict.items(item) if isinstance(item, dict) else item)


def _refill(item: Any, content: Any) -> None:
    """Make a container hold what it held, unless it does."""
    now = _content(item)
    if isinstance(item, dict):
        if len(now) == len(content) and all(
            a is c and b is d for (a, b), (c, d) in zip(now, content, strict=True)
        ):
            return
        base: Any = OrderedDict if isinstance(item, OrderedDict) else dict
        base.clear(item)
        for key, value in content:
            base.__setitem__(item, key, value)
    elif len(now) != len(content) or any(a is not b for a, b in zip(now, content, strict=True)):
        if isinstance(item, list):
            list.__setitem__(item, slice(None), content)
        elif isinstance(item, set):
            set.clear(item)
            set.update(item, content)
        else:
            deque.clear(item)
            deque.extend(item, content)
