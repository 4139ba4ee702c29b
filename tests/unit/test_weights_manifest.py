"""The manifest says only what was published, and a wrong entry is named."""

import pytest
import yaml

from clcae_lib.weights.fetch import Fetcher
from clcae_lib.weights.manifest import AssetError, read_manifest
from clcae_lib.worlds import find_alexnet

ENTRY = {"about": "weights", "address": "drive:1234567890abcdefghij", "place": "world/weights.pt"}
ENTRY |= {"licence": "MIT", "size": "unknown", "sha256": "unknown"}

# As the official README prints them.
PUBLISHED = {
    "ffhq-inversion": "drive:1gCsF8mHxjhExswCchz7UpXfe-NvAhIm9",
    "cars-inversion": "drive:1pd8M8CZoZWx_YkJzXTSJsCk-J41dtGmt",
    "ffhq-contrastive": "drive-folder:19Q75nlaZ8KVdUd6C9s2y6c1cKXuB90TS",
    "cars-contrastive": "drive-folder:1JzUJlBs_lRpOAU0gxDsftv4YQ1gqxXmg",
    "ffhq-generator": "drive:1EM87UquaoQmk17Q8d5kYIAHqu0dkYqdT",
    "cars-generator": "unknown",
    "ir-se50": "drive:1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn",
    "moco": "drive:18rLcNGdteX5LwT7sv_F7HWr12HpVEzVe",
    "curricularface": "drive:1f4IwVa2-Bn9vWLwB-bUwm53U_MlvinAj",
    "alexnet": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
}


def test_the_shipped_manifest_says_what_was_printed_and_invents_nothing(repository, tmp_path, monkeypatch):
    shipped = read_manifest(repository / "data" / "manifest.yaml")
    assert {name: asset.address for name, asset in shipped.assets.items()} == PUBLISHED
    assert all(asset.size == asset.sha256 == "unknown" for asset in shipped.assets.values())
    begins = {name: asset.sha256_begins for name, asset in shipped.assets.items() if asset.sha256_begins}
    assert begins == {"alexnet": "7be5be79"}
    unknown = {name for name, asset in shipped.assets.items() if asset.licence.startswith("unknown")}
    assert unknown == {"ffhq-generator", "cars-generator", "ir-se50", "moco", "curricularface"}
    assert {"ffhq", "cars", "lpips"} <= shipped.sets.keys()
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    alexnet = Fetcher(shipped, tmp_path).place("alexnet")
    alexnet.parent.mkdir()
    alexnet.write_bytes(b"")
    assert find_alexnet() == alexnet, "LPIPS looks for it there"


WRONG = {
    "colour": ["red"],
    "size": ["large", 1.5, 0, -1],
    "max_bytes": [0],
    "sha256": ["ABC", 12345678],
    "sha256_begins": ["xyz"],
    "licence": ["", None],
    "address": ["http://a.org/a", "https://user:secret@a.org/a", "file:///etc/passwd", "drive:../../x"],
    "place": [
        *("", "manifest.yaml", "portraits/a.pt", "Portraits/a.pt", "/etc/passwd", "../x", "a/../../x", "~/x"),
        *(
            "a//b",
            "./a",
            "a/",
            "a/b\0",
            "a/b\nc",
            "a/..\\x",
            "C:/x",
            "\\\\host\\x",
            "a/b:stream",
            "a/nul",
            "a/..",
        ),
        *("a/CON.txt", "lpt1/x", "a/x.", "a/x ", ".git/x", "a/-rf", "a/\u202egnp.exe", "a/" + "b" * 5000),
    ],
}


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_entry_is_named(tmp_path, entry):
    path = tmp_path / "manifest.yaml"
    for value in WRONG[entry]:
        path.write_text(yaml.safe_dump({"assets": {"weights": {**ENTRY, entry: value}}}))
        with pytest.raises(AssetError, match=rf"manifest\.yaml: .*assets\.weights\.{entry}"):
            read_manifest(path)


def test_a_wrong_manifest_is_refused(tmp_path):
    path, upper = tmp_path / "manifest.yaml", {**ENTRY, "place": "World/weights.pt"}
    for content, said in [
        ({"assets": {"a": ENTRY, "b": ENTRY}}, "several assets have the place world/weights.pt"),
        ({"assets": {"a": ENTRY, "b": upper}}, "several assets have the place"),
        ({"assets": {"a": ENTRY}, "sets": {"all": ["b"]}}, r"sets\.all: \['b'\] is not an asset"),
        ({"assets": {"a": ENTRY}, "sets": {"a": []}}, r"sets\.a"),
        ({"assets": {"../weights": ENTRY}}, r"assets\.\.\./weights"),
        ({"assets": {"a" * 5000: ENTRY}}, "assets.aaa"),
        ({"assets": {}, "extra": 1}, "extra"),
        ([], "must hold"),
        (None, "assets: Field required"),
    ]:
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(AssetError, match=said):
            read_manifest(path)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "manifest.yaml"
    for content in (None, b"\xff{", b"{", b"a: !!timestamp 2001-99-99", b"a: " + b"9" * 5000, b"[" * 5000):
        if content is not None:
            path.write_bytes(content)
        said = r"manifest\.yaml(:|, line 1).*(cannot be read|is not|nested too deeply)"
        with pytest.raises(AssetError, match=said):
            read_manifest(path)
