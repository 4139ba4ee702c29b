"""Reading torch's zip archives: a pickle of containers, and one member of numbers for each storage.

Sizes are checked before anything is read: no member is compressed, and none lies outside the file.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from mmap import mmap
from typing import Any

from clcae_lib.weights._errors import UnsafeFileError, WeightsError
from clcae_lib.weights._inert import Storage
from clcae_lib.weights._pickle import Reader

MEMBERS = 50_000
"""An object of 500 bytes is made of each member, whose entry may have as few as 46."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


def read_archive(view: memoryview, file: mmap) -> tuple[Any, Callable[[], None]]:
    """Return what an archive holds, and a function that compares every member with its checksum.

    Args:
        view: all bytes of the file.
        file: the same, open.
    """
    _require_few_members(file)
    infos = zipfile.ZipFile(file).infolist()
    members = {info.filename: _member(view, info) for info in infos}
    packed = any(info.compress_type or info.flag_bits & 1 for info in infos)
    if packed or len(members) != len(infos) or sum(map(len, members.values())) > len(view):
        raise UnsafeFileError("it is a zip archive that lies about its sizes, or is compressed")
    roots = [name.removesuffix("data.pkl") for name in members if name.split("/", 1)[-1] == "data.pkl"]
    if len(roots) != 1:
        raise WeightsError("is a zip archive and no weights; give the file that was packed into it")
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

    return Reader(len(view)).load(io.BytesIO(members[f"{root}data.pkl"]), storage), verify


def _require_few_members(file: mmap) -> None:
    """Read off the end of an archive how large its directory is."""
    end = file.rfind(b"PK\x05\x06")
    if end < 0:
        raise WeightsError("is damaged (a zip archive without an end); fetch it again")
    (size,) = struct.unpack_from("<I", file, end + 12)
    if (file[end - 20 : end - 16], file[end - 76 : end - 72]) == (b"PK\x06\x07", b"PK\x06\x06"):  # of 64 bits
        (size,) = struct.unpack_from("<Q", file, end - 36)
    if size > 100 * MEMBERS:
        raise UnsafeFileError(f"it is a zip archive of more than {MEMBERS:,} members")


def _member(view: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of a member, on which its own header and the directory must agree."""
    header = _LOCAL_HEADER.unpack_from(view, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + header[9] + header[10]
    data = view[start : start + info.file_size]
    deferred = header[2] & 8 or header[8] == 0xFFFFFFFF  # the sizes follow the data, or have 64 bits
    honest = deferred or header[7] == header[8] == info.file_size
    if header[0] != b"PK\x03\x04" or header[3] or not honest or len(data) != info.file_size:
        raise UnsafeFileError("it is a zip archive that lies about its sizes, or is compressed")
    return data
