"""The schemas that Nix makes options of are those by which the agent reads the files.

UPDATE_GOLDENS=1 writes them.
"""

import json
import os
from typing import Any

import pytest
from nix_files import ROOT

from installer.model import answers, site


@pytest.mark.parametrize(
    ("name", "schema"),
    [("answer-file", answers.json_schema()), ("site-file", site.json_schema())],
    ids=["answer-file", "site-file"],
)
def test_what_nix_reads_is_what_netinstall_schema_prints(name: str, schema: Any) -> None:
    path = ROOT / f"nix/schemas/{name}.json"
    text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(text)
    assert path.read_text() == text, "UPDATE_GOLDENS=1 pytest tests/nix/test_nix_schema.py"
