"""Case files: what is read, how it multiplies, and that every mistake is one sentence with file, line and key."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnbench import config, laws
from lnbench.case import DTYPES, Case
from lnbench.config import model
from lnbench.errors import ConfigError, Exit
from lnbench.verify.verdict import REQUIREMENTS, Status


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "cases.yaml"
    path.write_text(text)
    return str(path)


def refused(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, text))
    return caught.value


def only(text: str, **overrides: Any) -> Case:
    (case,) = config.inline(text, overrides)
    return case


# Reading.


def test_a_case_holds_what_the_file_says(tmp_path: Path) -> None:
    text = """
version: 1
defaults: {op: layer_norm, epsilon: 1.0e-12, dtype: float64}
cases:
  - name: small
    shape: [2, 3, 4]
    axis: [1, 2]
    dtype: bfloat16
    affine_dtype: float32
    law: {x: offset, dy: one_hot}
    expect: {torch: unstable}
    source: a test
"""
    (case,) = config.load(write(tmp_path, text))
    assert (case.shape, case.axis, case.epsilon) == ((2, 3, 4), (1, 2), 1e-12)
    assert (case.dtype, case.affine_dtype, case.name, case.source) == ("bfloat16", "float32", "small", "a test")
    assert case.law_of("x") == "offset" and case.law_of("dy") == "one_hot" and case.law_of("gamma") is None
    assert dict(case.expect) == {"torch": "unstable"}


def test_the_command_line_wins_over_the_case_the_case_over_defaults_and_those_over_the_operator(tmp_path: Path) -> None:
    text = "version: 1\ndefaults: {op: rms_norm, dtype: float64, seed: 3}\ncases: [{shape: [4], dtype: float16}]\n"
    path = write(tmp_path, text)
    (case,) = config.load(path)
    assert (case.dtype, case.seed, case.epsilon, case.beta) == ("float16", 3, 1e-6, False)
    (case,) = config.load(path, {"dtype": "bfloat16", "seed": 9, "epsilon": "1e-3"})
    assert (case.dtype, case.affine_dtype, case.seed, case.epsilon) == ("bfloat16", "bfloat16", 9, 1e-3)


def test_a_sweep_multiplies_and_names_every_case(tmp_path: Path) -> None:
    text = """
version: 1
cases:
  - name: a
    sweep:
      shape: [[2, 8], [3]]
      dtype: [float32, float64]
      gamma: [true, false]
      axis: [-1, [0]]
