"""What a run directory holds, how it is written and how it is read."""
