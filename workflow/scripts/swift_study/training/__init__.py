"""Schedules, and the trainer that follows them."""
