"""Generates plausible characters. The same seed and ``like`` give the same character.

Colours that are chosen independently clash, so each choice depends on earlier ones. The skin comes from a scale of human skin tones, the
hair suits the skin and the age, and lips and blush are derived from the skin. The backdrop is pale and on the other side of the colour
wheel from the clothes, and the disc lies between them. Shade and light of a colour are derived as in the built-in characters: the shade is
darker and a little more saturated, the light is paler.

A character that is like another one has the same gender and skin, and a similar age, face, hair style and palette.
"""

from __future__ import annotations

import colorsys
import random
from typing import TYPE_CHECKING, get_args

from a2v.engine.characters import CharacterSpec, Features, Outfit, Palette, Scene, Tones, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from a2v.engine.characters import Beard, Gender, Glasses, Hair

_SKINS = ("#F6CBB0", "#F2B998", "#E8B08C", "#E3AE88", "#D9A07A", "#C98E68", "#B97A56", "#9E6444", "#8A5237", "#704130")
"""From pale to dark."""
_NATURAL_HAIR = ("#231A1C", "#3B2622", "#4A2B2C", "#6B3A22", "#8A5A34", "#B4622F", "#C99A55", "#D8B36A")
_DARK_HAIR_COUNT = 4  # the first ones, which suit every skin
_GREY_HAIR = ("#7C7674", "#A5A6AC", "#C9CBD2")
_IRISES = (
    ("#3E2A1E", "#7A5636"),
    ("#6B4A2F", "#A87A4A"),
    ("#4F7355", "#92B482"),
    ("#4A6F8E", "#8DB4CF"),
    ("#5A5146", "#94866F"),
)
_DARK_IRIS_COUNT = 2  # the first ones, which suit every skin
_CLOTHES_HUES = (0.02, 0.07, 0.12, 0.42, 0.48, 0.55, 0.58, 0.62, 0.65, 0.75, 0.92, 0.97)
_WOMEN: tuple[Hair, ...] = ("long", "bob", "curls", "long", "bob")
_MEN: tuple[Hair, ...] = ("short", "tousled", "curls", "short", "receding")
_SECOND = Tones("#FBF4EC", "#E7D9CB", "#FFFFFF")
_TIES = (
    Tones("#7A2E3B", "#5C1F2B", "#9B4654"),
    Tones("#2D3A63", "#222C4E", "#41528A"),
    Tones("#3E5B4F", "#2C443A", "#587A6B"),
)
_ACCENTS = ("#F4C95D", "#D9DCE3", "#E0A96D")
_FRAMES = ("#2B2A33", "#8A3B4A", "#6B4A2F", "#31495F")
_OLD, _GREYING = 0.65, 0.5  # ages, 0 to 1, from which on the hair may differ from ``like``, or may be grey


def generate_character(model_id: str, seed: int, like: CharacterSpec | None = None) -> CharacterSpec:
    """Return a character.

    Args:
        model_id: The id of the new character, from which its display name is derived.
        seed: The seed of the random choices.
        like: A character that the new one resembles; ``None``: no resemblance.
    """
    dice = random.Random(f"{seed} {like.model_id if like else ''}")  # noqa: S311  # not for secrets
    gender: Gender = like.gender if like else dice.choice(("female", "male"))
    age = _near(dice, like.features.age, 0.1) if like else dice.random() ** 1.6
    skin = _nearest(_SKINS, like.palette.skin.base) if like else dice.randrange(len(_SKINS))
    features = _features(dice, gender, age, like)
    return CharacterSpec(
        model_id=model_id,
        display_name=name_of(model_id),
        gender=gender,
        palette=_palette(dice, skin, features, like),
        features=features,
    )


def _features(dice: random.Random, gender: Gender, age: float, like: CharacterSpec | None) -> Features:
    woman = gender == "female"
    hair: Hair = dice.choice(_WOMEN if woman else _MEN)
    if hair == "receding" and age < 0.3:
        hair = "short"
    if like and dice.random() < 0.6:
        hair = like.features.hair
    beards: tuple[Beard, ...] = (
        ("none",) if woman else ("none", "none", "stubble", "full", "moustache" if age > 0.4 else "stubble")
    )
    beard: Beard = dice.choice(beards)
    glasses: Glasses = "none" if dice.random() > 0.2 + 0.4 * age else dice.choice(("round", "square"))
    if like and dice.random() < 0.6:
        beard, glasses = like.features.beard, like.features.glasses

    def shape(name: str, least: float, most: float) -> float:
        """Return the shape of a part of the face."""
        return round(_near(dice, getattr(like.features, name), 0.12), 2) if like else _within(dice, least, most)

    return Features(
        hair=hair,
        # The turtleneck comes with a necklace.
        outfit=dice.choice([outfit for outfit in get_args(Outfit) if woman or outfit != "turtleneck"]),
        beard=beard,
        glasses=glasses,
        # Hair that covers the ears would cut hoops in half.
        earrings=dice.choice(("none", "stud", "stud" if hair in ("long", "bob") else "hoop")) if woman else "none",
        mole=dice.choice(("none", "none", "none", "none", "cheek", "lip")),
        length=shape("length", 0.15, 0.85),
        width=shape("width", 0.15, 0.85),
        jaw=_within(dice, *((0.0, 0.35) if woman else (0.45, 0.95))),
        neck=_within(dice, *((0.1, 0.25) if woman else (0.45, 0.8))),
        eyes=_within(dice, *((0.6, 0.9) if woman else (0.35, 0.65))),
        eye_distance=shape("eye_distance", 0.25, 0.8),
        eye_slant=shape("eye_slant", 0.2 if age > 0.6 else 0.35, 0.5 if age > 0.6 else 0.75),
        lashes=_within(dice, *((0.5, 1.0) if woman else (0.1, 0.25))),
        brows=_within(dice, *((0.15, 0.4) if woman else (0.45, 0.9))),
        brow_arch=shape("brow_arch", *((0.4, 0.95) if woman else (0.1, 0.5))),
        nose=shape("nose", *((0.1, 0.6) if woman else (0.3, 0.9))),
        nose_width=shape("nose_width", *((0.1, 0.75) if woman else (0.3, 0.9))),
        ears=shape("ears", 0.25 + 0.2 * age, 0.75 + 0.2 * age),
        mouth=shape("mouth", 0.25, 0.85),
        lips=_within(dice, *((0.45, 1.0) if woman else (0.3, 0.5))),
        age=round(age, 2),
        freckles=_within(dice, 0.5, 0.9) if age < 0.4 and dice.random() < 0.2 else 0.0,
        blush=_within(dice, *((0.3, 0.6) if woman else (0.15, 0.4))),
        scene=dice.choice(get_args(Scene)),
    )


