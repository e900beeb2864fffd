"""Influence, curves, verdicts, and what else could explain them."""
