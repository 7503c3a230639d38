"""Where the files are that tests read."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
TOOLS = ROOT / "tools"
GOLDEN = TESTS / "golden"
MALFORMED = TESTS / "malformed"
MODELS = TESTS / "support" / "models"
