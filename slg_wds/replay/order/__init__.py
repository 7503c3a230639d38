"""Which sample stands where in which batch, and which of its crops: pure functions of set, seed and epoch."""
