"""Which device a name stands for, in which precision it trains, and what is left alone on the way."""

import os
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from clcae_lib import devices
from clcae_lib.cli import app
from clcae_lib.devices import best_device, check_card, has_kernels, make_fabric, resolve_device
from clcae_lib.devices import usable_precision as usable
from clcae_lib.training import TrainConfig
from clcae_lib.training.dry import rehearse

BUILD = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_90"]
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="it shows a machine without CUDA")


@pytest.fixture
def old_card(monkeypatch):
    """A machine with one card, of compute capability 6.1."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILD)
    devices._tell.cache_clear()


@pytest.mark.parametrize(
    ("capability", "usable"),
    [((7, 0), False), ((7, 5), True), ((8, 9), True), ((6, 1), False), ((9, 0), True), ((12, 0), True)],
)
def test_a_build_runs_on_its_cards_later_ones_of_their_kind_and_all_after_its_ptx(capability, usable):
    assert has_kernels(capability, BUILD) is usable


def test_machine_code_alone_does_not_run_on_the_next_kind_and_other_makers_are_trusted():
    assert not has_kernels((9, 0), ["sm_80"])
    assert has_kernels((9, 0), ["sm_90a"])
    assert has_kernels((9, 4), ["gfx942"])


def test_auto_takes_the_first_card_that_the_build_has_code_for():
    assert best_device([(8, 0), (6, 1)], BUILD) == "cuda"
    assert best_device([(6, 1), (8, 0)], BUILD) == "cuda:1"
    assert best_device([(6, 1)], BUILD) == "cpu"
    assert best_device([], []) == "cpu"


@without_cuda
def test_auto_never_takes_mps_which_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "cpu"
    assert resolve_device("mps").type == "mps"


def test_auto_says_once_why_a_card_is_not_used(old_card, capsys):
    assert [resolve_device("auto").type for _ in range(2)] == ["cpu", "cpu"]
    assert capsys.readouterr().out.count("no code for a GPU of compute capability 6.1") == 1


def test_a_card_that_is_not_there_or_too_old_is_refused_by_name(old_card):
    check_card("cuda:1", 1, [(8, 0), (8, 0)], BUILD)
    with pytest.raises(ValueError, match=r"device='cuda:7': torch finds 1 CUDA device\(s\)"):
        resolve_device("cuda:7")
    with pytest.raises(ValueError, match=r"device='cuda': .*compute capability 6\.1 \(it has sm_75"):
        resolve_device("cuda")


def test_devices_are_checked():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in {"cpu", "cuda"}
    with pytest.raises(ValueError, match="device='gpuu'"):
        resolve_device("gpuu")
    with pytest.raises(ValueError, match="devices=2"):
        make_fabric("cpu:0", devices=2)


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(devices, "_capabilities", lambda: [(8, 0)])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILD)
    with pytest.raises(ValueError, match=r"devices=2: torch finds 1 CUDA device\(s\)"):
        make_fabric("cuda", devices=2)


def test_bfloat16_is_used_where_the_card_has_it_and_a_line_says_where_not(capsys):
    devices._tell.cache_clear()
    assert [usable("bf16-mixed", card) for card in ((8, 0), (9, 0))] == ["bf16-mixed", "bf16-mixed"]
    assert capsys.readouterr().out == ""
    assert [usable(name, (7, 5)) for name in ("bf16-mixed", "32-true")] == ["32-true", "32-true"]
    assert "capability 7.5 only emulates bfloat16; training in float32" in capsys.readouterr().out


def test_naming_a_device_sets_nothing(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    resolve_device("cpu")
    make_fabric("cpu")
    assert torch.backends.cudnn.allow_tf32


def test_the_command_turns_tf32_off_unless_the_environment_says_otherwise(monkeypatch):
    for before, after in ((None, "0"), ("1", "1")):
        if before is None:
            monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
        else:
            monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", before)
        assert CliRunner().invoke(app, ["world", "list"]).exit_code == 0
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == after


def test_a_rehearsal_initialises_cuda_before_it_asks_for_memory(monkeypatch):
    """A device with an index is unknown to torch until then."""
    calls = []
    monkeypatch.setattr("clcae_lib.devices.resolve_device", torch.device)
    monkeypatch.setattr("clcae_lib.devices.device_label", str)
    for name in ("init", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: calls.append(name) or 1e9)

    def train(config, folder, *, resume):
        rows = pd.DataFrame({"step": [1, 2], "seconds": [1.0, 1.5]})
        rows.to_csv(folder / "metrics.csv", index=False)

    found = rehearse(SimpleNamespace(train=train), TrainConfig(device="cuda:0"))
    assert calls == ["init", "reset_peak_memory_stats", "max_memory_allocated"]
    assert found.peak_gb == 1.0
