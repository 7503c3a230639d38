"""The programs about GPUs run without one: gpu_check at small sizes, and the simulations."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
import time

import pytest
import torch

import slg_wds
from slg_wds.generation import inference
from slg_wds.generation.inference import topk
from slg_wds.labels import reduce
from slg_wds.replay.assembly import jpeg_crops
from slg_wds.replay.processes import loader_processes, program
from support.gpus import recorded_graphs
from support.paths import TOOLS
from support.programs import tool

gpu_check = tool("gpu_check")
from gpu_parts.parts import PARTS, Part  # noqa: E402  (beside gpu_check)
from gpu_parts.supervision import bars, findings  # noqa: E402
from gpu_parts.supervision import run as supervision  # noqa: E402

FAKES = """
import os, sys, threading, time

def well(found):
    assert found.begins("something", takes=0) and not found.begins("something long", takes=1000)
    found.holds("one is one", True)
    found.found("figure", 3)
    found.reaches("training step, constant batch / loader", 0.99)

def wrong(found):
    found.holds("one is two", False, "they differ")
    found.reaches("training step, constant batch / loader", 0.5)
    with found.going_on("a step"):
        raise KeyError("gone")
    found.holds("what comes after it", True)
    raise ValueError("at the end")

def hangs(found):
    found.holds("before it", True)
    found.begins("waiting for ever", takes=0)
    threading.Event().wait()

def breaks(found):
    found.holds("before it", True)
    print("some last words", flush=True)
    os.kill(os.getpid(), 11)

