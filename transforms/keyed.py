"""A transform of one image as MONAI's transform of a dictionary: the same for each of its entries `keys`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform


class Keyed(MapTransform):
    """`transform` for the entries `keys` of a dictionary; the others stay."""

    def __init__(self, keys: KeysCollection, transform: Callable[[Any], Any], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform: Any = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return dict(data) | {key: self.transform(data[key]) for key in self.key_iterator(dict(data))}


class InvertibleKeyed(Keyed, InvertibleTransform):
    """`Keyed` of a transform with an `inverse`."""

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return dict(data) | {key: self.transform.inverse(data[key]) for key in self.key_iterator(dict(data))}
