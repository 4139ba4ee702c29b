"""Files that would do harm are refused by name, have no effect, and take neither time nor memory."""

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
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clcae_lib.inversion.psp import PspEncoder, PspInverter
from clcae_lib.models import FoundationEncoder, PublishedEncoder
from clcae_lib.weights import (
    UnsafeFileError,
    WeightsError,
    convert_file,
    inspect_file,
    load_alignment,
    load_encoder,
    load_generator,
    read_weights,
    save_alignment,
)
from clcae_lib.weights.checkpoints import read_metadata, save_weights
from clcae_lib.worlds.portraits.judges import JUDGES, load_judge
from tests.nvidia_pickle import small_tensors, storage_bytes, write_snapshot
from tests.unit._tiny import WIDTHS, parts_of, tiny_generator

NAMED = r"it names (posix|nt|builtins|__builtin__|subprocess)\.(system|eval|exec|getattr|Popen)"


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
def refused(tmp_path):
    """A function that writes a file and asserts that every reader refuses it as unsafe, with a remedy."""

    def check(content, match, name="network.pkl"):
        path = tmp_path / name
        path.write_bytes(content)
        for ask in (inspect_file, load_generator, lambda p: convert_file(p, tmp_path / "out.safetensors")):
            with pytest.raises(UnsafeFileError, match=match) as caught:
                ask(path)
            message = str(caught.value)
            assert message.startswith(f"{path} is refused: ")
            assert "Nothing in it was run; take the file from its official source" in message
            assert "\n" not in message
            assert "weights_only" not in message
        assert not (tmp_path / "out.safetensors").exists()

    return check


def text(content):
    return b"X" + struct.pack("<I", len(content)) + content


PROGRAMS = {
    "a call": lambda c: pickle.dumps({"G_ema": Reduce(os.system, c)}, 4),
    "a call of text": lambda c: pickle.dumps(Reduce(eval, f"__import__('os').system({c!r})"), 0),
    "a call of what a call gave": lambda c: pickle.dumps(
        Reduce(Reduce(getattr, Reduce(__import__, "os"), "system"), c), 2),
    "a name from the memo": lambda c: (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93" + text(c.encode()) + b"\x85R."),
    "a new object": lambda c: b"\x80\x02csubprocess\nPopen\n]" + text(c.encode()) + b"a\x85\x81.",
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_calls_are_refused_before_anything_is_called(refused, marker, name):
    payload = PROGRAMS[name](f"touch {marker}")
    refused(payload, NAMED)
    if name in ("a call", "a call of text"):
        pickle.loads(payload)
        marker.unlink()  # fails if the payload does nothing and proves nothing


INSTRUCTIONS = {
    "INST": b"(S'touch harmed'\niposix\nsystem\n.", "OBJ": b"(cposix\nsystem\nS'touch harmed'\no.",
    "EXT1": b"\x80\x02\x82\xf0" + text(b"touch harmed") + b"\x85R.", "EXT2": b"\x80\x02\x83\xf0\x00)R.",
    "EXT4": b"\x80\x02\x84\xf0\x00\x00\x00)R.", "PERSID": b"Pabc\n.", "NEXT_BUFFER": b"\x80\x05\x97.",
    "NEWOBJ_EX": b"\x80\x04cposix\nsystem\n)}\x92.", "BYTEARRAY8": b"\x80\x05\x96" + bytes(8) + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_that_data_do_not_need(refused, tmp_path, marker, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        refused(INSTRUCTIONS[name], f"it uses the instruction {name}, which plain data do not need")
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cdnnlib.util\nEasyDict\nN}X\x03\x00\x00\x00absNs\x86b.",  # attributes of a class
        b"\x80\x02ctorch.storage\n_load_from_bytes\n}X\x03\x00\x00\x00absNsb.",  # of a function
        b"\x80\x02]}b.",  # the state of a list
        b"\x80\x02K\x01)R.",  # a call of a number
        b"\x80\x02)]a.",  # an item for a tuple
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a call of a type
        b"\x80\x02X\x03\x00\x00\x00abcQ.",  # a persistent id
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",  # another encoding
        b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.",  # memory
    ],
)
def test_instructions_on_what_has_no_such_thing(tmp_path, program):
    path = tmp_path / "network.pkl"
    path.write_bytes(program)
    with pytest.raises(WeightsError, match=r"network\.pkl is (refused|damaged)"):
        inspect_file(path)


def saved(content, *, archive=False):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
def test_a_call_beside_tensors_or_settings(refused, marker, archive):
    for hold in (OrderedDict, argparse.Namespace):
        content = {"g_ema": torch.zeros(2), "other": hold(b=Reduce(os.system, f"touch {marker}"))}
        refused(saved(content, archive=archive), NAMED, "weights.pt")


def with_storage(data, *shape):
    """A pickle of one tensor, or of its storage only, whose numbers are given as stored."""
    storage = Reduce(torch.storage._load_from_bytes, data)
    if not shape:
        return pickle.dumps(storage, protocol=4)
    size, stride = shape
    return pickle.dumps(Reduce(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, None), 4)


def test_what_the_stream_of_a_tensor_may_not_hold(refused, marker):
    stream = Reduce(torch.storage._load_from_bytes, storage_bytes(torch.zeros(2)))
    refused(with_storage(saved(Reduce(os.system, f"touch {marker}"))), NAMED)
    refused(with_storage(saved(stream)), r"it names torch\.storage\._load_from_bytes")
    refused(with_storage(saved([1])), "something other than numbers")


@pytest.mark.parametrize(
    ("size", "stride"), [([5], [1]), ([2, 2], [4, 1]), ([1 << 40], [0]), ([1 << 20] * 2, [0, 0]), ([2], [-1])]
)
def test_tensors_that_claim_more_than_they_have(refused, size, stride):
    content = with_storage(storage_bytes(torch.zeros(4)), tuple(size), tuple(stride))
    refused(content, "claims more than its storage holds|claim far more bytes|not a list of sizes")


def test_storages_that_claim_more_than_they_have(refused):
    whole = storage_bytes(torch.zeros(4))
    for data in (whole[:-24] + struct.pack("<q", 1 << 40) + whole[-16:], whole[:-4]):
        refused(with_storage(data), "gives a false size of its data")
    huge = b"\x8a\x06" + struct.pack("<Q", 1 << 40)[:6]  # a storage of 4 TB, and a view as large
    refused(saved({"a": torch.zeros(4)}).replace(b"K\x04", huge), "gives a false size", "weights.pt")


def test_views_cannot_multiply_what_they_show(refused):
    storage = Reduce(torch.storage._load_from_bytes, storage_bytes(torch.zeros(1_000_000)))
    views = [Reduce(torch._utils._rebuild_tensor_v2, storage, 0, (10**6,), (1,)) for _ in range(40)]
    refused(pickle.dumps(dict(enumerate(views)), protocol=4), "claim far more bytes than|more work than")


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {"a": torch.arange(1000.0)}, "opts": argparse.Namespace(lr=1)}, path)
    return path


