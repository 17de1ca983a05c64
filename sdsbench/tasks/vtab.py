"""VTAB-1k (Zhai et al. 2019): nineteen image tasks with 1,000 training images each. A sample row:

    {"image": <PIL image>, "label": 4}

The 1,000 are VTAB's own list; `eval.split=validation` trains on 800 and scores on 200 of them (`data.validation_rows`,
a fixed draw of this project rather than VTAB's). The final training is on all 1,000 and the score is top-1 on the full
test set. The number to report is the mean of three means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.tasks.base import register
from sdsbench.tasks.classification import Aggregate, AggregateConfig
from sdsbench.tasks.vision import image_checks, register_image_task

# group -> task -> number of classes
GROUPS: Mapping[str, Mapping[str, int]] = {
    "natural": {
        "caltech101": 102, "cifar100": 100, "dtd": 47, "flowers102": 102, "pets": 37, "svhn": 10, "sun397": 397,
    },
    "specialized": {"camelyon": 2, "eurosat": 10, "resisc45": 45, "retinopathy": 5},
    "structured": {
        "clevr-count": 8, "clevr-dist": 6, "dmlab": 6, "kitti-dist": 4,
        "dsprites-loc": 16, "dsprites-ori": 16, "smallnorb-azim": 18, "smallnorb-elev": 9,
    },
}  # fmt: skip

for _tasks in GROUPS.values():
    for _name, _classes in _tasks.items():
        catalogue.add(
            DataSet(
                name=f"vtab/{_name}",
                columns=("image", "label"),
                checks=image_checks(("image", "label"), _classes),
                folder=f"vtab/{_name}",
                classes="label",
                note="VTAB-1k's 1,000 training images (train800val200) as train.parquet, the full test set as "
                "test.parquet; no hub set with these lists is known",
            )
        )
        register_image_task(f"vtab/{_name}", _classes, ("image", "label"))


@register("vtab", AggregateConfig)
class Vtab(Aggregate):
    kind = "vision"

    def means(self) -> Mapping[str, Sequence[str]]:
        """Per group the mean over its tasks, and the mean of these group means."""
        members = set(self.config.members)
        groups = {
            f"vtab/{group}": [f"vtab/{name}" for name in tasks if f"vtab/{name}" in members]
            for group, tasks in GROUPS.items()
        }
        groups = {group: names for group, names in groups.items() if names}
        return {**groups, "vtab": list(groups)}
