"""The base model as far as it is known without torch: its files and its shape."""
