"""Which photographs of gcompris are backgrounds, and which of them training never sees."""

from __future__ import annotations

from .pack import Split

_TRAIN = {
    "explore_monuments": (
        "bentPyramid meidumPyramid redPyramid arlesAmphitheater chateaudeChambord citedeCarcassonne montStMichel "
        "palaisdesPapes pontduGard reimsCathedral rocamadour aulaPalatina berlinCathedral schwerinPalace "
        "trierImperialBaths wormsCathedral ajantaCave charminar goldenTemple hawaMahal konarkSunTemple mysorePalace "
        "rangGhar victoriaMemorial castillodeSanMarcos castleClinton fortSumter georgeWashingtonBirthplace "
        "lincolnMemorial navajo chichenItza petra"
    ),
    "details": "Nagoya_background EgeskovSlotSpejling_background EilanDonanCastle_background OperaSidney_background",
    "categorization": (
        "arcDeTriomphe bayterek burj cathedral empireState jucheTower leMusee monument1 monument2 monument3 "
        "parthenon usCapitol zimniPalace dam1 dam2 dam3 geothermal solar4 solar5 solar6 windmill12 windmill13 windmill3"
    ),
}
_HELD_OUT = {
    "explore_monuments": (
        "greatPyramidOfGiza chateaudeChenonceau eiffelTower brandenburgGate neuschwansteinCastle gatewayofIndia greatStupa "
        "qutubMinar canyondeChelly mountRushmore colosseum greatWallofChina machuPicchu tajMahal"
    ),
    "categorization": "IndiaGate dam4 dam5 solar7 windmill1 windmill8 windmill9",
}


def _rows() -> tuple[tuple[str, str, Split], ...]:
    rows: list[tuple[str, str, Split]] = []
    for archive, names in _TRAIN.items():
        rows += [(archive, name, "train") for name in names.split()]
    for archive, names in _HELD_OUT.items():
        rows += [(archive, name, "val" if i % 3 == 0 else "test") for i, name in enumerate(names.split())]
    return tuple(rows)


BACKDROPS: tuple[tuple[str, str, Split], ...] = _rows()
"""(archive, picture, split). A place of which there are several pictures lies in one split."""

PHOTO_FOLDERS = (
    ("explore_farm_animals", "animals"),
    ("explore_world_animals", "animals"),
    ("explore_world_music", "music"),
    ("erase", "resource"),
)
"""(archive, folder) of photographs of animals and musicians: kept for measuring, never a background, never trained on."""
