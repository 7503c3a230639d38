"""The loader: exactly the teacher's crops, every image once, for any number of ranks and threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.errors import IdentityMismatchError, NoImagesError, ReplayError, RuleError, UsageError
from support.models.names import TINY
from support.sets.replay_sets import NUM_CROPS, Made, comparable, make, truth

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture(scope="module")
def kinds(places, photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return {
        **places,
        "tail": Made(
            make(photographs, folder / "tail", label_type="shared_tail_k3", tail_classes=6), str(photographs)
        ),
        "full": Made(
            make(photographs, folder / "full", label_type="full", values="float32"), str(photographs)
        ),
        "hard": Made(make(photographs, folder / "hard", label_type="hard"), str(photographs)),
    }


@pytest.mark.parametrize("kind", ["embedded", "folder", "tars", "tail", "full", "hard"])
def test_pixels_and_labels_are_the_teachers(kinds, kind):
    made = kinds[kind]
    expected = truth(made.labels, made.images)
    loader = made.loader(global_batch_size=16, crops_per_image=4, last="pad")
    seen = Counter()
    for _ in range(3):  # three epochs of 4 crops are all 12
        for batch in loader:
            dense = batch.labels.dense()
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            for i in torch.nonzero(batch.mask)[:, 0].tolist():
                pixels, label = expected[batch.key[i], int(batch.crop[i])]
                assert torch.equal(batch.images[i], pixels)
                torch.testing.assert_close(dense[i], label, atol=2e-6, rtol=0)
                seen[batch.key[i], int(batch.crop[i])] += 1
    assert seen == dict.fromkeys(expected, 1)


def test_targets_values_and_indices_are_the_records(kinds):
    made = kinds["folder"]
    records = {record.key: record for record in slg_wds.open_labels(made.labels)}
    for batch in made.loader():
        for i, key in enumerate(batch.key):
            record, crop = records[key], int(batch.crop[i])
            assert batch.target[i] == record.target
            assert batch.index[i].tolist() == record.index[crop].tolist()
            assert batch.value[i].tolist() == record.value[crop].tolist()


def test_every_image_once_an_epoch_and_crops_without_replacement(embedded):
    loader = embedded.loader(crops_per_image=5, global_batch_size=20)  # 4 images: 36 in 9 batches
    assert len(loader) == 9
    drawn = defaultdict(list)
    orders = []
    for epoch in range(12):  # 5 rounds of 12 crops
        keys = []
        assert loader.epoch == epoch
        for batch in loader:
            keys += batch.key[::5]
            for key, crop in zip(batch.key, batch.crop.tolist(), strict=True):
                drawn[key].append(crop)
        assert len(keys) == 36 == len(set(keys))
        orders.append(tuple(keys))
    assert len(set(orders)) == 12
    assert all(Counter(crops) == dict.fromkeys(range(NUM_CROPS), 5) for crops in drawn.values())


def test_evaluation_walks_the_plan_with_first_crops(embedded):
    keys = list(slg_wds.open_labels(embedded.labels).plan.keys)
    for ranks in (1, 2):
        walked, masks = [[] for _ in range(9)], []
        for rank in range(ranks):
            loader = embedded.loader(evaluation=True, global_batch_size=10, rank=rank, world_size=ranks)
            assert len(loader) == 4
            for t, batch in enumerate(loader):
                walked[t] += [key for key, there in zip(batch.key, batch.mask.tolist(), strict=True) if there]
                masks += batch.mask.tolist()
                assert set(batch.crop[batch.mask].tolist()) <= {0}
                padding = ~batch.mask
                assert not batch.images[padding].any() and (batch.target[padding] == -1).all()
                torch.testing.assert_close(batch.labels.dense().sum(1), torch.ones(len(batch)))
        assert [key for part in walked for key in part] == keys and masks.count(False) == 4


def test_without_shuffling_the_plan_is_walked(embedded):
    keys = list(slg_wds.open_labels(embedded.labels).plan.keys)
    loader = embedded.loader(shuffle=False, global_batch_size=20, crops_per_image=2)
    assert [key for batch in loader for key in batch.key[::2]] == keys[:30]


def test_two_sets_are_averaged_with_weights(kinds, photographs, tmp_path):
    first = kinds["folder"]
    other = TINY.replace(":tiny", ":other")
    more = NUM_CROPS + 3  # of which the crops that both sets have are taken
    second = make(
        photographs, tmp_path / "second", arch=other, label_type="marginal_smoothing_k3", num_crops=more
    )
    a, b = truth(first.labels, first.images), truth(second, first.images)
    loader = slg_wds.SoftLabelLoader(
        [first.labels, second], first.images, global_batch_size=24, weights=[3, 1], threads=2
    )
    assert loader.sets.num_crops == NUM_CROPS
    for batch in loader:
        assert batch.index.shape[1] == 8 == batch.value.shape[1]
        dense = batch.labels.dense()
        for i, place in enumerate(zip(batch.key, batch.crop.tolist(), strict=True)):
            torch.testing.assert_close(dense[i], 0.75 * a[place][1] + 0.25 * b[place][1], atol=2e-6, rtol=0)


def test_sets_of_other_temperature_or_classes_are_refused_as_ensemble_does(kinds, photographs, tmp_path):
    made, classes = kinds["folder"], tmp_path / "classes"
    classes.write_text("\n".join(map(str, range(15))))
    hot = make(photographs, tmp_path / "hot", temp=3.0)
    few = make(photographs, tmp_path / "few", class_subset=str(classes))
    for other, difference in ((hot, "temperature: 1.0 != 3.0"), (few, "num_classes: 20 != 15")):
        with pytest.raises(IdentityMismatchError, match=difference) as by_loader:
            slg_wds.SoftLabelLoader([made.labels, other], made.images, global_batch_size=4)
        config = slg_wds.EnsembleConfig(
            sets=(made.labels, other), save_path=str(tmp_path / "mean"), processes=1
        )
        with pytest.raises(IdentityMismatchError) as by_ensemble:
            slg_wds.ensemble(config)
        assert str(by_loader.value) == str(by_ensemble.value)


def test_a_crop_filter_leaves_out_and_repeats(kinds):
    made = kinds["folder"]
    records = {record.key: record for record in slg_wds.open_labels(made.labels)}
    low, high = 0.25, 0.5
    kept = {k: np.flatnonzero((r.value[:, 0] >= low) & (r.value[:, 0] <= high)) for k, r in records.items()}
    kept = {key: set(crops.tolist()) for key, crops in kept.items() if len(crops)}
    assert 0 < len(kept) < len(records) and any(len(crops) < 4 for crops in kept.values())
    loader = made.loader(crop_filter=("confidence", low, high), global_batch_size=4, crops_per_image=4)
    assert len(loader) == len(kept)
    assert loader.selection.left_out == len(records) - len(kept)
    assert loader.selection.repeating == sum(len(crops) < 4 for crops in kept.values())
    for batch in loader:
        crops = batch.crop.tolist()
        assert set(crops) <= kept[batch.key[0]]
        assert len(set(crops)) == min(4, len(kept[batch.key[0]]))
    ranks = [comparable(made.loader(crop_filter=("tail", 0.0, 0.4), rank=r, world_size=2)) for r in range(2)]
    whole = comparable(made.loader(crop_filter=("tail", 0.0, 0.4)))
    assert [a[0] + b[0] for a, b in zip(*ranks, strict=True)] == [batch[0] for batch in whole]
    with pytest.raises(ReplayError, match="no crop of any image"):
        made.loader(crop_filter=("confidence", 1.5, 2.0))
    with pytest.raises(UsageError, match="confidence or tail"):
        made.loader(crop_filter=("entropy", 0, 1))


def test_break_and_exceptions_end_the_threads(embedded):
    for batch in embedded.loader(prefetch=5):  # noqa: B007
        break
    iterator = iter(embedded.loader(prefetch=5))
    next(iterator)
    iterator.close()
    with pytest.raises(KeyboardInterrupt):
        for batch in embedded.loader():  # noqa: B007
            raise KeyboardInterrupt


def test_a_program_may_end_in_the_middle_of_a_walk(embedded):
    """torch aborts a process whose interpreter ends while its threads run, so none may be left."""
    program = f"""
