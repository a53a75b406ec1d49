"""Training: the command line, the loop, optimizers and distribution strategies."""
