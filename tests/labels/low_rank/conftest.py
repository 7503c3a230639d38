"""Products of matrices have the same bits with one thread alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slg_wds.concurrency.threads import one_blas_thread


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with one_blas_thread():
        yield
