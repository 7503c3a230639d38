"""The programs about GPUs run without one: gpu_check at small sizes, and the simulations."""

from __future__ import annotations

import json

import pytest
import torch

import slg_wds
from slg_wds.generation.inference import topk
from slg_wds.labels import reduce
from slg_wds.replay.assembly import jpeg_crops
from support.photographs import tool


def test_gpu_check_runs_on_a_cpu_and_every_check_holds(monkeypatch, capsys, tmp_path):
    out = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["gpu_check", "--device", "cpu", "--quick", "--out", str(out)])
    assert tool("gpu_check").main() == 0
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["failed"] == found["left_out"] == []
    checks = {name: value for name, value in found["correct"].items() if name != "seconds"}
    assert len(checks) >= 12 and all(value is True for value in checks.values())
    assert found["generation"]["small, plain, 16 a forward"]["2 threads"] > 0
    assert found["replay"]["4 crops an image, 2 threads"] > 0 and found["training"]["constant / loader"] > 0
    assert found["simulation"]["small, plain, 16 a forward"]["of_gpu"] > 0
    assert found["simulation"]["4 crops an image"] > 0


def test_gpu_check_tells_what_is_wrong_and_what_it_had_no_time_for(monkeypatch, capsys):
    gpu_check = tool("gpu_check")

    def wrong(check):
        check.holds("two runs make the same bytes", False, "one byte")
        check.begins("correct", "more")

    def broken(check):
        raise KeyError("gone")

    monkeypatch.setattr(gpu_check, "PARTS", {"correct": wrong, "replay": broken})
    monkeypatch.setattr("sys.argv", ["gpu_check", "--device", "cpu", "--seconds", "0"])
    assert gpu_check.main() == 1
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == ["correct: two runs make the same bytes (one byte)", "replay: KeyError: 'gone'"]
    assert found["left_out"] == ["correct: more"]


@pytest.mark.parametrize("launch", ["eager", "graph"])
def test_the_simulation_runs_generation_and_a_slow_gpu_sets_its_rate(tmp_path, launch):
    simulate_gpu = tool("simulate_gpu")
    setting = simulate_gpu.Setting(threads=4, rate=500.0, num_seg=25, launch=launch, images=4, crops=120)
    result = simulate_gpu.generation(setting, tmp_path)
    labels = slg_wds.open_labels(str(tmp_path / "labels"))
    assert [record.num_crops for record in labels] == [120] * 4
    assert 0.6 < result.of_gpu < 1.05 and result.crops_per_second == pytest.approx(500 * result.of_gpu)
    assert result.launch_ms > 0 and result.alone_ms > 0
    assert torch.zeros(1).to(torch.float64).dtype == torch.float64 and topk is reduce.topk, (
        "nothing is replaced"
    )


@pytest.mark.slow
@pytest.mark.parametrize("external", [False, True])
def test_the_simulation_of_a_loader_is_as_fast_as_its_threads_or_its_trainer(tmp_path, external):
    simulate_replay = tool("simulate_replay")
    simulate_replay.lay_out_set(tmp_path, 48, 12)
    common = {"threads": 2, "crops": 4, "batch": 32, "external": external}
    replay, setting = simulate_replay.replay, simulate_replay.ReplaySetting
    compiled = jpeg_crops._COMPILED
    alone = replay(setting(**common), tmp_path)
    assert 0 < alone.of_threads <= 1.02
    assert alone.images_per_second == pytest.approx(2 / 1.65e-3 * alone.of_threads)
    assert alone.crops_per_second == pytest.approx(4 * alone.images_per_second) and alone.of_step == 0
    assert alone.microseconds > 0 and alone.switches > 0
    trained = replay(setting(**common, rate=400.0, launches=5), tmp_path)
    assert trained.crops_per_second < 600 and 0.2 < trained.of_step < 2
    assert jpeg_crops._COMPILED is compiled, "nothing is replaced"
