"""What we write as Nix is what Nix reads: by the real Nix."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_nix import evaluated

from installer.decide.nix import NixValue, nix_module, nix_string, nix_value

# Nix's own strings are C strings of UTF-8; JSON cannot carry half surrogates either
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
PIECES = ["$", "{", "}", "\\", '"', "''", "\n", "\r", "\t", "${", "$${", "\\${", "a"]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
VALUES: st.SearchStrategy[NixValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | TEXT | HOSTILE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | HOSTILE, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60))
def test_values_round_trip_through_nix(values: list[NixValue]) -> None:
    assert evaluated(nix_value(values)) == values
    # and over several lines
    assert evaluated(nix_value({"wide": [values, "x" * 200]})) == {"wide": [values, "x" * 200]}


def test_a_hundred_thousand_hostile_strings_round_trip_through_nix() -> None:
    pick = random.Random(20)  # noqa: S311 - the same strings in every run
    pieces = [*PIECES, "é", "\u2028", "\x7f", "\x01", " ", "𝄞", "/*", "#", "''${", "\\n", "<x>"]
    texts = {"".join(pick.choices(pieces, k=pick.randrange(12))) for _ in range(140_000)}
    wanted = sorted(texts)[:100_000]
    assert len(wanted) == 100_000
    for start in range(0, len(wanted), 25_000):
        batch = wanted[start : start + 25_000]
        assert evaluated(f"[ {' '.join(map(nix_string, batch))} ]") == batch


def test_hostile_attribute_names_round_trip_through_nix() -> None:
    pick = random.Random(21)  # noqa: S311 - the same names in every run
    pieces = [*PIECES, "if", "or", "-", "'", ".", "9", "_", "é", " ", "rec", "true", "__functor"]
    names = {"".join(pick.choices(pieces, k=pick.randrange(6))) for _ in range(20_000)}
    value = {name: number for number, name in enumerate(sorted(names))}
    assert evaluated(nix_value(value)) == value


@pytest.mark.parametrize("text", ["\0", "a\0b"])
def test_nul_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        nix_string(text)


def test_integers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        nix_value(2**63)


def test_a_module_reads_as_people_write_them() -> None:
    text = nix_module(
        {
            "networking": {"hostName": "a", "nameservers": []},
            "systemd": {"network": {"networks": {"10-x": {"routes": [{"Gateway": "192.0.2.1"}]}}}},
            "or": {"if": True},
        },
        "made by hand\n\nsecond paragraph",
    )
    assert text == (
        "# made by hand\n"
        "#\n"
        "# second paragraph\n"
        "{ ... }:\n"
        "{\n"
        "  networking = {\n"
        '    hostName = "a";\n'
        "    nameservers = [ ];\n"
        "  };\n"
        '  systemd.network.networks."10-x".routes = [ { Gateway = "192.0.2.1"; } ];\n'
        '  "or"."if" = true;\n'
        "}\n"
    )
