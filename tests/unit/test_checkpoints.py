"""Weights are read safely, and every refusal names the file and what to do."""

import json
import pathlib
import pickle
import resource
import zipfile

import pytest
import torch
from torch import nn

from clcae_lib.files import sha256
from clcae_lib.weights import checkpoints


@pytest.fixture
def weights(tmp_path):
    tensors = {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4), "count": torch.tensor(7)}
    metadata = {"kind": "oracle", "config": {"widths": [4, 8]}}
    return checkpoints.save_weights(tmp_path / "oracle.safetensors", tensors, metadata=metadata), tensors


class Evil:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_round_trip(weights):
    path, tensors = weights
    loaded, metadata = checkpoints.load_weights(path, kind="oracle")
    assert metadata == {"kind": "oracle", "config": {"widths": [4, 8]}}
    assert loaded["a.weight"].dtype == torch.float32
    assert torch.equal(loaded["a.weight"], tensors["a.weight"].half().float())
    assert torch.equal(loaded["a.bias"], tensors["a.bias"])
    assert loaded["count"].dtype == torch.int64
    (path.parent / "plain").write_text("x")
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode, "the usual permissions"
    base = torch.rand(2, 3)
    shared = {"one": base, "same": base, "transposed": base.t()}
    checkpoints.save_weights(path, shared, metadata={}, half=False)
    loaded, _ = checkpoints.load_weights(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in shared.items())


def test_a_failed_write_keeps_the_old_file(weights, monkeypatch):
    path, _ = weights
    before = sha256(path)
    with pytest.raises(ValueError, match="big exceeds the range of half precision; save it with half=False"):
        checkpoints.save_weights(path, {"big": torch.full((2, 2), 1e6)}, metadata={})

    def half_written(path, content):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "write_bytes", half_written)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save_weights(path, {"t": torch.zeros(2)}, metadata={})
    assert sha256(path) == before
    assert list(path.parent.iterdir()) == [path]


def test_what_is_not_the_expected_file_is_named_and_not_run(weights, tmp_path):
    path, trap = weights[0], tmp_path / "trap"
    with pytest.raises(
        ValueError, match=r'oracle\.safetensors holds the weights of "oracle", not of "generat'
    ):
        checkpoints.load_weights(path, kind="generator")
    for content in (b"", b"not weights at all", path.read_bytes()[:-5], pickle.dumps(Evil(trap))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"oracle\.safetensors is not a safetensors file or is .*again"):
            checkpoints.load_weights(path)
    assert not trap.exists()
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors does not exist.*train or fetch"):
        checkpoints.load_weights(tmp_path / "nothing.safetensors")


def test_load_into_copies_or_lists_everything_that_does_not_fit():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    tensors = {"0.weight": torch.zeros(2, 4), "0.bias": torch.zeros(2), "1.weight": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match="do not fit Sequential") as caught:
        checkpoints.load_into(module, {**tensors, "2.bias": torch.zeros(1)}, source="some.safetensors")
    message = str(caught.value)
    assert "some.safetensors" in message
    assert "1.bias: none in the file, [2] expected" in message
    assert "2.bias: [1] in the file, none expected" in message
    assert "0.weight: [2, 4] in the file, [2, 3] expected" in message
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    source = nn.Linear(3, 2)
    checkpoints.load_into(module[0], source.state_dict(), source="x")
    assert torch.equal(source.weight, module[0].weight)
    assert source.weight.data_ptr() != module[0].weight.data_ptr()


def test_state_round_trip(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {
        "step": 3,
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "note": ["a", None],
    }
    path = checkpoints.save_state(tmp_path / "state.pt", state)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoints.save_state(path, {"step": lambda: 2})
    loaded = checkpoints.load_state(path)
    assert list(tmp_path.iterdir()) == [path]
    assert (loaded["step"], loaded["note"]) == (3, ["a", None])
    assert torch.equal(loaded["rng"], state["rng"])
    first, second = (part["optimizer"]["state"][0]["exp_avg"] for part in (loaded, state))
    assert torch.equal(first, second)


def test_a_damaged_or_malicious_state_is_refused_and_not_run(tmp_path):
    path, trap = tmp_path / "state.pt", tmp_path / "trap"
    torch.save({"step": Evil(trap)}, path)
    contents = [path.read_bytes(), pickle.dumps(Evil(trap))]
    checkpoints.save_state(path, {"t": torch.randn(100)})
    contents += [path.read_bytes()[:keep] for keep in (0, 10, 300)]
    torch.save([1, 2], path)
    contents.append(path.read_bytes())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"state\.pt is damaged or holds more than plain data; delete it"
        ):
            checkpoints.load_state(path)
    assert not trap.exists()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"state\.pt does not exist"):
        checkpoints.load_state(path)


def test_a_flipped_bit_of_a_state_is_noticed_or_changes_nothing(tmp_path):
    path = checkpoints.save_state(tmp_path / "state.pt", {"step": 3, "w": torch.randn(40)})
    whole, good, refused = checkpoints.load_state(path), path.read_bytes(), []
    for place in range(len(good)):
        content = bytearray(good)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            loaded = checkpoints.load_state(path)
        except checkpoints.WeightsError as error:
            refused.append(str(error))
        else:
            assert loaded["step"] == whole["step"]
            assert torch.equal(loaded["w"], whole["w"])
    assert len(refused) > 160, "all bytes of the numbers, at least"
    assert all("state.pt is damaged" in said and "\n" not in said for said in refused)


