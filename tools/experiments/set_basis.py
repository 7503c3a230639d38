"""Would one basis of the whole set, kept once, make low-rank labels smaller than a basis for each image?

usage: set_basis.py [--crops 8 32 100 500] [--max-kl 0.1 0.05] [--directions 128 256] [--sources ...] [--folder F]

Classes of one teacher move together in every image. So K directions of log-probabilities V [K, C] could serve all
images: an image would keep its mean, K numbers, and r components of K numbers each, instead of a list of n classes and
(r + 1) numbers for each. The directions are taken from

    others     crops of images that share nothing with the one that is coded: all other photographs
    same       these, and other crops of the same photograph; flatters
    weights    the singular vectors of the teacher's classifier, no sample at all

Both kinds of labels are coded to the same mean KL, with the same Rice codes for their integers. Labels in the basis of
the set have no bound on their worst crop, which flatters them too. Printed are payload bytes a crop: of low-rank labels
as they are ("own"), of labels in the basis of the set where they reach the KL, and of the smaller of the two for each
image, with what that saves.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from students import table, table_row
from teacher_labels import add_options, divergences, labelled, labels_of, working_folder

import slg_wds
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.demo.photographs import cut_views
from slg_wds.format.records import rice
from slg_wds.format.records.low_rank.blocks import STEPS_AN_OCTAVE, softmax, step_of
from slg_wds.inspection.low_rank import coded_image
from slg_wds.labels.low_rank import encode
from slg_wds.labels.low_rank.fitting import solve
from slg_wds.labels.low_rank.tables import Table

Floats = NDArray[np.float64]

SAMPLE = 100  # crops of each image of the sample
HEADER_ROW = (
    "crops",
    "max KL",
    "own",
    "directions from",
    "K",
    "floor",
    "reached",
    "of the set",
    "lesser",
    "saved",
)
HEADER = 20  # bytes: what the column of low-rank labels has beside its codes
OTHERS = (
    "astronaut", "brick", "camera", "clock", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry",
    "moon", "page", "retina", "text",
)  # fmt: skip
SOURCES = ("others", "same", "weights")
LEAST, RIDGE, DAMPING, ROUNDS = 1e-9, 1e-5, 0.7, 3
RANKS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
MOST_RANK = 25
TRIED = 3  # numbers of components, from the fewest that do
MEAN_UNIT = 2.0  # how much coarser the mean is than components; of 1, 2, 4 and 8 the best at 32 and 100 crops
ROUGHLY = 2.5  # times the KL that is asked for: a fit that is further off is not refined


@dataclass(frozen=True)
class Basis:
    """Directions of log-probabilities that all images of a set share: centre [C] and vectors [K, C]."""

    centre: Floats
    vectors: Floats

    @classmethod
    def scaled(cls, centre: Floats, vectors: Floats, means: Floats) -> Basis:
        """Scale vectors to unit effect on the mean probabilities."""
        centred = vectors - (vectors @ means)[:, None]
        return cls(centre, centred / np.sqrt(np.square(centred) @ means)[:, None])

    def first(self, count: int) -> Basis:
        """Return the first directions alone."""
        return Basis(self.centre, self.vectors[:count])

    def metric(self, means: Floats) -> Floats:
        """Return the quadratic form that the KL has near mean probabilities, [K, K]."""
        centred = self.vectors - (self.vectors @ means)[:, None]
        return (centred * means) @ centred.T + RIDGE * np.eye(len(centred))

    def projected(self, rows: Floats) -> Floats:
        """Return each crop's place among the directions, [M, K]: least squares in the metric of the mean."""
        means = rows.mean(axis=0)
        logs = np.log(np.maximum(rows, LEAST)) - self.centre
        logs -= (logs @ means)[:, None]
        weighted = (self.vectors - (self.vectors @ means)[:, None]) * means
        places: Floats = np.linalg.solve(self.metric(means), weighted @ logs.T).T
        return places


