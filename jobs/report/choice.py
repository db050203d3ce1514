"""Which images a report shows where it cannot show all: the ones a person has to look at come first."""

from collections.abc import Sequence
from math import log

from jobs.report.rows import InspectedImage


def by_score(images: Sequence[InspectedImage]) -> list[InspectedImage]:
    """Highest score first; equal scores by image id, so that two reports of one run are alike."""
    return sorted(images, key=lambda image: (-image.normalised_score, image.image_id))


def evenly(images: Sequence[InspectedImage], count: int) -> list[InspectedImage]:
    """``count`` of the images, evenly spread over their order, both ends included."""
    if count <= 0:
        return []
    if count >= len(images):
        return list(images)
    if count == 1:
        return [images[0]]
    return [images[round(place * (len(images) - 1) / (count - 1))] for place in range(count)]


def for_page(images: Sequence[InspectedImage], cap: int) -> list[InspectedImage]:
    """At most ``cap`` images of one product: mistakes, reviews, NotOK, then OK ones spread evenly over their scores."""
    chosen: list[InspectedImage] = []
    groups = (
        [image for image in images if image.outcome in ("escape", "false reject")],
        [image for image in images if image.outcome == "review"],
        [image for image in images if image.verdict != "OK" and image.outcome in ("right", "unknown")],
        [image for image in images if image.verdict == "OK" and image.outcome in ("right", "unknown")],
    )
    for group in groups:
        chosen += evenly(by_score(group), cap - len(chosen))
    return by_score(chosen)


def for_sheet(images: Sequence[InspectedImage], count: int) -> list[InspectedImage]:
    """A third with the highest scores, a third nearest to the threshold, the rest evenly over all scores."""
    ranked = by_score(images)
    if count >= len(ranked):
        return ranked
    chosen = ranked[: count // 3]
    rest = ranked[count // 3 :]
    borderline = sorted(rest, key=lambda image: abs(log(max(image.normalised_score, 1e-6))))[: count // 3]
    taken = {id(image) for image in borderline}
    rest = [image for image in rest if id(image) not in taken]
    return by_score(chosen + borderline + evenly(rest, count - len(chosen) - len(borderline)))
