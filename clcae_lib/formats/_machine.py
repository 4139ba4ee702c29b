"""A pickle machine that can build data and nothing else.

A pickle is a program, and Python's own machine runs it: it imports what the program names and calls it. This
one reads the same instructions (decoded by the standard library's `pickletools.genops`, which executes
nothing) and has no instruction that imports, calls or sets an attribute of anything real:

* what a file may name is a table, text to a function of this package, given by the reader of each format;
  any other name is refused where it is read, before anything could be called;
* numbers, texts and containers are Python's own; items are put only into lists, dicts and sets the machine
  made itself, so that no method of a foreign class runs; keys are plain, so hashing them is cheap and flat;
* the extension registry, persistent ids (but for torch's storages), out-of-band buffers and the old ways of
  making instances are refused.

Subclassing `pickle.Unpickler` would be shorter and is not enough: its extension cache bypasses `find_class`,
its BUILD sets attributes on whatever lies on the stack, classes included, and its memo allocates as far as
an index in the file says. Work and memory are bounded here: instructions are counted, the memo is a dict,
and no instruction copies.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from mmap import mmap
from typing import Any

from clcae_lib.formats._errors import UnsafeFileError

OPERATIONS = 1_000_000  # ten times what a snapshot of three networks, or a training state, takes
NUMBER_BITS = 256
LONGEST_KEY = 1 << 12

Maker = Callable[..., Any]
Stream = BytesIO | mmap


@dataclass(frozen=True)
class Global:
    """A name in a file, "module attribute"; never looked up."""

    name: str


@dataclass(eq=False, slots=True, repr=False)
class Record:
    """An object in a file that has no meaning here: what it was made of, and the state it was given."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


def record(name: str) -> Maker:
    """A maker that only keeps what it is given."""
    return lambda *args: Record(name, args)


def mapping(*args: Any) -> dict[Any, Any]:
    """An ordered dictionary, from nothing or from pairs; factories of defaults are dropped."""
    pairs = args[0] if args and isinstance(args[0], (list, dict)) else []
    made: dict[Any, Any] = {}
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        made[plain(key)] = value
    return made


def plain(key: Any) -> Any:
    """A dictionary's key or a set's member, if it is a short text, a small number or a truth value."""
    if isinstance(key, (str, bytes)) and len(key) <= LONGEST_KEY:
        return key
    if key is None or (isinstance(key, int) and abs(key) < 1 << 31):
        return key
    raise UnsafeFileError("it keys a dictionary with something other than a short text or a small number")


def members(*args: Any) -> set[Any]:
    """A set, from nothing or from a list."""
    return {plain(item) for item in (args[0] if args else ())}


@dataclass
class Budget:
    """What a file may still make the reader do; nested pickles draw on the same one."""

    size: int
    operations: int = field(default_factory=lambda: OPERATIONS)
    copied: int = field(init=False)

    def __post_init__(self) -> None:
        """Allow as many copied bytes as the file justifies: views of one storage may share it."""
        self.copied = 4 * self.size + (1 << 26)

    def operate(self, count: int = 1) -> None:
        """Count instructions, or the items that one of them handles."""
        self.operations -= count
        if self.operations < 0:
            raise UnsafeFileError(f"it has more than {OPERATIONS:,} instructions")

    def copy(self, count: int) -> None:
        """Count bytes that this file will have copied."""
        self.copied -= count
        if self.copied < 0:
            raise UnsafeFileError("its tensors together claim far more bytes than the file has")


