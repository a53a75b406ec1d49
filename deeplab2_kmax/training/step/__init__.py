"""One training step, and the loop that repeats it.

Start with `step` (gradients, then their application) and `loop` (orbit's trainer around it). `accumulation`,
`loss_scale` and `non_finite` are what a step may do besides; `debug_bundle` is what a failing one leaves behind;
`seeding` makes steps repeatable; `tracing` makes the first one come sooner. What is minimized is in
`deeplab2_kmax.losses`, how variables are updated in `deeplab2_kmax.training.optimizers`.
"""
