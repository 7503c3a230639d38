"""The README's commands run as they stand there, but for the substitutions of support/readme_world.py."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

import slg_wds
from support.readme.blocks import IN_ORDER, README, blocks, commands
from support.readme.world import options_of, run_here, run_there

TASK = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"}
SLICES = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.40gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)"""
ELEMENT = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1"}
OF_MPIRUN = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


def run_command(command: str, environment: dict[str, str]) -> str:
    """Run a command; of a launcher that needs a cluster, what it starts, as its only task."""
    words = shlex.split(command)
    if words[0] == "sbatch":
        return run_here(shlex.split(words[words.index("--wrap") + 1]), {**environment, **ELEMENT})
    if words[0] in ("srun", "mpirun"):
        variables = TASK if words[0] == "srun" else OF_MPIRUN
        return run_here(words[words.index("slg-wds") :], {**environment, **variables})
    if words[0] == "nvidia-smi":
        return run_there(["bash", "-c", f"nvidia-smi() {{ echo '{SLICES}'; }}; {command}"], environment)
    if words[0] == "torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        return run_there([*launcher, *words[1:]], {**environment, "OMP_NUM_THREADS": "1"})
    if words[0] == "eval":
        return run_there(["bash", "-c", f"{command}; complete -p slg-wds"], {})
    return run_here(words, environment)


# They start processes, or do what another one does.
SLOW = ("torchrun", "--devices", "--engine ray", "MIG-", "srun --ntasks 8", "--gpu-bind")
MARKS = [
    pytest.param(command, marks=pytest.mark.slow) if any(one in command for one in SLOW) else command
    for command in commands()
    if not any(one in command for one in IN_ORDER)
]


@pytest.mark.parametrize("command", MARKS)
def test_commands(command, world, tmp_path):
    changed = world.here(command, tmp_path)
    said = run_command(changed, world.environment)
    for written in re.findall(r"(?:--save-path|--save_checkpoint_path|-o) (\S+?)\"?(?= |$)", changed):
        if written.startswith("s3://"):
            assert len(slg_wds.open_labels(written, store_options=options_of(world))) > 0
        elif "--dry-run" not in command:
            assert Path(written).exists(), said
    assert said or "export" in command


def test_every_extra_that_is_installed_is_there():
    lines = [line for line in commands() if line.startswith("pip")]
    extras = set(metadata("slg-wds").get_all("Provides-Extra"))
    assert lines
    for line in lines:
        name, _, wanted = shlex.split(line.removeprefix("pip install "))[0].partition("[")
        assert name in ("slg-wds", ".") and line.count(" ") == 2
        assert set(filter(None, wanted.rstrip("]").split(","))) <= extras


def test_every_block_is_run():
    """Bash blocks line by line; of the others each by the test that names a mark of it."""
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_readme*.py"))
    marks = re.findall(r'block_with\("(\w+)", "(.+?)"\)', source)
    others = [block for block in blocks() if block.language != "bash"]
    assert {block.language for block in others} == {"python", "text"}
    for block in others:
        assert any(block.language == language and mark in block.text for language, mark in marks), block
    started = {line.split()[0] for line in commands()}
    assert started == {"pip", "slg-wds", "eval", "torchrun", "srun", "mpirun", "sbatch", "nvidia-smi"}
    assert not re.search(
        r"^( {4}|\t)\S", re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE), re.M
    )
