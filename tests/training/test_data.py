"""What a training says of its batches and images."""

from __future__ import annotations

from support.training import PLAIN, train


def test_a_batch_that_is_rounded_is_announced_once(labels, photographs, tmp_path, capsys):
    flags = ("-a", PLAIN, "--num_crops", "7", "--epochs", "1")
    train(tmp_path / "rounded", labels, photographs, *flags, "-b", "20")
    said = capsys.readouterr().out
    assert said.count("-b 20 is rounded up to 21 crops: 7 of each image") == 1
    train(tmp_path / "whole", labels, photographs, *flags, "-b", "21")
    assert "rounded up" not in capsys.readouterr().out
