"""Writes augmentation.npz: what DeepLab2 makes of fixed pictures by pinned draws.

    PYTHONPATH=.:FOLDER python tests/golden/make_augmentation.py

FOLDER holds google-research/deeplab2 as `deeplab2`. Every random number it draws is replaced by one of
`tests/input_pipeline/augmentation_cases.py`, in the order in which it asks for them.
"""

import contextlib
import itertools
import pathlib
import sys
from unittest import mock

import numpy as np
import tensorflow as tf
from deeplab2 import config_pb2
from deeplab2.data import dataset, sample_generator
from deeplab2.data.preprocessing import autoaugment_utils

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tests/, where `helpers` is

from helpers import augmentation_cases as cases  # noqa: E402


@contextlib.contextmanager
def pinned(draws, shuffled=None):
    """Lets tf.random.uniform return the draws one after the other, and tf.random.shuffle what is given."""
    queue = list(draws)

    def uniform(shape, minval=0, maxval=None, dtype=tf.float32, **_):
        return tf.constant(queue.pop(0), dtype)

    with mock.patch.object(tf.random, "uniform", uniform), mock.patch.object(tf.random, "shuffle", shuffled):
        yield
    assert not queue, queue


def operations() -> dict:
    """By "operation/NAME", every seventh value for each level; a picture large enough for white contrast as well."""
    small, large = cases.picture(29, 37, 0), cases.picture(257, 256, 1)
    levels = autoaugment_utils.level_to_arg()
    figures = {}
    for name, function in autoaugment_utils.NAME_TO_FUNC.items():
        outputs = [function(tf.constant(small), *levels[name](level)).numpy() for level in cases.LEVELS]
        figures[f"operation/{name}"] = np.stack([output.ravel()[::7] for output in outputs])
        outputs = [function(tf.constant(large), *levels[name](level)).numpy() for level in (2, 9)]
        figures[f"large/{name}"] = np.stack([output.ravel()[::997] for output in outputs])
    return figures


def crop_draws(draws: cases.Draws, case: cases.Case) -> list:
    """The random numbers for one picture, scale apart."""
    numbers = []
    if case.policy:
        numbers += [draws.pair, *(0.999 if taken else 0.0 for taken in draws.taken)]
    # An offset of padding and one of the crop for each axis; where one does not apply it is 0.
    fitted = sample_generator.preprocessing.preprocess_utils.resize_to_range_helper(
        draws.size, case.min_resize, case.max_resize, case.factor
    )
    scaled = [int(np.float32(side) * np.float32(draws.scale)) for side in np.array(fitted)]
    numbers += [offset if side < crop else 0 for offset, side, crop in zip(draws.offset, scaled, cases.CROP)]
    numbers += [0 if side < crop else offset for offset, side, crop in zip(draws.offset, scaled, cases.CROP)]
    return [*numbers, 0.25 if draws.flip else 0.75]


def generator(case: cases.Case, draws: cases.Draws, options=None):
    """DeepLab2's sample generator with the scale fixed."""
    return sample_generator.PanopticSampleGenerator(
        dataset_info=dataset.MAP_NAME_TO_DATASET_INFO[case.dataset]._asdict(),
        is_training=True,
        crop_size=cases.CROP,
        min_resize_value=case.min_resize,
        max_resize_value=case.max_resize,
        resize_factor=case.factor,
        min_scale_factor=draws.scale,
        max_scale_factor=draws.scale,
        autoaugment_policy_name=case.policy,
        thing_id_mask_annotations=True,
        max_thing_id=cases.MAX_THING_ID,
        focus_small_instances={"threshold": cases.SMALL_AREA, "weight": 3.0},
        panoptic_copy_paste_options=options,
    )


def paste_options(choices, scale=1.0):
    options = config_pb2.ExperimentOptions().train_dataset_options.augmentations.panoptic_copy_paste
    options.panoptic_copy_paste_scale = scale
    options.panoptic_copy_paste_thing_option = choices[0]
    options.panoptic_copy_paste_stuff_option = choices[1]
    options.panoptic_copy_paste_void_option = choices[2]
    return options


def keep(kept):
    """Stands for tf.random.shuffle: a mask with as many ones, at the places `kept`."""
    return lambda mask: tf.constant([int(index in kept) for index in range(mask.shape[0])])


def samples() -> dict:
    """By "sample/CASE/KEY", whole training samples; every fifth value of images."""
    figures = {}
    for name, case in cases.CASES.items():
        numbers, options, source = crop_draws(case.draws, case), None, {}
        if case.source:
            numbers += [*crop_draws(case.source, case), len(case.kept)]
            options = paste_options(case.choices, case.source.scale / case.draws.scale)
            source = {
                "panoptic_copy_paste_image": tf.constant(cases.picture(*case.source.size, 3)),
                "panoptic_copy_paste_label": tf.constant(cases.segments(*case.source.size, case.dataset, 4))[..., None],
            }
        with pinned(numbers, keep(case.kept)):
            sample = generator(case, case.draws, options).call(
                image=tf.constant(cases.picture(*case.draws.size, 1)),
                image_name="",
                label=tf.constant(cases.segments(*case.draws.size, case.dataset, 2))[..., None],
                height=case.draws.size[0],
                width=case.draws.size[1],
                **source,
            )
        figures[f"sample/{name}/image"] = sample["image"].numpy().ravel()[::5]
        for key in ("panoptic_gt", "semantic_loss_weight", "thing_id_mask_gt", "thing_id_class_gt"):
            figures[f"sample/{name}/{key}"] = sample[key].numpy()
    return figures


def pastes() -> dict:
    """By "paste/THING/STUFF/VOID", the label after pasting every other segment."""
    figures = {}
    case = cases.CASES["as it is"]
    label, source = (tf.constant(cases.segments(*cases.CROP, case.dataset, seed))[..., None] for seed in (5, 6))
    # A row of padding.
    source = tf.concat([tf.ones_like(source[:1]), source[1:]], 0)
    image, source_image = tf.zeros([*cases.CROP, 3]), tf.ones([*cases.CROP, 3])
    for choices in itertools.product(cases.CHOICES, repeat=3):
        with pinned([4], keep((0, 1, 3, 5))):
            pasted_image, pasted = generator(case, case.draws, paste_options(choices))._get_panoptic_copy_paste(
                image, label, source_image, source, *choices
            )
        figures["paste/" + "/".join(choices)] = pasted[..., 0].numpy()
        figures["pasted/" + "/".join(choices)] = np.packbits(pasted_image[..., 0].numpy().astype(bool))
    return figures


def main() -> None:
    target = pathlib.Path(__file__).with_name("augmentation.npz")
    figures = {**operations(), **samples(), **pastes()}
    np.savez_compressed(target, **figures)
    print(f"{target}: {len(figures)} figures, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
