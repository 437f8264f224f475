"""One pass over any module on the meta device: what ran, in which part, what it multiplied, wrote and saw.

The pass stands on torch's dispatcher and not on kinds of modules, so that functional code, attention and foreign
networks count like our own. Under `inference_mode` operators arrive as they were called (`linear`, `batch_norm`,
`scaled_dot_product_attention`), before torch takes them apart.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convarium.costs import flow
from convarium.costs.field import LOST, NOTHING, Field, Fields, Seen, pixels, report
from convarium.costs.known import Operator, known
from convarium.costs.untouched import untouched
from convarium.errors import ArgumentError, ConvariumError
from convarium.joins import Gate

__all__ = ["Call", "Counted", "Field", "Fields", "NeedsValues", "Shape", "Trace", "trace"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One execution of one module.

    Args:
        path: of the module, names joined by dots; "" for the whole.
        module: the module itself.
        inputs: shapes of its tensor arguments, with the batch.
        outputs: shapes of its tensor outputs, with the batch.
    """

    path: str
    module: nn.Module
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


@dataclass(frozen=True)
class Counted:
    """What the operators did that ran directly in a part, not in its children.

    Args:
        macs: multiply-accumulates of convolutions, linears and matrix products.
        written: elements of new tensors that depend on the inputs; no views, nothing in place, no parameters.
        unknown: operators, by name, of which it is not known whether they multiply and add.
    """

    macs: int
    written: int
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """What one pass over a network shows.

    Args:
        calls: executions of modules, in the order in which they end: children before parents.
        counted: by path of the innermost module that was running.
        fields: receptive field of the output of each module's last execution, by path; None where there is none.
        lost: operators through which a field could not be followed, by path of the part that they ran in.
        stopped: path of the part that could not go on without values; None where the pass came to its end.
    """

    calls: tuple[Call, ...]
    counted: dict[str, Counted]
    fields: dict[str, Fields | None]
    lost: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None