def test_a_compressed_archive(archive, refused):
    content = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(1 << 26) if name.endswith("data/0") else old.read(name))
    assert len(content.getvalue()) < 1 << 18
    refused(content.getvalue(), "a zip archive that gives false sizes, or is compressed", "bomb.pt")


@pytest.mark.parametrize("sizes", [{"central": 1 << 31}, {"central": 40}, {"local": 1 << 30}, {"local": 8}])
def test_an_archive_that_lies_about_sizes(archive, refused, sizes):
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as old:
        info = next(i for i in old.infolist() if i.filename.endswith("data/0"))
        entry = content.index(info.filename.encode(), old.start_dir) - 46
    if "central" in sizes:
        content[entry + 20 : entry + 28] = struct.pack("<2I", *[sizes["central"]] * 2)
    else:
        content[info.header_offset + 6] &= ~8
        content[info.header_offset + 18 : info.header_offset + 26] = struct.pack("<2I", *[sizes["local"]] * 2)
    refused(content, "gives (a )?false size", "weights.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_member_twice_a_program_or_too_many_members(archive, refused, monkeypatch):
    good = archive.read_bytes()
    for name, message in {"data/0": "gives false sizes", "code/__torch__.py": "TorchScript"}.items():
        archive.write_bytes(good)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(f"{file.namelist()[0].partition('/')[0]}/{name}", bytes(4000))
        refused(archive.read_bytes(), message, "weights.pt")
    monkeypatch.setattr("clcae_lib.weights._pickle.MEMBERS", 3)
    refused(good, "more than 3 members", "weights.pt")


def test_a_damaged_member_is_noticed_before_its_numbers_are_used(tmp_path):
    path = tmp_path / "weights.pt"
    content = bytearray(saved({"g_ema": tiny_generator().state_dict()}, archive=True))
    content[content.index(tiny_generator().conv1.conv.weight.numpy().tobytes()) + 1] ^= 1
    path.write_bytes(content)
    assert inspect_file(path)["kind"] == "generator"
    with pytest.raises(WeightsError, match=r"weights\.pt is damaged \(.*data/.* has another checksum\)"):
        load_generator(path)


def number(value):
    return b"J" + struct.pack("<i", value)


def keep(index):
    return b"r" + struct.pack("<I", index)


def kept(index):
    return b"j" + struct.pack("<I", index)


def networks_of_networks():
    """Each of seven networks has the one before it 200 times."""
    made = b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00)\x81}b" + keep(1)
    for level in range(1, 7):
        inner = b"".join(number(i) + kept(level) for i in range(200))
        made += b"h\x00)\x81}" + text(b"components") + b"}(" + inner + b"usb" + keep(level + 1)
    return made + b"\x85."


