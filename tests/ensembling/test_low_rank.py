"""Low-rank sets through the commands that read sets: ensemble, verify, inspect, report, export, extension."""

from __future__ import annotations

import json

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from support.models.names import TINY
from support.programs import tool
from support.sets.low_rank_sets import divergence

KILL = tool("kill_test")
COMMON = {
    "teacher_source": "private",
    "arch": TINY,
    "num_crops": 30,
    "num_seg": 16,
    "samples_per_shard": 9,
    "threads_per_forward": 1,
}


def make(photographs, target, **options):
    slg_wds.generate(
        slg_wds.GenerateConfig(data=str(photographs), save_path=str(target), **{**COMMON, **options})
    )
    return str(target)


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("low_rank_sets")
    return {
        "lowrank": make(photographs, folder / "lowrank", label_type="lowrank"),
        "full": make(photographs, folder / "full", label_type="full", values="float32"),
        "topk": make(photographs, folder / "topk", label_type="shared_tail_k5"),
    }


def rows(url):
    return {record.key: record.distribution().astype(float) for record in slg_wds.open_labels(url)}


def merged(sets, target, *names, **options):
    config = slg_wds.EnsembleConfig(
        sets=tuple(sets[name] for name in names), save_path=str(target), processes=1, **options
    )
    return slg_wds.ensemble(config)


def test_the_mean_of_sets_is_coded_to_the_error_asked_for(sets, tmp_path):
    weights = (0.5, 0.3, 0.2)
    result = merged(
        sets, tmp_path / "set", "full", "lowrank", "topk", label_type="lowrank", max_kl=0.05, weights=weights
    )
    parts, kls = [rows(sets[name]) for name in ("full", "lowrank", "topk")], []
    parents = {record.key: record.low_rank.kl.mean for record in slg_wds.open_labels(sets["lowrank"])}
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    for record in labels:
        exact = sum(w * part[record.key] for w, part in zip(weights, parts, strict=True))
        each = divergence(exact / exact.sum(axis=1, keepdims=True), record.distribution())
        kl = record.low_rank.kl
        assert each.mean() <= 0.05 and each.max() <= 0.25
        assert np.allclose((each.mean(), each.max()), (kl.mean, kl.worst), rtol=2e-3, atol=1e-5)
        assert (kl.against, kl.parents) == ("labels", (None, parents[record.key], None))
        kls.append(each.mean())
    assert labels.identity.max_kl == 0.05 and "lowrank" in labels.description.requires
    text = "\n".join(result.summary())
    assert f"mean KL {np.mean(kls):.4f} nats from the exact mean of the labels read" in text
    assert main(["verify", str(tmp_path / "set"), "--processes", "1"]) == 0


def test_alone_a_low_rank_set_keeps_its_labels_or_is_coded_anew(sets, tmp_path):
    before = {record.key: record for record in slg_wds.open_labels(sets["lowrank"])}
    merged(sets, tmp_path / "kept", "lowrank", samples_per_shard=20)
    for record in slg_wds.open_labels(str(tmp_path / "kept")):
        assert record.low_rank.kl == before[record.key].low_rank.kl
        assert np.array_equal(record.distribution(), before[record.key].distribution())
    merged(sets, tmp_path / "coarser", "lowrank", max_kl=0.3)
    for record in slg_wds.open_labels(str(tmp_path / "coarser")):
        kl = record.low_rank.kl
        assert (
            kl.against == "labels" and kl.mean <= 0.3 and kl.parents == (before[record.key].low_rank.kl.mean,)
        )


@pytest.mark.parametrize("kind", ["full", "hard", "marginal_smoothing_k3", "shared_tail_k5"])
def test_other_types_are_made_of_it(sets, tmp_path, kind):
    result = merged(
        sets, tmp_path / "set", "lowrank", label_type=kind, values=None if kind == "hard" else "float32"
    )
    before = {record.key: record for record in slg_wds.open_labels(sets["lowrank"])}
    for record in slg_wds.open_labels(str(tmp_path / "set")):
        rule = "hard" if kind == "hard" else None
        wanted = before[record.key].distribution(rule=rule)
        found = record.distribution()
        order = np.argsort(-wanted, axis=1, kind="stable")[:, : record.k]
        assert np.allclose(
            np.take_along_axis(found, order, 1), np.take_along_axis(wanted, order, 1), atol=1e-6
        )
        assert record.low_rank is None
    assert "KL divergence" in "\n".join(result.summary())
    assert slg_wds.open_labels(str(tmp_path / "set")).identity.max_kl is None


