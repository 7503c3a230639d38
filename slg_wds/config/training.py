"""FKD's defaults of `slg-wds train`, and which batch a set of few images fills."""

from __future__ import annotations

BATCH_SIZE, NUM_CROPS = 1024, 4
SOFTLABEL_PATH = "./soft_label"


def flags_that_fit(images: int, num_crops: int = NUM_CROPS, ranks: int = 1) -> str:
    """Return the flags of `slg-wds train` for the largest batch that the images fill.

    The last walks take one crop of each image, so a batch has no more crops than there are images.

    Args:
        images: that have labels.
        num_crops: crops of an image in a batch; with fewer images than that, the flags lower it.
        ranks: processes, which share each batch evenly.

    Returns:
        For example `-b 36`; empty where there are fewer images than processes.
    """
    crops = min(num_crops, images // ranks)
    if not crops:
        return ""
    batch = f"-b {images // (ranks * crops) * ranks * crops}"
    return batch if crops == num_crops else f"--num_crops {crops} {batch}"
