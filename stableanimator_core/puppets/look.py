"""Who a puppet is, and what it wears: everything that one clip keeps fixed.

Face, hair and build belong to the person; outfit and place belong to the clip, so that a face must be known by itself.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]
"""RGB from 0 to 1."""

_SKIN = ((0.98, 0.86, 0.76), (0.94, 0.76, 0.62), (0.80, 0.58, 0.42), (0.60, 0.40, 0.28), (0.38, 0.25, 0.18))
_NATURAL_HAIR = (
    *((0.09, 0.07, 0.07), (0.22, 0.13, 0.08), (0.40, 0.24, 0.12), (0.62, 0.40, 0.18), (0.88, 0.72, 0.38)),
    *((0.70, 0.26, 0.10), (0.62, 0.62, 0.64), (0.90, 0.89, 0.87)),
)
_DYED_HAIR = ((0.85, 0.25, 0.45), (0.25, 0.45, 0.80), (0.25, 0.62, 0.50), (0.52, 0.30, 0.66))
_EYES = ((0.25, 0.14, 0.07), (0.18, 0.40, 0.66), (0.22, 0.48, 0.25), (0.45, 0.45, 0.48), (0.55, 0.38, 0.12))

HAIR_STYLES = ("bald", "short", "side", "fringe", "long", "bob", "bun", "curls", "mohawk")
BEARDS = ("none", "none", "none", "stubble", "full", "moustache", "goatee")
GLASSES = ("none", "none", "round", "square", "dark")
TOPS = ("t-shirt", "jumper", "vest", "jacket")
PATTERNS = ("plain", "stripes", "pinstripes", "dots", "checks", "halves", "badge")
BOTTOMS = ("trousers", "trousers", "shorts", "skirt")


@dataclass(frozen=True)
class Person:
    """Face, hair and build.

    Attributes:
        skin, hair, eyes, lips, glasses_colour: colours.
        hair_style, beard, glasses: from the lists above.
        head: half width, half height and half depth, in heads; the half height is 0.5.
        jaw: how much narrower the chin is, 0 to 0.4.
        eye_gap, eye_size, eye_height: radians on the head; how far apart, how large, how far above its middle.
        brow: thickness and slant.
        nose: length and width; `mouth`: width and thickness of the lips.
        freckles, blush: 0 to 1.
        hairline: radians above the middle of the face where hair begins.
        shoulders, hips: half widths; `torso`, `arm`, `leg`: lengths of the torso and of each half limb.
        girth: of limbs and waist, about 1.
    """

    skin: Colour
    hair: Colour
    eyes: Colour
    lips: Colour
    glasses_colour: Colour
    hair_style: str
    beard: str
    glasses: str
    head: tuple[float, float, float]
    jaw: float
    eye_gap: float
    eye_size: float
    eye_height: float
    brow: tuple[float, float]
    nose: tuple[float, float]
    mouth: tuple[float, float]
    mouth_height: float
    freckles: float
    blush: float
    hairline: float
    shoulders: float
    hips: float
    torso: float
    arm: float
    leg: float
    girth: float


@dataclass(frozen=True)
class Outfit:
    """Clothes: kinds from the lists above, two colours and a pattern for the top, one for each other part."""

    top: str
    pattern: str
    top_colour: Colour
    second_colour: Colour
    bottom: str
    bottom_colour: Colour
    shoes: Colour


def draw_person(seed: int) -> Person:
    """The person of this number, always the same one."""
    rng = np.random.default_rng([seed, 1])
    uniform = rng.uniform
    skin = _between(_SKIN, uniform(0, len(_SKIN) - 1))
    dyed = uniform() < 0.12
    hair = _varied(_pick(rng, _DYED_HAIR if dyed else _NATURAL_HAIR), rng, 0.03)
    rosy = (skin[0] * 0.80, skin[1] * 0.45, skin[2] * 0.48)
    return Person(
        skin=_varied(skin, rng, 0.02),
        hair=hair,
        eyes=_varied(_pick(rng, _EYES), rng, 0.03),
        lips=_varied(_mixed(rosy, (0.72, 0.14, 0.22), uniform(0, 0.8)), rng, 0.02),
        glasses_colour=_pick(
            rng, ((0.08, 0.08, 0.10), (0.55, 0.12, 0.14), (0.15, 0.25, 0.5), (0.45, 0.3, 0.12))
        ),
        hair_style=_pick(rng, HAIR_STYLES),
        beard=_pick(rng, BEARDS),
        glasses=_pick(rng, GLASSES),
        head=(uniform(0.36, 0.46), 0.5, uniform(0.42, 0.48)),
        jaw=uniform(0.05, 0.4),
        eye_gap=uniform(0.36, 0.54),
        eye_size=uniform(0.10, 0.17),
        eye_height=uniform(-0.02, 0.14),
        brow=(uniform(0.025, 0.07), uniform(-0.06, 0.06)),
        nose=(uniform(0.16, 0.34), uniform(0.07, 0.15)),
        mouth=(uniform(0.20, 0.38), uniform(0.025, 0.07)),
        mouth_height=uniform(-0.56, -0.46),
        freckles=uniform(0.4, 1) if uniform() < 0.2 else 0.0,
        blush=uniform(0, 0.5),
        hairline=uniform(0.45, 0.72),
        shoulders=uniform(0.62, 0.86),
        hips=uniform(0.34, 0.50),
        torso=uniform(1.36, 1.58),
        arm=uniform(0.74, 0.86),
        leg=uniform(0.94, 1.12),
        girth=uniform(0.82, 1.22),
    )


def draw_outfit(rng: np.random.Generator) -> Outfit:
    """Clothes from a generator."""
    top, bottom = _clothing(rng), _clothing(rng)
    return Outfit(
        top=_pick(rng, TOPS),
        pattern=_pick(rng, PATTERNS),
        top_colour=top,
        second_colour=_contrasting(top, rng),
        bottom=_pick(rng, BOTTOMS),
        bottom_colour=bottom,
        shoes=_clothing(rng),
    )


def shaded(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    red, green, blue = (min(1.0, part * factor) for part in colour)
    return red, green, blue


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def _mixed(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = ((1 - share) * x + share * y for x, y in zip(a, b, strict=True))
    return red, green, blue


def _between(colours: tuple[Colour, ...], place: float) -> Colour:
    low = min(int(place), len(colours) - 2)
    return _mixed(colours[low], colours[low + 1], place - low)


def _varied(colour: Colour, rng: np.random.Generator, spread: float) -> Colour:
    red, green, blue = np.clip(np.add(colour, rng.normal(0, spread, 3)), 0, 1)
    return float(red), float(green), float(blue)


def _clothing(rng: np.random.Generator) -> Colour:
    if rng.uniform() < 0.25:
        grey = rng.uniform(0.08, 0.95)
        return _varied((grey, grey, grey), rng, 0.02)
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.35, 0.9), rng.uniform(0.35, 0.95))


def _contrasting(colour: Colour, rng: np.random.Generator) -> Colour:
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    other = value - 0.45 if value > 0.55 else value + 0.45
    return colorsys.hsv_to_rgb((hue + rng.uniform(0.3, 0.7)) % 1, saturation * rng.uniform(0.3, 1), other)