def test_bytes_of_a_merge_do_not_depend_on_processes(sets, tmp_path):
    for processes in (1, 2):
        slg_wds.ensemble(
            slg_wds.EnsembleConfig(
                sets=(sets["full"], sets["lowrank"]), save_path=str(tmp_path / str(processes)),
                label_type="lowrank", processes=processes,
            )
        )  # fmt: skip
    assert KILL.contents(tmp_path / "1") == KILL.contents(tmp_path / "2")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"label_type": "lowrank", "values": "log8"}, "--values is not for --label-type lowrank"),
        ({"values": "log8"}, "--values is not for --label-type lowrank"),
        ({"label_type": "hard", "max_kl": 0.1}, "--max-kl is for --label-type lowrank, not hard"),
        ({"max_kl": float("nan")}, "not a number above 0"),
    ],
)
def test_contradictions_are_refused(sets, tmp_path, options, named):
    with pytest.raises(slg_wds.errors.UsageError, match=named):
        merged(sets, tmp_path / "set", "lowrank", **options)
    with pytest.raises(slg_wds.errors.UsageError, match="--max-kl is for"):
        merged(sets, tmp_path / "set", "topk", max_kl=0.1)


def test_hard_labels_cannot_become_low_rank(photographs, sets, tmp_path):
    hard = make(photographs, tmp_path / "hard", label_type="hard", num_crops=4)
    with pytest.raises(slg_wds.errors.UsageError, match="needs probabilities"):
        merged({"hard": hard}, tmp_path / "set", "hard", label_type="lowrank")


def test_a_set_is_extended_and_joined(photographs, sets, tmp_path):
    more = make(photographs, tmp_path / "more", label_type="lowrank", num_crops=50, extend=sets["lowrank"])
    both = {**sets, "more": more}
    merged(both, tmp_path / "set", "lowrank", "more")
    first, last = rows(sets["lowrank"]), rows(more)
    for record in slg_wds.open_labels(str(tmp_path / "set")):
        assert record.num_crops == 50 and record.low_rank.kl.against == "teacher"
        assert np.allclose(
            record.distribution(), np.concatenate([first[record.key], last[record.key]]), atol=1e-7
        )
    assert main(["verify", str(tmp_path / "set"), "--processes", "1"]) == 0
    whole = make(photographs, tmp_path / "whole", label_type="lowrank", num_crops=50)
    loader = slg_wds.SoftLabelLoader([sets["lowrank"], more], images=str(photographs), global_batch_size=8)
    with pytest.raises(slg_wds.errors.SlgWdsError):  # crops that were coded apart are not those of one run
        other = slg_wds.SoftLabelLoader(whole, images=str(photographs), global_batch_size=8)
        other.load_state_dict(loader.state_dict())


def test_crops_are_taken_from_it(photographs, sets, tmp_path):
    other = make(photographs, tmp_path / "other", label_type="hard", reference_path=sets["lowrank"])
    before = {record.key: record for record in slg_wds.open_labels(sets["lowrank"])}
    for record in slg_wds.open_labels(other):
        assert np.array_equal(record.crops, before[record.key].crops)


def test_verify_asks_the_teacher_again(photographs, sets, capsys):
    command = [
        "verify",
        "-a",
        TINY,
        "--teacher-source",
        "private",
        "--teacher",
        str(photographs),
        "--processes",
        "1",
    ]
    assert main([*command, sets["lowrank"]]) == 0
    assert "the labels are the teachers'" in capsys.readouterr().out


def test_inspect_shows_the_divergence_and_the_parts(sets, capsys):
    assert main(["inspect", sets["lowrank"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    kls = [record.low_rank.kl for record in slg_wds.open_labels(sets["lowrank"])]
    figures = found["low_rank"]
    assert figures["against"] == "teacher" and 0 < figures["kl"]["mean"] <= 0.1
    assert figures["kl"]["largest"] <= max(kl.mean for kl in kls) + 1e-9
    assert figures["worst_kl"] <= max(kl.worst for kl in kls) + 1e-9
    assert found["bytes_per_crop"]["low_rank"] > 0
    assert main(["inspect", sets["lowrank"]]) == 0
    assert "mean KL at most 0.1 nats" in capsys.readouterr().out
    key = next(iter(rows(sets["lowrank"])))
    assert main(["inspect", sets["lowrank"], "--key", key, "--json"]) == 0
    image = json.loads(capsys.readouterr().out)["image"]
    best = rows(sets["lowrank"])[key][0]
    assert image["crops"][0]["classes"][0]["probability"] == pytest.approx(best.max(), rel=1e-5)
    assert image["kl"]["against"] == "teacher"


def test_report_draws_it_beside_another(sets, tmp_path):
    assert main(["report", sets["lowrank"], sets["full"], "-o", str(tmp_path / "page.html")]) == 0
    assert "mean KL at most 0.1 nats" in (tmp_path / "page.html").read_text()


def test_it_is_exported_as_full_labels(photographs, sets, tmp_path):
    assert main(["export", sets["lowrank"], str(tmp_path / "fkd")]) == 0
    slg_wds.import_fkd(
        slg_wds.ImportConfig(
            fkd_dir=str(tmp_path / "fkd"),
            images=str(photographs),
            save_path=str(tmp_path / "set"),
            num_classes=20,
        )
    )
    before, after = rows(sets["lowrank"]), rows(str(tmp_path / "set"))
    assert before.keys() == after.keys()
    assert all(np.allclose(before[key], after[key], atol=1e-6) for key in before)
