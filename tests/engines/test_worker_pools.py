"""Numbers of workers, their resources, and decisions when a worker ends; no process is started."""

import pytest

from slg_wds.concurrency.cores import share
from slg_wds.concurrency.rank import local_size
from slg_wds.engines.devices import local_pool
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.engines.workers.pool import Reporter, WorkerPool, perform, picklable
from slg_wds.engines.workers.resources import ActorRequest, ActorResources, actor_resources, no_room
from slg_wds.engines.workers.supervisor import FAILURES, Supervisor
from slg_wds.errors import DeviceError, ImageDecodeError, SlgWdsError, UsageError

LAUNCHED = (
    "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE",
    "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nobody_launched(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("devices", "gpu", "gpus", "expected", "cores"),
    [
        (None, None, 0, ["cpu"], 16),
        (None, None, 1, ["cuda:0"], 16),
        (None, None, 3, ["cuda:0", "cuda:1", "cuda:2"], 5),
        (None, 1, 2, ["cuda:1"], 16),
        ("cpu", None, 4, ["cpu"], 16),
        ("cpu:3", None, 4, ["cpu"] * 3, 5),
        ("cpu:32", None, 0, ["cpu"] * 32, 1),
        ("0", None, 2, ["cuda:0"], 16),
        ("cuda:1,0", None, 2, ["cuda:1", "cuda:0"], 8),
        ("0, 0", None, 1, ["cuda:0", "cuda:0"], 8),
    ],
)
def test_devices_and_their_share_of_the_cores(devices, gpu, gpus, expected, cores):
    pool = local_pool(devices, gpu, gpus, 16)
    assert pool == WorkerPool(tuple(expected), cores) and pool.workers == len(expected)


@pytest.mark.parametrize(
    ("environment", "gpus", "expected"),
    [
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, 4, WorkerPool(("cuda:1",), 4)),
        ({"LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8"}, 4, WorkerPool(("cuda:1",), 2)),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, 4, WorkerPool(("cuda:0",), 16)),
        ({"SLURM_LOCALID": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 4, WorkerPool(("cuda:2",), 4)),
        (
            {"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x8)"},
            2,
            WorkerPool(("cuda:0", "cuda:1"), 8),
        ),
        (
            {"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
            4,
            WorkerPool(("cuda:2",), 4),
        ),
        ({"MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "4"}, 4, WorkerPool(("cuda:3",), 4)),
        (
            {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
            2,
            WorkerPool(("cuda:0", "cuda:1"), 8),
        ),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, 0, WorkerPool(("cpu",), 4)),
    ],
)
def test_a_launched_process_takes_its_own_gpu_and_share(monkeypatch, environment, gpus, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert local_pool(None, None, gpus, share(16, 16, None, None, local_size())) == expected


@pytest.mark.parametrize(
    "devices", ["cpu:0", "2", "cuda:2", "gpu", "", "0,", "0;1", "-1", "cpu:-1", "cpu,cpu"]
)
def test_devices_that_are_not_there_or_not_understood(devices):
    with pytest.raises(UsageError):
        local_pool(devices, None, 2, 16)


def test_the_message_counts_the_gpus_that_are_there():
    with pytest.raises(UsageError, match=r"no device 2: this machine has 2 GPUs, 0\.\.1"):
        local_pool("2", None, 2, 16)
    with pytest.raises(UsageError, match=r"cuda:0: this machine has no GPU"):
        local_pool(None, 0, 0, 16)


CPUS = [{"CPU": 8.0}, {"CPU": 16.0}]
GPUS = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}]


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        (CPUS, ActorRequest(), ActorResources(1, 12, 0.0, 12)),
        (CPUS, ActorRequest(actors=6), ActorResources(6, 4, 0.0, 4)),
        (CPUS, ActorRequest(threads=1), ActorResources(24, 1, 0.0, 1)),
        (CPUS, ActorRequest(threads=3), ActorResources(7, 3, 0.0, 3)),
        (CPUS, ActorRequest(threads=1, most=5), ActorResources(5, 1, 0.0, 1)),
        (CPUS, ActorRequest(actors=100), ActorResources(100, 1, 0.0, 1)),  # the others start as it grows
        (CPUS, ActorRequest(threads=17), ActorResources(0, 17, 0.0, 17)),
        (CPUS, ActorRequest(gpus=1), ActorResources(0, 1, 1.0, 1)),
        (GPUS, ActorRequest(), ActorResources(8, 1, 1.0, 8)),
        (GPUS, ActorRequest(gpus=0.5), ActorResources(16, 1, 0.5, 4)),
        (GPUS, ActorRequest(actors=3), ActorResources(3, 1, 1.0, 8)),
        (GPUS, ActorRequest(gpus=2), ActorResources(4, 1, 2.0, 16)),
        (GPUS, ActorRequest(gpus=0, threads=8), ActorResources(9, 8, 0.0, 8)),
        ([], ActorRequest(), ActorResources(0, 1, 0.0, 1)),
    ],
)
def test_how_a_cluster_is_divided(nodes, asked, expected):
    assert actor_resources(nodes, asked) == expected