CALLS = b"h\x01h\x00\x85R" * 9_000 + b"."
PAIRS = b"".join(number(i) + b"N" for i in range(9_000))
BOMBS = {
    "instructions": lambda: b"\x80\x02" + b"}0" * 60_000 + b".",
    "a dictionary made over and over": lambda: (
        b"\x80\x02}(" + PAIRS + b"uq\x00ccollections\nOrderedDict\nq\x01" + CALLS),
    "bytes made over and over": lambda: (
        b"\x80\x02" + text(b"x" * 1_000_000) + b"q\x00c_codecs\nencode\nq\x01" + CALLS),
    "a network made over and over": lambda: (
        b"\x80\x02}(" + text(b"state") + b"}(" + PAIRS + b"uuq\x00"
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\nq\x01" + CALLS),
    "networks of the same networks": networks_of_networks,
    "a key of tuples in tuples": lambda: (
        b"\x80\x02})" + keep(0) + b"".join(kept(i) * 2 + b"\x86" + keep(i + 1) for i in range(60)) + b"Ns."),
    "a doubled key": lambda: b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "a long number": lambda: b"\x80\x02\x8b" + struct.pack("<i", 1000) + b"\x01" * 1000 + b".",
    "a place of the memo": lambda: b"\x80\x02}r\xff\xff\xff\xff.",
    "deep lists": lambda: b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
    "a chain of lists": lambda: (
        b"\x80\x02" + b"".join(b"]" + keep(i) for i in range(400))
        + b"".join(kept(i) + kept(i + 1) + b"a" for i in range(399)) + kept(0) + b"."),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(refused, name, monkeypatch):
    """Without the bounds these hang, or take gigabytes."""
    monkeypatch.setattr("clcae_lib.weights._pickle.WORK", 100_000)
    bounds = "more work than 100,000|nested more than|instruction DUP|7993 bits|place 4294967295 of the memo"
    refused(BOMBS[name](), bounds)


def test_many_short_texts_are_read_at_once(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps([str(i) for i in range(100_000)], protocol=4))
    assert inspect_file(path)["kind"] == "unknown"


def test_names_do_not_add_up(refused):
    tree = {"b" * 400: torch.zeros(2)}
    for letter in "cde":
        tree = {letter * 400: tree}
    refused(saved(tree), "endless names", "weights.pt")


CONTENTS = {
    "empty": (b"", "is empty; fetch it again"),
    "text": (b"Hello, this is not a pickle.\nReally.\n", "is text instead of weights; fetch it again"),
    "page": (b"\n<!DOCTYPE html><html><title>Google Drive - Quota</title>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer.*git lfs pull"),
    "noise": (bytes(range(255, 0, -1)), "is text instead|is damaged|is not a weights file"),
    "frame": (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}", r"is damaged \(.*\); fetch it again"),
    "zip": (b"PK\x03\x04 and nothing more", r"is damaged \(.*\); fetch it again"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_weights_file(tmp_path, name):
    content, message = CONTENTS[name]
    for path in (tmp_path / "network.pt", tmp_path / "network.safetensors"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"network\.(pt ({message})|safetensors )"):
            inspect_file(path)
    with pytest.raises(FileNotFoundError, match=r"none\.pkl does not exist; give the path of a weights file"):
        inspect_file(tmp_path / "none.pkl")


def header(content, data=b""):
    written = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(written)) + written + data


SAFETENSORS = {
    "length": struct.pack("<Q", 1 << 60) + b"{}",
    "offsets": header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, b"1234"),
    "shape": header({"a": {"dtype": "F32", "shape": [1 << 31] * 2, "data_offsets": [0, 4]}}, b"1234"),
    "json": header(b"{" * 100_000),
    "metadata": header({"__metadata__": {"clcae": "[" * 100_000}}),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_with_a_false_header(tmp_path, name):
    path = tmp_path / "generator.safetensors"
    path.write_bytes(SAFETENSORS[name])
    with pytest.raises(WeightsError, match=r"generator\.safetensors is not a safetensors file or is damaged"):
        inspect_file(path)


@pytest.mark.parametrize("config", [{"size": 16384}, {"size": 32, "n_mlp": 10**9}, "x"])
def test_sizes_come_from_the_tensors_not_from_the_config(tmp_path, config):
    path = tmp_path / "generator.safetensors"
    metadata = {"clcae": json.dumps({"kind": "generator", "config": config})}
    save_file({"input.input": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(WeightsError, match=r"generator\.safetensors is this project's weights of kind"):
        load_generator(path)
    tensors = {name: tensor.clone() for name, tensor in tiny_generator().state_dict().items()}
    save_file(tensors, path, metadata=metadata)
    assert load_generator(path).size == 32


@pytest.mark.parametrize(("suffix", "save"), [(".safetensors", save_file), (".pt", torch.save)])
def test_weights_that_are_not_finite_or_not_floating_are_refused(tmp_path, suffix, save):
    tensors = {name: tensor.clone() for name, tensor in tiny_generator().state_dict().items()}
    weight, path = tensors["conv1.conv.weight"], tmp_path / f"generator{suffix}"
    for odd, message in (
        (weight * float("nan"), "not finite in conv1"),
        (weight.to(torch.int8), "integers .torch.int8. in conv1"),
    ):
        save(tensors | {"conv1.conv.weight": odd}, path)
        for ask in (load_generator, lambda p: convert_file(p, tmp_path / "out.safetensors")):
            with pytest.raises(WeightsError, match=rf"generator\{suffix} has .*{message}"):
                ask(path)


def psp(path):
    return PspInverter.load("portraits", path=path, generator=tiny_generator(), device="cpu")


@pytest.fixture(scope="module")
def own_files(tmp_path_factory):
    """Files whose config builds a network, by kind: the path, the metadata, and what loads it."""
    folder = tmp_path_factory.mktemp("own")
    images, codes, scale = parts_of().alignment
    oracle, encoder = JUDGES["oracle"](), PspEncoder(32, style_dim=8, widths=WIDTHS)
    inversion = FoundationEncoder(32, style_dim=8, feature_channels=6, widths=WIDTHS)
    published = PublishedEncoder(64, style_dim=8, feature_channels=6, widths=(4, 4, 6, 8, 8), units=(1,) * 4)
    made = {
        "oracle": (oracle, {"config": oracle.config}, partial(load_judge, kind="oracle")),
        "peer": (encoder, {"method": "psp", "config": encoder.config}, psp),
        "inversion": (
            inversion,
            {"preset": "foundation", "config": inversion.config},
            lambda path: load_encoder(path, tiny_generator()),
        ),
        "published": (
            published,
            {"kind": "inversion", "preset": "published", "config": published.config},
            lambda path: load_encoder(path, tiny_generator(64)),
        ),
    }
    path = save_alignment(folder / "alignment.safetensors", images, codes, scale=scale, metadata={})
    files = {"alignment": (path, read_metadata(path), load_alignment)}
    for kind, (network, details, load) in made.items():
        path, metadata = folder / f"{kind}.safetensors", {"kind": kind, **details}
        save_weights(path, network.state_dict(), metadata=metadata)
        files[kind] = path, metadata, load
    return files


def changed(metadata):
    """Metadata that no network was saved with: a value is missing, huge, or of another type."""
    for name in metadata:
        yield {key: value for key, value in metadata.items() if key != name}
        for value in (None, "x", 10**30, float("nan"), [4] * 10_000):
            yield metadata | {name: value}
        if isinstance(metadata[name], dict):
            yield from (metadata | {name: inner} for inner in changed(metadata[name]))


def refusal(load, path):
    """The message with which a file is refused, without the file's name; none if it loads."""
    try:
        load(path)
    except WeightsError as error:
        return str(error).removeprefix(str(path))
    return ""


@pytest.mark.parametrize("kind", ["oracle", "peer", "inversion", "published", "alignment"])
def test_a_config_of_any_shape_is_refused_in_one_sentence(own_files, kind):
    path, metadata, load = own_files[kind]
    tensors, messages = load_file(path), []
    assert not refusal(load, path)
    for wrong in changed(metadata):
        save_file(tensors, path, metadata={"clcae": json.dumps(wrong)})
        messages.append(refusal(load, path))  # a value that no layer depends on may be any
        assert "\n" not in messages[-1]
        assert len(messages[-1]) < 1000
    assert sum(map(bool, messages)) > len(messages) / 2
    assert any("many more layers" in message for message in messages)


def test_arrays_with_a_false_header_or_objects(tmp_path, marker):
    path = tmp_path / "direction.npy"
    shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1099511627776), }".ljust(117) + b"\n"
    program = pickle.dumps(Reduce(os.system, f"touch {marker}"))
    for head, data in ((shape, bytes(16)), (shape.replace(b"<f4", b"|O "), program)):
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data)
        with pytest.raises(WeightsError, match=r"direction\.npy is damaged"):
            inspect_file(path)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    write_snapshot(folder / "a.pkl", small_tensors(size=8), protocol=4)
    write_snapshot(folder / "b.pkl", small_tensors(size=8), protocol=2)
    state = {"g_ema": {"a": torch.randn(3, 4), "b": torch.arange(5)}, "opts": argparse.Namespace(x=1)}
    for name, archive in (("c.pt", True), ("d.pt", False)):
        (folder / name).write_bytes(saved(state, archive=archive))
    return sorted(folder.iterdir())


def read(path):
    return [tensor.double().sum() for tensor in read_weights(path).tensors.values()]


def test_cuts_and_random_damage_are_read_or_refused_and_never_anything_else(tmp_path, good_files):
    draw = random.Random(0)
    for good in good_files:
        content, path = good.read_bytes(), tmp_path / good.name
        for end in range(1, len(content), max(1, len(content) // 12)):
            path.write_bytes(content[:end])
            with pytest.raises(WeightsError, match=f"{good.name} "):
                read(path)
        for _ in range(25):
            broken = bytearray(content)
            for _ in range(draw.randint(1, 4)):
                broken[draw.randrange(len(broken))] = draw.randrange(256)
            path.write_bytes(broken)
            try:
                read(path)
            except WeightsError as error:
                assert good.name in str(error)  # noqa: PT017 (either outcome is right)


HEARD: list[str] = []
LISTENING = [False]
# Not "compile" and "exec", which checks of shapes use; a source of a snapshot would raise SystemExit.
ACTIONS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "import")


def _hear(event, arguments):
    if LISTENING[0] and event.startswith(ACTIONS):
        HEARD.append(f"{event} {arguments[0]!r}")


@pytest.fixture(scope="module")
def audit():
    """A function that returns what the interpreter was asked to import or run during a call."""
    sys.addaudithook(_hear)  # it cannot be removed; it listens during the call only

    def heard(function):
        HEARD.clear()
        LISTENING[0] = True
        try:
            function()
        finally:
            LISTENING[0] = False
        return list(HEARD)

    return heard


def test_the_interpreter_is_never_asked_to_import_or_run_anything(tmp_path, audit, good_files, marker):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Reduce(os.system, f"touch {marker}")))
    assert any("os.system" in event for event in audit(lambda: pickle.loads(path.read_bytes())))
    marker.unlink()

    def ask(file):
        try:
            read(file)
        except UnsafeFileError:
            assert file == path

    for file in (*good_files, path):
        ask(file)  # what the reader itself imports late
        assert audit(lambda file=file: ask(file)) == []


def test_an_archive_of_arrays_that_lies_or_holds_objects_is_refused(tmp_path, marker):
    path = tmp_path / "d.npz"

    def refused(match, name="age.npy", content=b""):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(name, content)
            packed.writestr("more.npy", array(np.zeros(4)))
        with pytest.raises(WeightsError, match=match):
            inspect_file(path)

    def array(content, **options):
        file = io.BytesIO()
        np.save(file, content, **options)
        return file.getvalue()

    refused("claim far more bytes than the file has", content=bytes(200 << 20))
    refused("damaged", content=array(np.array([Reduce(os.system, f"touch {marker}")]), allow_pickle=True))
    refused("damaged", content=array(np.zeros(4))[:-20])
    refused("damaged", content=array(np.zeros(4)).replace(b"(4,)", b"(4000000000000,)")[:160])
    refused("does not hold numbers", content=array(np.array(["text"])))
