"""Teachers by the names that --arch takes."""

from __future__ import annotations

from support.paths import MODELS

TINY = f"{MODELS / 'tiny_teacher.py'}:tiny"
NAN = f"{MODELS / 'tiny_teacher.py'}:nan_for_bright"
LITE0 = "slg_wds.demo.teacher:lite0"
