"""Keys of the disk cache: each changes with whatever its results are made from, and with nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import clcae_lib
from clcae_lib import cache

KEYS = """
import json, sys, torch
from pathlib import Path
from clcae_lib import cache
from clcae_lib.editing.find import directions_file
from clcae_lib.inversion import NearestCodeInverter
from clcae_lib.models import Generator, LatentEncoder
from clcae_lib.photos.cutting import Cutter
from clcae_lib.training.body import BodyConfig, body_file
from clcae_lib.worlds import get_world

world = get_world("portraits")
torch.manual_seed(0)
generator, encoder = Generator(8, 8, 1, channels={4: 4, 8: 4}), LatentEncoder(8, embedding=8, width=8)

def keys():
    cache.program.cache_clear()
    return {
        "bodies": str(body_file(BodyConfig(), world)),
        "banks": str(NearestCodeInverter(generator, encoder, encoder, bank=10).bank_file),
        "directions": str(directions_file(world, ["yaw"], "sefa", {})),
        "renders": str(world.images("test", 1).folder),
        "crops": str(Cutter("own", 64).folder),
    }

found = {"": keys()}
for place, old, new in json.load(sys.stdin):
    path = Path(cache.__file__).parent / place
    text = path.read_text()
    assert old in text, place
    path.write_text(text.replace(old, new, 1))
    found[place] = keys()
    path.write_text(text)
assert keys() == found[""]
print(json.dumps(found))
"""

#: A change of the program, and the caches that are made again for it.
CHANGES = {
    ("worlds/portraits/_shapes.py", "ZOOM = ", "ZOOM = 1.01 * "): {"bodies", "directions", "renders"},
    ("worlds/portraits/factors.py", "SEED = 20221120", "SEED = 1"): {"bodies", "directions", "renders"},
    ("worlds/portraits/dataset.py", "15_013", "15_017"): {"bodies", "directions", "renders"},
    ("models/irse.py", "import ", "import os  # a change\nimport "): {"bodies", "banks", "directions"},
    ("training/loop.py", "import ", "import os  # a change\nimport "): {"bodies"},
    ("editing/response.py", "import ", "import os  # a change\nimport "): {"directions"},
    ("inversion/nearest.py", "BLOCK = 1000", "BLOCK = 500"): {"banks"},
    ("photos/crop.py", "_PER_EYES, _PER_MOUTH = 4.0", "_PER_EYES, _PER_MOUTH = 4.1"): None,
    (
        "worlds/portraits/renderer.py",
        '"""The renderer',
        '# A comment.\n"""Other words for the renderer',
    ): set(),
    ("weights/fetch.py", "import ", "import os  # a change\nimport "): set(),
}


def test_each_key_changes_with_what_its_results_are_made_from(tmp_path):
    package = tmp_path / "clcae_lib"
    for path in Path(clcae_lib.__file__).parent.rglob("*.py"):
        copy = package / path.relative_to(Path(clcae_lib.__file__).parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", KEYS],
        input=json.dumps([list(change) for change in CHANGES]),
        env={**os.environ, "PYTHONPATH": str(tmp_path), "CLCAE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for change, expected in CHANGES.items():
        changed = {kind for kind, key in found[change[0]].items() if key != found[""][kind]}
        if (
            expected is None
        ):  # networks import crops through the worlds; only the crops themselves matter here
            assert {"crops"} <= changed
        else:
            assert changed == expected, change[0]


def test_settings_and_files_are_part_of_a_key(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = cache.key({"steps": 1}, modules=["clcae_lib.files"], files=[file])
    assert first == cache.key({"steps": 1}, modules=["clcae_lib.files"], files=[file])
    others = {
        cache.key({"steps": 2}, modules=["clcae_lib.files"], files=[file]),
        cache.key({"steps": 1}, modules=["clcae_lib.paths"], files=[file]),
        cache.key({"steps": 1}, modules=["clcae_lib.files"]),
    }
    file.write_bytes(b"two")
    others.add(cache.key({"steps": 1}, modules=["clcae_lib.files"], files=[file]))
    assert len(others | {first}) == 5
    with pytest.raises(TypeError):
        cache.key(object())


def test_a_result_is_made_once_and_a_failure_leaves_nothing(tmp_path):
    path, calls = tmp_path / "kind" / "result", []

    def fail():
        raise RuntimeError("no room")

    def make():
        calls.append(path.parent.is_dir())
        path.write_text("made")

    with pytest.raises(RuntimeError, match="no room"):
        cache.made(path, fail)
    for _ in range(2):
        assert cache.made(path, make).read_text() == "made"
    assert calls == [True]


def test_a_programs_digest_is_of_what_it_does_in_every_version_of_python(tmp_path):
    source = tmp_path / "a.py"

    def digest(text):
        source.unlink(missing_ok=True)
        source.write_text(text)
        cache._read.cache_clear()
        return cache.source_digest(source)

    first = digest('def f(x: int = 1) -> int:\n    return [x, f"{x}", None] and x\n')
    assert first[:12] == "4136c9a091f3", "made by Python 3.11: shipped cards name such digests"
    assert first == digest(
        '"""Text."""\ndef f(x: int=1)->int:\n  "Text."\n  return [x, f"{x}", None] and x  # x\n'
    )
    assert first != digest('def f(x: int = 2) -> int:\n    return [x, f"{x}", None] and x\n')
