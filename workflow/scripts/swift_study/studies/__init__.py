"""What studies compare, and their tables."""
