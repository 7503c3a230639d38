"""Writes the page. In: what was measured and drawn. Out: HTML that loads nothing from elsewhere."""