class Machine:
    """Runs one pickle after another.

    Args:
        makers: what may be named; the value makes an object of its arguments, None marks a mere name.
        budget: shared by all pickles of a file.
        persistent: makes an object of torch's persistent id; None refuses those.
    """

    def __init__(
        self, makers: Mapping[str, Maker | None], budget: Budget, *, persistent: Maker | None = None
    ) -> None:
        self.makers, self.budget, self.persistent = makers, budget, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: Stream) -> Any:
        """What the pickle at the stream's position holds; the stream is left behind it.

        Raises:
            UnsafeFileError: it asks for more than data.
            ValueError, LookupError, TypeError: it is damaged.
        """
        self.stack, self.marks, self.memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(stream):
            self.budget.operate()
            step = _STEPS.get(opcode.name)
            if step is None:
                raise UnsafeFileError(f"it uses the instruction {opcode.name}, which plain data do not need")
            step(self, argument)
        return self.pop()

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        if isinstance(value, int) and value.bit_length() > NUMBER_BITS:
            raise UnsafeFileError(f"it has a number of {value.bit_length()} bits")
        self.stack.append(bytes(value) if isinstance(value, bytearray) else value)

    def pop(self) -> Any:
        """Take the value on top, if it lies above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("an instruction finds nothing to work on")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """The value on top, which must be a container that the machine made."""
        if not self.stack or type(self.stack[-1]) is not kind:
            raise UnsafeFileError(f"it puts items into something other than a {kind.__name__}")
        return self.stack[-1]

    def name(self, text: str) -> None:
        """Push a name that the table has."""
        if text not in self.makers:
            raise UnsafeFileError(f"it names {text.replace(' ', '.')}, which is no part of such a file")
        self.stack.append(Global(text))

    def make(self) -> None:
        """Replace a name and its arguments by what the table makes of them."""
        arguments, called = self.pop(), self.pop()
        maker = self.makers.get(called.name) if isinstance(called, Global) else None
        if maker is None or type(arguments) is not tuple:
            raise UnsafeFileError("it calls something that is no data type")
        self.budget.operate(sum(len(a) for a in arguments if isinstance(a, (tuple, list, dict, set))))
        self.push(maker(*arguments))

    def build(self) -> None:
        """Give a record its state; attributes of a dictionary are dropped."""
        state, target = self.pop(), self.stack[-1]
        if type(target) is Record:
            target.state = state
        elif type(target) is not dict:
            raise UnsafeFileError("it sets the state of something that has none")

    def remember(self, index: int) -> None:
        """Note the value on top."""
        self.memo[index] = self.stack[-1]

    def store(self, items: list[Any]) -> None:
        """Put keys and values into the dictionary on top."""
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain(key)] = value

    def refer(self) -> None:
        """Replace torch's persistent id by the storage it stands for."""
        identity = self.pop()
        if self.persistent is None or type(identity) is not tuple:
            raise UnsafeFileError("it refers to an object outside itself (a persistent id)")
        self.push(self.persistent(*identity))


def _append(machine: Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _add(machine: Machine, items: list[Any]) -> None:
    machine.top(set).update(plain(item) for item in items)


def _tuple(machine: Machine, count: int) -> None:
    machine.push(tuple([machine.pop() for _ in range(count)][::-1]))


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.store([key, value])


def _append_item(machine: Machine) -> None:
    item = machine.pop()
    _append(machine, [item])


def _new_dict(machine: Machine) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    machine.store(items)


def _stack_name(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise UnsafeFileError("it names something that is no text")
    machine.name(f"{module} {name}")


def _pop_anything(machine: Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()  # POP may take a mark away, as in Python's own machine
    else:
        machine.pop()


_CONSTANTS = (
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)

#: Every instruction there is here, by the name `pickletools` gives it. There is none for INST, OBJ,
#: NEWOBJ_EX, EXT1, EXT2, EXT4, PERSID, NEXT_BUFFER and READONLY_BUFFER.
_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, a: None),
    **dict.fromkeys(_CONSTANTS, Machine.push),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_SET": lambda m, a: m.push(set()),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "TUPLE1": lambda m, a: _tuple(m, 1),
    "TUPLE2": lambda m, a: _tuple(m, 2),
    "TUPLE3": lambda m, a: _tuple(m, 3),
    "MARK": lambda m, a: m.marks.append(len(m.stack)),
    "POP_MARK": lambda m, a: m.pop_to_mark() and None,
    "POP": lambda m, a: _pop_anything(m),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_to_mark())),
    "LIST": lambda m, a: m.push(m.pop_to_mark()),
    "DICT": lambda m, a: _new_dict(m),
    "FROZENSET": lambda m, a: m.push(members(m.pop_to_mark())),
    "APPEND": lambda m, a: _append_item(m),
    "APPENDS": lambda m, a: _append(m, m.pop_to_mark()),
    "ADDITEMS": lambda m, a: _add(m, m.pop_to_mark()),
    "SETITEM": lambda m, a: _set_item(m),
    "SETITEMS": lambda m, a: m.store(m.pop_to_mark()),
    "MEMOIZE": lambda m, a: m.remember(len(m.memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.push(m.memo[a])),
    "GLOBAL": Machine.name,
    "STACK_GLOBAL": lambda m, a: _stack_name(m),
    "REDUCE": lambda m, a: m.make(),
    "NEWOBJ": lambda m, a: m.make(),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.refer(),
}
