"""What a script's head says of it."""

import re
from importlib.resources import files

import pytest

from inferq.keys import names_in
from inferq.scripts import assemble

NAMES = sorted(
    file.name.removesuffix(".lua")
    for file in files("inferq").joinpath("lua").iterdir()
    if file.name.endswith(".lua") and not file.name.startswith("_")
)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_s_head_names_all_keys_it_may_touch(name: str) -> None:
    head = re.search(r"-- Keys:(.*?)\n(?:-- Repl|(?!--))", assemble(name), re.DOTALL)
    assert head
    code = re.sub(r"--.*", "", assemble(name))
    assert set(re.findall(r"\w+", head[1])) == names_in(code) - {"nothing"}
