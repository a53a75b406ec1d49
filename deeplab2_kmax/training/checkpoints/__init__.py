"""The checkpoints of a run: what it starts from, when it saves one, and which one is the best.

Start with `checkpointing`, then `initial_weights` and `best_checkpoint`. How a checkpoint is read, checked and written
is in `deeplab2_kmax.checkpoints`.
"""
