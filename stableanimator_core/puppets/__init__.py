"""A world of drawn people: as many faces, outfits and motions as wanted, with everything about them known.

    python -m stableanimator_core.puppets DIR --persons 50     writes a training set

Coordinates: x to the right, y down, z towards the viewer; lengths in heads, the height of the person's own head.
Sides are the person's own: the right hand of somebody who faces us is on the left of the picture.
"""

from .clip import PuppetClip, make_clip

__all__ = ["PuppetClip", "make_clip"]
