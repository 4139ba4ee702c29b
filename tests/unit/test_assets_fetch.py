"""The manifest says only what is known, and what it lists comes into `data/` or the person is told how."""

import hashlib
import multiprocessing
import os
import threading
import time

import pytest
import yaml
from typer.testing import CliRunner

from clcae_lib import cli
from clcae_lib.assets import AssetError, Fetcher, Manifest, Policy, asset_path, read_manifest, safe_place
from tests.unit._server import Server, dribble, raw, whole
from tests.unit.test_assets_download import PATIENCE

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DRIVE_ID = "1234567890abcdefghij"
ENTRY = {
    "about": "weights",
    "address": f"drive:{DRIVE_ID}",
    "place": "world/weights.pt",
    "licence": "MIT",
    "size": "unknown",
    "sha256": "unknown",
}

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


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def manifest(**changes):
    return Manifest.model_validate(
        {"assets": {"weights": {**ENTRY, **changes}}, "sets": {"all": ["weights"]}}
    )


def fetcher(data, *, drive="http://127.0.0.1:9/uc", said=None, **changes):
    policy = Policy(**PATIENCE, loopback=True, lock=5)
    tell = (lambda text: None) if said is None else said.append
    return Fetcher(manifest(**changes), data, policy=policy, drive=drive, tell=tell)


def test_the_shipped_manifest_says_what_was_printed_and_invents_nothing(repository):
    shipped = read_manifest(repository / "data" / "manifest.yaml")
    assert {name: asset.address for name, asset in shipped.assets.items()} == PUBLISHED
    assert all(asset.size == asset.sha256 == "unknown" for asset in shipped.assets.values())
    begins = {name: asset.sha256_begins for name, asset in shipped.assets.items() if asset.sha256_begins}
    assert begins == {"alexnet": "7be5be79"}
    unknown = {name for name, asset in shipped.assets.items() if asset.licence.startswith("unknown")}
    assert unknown == {"ffhq-generator", "cars-generator", "ir-se50", "moco", "curricularface"}
    assert {"ffhq", "cars", "lpips"} <= shipped.sets.keys()


def test_alexnet_comes_to_where_lpips_looks_for_it(repository, tmp_path, monkeypatch):
    from clcae_lib.worlds import find_alexnet

    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    place = Fetcher(read_manifest(repository / "data" / "manifest.yaml"), tmp_path).place("alexnet")
    place.parent.mkdir()
    place.write_bytes(b"")
    assert find_alexnet() == place


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "assets.weights.colour"),
        ({"size": "large"}, "assets.weights.size"),
        ({"size": 1.5}, "assets.weights.size"),
        ({"size": 2**40}, r"assets\.weights: .*max_bytes"),
        ({"max_bytes": 0}, "assets.weights.max_bytes"),
        ({"sha256": "ABC"}, "assets.weights.sha256: .*64 small hexadecimal digits"),
        ({"sha256": 12345678}, "assets.weights.sha256"),
        ({"sha256_begins": "xyz"}, "assets.weights.sha256_begins"),
        ({"sha256": "0" * 64, "sha256_begins": "0" * 8}, "no more is known"),
        ({"licence": ""}, "assets.weights.licence"),
        ({"licence": None}, "assets.weights.licence"),
        ({"address": "http://example.org/a"}, "assets.weights.address: .*https"),
        ({"address": "https://user:secret@example.org/a"}, "assets.weights.address"),
        ({"address": "file:///etc/passwd"}, "assets.weights.address"),
        ({"address": "drive:../../x"}, "assets.weights.address"),
        ({"place": "../evil.pt"}, "assets.weights.place: .*no place below data"),
        ({"place": "portraits/generator.safetensors"}, "assets.weights.place: .*repository"),
        ({"place": "manifest.yaml"}, "assets.weights.place: .*has a folder"),
    ],
    ids=range(18),
)
def test_a_wrong_entry_is_named(tmp_path, change, said):
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump({"assets": {"weights": {**ENTRY, **change}}}))
    with pytest.raises(AssetError, match=rf"manifest\.yaml: .*{said}"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"assets": {"weights": ENTRY, "again": ENTRY}}, "several assets have the place world/weights.pt"),
        ({"assets": {"weights": ENTRY}, "sets": {"all": ["wights"]}}, r"sets\.all: \['wights'\] is no asset"),
        ({"assets": {"weights": ENTRY}, "sets": {"weights": []}}, r"sets\.weights"),
        ({"assets": {"../weights": ENTRY}}, "small letters"),
        ({"assets": {}, "extra": 1}, "extra"),
        ([], "must hold `name: value` lines"),
        (None, "assets: Field required"),
    ],
    ids=range(7),
)
def test_a_wrong_manifest_is_refused(tmp_path, content, said):
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(AssetError, match=said):
        read_manifest(path)
    path.write_bytes(b"\xff{")
    with pytest.raises(AssetError, match="is not UTF-8 text"):
        read_manifest(path)
    with pytest.raises(AssetError, match="cannot be read"):
        read_manifest(tmp_path / "none.yaml")