import slg_wds
loader = slg_wds.SoftLabelLoader({embedded.labels!r}, global_batch_size=24, threads=4, prefetch=8, size=512)
walk = iter(loader)
next(walk)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_trainers_number_of_torch_threads_is_left_alone(embedded):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in embedded.loader():
            assert torch.get_num_threads() == 2
            seen = []
            thread = threading.Thread(target=lambda seen=seen: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            assert seen == [2]
    finally:
        torch.set_num_threads(before)


def test_batches_that_are_kept_are_not_written_over(embedded):
    loader = embedded.loader()
    batches = [batch for _ in range(3) for batch in loader]
    loader.set_epoch(0)
    assert comparable(batches) == comparable(batch for _ in range(3) for batch in loader)


def test_to_a_device_normalises_and_counts_what_was_handed_over(embedded):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    plain = list(embedded.loader())
    moved = embedded.loader().to("cpu", mean, std, torch.float32)
    assert len(moved) == len(plain)
    for number, (batch, other) in enumerate(zip(moved, plain, strict=True), 1):
        assert moved.state_dict()["batches"] == number
        shaped = [torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std)]
        assert torch.equal(batch.images, (other.images.float() / 255 - shaped[0]) / shaped[1])
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.key == other.key and torch.equal(batch.labels.dense(), other.labels.dense())
    assert next(iter(embedded.loader().to("cpu", dtype=torch.bfloat16))).images.dtype == torch.bfloat16


