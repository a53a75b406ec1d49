"""When a run saves checkpoints, what it starts from, and which checkpoint is the best.

Start with `checkpointing`. How a checkpoint is read, checked and written is in `deeplab2_kmax.checkpoints`.
"""