def trace(net: nn.Module, *shapes: Shape, dtype: torch.dtype = torch.float32) -> Trace:
    """Run a module on tensors without data, in evaluation mode, and write down what happens.

    Args:
        net: any module; left as it was, no weight is read and no memory taken.
        shapes: of the inputs, with the batch; those of four dimensions are pictures, (N, C, H, W).
        dtype: of the inputs and, for this pass, of the parameters.

    Returns:
        What ran, counted by part.

    Raises:
        ArgumentError: the network cannot be run on such inputs.
        NeedsValues: it cannot be run without data; it tells what ran until then.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        raise ArgumentError("a TorchScript module hides what it runs: give the module that it was made from")
    watch = _Watch(net)
    tensors = dict([*net.named_parameters(), *net.named_buffers()])
    on_meta = {name: _empty(t, dtype) for name, t in tensors.items() if not _fits(t, dtype)}
    with torch.random.fork_rng(devices=[]), untouched(net) as theirs, watch.hooked():
        watch.theirs = {t.untyped_storage()._cdata for t in theirs if not t.is_meta}
        for module in net.modules():
            module.training = False
        try:
            with torch.inference_mode():
                inputs = tuple(torch.empty(shape, device="meta", dtype=dtype) for shape in shapes)
                watch.look_at(inputs)
                with watch:
                    torch.func.functional_call(net, on_meta, inputs)
        except Exception as error:
            raise _explained(error, net, watch, shapes) from error
        finally:
            watch.forget()
    return watch.result()


def _fits(tensor: Tensor, dtype: torch.dtype) -> bool:
    return tensor.is_meta and (tensor.dtype == dtype or not tensor.is_floating_point())


def _empty(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if nn.parameter.is_lazy(tensor):
        raise ArgumentError("the network has lazy parameters without a shape: run it once on a picture first")
    return torch.empty_like(
        tensor.detach(), device="meta", dtype=dtype if tensor.is_floating_point() else tensor.dtype
    )


class NeedsValues(ArgumentError):
    """A network asks for the values of tensors, which only weights and a picture could give.

    Args:
        message: for the user.
        seen: what ran until then.
    """

    def __init__(self, message: str, seen: Trace) -> None:
        super().__init__(message)
        self.seen = seen


# What torch says of tensors without data, in the words of each of its ways to ask for their values.
_VALUES = re.compile(
    r"\bmeta (tensor|device)|'meta' backend|register_meta|devices, .*\bmeta\b", re.IGNORECASE
)


def _explained(error: Exception, net: nn.Module, watch: _Watch, shapes: tuple[Shape, ...]) -> ConvariumError:
    """What went wrong, where and on what, for the user."""
    path = watch.running[-1] if watch.running else ""
    given = " and ".join("x".join(map(str, shape)) for shape in shapes)
    where = f"in part {path}" if path else "in the network itself"
    message = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, RuntimeError | TypeError) and _VALUES.search(message):
        operator = f" by {watch.refused}" if watch.refused else ""
        return NeedsValues(
            f"{type(net).__name__} cannot run on {given} without data: {where} it asks for the values of tensors"
            f"{operator}, which are not there when costs are counted",
            replace(watch.result(), stopped=path),
        )
    return ArgumentError(f"{type(net).__name__} cannot run on {given}, {where}: {message}")


class _Watch(TorchDispatchMode):
    """Sees every operator; knows in which part it runs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.paths: dict[nn.Module, list[str]] = {}
        for path, module in net.named_modules(remove_duplicate=False):
            self.paths.setdefault(module, []).append(path)
        self.running: list[str] = []
        self.modules: list[nn.Module] = []
        self.calls: list[Call] = []
        self.macs: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.unknown: dict[str, list[str]] = {}
        self.fields: dict[str, Fields | None] = {}
        self.reported: dict[Seen, Fields | None] = {}
        self.changed: dict[int, int] = {}  # storages written in place: how often
        self.plane = (0, 0)  # rows and columns of the picture
        self.kept: list[Tensor] = []  # what was written in place, lest its storage's number is given again
        self.lost: dict[str, str] = {}
        self.refused = ""  # the operator that failed last
        self.outer = ""  # the operator that is being taken apart
        self.theirs: set[int] = set()  # storages of the user's own tensors
        self.saved: list[tuple[Any, Any]] = []  # of these, what was written to, with its values before

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its default wraps every call in torch's compiler, which takes two seconds to load

    # -------------------------------------------------------------------------------------------- modules

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """While inside, every module tells when it begins and ends."""
        handles = []
        try:
            for module in self.paths:
                handles.append(module.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True))
                handles.append(module.register_forward_hook(self._end, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        paths = self.paths[module]
        path = paths[0]
        if len(paths) > 1 and self.running:
            inside = f"{self.running[-1]}." if self.running[-1] else ""
            path = next((p for p in paths if p.startswith(inside)), path)
        self.running.append(path)
        self.modules.append(module)

    def _end(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        while self.modules[-1] is not module:  # parts that left by an exception which their parent caught
            self.modules.pop()
            self.running.pop()
        self.modules.pop()
        path = self.running.pop()
        inputs = _shapes([*tensors_in(args), *tensors_in(kwargs)])
        outputs = list(tensors_in(output))
        self.calls.append(Call(path, module, inputs, _shapes(outputs)))
        self.fields[path] = self._field(outputs)

    def _field(self, outputs: list[Tensor]) -> Fields | None:
        """That of the output, or the one that all outputs have."""
        found = []
        for out in outputs:
            seen = self.seen(out)
            if seen is None or seen.sides == NOTHING:
                return None
            if seen not in self.reported:
                self.reported[seen] = report(seen)
            found.append(self.reported[seen])
        return found[0] if found and all(fields == found[0] for fields in found) else None

    def result(self) -> Trace:
        """What was written down."""
        counted = {
            path: Counted(
                self.macs.get(path, 0), self.written.get(path, 0), tuple(self.unknown.get(path, ()))
            )
            for path in dict.fromkeys([*(call.path for call in self.calls), *self.macs, *self.written])
        }
        return Trace(tuple(self.calls), counted, self.fields, self.lost)

    # -------------------------------------------------------------------------------------------- tensors

    def look_at(self, inputs: tuple[Tensor, ...]) -> None:
        """The inputs: the pictures among them are what fields are measured on."""
        plane = next(((x.shape[2], x.shape[3]) for x in inputs if x.ndim == 4), (0, 0))
        for x in inputs:
            if x.ndim != 4:
                seen = Seen(tuple((n,) for n in x.shape), NOTHING, plane)
            elif (x.shape[2], x.shape[3]) == plane:
                seen = pixels(tuple(x.shape))
            else:  # one frame of pixels has no place for a picture of another size
                seen = Seen(tuple((n,) for n in x.shape), LOST, plane)
            self._note(x, seen)
        self.plane = plane

    def seen(self, tensor: Tensor) -> Seen | None:
        """What a tensor sees; None where it does not depend on the inputs."""
        noted = getattr(tensor, "_seen", None)
        if self.changed:
            version = self.changed.get(tensor.untyped_storage()._cdata, 0)
            if version != (0 if noted is None else noted[1]):
                return Seen(tuple((n,) for n in tensor.shape), LOST, self.plane)
        return None if noted is None else noted[0]

    def _note(self, tensor: Tensor, seen: Seen) -> None:
        version = self.changed.get(tensor.untyped_storage()._cdata, 0) if self.changed else 0
        tensor._seen = (seen, version)  # type: ignore[attr-defined]

    # -------------------------------------------------------------------------------------------- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = known(func)
        tensors = list(tensors_in(args))
        if kwargs:
            tensors += tensors_in(kwargs)
        some_meta = any(t.is_meta for t in tensors)
        if some_meta and not all(t.is_meta for t in tensors):
            args, kwargs = _on_meta(args), _on_meta(kwargs)
        out: Any = NotImplemented
        if some_meta and operator.make is not None and "out" not in kwargs:
            out = operator.make(*args, **kwargs)
            if operator.in_place and out is not NotImplemented:
                out = args[0] if args[0].shape == out.shape else NotImplemented
        if out is NotImplemented:
            if operator.composite:
                outer, self.outer = self.outer, self.outer or operator.name
                try:
                    with self:
                        return func.decompose(*args, **kwargs)
                finally:
                    self.outer = outer
            if operator.mutates and not some_meta:
                self._save(tensors)
            try:
                out = func(*args, **kwargs)
            except Exception:
                self.refused = self.outer or operator.name
                raise
        if some_meta and not operator.constant:
            self._account(operator, func, args, kwargs, tensors, out)
        return out

    def _account(
        self, operator: Operator, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], out: Any
    ) -> None:
        path = self.running[-1] if self.running else ""
        results = [out] if isinstance(out, Tensor) else list(tensors_in(out))
        if not operator.known:
            unknown = self.unknown.setdefault(path, [])
            if operator.name not in unknown:
                unknown.append(operator.name)
        elif operator.macs is not None and results:
            self.macs[path] = self.macs.get(path, 0) + operator.macs(results[0], *args, **kwargs)
        looked = [seen for seen in map(self.seen, tensors) if seen is not None]
        if not looked:
            return
        if not operator.mutates:
            old = {t.untyped_storage()._cdata for t in tensors}
            new = sum(t.numel() for t in results if t.untyped_storage()._cdata not in old)
            self.written[path] = self.written.get(path, 0) + new
        gate = operator.multiplies and bool(self.modules) and isinstance(self.modules[-1], Gate)
        seens = flow.follow(operator.flow, self.seen, looked, results, args, kwargs, gate)
        if any(None in seen.sides for seen in seens) and not any(None in seen.sides for seen in looked):
            self.lost.setdefault(path, self.outer or operator.name)
        for result, seen in zip(results, seens, strict=True):
            if operator.mutates:
                self._write(result, seen)
            else:
                self._note(result, seen)

    def _write(self, tensor: Tensor, seen: Seen) -> None:
        """Written in place: what shares its memory no longer sees what was noted."""
        self.kept.append(tensor)
        if seen != self.seen(tensor):
            storage = tensor.untyped_storage()._cdata
            self.changed[storage] = self.changed.get(storage, 0) + 1
        self._note(tensor, seen)

    def _save(self, tensors: list[Tensor]) -> None:
        """Keep the values of the user's own tensors before they are written to."""
        for storage in (t.untyped_storage() for t in tensors):
            if storage._cdata in self.theirs:
                self.theirs.discard(storage._cdata)
                self.saved.append((storage, storage.clone()))

    def forget(self) -> None:
        """Leave no notes and no new values on tensors that are the user's."""
        for tensor in self.kept:
            tensor.__dict__.pop("_seen", None)
        for storage, before in self.saved:
            storage.copy_(before)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments or outputs, however they are nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def _shapes(tensors: list[Tensor]) -> tuple[Shape, ...]:
    return tuple(tuple(t.shape) for t in tensors)


def _on_meta(value: Any) -> Any:
    """Constants that a module keeps outside its buffers, moved to where the other operands are."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_on_meta(item) for item in value)
    if isinstance(value, dict):
        return {key: _on_meta(item) for key, item in value.items()}
    return value
