"""The devices that a run computes on: of this machine, a TPU, or of several machines that train together.

Start with `strategy`. `cluster` reads TF_CONFIG; `multi_worker` is about what processes that train together have to
agree on. Sums over processes are in `deeplab2_kmax.distribution`, which evaluation uses as well.
"""
