"""`lever-plus import-vqa`: turns a list of questions, answers and images into VQAv2 files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lever_plus.cli.panels import OWN

import_vqa_app = typer.Typer()


class Split(StrEnum):
    """The split that the questions are for."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


@import_vqa_app.command("import-vqa", rich_help_panel=OWN)
def import_vqa(
    file: Annotated[Path, typer.Argument(help="The list: JSON lines, .json or .csv.")],
    split: Annotated[Split, typer.Option(help="Split that the questions are for.")],
    out: Annotated[
        Path, typer.Option(help="Folder in which a folder with the split's name is made.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images. Default: the folder of the list.")
    ] = None,
    image_name: Annotated[
        str | None,
        typer.Option(
            help="If the list has numbers instead of image files: how the files are named, such as "
            "{image_id}.png."
        ),
    ] = None,
) -> None:
    """Write a list of questions, answers and images as a split in VQAv2 format.

    FILE is JSON lines, a JSON list (.json) or CSV (.csv); each row has question, answer and image.
    """
    from lever_plus.data.vqa_import import import_list
    from lever_plus.files.names import check_image_name

    if image_name is not None:
        check_image_name(image_name, "--image-name")
    folder = out / split.value
    made = import_list(file, split.value, folder, images or file.parent, image_name)
    typer.echo(
        f"wrote {made.questions:,} questions about {made.images:,} images into {folder}; in "
        f'params.yaml, set image_name of data.source.{split.value} to "{made.image_name}"'
    )
