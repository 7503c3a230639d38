"""A mistake on the command line is one line: which option, what was given, what is allowed."""

from __future__ import annotations

import dataclasses
import types
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest
import tyro

from slg_wds.cli import COMMANDS, _resolve, main
from slg_wds.config.arguments import parse

GENERATE = ["generate", "images", "-a", "resnet18", "--save-path", "labels"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["generate"],
            "IMAGES and -a MODEL are missing; for example: "
            "slg-wds generate /data/imagenet -a resnet50 --save-path /data/labels",
        ),
        (GENERATE[:-2], "--save-path is missing; say where the label set goes"),
        (["inspect", "--json"], "SET is missing; for example: slg-wds inspect /data/labels"),
        (
            ["report", "-o", "x.html"],
            "SET ... is missing; for example: slg-wds report /data/labels -o report.html --images /data/imagenet",
        ),
        (
            ["ensemble", "a", "b"],
            "--save-path FOLDER|URL is missing; for example: "
            "slg-wds ensemble /data/a /data/b --save-path /data/both",
        ),
        ([*GENERATE, "--num_crops", "abc"], "--num-crops 'abc' is not a whole number; give --num-crops N"),
        ([*GENERATE, "--num-crops", "2.5"], "--num-crops '2.5' is not a whole number; give --num-crops N"),
        ([*GENERATE, "--gpu=first"], "--gpu 'first' is not a whole number; give --gpu N"),
        ([*GENERATE, "-j", "x"], "--workers 'x' is not a whole number; give -j N"),
        ([*GENERATE, "--ratio", "1", "4/3"], "--ratio '4/3' is not a number; give --ratio LOW HIGH"),
        ([*GENERATE, "--ratio", "1"], "--ratio lacks a value: --ratio LOW HIGH"),
        ([*GENERATE, "--ratio", "1", "--dry-run"], "--ratio lacks a value: --ratio LOW HIGH"),
        (["evaluate", "images", "-a"], "--arch lacks a value: -a MODEL"),
        (
            [*GENERATE, "--values", "log9"],
            "--values 'log9' is not one of float32, float16, log8, int8; did you mean log8?",
        ),
        ([*GENERATE, "--engine", "slurm"], "--engine 'slurm' is not one of local, ray"),
        ([*GENERATE, "--num_crop", "4"], "there is no option --num-crop; did you mean --num-crops?"),
        ([*GENERATE, "--num-cropz=4"], "there is no option --num-cropz; did you mean --num-crops?"),
        (
            ["inspect", "--store-optoin", "a=b", "set"],
            "there is no option --store-optoin; did you mean --store-option?",
        ),
        (["evaluate", "x", "-a", "m", "--linear"], "there is no option --linear; did you mean --no-linear?"),
        (["inspect", "set", "-x"], "there is no option -x; slg-wds inspect --help lists the options"),
        ([*GENERATE, "more"], "'more' is one argument too many; see slg-wds generate --help"),
        ([*GENERATE, "--extendable", "yes"], "'yes' is one argument too many; see slg-wds generate --help"),
        (
            [*GENERATE, "--class-map", "nowhere"],
            "the class map nowhere cannot be read: No such file or directory",
        ),
        ([*GENERATE, "--flip-prob", "3"], "flip probability 3 is not inside 0..1; see --flip-prob"),
        *(
            (words, "this is written to a folder of this machine, not to a URL (url s3://b/x); give a path")
            for words in (
                ["demo", "s3://b/x"],
                ["export", "set", "s3://b/x"],
                ["report", "set", "-o", "s3://b/x"],
                ["prototypes", "set", "-k", "2", "--save-path", "s3://b/x"],
                ["train", "-a", "m", "--softlabel_path", "set", "--save_checkpoint_path", "s3://b/x"],
            )
        ),
        *(
            ([*words, ""], f"{option} is empty; a variable of the shell may not be set")
            for words, option in (
                (["inspect"], "SET"),
                (["demo"], "FOLDER"),
                (["export", "set"], "LABEL_FILES"),
                (["ensemble", "--save-path", "b", "a"], "SET ..."),
                (["ensemble", "a", "b", "--save-path"], "--save-path"),
                (["report", "set", "-o"], "--output"),
                (["prototypes", "set", "-k", "2", "--save-path"], "--save-path"),
                (["verify", "set", "--images"], "--images"),
                ([*GENERATE, "--list"], "--list"),
                (["train", "-a", "m", "--softlabel_path"], "--softlabel_path"),
                (
                    ["train", "-a", "m", "--softlabel_path", "set", "--save_checkpoint_path"],
                    "--save_checkpoint_path",
                ),
                (["train", "-a", "m", "--softlabel_path", "set"], "IMAGES"),
            )
        ),
        ([*GENERATE[:-1], ""], "--save-path is missing; say where the label set goes"),
        ([*GENERATE, "--label_type", "nonsense"], "unknown label type 'nonsense'; known: hard, smoothing,"),
    ],
)
def test_a_mistake_is_said_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith(f"slg-wds {arguments[0]}: {said}") and not out
    assert said.endswith(",") or line.endswith(said)
    assert not list(tmp_path.iterdir())


def words_for(kind: object) -> list[str]:
    """A value of a type, as words of a command line; none for a flag."""
    if get_origin(kind) is Literal:
        return [get_args(kind)[-1]]
    if get_origin(kind) is tuple:
        return [word for part in get_args(kind) for word in ([] if part is ... else words_for(part))]
    if get_origin(kind) in (Union, types.UnionType):
        return words_for(next(part for part in get_args(kind) if part is not type(None)))
    return {int: ["3"], float: ["0.25"], str: ["word"], bool: [], dict[str, str]: ["key=value"]}[kind]


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.config])
def test_options_have_the_values_that_tyro_alone_gives_them(name):
    config = _resolve(COMMANDS[name].config)
    words, places = [], []
    for field in dataclasses.fields(config):
        hint = get_type_hints(config, include_extras=True)[field.name]
        about = getattr(hint, "__metadata__", ())
        values = words_for(get_type_hints(config)[field.name])
        if tyro.conf.Positional in about:
            places += values
            continue
        given = next((one.name for one in about if getattr(one, "name", None)), field.name)
        spelling = {"store_options": "--store-option"}.get(field.name, f"--{given}")
        words += [spelling.replace("--", "--no-") if field.default is True else spelling, *values]
    assert len(words) > 1
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    assert parse(config, name, [*places, *words]) == tyro.cli(config, args=[*places, *words], config=markers)