def stops(found):
    found.stop("no GPU")
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    (tmp_path / "fakes.py").write_text(FAKES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(*names, seconds=60.0, each=10.0):
        (tmp_path / "run").mkdir()
        parts = {name: Part(f"fakes:{name}", each) for name in names}
        out = tmp_path / "report.json"
        found = supervision.Run(parts, "cpu", True, tmp_path / "run", seconds, out).run()
        assert json.loads(out.read_text()) == found
        return found

    return run


def test_a_part_that_fails_or_breaks_takes_nothing_with_it(fakes):
    found = fakes("wrong", "breaks", "well")
    assert found["ended"] == {
        "wrong": "ended with exit code 1",
        "breaks": "ended with exit code -11",
        "well": "ok",
    }
    assert found["failed"] == [
        "wrong: one is two (they differ)", "wrong: a step: KeyError: 'gone'", "wrong: the part: ValueError: at the end",
        "wrong: ended with exit code 1", "breaks: ended with exit code -11",
    ]  # fmt: skip
    assert found["parts"]["breaks"]["checks"] == {"before it": {"met": True}}
    assert "some last words" in found["logs"]["breaks"] and "Segmentation fault" in found["logs"]["breaks"]
    assert "raise KeyError" in str(found["parts"]["wrong"]["tracebacks"])
    assert found["parts"]["wrong"]["checks"]["what comes after it"]["met"] is True
    assert found["parts"]["well"]["figures"] == {"figure": 3}
    assert found["left_out"] == ["well: something long"]


def test_a_part_that_hangs_is_killed_says_where_and_loses_only_itself(fakes, monkeypatch):
    monkeypatch.setattr(supervision, "GRACE", 0.5)
    monkeypatch.setattr(supervision, "LEAST", 0.1)
    found = fakes("hangs", "well", each=0.5)
    assert found["ended"] == {"hangs": "killed at: waiting for ever", "well": "ok"}
    assert found["parts"]["hangs"]["checks"] == {"before it": {"met": True}}
    assert "in hangs" in found["logs"]["hangs"], "where it was"


def test_every_bar_is_judged_and_those_that_were_not_measured_are_named(fakes):
    found = fakes("well", "wrong")
    bar = found["bars"]["training step, constant batch / loader"]
    assert bar["found"] == 0.5 and bar["wanted"] == 0.98 and bar["met"] is False, "the last one counts"
    assert found["missed"] == ["training step, constant batch / loader"]
    assert set(found["not_measured"]) == set(bars.BARS) - set(found["missed"]) and set(bars.PREDICTED) == set(
        bars.BARS
    )


def test_what_has_no_time_is_not_begun_and_nothing_runs_after_a_stop(fakes):
    found = fakes("stops", "well")
    assert found["ended"]["well"] == "not begun" and found["failed"] == ["stops: no GPU"]
    assert found["left_out"] == ["well: all of it"]


def test_the_run_ends_in_time_whatever_its_parts_do(fakes, monkeypatch):
    monkeypatch.setattr(supervision, "LEAST", 0.5)
    start = time.monotonic()
    found = fakes("hangs", "well", seconds=2.0)
    assert time.monotonic() - start < 5 and found["ended"]["well"] == "not begun"


def of_part(name, folder):
    """Run a part here, with small sizes; return what it found."""
    part = findings.Findings(folder / f"{name}.json", "cpu", True, folder, 300.0)
    module, _, function = PARTS[name].runs.partition(":")
    getattr(importlib.import_module(module), function)(part)
    assert part.content["failed"] == part.content["left_out"] == []
    return part.content


@pytest.mark.parametrize(("name", "checks"), [("machine", 0), ("forwards", 15), ("sets", 6)])
def test_a_part_of_gpu_check_runs_on_a_cpu_and_every_check_holds(tmp_path, monkeypatch, name, checks):
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    assert len(of_part(name, tmp_path)["checks"]) >= checks


@pytest.mark.slow
def test_gpu_check_runs_on_a_cpu_and_every_check_holds(tmp_path):
    command = [sys.executable, gpu_check.__file__, "--device", "cpu", "--quick", "--out", "found.json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=550)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert json.loads(run.stdout) == found
    assert found["failed"] == found["left_out"] == found["missed"] == []
    assert list(found["ended"]) == list(PARTS) and set(found["ended"].values()) == {"ok"}
    parts = found["parts"]
    assert len(parts["batches"]["checks"]) >= 36 and len(parts["training"]["checks"]) == 11
    (generation,) = parts["generation"]["figures"].values()
    assert generation["2 threads"] > 0 and parts["replay"]["figures"]["4 crops an image, 2 threads"] > 0
    assert len(parts["simulation"]["figures"]) == 4


def test_gpu_check_without_a_gpu_says_so(tmp_path, monkeypatch, capsys):
    given = ["gpu_check", "--out", str(tmp_path / "found.json"), "--parts", "machine"]
    monkeypatch.setattr("sys.argv", given)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_check.main() == 1
    (why,) = json.loads(capsys.readouterr().out)["failed"]
    assert why.startswith("machine: no GPU can be used here")


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
    elsewhere = replay(setting(**common, processes=1), tmp_path)
    assert 0 < elsewhere.of_threads <= 1.02 and elsewhere.microseconds > 0
    trained = replay(setting(**common, rate=400.0, launches=5), tmp_path)
    assert trained.crops_per_second < 600 and 0.2 < trained.of_step < 2
    assert jpeg_crops._COMPILED is compiled, "nothing is replaced"
    assert program.__name__ == loader_processes.PROGRAM


class Properties:
    name, major, minor, multi_processor_count = "imitated", 9, 0, 132


def without_pinning(make):
    return lambda *shape, pin_memory=False, **more: make(*shape, **more)


@pytest.fixture
def imitated(monkeypatch, tmp_path):
    """What only a GPU runs of gpu_check's own code runs on the CPU: small networks, streams that do nothing."""
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    paths = (
        "equipment.setup", "equipment.loaders", "checks.batches", "checks.faults", "checks.forwards",
        "checks.resuming", "checks.sets", "rates.generation", "rates.machine", "rates.replay", "rates.training",
    )  # fmt: skip
    module = {path.partition(".")[2]: importlib.import_module(f"gpu_parts.{path}") for path in paths}
    kind = module["setup"].Setup
    recorded_graphs.install(monkeypatch)
    plain_config = kind.config
    small = {"resnet50": "small", "vit_b": "small"}
    fewer = {"num_crops": 12, "num_seg": 16}

    def config(setup, model, images, **options):
        options |= {name: min(most, options.get(name, most)) for name, most in fewer.items()}
        return plain_config(setup, small.get(model, model), min(images, 64), **options)

    monkeypatch.setattr(kind, "gpu", True)
    monkeypatch.setattr(kind, "config", config)
    for name in ("set_device", "_sleep", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name, value in {"max_memory_reserved": 1, "get_device_properties": Properties}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(8.1e9), 80 << 30))
    monkeypatch.setattr(torch, "empty", without_pinning(torch.empty))
    monkeypatch.setattr(torch, "ones", without_pinning(torch.ones))
    sizes = {
        "forwards": {"ROWS": 16, "SPOILT": 16},
        "generation": {"SECONDS": 0.1},
        "loaders": {"IMAGES": 64},
        "replay": {"SECONDS": 0.1, "BATCH": 32},
        "machine": {"MANY": 1 << 16, "SIDE": 8},
    }
    for where, name in [(where, name) for where, given in sizes.items() for name in given]:
        monkeypatch.setattr(module[where], name, sizes[where][name])
    monkeypatch.setattr(torch, "compile", lambda run, **options: run)
    monkeypatch.setattr(module["generation"], "forward_rate", lambda teacher, rows, forwards: 1000.0)
    monkeypatch.setattr(module["faults"].os, "_exit", lambda code: None)
    return module


def found_by(run, folder):
    part = findings.Findings(folder / f"{run.__module__}.{run.__name__}.json", "cpu", False, folder, 500.0)
    run(part)
    return part.content


@pytest.mark.slow
def test_forwards_that_only_a_gpu_runs(imitated, tmp_path):
    found = found_by(imitated["forwards"].check, tmp_path)
    unknown = {f"{model} at {precision}" for model in ("resnet50", "vit_b") for precision in ("fp16", "tf32")}
    assert {what.partition(":")[0] for what in found["failed"]} == unknown, "a CPU has no such precision"
    assert "resnet50 at bf16: the same after other work, without a wait of the host" in found["checks"]
    assert "vit_b at bf16: a graph is made beside another thread's work" in found["checks"]


@pytest.mark.slow
def test_sets_that_only_a_gpu_makes(imitated, tmp_path, monkeypatch):
    generate, asked = slg_wds.generate, []

    def on_the_cpu(config):
        asked.append(config.devices)
        return generate(dataclasses.replace(config, devices="cpu"))

    monkeypatch.setattr(slg_wds, "generate", on_the_cpu)
    for module in (imitated["sets"], inference):
        monkeypatch.setattr(module, "topk", reduce._packed_topk)  # a GPU's way, which looks for no ties
    found = found_by(imitated["sets"].check, tmp_path)
    assert found["failed"] == [] and asked == ["0,0"]
    assert set(found["checks"]) >= {
        "labels are those of a synchronous loop, delayed: kernels", "nearly full memory changes no byte",
        "two processes make the same bytes", "labels of the GPU are near the CPU's, of the same boxes: prototypes",
    }  # fmt: skip


@pytest.mark.slow
def test_batches_that_only_a_gpu_gets(imitated, tmp_path):
    found = found_by(imitated["batches"].check, tmp_path)
    assert found["failed"] == [] and "with late copies: the CPU's batches" in found["checks"]


@pytest.mark.slow
def test_rates_that_only_a_gpu_has(imitated, tmp_path):
    generation, replay = imitated["generation"], imitated["replay"]
    usual, other = (found_by(run, tmp_path) for run in (generation.usual_settings, generation.other_settings))
    assert usual["failed"] == other["failed"] == []
    assert len(usual["figures"]) == len(generation.USUAL) and len(other["figures"]) == len(generation.OTHER)
    loader = found_by(replay.check, tmp_path)
    assert loader["failed"] == [] and len(loader["figures"]) == 9
    assert {**usual["bars"], **loader["bars"]}.keys() == set(list(bars.BARS)[:5])


@pytest.mark.slow
def test_steps_that_only_a_gpu_takes(imitated, tmp_path, monkeypatch):
    training = imitated["training"]
    monkeypatch.setattr(training, "STEPS", {"all together": training.STEPS["all together"]})
    plain = training.step_of
    monkeypatch.setattr(
        training, "step_of", lambda setup, flags, crops, _: plain(setup, flags, crops, "small")
    )
    monkeypatch.setattr(training, "CROPS", 32)
    monkeypatch.setattr(training, "TIMED", 1)
    found = found_by(training.check, tmp_path)
    assert found["failed"] == [] and list(found["bars"]) == list(bars.BARS)[5:]


@pytest.mark.slow
def test_processes_of_one_device_train_together(imitated, tmp_path):
    part = findings.Findings(tmp_path / "together.json", "cpu", True, tmp_path, 500.0)
    setup = imitated["setup"].Setup(part)
    arch, labels = setup.arch("small"), imitated["loaders"].labels_of(setup, "tail", {})
    assert imitated["resuming"].run_together(arch, labels, tmp_path / "student") == 0
    assert imitated["resuming"].finite(tmp_path / "student")


@pytest.mark.slow
def test_what_a_machine_with_a_gpu_says_of_itself(imitated):
    device = torch.device("cpu")
    assert imitated["machine"]._gpu(device)["capability"] == "9.0"
    assert all(value > 0 for value in imitated["machine"]._speeds(device).values())


@pytest.mark.slow
def test_errors_that_a_device_does_not_make_are_seen(imitated, tmp_path):
    """Here nothing breaks, so the check of errors has to fail."""
    found = found_by(imitated["faults"].check, tmp_path)
    assert found["checks"]["more memory than there is: MemoryFullError"]["met"]
    assert not found["checks"]["work after that: DeviceError"]["met"]