def _palette(dice: random.Random, skin: int, features: Features, like: CharacterSpec | None) -> Palette:
    tone = _SKINS[skin]
    is_dark = skin >= len(_SKINS) // 2
    if like and features.age < _OLD:
        hair = _shifted(like.palette.hair.base, saturation=_within(dice, -0.05, 0.05), value=_within(dice, -0.06, 0.06))
    elif dice.random() < (features.age - _GREYING) * 2.5:
        hair = dice.choice(_GREY_HAIR)
    else:
        hair = dice.choice(_NATURAL_HAIR[:_DARK_HAIR_COUNT] if is_dark else _NATURAL_HAIR)
    iris = dice.choice(_IRISES[:_DARK_IRIS_COUNT] if is_dark else _IRISES)
    _, saturation, value = _hsv(tone)
    woman = features.lashes > 0.4
    # Lips are redder than the skin, and darker on dark skin.
    lips = _colour(
        0.985 if woman else 0.015, min(0.62, saturation + (0.22 if woman else 0.06)), value * (0.80 if woman else 0.82)
    )
    clothes_hue = dice.choice(_CLOTHES_HUES)
    # Strong greens and pinks look like neon.
    is_loud = 0.3 < clothes_hue < 0.5 or clothes_hue > 0.7
    clothes = _colour(clothes_hue, _within(dice, 0.38, 0.58 if is_loud else 0.68), _within(dice, 0.38, 0.62))
    if features.outfit == "shirt":
        clothes = dice.choice(("#EDEFF3", "#DCE6F2", "#F5F1E8", clothes))
    # Pale, and away from both the clothes and the skin.
    behind = (clothes_hue + dice.choice((0.42, 0.5, 0.58))) % 1
    disc_hue = dice.choice(((behind + 0.42) % 1, 0.06, 0.08, 0.12))
    shirt_is_light = _hsv(clothes)[1] < 0.2
    return Palette(
        skin=_tones(tone, 0.08),
        hair=_tones(hair, 0.04),
        lips=_tones(lips, 0.06),
        clothes=_tones(clothes, 0.04),
        second=dice.choice(_TIES) if features.outfit == "shirt" and shirt_is_light else _SECOND,
        iris=iris,
        blush=_colour(0.015, min(0.75, saturation + 0.25), min(0.94, value * 0.96)),
        backdrop=(_colour(behind, 0.11, 0.95), _colour(behind, 0.27, 0.82)),
        disc=_colour(disc_hue, 0.30 if disc_hue < 0.15 else 0.17, 0.90 if is_dark else 0.94),
        accent=dice.choice((_ACCENTS if is_dark else _FRAMES) if features.glasses != "none" else _ACCENTS),
    )


def _within(dice: random.Random, least: float, most: float) -> float:
    return round(dice.uniform(least, most), 2)


def _near(dice: random.Random, value: float, distance: float) -> float:
    return min(1.0, max(0.0, value + dice.uniform(-distance, distance)))


def _hsv(colour: str) -> tuple[float, float, float]:
    return colorsys.rgb_to_hsv(*(byte / 255 for byte in bytes.fromhex(colour[1:])))


def _colour(hue: float, saturation: float, value: float) -> str:
    parts = colorsys.hsv_to_rgb(hue % 1, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))
    return "#" + "".join(f"{round(255 * part):02X}" for part in parts)


def _shifted(colour: str, *, saturation: float, value: float) -> str:
    hue, old_saturation, old_value = _hsv(colour)
    return _colour(hue, old_saturation + saturation, old_value + value)


def _tones(colour: str, more_saturation: float) -> Tones:
    """Return a colour with its shade, which has ``more_saturation``, and its light."""
    hue, saturation, value = _hsv(colour)
    light = min(1.0, value * 1.10 + 0.05)
    return Tones(
        colour,
        _colour(hue - 0.01, saturation + more_saturation, value * 0.79),
        _colour(hue + 0.005, saturation * 0.80, light),
    )


def _nearest(colours: Sequence[str], colour: str) -> int:
    """Return the index of the colour whose brightness is nearest."""

    def brightness(rgb: str) -> int:
        return sum(bytes.fromhex(rgb[1:]))

    return min(range(len(colours)), key=lambda index: abs(brightness(colours[index]) - brightness(colour)))
