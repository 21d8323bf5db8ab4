"""The machine: its facts, how they are found out, and what they are judged to be good for."""
