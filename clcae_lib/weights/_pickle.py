"""Read pickles as data. torch's files and NVIDIA's snapshots are pickles, which Python would run as programs.

A pickle is read in two passes. `Reader.check` decodes its instructions without executing any. It refuses
instructions that data do not need, and more work than the size of the file justifies. Then `pickle.Unpickler`
runs it with a `find_class` that has a table of allowed names, whose stand-ins only store their arguments
(`_inert`). Any other name is refused before anything could be called.

`torch.load(weights_only=True)` is not used for files from elsewhere. It calls functions for which 1 kB of
pickle can allocate gigabytes (`bytearray(n)`, `codecs.encode(..., "hex")` over and over: a file of 1.7 kB
becomes 33 MB in 15 calls), allocates the
storages of files without an archive before it compares their sizes with the file's, reads pickle protocol 2
only, and does not read NVIDIA's snapshots, which need this reader in any case.
"""

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import Any

from clcae_lib.weights._inert import NAMES, Call, Module, Storage, View
from clcae_lib.weights.checkpoints import UnsafeFileError, WeightsError

WORK = 1_000_000
"""Allowed number of instructions and copied items of any file, ten times that of NVIDIA's snapshots."""
MEMBERS = 50_000
"""Largest number of members of an archive; an entry of 46 bytes can need an object of 500 bytes."""
DEEPEST = 100
_OTHER_WAYS_TO_CALL = {"INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_OTHER_OBJECTS = {"PERSID", "DUP", "NEXT_BUFFER", "READONLY_BUFFER", "BYTEARRAY8"}
_CHANGE_WHAT_IS_BELOW = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_START = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LIES = "it is a zip archive that gives false sizes, or is compressed"


class _Unpickler(pickle.Unpickler):
    """Python's own unpickler, restricted to the keys of `names`."""

    def __init__(self, file: Any, names: dict[str, Any], storage: Callable[..., Storage] | None) -> None:
        super().__init__(file, encoding="latin1")
        self.names, self.storage = names, storage

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; nothing is imported."""
        full = f"{module}.{name}"
        if full not in self.names:
            shown = "".join(filter(str.isprintable, full[:100]))
            raise UnsafeFileError(f"it names {shown}, which weights do not need")
        return self.names[full]

    def persistent_load(self, identity: Any) -> Storage:
        """Return the storage with one of torch's persistent ids."""
        if self.storage is None or type(identity) is not tuple or identity[:1] != ("storage",):
            raise UnsafeFileError("it refers to an object outside itself (a persistent id)")
        return self.storage(*identity[1:])


class Reader:
    """Reads the pickles of one file; the allowed work grows with its size in bytes."""

    def __init__(self, size: int) -> None:
        self.left = WORK + size // 16

    def load(self, file: Any, storage: Callable[..., Storage] | None = None, *, inside: bool = False) -> Any:
        """Return the content of the pickle at a file's position, and move the position to its end."""
        start = file.tell()
        self.check(file)
        file.seek(start)
        names = NAMES if inside else NAMES | {"torch.storage._load_from_bytes": Call(self._load_from_bytes)}
        return _Unpickler(file, names, storage).load()

    def check(self, file: Any) -> None:
        """Decode the instructions of a pickle, and refuse those that data do not need.

        The unpickler's stack is simulated with pairs of each item's size and depth. Shared content is counted
        at every occurrence, because hashing or copying the item takes that long.
        """
        stack: list[list[int]] = []
        marks: list[int] = []
        memo: dict[int, list[int]] = {}
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            name, work = opcode.name, 1
            if name in _OTHER_WAYS_TO_CALL | _OTHER_OBJECTS:
                raise UnsafeFileError(f"it uses the instruction {name}, which plain data do not need")
            if isinstance(argument, int) and argument.bit_length() > 256:
                raise UnsafeFileError(f"it has a number of {argument.bit_length()} bits")
            if name.endswith("GET"):
                stack.append(memo[argument])
                work += stack[-1][0]
            elif name == "MEMOIZE" or name.endswith("PUT"):
                index = len(memo) if name == "MEMOIZE" else argument
                if index > count:  # the unpickler allocates memory up to the index
                    raise UnsafeFileError(f"its instruction {count} uses place {index} of the memo")
                memo[index] = stack[-1]
            elif name == "MARK":
                marks.append(len(stack))
            elif name == "POP" and marks and marks[-1] == len(stack):
                marks.pop()
            else:
                _follow(opcode, argument, stack, marks)
            self.left -= work
            if self.left < 0:
                raise UnsafeFileError(f"it needs more work than {WORK:,} steps and its size justify")

    def _load_from_bytes(self, data: Any) -> Storage:
        """Return the storage of a tensor in a snapshot, which is a separate torch stream."""
        if not isinstance(data, bytes):
            raise UnsafeFileError("it reads a tensor from something other than bytes")
        found = self.load_stream(memoryview(data), io.BytesIO(data), inside=True)
        if not isinstance(found, Storage):
            raise UnsafeFileError("it has something other than numbers in a tensor")
        return found

    def load_stream(self, view: memoryview, file: io.BytesIO | mmap, *, inside: bool = False) -> Any:
        """Return the content of an old torch file (not a zip): five pickles, then the storages' numbers."""
        storages: dict[str, Storage] = {}

        def storage(dtype: Any, key: str, _: Any, count: Any, part: Any = None) -> Storage:
            if part is not None:
                raise WeightsError("has a layout of torch 0.3; load and save it with a later version")
            return storages.setdefault(key, Storage(dtype, count))

        magic, protocol, _, tree, keys = (self.load(file, storage, inside=inside) for _ in range(5))
        if (magic, protocol) != (_MAGIC, 1001):
            raise WeightsError("is not a file of torch; fetch it again")
        if sorted(keys) != sorted(storages):
            raise UnsafeFileError("it lists other storages than its tensors have")
        start = file.tell()
        for found in (storages[key] for key in keys):
            if struct.unpack_from("<q", view, start)[0] != found.count:
                raise UnsafeFileError("it gives a false size of its data")
            found.attach(view[start + 8 : start + 8 + found.size])
            start += 8 + found.size
        return tree

    def load_archive(self, view: memoryview, file: mmap) -> tuple[Any, Callable[[], None]]:
        """Return the content of torch's zip archive, and a function that compares its members' checksums.

        Sizes are checked before anything is read; members must be uncompressed and inside the file.
        """
        require_few_members(file)
        infos = zipfile.ZipFile(file).infolist()
        members = {info.filename: _member(view, info) for info in infos}
        packed = any(info.compress_type or info.flag_bits & 1 for info in infos)
        if packed or len(members) != len(infos) or sum(map(len, members.values())) > len(view):
            raise UnsafeFileError(_LIES)
        roots = [name.removesuffix("data.pkl") for name in members if name.split("/", 1)[-1] == "data.pkl"]
        if len(roots) != 1:
            raise WeightsError("is a zip archive without weights; unpack it and give the file inside")
        root = roots[0]
        if any(name.startswith((f"{root}code/", f"{root}constants.pkl")) for name in members):
            raise UnsafeFileError("it is a TorchScript program")
        if members.get(f"{root}byteorder", b"little") != b"little":
            raise WeightsError("was written on a big-endian machine; save it again on another")

        def storage(dtype: Any, key: str, _: Any, count: Any) -> Storage:
            made = Storage(dtype, count)
            made.attach(members[f"{root}data/{key}"])
            return made

        def verify() -> None:
            for info in infos:
                if zlib.crc32(members[info.filename]) != info.CRC:
                    raise WeightsError(f"is damaged ({info.filename} has another checksum); fetch it again")

        return self.load(io.BytesIO(members[f"{root}data.pkl"]), storage), verify


def _follow(opcode: Any, argument: Any, stack: list[list[int]], marks: list[int]) -> None:
    """Replace the operands of an instruction on the simulated stack by its results."""
    changes = opcode.name in _CHANGE_WHAT_IS_BELOW
    marked = pickletools.markobject in opcode.stack_before
    first = marks.pop() if marked else len(stack) - len(opcode.stack_before) + changes
    if first < changes:
        raise ValueError(f"the instruction {opcode.name} has no operands")
    items = stack[first:]
    del stack[first:]
    if not opcode.stack_after:
        return
    if not changes:
        stack.append([1 + (len(argument) // 64 if isinstance(argument, (str, bytes)) else 0), 0])
    stack[-1][0] += sum(size for size, _ in items)
    stack[-1][1] = max([stack[-1][1], *(depth + 1 for _, depth in items)])
    if stack[-1][1] > DEEPEST:
        raise UnsafeFileError(f"its contents are nested more than {DEEPEST} deep")


def require_few_members(file: mmap) -> None:
    """Raise an error if the directory at the end of an archive has too many members."""
    end = file.rfind(b"PK\x05\x06")
    if end < 0:
        raise WeightsError("is damaged (a zip archive without an end); fetch it again")
    (size,) = struct.unpack_from("<I", file, end + 12)
    if (file[end - 20 : end - 16], file[end - 76 : end - 72]) == (b"PK\x06\x07", b"PK\x06\x06"):  # of 64 bits
        (size,) = struct.unpack_from("<Q", file, end - 36)
    if size > 100 * MEMBERS:
        raise UnsafeFileError(f"it is a zip archive of more than {MEMBERS:,} members")


def _member(view: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of a member, after checking that its header and the directory agree."""
    header = _LOCAL_HEADER.unpack_from(view, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + header[9] + header[10]
    data = view[start : start + info.file_size]
    deferred = header[2] & 8 or header[8] == 0xFFFFFFFF  # the sizes are after the data, or have 64 bits
    honest = deferred or header[7] == header[8] == info.file_size
    if header[0] != b"PK\x03\x04" or header[3] or not honest or len(data) != info.file_size:
        raise UnsafeFileError(_LIES)
    return data


def walk(
    tree: Any, name: str = "", seen: set[int] | None = None, depth: int = 0
) -> Iterator[tuple[str, View]]:
    """Yield every tensor in nested containers with its dotted name; each container is visited once."""
    seen = set() if seen is None else seen
    if isinstance(tree, View) and tree.storage:
        yield name, tree
    if isinstance(tree, Module):
        tree = tree.children
    if not isinstance(tree, (dict, list, tuple)) or id(tree) in seen:
        return
    seen.add(id(tree))
    if depth > DEEPEST or len(name) > 1000:
        raise UnsafeFileError(f"its contents are nested more than {DEEPEST} deep, or have endless names")
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, (View, Module, dict, list, tuple)):
            yield from walk(value, f"{name}.{key}" if name else str(key), seen, depth + 1)
