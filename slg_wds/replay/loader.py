"""The loader: label shards and images in, training batches of exactly the teacher's crops out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from slg_wds.console import counted, warn
from slg_wds.errors import ReplayError, UsageError
from slg_wds.labels import LabelAdaptation, LabelType
from slg_wds.labelset.combining.averaging import doubt_of_temperature, lacks_temperature
from slg_wds.labelset.labelset import short
from slg_wds.masking import masked
from slg_wds.replay.assembly.adaptation import adaptation_of
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.assembly.epoch import Epochs
from slg_wds.replay.assembly.selection import Selection, select
from slg_wds.replay.batch import Batch
from slg_wds.replay.batch_maker import BatchMaker
from slg_wds.replay.cache.caches import CacheOptions, Caches
from slg_wds.replay.crop_input import crop_input
from slg_wds.replay.pairs import PairLoader
from slg_wds.replay.processes.loader_processes import LoaderProcesses, start_processes
from slg_wds.replay.ranks import local_ranks
from slg_wds.replay.settings import READERS, BatchShare, OrderSettings, Pace
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.replay.sources.label_sets import LabelSets, LabelSource
from slg_wds.replay.state import LoaderProgress, from_state, to_state
from slg_wds.replay.temperature import LabelTemperature, Temperature
from slg_wds.store import NO_OPTIONS, Location

if TYPE_CHECKING:
    import torch

    from slg_wds.replay.device import DeviceLoader

CACHE_BYTES = 64 << 30
DEADLINE = 600.0
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SoftLabelLoader:
    """Batches of exactly the crops that teachers saw, with the teachers' soft labels: an iterable of `Batch`.

    An epoch is one walk over the images; len() is its number of batches. Iterating walks one epoch, from where a loaded
    state says; the next iteration walks the next epoch. A walk that was broken off is walked again from its beginning:
    where epochs are cut short, `set_epoch` chooses the next one. The order is a pure function of label set, seed,
    epoch, global batch size, lanes and window, so the global batches are the same for any number of ranks and threads.

    A loader serves the process that made it. In a worker of torch's DataLoader, after a fork or in a copy it is
    refused, since every sample would come more than once.

    Args:
        labels: a label set, or several: folders, URLs or what `open_labels` returned. Several are averaged. They have
            to be of one plan, over the same classes, and of one temperature unless `temperature` is given; where they
            have different numbers of crops, those that all have are taken. Several sets of embeddings, each of other
            teachers, are joined: `Batch.embedding` has them all. A set and those that extend it (`generate --extend`),
            given together as in ["OLD", "NEW"], are one set.
        images: the labelled images, a folder or WebDataset shards; None if the label set embeds them.
        global_batch_size: crops in a batch over all ranks, a multiple of ranks x crops_per_image.
        crops_per_image: crops of each image in an epoch. In a batch they follow each other.
        size: pixels on each side of a crop; by default the (first) teacher's input, which is replayed bit for bit.
        interpolation: how crops are resized: bicubic, bilinear or nearest; by default as for the (first) teacher.
        rule: the rule of recovery of `Batch.labels`, such as "marginal_smoothing_k5"; by default the label type that
            the set was made with.
        weights: the weight of each of several sets in their average; by default all are equal.
        temperature: the teachers' temperature T at which labels are read: a number, or a function of the epoch (from 0
            on) that gives it. The recovered distributions of a set made at T0 are raised to T0 / T and divided by their
            sums; several sets are averaged after that. Of several teachers in one set there is only their mean, which
            is raised. Crop filter and label adaptation go by the labels at T0. Hard labels are the same at every T. By
            default labels are as they were made.
        crop_filter: (measure, low, high): use only crops whose "confidence" (largest probability) or "tail" (what the
            stored classes leave of 1) is in low..high. `selection` counts the others.
        label_adaptation: (below, smoothing, share): FerKD's softened hard labels for crops of confidence below `below`,
            see `labels.LabelAdaptation`. It changes `Batch.labels`; index and value stay as stored.
        shuffle: False walks in the order of the plan.
        seed: decides the order, and which crops an epoch has.
        rank: this process's number among those that share each batch; by default torch.distributed's, or that of
            torchrun, mpirun or srun.
        world_size: how many processes these are; by default found as the rank is.
        threads: threads that decode and cut; by default one per core that the process may use beside the machine's
            other ranks. The launcher says how many these are; without one, a rank is counted for each GPU that the
            process sees, or all ranks if it sees none.
        processes: how many other processes make the batches, each with its part of the threads; by default none. The
            threads of one process take turns at its interpreter, which gets through some 10,000 images a second. With
            more than eight threads or so, two processes give more, and leave this one's interpreter to the trainer. The
            batches are the same. A process takes some seconds to start, in which this one makes the batches, some 300
            MB, and the index of the sets once more. What is not on local disks this process reads. Linux only.
        last: what becomes of images that fill no batch. "drop" leaves them to other epochs; "pad" adds a batch for
            them, filled up with black crops, which are False in `Batch.mask`. SoftCrossEntropy leaves these out of
            `Batch.labels`; whatever else is computed needs the mask. BatchNorm sees them in train mode. Under DDP
            multiply each loss by `Batch.weight`.
        evaluation: walk every image once, its first crop, in the order of the plan, with the last batch padded.
        allow_incomplete: take an unfinished label set as it is now.
        cache_dir: folder for remote shards, and for remote tars of images where these fit too; the ranks of a machine
            share it. By default one in the cache folder of the user.
        cache_bytes: the most bytes in it.
        deadline: seconds that a batch is waited for; then StoreUnavailableError names the shard. Mostly the store's own
            limits come first: its options retry_timeout (180 s) and read_timeout (30 s without a byte).
        prefetch: batches made ahead, at the least; up to twice as many where they have few images.
        lanes: places of the shuffled sequence of shards that are read at once: more mix images better, and open more
            shards.
        window: shards that are mixed with each other within a lane.
        store_options: options of the object store, such as its region, for labels and images.

    Raises:
        SlgWdsError: whatever can be known to be wrong before the first batch.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def __init__(
        self,
        labels: LabelSource | Sequence[LabelSource],
        images: str | os.PathLike[str] | None = None,
        *,
        global_batch_size: int,
        crops_per_image: int = 4,
        size: int | None = None,
        interpolation: str | None = None,
        rule: str | LabelType | None = None,
        weights: Sequence[float] | None = None,
        temperature: Temperature | None = None,
        crop_filter: tuple[str, float, float] | None = None,
        label_adaptation: Sequence[float] | LabelAdaptation | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        threads: int | None = None,
        processes: int = 0,
        last: Literal["drop", "pad"] = "drop",
        evaluation: bool = False,
        allow_incomplete: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int = CACHE_BYTES,
        deadline: float = DEADLINE,
        prefetch: int | None = None,
        lanes: int | None = None,
        window: int = 1,
        store_options: Mapping[str, str] = NO_OPTIONS,
    ) -> None:
        self._share = share = BatchShare.of(global_batch_size, crops_per_image, rank, world_size, evaluation)
        self._pace = Pace.of(share, threads, processes, prefetch, deadline)
        self._order = OrderSettings.of(share, shuffle, seed, last, evaluation, lanes, window, crop_filter)
        self.temperature = LabelTemperature(temperature)
        self.sets = LabelSets.open(
            labels,
            weights,
            rule,
            any_temperature=self.temperature.chosen,
            allow_incomplete=allow_incomplete,
            store_options=dict(store_options),
        )
        if self.rank == 0:
            _warn_of(self.sets, self.temperature)
        source = None if images is None else Location(os.fspath(images), store_options)
        cache = CacheOptions(cache_dir, cache_bytes, local_ranks(self.world_size))
        self._set_up(source, cache, size, interpolation, label_adaptation)

    def _set_up(
        self,
        images: Location | None,
        cache: CacheOptions,
        size: int | None,
        interpolation: str | None,
        adaptation: Sequence[float] | LabelAdaptation | None,
    ) -> None:
        """Open the sources, lay out the epochs, and give the caches what an epoch needs."""
        files, caches = OpenFiles(self._pace.threads + READERS), Caches(cache)
        crops = crop_input(self.sets, size, interpolation, self._share.crops)
        self.size, self.interpolation = crops
        self.label_adaptation = adaptation_of(adaptation, self.sets)
        self._context = LoaderContext.open(self.sets, images, files, caches, crops, self.label_adaptation)
        self.crop_filter = self._order.crop_filter
        self.selection: Selection = select(
            self.sets,
            self.crop_filter,
            self._share.crops_per_image,
            self._pace.threads,
            self._context.records.whole,
        )
        self._epochs = Epochs(self.sets, self.selection, self._share, self._order)
        self._progress = LoaderProgress(len(self))
        caches.share_out(self._epochs.epoch(0).spans(), self._order.lanes, self._order.window)
        self._processes: LoaderProcesses | None = None
        if self._pace.processes:
            self._processes = start_processes(self._context, images, self._pace, self._share.crops)
        self._maker = BatchMaker(self._context, self._pace, self._share.crops, self._processes)

    @property
    def rank(self) -> int:
        """This process among `world_size`, from 0."""
        return self._share.process.rank

    @property
    def world_size(self) -> int:
        """Processes that share each global batch."""
        return self._share.process.world_size

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that make batches beside this one."""
        return [] if self._processes is None else self._processes.pids

    def wait_for_processes(self) -> None:
        """Wait until its processes can make batches, so that a measurement has them; there may be none."""
        if self._processes is not None:
            self._processes.wait()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that the order depends on besides the epoch; a state of another one is refused."""
        return self._epochs.fingerprint

    def __len__(self) -> int:
        return len(self._epochs)

    def __repr__(self) -> str:
        more = len(self.sets.members) - 1
        batch = counted(self._share.crops * self.world_size, "crop")
        return (
            f"SoftLabelLoader({short(masked(self.sets.url))!r}{f' and {more} more' if more else ''}, "
            f"{counted(self.num_samples, 'image')}, {counted(len(self), 'batch', 'batches')} of {batch}, "
            f"rank {self.rank} of {self.world_size}, epoch {self.epoch})"
        )

    @property
    def num_samples(self) -> int:
        """Images of an epoch, over all ranks, before the last partial batch is dropped."""
        return self._epochs.num_samples

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
        """Return where the trainer is: after it was given n batches, a loader with this state goes on with batch n."""
        return to_state(*self._progress.place, self.fingerprint, self.temperature)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, on any number of ranks.

        Raises ReplayError for the state of another order, or if labels had another temperature in the state's epoch.
        """
        epoch, batches = from_state(state, self.fingerprint, self.temperature)
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
        """Return the same loader with batches on a device, their images normalised there; see `device.DeviceLoader`."""
        from slg_wds.replay.device import DeviceLoader

        return DeviceLoader(self, device, mean, std, dtype)

    def pairs(self) -> PairLoader:
        """Return the same loader with batches of two tensors, for trainers that know no others.

        They are the images, as here or after `to`, and the probabilities of all classes, float32 [B, C], which
        SoftCrossEntropy takes too. Raises UsageError for a loader that pads.
        """
        return PairLoader(self, self)

    @property
    def pads(self) -> bool:
        """Whether a last batch that is not full is filled up."""
        return self._order.last == "pad"

    def pin_memory(self) -> None:
        """Make batches in pinned memory from now on, for `batch.to(device, non_blocking=True)`."""
        self._maker.pin_memory()

    def walk(
        self, batches: Callable[[int, int], Generator[Batch, None, None]]
    ) -> Generator[Batch, None, None]:
        """Yield what `batches(epoch, start)` does and keep the state: a batch counts once it is handed over.

        Before the last batch is handed over everything is put away. So a trainer that asks for exactly len() batches,
        and never hears that there are no more, leaves no threads behind.
        """
        self._share.process.check()
        epoch, start = self._progress.begin()
        with contextlib.closing(batches(epoch, start)) as made:
            for number, batch in enumerate(made, start + 1):
                if number == len(self):
                    made.close()
                self._progress.take(epoch, number)
                yield batch
        self._progress.end(epoch)

    def batches(self, number: int, start: int) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from `start` on; `prefetch` of them are under way while the trainer has one."""
        return self._maker.batches(self._epochs.epoch(number), start, self.temperature.of(number))


def _warn_of(sets: LabelSets, temperature: LabelTemperature) -> None:
    """Warn of images without labels, and of a temperature that has to be guessed."""
    if sets.left_out:
        count = f"{sets.left_out:,} of {counted(len(sets.plan.keys), 'image')}"
        warn(f"left out of the labels {sets.url}: {count}; slg-wds inspect says why", level=2)
    doubt = None if temperature.chosen else doubt_of_temperature(sets.members)
    if doubt:
        warn(doubt, level=2)
    for labels in sets.members:
        if temperature.chosen and lacks_temperature(labels):
            said = f"the labels {labels.url} do not say their temperature; it is taken as 1"
            warn(f"{said} (slg-wds import --temp notes it in the set)", level=2)
