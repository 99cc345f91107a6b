"""What a data set asks of each image: a declaration. All that follows from it stands in dr.tasks."""

from typing import NamedTuple

KINDS = ("levels", "classes", "findings")


class Question(NamedTuple):
    """The kind of the targets, and the names of what they can be.

    "levels" are grades of one disease, in their order; of "classes", which have none, an image has exactly one; of
    "findings" it may have any number, and each may be unknown by itself.
    """

    kind: str
    names: tuple[str, ...]  # for people

    @property
    def columns(self) -> list[str]:
        """The columns of the sample table that hold the targets: a level's number, a class's name, 0 or 1 each."""
        if self.kind == "levels":
            return ["level"]
        if self.kind == "classes":
            return ["class"]
        return list(self.names)

    @property
    def target(self) -> str:
        """One target, in words."""
        return {"levels": "level", "classes": "class", "findings": "finding"}[self.kind]

    @property
    def has_many_targets(self) -> bool:
        """Whether an image has a target for each of the names, not one for all."""
        return self.kind == "findings"


# The clinical scale: Wilkinson et al., Ophthalmology 110(9), 2003.
RETINOPATHY = Question("levels", ("no retinopathy", "mild", "moderate", "severe", "proliferative"))
