"""What everything would cost, told beforehand."""
