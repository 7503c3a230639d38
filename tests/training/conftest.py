"""What students of several modules are trained on."""

from __future__ import annotations

import pytest

import slg_wds
from support.models.names import TINY


@pytest.fixture(scope="session")
def labels(photographs, tmp_path_factory) -> str:
    """A label set of 12 crops of each of the 36 photographs, over 20 classes."""
    target = str(tmp_path_factory.mktemp("training") / "labels")
    config = slg_wds.GenerateConfig(
        data=str(photographs), save_path=target, teacher_source="private", arch=TINY, num_crops=12, num_seg=16,
        samples_per_shard=5,
    )  # fmt: skip
    slg_wds.generate(config)
    return target
