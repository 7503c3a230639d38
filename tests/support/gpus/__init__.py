"""GPUs imitated on a CPU: streams that run late, tensors without values, graphs that repeat what was recorded."""
