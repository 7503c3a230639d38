"""Repairs a set: makes index parts and _info.json again, and removes damaged shards.

The command that made the set then makes the removed shards anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slg_wds.console import counted
from slg_wds.errors import LabelSetError
from slg_wds.format.manifest.index import build_index, encode_index
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.objects import INDEX, INFO
from slg_wds.labelset.publishing import finish_set, reopen_set
from slg_wds.verification.problems import DAMAGED, FOREIGN, IMAGE, INDEX_PART, INFO_FILE, MISSING, Problem


def fix(
    labels: LabelSet, problems: Sequence[Problem], delete_damaged: bool, unwanted: Mapping[str, int]
) -> tuple[list[Problem], list[str]]:
    """Mend a set as far as its whole shards allow.

    Index parts and _info.json are made again from whole shards. Removed shards lose their index parts, and the set its
    _info.json; they are missing until the command that made the set makes them again.

    Args:
        labels: the label set.
        problems: what is wrong with it.
        delete_damaged: remove shards that are damaged or belong to another set.
        unwanted: whole shards to remove too: how many images each left out, by the shard's name.

    Returns:
        The problems that remain, and what was done, in words.

    Raises:
        StoreError: the set cannot be changed.
        LabelSetError: every shard belongs to another set. Nothing has been removed.
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
        finish_set(labels)
        done.append(f"rebuilt {INFO}")
        infos = []
    return [*left, *infos], done


def _numbered(labels: LabelSet, unwanted: Mapping[str, int]) -> dict[int, str]:
    """Return the reason to remove each unwanted shard, by its number."""
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
    # _info.json goes first, because it says that every shard is there: if this is interrupted, no reader is misled.
    labels.store.delete(INFO)
    for number in numbers:
        labels.store.delete(f"{INDEX}/{labels.plan.shard_names[number]}")
        labels.store.delete(labels.shard_name(number))
        done.append(f"removed {labels.shard_name(number)}")
    reopen_set(labels)  # another run may have finished the set just now, counting the removed shards


def _rebuild(labels: LabelSet, number: int, done: list[str]) -> None:
    name = f"{INDEX}/{labels.plan.shard_names[number]}"
    data = encode_index(build_index(labels.shard(number), labels.plan, number))
    labels.store.delete(name)
    labels.store.create(name, data)
    done.append(f"rebuilt {name}")
