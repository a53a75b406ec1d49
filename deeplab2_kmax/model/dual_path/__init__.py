"""MaX-DeepLab's skeleton: decoder layers stand between the blocks of the encoder, not in a decoder of their own.

image -> encoder (pixels <-> centers) [-> backbone decoder] -> extra stage -> extra decoder -> masks and classes
                                      \\-> semantic branch (an auxiliary loss)

Pixels and centers run side by side through all of it, which is why the paper calls it dual-path (Wang et al.,
"MaX-DeepLab", CVPR 2021). `settings.py` tells MaX-S from MaX-L.
"""
