"""What is shown of a run while it goes on."""

from __future__ import annotations

import sys

from slg_wds.progress import Progress, counted
from slg_wds.tally import Start, Tally


def test_a_shard_that_another_process_made_first_counts_once(capsys):
    """Both processes told of its crops; no more than all are ever shown, and the summary has one shard."""
    with Progress(Tally()) as progress:
        progress.begin(Start("digest", shards=2, crops=30))
        for name, crops, made in (
            ("train-000000", 20, True),
            ("train-000000", 20, False),
            ("train-000001", 10, True),
        ):
            progress.crops(crops)
            progress.shard(name, Tally(images=crops // 10, crops=crops, shards=1), made)
        assert progress.done_crops == 30
    assert (progress.total.crops, progress.total.shards, progress.total.lost_races) == (30, 2, 1)
    first, lost, last = capsys.readouterr().err.splitlines()
    assert "another process was first" in lost and "shard 1/2" in lost
    assert "shard 1/2" in first and "shard 2/2" in last and "about 0 s left" in last


def test_crops_of_two_processes_at_one_shard_never_show_more_than_all(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(Tally()) as progress:
        progress.begin(Start("digest", shards=1, crops=30))
        progress.crops(20)
        assert [task.completed for task in progress._display.tasks] == [20]
        progress.crops(20)
        assert [task.completed for task in progress._display.tasks] == [30]


def test_ranks_on_one_terminal_write_lines_and_expect_to_make_their_part(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("slg_wds.progress.time.monotonic", lambda: 10.0)
    with Progress(Tally(), ranks=4) as progress:
        progress.begin(Start("digest", shards=8, crops=80))
        progress._began = 0.0
        progress.crops(10)
        progress.shard("train-000000", Tally(images=1, crops=10, shards=1), True)
    assert "about 10 s left" in capsys.readouterr().err  # of 20 crops, a fourth of all, 10 are done in 10 s


def test_numbers_agree_with_their_nouns():
    assert [counted(n, "shard") for n in (0, 1, 2, 1282)] == [
        "0 shards",
        "1 shard",
        "2 shards",
        "1,282 shards",
    ]
