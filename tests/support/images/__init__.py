"""Photographs, image files of every format, and sources of images."""
