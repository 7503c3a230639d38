"""Crops of an image: where they lie (drawn from the seed) and their pixels (cut, resized, normalised).

Enters: an image's key, size and pixels. Leaves: boxes, flips, uint8 crops. Imports errors alone.
"""