@dataclass(frozen=True)
class Fit:
    """An image's crops among the directions: mean [K], components [r, K] and coefficients [M, r]."""

    mean: Floats
    components: Floats
    coefficients: Floats

    def table(self, basis: Basis) -> Table:
        """Return the logits of the crops."""
        return Table(
            basis.centre + self.mean @ basis.vectors, self.components @ basis.vectors, self.coefficients
        )

    def solved(self, rows: Floats, basis: Basis, steps: int) -> Fit:
        """Take Newton's steps on the coefficients."""
        fit = self
        for _ in range(steps if len(self.components) else 0):
            fit = replace(fit, coefficients=solve(rows, fit.table(basis)).coefficients)
        return fit


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, nargs="+", default=[8, 32, 100, 500])
    parser.add_argument("--max-kl", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--directions", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES)
    add_options(parser)
    options = parser.parse_args()
    with working_folder(options) as folder, one_blas_thread():
        images = {
            one.key: one.value for one in slg_wds.open_labels(labelled(folder, options, max(options.crops)))
        }
        others = labels_of(other_images(folder), folder / "full-others", options.arch, SAMPLE)
        more = [one.value for one in slg_wds.open_labels(others)]
        print(table(HEADER_ROW, []), flush=True)
        bases = {source: directions(source, images, more, options) for source in options.sources}
        for count in options.directions:
            for row in compared(images, bases, count, options):
                print(table_row(row), flush=True)


def other_images(folder: Path) -> Path:
    """Write the images that the sample has beside the demo's photographs."""
    target = folder / "others"
    found = {name: np.asarray(getattr(skimage.data, name)()) for name in OTHERS}
    found["grace_hopper"] = np.asarray(Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg")))
    for name, pixels in found.items():
        path = target / "train" / "others" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (view,) = cut_views(pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2), [None])
        if not path.exists():
            view.save(path, quality=92)
    return target


def directions(
    source: str, images: dict[str, Any], more: Sequence[Any], options: argparse.Namespace
) -> dict[str, Basis]:
    """Return the basis for each image."""
    count = max(options.directions)
    if source == "weights":
        return dict.fromkeys(images, of_weights(options.arch, count))
    bases = {}
    for photograph in sorted({name_of(key) for key in images}):
        # The last crops of the photograph itself: those that are coded are its first ones, unless all are.
        sample = [
            rows[-SAMPLE:] for key, rows in images.items() if source == "same" or name_of(key) != photograph
        ]
        bases[photograph] = of_sample(np.concatenate([*sample, *more]).astype(np.float64), count)
    return {key: bases[name_of(key)] for key in images}


def name_of(key: str) -> str:
    """Return the photograph that an image is a view of."""
    return key.rpartition("/")[2].rpartition("_")[0]


def of_sample(rows: Floats, count: int) -> Basis:
    """Return the mean of log-probabilities [M, C] and their first components."""
    logs = np.log(np.maximum(rows, LEAST))
    logs -= logs.mean(axis=1, keepdims=True)
    means, centre = rows.mean(axis=0), logs.mean(axis=0)
    weights = np.sqrt(means + 1e-4)
    vectors = np.linalg.svd((logs - centre) * weights, full_matrices=False)[2][:count] / weights
    return Basis.scaled(centre, vectors, means)


def of_weights(arch: str, count: int) -> Basis:
    """Return the bias and the first singular vectors of a teacher's classifier."""
    module, _, name = arch.partition(":")
    classifier = getattr(importlib.import_module(module), name)().get_classifier()
    weight, bias = (part.detach().double().numpy() for part in (classifier.weight, classifier.bias))
    vectors = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)[0].T[:count]
    return Basis.scaled(bias, vectors, np.full(len(bias), 1 / len(bias)))


def compared(
    images: dict[str, Any], bases: dict[str, dict[str, Basis]], count: int, options: argparse.Namespace
) -> Iterator[list[str]]:
    """Yield a row for each number of crops, KL and source of the first `count` directions."""
    for crops in options.crops:
        for max_kl in options.max_kl:
            own = {
                key: coded_image(encode(rows[:crops], max_kl)).bytes / crops for key, rows in images.items()
            }
            for source, of_images in bases.items():
                found = {
                    key: coded(rows[:crops].astype(np.float64), of_images[key].first(count), max_kl)
                    for key, rows in images.items()
                }
                sizes = {key: size / crops for key, (size, _) in found.items() if size is not None}
                lesser = float(np.mean([min(own[key], sizes.get(key, np.inf)) for key in images]))
                ours, floor = np.mean(list(own.values())), np.mean([floor for _, floor in found.values()])
                yield [
                    f"{crops}", f"{max_kl:g}", f"{ours:.2f}", source, f"{count}", f"{floor:.4f}",
                    f"{len(sizes)} of {len(images)}", f"{np.mean(list(sizes.values())):.2f}" if sizes else "-",
                    f"{lesser:.2f}", f"{100 * (1 - lesser / ours):.1f}%",
                ]  # fmt: skip


