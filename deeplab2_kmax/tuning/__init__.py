"""Tuning of post-processing: better thresholds for a trained model, without running its network again.

`tune` in `tuning` is where to start reading. `raw_outputs` keeps what the network says of each image, compactly, in
memory and in a folder; `network_outputs` runs the network once to get it; `search_space` says which fields are searched
and between which values; `scoring` turns raw outputs and settings into figures of each image. Optuna, an extra, chooses
what to try next.

Weights are not changed here; training is in `deeplab2_kmax.training`.
"""
