"""Which device a name stands for, in which precision it trains, and what stays as it is."""

import logging
import os
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from typer.testing import CliRunner

from clcae_lib import devices
from clcae_lib.cli import app
from clcae_lib.devices import DeviceError, has_kernels, make_fabric, resolve_device, usable_precision
from clcae_lib.training import TrainConfig
from clcae_lib.training.dry import rehearse

BUILD = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_90"]


@pytest.fixture
def cards(monkeypatch):
    """A function that gives the machine CUDA cards of these compute capabilities."""

    def put(*capabilities):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILD)
        devices.print_once.cache_clear()

    return put


def test_a_build_runs_on_its_cards_later_ones_of_their_kind_and_all_after_its_ptx():
    usable = {(7, 0): False, (7, 5): True, (8, 9): True, (6, 1): False, (9, 0): True, (12, 0): True}
    assert {card: has_kernels(card, BUILD) for card in usable} == usable
    assert not has_kernels((9, 0), ["sm_80"]), "machine code does not run on the next kind"
    assert has_kernels((9, 0), ["sm_90a"])
    assert has_kernels((9, 4), ["gfx942"]), "other makers are trusted"


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [([(8, 0), (6, 1)], "cuda"), ([(6, 1), (8, 0)], "cuda:1"), ([(6, 1)], "cpu"), ([], "cpu")],
)
def test_auto_means_the_first_card_that_the_build_has_code_for(cards, capsys, capabilities, chosen):
    cards(*capabilities)
    assert [str(resolve_device("auto")) for _ in range(2)] == [chosen, chosen]
    unused = bool(capabilities) and chosen == "cpu"
    said = capsys.readouterr().out
    assert said.count("no code for a GPU of compute capability 6.1") == unused, "once in a process"


def test_auto_never_means_mps_which_has_no_float64(cards, monkeypatch):
    cards()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "cpu"
    assert resolve_device("mps").type == "mps"


def test_a_device_that_cannot_be_used_is_refused_by_name(cards):
    cards((8, 0), (6, 1))
    assert resolve_device("cuda:0").index == 0
    for name, words in {
        "gpuu": "device='gpuu' is not a valid device",
        "cuda:7": r"device='cuda:7': torch finds 2 CUDA device\(s\)",
        "cuda:1": r"device='cuda:1': .*compute capability 6\.1 \(it has sm_75",
    }.items():
        with pytest.raises(DeviceError, match=words):
            resolve_device(name)
    for name, words in {
        "cpu:0": "devices=3",
        "cuda": r"devices=3: torch finds 2 CUDA device\(s\)",
    }.items():
        with pytest.raises(DeviceError, match=words):
            make_fabric(name, devices=3)


def test_bfloat16_is_used_where_the_card_has_it_and_a_line_says_where_not(capsys):
    devices.print_once.cache_clear()
    made = [usable_precision("bf16-mixed", card) for card in ((8, 0), (9, 0), (7, 5), (7, 5))]
    assert made == ["bf16-mixed", "bf16-mixed", "32-true", "32-true"]
    assert usable_precision("32-true", (7, 5)) == "32-true"
    assert capsys.readouterr().out.count("capability 7.5 only emulates bfloat16; training in float32") == 1


def test_fabric_prints_no_line_on_its_precision_and_its_log_stays_as_it_was(caplog):
    log = logging.getLogger("lightning_fabric.utilities.rank_zero")
    before = list(log.filters), log.level
    with caplog.at_level(logging.INFO, logger=log.name):
        log.addHandler(caplog.handler)
        make_fabric("cpu", precision="bf16-mixed")
        assert caplog.records == []
        Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
        log.removeHandler(caplog.handler)
    assert "Using bfloat16 Automatic Mixed Precision (AMP)" in caplog.messages
    assert (list(log.filters), log.level) == before


def test_naming_a_device_sets_nothing(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    resolve_device("cpu")
    make_fabric("cpu")
    assert torch.backends.cudnn.allow_tf32


def test_the_command_turns_tf32_off_unless_the_environment_says_otherwise(monkeypatch):
    for before, after in ((None, "0"), ("1", "1")):
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
        if before is not None:
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
    assert found[1] == "memory: 1.0 GB at the peak"
