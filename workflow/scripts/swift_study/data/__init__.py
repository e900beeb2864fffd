"""Sources, strategies, datasets."""
