"""Measures labels. In: records. Out: counts, means and histograms in fixed arrays, whatever the number of images."""
