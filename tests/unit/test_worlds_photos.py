"""Worlds of photographs: added, listed, split, cut, and refused with the remedy."""

import io
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.files import sha256
from clcae_lib.images import to_uint8
from clcae_lib.inversion import ClcaeInverter
from clcae_lib.photos import Landmarks, read_folder, save_landmarks, split_of
from clcae_lib.weights import save_generator
from clcae_lib.worlds import WorldError, add_world, get_world, remove_world, world_names
from tests.unit._tiny import tiny_generator
from tests.unit.test_photos_alignment import portrait


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Data and cache of their own."""
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@cache
def drawn(number):
    return portrait(96, yaw=number - 12.0)


@pytest.fixture
def album(tmp_path):
    """24 photographs with landmarks, one without, one broken, a text; and a generator's file."""
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(24):
        render, landmarks = drawn(number)
        image = Image.fromarray(to_uint8(render).permute(1, 2, 0).numpy())
        image.save(folder / f"p{number:02}.jpg", quality=95)
        save_landmarks(folder / f"p{number:02}.jpg", [landmarks], size=image.size)
    Image.new("RGB", (64, 64)).save(folder / "unmarked.png")
    (folder / "broken.jpg").write_bytes((folder / "p00.jpg").read_bytes()[:600])
    (folder / "notes.txt").write_text("nothing")
    save_generator(tmp_path / "g.safetensors", tiny_generator(32), {})
    return folder


def make(album, name="own", **options):
    return add_world(name, images=album, generator=album.parent / "g.safetensors", **options)


def test_a_world_of_ones_own(album):
    world = make(album)
    assert "own" in world_names()
    assert get_world("own").resolution == world.resolution == 32
    counts = {name: len(files) for name, files in world.split_files.items()}
    assert sum(counts.values()) == 24
    images = world.images("train")
    batch = images.images(range(len(images)))
    assert batch.shape == (counts["train"], 3, 32, 32)
    assert batch.min() >= -1
    assert batch.max() <= 1
    assert world.generator().size == 32
    with pytest.raises(IndexError, match=r"indices: 0 to 99 were requested, but 'own' has \d+ photographs"):
        images.images(range(100))


def test_splits_go_by_content(album):
    world = make(album)
    first = {path.name: split for split, files in world.split_files.items() for path in files}
    (album / "p00.jpg").rename(album / "renamed.jpg")
    (album / "p00.landmarks.json").rename(album / "renamed.landmarks.json")
    again = {path.name: split for split, files in get_world("own").split_files.items() for path in files}
    assert again.pop("renamed.jpg") == first.pop("p00.jpg")
    assert again == first


