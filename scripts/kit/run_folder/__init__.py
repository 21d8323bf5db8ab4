"""What a run's folder holds, how it is written and how it is read."""
