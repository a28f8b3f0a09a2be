"""All that an algorithm of DomainBed's holds between two steps, as tensors and plain values, and back into a new one.

DomainBed's classes keep state wherever it suits them: in buffers that change their shape, in lists of modules and of
optimizers, in moving averages that are plain objects, in a module that the first step makes. So the object is walked
through all attributes. What is met twice is kept once, and is one object again afterwards.

Not state, and taken from the new object, is code (functions, hooks, classes) and what never changes (types, devices).
What else is no tensor, array, number, text, container, random generator, module, optimizer or plain object, such as an
iterator or an open file, cannot be kept. Nothing in a checkpoint is executed: of a class, as of a module that the new
object lacks, it has the name, and only modules, optimizers and DomainBed's own classes that are imported are made.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (type(None), bool, int, float, str)
_CONSTANT = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format, Enum, np.dtype)
_CODE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, partial)
_SEQUENCES: dict[type, Callable[[list[Any]], Any]] = {list: list, tuple: tuple, set: set, frozenset: frozenset}
_SEQUENCES[deque] = deque
_MAPPINGS = (dict, OrderedDict, Counter, defaultdict)
_HEAP_TYPE = 1 << 9


def capture(root: object, first: dict[str, str] | None = None) -> tuple[Any, dict[str, str], list[str]]:
    """What ``root`` holds.

    Args:
        root: an algorithm.
        first: the kinds that this returned for it when it was new: what must be taken from a new object must be there.

    Returns:
        Its state, of tensors and plain values, which share memory with it; the kind of each thing held, by where it
        is; and where what cannot be kept is, "self.loader, a generator".
    """
    walk = _Capture(first)
    return walk.node(root, "self"), walk.kinds, walk.lost


def restore(state: Any, root: Any, device: torch.device) -> None:
    """Give ``root``, a new algorithm on ``device``, the state of another one of its class.

    Raises:
        ValueError: it is another class, or one that is not imported.
        LookupError: the state is damaged.
        TypeError: the state is damaged.
    """
    if _Restore(device).value(state, root) is not root:
        raise ValueError(f"it is the state of another algorithm than {_name(type(root))}")


def not_kept(algorithm: str, lost: list[str]) -> str:
    """What to say of an algorithm that holds what cannot be kept."""
    return (
        f"{algorithm} holds {', '.join(lost[:3])}{', ...' * (len(lost) > 3)}, which no checkpoint can keep: none is "
        "written from then on, and a run that is broken off goes on from the one before, or begins again"
    )


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_hook(name: str) -> bool:
    """Whether an attribute of a module or optimizer holds hooks, by numbers that differ from process to process."""
    return name.startswith("_") and "hooks" in name


def _attributes(value: object) -> dict[str, Any]:
    """What is kept of an object's attributes."""
    if isinstance(value, torch.optim.Optimizer):
        return {"defaults": value.defaults, "param_groups": value.param_groups, "state": dict(value.state)}
    return {name: held for name, held in vars(value).items() if not (isinstance(value, nn.Module) and _is_hook(name))}


def _can_be_made(kind: type) -> bool:
    own = kind.__module__.partition(".")[0] == "domainbed"
    return own or issubclass(kind, nn.Module | torch.optim.Optimizer)


def _is_plain_object(kind: type) -> bool:
    """Whether all that its instances hold is in their ``__dict__``."""
    written = all(base is object or base.__flags__ & _HEAP_TYPE for base in kind.__mro__)
    return written and not any(vars(base).get("__slots__") for base in kind.__mro__)


