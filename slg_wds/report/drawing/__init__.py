"""Draws figures.

    figure.py      what all figures share
    histograms.py  histograms
    dots.py        figures of dots
    maps.py        maps in two dimensions
    svg.py         figures -> SVG in the page's colours

Enters: numbers and fixed labels, never a name from a label set. Leaves: SVG in the page's colours.
"""
