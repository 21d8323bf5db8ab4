"""An adapter after training: evaluated, talked to, merged."""
