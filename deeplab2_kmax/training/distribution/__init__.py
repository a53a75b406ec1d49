"""Where a run computes: devices of this machine, a TPU, or several machines that train together.

Start with `strategy`. `cluster` reads TF_CONFIG; `multi_worker` is what processes that train together have to agree on.
"""
