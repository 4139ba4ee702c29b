"""The torchvision repair, on the installed build, each case in a process of its own."""

import subprocess
import sys

import pytest

USE = """
import warnings
import torch
from clcae_lib.vision_repair import ensure_torchvision
first = ensure_torchvision()
assert ensure_torchvision() is first
"""
LPIPS = """
import lpips
warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
distance = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
a, b = torch.rand(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
assert distance(a, b).shape == (2, 1, 1, 1)
assert distance(a, a).abs().max() < 1e-6 < distance(a, b).min()
"""
TORCHMETRICS = """
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchmetrics.image import PeakSignalNoiseRatio
assert PeakSignalNoiseRatio(data_range=1.0)(torch.zeros(4), torch.full((4,), 0.1)).round() == 20
"""
TRANSFORMS = """
from torchvision.transforms import v2
from torchvision.utils import make_grid
assert v2.Resize((8, 8))(torch.zeros(3, 16, 16)).shape == (3, 8, 8)
assert make_grid(torch.zeros(4, 3, 8, 8), nrow=2, padding=0).shape == (3, 16, 16)
"""
BROKEN_FIRST = """
for package in ("torchmetrics", "torchvision"):
    try:
        __import__(package)
    except RuntimeError as error:
        print(package, "failed:", error)
"""
DECLARE_LIKE_A_PROPER_BUILD = """
import torch
proper = torch.library.Library("torchvision", "DEF")
proper.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
proper.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def run(program: str) -> subprocess.CompletedProcess:
    """Run a program in a fresh interpreter with warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


PROPER = DECLARE_LIKE_A_PROPER_BUILD + USE + TRANSFORMS
DECLARED = "from clcae_lib import vision_repair\nassert vision_repair._declared == []"


@pytest.mark.parametrize(
    "program",
    [
        BROKEN_FIRST + USE + LPIPS + TORCHMETRICS + TRANSFORMS,
        PROPER + DECLARED,
    ],
    ids=["after a half import", "operators that are there are not declared again"],
)
def test_what_needs_torchvision_works_after_it(program):
    done = run(program)
    assert done.returncode == 0, done.stderr


def test_another_failure_is_reported_with_its_remedy():
    done = run(
        "import importlib\nfrom clcae_lib import vision_repair\n"
        "for error in (RuntimeError('undefined symbol: abc'), ModuleNotFoundError('no torchvision')):\n"
        "    def fail(name):\n        raise error\n"
        "    importlib.import_module = fail\n"
        "    try:\n        vision_repair.ensure_torchvision()\n"
        "    except ImportError as said:\n        print(said)\n"
    )
    assert done.returncode == 0, done.stderr
    broken, missing = done.stdout.splitlines()
    assert all(words in broken for words in ("undefined symbol: abc", "constraints.txt"))
    assert all(words in missing for words in ("not installed", "make install"))
