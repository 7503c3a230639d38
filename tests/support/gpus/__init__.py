"""GPUs imitated on a CPU: streams that run late, graphs that repeat what was recorded."""
