"""A dry run of the pickles of a file in torch's own format, before torch runs them.

torch's reader of weights runs no code of a file, but a small file can make it allocate much memory by calls of
`bytearray(n)`, of `set` on a tensor whose stride is 0, or by encoding a text as "hex" again and again. So a pickle may
only name objects that files of tensors name, and only call functions that make tensors; each tensor must lie within its
storage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import prod
from pathlib import Path
from pickletools import genops
from typing import IO, Any

from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.support.reading import MOST_DIMENSIONS

_HINT = "only tensors are loaded, no code is run"
_SAVE = "save tensors by name, as a model's state_dict() has them"
_ORDERED = "collections OrderedDict"
_UNTYPED = "torch.storage UntypedStorage"
#: Functions that make a tensor from a storage -> the least and the greatest number of their arguments.
_REBUILDS = {
    "torch._utils _rebuild_tensor": (4, 4),
    "torch._utils _rebuild_tensor_v2": (6, 7),
    "torch._utils _rebuild_tensor_v3": (7, 8),
}
_PARAMETER = "torch._utils _rebuild_parameter"
#: Limit for the dimensions of a tensor here; `torch_weights.py` names the tensor that has too many. Each tensor has its
#: own copy of the sizes, even if the pickle has them only once.
_MOST_SIZES = 8 * MOST_DIMENSIONS
#: Limit for the entries that a call or an object copies, such as `_metadata`. A pickle may have them only once, too.
_MOST_COPIED = 16
#: Limit for the nesting of tuples, dicts and lists.
_MOST_MARKS = 64
_LARGEST = 1 << 63
#: Pickles of a file of torch before 1.6 whose values torch inspects: two numbers, and the names of the storages.
_OLD_NUMBERS, _OLD_NAMES = (0, 1), 4


class _Tensor:
    """A tensor that a pickle would make."""


@dataclass
class _Global:
    """A function, class or kind of element that a pickle names.

    item_bytes: bytes of an element, for a kind of storage or element; otherwise 0.
    """

    name: str
    item_bytes: int = 0
    is_storage: bool = False


@dataclass
class _Storage:
    item_bytes: int
    bytes: int


@dataclass
class _List:
    is_text: bool = True


@dataclass
class _Dict:
    is_ordered: bool = False
    count: int = 0


@cache
def _admitted() -> dict[str, _Global]:
    """The functions, classes and kinds of elements that files of tensors may name, by module and name."""
    import torch

    types = torch.storage._dtype_to_storage_type_map()
    found = [_Global(name) for name in (_ORDERED, *_REBUILDS, _PARAMETER)]
    found += [_Global(str(one).replace(".", " "), one.itemsize) for one in (*types, *torch.storage._new_dtypes())]
    found += [_Global(f"torch {name}", one.itemsize, True) for one, name in types.items()]
    found.append(_Global(_UNTYPED, 1, True))
    return {one.name: one for one in found}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


class DryRun:
    """Dry run of the pickles of one file; it creates none of their objects.

    old: True for a file of torch before 1.6. most: limit for the operations of all pickles together.
    """

    def __init__(self, path: Path, old: bool, most: int):
        self._path, self._old, self._most = path, old, most
        self._bytes = path.stat().st_size
        self._operations = self._pickles = self._held = 0
        self._storages: dict[str, _Storage] = {}

    def run(self, source: IO[bytes]) -> None:
        """Runs the pickle at the current position of the source.

        Raises CheckpointError when the pickle does anything that pickles of tensors never do, and any other exception
        when the data is not a pickle.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        for operation, argument, _ in genops(source):
            self._operations += 1
            if self._operations > self._most:
                raise self._refusal(f"pickles of more than {self._most} operations, which is the most that is read", "")
            act = _ACTIONS.get(operation.name)
            if act is None:
                raise self._refusal(f"is not made of tensors only ({operation.name} in a pickle)")
            act(self, argument)
        self._check_result(self._stack.pop())

    def _check_result(self, value: Any) -> None:
        """Checks the values that torch would print when they are wrong, or look up without checking their type."""
        number = self._pickles
        self._pickles += 1
        if not self._old:
            return
        if number in _OLD_NUMBERS and type(value) is not int:
            raise self._refusal("not a torch file of tensors: begins with other than its two numbers")
        if number == _OLD_NAMES and not (isinstance(value, _List) and value.is_text):
            raise self._refusal("not a torch file of tensors: the names of its storages are no list of texts")

    def _refusal(self, words: str, hint: str = _HINT) -> CheckpointError:
        return CheckpointError(f"{self._path}: {words}", hint)

    # ------------------------------------------------------------------------------------------------ the stack
    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        if len(self._marks) == _MOST_MARKS:
            raise self._refusal(f"pickles nested deeper than {_MOST_MARKS}")
        self._marks.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def _put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _tuple(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, _List):
            raise self._refusal("is not made of tensors only (what is no list is made longer)")
        target.is_text &= all(type(item) is str for item in items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, _Dict) or len(items) % 2:
            raise self._refusal("is not made of tensors only (what is no dict gets an entry)")
        for key in islice(items, 0, None, 2):
            if type(key) not in (str, int, type(None)) or (type(key) is int and not -_LARGEST < key < _LARGEST):
                kind = type(key).__name__
                raise self._refusal(f"a value of another kind ({kind}) is the name of a tensor, expected text")
        target.count += len(items) // 2

    # ------------------------------------------------------------------------------------------------ names and calls
    def _name(self, name: str) -> None:
        found = _admitted().get(name)
        if found is None:
            words = f"holds {name.replace(' ', '.')[:200]}, which no checkpoint of tensors needs"
            raise self._refusal(words, f"{_HINT}; {_SAVE}")
        self._stack.append(found)

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        name = function.name if isinstance(function, _Global) else ""
        if name == _ORDERED and arguments == ():
            self._stack.append(_Dict(is_ordered=True))
            return
        if name == _PARAMETER and self._is_parameter(arguments):
            self._stack.append(arguments[0])
            return
        if name not in _REBUILDS or not self._is_tensor(arguments, *_REBUILDS[name]):
            raise self._refusal(f"calls {name.replace(' ', '.') or 'something'} as no checkpoint of tensors does")
        self._check_extent(*arguments[:4], *(arguments[6:7] if name.endswith("v3") else ()))
        self._stack.append(_Tensor())

    def _is_parameter(self, arguments: Any) -> bool:
        if type(arguments) is not tuple or len(arguments) != 3:
            return False
        tensor, wants_gradient, hooks = arguments
        return isinstance(tensor, _Tensor) and type(wants_gradient) is bool and self._are_hooks(hooks)

    @staticmethod
    def _are_hooks(value: Any) -> bool:
        return value is None or (isinstance(value, _Dict) and value.count == 0)

    def _is_tensor(self, arguments: Any, least: int, most: int) -> bool:
        """Test for the arguments of a tensor: storage, offset, sizes, strides, and up to four more."""
        if type(arguments) is not tuple or not least <= len(arguments) <= most:
            return False
        storage, offset, sizes, strides, *others = arguments
        if not isinstance(storage, _Storage) or type(sizes) is not tuple or type(strides) is not tuple:
            return False
        if len(sizes) != len(strides) or len(sizes) > _MOST_SIZES:
            return False
        if not all(map(_is_count, (offset, *sizes, *strides))):
            return False
        if not others:
            return True
        kinds, metadata = others[2 : least - 4], others[least - 4 :]
        if not all(isinstance(one, _Global) and one.item_bytes and not one.is_storage for one in kinds):
            return False
        if not all(one is None or (isinstance(one, _Dict) and one.count <= _MOST_COPIED) for one in metadata):
            return False
        return type(others[0]) is bool and self._are_hooks(others[1])

    def _check_extent(
        self, storage: _Storage, offset: int, sizes: tuple[int, ...], strides: tuple[int, ...], kind: Any = None
    ) -> None:
        """Raises CheckpointError for a tensor beyond its storage, because torch would enlarge the storage."""
        stored = storage.bytes // (kind or storage).item_bytes
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if prod(sizes) >= _LARGEST or (all(sizes) and last >= stored):
            shape = f"{list(sizes)} with strides {list(strides)} from element {offset}"
            raise self._refusal(f"a tensor of {shape}, of {stored} in the file", _SAVE)

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        is_fit = isinstance(state, _Dict) and state.count <= _MOST_COPIED
        if not (is_fit and isinstance(target, _Dict) and target.is_ordered):
            raise self._refusal("is not made of tensors only (a value gets a state that tensors by name do not have)")

    # ------------------------------------------------------------------------------------------------ storages
    def _persistent(self, _: Any) -> None:
        found = self._stack.pop()
        if type(found) is not tuple or len(found) != (6 if self._old else 5):
            raise self._refusal("is not made of tensors only (a storage is named in another way)")
        word, kind, key, location, count, *views = found
        is_storage = isinstance(kind, _Global) and kind.is_storage and word == "storage" and views in ([], [None])
        if not (is_storage and type(key) is str and type(location) is str and _is_count(count)):
            raise self._refusal("is not made of tensors only (a storage is named in another way)")
        size = count * kind.item_bytes
        storage = self._storages.get(key)
        if storage is None:
            storage = self._storages[key] = _Storage(kind.item_bytes, size)
            self._held += size
        if storage.bytes != size:
            raise self._refusal(f"the storage {key} has {storage.bytes} bytes and {size} bytes")
        if self._held > self._bytes:
            raise self._refusal(f"tensors of {self._held} bytes, the file has {self._bytes}", "download it again")
        self._stack.append(storage)


