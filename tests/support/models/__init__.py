"""Small models. Teachers are loaded as files, so they import each other as neighbours, not through this package."""