HOSTILE = [
    *("", "/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "./a", "a/", "~/x", "a\0b", "a\nb", "..\\x"),
    *(
        "C:/x",
        "a\\b",
        "\\\\host\\x",
        "a/b:stream",
        "a/nul",
        "a/CON.txt",
        "lpt1",
        "a/x.",
        "a/x ",
        ".git/config",
    ),
    *("a/-rf", "a/\u202egnp.exe"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_data_folder(tmp_path, name):
    with pytest.raises(AssetError, match="is no place below data"):
        safe_place(tmp_path, name)


def test_no_link_leads_out_of_the_data_folder(tmp_path, server):
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir()
    outside.mkdir()
    (data / "world").symlink_to(outside)
    drive = server.serve("/uc", whole(CONTENT))
    with pytest.raises(AssetError, match="behind a link out of"):
        fetcher(data, drive=drive).fetch("weights")
    with pytest.raises(AssetError, match="behind a link out of"):
        safe_place(data, "world/deep/x")
    assert list(outside.iterdir()) == []
    assert server.requests == []


def test_a_data_folder_that_is_a_link_itself_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "real")
    assert safe_place(tmp_path / "data", "a/b") == (tmp_path / "real").resolve() / "a" / "b"


def test_the_first_digest_is_recorded_with_a_warning_and_kept(tmp_path, server):
    said = []
    drive = server.serve("/uc", whole(CONTENT), whole(CONTENT[::-1]))
    fetch = fetcher(tmp_path, drive=drive, said=said)
    path, fetched = fetch.fetch("weights")
    assert fetched
    assert path.read_bytes() == CONTENT
    assert "nobody published its sha256" in said[0]
    assert DIGEST in said[0]
    assert fetch.fetch("weights") == (path, False)
    assert len(said) == 1
    path.unlink()
    with pytest.raises(AssetError, match=f"not {DIGEST}") as caught:
        fetch.fetch("weights")
    assert "remove 'weights' from" in str(caught.value)
    assert not path.exists()


def test_a_file_put_there_by_hand_is_recorded_and_watched(tmp_path):
    path = tmp_path / "world" / "weights.pt"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    with pytest.warns(UserWarning, match="is recorded"):
        assert Fetcher(manifest(), tmp_path).fetch("weights") == (path, False)
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(
        AssetError, match=f"weights.pt is not weights: its sha256 is .*, not {DIGEST}. Move it away"
    ):
        fetcher(tmp_path).fetch("weights")
    assert path.read_bytes() == CONTENT[::-1], "what a person put there is not deleted"


def test_a_known_digest_needs_no_record(tmp_path, server):
    said = []
    drive = server.serve("/uc", whole(CONTENT))
    fetcher(tmp_path, drive=drive, said=said, sha256=DIGEST, size=len(CONTENT)).fetch("weights")
    assert said == []
    assert not (tmp_path / "digests.json").exists()


def test_a_wrong_digest_names_the_place_and_leaves_it_empty(tmp_path, server):
    drive = server.serve("/uc", whole(CONTENT[::-1]))
    with pytest.raises(
        AssetError, match=f"By hand: open https://drive.google.com/open.id={DRIVE_ID}"
    ) as caught:
        fetcher(tmp_path, drive=drive, sha256=DIGEST).fetch("weights")
    assert f"put the file at {tmp_path / 'world' / 'weights.pt'}" in str(caught.value)
    assert not (tmp_path / "world" / "weights.pt").exists()


def test_a_damaged_record_is_told(tmp_path, server):
    (tmp_path / "digests.json").write_text("{")
    with pytest.raises(AssetError, match=r"digests\.json is damaged: delete it"):
        fetcher(tmp_path, drive=server.serve("/uc", whole(CONTENT))).fetch("weights")


def test_without_a_network_the_place_is_told(tmp_path):
    with pytest.raises(AssetError) as caught:
        fetcher(tmp_path, sha256=DIGEST).fetch("weights")
    said = str(caught.value)
    assert said.startswith("weights: no connection to 127.0.0.1")
    for part in (
        DRIVE_ID,
        str(tmp_path / "world" / "weights.pt"),
        DIGEST,
        "size unknown",
        "clcae fetch weights",
    ):
        assert part in said


def test_what_no_program_can_fetch_is_told_and_taken_when_it_is_there(tmp_path):
    folder = fetcher(tmp_path, address=f"drive-folder:{DRIVE_ID}", place="world/pair")
    (tmp_path / "world" / "pair").mkdir(parents=True)
    with pytest.raises(AssetError, match=r"open\?id=.* put the folder's files into .*world/pair "):
        folder.fetch("weights")
    (tmp_path / "world" / "pair" / "a.pt").write_bytes(CONTENT)
    assert folder.fetch("weights") == (tmp_path / "world" / "pair", False)

    unknown = fetcher(tmp_path, address="unknown", note="its address is unknown")
    with pytest.raises(AssetError, match=r"its address is unknown\. By hand: get it from its authors"):
        unknown.fetch("weights")
    (tmp_path / "world" / "weights.pt").write_bytes(CONTENT)
    assert unknown.fetch("weights") == (tmp_path / "world" / "weights.pt", False)


def test_a_folder_where_a_file_belongs_is_told(tmp_path):
    (tmp_path / "world" / "weights.pt").mkdir(parents=True)
    with pytest.raises(AssetError, match="is a folder where a file belongs"):
        fetcher(tmp_path).fetch("weights")


def test_two_who_fetch_the_same_file_do_it_once(tmp_path, server):
    drive = server.serve("/uc", dribble(CONTENT, first=0, every=0.02, size=1024))
    said, found = [], []

    def fetch():
        found.append(fetcher(tmp_path, drive=drive, said=said).fetch("weights"))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(fetched for _, fetched in found) == [False, False, True]
    assert len(server.requests) == 1
    assert "weights: another process is fetching it; waiting" in said


def _hold(lock, ready):
    from filelock import FileLock

    with FileLock(lock):
        ready.set()
        time.sleep(30)


def test_another_process_is_waited_for_and_not_for_ever(tmp_path, server):
    (tmp_path / "world").mkdir()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "world" / ".weights.pt.lock"), ready))
    other.start()
    try:
        assert ready.wait(30)
        fetch = fetcher(tmp_path, drive=server.serve("/uc", whole(CONTENT)))
        fetch.policy = Policy(**PATIENCE, loopback=True, lock=0.2)
        with pytest.raises(AssetError, match="another process is still fetching it"):
            fetch.fetch("weights")
    finally:
        other.kill()
        other.join()
    assert fetch.fetch("weights")[1], "the lock ends with its process"


