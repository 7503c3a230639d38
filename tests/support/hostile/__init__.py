"""Files that are made to take memory or time."""
