"""What is wrong made right, as far as whole shards allow it, and damaged shards removed for `generate` to redo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slg_wds.console import counted
from slg_wds.errors import LabelSetError
from slg_wds.format.manifest.manifest import build_index, encode_index
from slg_wds.labelset.labelset import INDEX, INFO, LabelSet
from slg_wds.verification.shard import DAMAGED, FOREIGN, IMAGE, INDEX_PART, INFO_FILE, MISSING, Problem


def fix(
    labels: LabelSet, problems: Sequence[Problem], delete_damaged: bool, unwanted: Mapping[str, int]
) -> tuple[list[Problem], list[str]]:
    """Mend a set; what is left wrong, and what was done, in words.

    Index parts and _info.json are made again from whole shards. With `delete_damaged`, shards that are not whole, or
    not this set's, are removed, with their index parts and _info.json: until they are made again, they are missing.
    `unwanted` are whole shards to remove too: how many images each has left out, by its name.

    Raises StoreError; LabelSetError, with nothing removed, where every shard is another set's.
    """
    labels.store.check_writable()
    done: list[str] = []
    bad = {p.number: "damaged" for p in problems if delete_damaged and p.kind in (DAMAGED, FOREIGN)}
    if bad:
        _refuse_another_set(labels, problems)
    bad = {**_numbered(labels, unwanted), **bad}
    if bad:
        _remove(labels, sorted(bad), done)
        problems = [
            problem for problem in problems if problem.number not in bad and problem.kind != INFO_FILE
        ]
        problems += [
            Problem(MISSING, f"{why}, and removed", labels.shard_name(number), number=number)
            for number, why in bad.items()
        ]
    left = [problem for problem in problems if problem.kind not in (INDEX_PART, INFO_FILE)]
    for number in sorted({problem.number for problem in problems if problem.kind == INDEX_PART}):
        _rebuild(labels, number, done)
    infos = [problem for problem in problems if problem.kind == INFO_FILE]
    if infos and not bad and all(problem.kind == IMAGE for problem in left):
        labels.store.delete(INFO)
        labels.finish()
        done.append(f"rebuilt {INFO}")
        infos = []
    return [*left, *infos], done


def _numbered(labels: LabelSet, unwanted: Mapping[str, int]) -> dict[int, str]:
    """Why each shard that left images out is removed, by its number."""
    numbers = {labels.shard_name(number): number for number in range(labels.num_shards if unwanted else 0)}
    return {numbers[name]: f"left out {counted(count, 'image')}" for name, count in unwanted.items()}


def _refuse_another_set(labels: LabelSet, problems: Sequence[Problem]) -> None:
    foreign = {problem.number for problem in problems if problem.kind == FOREIGN}
    if len(foreign) > 1 and len(foreign) == labels.num_shards - len(labels.missing()):
        raise LabelSetError(
            "every shard is whole and says that it belongs to another set: plan or slg.json are not theirs",
            url=labels.url,
            hint="nothing was removed; put back the plan and slg.json that the shards were made with",
        )


def _remove(labels: LabelSet, numbers: Sequence[int], done: list[str]) -> None:
    # First what says that all is there, then what is damaged: wherever this ends, no reader is misled.
    labels.store.delete(INFO)
    for number in numbers:
        labels.store.delete(f"{INDEX}/{labels.plan.shard_names[number]}")
        labels.store.delete(labels.shard_name(number))
        done.append(f"removed {labels.shard_name(number)}")
    labels.reopen()  # a run beside this one may just have counted what is removed now


def _rebuild(labels: LabelSet, number: int, done: list[str]) -> None:
    name = f"{INDEX}/{labels.plan.shard_names[number]}"
    data = encode_index(build_index(labels.shard(number), labels.plan, number))
    labels.store.delete(name)
    labels.store.create(name, data)
    done.append(f"rebuilt {name}")