#: Actions by operation: all operations of torch's reader except `NEWOBJ`, `EMPTY_SET` and `SHORT_BINSTRING`, which
#: files of tensors do not use.
_ACTIONS: dict[str, Callable[[DryRun, Any], None]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), DryRun._push),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), DryRun._get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), DryRun._put),
    "PROTO": lambda run, _: None,
    "STOP": lambda run, _: None,
    "NONE": DryRun._push,
    "NEWTRUE": lambda run, _: run._push(True),
    "NEWFALSE": lambda run, _: run._push(False),
    "EMPTY_TUPLE": lambda run, _: run._push(()),
    "EMPTY_LIST": lambda run, _: run._push(_List()),
    "EMPTY_DICT": lambda run, _: run._push(_Dict()),
    "MARK": DryRun._mark,
    "TUPLE": DryRun._tuple,
    "TUPLE1": lambda run, _: run._tuple_of(1),
    "TUPLE2": lambda run, _: run._tuple_of(2),
    "TUPLE3": lambda run, _: run._tuple_of(3),
    "APPEND": lambda run, _: run._append([run._stack.pop()]),
    "APPENDS": lambda run, _: run._append(run._to_mark()),
    "SETITEM": lambda run, _: run._set([run._stack.pop(), run._stack.pop()][::-1]),
    "SETITEMS": lambda run, _: run._set(run._to_mark()),
    "GLOBAL": DryRun._name,
    "REDUCE": DryRun._call,
    "BUILD": DryRun._build,
    "BINPERSID": DryRun._persistent,
}
