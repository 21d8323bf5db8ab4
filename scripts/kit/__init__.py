"""What the commands in scripts/ share. Nothing in here is run by hand."""