def test_no_room_says_what_was_asked_and_what_is_there():
    said = no_room(CPUS, actor_resources(CPUS, ActorRequest(gpus=2)))
    assert "1 CPU and 2 GPU" in said and "2 nodes" in said and "16 CPU and 0 GPU" in said


class Noted(RunObserver):
    def __init__(self):
        self.lines, self.shards, self.count = [], [], 0

    def say(self, text):
        self.lines.append(text)

    def shard(self, name, stats, made):
        self.shards.append((name, stats, made))

    def crops(self, count):
        self.count += count


def supervised(workers, started=True):
    supervisor = Supervisor(workers, observer := Noted())
    for worker in range(workers if started else 0):
        supervisor.hear(worker, ("started",))
    return supervisor, observer


def claim(supervisor, worker, *names):
    for name in names:
        supervisor.hear(worker, ("claim", name))


def test_what_workers_report_reaches_the_observer():
    supervisor, observer = supervised(2)
    claim(supervisor, 0, "a")
    supervisor.hear(0, ("crops", 5))
    supervisor.hear(1, ("crops", 7))
    supervisor.hear(0, ("shard", "a", "stats", True))
    assert observer.count == 12 and observer.shards == [("a", "stats", True)]
    assert not supervisor.finished
    supervisor.hear(1, ("done",))
    assert supervisor.finished and supervisor.slots[1].done and not supervisor.slots[0].done


def test_the_next_worker_makes_what_the_last_held_alone():
    supervisor, observer = supervised(2)
    claim(supervisor, 0, "a", "b", "c")
    supervisor.hear(0, ("shard", "b", None, True))
    assert supervisor.ended(0, "signal 9") == ["a", "c"]
    assert supervisor.given_up == {} and "signal 9" in observer.lines[-1]
    assert supervisor.ended(0, "signal 9") == []  # it held nothing


def test_a_shard_is_given_up_only_where_it_was_alone_in_the_last_of_its_failures():
    supervisor, observer = supervised(2)
    for _ in range(FAILURES):
        claim(supervisor, 0, "good", "bad")
        assert supervisor.ended(0, "x") == ["good", "bad"]
    assert supervisor.given_up == {}
    claim(supervisor, 0, "good")
    supervisor.hear(0, ("shard", "good", None, True))
    claim(supervisor, 0, "bad")
    assert supervisor.ended(0, "signal 9") == []
    assert supervisor.given_up == {"bad": "signal 9"}
    assert any("bad is given up" in line for line in observer.lines)


def test_failures_of_one_shard_add_up_over_workers():
    supervisor, _ = supervised(3)
    for worker in range(FAILURES):
        claim(supervisor, worker, "bad")
        again = supervisor.ended(worker, "signal 11")
        assert again == (["bad"] if worker < FAILURES - 1 else [])
    assert supervisor.given_up == {"bad": "signal 11"}


def test_lost_nodes_are_nobodys_fault():
    supervisor, _ = supervised(1)
    for _ in range(2):
        claim(supervisor, 0, "a")
        assert supervisor.ended(0, "its node was lost", blame=False) == ["a"]
    claim(supervisor, 0, "a")
    supervisor.hear(0, ("shard", "a", None, True))
    for _ in range(FAILURES - 1):
        claim(supervisor, 0, "b")
        supervisor.ended(0, "signal 9")
    assert supervisor.given_up == {}


def test_a_place_whose_workers_end_in_vain_is_closed_and_the_last_one_ends_the_run():
    supervisor, observer = supervised(2)
    assert [supervisor.ended(0, "exit code 1") for _ in range(FAILURES)] == [[], [], None]
    assert observer.lines[-1] == (
        "worker 0 ended: exit code 1; it ended 3 times without a shard to blame and is not started again"
    )
    assert [supervisor.ended(1, "exit code 2") for _ in range(FAILURES - 1)] == [[], []]
    with pytest.raises(SlgWdsError, match="again and again, worker 1 at last: exit code 2"):
        supervisor.ended(1, "exit code 2")