"""
    cases = config.load(write(tmp_path, text))
    assert len(cases) == len({c.name for c in cases}) == 16
    assert cases[0].name == "a-2x8-float32-gamma-axis=-1"
    assert cases[-1].name == "a-3-float64-no_gamma-axes=0"


def test_a_swept_key_that_is_overridden_is_not_swept() -> None:
    text = "{name: a, shape: [2, 8], sweep: {dtype: [float32, float64], epsilon: [1e-5, 0.1]}}"
    cases = config.inline(text, {"dtype": "float16"})
    assert [c.name for c in cases] == ["a-epsilon=1e-05", "a-epsilon=0.1"]
    assert {c.dtype for c in cases} == {"float16"}


def test_unnamed_cases_stay_unnamed() -> None:
    assert [c.name for c in config.inline("{shape: [2], sweep: {seed: [1, 2]}}")] == ["", ""]


def test_attributes_of_the_operator_are_keys_too() -> None:
    case = only("{op: batch_norm, shape: [2, 3, 4], momentum: 1, axis: 1}")
    assert case.momentum == 1.0 and isinstance(case.momentum, float) and case.training is True
    swept = config.inline("{op: batch_norm, shape: [2, 3], sweep: {training: [true, false]}}")
    assert [c.training for c in swept] == [True, False]


def test_attributes_in_defaults_and_overrides_concern_the_operators_that_have_them(tmp_path: Path) -> None:
    text = "version: 1\ndefaults: {momentum: 0.5}\ncases: [{shape: [2, 3]}, {op: batch_norm, shape: [2, 3]}]\n"
    plain, batch = config.load(write(tmp_path, text), {"training": False})
    assert plain.attributes == () and dict(batch.attributes) == {"training": False, "momentum": 0.5}


@pytest.mark.parametrize("text", ["1e-5", "'1e-5'", "1.0e-5", "0.00001", "+1E-05", ".00001"])
def test_numbers_may_be_written_as_people_write_them(text: str) -> None:
    assert only(f"{{shape: [2], epsilon: {text}}}").epsilon == 1e-5


def test_json_is_read_as_well() -> None:
    assert only('{"shape": [2, 3], "epsilon": 1e-12, "gamma": false}').epsilon == 1e-12


def test_relative_inputs_start_at_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", x=np.ones((2, 3), np.float32))
    (case,) = config.load(write(tmp_path, "version: 1\ncases: [{shape: [2, 3], inputs: real.npz}]\n"))
    assert case.inputs == str(tmp_path / "real.npz")
    assert laws.draw(case)["x"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert config.inline(case.inline()) == [case]


def test_aliases_are_allowed_in_moderation(tmp_path: Path) -> None:
    text = "version: 1\ncases: [{shape: &s [2, 3]}, {shape: *s, dtype: float64}]\n"
    assert [c.shape for c in config.load(write(tmp_path, text))] == [(2, 3), (2, 3)]


# Mistakes: (text, line, words).

MISTAKES = [
    ("", 1, ["is empty"]),
    ("# only a comment\n", 1, ["is empty"]),
    ("just words", 1, ["the text 'just words'"]),
    ("- 1\n- 2\n", 1, ["the list [1, 2]"]),
    ("version: 1\n", 1, ["'cases'", "is missing"]),
    ("cases: []\n", 1, ["'version'", "is missing"]),
    ("version: 2\ncases: [{shape: [2]}]\n", 1, ["the number 2", "reads version 1"]),
    ("version: 1\ncases: []\n", 2, ["a list with at least one case"]),
    ("version: 1\ncases:\n", 2, ["is nothing"]),
    ("version: 1\ncases: {shape: [2]}\n", 2, ["the mapping {'shape': [2]}"]),
    ("version: 1\ncases:\n  - 3\n", 3, ["holds the number 3"]),
    ("version: 1\ncase: [{shape: [2]}]\n", 2, ["did you mean 'cases'"]),
    ("version: 1\nshape: [2]\n", 2, ["put the case under 'cases'"]),
    ("version: 1\n---\nversion: 1\n", 2, ["a second document"]),
    ("version: 1\nversion: 1\n", 2, ["given twice, first on line 1"]),
    ("version: 1\ncases: [\n", 3, ["is not YAML"]),
    ("version: 1\n\tcases: 3\n", 2, ["is not YAML"]),
    ("version: 1\ncases: [{shape: !!python/tuple [2]}]\n", 2, ["the tag"]),
    ("version: 1\ncases: [{shape: !mine [2]}]\n", 2, ["the tag '!mine'"]),
    ("version: 1\ncases: [{shape: *s}]\n", 2, ["alias *s"]),
    ("version: 1\ncases: [{2: 3}]\n", 2, ["the number 2 as a key"]),
    ("version: 1\ncases: [{name: 2020-13-45, shape: [2]}]\n", 2, ["'2020-13-45', which is not a value"]),
    ("version: 1\ndefaults: 3\ncases: [{shape: [2]}]\n", 2, ["'defaults'", "the number 3"]),
    ("version: 1\ndefaults: {sweep: {}}\ncases: [{shape: [2]}]\n", 2, ["'sweep'", "belongs to a case"]),
    ("version: 1\ndefaults: {dtyp: x}\ncases: [{shape: [2]}]\n", 2, ["did you mean 'dtype'"]),
]

# Mistakes of one case, each on line 4 of the file: (keys, key, words).
CASE_MISTAKES = [
    ("shap: [2]", "shap", ["did you mean 'shape'"]),
    ("momentun: 0.1, op: batch_norm, shape: [2, 3]", "momentun", ["did you mean 'momentum'"]),
    ("momentum: 0.1, shape: [2]", "momentum", ["belongs to batch_norm, not to layer_norm"]),
    ("dtype: float32", "shape", ["is missing"]),
    ("shape: 8", "shape", ["the number 8", "a list of 1 to 32 integers"]),
    ("shape: []", "shape", ["a list of 1 to 32 integers"]),
    ("shape: 2x3", "shape", ["the text '2x3'"]),
    ("shape: [2.0]", "shape", ["the number 2.0"]),
    ("shape: [-1]", "shape", ["the number -1", "0 or more"]),
    ("shape: [true]", "shape", ["is true"]),
    ("shape: [1000000, 1000000]", "shape", ["GiB", "memory are free"]),
    ("shape: [99999999999999999999]", "shape", ["integers"]),
    ("shape: [9223372036854775807, 9223372036854775807]", "shape", ["more than 2**80 bytes"]),
    ("shape: [2, 3], axis: 2", "axis", ["axis 2 is out of range", "-2 to 1"]),
    ("shape: [2, 3], axis: [1, -1]", "axis", ["names an axis twice"]),
    ("shape: [2, 3], axis: []", "axis", ["the list []"]),
    ("shape: [2, 3], axis: last", "axis", ["the text 'last'"]),
    ("op: batch_norm, shape: [2, 3], axis: [1]", "axis", ["give one channel axis"]),
    ("shape: [2], epsilon: -1.0e-5", "epsilon", ["a finite number, 0 or more"]),
    ("shape: [2], epsilon: .nan", "epsilon", ["the number nan", "finite"]),
    ("shape: [2], epsilon: .inf", "epsilon", ["finite"]),
    ("shape: [2], epsilon: 1e999", "epsilon", ["finite"]),
    ("shape: [2], epsilon: small", "epsilon", ["the text 'small'"]),
    ("shape: [2], epsilon: true", "epsilon", ["is true"]),
    ("shape: [2], epsilon: [1.0e-5]", "epsilon", ["the list"]),
    ("shape: [2], dtype: f32", "dtype", ["did you mean 'float32'"]),
    ("shape: [2], dtype: bf16", "dtype", ["did you mean 'bfloat16'"]),
    ("shape: [2], dtype: [float32]", "dtype", ["the list ['float32']"]),
    ("shape: [2], dtype: null", "dtype", ["is nothing"]),
    ("shape: [2], affine_dtype: double", "affine_dtype", ["float64"]),
    ("shape: [2], gamma: 1", "gamma", ["true or false"]),
    ("op: rms_norm, shape: [2], beta: true", "beta", ["rms_norm has no beta"]),
    ("shape: [2], passes: both", "passes", ["forward_backward"]),
    ("shape: [2], law: ofset", "law", ["did you mean 'offset'"]),
    ("shape: [2], law: mixed", "law", ["does not suit x"]),
    ("shape: [2], law: {dx: normal}", "law", ["names the tensor 'dx'", "x, gamma, beta, dy"]),
    ("shape: [2], law: {dy: 3}", "law", ["the mapping {'dy': 3}"]),
    ("shape: [2], gamma: false, law: {gamma: sined}", "law", ["did you mean 'signed'"]),
    ("shape: [2], inputs: none.npz", "inputs", ["none.npz", "not a file"]),
    ("shape: [2], layout: row_pad", "layout", ["did you mean 'row_padded'"]),
    ("shape: [2], layout: broadcast", "layout", ["does not suit x"]),
    ("shape: [2, 3], axis: 0, dy_layout: broadcast", "dy_layout", ["the last axis"]),
    ("shape: [65, 3], layout: sparse_rows", "layout", ["at most 64 rows"]),
    ("shape: [2], alias: x=y", "alias", ["y=x, dx=dy"]),
    ("shape: [2], alias: dx=dy, passes: forward", "alias", ["backward pass"]),
    ("shape: [2, 3], alias: dx=dy, dy_layout: broadcast", "alias", ["broadcast"]),
    ("shape: [2], threads: 0", "threads", ["from 1 to 1024"]),
    ("shape: [2], threads: [1, 2]", "threads", ["the list [1, 2]"]),
    ("shape: [2], seed: -1", "seed", ["0 or more"]),
    ("shape: [2], require: tier3", "require", ["did you mean 'tier2'"]),
    ("shape: [2], expect: unstabel", "expect", ["did you mean 'unstable'"]),
    ("shape: [2], expect: {torch: [unstable]}", "expect", ["unstable, or a mapping"]),
    ("shape: [2], op: layernorm", "op", ["did you mean 'layer_norm'"]),
    ("shape: [2], op: 3", "op", ["the number 3"]),
    ("shape: [2], name: 2020-01-01", "name", ["quote it"]),
    ("op: batch_norm, shape: [2, 3], axis: 1, momentum: 1.5", "momentum", ["a number from 0 to 1"]),
    ("op: batch_norm, shape: [2, 3], axis: 1, training: 1", "training", ["true or false"]),
    ("shape: [2], sweep: {dtype: float32}", "dtype", ["swept over the text 'float32'"]),
    ("shape: [2], sweep: {dtype: []}", "dtype", ["swept over the list []"]),
    ("shape: [2], sweep: {dtyp: [float32]}", "dtyp", ["did you mean 'dtype'"]),
    ("shape: [2], sweep: {shape: [[2]]}", "shape", ["given twice"]),
    ("shape: [2], sweep: {name: [a, b]}", "name", ["cannot be swept"]),
    ("shape: [2], sweep: [1]", "sweep", ["the list [1]"]),
]


@pytest.mark.parametrize(("text", "line", "words"), MISTAKES)
def test_a_broken_file_is_one_sentence_with_its_line(tmp_path: Path, text: str, line: int, words: list[str]) -> None:
    error = refused(tmp_path, text)
    assert error.file == str(tmp_path / "cases.yaml") and error.line == line
    assert str(error).startswith(f"{error.file}:{line}: ") and "\n" not in str(error)
    assert error.exit_code is Exit.USAGE
    assert all(word in str(error) for word in words), str(error)


@pytest.mark.parametrize(("keys", "key", "words"), CASE_MISTAKES)
def test_a_wrong_case_names_line_key_and_what_is_allowed(tmp_path: Path, keys: str, key: str, words: list[str]) -> None:
    text = f"version: 1\ncases:\n  - {{name: right, shape: [2]}}\n  - {{{keys}}}\n"
    error = refused(tmp_path, text)
    assert (error.line, error.key) == (4, key)
    assert "\n" not in str(error) and all(word in str(error) for word in words), str(error)


def test_the_line_is_that_of_the_key(tmp_path: Path) -> None:
    case = "  - shape: [2]\n    sweep:\n      seed:\n        - 1\n      dtype:\n        - float33\n"
    text = f"version: 1\ncases:\n{case}"
    assert refused(tmp_path, text).line == 8
    defaults = "version: 1\ndefaults:\n  seed: 1\n  dtype: f64\ncases:\n  - shape: [2]\n"
    assert refused(tmp_path, defaults).line == 4


def test_a_wrong_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\ncases: [{shape: [2]}]\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path, {"dtype": "f32"})
    assert caught.value.file is None and caught.value.key == "dtype"


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.yaml"
    for content in (b"\xff\xfe\x00", b"PK\x03\x04\x00\x00", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="text"):
            config.load(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(str(tmp_path / "none.yaml"))


BOMBS = {
    "aliases": "version: 1\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" if i else "a0: &a0 [1]\n" for i in range(12)),
    "depth": "version: 1\ncases: " + "[" * 100_000,
    "size": "version: 1\n#" + "x" * (9 << 20),
    "sweep": "version: 1\ncases: [{shape: [2], sweep: {"
    + ", ".join(f"{k}: [{', '.join(['1'] * 100)}]" for k in ("seed", "threads", "axis"))
    + "}}]\n",
    "digits": "version: 1\ncases: [{shape: [" + "9" * 10_000 + "]}]\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_explodes_is_refused_at_once(tmp_path: Path, bomb: str) -> None:
    started = time.process_time()
    error = refused(tmp_path, BOMBS[bomb])
    assert "\n" not in str(error) and len(str(error)) < 300 + len(str(tmp_path))
    assert time.process_time() - started < 20


def test_an_unknown_suite_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="unknown suite 'cii'"):
        config.load("cii")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_case_or_a_sentence(text: str) -> None:
    try:
        cases = config.inline(text)
    except ConfigError as error:
        assert str(error)
    else:
        assert cases


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*model.KEYS, "sweep", "momentum", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*DTYPES, "offset", "y=x"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "dy", "seed"]), inner),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_any_values_are_a_case_or_a_sentence(keys: dict[str, Any]) -> None:
    import json

    try:
        cases = config.inline(json.dumps({"shape": [2, 3], **keys}))
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert all(config.inline(case.inline()) == [case] for case in cases)


def test_vocabularies_agree_with_those_of_verification() -> None:
    assert model.REQUIREMENTS == REQUIREMENTS
    assert {word.upper() for word in model.EXPECTED} == {Status.UNSTABLE.value}
    assert set(model.ALLOWED) == set(model.KEYS)
