"""The same global batches for any ranks, threads and resume points, with real processes too."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import slg_wds
from slg_wds.errors import ReplayError
from support.models.names import TINY
from support.paths import TESTS
from support.sets.replay_sets import comparable, make

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

COUNT = 300
RANKS, THREADS = (1, 2, 3, 5, 8), (1, 4)


@pytest.fixture(scope="module")
def labels(photographs, tmp_path_factory):
    """An embedded set of 300 images of 60 pixels in shards of 17, 8 crops of each."""
    folder = tmp_path_factory.mktemp("many")
    paths = sorted((photographs / "train").rglob("*.jpg"))
    for number in range(COUNT):
        with Image.open(paths[number % len(paths)]) as image:
            image.thumbnail((60, 60))
            target = folder / "images" / f"class{number % 7}" / f"{number:03d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.rotate(number // len(paths)).save(target)
    more = {"num_crops": 8, "samples_per_shard": 17, "embed_images": "original"}
    return make(folder / "images", folder / "labels", **more)


def open_ranks(labels: str, ranks: int, **options) -> list[slg_wds.SoftLabelLoader]:
    common = {"crops_per_image": 2, "threads": 2, "seed": 7, **options}
    return [slg_wds.SoftLabelLoader(labels, rank=r, world_size=ranks, **common) for r in range(ranks)]


def together(parts: list[list[tuple]]) -> list[tuple]:
    """Join the content of all ranks' parts, batch by batch."""
    return [
        tuple(
            b"".join(one) if isinstance(one[0], bytes) else sum(one, ()) for one in zip(*batch, strict=True)
        )
        for batch in zip(*parts, strict=True)
    ]


@pytest.mark.parametrize(("lanes", "window"), [(None, 1), (7, 3)])
@pytest.mark.parametrize("last", ["drop", "pad"])
def test_matrix_of_ranks_threads_and_resume_points(labels, lanes, window, last):
    order = {
        "global_batch_size": 240,
        "lanes": lanes,
        "window": window,
        "last": last,
    }  # 120 = lcm of the ranks
    whole = comparable(open_ranks(labels, 1, **order)[0])
    assert len(whole) == (2 if last == "drop" else 3)
    loader = open_ranks(labels, 1, **order)[0]
    states = [loader.state_dict(), *(json.loads(json.dumps(loader.state_dict())) for _ in loader)]
    for ranks, threads in itertools.product(RANKS, THREADS):
        for start, state in enumerate(states):
            loaders = open_ranks(labels, ranks, **{**order, "threads": threads})
            for one in loaders:
                one.load_state_dict(state)
            place = (ranks, threads, start)
            assert together([comparable(one) for one in loaders]) == whole[start:], place
            assert {one.epoch for one in loaders} == {1}, place


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_gradients_of_a_padded_batch_are_those_of_one_process(labels, ranks):
    """DDP takes the mean over processes: of the last batch's 60 images, some have a part and others none."""

    def gradients(loaders):
        """The means over processes, [batch], of the gradient of a linear student."""
        found = []
        for parts in zip(*loaders, strict=True):
            head = torch.nn.Linear(3, parts[0].labels.num_classes, bias=False)
            torch.nn.init.zeros_(head.weight)
            for part in parts:
                loss = slg_wds.SoftCrossEntropy()(head(part.images.float().mean((2, 3)) / 255), part.labels)
                (part.weight * loss / len(parts)).backward()
            found.append(head.weight.grad)
        return found

    order = {"global_batch_size": 240, "last": "pad"}
    weights = [[batch.weight for batch in loader] for loader in open_ranks(labels, ranks, **order)]
    assert {tuple(of_rank[:-1]) for of_rank in weights} == {(1.0, 1.0)}
    assert all(type(one) is float for of_rank in weights for one in of_rank) and weights[-1][-1] < 1
    one, several = (gradients(open_ranks(labels, count, **order)) for count in (1, ranks))
    for of_one, of_several in zip(one, several, strict=True):
        torch.testing.assert_close(of_several, of_one)


def test_two_eight_three_ranks_are_one_walk(labels):
    """A global batch of 24 images, over the end of an epoch, each change in the middle of one."""
    order = {"global_batch_size": 48}
    single = open_ranks(labels, 1, **order)[0]
    expected = [*comparable(single), *comparable(single)]
    assert len(single) == COUNT // 24 == 12 and len(expected) == 24
    found, state = [], single.state_dict() | {"epoch": 0, "batches": 0}
    for ranks, count in ((2, 5), (8, 11), (3, 8)):
        loaders = open_ranks(labels, ranks, **order)
        for one in loaders:
            one.load_state_dict(state)
        endless = [itertools.chain.from_iterable(itertools.repeat(one)) for one in loaders]
        found += together([comparable(itertools.islice(walk, count)) for walk in endless])
        states = [one.state_dict() for one in loaders]
        assert all(one == states[0] for one in states)
        state = json.loads(json.dumps(states[0]))
    assert found == expected
    assert (state["epoch"], state["batches"]) == (1, 12)


def torchrun(ranks: int, labels: str, folder: Path, batches: int) -> list[list[tuple[str, int]]]:
    """Return (key, crop) of each global batch that the ranks of a real run received."""
    script = TESTS / "support" / "jobs" / "walking_rank.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    words = [*launcher, str(script), labels, str(folder), str(batches)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
    return [
        [pair for keys, crops in batch for pair in zip(keys, crops, strict=True)]
        for batch in zip(*parts, strict=True)
    ]


