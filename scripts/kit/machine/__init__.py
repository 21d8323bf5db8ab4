"""The machine: its facts, how they are detected, and which platform they make."""
