"""Files that would do harm are refused by name, and have no effect."""

import argparse
import copyreg
import io
import json
import os
import pickle
import random
import struct
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch

from clcae_lib.formats import FormatError, UnsafeFileError, convert_file, inspect_file, read_contents
from tests.nvidia_pickle import nvidia_modules, small_tensors, storage_bytes, write_snapshot


class Reduce:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __call__(self):
        raise AssertionError("only what this pickles as is callable")

    def __reduce__(self):
        return self.call


@pytest.fixture
def marker(tmp_path):
    """A file that no test may find in the end."""
    path = tmp_path / "harmed"
    yield path
    assert not path.exists(), "the payload was executed"


@pytest.fixture
def command(marker):
    return f"touch {marker}"


def refuse(path, marker, match):
    """Assert that a file is refused as unsafe, whatever is asked about it, with its name and a remedy."""
    for ask in (inspect_file, lambda p: convert_file(p, p.with_name("out.safetensors"))):
        with pytest.raises(UnsafeFileError, match=match) as caught:
            ask(path)
        message = str(caught.value)
        assert message.startswith(f"{path} is refused: ")
        assert "Nothing in it was run; take the file from its official source" in message
        assert "\n" not in message
    assert not marker.exists()
    assert not path.with_name("out.safetensors").exists()


def harmful(payload, marker):
    """Assert that Python's own machine would run a payload, and tidy up."""
    pickle.loads(payload)
    assert marker.exists(), "this payload does nothing and proves nothing"
    marker.unlink()
    return payload


CALLS = {
    "os.system": lambda marker: Reduce(os.system, f"touch {marker}"),
    "builtins.eval": lambda marker: Reduce(eval, f"open({str(marker)!r}, 'w').close()"),
    "builtins.exec": lambda marker: Reduce(exec, f"open({str(marker)!r}, 'w').close()"),
    "nested": lambda marker: Reduce(Reduce(getattr, Reduce(__import__, "os"), "system"), f"touch {marker}"),
    "argument": lambda marker: Reduce(OrderedDict, [("a", Reduce(os.system, f"touch {marker}"))]),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", CALLS)
def test_calls(tmp_path, marker, call, protocol):
    path = tmp_path / f"network{'.pkl' if protocol % 2 else '.pt'}"
    if call == "nested" and protocol == 0:
        payload = f"c__builtin__\neval\n(S\"open('{marker}', 'w').close()\"\ntR.".encode()
    else:
        payload = pickle.dumps({"G_ema": CALLS[call](marker)}, protocol=protocol)
    path.write_bytes(harmful(payload, marker))
    refuse(path, marker, r"it names (posix|nt|builtins|__builtin__)\.(system|eval|exec|getattr)")


HAND_MADE = {
    "stack global": lambda c: b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + _text(c) + b"\x85R.",
    "instance": lambda c: b"(S'" + c + b"'\niposix\nsystem\n.",
    "object": lambda c: b"(cposix\nsystem\nS'" + c + b"'\no.",
    "memoised": lambda c: (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93" + _text(c) + b"\x85R."
    ),
    "new object": lambda c: b"\x80\x02csubprocess\nPopen\n]X\x02\x00\x00\x00sha" + _text(c) + b"a\x85\x81.",
}


def _text(command):
    return b"X" + struct.pack("<I", len(command)) + command


@pytest.mark.skipif(os.name != "posix", reason="the payloads name posix.system")
@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_programs(tmp_path, marker, command, name):
    path = tmp_path / "network.pkl"
    payload = HAND_MADE[name](command.encode())
    path.write_bytes(harmful(payload, marker) if name not in ("memoised", "new object") else payload)
    refuse(path, marker, "instruction INST" if name == "instance" else r"it names (posix|subprocess)\.")


def test_the_extension_registry_is_not_asked(tmp_path, marker, command):
    path = tmp_path / "network.pkl"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        payload = b"\x80\x02\x82\xf0" + _text(command.encode()) + b"\x85R."
        path.write_bytes(harmful(payload, marker))
        refuse(path, marker, "instruction EXT1")
        for code in (b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"):
            path.write_bytes(b"\x80\x02" + code + _text(command.encode()) + b"\x85R.")
            refuse(path, marker, "instruction EXT")
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
        getattr(copyreg, "_extension_cache", {}).pop(0xF0, None)


def test_persistent_ids(tmp_path, marker):
    path = tmp_path / "network.pkl"
    for payload in (b"\x80\x02X\x03\x00\x00\x00abcQ.", b"Pabc\n."):
        path.write_bytes(payload)
        refuse(path, marker, "persistent id|PERSID")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cdnnlib.util\nEasyDict\nN}X\x03\x00\x00\x00absNs\x86b.",  # attributes of a class
        b"\x80\x02]}b.",  # the state of a list
        b"\x80\x02K\x01)R.",  # a call of a number
        b"\x80\x02)]a.",  # an item for a tuple
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a call of a mere name
        b"\x80\x05\x97.",  # a buffer from outside
    ],
)
def test_instructions_on_what_has_no_such_thing(tmp_path, marker, program):
    path = tmp_path / "network.pkl"
    path.write_bytes(program)
    with pytest.raises(FormatError, match=r"network\.pkl is (refused|damaged)"):
        inspect_file(path)


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
def test_a_call_inside_a_state_dict(tmp_path, marker, command, archive):
    path = tmp_path / "weights.pt"
    state = {"g_ema": OrderedDict({"a": torch.zeros(2), "b": Reduce(os.system, command)})}
    torch.save(state, path, _use_new_zipfile_serialization=archive)
    refuse(path, marker, r"it names (posix|nt)\.system")


