"""A set's identity: attributes, the stored object as it is, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from slg_wds.errors import ManifestError
from slg_wds.format.manifest.identity import Base, Identity, differences, digest
from support.format.manifests import IDENTITY

STORED: dict[str, Any] = {
    "seed": 1,
    "zoom": {"unknown": [1, None]},
    "label_type": "shared_tail_k5",
    "num_classes": 10,
    "num_crops": 40,
    "k": 5,
    "values": "log8",
    "temperature": 1,
    "tail_classes": None,
    "teachers": [{"arch": "ä", "weight": 1.0}],
    "extends": {"digest": "00ff", "first_crop": 25, "more": True},
}


def test_known_fields_are_attributes() -> None:
    identity = Identity.from_json(STORED)
    assert (identity.k, identity.coding, identity.seed, identity.temperature) == (5, "log8", 1, 1)
    assert (identity.label_type, identity.num_classes, identity.num_crops) == ("shared_tail_k5", 10, 40)
    assert identity.teachers == STORED["teachers"]
    assert identity.extends == Base("00ff", 25)
    assert (identity.tail_classes, identity.parents, identity.extendable) == (0, [], False)  # null or absent


def test_it_is_the_stored_object_with_keys_that_it_does_not_know() -> None:
    identity = Identity.from_json(STORED)
    assert isinstance(identity, Mapping) and identity == STORED and identity.to_json() == STORED
    assert list(identity) == list(STORED) and identity["zoom"] == {"unknown": [1, None]}
    assert digest(b"plan", identity) == digest(b"plan", STORED)
    assert digest(b"plan", Identity.from_json({**STORED, "temperature": 1.0})) != digest(b"plan", STORED)
    for again in (pickle.loads(pickle.dumps(identity)), copy.deepcopy(identity)):
        assert again == identity and again.coding == "log8"
    with pytest.raises(AttributeError):
        identity.k = 3  # type: ignore[misc]


def test_differences_are_of_the_stored_objects() -> None:
    other = {**STORED, "temperature": 2.0, "zoom": {"unknown": [1]}}
    del other["tail_classes"]
    assert Identity.from_json(STORED).differences(Identity.from_json(other)) == [
        "tail_classes: None != absent",
        "temperature: 1 != 2.0",
        "zoom.unknown: [1, None] != [1]",
    ]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"label_type": None}, "label_type of the identity is None"),
        ({"num_classes": 0}, "num_classes of the identity is 0"),
        ({"num_crops": True}, "num_crops of the identity is True"),
        ({"k": 11}, "k of the identity is 11, of 10 classes"),
        ({"values": "float64"}, "values of the identity is 'float64'"),
        ({"temperature": float("inf")}, "temperature of the identity is inf"),
        ({"teachers": ["resnet50"]}, "teachers of the identity is"),
        ({"teachers": [{"input_size": "224"}]}, r"teachers\[0\].input_size of the identity is '224'"),
        ({"extends": {"digest": 1, "first_crop": 2}}, "extends of the identity is"),
        ({"extends": {"digest": "00"}}, "extends of the identity is"),
        ({"label_type": "full", "num_classes": (1 << 20) + 1}, "num_classes of the identity is 1048577"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(new: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Identity.from_json({**STORED, **new})


def test_the_digest_is_the_formula() -> None:
    plan = b"the plan"
    identity = '{"label_type":"shared_tail_k5","num_crops":500,"scale":[0.08,1.0],"teachers":[{"arch":"ä"}]}'
    inner = hashlib.sha256(plan).digest() + hashlib.sha256(identity.encode()).digest()
    assert digest(plan, IDENTITY) == hashlib.sha256(inner).hexdigest()
    assert digest(plan, dict(reversed(IDENTITY.items()))) == digest(plan, IDENTITY)
    assert digest(plan, {**IDENTITY, "num_crops": 499}) != digest(plan, IDENTITY)


def test_differences_are_named() -> None:
    other = {
        "label_type": "hard",
        "num_crops": 500.0,
        "scale": (0.08, 0.9),
        "teachers": [{"arch": "ä", "T": True}],
    }
    assert differences(IDENTITY, other) == [
        "label_type: 'shared_tail_k5' != 'hard'",
        "scale[1]: 1.0 != 0.9",
        "teachers[0].T: absent != True",
    ]
    assert differences(IDENTITY, IDENTITY) == []
    assert differences({"a": 1}, {"a": True}) == ["a: 1 != True"]
    assert differences({"a": None}, {}) == ["a: None != absent"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: [1] != [1, 2]"]
    assert differences({"a": {"b": 1}}, {"a": 1}) == ["a: {'b': 1} != 1"]