def test_bad_settings_are_refused_by_name(kinds, photographs, tmp_path, monkeypatch):
    made, embedded = kinds["folder"], kinds["embedded"]
    with pytest.raises(UsageError, match=r"no images in it.*pass images="):
        made.loader(images=None)
    with pytest.raises(NoImagesError, match="pass the images that the labels were made from"):
        made.loader(images=str(tmp_path))
    with pytest.raises(ReplayError, match="global batch of 25 crops does not divide by 2 ranks x 4"):
        embedded.loader(global_batch_size=25, crops_per_image=4, rank=0, world_size=2)
    with pytest.raises(ReplayError, match="36 images cannot fill a batch of 50"):
        embedded.loader(global_batch_size=100)
    with pytest.raises(RuleError, match="needs the shared tail"):
        kinds["tail"].loader(rule="shared_tail_k2")
    with pytest.raises(RuleError, match="only the top class"):
        kinds["hard"].loader(rule="smoothing")
    with pytest.raises(UsageError, match="weights"):
        slg_wds.SoftLabelLoader([made.labels], made.images, global_batch_size=4, weights=[1, 2])
    other = make(photographs, tmp_path / "other", seed=3)
    with pytest.raises(ReplayError, match="its plan is not that of"):
        slg_wds.SoftLabelLoader([made.labels, other], made.images, global_batch_size=4)
    with pytest.raises(UsageError, match="give both or neither"):
        embedded.loader(rank=0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (embedded.loader().rank, embedded.loader().world_size) == (1, 2)


def test_without_compiled_code_the_batches_are_the_same(embedded, monkeypatch):
    compiled = list(embedded.loader())
    monkeypatch.setattr("slg_wds.replay.assembly.jpeg_crops._COMPILED", None)
    plain = list(embedded.loader())
    assert len(plain) == len(compiled) > 0
    for one, other in zip(plain, compiled, strict=True):
        assert torch.equal(one.images, other.images)
