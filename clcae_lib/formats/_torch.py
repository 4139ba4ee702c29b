"""Reading torch's files, the zip archives of today and the plain streams before 1.6, running nothing.

`torch.load(weights_only=True)` would do for honest files. This reader is the same machine that reads
NVIDIA's, so that one thing need be trusted; it also refuses what torch allocates before looking (compressed
members, views larger than their storage), and it reads no number before it is asked for.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from mmap import mmap
from typing import Any

from clcae_lib.formats._errors import FormatError, UnsafeFileError
from clcae_lib.formats._machine import (
    Budget,
    Global,
    Machine,
    Maker,
    Record,
    Stream,
    mapping,
    members,
    record,
)
from clcae_lib.formats._stored import DTYPES, Storage, tensor_maker

MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_START = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
PROTOCOL = 1001
MEMBERS = 50_000
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")

#: The storages' names, which may be mentioned and not called.
STORAGES: dict[str, Maker | None] = {f"torch {name}": None for name in DTYPES}
NUMPY: dict[str, Maker | None] = {
    f"{module} {name}": record(f"numpy.{name}")
    for module, name in (
        *(("numpy", "dtype"), ("numpy", "ndarray")),
        *(
            (f"numpy.{core}.multiarray", name)
            for core in ("core", "_core")
            for name in ("scalar", "_reconstruct")
        ),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    )
}


def basic_makers(budget: Budget) -> dict[str, Maker | None]:
    """What tensors and plain containers are written with, whatever the file."""

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise UnsafeFileError("it encodes something other than bytes")
        budget.copy(len(text))
        return text.encode("latin1")

    return {
        "collections OrderedDict": mapping,
        "torch._utils _rebuild_tensor_v2": tensor_maker(budget),
        "torch._utils _rebuild_tensor": tensor_maker(budget),
        "torch._utils _rebuild_parameter": lambda data, *_: data,
        "_codecs encode": encode,
        **{f"{module} set": members for module in ("builtins", "__builtin__")},
        **{f"{module} bytes": _no_bytes for module in ("builtins", "__builtin__")},
        **NUMPY,
    }


def _no_bytes() -> bytes:
    """What the first protocols write for bytes without any; those with some are `encode`'s."""
    return b""


def file_makers(budget: Budget) -> dict[str, Maker | None]:
    """What weights and states of trainings are written with besides: settings and bookkeeping."""
    dtypes = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
    return {
        **basic_makers(budget),
        **STORAGES,
        **{f"torch {name}": None for name in dtypes},
        "torch Size": lambda sizes=(): tuple(sizes),
        "torch device": record("torch.device"),
        "argparse Namespace": record("argparse.Namespace"),
        "collections Counter": mapping,
        "collections defaultdict": lambda *args: mapping(),
        "pathlib PosixPath": record("pathlib.Path"),
        "pathlib WindowsPath": record("pathlib.Path"),
        **{
            f"{module} {kind}": None
            for module in ("builtins", "__builtin__")
            for kind in ("int", "list", "dict")
        },
    }


def read_zip(view: memoryview, stream: mmap) -> Any:
    """What a torch archive holds; its tensors are read later, from `view`.

    Args:
        view: the whole file.
        stream: the same file, open.
    """
    records = _records(view, stream)
    roots = [name.removesuffix("data.pkl") for name in records if name.split("/", 1)[-1] == "data.pkl"]
    if len(roots) != 1:
        raise FormatError("is a zip archive and no weights; give the file that was packed into it")
    root = roots[0]
    if root + "constants.pkl" in records or any(name.startswith(root + "code/") for name in records):
        raise UnsafeFileError("it is a TorchScript program")
    if bytes(records.get(root + "byteorder", lambda: memoryview(b"little"))()) != b"little":
        raise FormatError("was written on a big-endian machine; save it again on another")
    budget = Budget(len(view))

    def storage(kind: Any, name: Any, key: Any, device: Any, count: Any, *_: Any) -> Storage:
        data = records.get(f"{root}data/{key}") if isinstance(key, str) else None
        found = _storage(kind, name, count)
        if data is None or len(data(checked=False)) != count * found.dtype.itemsize:
            raise UnsafeFileError("it lies about the size of its data")
        found.read = data
        return found

    machine = Machine(file_makers(budget), budget, persistent=storage)
    return machine.run(io.BytesIO(records[root + "data.pkl"]()))


