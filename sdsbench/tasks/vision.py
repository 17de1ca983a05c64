"""The seven full-size sets of the SDS-LoRA vision protocol, and two small ones. A sample row (dtd):

    {"image": <PIL image>, "label": 4}      4: bumpy

`dtd10` is ten of DTD's 47 classes with a split of its own, and `cifar10` has no part in the protocol: neither is to be
compared with a published number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import IMAGE, ColumnCheck, class_number
from sdsbench.tasks.base import Evaluation, Labelled, TaskConfig, register
from sdsbench.tasks.images import ImageTask


@dataclass(frozen=True)
class ImageSet:
    classes: int
    hub_id: str | None
    columns: tuple[str, str] = ("image", "label")
    test_split: str = "test"
    revision: str | None = None  # of the hub repository; without one the commit that was read is recorded


SETS: Mapping[str, ImageSet] = {
    "cifar100": ImageSet(
        100,
        "uoft-cs/cifar100",
        ("img", "fine_label"),
        revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
    ),
    "resisc45": ImageSet(45, "timm/resisc45"),
    "food101": ImageSet(
        101, "ethz/food101", test_split="validation", revision="e06acf2a88084f04bce4d4a525165d68e0a36c38"
    ),
    "dtd": ImageSet(47, "tanganke/dtd"),
    "cub200": ImageSet(200, "bentrevett/caltech-ucsd-birds-200-2011"),
    "cars": ImageSet(196, "tanganke/stanford_cars"),
    "sun397": ImageSet(397, "tanganke/sun397"),
    "cifar10": ImageSet(10, "uoft-cs/cifar10", ("img", "label"), revision="0b2714987fa478483af9968de7c934580d0bb9a2"),
    "dtd10": ImageSet(10, None),
}


def image_checks(columns: tuple[str, str], classes: int) -> dict[str, ColumnCheck]:
    """Checks for the cells of an image set: an image, and a valid class number."""
    return {columns[0]: IMAGE, columns[1]: class_number([str(label) for label in range(classes)])}


for _name, _set in SETS.items():
    catalogue.add(
        DataSet(
            name=f"vision/{_name}",
            columns=_set.columns,
            hub_id=_set.hub_id,
            revision=_set.revision,
            splits={"train": "train", "test": _set.test_split},
            checks=image_checks(_set.columns, _set.classes),
            folder=_name,
            classes=_set.columns[1],
            note="" if _set.hub_id else "local only",
        )
    )


class VisionTask(ImageTask):
    def evaluations(self) -> Sequence[Evaluation]:
        return [Labelled(self.name, 1, self.name, "test", metrics=("accuracy",), headline="accuracy")]


def register_image_task(name: str, classes: int, columns: tuple[str, str]) -> None:
    """Make `task=name` known: top-1 accuracy on the test split of the data set of the same name."""
    attributes = {
        "image_column": columns[0],
        "label_column": columns[1],
        "label_names": tuple(str(label) for label in range(classes)),
        "__module__": __name__,
    }
    register(name, TaskConfig)(type(f"Vision_{name.replace('/', '_')}", (VisionTask,), attributes))


for _name, _set in SETS.items():
    register_image_task(f"vision/{_name}", _set.classes, _set.columns)