def test_a_harmful_class_beside_settings(tmp_path, marker, command):
    path = tmp_path / "weights.pt"
    torch.save({"opts": argparse.Namespace(a=Reduce(os.system, command))}, path)
    refuse(path, marker, "system")


def test_a_call_in_the_stream_of_a_snapshots_tensor(tmp_path, marker, command):
    inner = io.BytesIO()
    torch.save(Reduce(os.system, command), inner, _use_new_zipfile_serialization=False)
    path = tmp_path / "network.pkl"
    path.write_bytes(_with_storage(inner.getvalue()))
    refuse(path, marker, r"it names (posix|nt)\.system")


def _with_storage(data, *shape):
    """A pickle of one tensor, or of its storage alone, whose numbers are given as stored."""
    storage = Reduce(torch.storage._load_from_bytes, data)
    if not shape:
        return pickle.dumps(storage, protocol=4)
    size, stride = shape
    return pickle.dumps(Reduce(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, None), 4)


def test_streams_in_streams_are_refused(tmp_path, marker):
    inner = io.BytesIO()
    reading = Reduce(torch.storage._load_from_bytes, storage_bytes(torch.zeros(2)))
    torch.save(reading, inner, _use_new_zipfile_serialization=False)
    path = tmp_path / "network.pkl"
    path.write_bytes(_with_storage(inner.getvalue()))
    refuse(path, marker, r"it names torch\.storage\._load_from_bytes")


@pytest.mark.parametrize(
    ("size", "stride"),
    [
        ((5,), (1,)),
        ((2, 2), (4, 1)),
        ((1 << 40,), (0,)),
        ((1 << 20, 1 << 20), (0, 0)),
        ((-1,), (1,)),
        ((2,), (-1,)),
    ],
)
def test_tensors_that_claim_more_than_they_have(tmp_path, marker, size, stride):
    path = tmp_path / "network.pkl"
    path.write_bytes(_with_storage(storage_bytes(torch.zeros(4)), size, stride))
    refuse(path, marker, "claims more than its storage holds|no list of sizes")


