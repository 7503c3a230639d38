"""args.yaml runs a training again; a file of flags is checked as a command line is."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest
import yaml

from slg_wds.training.command import main
from slg_wds.training.flags import parse
from slg_wds.training.flags.args_file import write_args
from slg_wds.training.flags.definitions import make_parser
from slg_wds.training.flags.parsers import KeyValues, Several
from support.training import common, same, train

VIT = ("-a", "test_vit", "--size", "32", "--drop-path", "0.2", "--model-kwargs", "proj_drop_rate=0.1")
ADAMW = (
    "--opt",
    "adamw",
    "--wd",
    "0.05",
    "--filter-bias-and-bn",
    "--clip-grad",
    "1",
    "--grad-accum-steps",
    "2",
)
COSINE = (
    "--sched",
    "cosine",
    "--warmup-epochs",
    "1",
    "--min-lr",
    "1e-5",
    "--num_crops",
    "1",
    "--epochs",
    "2",
)


def test_args_yaml_ends_with_the_very_weights(labels, photographs, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train(first, labels, photographs, *VIT, *ADAMW, *COSINE, "--ema", "0.9", "--mixup_cutmix")
    assert main(["--config", str(first / "args.yaml"), "--save_checkpoint_path", str(second)]) == 0
    same(first, second)
    one, two = (yaml.safe_load((folder / "args.yaml").read_text()) for folder in (first, second))
    assert two == {**one, "save_checkpoint_path": str(second)}


def test_the_command_that_is_named_at_the_end_validates_the_best_student_again(
    labels, photographs, tmp_path, capsys
):
    """On images that are shown to it as they were, though the labels and so their teacher are not opened."""
    folder, held_out = tmp_path / "my student", ("--val-softlabels", labels, "--val-images", str(photographs))
    train(folder, labels, photographs, *COSINE, "-a", "test_resnet", "--size", "40", *held_out)
    *lines, named = capsys.readouterr().out.splitlines()
    scores = [line.split(": ", 1)[1] for line in lines if " agreement " in line]
    best = max(scores, key=lambda one: float(re.search(r"agreement ([\d.]+)%", one)[1]))
    command = re.fullmatch(r"the best student: .*; slg-wds train (.*) validates it again", named)[1]
    assert main(shlex.split(command)) == 0
    assert len(scores) == 2 and best in capsys.readouterr().out
    checkpoint = str(folder / "model_best.pth.tar")
    words = ["-a", "test_resnet", "-e", "--resume", checkpoint, *held_out]
    assert main(words) == 0 and best in capsys.readouterr().out


def other_value(action: argparse.Action) -> list[str]:
    """Words that give a flag another value than its own."""
    flag = action.option_strings[-1]
    if isinstance(action, argparse.BooleanOptionalAction):
        return [flag]  # --no-...
    if isinstance(action, KeyValues):
        return [flag, "a=1e-3", "b=[1, 2]", "c=(3,)", "d=None", "e=it's", "f='7'", "g={'h': (1,)}", "i="]
    if isinstance(action, Several):
        values = action.choices or ["one", "-two=2"]
        return [f"{flag}={value}" for value in list(values)[-2:]]
    if action.nargs == 0:
        return [flag]
    if action.nargs == 3:
        return [flag, "confidence", "0.5", "1"]
    if action.nargs is not None:
        return [flag, "5", "7"]
    if action.choices:
        return [flag, list(action.choices)[-1]]
    return [f"{flag}={3 if action.type is int else 0.25 if action.type is float else '-x: y #z'}"]


FLAGS = [action for action in make_parser("")._actions if action.dest not in ("help", "config", "data")]


@pytest.mark.parametrize("action", FLAGS, ids=lambda action: action.dest)
def test_every_flag_comes_back_from_the_file(action, tmp_path):
    words = other_value(action)
    given = parse(words).flags
    assert given != parse([]).flags
    write_args(tmp_path, given)
    assert parse(["--config", str(tmp_path / "args.yaml")]).flags == given


def test_a_training_that_goes_on_by_its_file_says_of_no_flag_that_it_changed(
    labels, photographs, tmp_path, capsys
):
    words = ("-a", "test_resnet", "--size", "40", *ADAMW, "--opt-kwargs", "betas=(0.9,0.95)", "--epochs")
    train(tmp_path / "out", labels, photographs, *words, "1")
    config = ["--config", str(tmp_path / "out" / "args.yaml"), "--epochs", "2", "--resume", "auto"]
    assert main(config) == 0
    resumed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("resumed"))
    assert resumed.endswith("; changed: epochs 1 -> 2")


def test_the_images_and_a_seed_that_was_not_given_come_back(tmp_path):
    write_args(tmp_path, parse(["--schedule", "3", "6", "--", "/data/imagenet"]).flags)
    back = parse(["-c", str(tmp_path / "args.yaml")])
    assert back.data == "/data/imagenet" and back.schedule == [3, 6]
    assert (back.seed, back.deterministic) == (0, False)


def test_flags_of_the_command_line_come_before_those_of_the_file(tmp_path):
    write_args(tmp_path, parse(["--lr", "0.3", "--softlabel_path", "a", "--softlabel_path", "b"]).flags)
    words = ["--config", str(tmp_path / "args.yaml"), "--softlabel_path", "c", "-b", "8"]
    args = parse(words)
    assert (args.lr, args.softlabel_path, args.batch_size) == (0.3, ["c"], 8)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "lr: 1e-3\nepochs: 5\nsoftlabel_path: [a, b]\nlog: tensorboard\nama: null\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "lr: 1e-3\nepochs: 5\nsoftlabel_path: [a, b]\nlog: tensorboard\nsize:\n"
    )
    args = parse(["--config", str(tmp_path / "mine.yaml")])
    assert (args.lr, args.epochs, args.softlabel_path, args.log) == (0.001, 5, ["a", "b"], ["tensorboard"])
    assert args.size is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1\n", "there is no flag 'learning_rate'"),
        ("batchsize: 1\n", "near names are batch_size"),
        ("lr: fast\n", "argument --lr/--learning-rate: 'fast' is not a number"),
        ("lr: [1, 2]\n", "'[1, 2]' is not a number"),
        ("opt: lamb\n", "invalid choice: 'lamb'"),
        ("cos: maybe\n", "cos is 'maybe', not true or false"),
        ("model_kwargs: [5]\n", "'5' is not KEY=VALUE"),
        ("- lr\n", "has no lines `name: value`"),
        ("lr: [\n", "is not YAML"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_mistakes_in_the_file_are_one_line_that_names_it(tmp_path, capsys, text, message):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        parse(["--config", str(path)])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and errors.count("\n") == 1
    assert message in errors and "mine.yaml" in errors


def test_the_flag_is_written_out(capsys):
    with pytest.raises(SystemExit):
        parse(["--conf", "mine.yaml"])
    assert "--config must be written out" in capsys.readouterr().err


def test_secrets_are_left_out_and_named(tmp_path):
    secret = [
        "--store-option",
        "secret_access_key=hunter2",
        "--val-softlabels",
        "https://a.org/b?X-Amz-Signature=hunter2",
    ]
    args = parse([*common("s3://bucket/labels"), *secret])
    write_args(tmp_path, args.flags)
    text = (tmp_path / "args.yaml").read_text()
    assert "hunter2" not in text
    assert "# store_option is not here" in text and "# val_softlabels is not here" in text
    assert parse(["--config", str(tmp_path / "args.yaml")]).softlabel_path == ["s3://bucket/labels"]