def test_a_compressed_state_is_refused_before_it_is_expanded(tmp_path):
    path = checkpoints.save_state(tmp_path / "state.pt", {"w": torch.zeros(1000)})
    with zipfile.ZipFile(path) as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    with pytest.raises(checkpoints.WeightsError, match=r"state\.pt is damaged .*compressed"):
        checkpoints.load_state(path)


def test_a_state_of_before_whose_file_torch_opened_itself_is_read(tmp_path):
    torch.save({"step": 3}, tmp_path / "state.pt")
    assert checkpoints.load_state(tmp_path / "state.pt") == {"step": 3}


def test_a_full_disk_is_named_and_the_earlier_state_stays(tmp_path):
    path = checkpoints.save_state(tmp_path / "state.pt", {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*state\.pt"):
            checkpoints.save_state(path, {"step": 2, "w": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.load_state(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_cards(weights):
    path, _ = weights
    with pytest.raises(FileNotFoundError, match=r"oracle\.json does not exist"):
        checkpoints.read_card(path)
    card_path = checkpoints.write_card(path, {"command": "clcae train judges", "seed": 0})
    assert card_path == path.with_suffix(".json")
    assert checkpoints.read_card(path) == {"command": "clcae train judges", "seed": 0, "sha256": sha256(path)}
    card_path.write_text("{")
    with pytest.raises(ValueError, match=r"oracle\.json is not valid JSON"):
        checkpoints.read_card(path)
    for name in ("a" * 5000, "../../generator"):
        card_path.write_text(json.dumps({"trained_on": {name: "0"}}))
        with pytest.raises(ValueError, match=r"oracle\.json: trained_on has an invalid file name"):
            checkpoints.read_card(path)


def save(folder, name, parents=()):
    path = folder / f"{name}.safetensors"
    checkpoints.save_weights(path, {"t": torch.randn(3)}, metadata={"kind": name})
    trained_on = {parent: sha256(folder / f"{parent}.safetensors") for parent in parents}
    checkpoints.write_card(path, {"trained_on": trained_on})
    return path


def test_the_chain_of_weights(tmp_path):
    generator = save(tmp_path, "generator")
    alignment = save(tmp_path, "alignment", ["generator"])
    save(tmp_path, "inversion", ["generator", "alignment"])
    assert checkpoints.check_chain(tmp_path) == []
    save(tmp_path, "generator")
    problem = "was trained on another generator.safetensors; train it again"
    assert checkpoints.check_chain(tmp_path) == [
        f"{name}.safetensors {problem}" for name in ("alignment", "inversion")
    ]
    save(tmp_path, "inversion", ["alignment"])
    save(tmp_path, "orphan").with_suffix(".json").unlink()
    checkpoints.save_weights(generator, {"t": torch.randn(3)}, metadata={})
    alignment.unlink()
    assert checkpoints.check_chain(tmp_path) == [
        "generator.safetensors is not the file its card describes",
        "inversion.safetensors was trained on alignment.safetensors, which is missing",
        "orphan.safetensors has no card",
    ]


def test_the_chain_holds_for_published_files_and_for_older_cards(tmp_path):
    own = tmp_path / "data" / "own"
    names = {
        "stylegan2.pt": own,
        "pair.pt": own / "contrastive",
        "ir_se50.pth": tmp_path / "data" / "networks",
        "alexnet-owt-7be5be79.pth": tmp_path / "data" / "networks",
    }
    for name, folder in names.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    digests = {name: sha256(folder / name) for name, folder in names.items()}
    older = {"stylegan2": digests["stylegan2.pt"]}
    for weights, parents in {"new": digests, "older": older}.items():
        path = checkpoints.save_weights(own / f"{weights}.safetensors", {"t": torch.ones(1)}, metadata={})
        checkpoints.write_card(path, {"trained_on": parents})
    assert checkpoints.check_chain(own) == []
    for name, folder in names.items():
        (folder / name).write_bytes(b"another")
    assert checkpoints.check_chain(own) == [
        *(f"new.safetensors was trained on another {name}; train it again" for name in sorted(names)),
        "older.safetensors was trained on another stylegan2.safetensors; train it again",
    ]
    for name, folder in names.items():
        (folder / name).unlink()
    assert len(checkpoints.check_chain(own)) == 5
    assert all("missing" in problem for problem in checkpoints.check_chain(own))


def test_a_network_that_is_to_be_filled_draws_nothing_and_ends():
    state = torch.get_rng_state()
    with checkpoints.Undrawn():
        bounded = torch.nn.init.trunc_normal_(torch.full((4,), 9.0), std=0.02)
        layer, drawn = torch.nn.Linear(2, 3), torch.randn(2, 2)
    assert not bounded.any()
    assert not drawn.any()
    assert layer.weight.shape == (3, 2)
    assert torch.equal(torch.get_rng_state(), state)
