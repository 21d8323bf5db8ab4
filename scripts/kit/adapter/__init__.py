"""An adapter after training: loaded with its base, scored, talked to, merged, made portable."""
