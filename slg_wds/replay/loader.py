"""The loader: label shards and images in, training batches of exactly the teacher's crops out."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from slg_wds.concurrency.cores import cores
from slg_wds.console import counted, warn
from slg_wds.errors import ReplayError, UsageError
from slg_wds.labels import LabelAdaptation, LabelType
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.assembly.adaptation import adaptation_of
from slg_wds.replay.assembly.batch_builder import BatchBuilder, LoaderContext
from slg_wds.replay.assembly.buffers import ImageBuffers
from slg_wds.replay.assembly.epoch import Epoch
from slg_wds.replay.assembly.selection import AllCrops, CropFilter, FilteredCrops, Selection
from slg_wds.replay.assembly.workers import Workers
from slg_wds.replay.batch import Batch
from slg_wds.replay.cache.opening import ShardOpener, check_fits, most_at_once
from slg_wds.replay.cache.shard_cache import ShardCache
from slg_wds.replay.order.sequential import SequentialOrder
from slg_wds.replay.order.shuffled import ShuffledOrder
from slg_wds.replay.pairs import PairLoader
from slg_wds.replay.process import OwnProcess
from slg_wds.replay.ranks import images_of, local_ranks, rank_of
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.replay.sources.images import Images, open_images
from slg_wds.replay.sources.label_sets import LabelSets
from slg_wds.replay.sources.records import Records
from slg_wds.replay.state import LoaderProgress, from_state, to_state
from slg_wds.store import Location
from slg_wds.transforms.crops import INTERPOLATIONS

if TYPE_CHECKING:
    import torch

    from slg_wds.replay.device import DeviceLoader

CACHE_BYTES = 64 << 30
READERS = 16  # threads that wait for a network, where something is remote
LANES = 256
MAX_TOLD_BYTES = 4 << 30  # of one batch, for what the label set and not the caller says
LABEL_BYTES = 12  # of a class of a crop in a batch: int64 and float32
DEADLINE = 600.0
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NO_OPTIONS: Mapping[str, str] = {}
LabelSource = str | LabelSet | Sequence[str | LabelSet]


class SoftLabelLoader:
    """Batches of crops with their teachers' soft labels; an iterable of `Batch`, len() of them an epoch.

    An epoch is one walk over the images. Iterating goes through one epoch, from where a loaded state says; once its
    last batch was handed over, the next iteration is the next epoch. The order is a pure function of label set, seed,
    epoch, global batch size, lanes and window: the global batches are the same for any number of ranks and threads.

    Args:
        labels: URL of a label set, or several whose distributions are averaged with `weights`: of one plan, over
            the same classes, of one temperature. A set and those that extend it (`generate --extend`), given together
            as in ["OLD", "NEW"], are one of them: the batches are those of the same labels made in one go.
        images: None where the images are embedded, else the folder or WebDataset shards that they lie in.
        global_batch_size: crops over all ranks; divides by ranks x crops_per_image.
        crops_per_image: crops of an image in a batch, one after the other.
        size, interpolation: of the crops; by default the (first) teacher's, whose input is then replayed bit for bit.
        rule: rule of recovery of `Batch.labels`, by default the label type that the set was made with.
        crop_filter: (measure, low, high), see `selection.CropFilter`; what it leaves out is counted in `selection`.
        label_adaptation: (below, smoothing, share), see `labels.LabelAdaptation`: FerKD's softened hard labels for
            crops of low confidence, in `Batch.labels`; index and value stay as stored.
        shuffle: False walks in plan order. seed: of the order and of the choice of crops.
        rank, world_size: by default torch.distributed's, or those of torchrun, mpirun or srun.
        threads: that decode and cut, by default one per core that the process may use beside the machine's other ranks.
        last: "drop" leaves out the images that fill no batch, "pad" adds a batch for them, with a mask.
        evaluation: every image once, its first crop, in plan order, the last batch padded.
        allow_incomplete: take an unfinished label set as it is now.
        cache_dir, cache_bytes: where and how much of remote shards, and of remote tars of images where these fit too,
            is kept, for all ranks of a machine together.
        deadline: seconds that a batch is waited for; then StoreUnavailableError names the shard. Mostly the store's own
            limits come first: its options retry_timeout (180 s) and read_timeout (30 s without a byte).
        prefetch: batches made ahead. lanes, window: of the order, see `order`.
        store_options: of `open_store`, for labels and images.

    A loader serves the process that made it. In a worker of torch's DataLoader, after a fork or in a copy it is
    refused, since every sample would come more than once.

    Raises SlgWdsError at once for whatever can be known before the first batch.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def __init__(
        self,
        labels: LabelSource,
        images: str | None = None,
        *,
        global_batch_size: int,
        crops_per_image: int = 4,
        size: int | None = None,
        interpolation: str | None = None,
        rule: str | LabelType | None = None,
        weights: Sequence[float] | None = None,
        crop_filter: tuple[str, float, float] | None = None,
        label_adaptation: Sequence[float] | LabelAdaptation | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        threads: int | None = None,
        last: Literal["drop", "pad"] = "drop",
        evaluation: bool = False,
        allow_incomplete: bool = False,
        cache_dir: str | None = None,
        cache_bytes: int = CACHE_BYTES,
        deadline: float = DEADLINE,
        prefetch: int | None = None,
        lanes: int | None = None,
        window: int = 1,
        store_options: Mapping[str, str] = _NO_OPTIONS,
    ) -> None:
        if evaluation and crop_filter is not None:
            raise UsageError(
                "evaluation takes every image's first crop, so a crop filter does not go with it"
            )
        if last not in ("drop", "pad"):
            raise UsageError(f"last is {last!r}", hint="it is 'drop' or 'pad'")
        self.rank, self.world_size = rank_of(rank, world_size)
        self._process = OwnProcess(self.rank, self.world_size, given=rank is not None)
        self._c = 1 if evaluation else crops_per_image
        self._batch = images_of(global_batch_size, self.world_size, self._c)
        self._evaluation, self._shuffle, self._seed = evaluation, shuffle and not evaluation, seed
        self._last: Literal["drop", "pad"] = "pad" if evaluation else last
        self._threads = _positive("threads", cores() if threads is None else threads)
        n = self._batch // self.world_size
        self._prefetch = _positive(
            "prefetch", 1 + -(-2 * self._threads // n) if prefetch is None else prefetch
        )
        if not deadline > 0:
            raise UsageError(f"deadline is {deadline}", hint="seconds, more than 0")
        self._deadline = min(deadline, threading.TIMEOUT_MAX)
        self._lanes, self._window = min(LANES if lanes is None else lanes, self._batch), window
        self.sets = LabelSets.open(
            labels, weights, rule, allow_incomplete=allow_incomplete, store_options=dict(store_options)
        )
        if self.left_out and self.rank == 0:
            count = f"{self.left_out:,} of {counted(len(self.sets.plan.keys), 'image')}"
            warn(f"left out of the labels {self.sets.url}: {count}; slg-wds inspect says why")
        self._files = OpenFiles(self._threads + READERS)
        self._caches: list[ShardCache] = []
        opener = ShardOpener(self._files, cache_dir, cache_bytes, local_ranks(self.world_size))
        self._records = self._open_records(opener)
        self._images: Images = open_images(
            self.sets,
            self._records.shards,
            None if images is None else Location(images, store_options),
            self._files,
        )
        self.size, self.interpolation = _input_of(self.sets, size, interpolation, n * self._c)
        self.crop_filter = None if crop_filter is None else CropFilter(*crop_filter)
        self.label_adaptation = adaptation_of(label_adaptation, self.sets)
        self.selection: Selection = self._select()
        self._buffers = ImageBuffers(n * self._c, self.size, self._prefetch + 2)
        self._order = self._order_of(0)
        self.fingerprint = {**self._order.fingerprint, **self._choices()}
        self._progress = LoaderProgress(len(self))
        if not len(self):
            raise ReplayError(
                f"{counted(self._order.num_samples, 'image')} cannot fill a batch of {self._batch}",
                url=self.sets.url,
                hint="lower global_batch_size, or pass last='pad'",
            )
        self._open_caches(opener)
        if self._caches:
            check_fits(self._caches, self._order.spans(*self._columns()), self._lanes, self._window)

    def _open_records(self, opener: ShardOpener) -> Records:
        sets = self.sets
        shards = [opener.shards(labels, sets.file_of(m)) for m, labels in enumerate(sets.members)]
        bases = [
            [opener.shards(one.labels, one.file if one.aligned else None) for one in chain]
            for chain in sets.bases
        ]
        return Records(sets, shards, bases)

    def _open_caches(self, opener: ShardOpener) -> None:
        images = self._images.tars
        tars = None if images is None else opener.tars(self.sets.members[0], images.tars)
        self._caches = opener.opened(tars, most_at_once(self._order.spans(*self._columns())))
        if images is not None:
            images.cache = tars if tars in self._caches else None

    def _select(self) -> Selection:
        if self.crop_filter is None:
            return AllCrops(self.sets.sizes, self.sets.num_crops)
        return FilteredCrops(self.sets, self.crop_filter, self._c, self._threads, self._records.whole)

    def _choices(self) -> dict[str, Any]:
        """What else of a state must agree for it to go on where it was."""
        return {
            "crops_per_image": self._c,
            "shuffle": self._shuffle,
            "evaluation": self._evaluation,
            "last": self._last,
        }

    def _digest(self) -> str:
        if self.crop_filter is None:
            return self.sets.digest
        return hashlib.sha256(f"{self.sets.digest} {self.crop_filter}".encode()).hexdigest()

    def _order_of(self, epoch: int) -> ShuffledOrder | SequentialOrder:
        sizes, digest = self.selection.sizes, self._digest()
        if not self._shuffle:
            return SequentialOrder(sizes, digest, self._seed, self._batch, self._last)
        return ShuffledOrder(
            sizes, digest, self._seed, epoch, self._batch, self._lanes, self._window, self._last
        )

    def _columns(self) -> tuple[int, int]:
        n = self._batch // self.world_size
        return self.rank * n, (self.rank + 1) * n

    def __len__(self) -> int:
        return len(self._order)

    @property
    def num_samples(self) -> int:
        """Images of an epoch, over all ranks, before the last partial batch is dropped."""
        return self._order.num_samples

    @property
    def left_out(self) -> int:
        """Planned images that the set has no labels of: `slg-wds inspect` says why."""
        return self.sets.left_out

    @property
    def epoch(self) -> int:
        """The epoch that is being walked, or that the next iteration walks."""
        return self._progress.epoch

    @property
    def sampler(self) -> SoftLabelLoader:
        """Itself: trainers (Lightning's, timm's) call `loader.sampler.set_epoch(epoch)` before each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; a loaded state of this very epoch stays."""
        if epoch < 0:
            raise UsageError(f"epoch is {epoch}")
        self._progress.choose(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the trainer is: after it was given n batches, a loader with this state goes on with batch n."""
        return to_state(*self._progress.place, self.fingerprint)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, on any number of ranks. Raises ReplayError for another order's state."""
        epoch, batches = from_state(state, self.fingerprint)
        if batches > len(self):
            raise ReplayError(f"the state is at batch {batches} of an epoch of {len(self)}")
        self._progress.go_to((epoch, batches))

    def __iter__(self) -> Iterator[Batch]:
        return self.walk(self.batches)

    def to(
        self,
        device: torch.device | str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype | None = None,
    ) -> DeviceLoader:
        """The same loader with batches on a device, their images normalised there; see `device.DeviceLoader`."""
        from slg_wds.replay.device import DeviceLoader

        return DeviceLoader(self, device, mean, std, dtype)

    def pairs(self) -> PairLoader:
        """The same loader with batches of two tensors, for trainers that know no others.

        They are the images, as here or after `to`, and the probabilities of all classes, float32 [B, C], which
        SoftCrossEntropy takes too. Raises UsageError for a loader that pads.
        """
        return PairLoader(self, self)

    @property
    def pads(self) -> bool:
        """Whether a last batch that is not full is filled up."""
        return self._last == "pad"

    def pin_memory(self) -> None:
        """Make batches in pinned memory from now on, for `batch.to(device, non_blocking=True)`; see `ImageBuffers`."""
        self._buffers.pinned = True

    def walk(
        self, batches: Callable[[int, int], Generator[Batch, None, None]]
    ) -> Generator[Batch, None, None]:
        """Yield what `batches(epoch, start)` does and keep the state: a batch counts once it is handed over.

        Before the last batch is handed over everything is put away. So a trainer that asks for exactly len() batches,
        and never hears that there are no more, leaves no threads behind.
        """
        self._process.check()
        epoch, start = self._progress.begin()
        with contextlib.closing(batches(epoch, start)) as made:
            for number, batch in enumerate(made, start + 1):
                if number == len(self):
                    made.close()
                self._progress.take(epoch, number)
                yield batch
        self._progress.end(epoch)

    def batches(self, number: int, start: int) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from `start` on, at most `prefetch` of them under way."""
        order = self._order_of(number)
        c = None if self._evaluation else self._c
        epoch = Epoch(self.sets, self.selection, order, self._columns(), self._seed, number, c)
        reading = LoaderContext(
            self.sets,
            self._records,
            self._images,
            self.size,
            self.interpolation,
            self.label_adaptation,
            self._caches,
        )
        remote = self._records.remote or self._images.remote
        workers = Workers(self._threads, READERS if remote else 0)
        under_way: deque[BatchBuilder] = deque()
        try:
            for cache in self._caches:
                cache.begin(order.spans(*self._columns()), start)
            for t, (shard, position, keys, crops) in enumerate(epoch.batches(start), start):
                builder = BatchBuilder(reading, shard, position, keys, crops, self._buffers.take())
                workers.put(builder)
                if t == start:
                    for cache in self._caches:
                        cache.expect()
                under_way.append(builder)
                del builder
                if len(under_way) > self._prefetch:
                    yield self._finished(under_way, t + 1)
            while under_way:
                yield self._finished(under_way, len(order))
        finally:
            workers.stop()
            for cache in self._caches:
                cache.end()
            workers.close()
            self._files.clear()

    def _finished(self, under_way: deque[BatchBuilder], begun: int) -> Batch:
        batch = under_way.popleft().result(self._deadline)
        for cache in self._caches:
            cache.advance(begun - len(under_way))
        return batch.pin_memory() if self._buffers.pinned else batch


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UsageError(f"{name} is {value}", hint="1 is the least")
    return value


def _input_of(sets: LabelSets, size: int | None, interpolation: str | None, crops: int) -> tuple[int, str]:
    """Size and interpolation of the crops: those given, else the first teacher's.

    Raises UsageError for a batch of so many crops that would take much memory because the label set says so.
    """
    teachers = sets.members[0].identity.teachers or [{}]
    told = int(teachers[0].get("input_size") or 0) if size is None else 0
    k = max(one.identity.k or one.num_classes for one in sets.members)
    _check_memory(sets, crops, 3 * told**2, f"crops of {told} pixels", f"pass size={told}")
    _check_memory(sets, crops, LABEL_BYTES * k, f"labels of {k} classes a crop", "have smaller batches")
    size = told or size
    interpolation = teachers[0].get("interpolation") if interpolation is None else interpolation
    if size is None or interpolation is None:
        raise UsageError(
            "the label set does not say what its teacher saw",
            url=sets.url,
            hint="pass size= and interpolation=",
        )
    if size < 1 or interpolation not in INTERPOLATIONS:
        raise UsageError(f"crops of size {size}, {interpolation}", hint=f"one of {', '.join(INTERPOLATIONS)}")
    return int(size), str(interpolation)


def _check_memory(sets: LabelSets, crops: int, each: int, what: str, hint: str) -> None:
    """Raise UsageError where a batch of so many crops, of so many bytes each, is more than a label set may ask for."""
    if crops * each > MAX_TOLD_BYTES:
        raise UsageError(
            f"the label set asks for {what}: a batch of {crops} would take {crops * each / 1e9:.1f} GB",
            url=sets.url,
            hint=f"{hint} if that is meant",
        )
