"""MaX-DeepLab's skeleton: decoder layers stand between the blocks of the encoder, not in a decoder of their own.

image -> encoder (pixels <-> centers) [-> backbone decoder] -> extra stage -> extra decoder -> masks and classes
                                      \\-> semantic branch (an auxiliary loss)

Pixels and cluster centers run side by side through all of it, which is why the paper calls it dual-path (Wang et al.,
"MaX-DeepLab", CVPR 2021). `settings.py` says in what MaX-S and MaX-L differ. The decoder layers themselves, with their
update rules, are in `model/transformer_decoder`, heads and layers one folder up. Start reading at `network.py`, then
read `stage.py`, of which everything here is made.
"""