def _records(view: memoryview, stream: mmap) -> dict[str, Callable[..., memoryview]]:
    """The members of an archive, none of them compressed, all of them inside it, and none on another."""
    records: dict[str, Callable[..., memoryview]] = {}
    total = 0
    _require_few_members(stream)
    for info in zipfile.ZipFile(stream).infolist():
        total += info.file_size
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored or info.flag_bits & 1 or info.filename in records or total > len(view):
            raise UnsafeFileError("it is a zip archive that lies about its sizes, or is compressed")
        records[info.filename] = _member(view, info)
    return records


def _require_few_members(stream: mmap) -> None:
    """Count what may be members before zipfile makes an object of each, several times their size."""
    position = 0
    for _ in range(MEMBERS):
        position = stream.find(b"PK\x01\x02", position) + 1
        if not position:
            return
    raise UnsafeFileError(f"it is a zip archive of more than {MEMBERS:,} members")


def _member(view: memoryview, info: zipfile.ZipInfo) -> Callable[..., memoryview]:
    header = _LOCAL_HEADER.unpack_from(view, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + header[9] + header[10]
    data = view[start : start + info.file_size]
    deferred = header[2] & 8 or header[8] == 0xFFFFFFFF  # the sizes follow the data, or are 64 bits wide
    honest = header[3] == zipfile.ZIP_STORED and (deferred or header[7] == header[8] == info.file_size)
    if header[0] != b"PK\x03\x04" or not honest or len(data) != info.file_size:
        raise UnsafeFileError("it is a zip archive that lies about its sizes")

    @cache  # many tensors may be views of one member
    def check() -> None:
        if zlib.crc32(data) != info.CRC:
            raise FormatError(f"is damaged ({info.filename} has another checksum); fetch it again")

    def read(*, checked: bool = True) -> memoryview:
        if checked:
            check()
        return data

    return read


def _storage(kind: Any, name: Any, count: Any) -> Storage:
    dtype = DTYPES.get(name.name.removeprefix("torch ")) if isinstance(name, Global) else None
    if kind != "storage" or dtype is None or type(count) is not int or count < 0:
        raise UnsafeFileError("it refers to an object that is no storage of numbers")
    return Storage(dtype, count)


def read_stream(
    view: memoryview, stream: Stream, budget: Budget, makers: dict[str, Maker | None] | None = None
) -> Any:
    """What a torch stream from before the archives holds: four pickles, the storages' names, their numbers.

    Args:
        view: the whole stream.
        stream: the same, at its start.
        budget: of the file that it is, or is part of.
        makers: what it may name; by default what weights files may.
    """
    storages: dict[str, Storage] = {}

    def storage(
        kind: Any, name: Any, key: Any, device: Any, count: Any, part: Any = None, *_: Any
    ) -> Storage:
        if part is not None or not isinstance(key, str):
            raise FormatError(
                "has a layout of the first versions of torch; load and save it with a later one"
            )
        return storages.setdefault(key, _storage(kind, name, count))

    machine = Machine(makers or file_makers(budget), budget, persistent=storage)
    if (machine.run(stream), machine.run(stream)) != (MAGIC, PROTOCOL):
        raise FormatError("is no file of torch; fetch it again")
    machine.run(stream)  # the byte order and sizes of the machine that wrote it
    tree = machine.run(stream)
    keys = machine.run(stream)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise UnsafeFileError("it lists other storages than its tensors have")
    start = stream.tell()
    for key in keys:
        start = _attach(storages[key], view, start)
    return tree


def _attach(storage: Storage, view: memoryview, start: int) -> int:
    """Tell a storage where its numbers lie, behind their count; where the next begins."""
    (count,) = struct.unpack_from("<q", view, start)
    data = view[start + 8 : start + 8 + storage.count * storage.dtype.itemsize]
    if count != storage.count or len(data) != storage.count * storage.dtype.itemsize:
        raise UnsafeFileError("it lies about the size of its data, or was cut off")
    storage.read = lambda: data
    return start + 8 + len(data)


def number(value: Any) -> Any:
    """The plain number in a numpy scalar's record, anything else as it is."""
    if not (isinstance(value, Record) and value.name == "numpy.scalar" and len(value.args) == 2):
        return value
    kind, data = value.args
    code = kind.args[0] if isinstance(kind, Record) and kind.args else None
    layout = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}.get(str(code))
    if layout is None or not isinstance(data, bytes) or len(data) != struct.calcsize(layout):
        raise FormatError("has a number of an unknown type; fetch it again")
    found = struct.unpack(layout, data)[0]
    return found if math.isfinite(found) else None