def test_a_storage_that_claims_more_than_it_has(tmp_path, marker):
    data = bytearray(storage_bytes(torch.zeros(4)))
    data[-24:-16] = struct.pack("<q", 1 << 40)
    path = tmp_path / "network.pkl"
    path.write_bytes(_with_storage(bytes(data)))
    refuse(path, marker, "lies about the size of its data")
    path.write_bytes(_with_storage(storage_bytes(torch.zeros(4))[:-4]))
    refuse(path, marker, "lies about the size of its data, or was cut off")


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {"a": torch.arange(1000.0)}, "opts": argparse.Namespace(lr=1)}, path)
    return path


def test_a_compressed_archive(archive, marker):
    bomb = archive.with_name("bomb.pt")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(1 << 26) if name.endswith("data/0") else old.read(name))
    assert bomb.stat().st_size < 1 << 18
    refuse(bomb, marker, "a zip archive that lies about its sizes, or is compressed")


def _patch(path, name, *, central=None, local=None):
    """Write other sizes into the two headers of a member."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as old:
        info = next(i for i in old.infolist() if i.filename.endswith(name))
        start = old.start_dir
    entry = content.index(info.filename.encode(), start) - 46
    if central is not None:
        content[entry + 20 : entry + 28] = struct.pack("<2I", central, central)
    if local is not None:
        content[info.header_offset + 6] &= ~8
        content[info.header_offset + 18 : info.header_offset + 26] = struct.pack("<2I", local, local)
    path.write_bytes(content)


@pytest.mark.parametrize("sizes", [{"central": 1 << 31}, {"central": 40}, {"local": 1 << 30}, {"local": 8}])
def test_an_archive_that_lies_about_sizes(archive, marker, sizes):
    _patch(archive, "data/0", **sizes)
    refuse(archive, marker, "lies about")


def test_an_archive_with_a_member_twice(archive, marker):
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(next(n for n in file.namelist() if n.endswith("data/0")), bytes(4000))
    refuse(archive, marker, "lies about its sizes")


def test_an_archive_of_too_many_members(archive, marker, monkeypatch):
    monkeypatch.setattr("clcae_lib.formats._torch.MEMBERS", 3)
    refuse(archive, marker, "more than 3 members")


def test_a_script_is_a_program(tmp_path, marker):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", b"\x80\x02}.")
        file.writestr("net/code/__torch__.py", b"")
    refuse(path, marker, "TorchScript")


def test_a_damaged_member_is_noticed_when_it_is_read(archive):
    content = bytearray(archive.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 5] ^= 1
    archive.write_bytes(content)
    stored = read_contents(archive).tensors["state_dict.a"]
    with pytest.raises(FormatError, match="data/0 has another checksum"):
        stored.load()


BOMBS = {
    "instructions": lambda: b"\x80\x02" + b"}0" * 60_000 + b".",
    "a set made over and over": lambda: (
        b"\x80\x02(" + b"K\x01" * 9_000 + b"lq\x00cbuiltins\nset\nq\x01" + b"h\x01h\x00\x85R" * 9_000 + b"."
    ),
    "bytes made over and over": lambda: (
        b"\x80\x02"
        + _text(b"x" * 1_000_000)
        + b"q\x00X\x06\x00\x00\x00latin1q\x01c_codecs\nencode\nq\x02"
        + b"h\x02h\x00h\x01\x86R" * 9_000
        + b"."
    ),
    "a long number": lambda: b"\x80\x02\x8b" + struct.pack("<i", 1000) + b"\x01" * 1000 + b".",
    "a key of tuples in tuples": lambda: b"\x80\x02}" + b")" + b"2\x86" * 60 + b"Ns.",
    "deep lists": lambda: b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
    "deep tuples": lambda: b"\x80\x02)" + b"\x85" * 40_000 + b".",
    "doubling lists": lambda: b"\x80\x02]" + b"2\x86" * 3000 + b".",
}


REBUILD = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
BOMBS["a network made over and over"] = lambda: (
    b"\x80\x02}(X\x04\x00\x00\x00typeX\x05\x00\x00\x00classX\x05\x00\x00\x00state}("
    + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(9_000))
    + b"uuq\x00"
    + REBUILD
    + b"q\x01"
    + b"h\x01h\x00\x85R" * 9_000
    + b"."
)
BOMBS["networks of the same networks"] = lambda: (
    b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00)\x81}bq\x01"
    + b"".join(
        b"h\x00)\x81}X\x0a\x00\x00\x00components}("
        + b"".join(b"K" + bytes([i]) + b"h" + bytes([level]) for i in range(200))
        + b"usbq"
        + bytes([level + 1])
        for level in range(1, 7)
    )
    + b"\x85."
)
REASONS = {
    "a network made over and over": "more than 100,000 instructions",
    "networks of the same networks": "more than 100,000 instructions",
    "instructions": "more than 100,000 instructions",
    "a set made over and over": "more than 100,000 instructions",
    "bytes made over and over": "claim far more bytes than the file has",
    "a long number": "a number of 7993 bits",
    "a key of tuples in tuples": "keys a dictionary with something other",
    "deep lists": "nested more than 64 deep",
    "deep tuples": "nested more than 64 deep",
    "doubling lists": "nested more than 64 deep",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path, marker, name, monkeypatch):
    monkeypatch.setattr("clcae_lib.formats._machine.OPERATIONS", 100_000)
    path = tmp_path / "network.pkl"
    path.write_bytes(BOMBS[name]())
    refuse(path, marker, REASONS[name])


def test_names_do_not_add_up(tmp_path, marker):
    tree = {"b" * 400: torch.zeros(2)}
    for letter in "cde":
        tree = {letter * 400: tree}
    torch.save(tree, tmp_path / "weights.pt")
    refuse(tmp_path / "weights.pt", marker, "a name of more than 1000 letters")


def test_containers_of_themselves_are_walked_once(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x02]q\x00" + b"h\x00a" * 1000 + b".")
    assert inspect_file(path).kind == "unknown"


def test_an_index_of_the_memo_costs_nothing(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    assert inspect_file(path).kind == "unknown"


def test_views_of_one_storage_cannot_multiply_it(tmp_path, marker):
    storage = Reduce(torch.storage._load_from_bytes, storage_bytes(torch.zeros(1_000_000)))
    view = torch._utils._rebuild_tensor_v2
    views = [Reduce(view, storage, 0, (1_000_000,), (1,), False, None) for _ in range(40)]
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(dict(enumerate(views)), protocol=4))
    refuse(path, marker, "claim far more bytes than the file has")


CONTENTS = {
    "empty": (b"", "is empty; fetch it again"),
    "text": (b"Hello, this is no pickle at all.\nReally.\n", "is text and no weights; fetch it again"),
    "page": (b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", "is a web page"),
    "noise": (bytes(range(255, 0, -1)), "is text and no weights|is damaged|is no weights file"),
    "cut": (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}", r"is damaged \(.*\); fetch it again"),
    "zip": (b"PK\x03\x04 and nothing more", r"is damaged \(.*\); fetch it again"),
}


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".pth"])
@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_weights_file(tmp_path, name, suffix):
    path = tmp_path / f"network{suffix}"
    content, message = CONTENTS[name]
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"network{suffix} ({message})"):
        inspect_file(path)


def test_a_page_in_the_place_of_any_file(tmp_path):
    path = tmp_path / "README.html"
    path.write_text("<html><body>Quota exceeded</body></html>")
    with pytest.raises(FormatError, match=r"is a web page and no weights.*fetch it again, or with a browser"):
        inspect_file(path)
    other = tmp_path / "notes.txt"
    other.write_text("Hello")
    with pytest.raises(FormatError, match=r"is no weights file; give a \.safetensors, \.pt"):
        inspect_file(other)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pkl does not exist; give the path of a weights file"):
        inspect_file(tmp_path / "none.pkl")


def _safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


SAFETENSORS = {
    "length": struct.pack("<Q", 1 << 60) + b"{}",
    "offsets": _safetensors(
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, b"1234"
    ),
    "shape": _safetensors(
        {"a": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 4]}}, b"1234"
    ),
    "json": _safetensors(b"{" * 100_000),
    "metadata": _safetensors({"__metadata__": {"clcae": "[" * 100_000}}),
    "cut": _safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_with_a_lying_header(tmp_path, name):
    path = tmp_path / "generator.safetensors"
    path.write_bytes(SAFETENSORS[name])
    with pytest.raises(
        FormatError, match=r"generator\.safetensors is no safetensors file or is damaged.*again"
    ):
        inspect_file(path)


def test_arrays_that_lie_or_hold_objects(tmp_path, marker, command):
    path = tmp_path / "direction.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1099511627776), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16))
    with pytest.raises(FormatError, match=r"direction\.npy is damaged"):
        inspect_file(path)
    header = header.replace(b"<f4", b"|O").ljust(117)
    program = pickle.dumps(Reduce(os.system, command))
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + program)
    with pytest.raises(FormatError, match=r"direction\.npy is damaged"):
        inspect_file(path)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    write_snapshot(folder / "a.pkl", small_tensors(size=8), protocol=4)
    write_snapshot(folder / "b.pkl", small_tensors(size=8), protocol=2)
    state = {"g_ema": {"a": torch.randn(3, 4), "b": torch.arange(5)}, "opts": argparse.Namespace(x=1)}
    torch.save(state, folder / "c.pt")
    torch.save(state, folder / "d.pt", _use_new_zipfile_serialization=False)
    return sorted(folder.iterdir())


def test_every_cut_is_noticed(tmp_path, good_files):
    for good in good_files:
        content = good.read_bytes()
        path = tmp_path / good.name
        for end in range(1, len(content), max(1, len(content) // 12)):
            path.write_bytes(content[:end])
            with pytest.raises(FormatError, match=f"{good.name} "):
                inspect_file(path)


def test_random_damage_is_read_or_refused_and_never_anything_else(tmp_path, good_files):
    draw = random.Random(0)
    for good in good_files:
        content = good.read_bytes()
        path = tmp_path / good.name
        for _ in range(25):
            broken = bytearray(content)
            for _ in range(draw.randint(1, 4)):
                broken[draw.randrange(len(broken))] = draw.randrange(256)
            path.write_bytes(broken)
            try:
                for tensor in read_contents(path).tensors.values():
                    tensor.load()
            except FormatError as error:
                assert str(error)  # noqa: PT017 (either outcome is right)


HEARD: list[str] = []
LISTENING = [False]
# Not "compile" and "exec", which checks of shapes use; a source of a snapshot would raise SystemExit.
ACTIONS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "import")


def _hear(event, arguments):
    if LISTENING[0] and event.startswith(ACTIONS):
        HEARD.append(f"{event} {arguments[0]!r}")


@pytest.fixture(scope="module")
def audit():
    """A function that says what the interpreter was asked to import or run while another was called."""
    sys.addaudithook(_hear)  # there is no way to take it out again; it is deaf but for the call

    def heard(function):
        HEARD.clear()
        LISTENING[0] = True
        try:
            function()
        finally:
            LISTENING[0] = False
        return list(HEARD)

    return heard


def test_the_interpreter_is_never_asked_to_import_or_run_anything(
    tmp_path, audit, good_files, marker, command
):
    evil = pickle.dumps(Reduce(os.system, command))
    assert any("find_class" in event for event in audit(lambda: pickle.loads(evil)))
    assert any("os.system" in event for event in audit(lambda: pickle.loads(evil)))
    marker.unlink()
    path = tmp_path / "evil.pkl"
    path.write_bytes(evil)

    def read(file):
        try:
            for tensor in read_contents(file).tensors.values():
                tensor.load()
        except UnsafeFileError:
            assert file == path

    for file in (*good_files, path):
        read(file)  # what the reader itself imports late
        assert audit(lambda file=file: read(file)) == []


def test_no_stand_in_is_left_behind():
    with nvidia_modules():
        pass
    with pytest.raises(ImportError):
        import dnnlib  # noqa: F401
