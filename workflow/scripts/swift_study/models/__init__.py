"""Models and their tokens."""