def coded(rows: Floats, basis: Basis, max_kl: float) -> tuple[int | None, float]:
    """Return the bytes of an image's labels in the basis of the set (None: out of reach), and the least KL in it."""
    rows = rows / rows.sum(axis=1, keepdims=True)
    places = basis.projected(rows)
    floor = float(divergences(rows, softmax(basis.centre + places @ basis.vectors)).mean())
    sizes: list[int] = []
    for rank in RANKS[: int(np.searchsorted(RANKS, min(len(rows), MOST_RANK)))]:
        if within(rows, basis, places, rank) > ROUGHLY * max_kl:
            continue
        fit = refined(rows, basis, places, rank)
        if divergences(rows, fit.table(basis).distributions()).mean() <= 0.9 * max_kl:
            size = smallest(rows, basis, fit, max_kl)
            sizes += [] if size is None else [size]
        if len(sizes) == TRIED:
            break
    return min(sizes, default=None), floor


def within(rows: Floats, basis: Basis, places: Floats, rank: int) -> float:
    """Return the KL of a fit that is not refined."""
    factor = np.linalg.cholesky(basis.metric(rows.mean(axis=0)))
    fit = orthogonal(places.mean(axis=0), places - places.mean(axis=0), factor, rank)
    return float(divergences(rows, fit.table(basis).distributions()).mean())


def refined(rows: Floats, basis: Basis, places: Floats, rank: int) -> Fit:
    """Return a fit of so many components, orthogonal in the metric of the mean, by steps of Newton's method."""
    factor = np.linalg.cholesky(basis.metric(rows.mean(axis=0)))
    fit = orthogonal(places.mean(axis=0), places - places.mean(axis=0), factor, rank)
    for _ in range(ROUNDS):
        fit = fit.solved(rows, basis, 1)
        for which in range(-1, rank):  # the mean, then each component
            multiplied = np.ones(len(rows)) if which < 0 else fit.coefficients[:, which]
            entries = fit.table(basis).distributions()
            curvature = np.square(multiplied) @ (entries * (1 - entries) + 1e-7)
            hessian = (basis.vectors * curvature) @ basis.vectors.T + 1e-3 * np.eye(len(factor))
            change = DAMPING * np.linalg.solve(hessian, basis.vectors @ (multiplied @ (rows - entries)))
            place = fit.mean if which < 0 else fit.components[which]
            place += change
    return orthogonal(fit.mean, fit.coefficients @ fit.components, factor, rank)


def orthogonal(mean: Floats, places: Floats, factor: Floats, rank: int) -> Fit:
    """Return the first components of places [M, K] in a metric, given by its Cholesky factor."""
    u, s, vt = np.linalg.svd(places @ factor, full_matrices=False)
    return Fit(mean, np.linalg.solve(factor.T, vt[:rank].T).T, u[:, :rank] * s[:rank])


def smallest(rows: Floats, basis: Basis, fit: Fit, max_kl: float) -> int | None:
    """Return the bytes of the integers of the largest step that keeps to the KL."""
    low, high, best = 0, 8 * STEPS_AN_OCTAVE, None
    while low < high:
        code = (low + high) // 2
        size, kl = rounded(rows, basis, fit, step_of(code))
        if kl <= max_kl:
            best, high = size, code
        else:
            low = code + 1
    return best


def rounded(rows: Floats, basis: Basis, fit: Fit, step: float) -> tuple[int, float]:
    """Round all numbers with this step; return their bytes, and the mean KL of what is decoded.

    A number of the mean or of a component counts in every crop, so its step is finer by the norm of what multiplies it.
    Both are rounded in coordinates that cost alike: the mean in the metric of all classes alike, the components in that
    of the decoded mean.
    """
    even = np.full(len(basis.centre), 1 / len(basis.centre))
    whole, mean = on_grid(
        fit.mean, np.linalg.cholesky(basis.metric(even)), MEAN_UNIT * step / np.sqrt(len(rows))
    )
    norms = np.linalg.norm(fit.coefficients / step, axis=0, keepdims=True).T
    units = np.exp2(np.rint(-2 * np.log2(np.maximum(norms, 1.0))) / 2)  # half-octaves
    decoded = basis.metric(softmax(basis.centre + mean @ basis.vectors))
    grid, components = on_grid(fit.components, np.linalg.cholesky(decoded), units)
    fit = Fit(mean, components, fit.coefficients).solved(rows, basis, 2)
    places = np.rint(fit.coefficients / step).astype(np.int64)
    code = rice.pack([rice.fold(numbers) for numbers in [whole, *grid, *places.T]])
    decoded_rows = replace(fit, coefficients=places * step).table(basis).distributions()
    return HEADER + sum(map(len, code)), float(divergences(rows, decoded_rows).mean())


def on_grid(numbers: Floats, factor: Floats, unit: Any) -> tuple[NDArray[np.int64], Floats]:
    """Round numbers [..., K] in the coordinates of a Cholesky factor; return the integers and the numbers again."""
    integers = np.rint(numbers @ factor / unit).astype(np.int64)
    return integers, np.linalg.solve(factor.T, (integers * unit).T).T


if __name__ == "__main__":
    main()
