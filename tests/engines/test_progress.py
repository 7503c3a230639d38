"""The progress that a run shows."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slg_wds.console import counted
from slg_wds.engines.reports.progress import RunProgress
from slg_wds.engines.reports.run_stats import RunStarted, RunStats
from slg_wds.engines.reports.summary import bytes_a_crop
from support.models.names import TINY
from support.notebook import run_cell
from support.sets import trust_sets


def test_a_shard_that_another_process_made_first_counts_once(capsys):
    """Both processes report its crops; the display never exceeds the total, and the summary counts one shard."""
    with RunProgress(RunStats()) as progress:
        progress.begin(RunStarted("digest", shards=2, crops=30))
        for name, crops, made in (
            ("train-000000", 20, True),
            ("train-000000", 20, False),
            ("train-000001", 10, True),
        ):
            progress.crops(crops)
            progress.shard(name, RunStats(images=crops // 10, crops=crops, shards=1), made)
        assert progress.done_crops == 30
    assert (progress.total.crops, progress.total.shards, progress.total.lost_races) == (30, 2, 1)
    first, lost, last = capsys.readouterr().err.splitlines()
    assert "another process was first" in lost and "shard 1/2" in lost
    assert "shard 1/2" in first and "shard 2/2" in last and "about 0 s left" in last


def test_crops_of_two_processes_at_one_shard_never_show_more_than_all(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with RunProgress(RunStats()) as progress:
        progress.begin(RunStarted("digest", shards=1, crops=30))
        progress.crops(20)
        assert [task.completed for task in progress._display.bar.tasks] == [20]
        progress.crops(20)
        assert [task.completed for task in progress._display.bar.tasks] == [30]


def test_ranks_on_one_terminal_write_lines_and_expect_to_make_their_part(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("slg_wds.engines.reports.progress._clock", lambda: 10.0)
    with RunProgress(RunStats(), ranks=4) as progress:
        progress.begin(RunStarted("digest", shards=8, crops=80))
        progress._began = 0.0
        progress.crops(10)
        progress.shard("train-000000", RunStats(images=1, crops=10, shards=1), True)
    assert "about 10 s left" in capsys.readouterr().err  # of 20 crops, a fourth of all, 10 are done in 10 s


def test_numbers_agree_with_their_nouns():
    assert [counted(n, "shard") for n in (0, 1, 2, 1282)] == [
        "0 shards",
        "1 shard",
        "2 shards",
        "1,282 shards",
    ]


def test_a_resumed_run_begins_where_the_set_is(monkeypatch, capsys):
    start = RunStarted("digest", shards=2, crops=30, shards_there=8, crops_there=120)
    with RunProgress(RunStats()) as progress:
        progress.begin(start)
        progress.crops(10)
        progress.shard("train-000008", RunStats(images=1, crops=10, shards=1), True)
    assert "shard 9/10" in capsys.readouterr().err
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with RunProgress(RunStats()) as progress:
        progress.begin(start)
        (task,) = progress._display.bar.tasks
        assert (task.completed, task.total) == (120, 150)
        progress.crops(10)
        assert task.completed == 130


def test_what_is_there_of_a_set():
    plan = SimpleNamespace(shard_sizes=np.array([4, 4, 3]))
    fields = {"digest": "d", "plan": plan, "num_shards": 3, "__len__": lambda self: 11}
    labels: Any = type("Set", (), fields)()
    assert RunStarted.of(labels, [2], 10) == RunStarted("d", 1, 30, (), 2, 80)
    assert RunStarted.of(labels, [], 10) == RunStarted("d", 0, 0, (), 3, 110)


def test_bytes_of_labels_are_told_apart_from_those_of_images():
    assert bytes_a_crop(1710, 0, 100) == "17.10 bytes/crop"
    assert bytes_a_crop(1710 + 226_800, 226_800, 100) == "17.10 bytes/crop of labels, 2,268.00 of images"


NOTEBOOK = """
import slg_wds
result = slg_wds.generate(slg_wds.GenerateConfig(
    data={data!r}, save_path={target!r}, arch={arch!r}, teacher_source="private", num_crops=4, num_seg=8,
    samples_per_shard=1, on_error="skip"))
result
"""


def test_a_notebook_has_one_output_that_changes(photographs, tmp_path):
    """In a real kernel: one display, which is updated; no line for each shard."""
    images = trust_sets.small_photographs(photographs, tmp_path / "images")
    messages = run_cell(NOTEBOOK.format(data=str(images), target=str(tmp_path / "set"), arch=TINY))
    kinds = [message["msg_type"] for message in messages]
    lines = "".join(one["content"]["text"] for one in messages if one["msg_type"] == "stream").splitlines()
    states = [one["content"]["data"]["text/plain"] for one in messages if "display_data" in one["msg_type"]]
    assert kinds.count("display_data") == 1 and "update_display_data" in kinds, messages
    assert states[0].startswith("[" + "-" * 40 + "] 0/32 crops") and "shards 8/8" in states[-1], states
    assert states[-1].startswith("[" + "#" * 40 + "] 32/32 crops")
    assert not any(line.startswith("train-") for line in lines), lines
    (shown,) = (
        one["content"]["data"]["text/plain"] for one in messages if one["msg_type"] == "execute_result"
    )
    assert shown.startswith("GenerateResult(labels=LabelSet(") and len(shown) <= 300


STOPPED = """
import time
from slg_wds.engines.reports.progress import RunProgress
from slg_wds.engines.reports.run_stats import RunStarted, RunStats

with RunProgress(RunStats()) as progress:
    progress.begin(RunStarted("digest", shards=2, crops=20))
    progress.crops(10)
    print("ready", flush=True)
    input()
    print(progress.seconds)
"""


def test_time_for_which_the_process_was_stopped_does_not_count():
    """Slurm stops a job to let another one run; afterwards rate and time left were wrong for the rest of the run."""
    command = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        assert float(process.communicate("\n")[0]) < 2


def test_slow_rates_are_no_zero(capsys):
    with RunProgress(RunStats()) as progress:
        progress.begin(RunStarted("digest", shards=2, crops=20))
        progress._began -= 50
        progress.crops(10)
        progress.shard("train-000000", RunStats(images=1, crops=10, shards=1), True)
    assert ", 0.2 crops/s, about 50 s left" in capsys.readouterr().err


def test_a_dumb_terminal_gets_lines(monkeypatch, capsys):
    """rich would show nothing there before the end of the run."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with RunProgress(RunStats()) as progress:
        progress.begin(RunStarted("digest", shards=2, crops=20))
        progress.shard("train-000000", RunStats(images=1, crops=10, shards=1), True)
        assert capsys.readouterr().err.startswith("train-000000: 1 image, 10 crops")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_shows_everything_at_any_width(monkeypatch, capsys, columns):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    with RunProgress(RunStats()) as progress:
        progress.begin(RunStarted("digest", shards=5005, crops=640_640_000))
        progress._began -= 100_000
        progress.crops(123_456_789)
        lines = _drawn(progress._display.bar)
    text = " ".join(lines)
    assert "123456789/640640000" in text and "crops/s" in text and "shards 0/5005" in " ".join(text.split())
    assert max(map(len, lines)) <= columns and "\u2026" not in text


def _drawn(bar: Any) -> list[str]:
    with bar.console.capture() as drawn:
        bar.console.print(bar.get_renderable())
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", drawn.get()).splitlines()]