@pytest.fixture(scope="module")
def walked(labels):
    """(key, crop) of each batch of one rank, and the state after each."""
    loader = slg_wds.SoftLabelLoader(labels, global_batch_size=24, crops_per_image=2)
    seen = [
        (list(zip(batch.key, batch.crop.tolist(), strict=True)), json.dumps(loader.state_dict()))
        for batch in loader
    ]
    return [batch for batch, _ in seen], [state for _, state in seen]


@pytest.mark.timeout(600)
def test_three_processes_go_on_from_one(labels, walked, tmp_path):
    expected, states = walked
    (tmp_path / "state.json").write_text(states[8])
    assert torchrun(3, labels, tmp_path, 7) == expected[9:16]
    assert (tmp_path / "state.json").read_text() == states[15]


@pytest.mark.slow
def test_three_processes_saved_and_restored(labels, walked, tmp_path):
    expected, states = walked
    first = torchrun(3, labels, tmp_path, 9)
    assert (tmp_path / "state.json").read_text() == states[8]
    second = torchrun(3, labels, tmp_path, 6)
    third = torchrun(2, labels, tmp_path, 0)
    assert first + second + third == expected and len(third) == len(expected) - 15 > 0
    assert json.loads((tmp_path / "state.json").read_text())["epoch"] == 1


@pytest.mark.parametrize(("lanes", "window"), [(None, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize(("last", "batch"), [("drop", 6), ("pad", 24)])
def test_batches_do_not_depend_on_ranks_threads_or_resume(embedded, lanes, window, last, batch):
    common = {
        "lanes": lanes,
        "window": window,
        "last": last,
        "global_batch_size": batch,
        "crops_per_image": 1,
    }
    whole = comparable(embedded.loader(threads=1, **common))
    assert comparable(embedded.loader(threads=4, prefetch=7, **common)) == whole
    for ranks in (2, 3):
        parts = [comparable(embedded.loader(rank=r, world_size=ranks, **common)) for r in range(ranks)]
        for t, batch in enumerate(whole):
            for field in range(4):
                assert sum((part[t][field] for part in parts), ()) == batch[field]
            assert b"".join(part[t][4] for part in parts) == batch[4]
    state = None
    for resume in (0, 1, len(whole)):
        loader = embedded.loader(**common)
        iterator = iter(loader)
        head = comparable([next(iterator) for _ in range(resume)])
        state = json.loads(json.dumps(loader.state_dict()))
        iterator.close()
        again = embedded.loader(**common)
        again.load_state_dict(state)
        assert again.state_dict() == state
        again.set_epoch(0)
        assert head + comparable(again) == whole
        assert again.epoch == 1


def test_a_state_moves_between_numbers_of_ranks(embedded):
    common = {"global_batch_size": 6, "crops_per_image": 1, "lanes": 4}
    whole = comparable(embedded.loader(**common))
    state, seen = None, []
    for ranks, batches in ((2, 2), (6, 1), (3, 3)):
        loaders = [embedded.loader(rank=r, world_size=ranks, threads=1, **common) for r in range(ranks)]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        iterators = [iter(loader) for loader in loaders]
        for _ in range(batches):
            parts = comparable(next(iterator) for iterator in iterators)
            seen.append(sum((part[0] for part in parts), ()))
        states = [loader.state_dict() for loader in loaders]
        assert all(one == states[0] for one in states)
        state = states[0]
        for iterator in iterators:
            iterator.close()
    assert seen == [batch[0] for batch in whole]


def test_a_state_beyond_the_last_batch_is_refused(embedded):
    loader = embedded.loader()
    state = {**loader.state_dict(), "batches": len(loader)}
    loader.load_state_dict(state)
    with pytest.raises(ReplayError, match=f"at batch {len(loader) + 1} of an epoch of {len(loader)}"):
        loader.load_state_dict({**state, "batches": len(loader) + 1})


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"global_batch_size": 12},
        {"lanes": 2},
        {"window": 2},
        {"crops_per_image": 4},
        {"shuffle": False},
    ],
)
def test_a_state_of_another_order_is_refused(embedded, places, other):
    state = embedded.loader(**other).state_dict()
    with pytest.raises(ReplayError, match=r"another order: .+ there and .+ here"):
        embedded.loader().load_state_dict(state)
    with pytest.raises(ReplayError, match="digest is"):
        embedded.loader().load_state_dict(places["folder"].loader().state_dict())


def test_a_state_of_other_kept_crops_is_refused(embedded, photographs, tmp_path):
    """What a filter keeps of several sets goes by their weights."""
    second = make(photographs, tmp_path / "second", arch=TINY.replace(":tiny", ":other"))

    def loader(*weights: float) -> slg_wds.SoftLabelLoader:
        common = {"global_batch_size": 4, "crops_per_image": 2, "crop_filter": ("confidence", 0.4, 0.9)}
        return slg_wds.SoftLabelLoader([embedded.labels, second], weights=weights, threads=2, **common)

    state = loader(3, 1).state_dict()
    loader(6, 2).load_state_dict(state)
    with pytest.raises(
        ReplayError, match=r"kept_crops is .+ resume with the same .+ crop filter and weights"
    ):
        loader(1, 3).load_state_dict(state)
