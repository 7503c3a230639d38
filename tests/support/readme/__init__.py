"""What runs the README: its blocks and commands, and the world that they speak of."""
