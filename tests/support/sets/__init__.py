"""Small label sets, made in seconds."""
