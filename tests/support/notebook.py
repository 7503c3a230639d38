"""A cell of a notebook, run by a real kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupyter_client


def run_cell(code: str) -> list[dict[str, Any]]:
    """Run a cell in a kernel of its own, and return the messages of its output."""
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(Path(__file__).parent))
    client = manager.client()
    client.start_channels()
    messages: list[dict[str, Any]] = []
    try:
        client.wait_for_ready(timeout=60)
        client.execute_interactive(code, timeout=200, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return messages
