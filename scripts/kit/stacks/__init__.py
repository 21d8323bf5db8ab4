"""The two generations of the libraries: what each can do, what is locked, what is installed."""