class _Capture:
    def __init__(self, first: dict[str, str] | None) -> None:
        self.first = first
        self.kinds: dict[str, str] = {}
        self.lost: list[str] = []
        self._seen: dict[int, tuple[int, Any]] = {}  # the object too, so that no other one gets its id

    def node(self, value: Any, place: str) -> Any:
        """The value itself where it is plain; else a tuple of its kind, its number, and what it is made of."""
        if type(value) in _PLAIN:
            return value
        self.kinds[place] = _name(type(value))
        if isinstance(value, type) and issubclass(value, nn.Module):
            return "class", _name(value)
        if isinstance(value, (*_CODE, *_CONSTANT)):
            return self._of_new("code", value, place)
        if id(value) in self._seen:
            return "same", self._seen[id(value)][0]
        number = len(self._seen)
        self._seen[id(value)] = number, value
        kind = type(value)
        if isinstance(value, Tensor):
            return "tensor", number, self._tensor(value, place)
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            whole = torch.from_numpy(np.array(value))
            return ("array" if isinstance(value, np.ndarray) else "number"), number, whole
        if isinstance(value, torch.Generator):
            return "generator", number, value.get_state()
        if kind is random.Random:
            return "random", number, value.getstate()
        if kind is np.random.RandomState:
            name, keys, *rest = value.get_state(legacy=True)
            return "numpy", number, (name, np.asarray(keys).tolist(), *rest)
        if kind in _SEQUENCES:
            parts = [self.node(part, f"{place}[{i}]") for i, part in enumerate(value)]
            return "sequence", number, kind.__name__, parts
        if kind in _MAPPINGS:
            pairs = [
                (self.node(key, f"{place} key {i}"), self.node(held, f"{place}[{key if type(key) in _PLAIN else i}]"))
                for i, (key, held) in enumerate(value.items())
            ]
            if kind is defaultdict:
                self._of_new("dict", value, place)
            return "mapping", number, kind.__name__, pairs
        if isinstance(value, nn.Module | torch.optim.Optimizer) or _is_plain_object(kind):
            if not _can_be_made(kind):
                self._of_new("object", value, place)
            attributes = {name: self.node(held, f"{place}.{name}") for name, held in _attributes(value).items()}
            return "object", number, _name(kind), attributes
        self.lost.append(f"{place}, a {_name(kind).replace(':', '.')}")
        return "lost", number

    def _of_new(self, node: str, value: Any, place: str) -> tuple[str]:
        if self.first is not None and self.first.get(place) != self.kinds[place]:
            self.lost.append(f"{place}, a {_name(type(value)).replace(':', '.')}")
        return (node,)

    def _tensor(self, value: Tensor, place: str) -> dict[str, Any]:
        whole = value.detach()
        if whole.untyped_storage().nbytes() != whole.numel() * whole.element_size():
            whole = whole.clone()  # a part of a larger one, which would be written whole
        gradient = value.grad if value.is_leaf else None
        return {
            "value": whole,
            "device": value.device.type,
            "parameter": isinstance(value, nn.Parameter),
            "requires_grad": value.requires_grad and value.is_leaf,
            "grad": None if gradient is None else self._tensor(gradient, place),
        }


