"""The base model without torch: its files and its shape."""
