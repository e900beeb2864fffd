"""Will this way of making instruction-tuning data help? Read from gradients before training, proved afterwards."""

__version__ = "0.1.0"