class _Restore:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._made: dict[int, Any] = {}
        self._taken: set[int] = set()

    def value(self, node: Any, new: Any) -> Any:
        """What ``node`` stands for: ``new``, changed in place, where it is of the same kind and not yet taken."""
        if not isinstance(node, tuple):
            return node
        kind = node[0]
        if kind == "code":
            return new
        if kind == "class":
            return _found(node[1])
        if kind == "same":
            return self._made[node[1]]
        number, *content = node[1:]
        if new is not None and (id(new) in self._taken or isinstance(new, _PLAIN)):
            new = None
        if new is not None:
            self._taken.add(id(new))
        made = getattr(self, f"_{kind}")(number, new, *content)
        self._made[number] = made
        return made

    def _tensor(self, number: int, new: Any, content: dict[str, Any]) -> Tensor:
        saved, wanted = content["value"], nn.Parameter if content["parameter"] else Tensor
        fits = isinstance(new, Tensor) and isinstance(new, nn.Parameter) == content["parameter"]
        if fits and new.is_leaf and (new.shape, new.dtype) == (saved.shape, saved.dtype):
            made: Tensor = new
            with torch.no_grad():
                made.copy_(saved)
        else:
            made = saved.to("cpu" if content["device"] == "cpu" else self._device, copy=True)
            made = nn.Parameter(made, content["requires_grad"]) if wanted is nn.Parameter else made
        made.requires_grad_(content["requires_grad"])
        gradient = content["grad"]
        made.grad = None if gradient is None else gradient["value"].to(made.device, copy=True)
        return made

    def _array(self, number: int, new: Any, saved: Tensor) -> Any:
        if isinstance(new, np.ndarray) and new.shape == tuple(saved.shape) and new.dtype == saved.numpy().dtype:
            new[...] = saved.numpy()
            return new
        return saved.numpy().copy()

    def _number(self, number: int, new: Any, saved: Tensor) -> Any:
        return saved.numpy()[()]

    def _generator(self, number: int, new: Any, state: Tensor) -> torch.Generator:
        made = new if isinstance(new, torch.Generator) else torch.Generator()
        made.set_state(state)
        return made

    def _random(self, number: int, new: Any, state: Any) -> random.Random:
        made = new if isinstance(new, random.Random) else random.Random()
        made.setstate(state)
        return made

    def _numpy(self, number: int, new: Any, state: Any) -> np.random.RandomState:
        made = new if isinstance(new, np.random.RandomState) else np.random.RandomState()
        made.set_state(state)
        return made

    def _sequence(self, number: int, new: Any, kind: str, parts: list[Any]) -> Any:
        make = next(make for known, make in _SEQUENCES.items() if known.__name__ == kind)
        fits = type(new).__name__ == kind
        there = list(new) if fits and kind in ("list", "tuple", "deque") else []
        if kind == "list":
            made = self._made[number] = new if fits else []
            made[:] = [self.value(part, there[i] if i < len(there) else None) for i, part in enumerate(parts)]
            return made
        values = [self.value(part, there[i] if i < len(there) else None) for i, part in enumerate(parts)]
        if kind == "deque" and fits:
            new.clear()
            new.extend(values)
            return new
        return make(values)

    def _mapping(self, number: int, new: Any, kind: str, pairs: list[Any]) -> Any:
        fits = type(new).__name__ == kind
        made = self._made[number] = new if fits else {"OrderedDict": OrderedDict, "Counter": Counter}.get(kind, dict)()
        there = dict(made)
        tensors = iter([key for key in there if isinstance(key, Tensor)])
        items = []
        for key_node, node in pairs:
            key = self.value(key_node, next(tensors, None) if isinstance(key_node, tuple) else None)
            items.append((key, self.value(node, there.get(key))))
        made.clear()
        made.update(items)
        return made

    def _object(self, number: int, new: Any, kind: str, attributes: dict[str, Any]) -> Any:
        made = self._made[number] = new if new is not None and _name(type(new)) == kind else _empty(kind)
        there = _attributes(made) if made is new else {}
        values = {name: self.value(node, there.get(name)) for name, node in attributes.items()}
        if isinstance(made, torch.optim.Optimizer):
            if made is not new:
                torch.optim.Optimizer.__init__(made, [dict(group) for group in values["param_groups"]], {})
            made.defaults, made.param_groups = values["defaults"], values["param_groups"]
            made.state = defaultdict(dict, values["state"])
            return made
        for name in there.keys() - values.keys():
            del vars(made)[name]
        vars(made).update(values)
        return made


def _found(kind: str) -> Any:
    """The class of this name.

    Raises:
        ValueError: it is none of those that may be made, or not imported.
    """
    module, _, name = kind.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not _can_be_made(found):
        raise ValueError(f"it holds a {kind}, which is not imported")
    return found


def _empty(kind: str) -> Any:
    """A new object of this class, which holds nothing."""
    found = _found(kind)
    made = found.__new__(found)
    if isinstance(made, nn.Module):
        nn.Module.__init__(made)
    return made
