"""Draws figures. In: numbers and fixed labels, never a name from a label set. Out: SVG in the page's colours."""