def test_a_small_album_leaves_no_split_empty(album, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    chosen = [path for path in sorted(album.glob("p*.jpg")) if split_of(sha256(path)) == "train"][:5]
    for path in chosen:
        shutil.copy(path, few)
        shutil.copy(path.with_name(f"{path.stem}.landmarks.json"), few)
    found = make(few, "few").split_files
    assert {name: len(files) for name, files in found.items()} == {"train": 3, "validation": 1, "test": 1}
    assert len({path for files in found.values() for path in files}) == 5


def test_lists_of_names_in_place_of_shares(album):
    make(album)
    folder = get_world("own").folder
    (folder / "a.txt").write_text("p03.jpg\np01.jpg\n")
    (folder / "b.txt").write_text("p02.jpg\n")
    settings = yaml.safe_load((folder / "world.yaml").read_text())
    settings["lists"] = {"train": "a.txt", "test": "b.txt"}
    (folder / "world.yaml").write_text(yaml.safe_dump(settings))
    world = get_world("own")
    assert [path.name for path in world.split_files["train"]] == ["p03.jpg", "p01.jpg"]
    with pytest.raises(WorldError, match="'validation'"):
        world.images("validation")
    (folder / "b.txt").write_text("p03.jpg\n")
    with pytest.raises(WorldError, match="must be disjoint"):
        get_world("own").images("train")
    (folder / "b.txt").write_text("../p03.jpg\n")
    with pytest.raises(WorldError, match="not a usable photograph"):
        get_world("own").images("train")


@pytest.fixture
def reads(monkeypatch):
    """How many bytes were read of each file, by name, through `Path.open`."""
    counts = Counter()

    class Counting(io.BufferedReader):
        def read(self, size=-1):
            data = super().read(size)
            counts[Path(self.name).name] += len(data)
            return data

    def counting(path, mode="r", *args, **options):
        if mode == "rb":
            return Counting(io.FileIO(path))
        return open(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", counting)
    return counts


@pytest.mark.parametrize(
    "options", [{}, {"already_aligned": True}, {"kind": "other"}], ids=["face", "middle", "other"]
)
def test_photographs_are_read_once_and_then_only_their_crops(album, reads, options):
    """Opening the world again, and an epoch of training, open no photograph that could be used."""
    world = make(album, **options)
    images = world.images("train")
    first = images.images(range(len(images)))
    used = {path.name for files in world.split_files.values() for path in files}
    sizes = {name: (album / name).stat().st_size for name in used}
    assert all(sizes[name] <= reads[name] <= sizes[name] + 3 * 4096 for name in used), "its header, then once"
    reads.clear()
    again = get_world("own").images("train")
    assert torch.equal(again.images(range(len(again))), first)
    assert not used.intersection(reads)


def test_a_header_is_all_that_is_read_to_list_a_folder(tmp_path, reads):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for suffix, options in {"png": {}, "jpg": {"quality": 95}, "webp": {"lossless": True}}.items():
        Image.fromarray(noise).save(tmp_path / f"a.{suffix}", **options)
    good, refused = read_folder(tmp_path, decode=False)
    assert (len(good), refused) == (3, [])
    for path in good:
        assert 0 < reads[path.name] <= 65_536 < path.stat().st_size


def test_a_replaced_photograph_is_noticed_in_the_same_process(album):
    world = make(album)
    path, other = world.split_files["train"][:2]
    images = world.images("train")
    first = images.images([0])
    key = world.cutter.key(path)
    path.write_bytes(other.read_bytes())
    assert not torch.equal(images.images([0]), first)
    assert world.cutter.key(path) != key
    assert world.cutter.digest(path) == sha256(other)
    key = world.cutter.key(other)
    save_landmarks(other, [Landmarks(drawn(0)[1].points + 9)], size=(96, 96))
    assert get_world("own").cutter.key(other) != key


def test_a_damaged_crop_is_made_again(album, reads):
    world = make(album)
    first = world.images("train").images([0, 1])
    path = world.split_files["train"][0]
    world.cutter.file(path).write_bytes(b"broken")
    reads.clear()
    again = get_world("own")
    assert torch.equal(again.images("train").images([0, 1]), first)
    assert path.name in reads
    assert again.split_files["train"][1].name not in reads


def test_each_refusal_names_its_file(album):
    size = (96, 96)
    for name, points in {"p00": torch.ones(5, 2), "p01": drawn(1)[1].points + 500}.items():
        save_landmarks(album / f"{name}.jpg", [Landmarks(points)], size=size)
    (album / "p02.landmarks.json").write_text("{}")
    reasons = {refusal.path.name: refusal.reason for refusal in make(album).refused}
    assert set(reasons) == {"p00.jpg", "p01.jpg", "p02.jpg", "broken.jpg", "unmarked.png", "notes.txt"}
    assert "damaged" in reasons["broken.jpg"]
    assert "unmarked.landmarks.json" in reasons["unmarked.png"]
    assert "p00.jpg: landmarks: eyes and mouth are less than a pixel apart" in reasons["p00.jpg"]
    assert "p01.jpg: landmarks: the face is outside the image" in reasons["p01.jpg"]
    assert "p02.landmarks.json" in reasons["p02.jpg"]


def test_one_file_of_landmarks_is_not_taken_for_two_photographs(album):
    shutil.copy(album / "p01.jpg", album / "p00.png")
    reasons = {refusal.path.name: refusal.reason for refusal in make(album).refused}
    for name in ("p00.jpg", "p00.png"):
        said = f"p00.landmarks.json may belong to {name} and .*such as {name}.landmarks.json"
        assert re.search(said, reasons[name])
    for number, name in enumerate(("p00.jpg", "p00.png")):
        save_landmarks(album / name, [drawn(number)[1]], size=(96, 96))
        assert (album / f"{name}.landmarks.json").is_file()
    world = get_world("own")
    assert not {"p00.jpg", "p00.png"}.intersection(refusal.path.name for refusal in world.refused)
    assert world.cutter.key(album / "p00.png") != world.cutter.key(album / "p00.jpg")


@pytest.mark.parametrize("name", ["../evil", "", "Portraits", "con", ".hidden", "networks", "x" * 41])
def test_names_that_could_leave_the_data_folder_or_take_anothers_place(album, name):
    with pytest.raises(WorldError, match="cannot be a world's name"):
        make(album, name)
    with pytest.raises(WorldError, match="cannot be a world's name"):
        remove_world(name, weights=True)


def test_wrong_requests(album):
    with pytest.raises(WorldError, match="not a folder"):
        add_world("own", images=album / "none", generator=album / "g")
    with pytest.raises(WorldError, match="--generator"):
        add_world("own", images=album)
    with pytest.raises(WorldError, match=r"notes\.txt"):
        add_world("own", images=album, generator=album / "notes.txt")
    with pytest.raises(WorldError, match="32 pixels, not --resolution 64"):
        make(album, resolution=64)
    with pytest.raises(WorldError, match="kind"):
        make(album, kind="birds")
    assert "own" not in world_names()
    make(album)
    with pytest.raises(WorldError, match="--replace"):
        make(album)
    cut = make(album, replace=True, already_aligned=True)
    assert {refusal.path.name for refusal in cut.refused} == {"broken.jpg", "notes.txt"}


@pytest.mark.parametrize(
    "text",
    ["", "resolution: 33", "resolution: [", "resolution: 64\ngenerator: ../g.pt"]
    + [f'resolution: 64\nimages: "a{end}"' for end in ("\\0", "\\n", "\\ud800")],
)
def test_a_damaged_settings_file_is_named(album, text):
    folder = make(album).folder
    (folder / "world.yaml").write_text(text)
    with pytest.raises(WorldError, match=r"own.world\.yaml"):
        get_world("own")


@pytest.mark.parametrize("name", ["ffhq", "cars"])
def test_built_in_worlds_say_what_they_lack(name):
    world = get_world(name)
    for ask in (
        lambda: world.images("train"),
        world.generator,
        lambda: world.identity("train"),
        lambda: world.perceptual("train"),
        lambda: world.oracle("train"),
    ):
        with pytest.raises(WorldError, match=r"clcae (fetch|world add)|portraits"):
            ask()


def test_cars_are_cut_to_four_by_three_with_black_rows(tmp_path, reads):
    folder = tmp_path / "cars"
    folder.mkdir()
    pixels = np.full((600, 1000, 3), 200, np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    world = add_world("cars", images=folder)
    crop = world.cutter.crop(folder / "a.png")[None]
    assert crop.shape == (1, 3, 512, 512)
    assert (crop[:, :, :64] == -1).all()
    assert (crop[:, :, -64:] == -1).all()
    assert (crop[:, :, 64:448] > 0.5).all()
    seen = world.view(crop)
    assert seen.shape == (1, 3, 192, 256)
    assert (seen > 0.5).all()
    shown = world.published_view(crop)  # no black of the rows beyond the edge is mixed in
    assert shown.shape == seen.shape
    assert (shown == crop[0, 0, 256, 256]).all()
    assert [path.name for path in world.split_files["train"]] == ["a.png"]
    reads.clear()
    assert torch.equal(get_world("cars").images("train").images([0]), crop)
    assert not reads, "the crop that is kept has the black rows"


def test_a_missing_encoder_names_the_preset_that_is_here(tmp_path):
    """After `clcae fetch ffhq` there is only the published encoder."""
    world = get_world("ffhq")
    world.folder.mkdir(parents=True)
    with pytest.raises(
        WorldError, match=r"the folder that has it, or use a method without an encoder: `clcae invert"
    ):
        ClcaeInverter.load(world, "foundation", "cpu")
    (world.folder / "clcae.pt").touch()
    with pytest.raises(WorldError, match=r"or use preset=published, which is here$"):
        ClcaeInverter.load(world, "foundation", "cpu")
    (world.folder / "clcae.pt").rename(world.folder / "inversion_foundation.safetensors")
    with pytest.raises(WorldError, match=r"or use preset=foundation, which is here$"):
        ClcaeInverter.load(world, "published", "cpu")


def test_the_commands(album):
    run = CliRunner().invoke
    generator = str(album.parent / "g.safetensors")
    done = run(app, ["world", "add", "own", "--images", str(album), "--generator", generator])
    assert done.exit_code == 0, done.output
    assert "not used" in done.output
    assert "broken.jpg" in done.output
    assert "own" in run(app, ["world", "list"]).output
    assert run(app, ["world", "check", "own"]).exit_code == 0
    refused = run(app, ["world", "add", "../x", "--images", str(album), "--generator", generator])
    assert refused.exit_code == 2
    assert "cannot be a world's name" in refused.output
    assert run(app, ["world", "remove", "own"]).exit_code == 0
    assert "own" not in world_names()
    assert (album / "p00.jpg").is_file()
    assert run(app, ["world", "remove", "own"]).exit_code == 2


def test_a_folder_without_photographs_is_refused_and_folders_within_are_named(album, tmp_path):
    """`world add` writes no world of nothing, and says what to do."""
    run, generator = CliRunner().invoke, str(tmp_path / "g.safetensors")
    outer = tmp_path / "outer"
    outer.mkdir()
    command = ["world", "add", "own", "--images", str(outer), "--generator", generator]
    empty = run(app, command)
    assert empty.exit_code == 2
    assert re.search(r"has no photograph that can be used:\sit is empty", empty.output)
    album.rename(outer / "2019")
    nested = run(app, command)
    assert nested.exit_code == 2
    assert re.search(r"photographs are in its subfolders, such as \S*2019: (.|\s)*--recursive", nested.output)
    assert "own" not in world_names()
    done = run(app, [*command, "--recursive"])
    assert done.exit_code == 0, done.output
    assert "photographs: train" in done.output


def test_a_world_whose_photographs_all_fail_ends_with_status_1(album, tmp_path, monkeypatch):
    monkeypatch.setattr("clcae_lib.photos.detection.has_detector", lambda: False)
    for path in album.glob("*.landmarks.json"):
        path.unlink()
    run, generator = CliRunner().invoke, str(tmp_path / "g.safetensors")
    done = run(app, ["world", "add", "own", "--images", str(album), "--generator", generator])
    assert done.exit_code == 1
    assert "photographs: train 0, validation 0, test 0" in done.output
    assert "p00.jpg: no landmarks file, and no face detector installed" in done.output
    assert "error: no photograph of 'own' can be used" in done.output
    assert run(app, ["world", "check", "own"]).exit_code == 1


def test_which_of_several_faces_is_cut_is_a_setting(album, tmp_path):
    """Two faces in one photograph: a small one on the left, a large one on the right."""
    both, faces = Image.new("RGB", (160, 96)), []
    for number, (side, left) in enumerate(((48, 0), (96, 64))):
        render, landmarks = drawn(number)
        face = Image.fromarray(to_uint8(render).permute(1, 2, 0).numpy()).resize((side, side))
        both.paste(face, (left, 0))
        faces.append(Landmarks(landmarks.points * side / 96 + torch.tensor([left, 0])))
    folder = tmp_path / "two"
    folder.mkdir()
    both.save(folder / "both.png")
    save_landmarks(folder / "both.png", faces, size=both.size)
    (tmp_path / "g.safetensors").rename(folder.parent / "g.safetensors")
    centres = {}
    for face in (None, "largest", "middle", 1, 2):
        world = make(folder, "two", face=face, replace=True)
        centres[face] = float(get_world("two").find_crop(folder / "both.png", both).quad[:, 0].mean())
        assert world.images("train").images([0]).shape == (1, 3, 32, 32)
    assert centres[1] < 60 < 90 < centres[2]
    assert centres[None] == centres["largest"] == centres["middle"] == centres[2]
    make(folder, "two", face="3", replace=True)
    assert "both.png: landmarks: face 3 was requested, but 2 are known" in get_world("two").refused[0].reason
    assert "write those of every face into a " in get_world("two").refused[0].reason
    for wrong in ("left", "0", "-1", "1.5"):
        with pytest.raises(WorldError, match=f"^world two: face: give largest, middle, or .* not '{wrong}'$"):
            make(folder, "two", face=wrong, replace=True)


def test_the_list_says_what_a_world_lacks(album):
    def line():
        printed = CliRunner().invoke(app, ["world", "list"]).output.split("\n")
        (found,) = [text for text in printed if text.startswith("own")]
        return found

    make(album)
    assert "it lacks" not in line()
    assert line().endswith("it has no encoder, so use `--method optimisation_w_plus`")
    for encoder in ("clcae.pt", "inversion_foundation.safetensors"):
        (album.parent / "data" / "own" / encoder).touch()
        assert "encoder" not in line()
        (album.parent / "data" / "own" / encoder).unlink()
    (album.parent / "data" / "own" / "generator.safetensors").unlink()
    album.rename(album.parent / "moved")
    assert re.search(r"it lacks its photographs \(.*album\) and a generator", line())


def test_the_list_goes_on_after_a_world_whose_places_cannot_be(album):
    folder = make(album).folder
    for key, value in {"images": "~nosuchuser/x", "generator": "a" * 5000}.items():
        (folder / "world.yaml").write_text(f"{key}: {value}\nresolution: 64\n")
        listed = CliRunner().invoke(app, ["world", "list"])
        assert listed.exit_code == 0, listed.exception
        assert "it lacks" in listed.output.partition("\nown")[2]
        assert "portraits" in listed.output
        checked = CliRunner().invoke(app, ["world", "check", "own"])
        assert checked.exit_code in (0, 2), checked.exception
