"""Photographs as they come, and the commands as people give them: used, or named with the remedy."""

import re

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.inversion import ClcaeInverter
from clcae_lib.photos import Landmarks, save_landmarks
from clcae_lib.photos.folder import list_files
from clcae_lib.weights import load_generator, save_generator
from clcae_lib.worlds import get_world
from tests.unit._tiny import save_encoder, tiny_generator
from tests.unit.test_worlds_photos import album, make, places  # noqa: F401 - fixtures


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def family(album):  # noqa: F811
    """A world of one's own with an untrained encoder; no detector of faces is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clcae_lib.photos.detection.has_detector", lambda: False)
        world = make(album, "family")
        save_encoder(world.weights("inversion_foundation"))
        yield world


LITTER = {  # row 35: files that stand among photographs, and what is said of each
    ".DS_Store": (b"\0\0\0\1Bud1", None),
    "._a.jpg": (b"\0\5\x16\7", None),
    "Thumbs.db": (b"\xd0\xcf", None),
    "empty.jpg": (b"", "empty"),
    "cut.jpg": (b"\xff\xd8\xff\xe0", "damaged or cut short"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(40), r"HEIC image; install its decoder|damaged"),
    "phone.avif": (b"\0\0\0\x18ftypavif" + bytes(40), "damaged"),
    "film.mov": (b"\0\0\0\x14ftypqt  " + bytes(40), "film"),
    "scan.tif": (b"II*\0" + bytes(40), "TIFF"),
    "old.bmp": (b"BM" + bytes(40), "BMP"),
    "move.gif": (b"GIF89a" + bytes(40), "GIF"),
}


def test_35_what_is_among_photographs_is_left_out_or_named(family, album):  # noqa: F811
    for name, (content, _) in LITTER.items():
        (album / name).write_bytes(content)
    done = call("world", "check", "family")
    assert done.exit_code == 0
    for name, (_, words) in LITTER.items():
        lines = [line for line in done.output.splitlines() if f"/{name}" in line]
        assert len(lines) == (words is not None), (name, lines)
        assert all(re.search(words, line) for line in lines)


def test_45_and_46_landmarks_and_results_are_no_photographs(family, album, tmp_path):  # noqa: F811
    for path in (album / "unmarked.png", album / "broken.jpg", album / "notes.txt"):
        path.unlink()
    command = ["invert", "--world", "family", "--preset", "foundation", "--device", "cpu", "--input", album]
    done = call(*command, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "24 inverted, 0 not" in done.output
    assert pd.read_csv(tmp_path / "out" / "measures.csv")["error"].isna().all()
    assert "name another one for the results" in call(*command, "--output", album / ".." / album.name).output
    results = call(*command[:-1], tmp_path / "out", "--output", tmp_path / "again")
    assert "it is empty, or has only results of `clcae invert`" in results.output
    call(*command, "--output", album / "out")
    assert [path.parent for path in list_files(album, recursive=True)[0]] == [album] * 24


def test_an_album_without_an_encoder_learns_of_the_methods_that_need_none(family, album, tmp_path):  # noqa: F811
    family.weights("inversion_foundation").unlink()
    for preset in ("foundation", "published"):
        command = ["invert", "--world", "family", "--preset", preset, "--device", "cpu", "--input", album]
        done = call(*command, "--output", tmp_path / "out")
        assert "without an encoder: `clcae invert --method optimisation_w_plus`" in done.output


def test_38_the_face_is_chosen_for_one_inversion(family, album, tmp_path):  # noqa: F811
    command = ["invert", "--world", "family", "--preset", "foundation", "--device", "cpu", "--input", album]
    done = call(*command, "--output", tmp_path / "out", "--face", "2")
    assert "face 2 was requested, but 1 are known" in done.output
    assert call(*command, "--output", tmp_path / "out", "--face", "both").exit_code == 2


def test_47_a_folder_of_folders_names_them(tmp_path, places):  # noqa: F811
    (tmp_path / "album" / "2024").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "album" / "2024" / "a.png")
    save_generator(tmp_path / "g.safetensors", tiny_generator(32), {})
    options = ["--images", tmp_path / "album", "--generator", tmp_path / "g.safetensors"]
    done = call("world", "add", "w", *options)
    assert done.exit_code == 2
    assert "add --recursive" in done.output


def test_43_a_replaced_photograph_is_inverted_again(family, album, tmp_path):  # noqa: F811
    command = ["invert", "--world", "family", "--preset", "foundation", "--device", "cpu", "--input", album]
    call(*command, "--output", tmp_path / "out")
    before = pd.read_csv(tmp_path / "out" / "measures.csv").set_index("file")["psnr"]
    Image.new("RGB", (96, 96), "teal").save(album / "p02.jpg")
    call(*command, "--output", tmp_path / "out")
    after = pd.read_csv(tmp_path / "out" / "measures.csv").set_index("file")["psnr"]
    assert list(before.index[before.round(6) != after.round(6)].dropna().intersection(["p02.jpg"])) == [
        "p02.jpg"
    ]
    assert before.drop("p02.jpg").equals(after.drop("p02.jpg"))


def test_65_train_all_of_a_world_of_ones_own_finds_it_and_says_what_to_fetch(family):
    done = call("train", "all", "--world", "family", "--show-config")
    assert done.exit_code == 2
    assert "`clcae fetch alexnet` downloads it" in done.output


def test_66_directions_of_a_world_without_factors_say_what_is_there_instead(family):
    done = call("directions", "--world", "family", "--device", "cpu")
    assert done.exit_code == 2
    assert "has no factors to name directions after" in done.output
    assert not family.weights("directions").exists()


def test_67_missing_published_weights_name_the_command_that_brings_them(album, tmp_path):  # noqa: F811
    done = call("invert", "--input", album, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "`clcae fetch ffhq` downloads it" in done.output


@torch.no_grad()
def test_two_faces_each_from_adding_to_exploring(tmp_path, places, album, monkeypatch):  # noqa: F811
    """A person's first minutes: three photographs of two faces, an untrained encoder, both faces inverted."""
    folder = tmp_path / "party"
    folder.mkdir()
    for number in range(3):
        both = Image.new("RGB", (192, 96))
        for face in (0, 1):
            both.paste(Image.open(album / f"p{2 * number + face:02}.jpg"), (96 * face, 0))
        marked = [
            Landmarks(points + torch.tensor([96.0 * face, 0]))
            for face, points in enumerate(_points(album, 2 * number + face) for face in (0, 1))
        ]
        both.save(folder / f"{number}.png")
        save_landmarks(folder / f"{number}.png", marked, size=both.size)
    generator = tmp_path / "g.safetensors"
    done = call("world", "add", "party", "--images", folder, "--generator", generator)
    assert done.exit_code == 0, done.output
    assert call("world", "check", "party").exit_code == 0
    world = get_world("party")
    save_encoder(world.weights("inversion_foundation"))
    images = {}
    for face in ("1", "2"):
        command = ["invert", "--world", "party", "--preset", "foundation", "--device", "cpu"]
        done = call(*command, "--input", folder, "--output", tmp_path / face, "--face", face)
        assert "3 inverted, 0 not" in done.output, done.output
        images[face] = Image.open(tmp_path / face / "0.png.f.png").tobytes()
    assert images["1"] != images["2"]
    inverter = ClcaeInverter.load(world, "foundation", "cpu", generator=load_generator(generator))
    assert inverter.invert(world.images("train").images([0])).feature is not None


def _points(folder, number):
    from clcae_lib.photos import load_landmarks

    return load_landmarks(folder / f"p{number:02}.jpg")[0].points
