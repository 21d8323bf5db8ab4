"""What every command stands on: its start and end, what it prints, findings, secrets kept out."""
