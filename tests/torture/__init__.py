"""What is done to a run on purpose, to see that nothing is lost."""
