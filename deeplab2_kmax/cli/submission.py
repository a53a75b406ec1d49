"""What `deeplab2-kmax submission` writes and prints."""

from __future__ import annotations

import zipfile
from collections.abc import Callable

import tqdm

from deeplab2_kmax import files
from deeplab2_kmax.cli.output_files import require_output_file
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.evaluation.submission.cityscapes import require_cityscapes, write_instances, write_semantic
from deeplab2_kmax.evaluation.submission.coco_panoptic import write_cityscapes_panoptic, write_coco_zip
from deeplab2_kmax.evaluation.submission.predicted_maps import PredictionFolder
from deeplab2_kmax.wording import counted

_INTO_FOLDERS = {
    "cityscapes-panoptic": write_cityscapes_panoptic,
    "cityscapes-semantic": write_semantic,
    "cityscapes-instance": write_instances,
}


def submission(
    form: str,
    predictions: PredictionFolder,
    output: str,
    images_json: str | None,
    report: Callable[[str], object],
) -> None:
    """Writes predictions in the form of a test server.

    Args:
        form: "coco", "cityscapes-panoptic", "cityscapes-semantic" or "cityscapes-instance".
        predictions: of all images.
        output: a ZIP file for "coco", else a folder that is new or empty.
        images_json: for "coco", see `write_coco_zip`.
        report: called with a line on what was written.

    Raises:
        DataError: a prediction cannot be read, or is missing.
        UserError: the flags do not fit, or a file cannot be written.
    """
    if output in ("", "-"):
        raise UserError(f"--output: expected a path, got {output!r}; name one, as nothing is written to stdout")
    if form == "coco" and not output.endswith(".zip"):
        raise UserError(f"--output: expected a ZIP file, such as panoptic_test-dev2017_kmax_results.zip, got {output}")
    if form != "coco" and images_json:
        raise UserError(f"--images: expected it with coco only, got {form}, whose images have no ids; leave it out")
    if form != "coco":
        require_cityscapes(predictions)
    else:
        require_output_file("--output", output, [images_json] if images_json else [])
    if form == "coco" and files.exists(output) and not _is_zip(output):
        raise UserError(f"{output}: expected a new file or a ZIP file to replace, got another; choose another --output")
    try:
        if form != "coco" and files.is_folder(output) and files.list_folder(output):
            # The scripts of Cityscapes take whatever they find in a folder.
            raise UserError(f"{output}: expected a new or empty folder, got one with files; choose another --output")
        with tqdm.tqdm(total=len(predictions.names), unit="image", desc="writing", disable=None) as bar:
            if form == "coco":
                write_coco_zip(predictions, output, images_json, bar.update)
            else:
                _INTO_FOLDERS[form](predictions, output, bar.update)
    except OSError as error:
        raise UserError(f"{error.filename or output}: cannot write this file: {error.strerror}") from error
    report(f"{counted(len(predictions.names), 'image')} of {predictions.dataset.name} -> {output}")


def _is_zip(path: str) -> bool:
    try:
        with files.open_to_read(path) as file:
            return zipfile.is_zipfile(file)
    except OSError:
        return False
