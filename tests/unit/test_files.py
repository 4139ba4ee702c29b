"""Files appear whole or not at all."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from clcae_lib.files import atomic_path
from clcae_lib.images import load_image, save_image, to_uint8


def test_atomic_path_renames_on_success_and_makes_folders(tmp_path):
    target = tmp_path / "new" / "folder" / "numbers.csv"
    with atomic_path(target) as partial:
        assert partial.parent == target.parent
        assert partial.suffix == ".csv"
        partial.write_text("1,2")
        assert not target.exists()
    assert target.read_text() == "1,2"
    assert list(target.parent.iterdir()) == [target]
    (tmp_path / "plain").write_text("x")
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode, "the usual permissions"


def test_interrupted_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_text("good")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as partial:
        _write_half(partial)
    assert target.read_text() == "good"
    assert list(tmp_path.iterdir()) == [target]


def _write_half(path) -> None:
    path.write_text("ha")
    raise KeyboardInterrupt


def test_writing_nothing_is_an_error(tmp_path):
    target = tmp_path / "weights.bin"
    with pytest.raises(FileNotFoundError, match=r"weights\.bin"), atomic_path(target):
        pass
    assert not list(tmp_path.iterdir())


def test_bytes_are_rounded_and_clamped():
    values = torch.tensor([-2.0, -1.0, -1.0 + 1.6 / 127.5, 0.0, 1.0, 3.0])
    assert to_uint8(values.expand(1, 3, 1, -1))[0, 0, 0].tolist() == [0, 0, 2, 128, 255, 255]


def test_a_saved_image_is_read_back_but_for_rounding(tmp_path):
    image = torch.rand(3, 5, 7) * 2 - 1
    path = save_image(tmp_path / "image.png", image)
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy())
    for back in (pixels.permute(2, 0, 1) / 127.5 - 1, load_image(path)):
        assert back.shape == image.shape
        assert (back - image).abs().max() <= 0.5 / 127.5 + 1e-6


def test_save_image_refuses_a_batch(tmp_path):
    with pytest.raises(ValueError, match=r"image\.png: save_image takes one image"):
        inspect.unwrap(save_image)(tmp_path / "image.png", torch.zeros(2, 3, 4, 4))
