"""What is recorded about how labels were made."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import slg_wds
from slg_wds.labelset import provenance


def test_versions_are_those_that_are_installed_and_a_checkout_needs_no_installation(monkeypatch):
    def elsewhere(name):
        if name == "slg-wds":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(provenance, "version", elsewhere)
    found = provenance.versions()
    assert found == {"slg-wds": slg_wds.__version__, **{name: version(name) for name in list(found)[1:]}}
    assert version("slg-wds") == slg_wds.__version__
