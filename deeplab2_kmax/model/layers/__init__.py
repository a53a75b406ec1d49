"""Building blocks that know nothing of panoptic segmentation: convolutions, normalization, attention, resizing.

Here are layers and small functions that an encoder, a decoder or a head is made of. Whole encoders live in
`model/pixel_encoders`, everything about cluster centers in `model/transformer_decoder`. Three files explain rules that
all layers keep, so start with them: `precision.py` (what is float32 in mixed precision), `folding.py` (batch norms
become part of kernels in inference) and `recomputation.py` (blocks that save memory in training). After them read
`convolution.py`, which most other layers are built from.
"""
