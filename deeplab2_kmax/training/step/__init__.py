"""One training step, and the loop that repeats it.

Start with `step` (forward and backward pass, then the update) and `loop` (orbit's trainer around it). `accumulation`
works through a large batch in parts, `loss_scale` keeps float16 gradients from vanishing, `non_finite` decides what
follows a loss that is not finite, and `debug_bundle` keeps what is needed to look into it; `seeding` makes runs
repeatable, `tracing` shortens the wait for the first step. What is minimized is in `deeplab2_kmax.losses`, how
variables are updated in `deeplab2_kmax.training.optimizers`.
"""