def test_nothing_of_a_fetch_is_committed(repository):
    lines = (repository / ".gitignore").read_text().splitlines()
    assert lines.index("/data/*") < lines.index("!/data/*.yaml")
    assert "!/data/portraits/" in lines
    kept = {line for line in lines if line.startswith("!/data/")}
    assert kept == {"!/data/README.md", "!/data/*.yaml", "!/data/portraits/"}


@pytest.fixture
def shipped(repository, tmp_path, monkeypatch):
    """An empty data folder beside the shipped manifest."""
    monkeypatch.setenv("CLCAE_ROOT", str(repository))
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def call(*arguments):
    return CliRunner().invoke(cli.app, ["fetch", *arguments])


def test_the_list_shows_every_asset_and_its_state(shipped):
    (shipped / "networks").mkdir(parents=True)
    (shipped / "networks" / "ir_se50.pth").write_bytes(CONTENT)
    result = call("--list")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    assert PUBLISHED.keys() <= lines.keys()
    states = {name: lines[name][len(f"{name:<20} ") :].split(" data/")[0].strip() for name in PUBLISHED}
    assert states["ir-se50"] == "here"
    assert states["moco"] == "to fetch"
    assert states["cars-generator"] == "by hand"


@pytest.mark.parametrize("names", [["fhq"], ["../../etc/passwd"], ["ffhq", "nonsense"], []])
def test_a_wrong_name_gives_status_2_and_one_line(shipped, names):
    result = call(*names)
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert not shipped.exists()


def test_what_is_missing_in_the_end_gives_status_1(shipped):
    result = call("cars-generator", "cars-contrastive")
    assert result.exit_code == 1
    assert f"put the file at {shipped / 'cars' / 'stylegan2.pt'}" in result.output
    assert PUBLISHED["cars-contrastive"].partition(":")[2] in result.output
    assert result.output.endswith("not there: cars-generator, cars-contrastive\n")


def test_a_set_is_fetched_and_the_rest_goes_on_after_a_failure(shipped, server, monkeypatch):
    drive = server.serve("/uc", raw(404), whole(CONTENT))
    policy = Policy(**PATIENCE, loopback=True)

    def local(manifest, data, **options):
        assets = {name: asset for name, asset in manifest.assets.items() if name in ("ir-se50", "moco")}
        return Fetcher(
            Manifest(assets=assets, sets={"both": [*assets]}), data, policy=policy, drive=drive, **options
        )

    monkeypatch.setattr("clcae_lib.assets.Fetcher", local)
    result = call("both")
    assert result.exit_code == 1
    assert result.output.endswith("not there: ir-se50\n")
    assert (shipped / "networks" / "moco_v2_resnet50.pt").read_bytes() == CONTENT
    assert call("moco").exit_code == 0
    with pytest.raises(AssetError, match="ir-se50 is not there: run `clcae fetch ir-se50`"):
        asset_path("ir-se50")
    assert asset_path("moco") == shipped.resolve() / "networks" / "moco_v2_resnet50.pt"
    os.truncate(asset_path("moco"), 10)
    with pytest.raises(AssetError, match="it has 10 bytes, not 10240"):
        asset_path("moco")
