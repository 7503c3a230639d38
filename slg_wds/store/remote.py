"""Object storage through obstore."""

from __future__ import annotations
