"""The sparse soft cross-entropy against recovering [B, C] and the dense product, forward and backward, in one run.

    python tools/bench/bench_loss.py [--threads 1 2] [--device cuda] [--batch 1024] [--classes 1000] [--k 5]

All end with the gradient of the logits. From the stored columns: `sparse` is from_topk and SoftCrossEntropy, `recover`
is recover and the dense product, `plain` the dense product with a recovery written for speed alone. `made` is
SoftCrossEntropy on labels that from_topk made before (in a loader's thread). Much of what further [B, C] tensors cost
is page faults: glibc returns large blocks to the system, and must ask for them again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch.utils.benchmark import Timer

from slg_wds.labels import SoftCrossEntropy, TailBatch, from_topk, recover, topk

CROPS_PER_IMAGE = 4
TAIL_CLASSES = 64


def columns(
    batch: int, classes: int, k: int, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, TailBatch]:
    """Return logits, the top k of an invented teacher, and the shared tails of its images."""
    torch.manual_seed(0)
    logits = torch.randn(batch, classes, device=device) * 3
    index, value = topk(torch.softmax(torch.randn(batch, classes, device=device) * 3, dim=1), k)
    images = -(-batch // CROPS_PER_IMAGE)
    mean = torch.softmax(torch.randn(images, classes, device=device) * 2, dim=1)
    kept, at = torch.topk(mean, min(TAIL_CLASSES, classes - k), dim=1)
    order = at.argsort(dim=1)
    rest = (1 - kept.sum(dim=1)) / (classes - kept.shape[1])
    row = torch.arange(batch, device=device) // CROPS_PER_IMAGE
    return (
        logits,
        index,
        value,
        TailBatch(at.gather(1, order), kept.gather(1, order), rest, row, ragged=False),
    )


def plain_rows(
    index: torch.Tensor, value: torch.Tensor, classes: int, tail: TailBatch | None
) -> torch.Tensor:
    """Recover in the plain way: fill all rows, then write the top k over them."""
    left = (1 - value.sum(dim=1, keepdim=True)).clamp_(min=0)
    if tail is None:
        return (left / (classes - index.shape[1])).expand(-1, classes).clone().scatter_(1, index, value)
    shape = tail.rest[:, None].expand(-1, classes).clone().scatter_(1, tail.classes, tail.probs)
    rows = shape.index_select(0, tail.row).scatter_(1, index, 0.0)
    return rows.mul_(left / rows.sum(dim=1, keepdim=True)).scatter_(1, index, value)


def variants(
    batch: int, classes: int, k: int, device: str, with_tail: bool
) -> dict[str, Callable[[], torch.Tensor]]:
    """Return what is timed, by name; each computes the gradient of the logits."""
    logits, index, value, tails = columns(batch, classes, k, device)
    logits.requires_grad_()
    tail = tails if with_tail else None
    rule = "shared_tail" if with_tail else "marginal_smoothing"
    loss = SoftCrossEntropy()

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits)[0]

    def product(rows: torch.Tensor) -> torch.Tensor:
        return gradient(-(rows * torch.log_softmax(logits, dim=1)).sum(1).mean())

    def sparse() -> torch.Tensor:
        return gradient(loss(logits, from_topk(index, value, classes, rule=f"{rule}_k{k}", tail=tail)))

    def with_recover() -> torch.Tensor:
        return product(recover(index, value, classes, rule=f"{rule}_k{k}", tail=tail))

    def plain() -> torch.Tensor:
        return product(plain_rows(index, value, classes, tail))

    labels = from_topk(index, value, classes, rule=f"{rule}_k{k}", tail=tail)

    def made() -> torch.Tensor:
        return gradient(loss(logits, labels))

    return {"sparse": sparse, "made": made, "recover": with_recover, "plain": plain}


def measure(runs: dict[str, Callable[[], torch.Tensor]], threads: int, rounds: int = 12) -> dict[str, float]:
    """Return the shortest mean time of each, in microseconds. They take turns, so that other load slows all alike."""
    timers = {name: Timer("run()", globals={"run": run}, num_threads=threads) for name, run in runs.items()}
    for timer in timers.values():
        timer.timeit(5)
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(rounds):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(10).mean * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--k", type=int, default=5)
    args = parser.parse_args()
    print(f"[{args.batch}, {args.classes}], k={args.k}, forward and backward on {args.device}, us")
    heads = ("sparse", "made", "recover", "plain", "recover/sparse", "plain/sparse", "recover/made")
    print(f"{'':32}" + "".join(f"{head:>{len(head) + 3}}" for head in heads))
    for threads in args.threads:
        for with_tail in (False, True):
            runs = variants(args.batch, args.classes, args.k, args.device, with_tail)
            wanted = runs["plain"]()
            if not all(torch.allclose(run(), wanted, rtol=0, atol=1e-6) for run in runs.values()):
                raise SystemExit("the gradients differ")
            time = measure(runs, threads)
            name = (
                f"{threads} threads, {f'shared tail m={TAIL_CLASSES}' if with_tail else 'even tail'}".ljust(
                    32
                )
            )
            for head in heads:
                over, _, under = head.partition("/")
                text = f"{time[over] / time[under]:.2f}" if under else f"{time[over]:.0f}"
                name += f"{text:>{len(head) + 3}}"
            print(name)


if __name__ == "__main__":
    main()