def test_a_sick_device_is_to_blame_and_not_its_shards():
    supervisor, observer = supervised(2)
    for number in range(FAILURES):
        claim(supervisor, 0, "a", "b")
        supervisor.hear(0, ("device", "CUDA error: uncorrectable ECC error"))
        again = supervisor.ended(0, "exit code 1")
        assert again == ([] if number < FAILURES - 1 else None)
    assert supervisor.given_up == {} and "ECC" in observer.lines[-1]
    claim(supervisor, 1, "a")
    supervisor.hear(1, ("shard", "a", None, True))
    claim(supervisor, 1, "b")
    assert supervisor.ended(1, "signal 9") == ["b"]  # its first failure
    for _ in range(FAILURES - 1):
        supervisor.hear(1, ("device", "CUDA error: gone"))
        supervisor.ended(1, "exit code 1")
    supervisor.hear(1, ("device", "CUDA error: gone"))
    with pytest.raises(DeviceError, match="worker 1 at last: CUDA error: gone"):
        supervisor.ended(1, "exit code 1")


def test_a_device_that_fails_now_and_then_goes_on():
    supervisor, _ = supervised(1)
    for number in range(3 * FAILURES):
        claim(supervisor, 0, f"shard{number}")
        supervisor.hear(0, ("shard", f"shard{number}", None, True))
        claim(supervisor, 0, f"shard{number + 1}")
        supervisor.hear(0, ("device", "CUDA error"))
        assert supervisor.ended(0, "exit code 1") == []


def test_a_shard_made_between_ends_makes_them_harmless():
    supervisor, _ = supervised(1)
    for _ in range(10 * FAILURES):
        claim(supervisor, 0, "a")
        supervisor.hear(0, ("shard", "a", None, True))
        assert supervisor.ended(0, "exit code 1") == []


def test_ends_that_make_nothing_are_counted_over_all_workers():
    supervisor, _ = supervised(2)
    with pytest.raises(SlgWdsError, match="again and again"):
        for number in range(100):
            claim(supervisor, number % 2, f"shard{number}", f"other{number}")
            supervisor.ended(number % 2, "signal 9")
    assert number < 20


def test_workers_that_cannot_start_end_the_run_at_once():
    supervisor, _ = supervised(2, started=False)
    supervisor.ended(0, "exit code 1")
    with pytest.raises(SlgWdsError, match="__main__"):
        supervisor.ended(1, "exit code 1")


def test_what_a_worker_says_of_its_failure_is_told_instead_of_its_exit_code():
    supervisor, observer = supervised(1)
    claim(supervisor, 0, "a")
    supervisor.hear(0, ("failed", "RuntimeError: CUDA out of memory"))
    supervisor.ended(0, "exit code 0")
    assert "CUDA out of memory" in observer.lines[-1] and "exit code" not in observer.lines[-1]


def test_an_error_of_ours_ends_the_run():
    supervisor, _ = supervised(2)
    with pytest.raises(ImageDecodeError, match="no JPEG"):
        supervisor.hear(1, ("error", ImageDecodeError("no JPEG", key="a")))


def told(task):
    messages = []
    perform(task, 0, 1, Reporter(messages.append, ["a"], ["b"]), messages.append)
    return messages


def test_a_worker_tells_all_that_it_does_and_refuses_what_was_given_up(capsys):
    def task(worker, workers, observer):
        observer.begin(RunStarted("digest", 3, 30))
        assert list(observer.retry_alone()) == ["a"]
        assert observer.claim("a") and not observer.claim("b")
        observer.shard("a", "stats", False)

    assert told(task) == [
        ("started",), ("begin", RunStarted("digest", 3, 30)), ("claim", "a"), ("shard", "a", "stats", False), ("done",),
    ]  # fmt: skip
    assert capsys.readouterr().err == ""


def test_errors_of_ours_and_others_are_told_apart(capsys):
    def ours(worker, workers, observer):
        raise UsageError("wrong", hint="right")

    def other(worker, workers, observer):
        raise ZeroDivisionError("a\nb")

    (_, (kind, error)) = told(ours)
    assert kind == "error" and type(error) is UsageError and capsys.readouterr().err == ""
    assert told(other)[1] == ("failed", "ZeroDivisionError: a")
    assert "Traceback" in capsys.readouterr().err

    def devices(worker, workers, observer):
        raise DeviceError("CUDA error: gone", hint="run it again")

    assert told(devices)[1] == ("device", "CUDA error: gone") and capsys.readouterr().err == ""


def test_an_error_that_does_not_travel_is_told_by_one_that_does():
    class LocalError(SlgWdsError):
        pass

    assert type(picklable(LocalError("of here"))) is SlgWdsError
    assert "LocalError: of here" in str(picklable(LocalError("of here")))
