"""What models respond, how that is scored, and how likely they find golden answers."""
