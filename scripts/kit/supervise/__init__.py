"""What watches over a training run: signals, a step that hangs, a loss that says nothing is learnt."""
