"""Every array of every fixture, computed by this project; the networks are filled once for all of them."""

import pytest

from tests.conformance import bench, cases, golden

FILES = sorted(  # the official networks; NVIDIA's layout has its own test
    path.stem for path in (golden.FOLDER / "fixtures").glob("*.npz") if not path.stem.startswith("nvidia")
)
ARRAYS = [(name, array) for name in FILES for array in golden.fixture(name)]

# One worker fills the networks, and no other does it again.
pytestmark = pytest.mark.xdist_group("conformance")


@pytest.mark.parametrize(("name", "array"), ARRAYS, ids=["/".join(pair) for pair in ARRAYS])
def test_array_is_the_published_one(name, array):
    row = cases.compare(bench.shared(), array, golden.fixture(name))
    if row.skipped:
        pytest.skip(row.problem)
    assert row.good, row.problem or f"differs by {row.distance:.2e} of the rms"


def test_all_fixtures_are_there():
    assert len(FILES) == 8
    assert len(ARRAYS) == 170


def test_a_wrong_number_is_found_and_an_unknown_name_reported():
    arrays = golden.fixture("ranger")
    arrays["A/4"] = arrays["A/4"] * 1.001
    assert not cases.compare(bench.shared(), "A/4", arrays).good
    assert cases.compare(bench.shared(), "A/5", arrays).good
    row = cases.compare(bench.shared(), "plain/latent_bass", {"plain/latent_bass": arrays["A/4"]})
    assert not row.good
    assert row.problem.startswith("unknown array")


def test_a_mistake_in_the_network_is_found():
    """Attention that reads the layer before, one of the mistakes that is visible at all."""
    encoder, arrays = bench.shared().inversion.encoder, golden.fixture("afpsp_ffhq256")
    vectors, fine = encoder.read(bench.shared().images)
    wrong = encoder.derive(vectors.roll(1, dims=1), fine)
    assert golden.distance(wrong.w_plus, arrays["plain/latent_refine"]) > 100 * golden.TOLERANCE
