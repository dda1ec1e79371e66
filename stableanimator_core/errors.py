"""What can go wrong, said so that the person at the screen can mend it."""

from __future__ import annotations


class InputError(ValueError):
    """An input that cannot be used. The message says which one, what was wrong and how to fix it.

    Args:
        what: the input or file that is wrong, in the user's words ("pose images", "unet.pth").
        problem: what was found ("have 12 frames, the latents have 16").
        remedy: what to do ("give both the same number of frames").
    """

    def __init__(self, what: str, problem: str, remedy: str):
        self.what, self.problem, self.remedy = what, problem, remedy
        super().__init__(f"{what}: {problem}. {remedy[:1].upper()}{remedy[1:]}.")


class NoFaceError(InputError):
    """No face was found where one is needed."""


class NoPersonError(InputError):
    """No usable person was found where one is needed."""


class WeightsError(InputError):
    """A weight file is missing, damaged, unsafe, or not the model it is used for."""
