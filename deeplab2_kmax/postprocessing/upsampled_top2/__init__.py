"""The two strongest mask slots of every pixel, from mask logits that are enlarged bilinearly, but never all at once.

The task. A model gives mask logits [h, w, N] for N mask slots, at a quarter of the resolution, say. Enlarged to H x W,
a softmax over the slots gives each pixel a probability of each slot. Post-processing wants the *peaks* of each pixel:
its strongest slot and its second strongest, with their probabilities. Done plainly, this takes H * W * N interpolations
and exponentials, and several tensors of that size: 840 MB each for 1281 x 1281 pixels and 128 slots.

Why two slots are enough. A mask is where its slot's probability exceeds a threshold t. The probabilities of a pixel sum
to 1, so no three of them can exceed 1/3: with a t of 1/3 or more a pixel lies in two masks at most, and from 1/2 on in
one at most. (With a smaller t, post-processing takes only the strongest slot from here, and `log_sums`.)

*Cells* (`cells`). Sizes have the form stride * k + 1 and corners are aligned, so the pixels of the logits are pixels of
the enlarged map themselves. Between four neighboring ones lies a cell of stride x stride pixels of the map. The logits
of a pixel in it are a weighted mean of the logits at the cell's four corners, with the same weights for all slots.

1. Where one slot is the strongest at all four corners of a cell (`uncontested_cells`), it is the strongest at every
   pixel within, since weighted means with the same weights keep the order. This is exact, and settles the strongest
   slot of most cells by one argmax for each logit pixel.

2. Its probability there is exp(m) / sum_j exp(l_j), where l_j are the interpolated logits and m is the interpolation of
   the largest logit of each corner, which is the strongest slot's own logit. So it is 1 over the *softmax sum*
   sum_j exp(l_j - m) (`softmax_sums`). The exponential of a mean with weights n / K, where K is the number of pixels in
   a cell and n is whole, is a product of n-th powers of exp(corner / K). So exponentials are needed at the h * w logit
   pixels only, and each pixel of the map costs about one product and one addition for each slot.

3. The other cells are *contested* (`contested_cells`): those whose corners have different strongest slots, as along the
   borders of segments, and, if second slots are asked for, those with a pixel where two slots may exceed t, that is,
   where the strongest one's probability p exceeds t and so does 1 - p, which is left for all others. Their logits are
   interpolated slot by slot, a few cells at a time, and searched for the two largest; the softmax sums serve as
   denominators again. Nothing is missed in the other cells, as a second slot that does not exceed t is of no interest.

The result is that of the plain way but for rounding. Which cells are contested is decided with 1e-3 of probability to
spare. In uncontested cells a softmax sum is at least 1, the strongest slot's own term; where one underflows in a
contested cell, as logits differ by hundreds from corner to corner, that cell's softmax is computed plainly.

*Enlarged rows* (`enlarged_rows`). Sizes without a whole stride between them, or with one above 8, are not cut into
cells. There the logits are enlarged plainly, but only a few rows of the map at a time: slower, in as little memory.

The cost is h * w * N exponentials; H * W * N products and sums, in pieces that fit a processor's cache; and the plain
way for contested cells, which are few where segments have clear borders. Memory is that of a few maps [H, W].

*Whole tensors* (`whole_tensors`) is the same way for other runtimes than TensorFlow, whose loops are slow.

Where to start reading: `two_strongest`, the entry point, which puts steps 1 to 3 together. `peaks` has the types of the
results and finds the peaks of logits that are there already.
"""

from deeplab2_kmax.postprocessing.upsampled_top2.enlarged_rows import log_sums
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PeakMaps, PixelPeaks
from deeplab2_kmax.postprocessing.upsampled_top2.two_strongest import two_strongest_slots

__all__ = ["PeakMaps", "PixelPeaks", "log_sums", "two_strongest_slots"]
