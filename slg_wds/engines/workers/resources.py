"""How the nodes of a Ray cluster are divided among actors. Only arithmetic: nothing here talks to Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slg_wds.console import counted


@dataclass(frozen=True)
class ActorRequest:
    """What a run asks of a cluster. None leaves a value to `actor_resources`.

    Attributes:
        actors: number of actors; None for as many as fit.
        threads: CPU threads of each actor that runs on a CPU; None to divide the cluster's CPUs by the number of
            actors, or of nodes if `actors` is None.
        gpus: GPUs of each actor, or a part of one; None for 1 if the cluster has GPUs, else 0.
        most: the largest number of actors that have work; None for no limit.
    """

    actors: int | None = None
    threads: int | None = None
    gpus: float | None = None
    most: int | None = None


@dataclass(frozen=True)
class ActorResources:
    """What every actor gets.

    Attributes:
        count: number of actors; 0 if not one fits.
        cpus: CPUs to reserve for each.
        gpus: GPUs to reserve for each.
        cores: CPU cores that each may use: an actor with a GPU reserves one CPU, and uses its part of the node's.
    """

    count: int
    cpus: int
    gpus: float
    cores: int


def actor_resources(nodes: Sequence[Mapping[str, float]], request: ActorRequest) -> ActorResources:
    """Divide a cluster among actors.

    Args:
        nodes: for each node, its resources by Ray's names, `CPU` and `GPU`.
        request: what is asked for.
    """
    gpus = request.gpus if request.gpus is not None else float(any(node.get("GPU", 0) >= 1 for node in nodes))
    cpus = 1
    if not gpus:
        total = int(sum(node.get("CPU", 0) for node in nodes))
        largest = int(max((node.get("CPU", 0) for node in nodes), default=0))
        cpus = request.threads or max(1, min(total // (request.actors or max(1, len(nodes))), largest))
    fits = sum(_fit(node, cpus, gpus) for node in nodes)
    count = min(request.actors or fits, request.most or request.actors or fits) if fits else 0
    cores = cpus
    if gpus:
        shares = [node.get("CPU", 1) * gpus / node["GPU"] for node in nodes if node.get("GPU", 0) >= gpus]
        cores = max(1, int(min(shares, default=1.0)))
    return ActorResources(count, cpus, gpus, cores)


def _fit(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    by_cpu = int(node.get("CPU", 0) // cpus)
    return min(by_cpu, int(node.get("GPU", 0) // gpus)) if gpus else by_cpu


def no_room(nodes: Sequence[Mapping[str, float]], resources: ActorResources) -> str:
    """Return the message for a cluster in which not one actor fits: what it asks for, and what the nodes have."""
    asked = f"{resources.cpus} CPU" + (f" and {resources.gpus:g} GPU" if resources.gpus else "")
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
    return (
        f"no node of the cluster has the {asked} that each actor asks for: "
        f"{counted(len(nodes), 'node')}, at most {most['CPU']:g} CPU and {most['GPU']:g} GPU each"
    )
