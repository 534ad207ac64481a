"""Configs answer back: every mistake names the field, what was given and what is allowed."""

import pytest
from pydantic import BaseModel, Field, model_validator
from toy_paper import PAPER, ToyConfig

from labkit.errors import ConfigError, InputError
from labkit.workbench.experiment import SCALES, Config
from labkit.workbench.runs import identity_of


class Inner(BaseModel, frozen=True, extra="forbid", strict=True):
    steps: int = Field(5, ge=1, description="inner steps")
    sizes: tuple[int, ...] = Field((1, 2), description="inner sizes")

    @model_validator(mode="after")
    def _together(self) -> "Inner":
        if len(self.sizes) > self.steps:
            raise ValueError("more sizes than steps")
        return self


class Odd(Config):
    """Fields of the kinds that the toy does not have."""

    rate: float | None = Field(None, ge=0, description="a rate, or none")
    sizes: tuple[int, float] = Field((1, 0.5), description="a number of units and a fraction")
    modes: tuple[str, ...] = Field(("a",), description="names")
    inner: Inner = Field(Inner(sizes=(7,)), description="a config inside of a config")

    @model_validator(mode="after")
    def _together(self) -> "Odd":
        if self.rate == 13:
            raise ValueError("W13 and luck do not go together")
        return self


def message(call, *arguments, **keywords) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_gives_the_config_of_that_scale(scale):
    assert PAPER.config(scale) == PAPER.configs[scale]
    assert PAPER.config(scale, steps=3) == PAPER.configs[scale].model_copy(update={"steps": 3})


def test_an_unknown_scale_names_the_allowed_ones():
    assert message(PAPER.config, "huge") == "scale must be one of smoke, lesson, gpu, full; got 'huge'."


def test_an_override_leaves_the_original_alone_and_is_checked_like_it():
    original = ToyConfig()
    changed = original.override(steps=7, widths=(3, 4))
    assert (original.steps, changed.steps, changed.widths) == (40, 7, (3, 4))
    assert changed.override(steps=40, widths=[8]) == original  # a list from a notebook's overrides is a tuple
    with pytest.raises(Exception, match="frozen"):
        changed.steps = 8  # type: ignore[misc]


def test_an_unknown_field_offers_the_nearest():
    assert message(ToyConfig().override, batchsize=3) == "there is no field 'batchsize'; did you mean batch_size?"
    everything = message(ToyConfig().override, zzz=3)
    assert all(name in everything for name in ToyConfig.model_fields)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("steps", -1, "greater than or equal to 0"),
        ("steps", 2.5, "integer"),
        ("steps", True, "integer"),
        ("steps", "forty", "integer"),
        ("learning_rate", 0, "greater than 0"),
        ("learning_rate", float("inf"), "finite"),
        ("learning_rate", float("nan"), "finite"),
        ("shuffle_labels", 2, "boolean"),
        ("loss", "hinge", "'logistic' or 'ridge'"),
        ("widths", (3, "x"), "integer"),
        ("device", "tpu", "pattern"),
        ("note", 3, "string"),
    ],
)
def test_an_impossible_value_names_field_meaning_allowed_and_given(field, value, allowed):
    text = message(ToyConfig().override, **{field: value})
    shown = value[1] if isinstance(value, tuple) else value
    assert text.startswith(field)
    assert str(ToyConfig.model_fields[field].description) in text
    assert allowed in text
    assert text.endswith(f"got {shown!r}")


def test_all_mistakes_are_told_at_once():
    lines = message(ToyConfig().override, steps=-1, noise=-1).splitlines()
    assert [line.split()[0] for line in lines] == ["steps", "noise"]


def test_a_value_that_is_not_plain_is_refused_with_its_type():
    assert "is a set" in message(ToyConfig().override, note={1})


def _within_itself() -> list:
    endless: list = []
    endless.append(endless)
    return endless


def _deep() -> list:
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize("field", ["steps", "widths"])
@pytest.mark.parametrize("value", [_within_itself(), _deep(), 10**5000], ids=["loop", "deep", "digits"])
def test_a_value_that_no_file_could_hold_is_refused(field, value):
    """Catches: a raw RecursionError or ValueError out of json."""
    assert message(ToyConfig().override, **{field: value}).startswith("a config holds plain values")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "9" * 5000], ids=["brackets", "braces", "digits"])
@pytest.mark.parametrize("field", ["steps", "learning_rate", "widths", "shuffle_labels"])
def test_endless_text_is_refused_in_few_words(field, text):
    words = message(ToyConfig().override_text, {field: text})
    assert words.startswith(field)
    assert len(words) < 1000


def test_a_rule_over_several_fields_keeps_its_own_words():
    assert message(Odd().override, rate=13.0) == "these fields together: W13 and luck do not go together"


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("steps", "12", 12),
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", "2", 2.0),
        ("shuffle_labels", "true", True),
        ("shuffle_labels", "False", False),
        ("shuffle_labels", "0", False),
        ("loss", "ridge", "ridge"),
        ("note", "12", "12"),
        ("note", "1e-3", "1e-3"),
        ("widths", "16,8", (16, 8)),
        ("widths", "16, 8", (16, 8)),
        ("widths", "[16, 8]", (16, 8)),
        ("widths", "16", (16,)),
        ("widths", "", ()),
    ],
)
def test_text_is_read_as_the_type_of_its_field(field, text, value):
    read = getattr(ToyConfig().override_text({field: text}), field)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [("rate", "0.5", 0.5), ("rate", "null", None), ("sizes", "3,0.25", (3, 0.25)), ("modes", "1,b", ("1", "b"))],
)
def test_text_for_fields_of_mixed_kinds(field, text, value):
    assert getattr(Odd().override_text({field: text}), field) == value


def test_a_dot_or_a_mapping_changes_one_field_of_a_nested_config():
    wanted = Odd(inner=Inner(steps=9, sizes=(7,)))
    assert Odd().override(inner={"steps": 9}) == Odd().override(**{"inner.steps": 9}) == wanted
    assert Odd().override_text({"inner.steps": "9"}) == Odd().override_text({"inner": '{"steps": 9}'}) == wanted
    assert Odd().override_text({"inner.sizes": "3,4"}).inner.sizes == (3, 4)
    assert Odd().override(**wanted.model_dump(mode="json")) == wanted  # as the command line hands it to a notebook
    assert Odd().inner == Inner(sizes=(7,))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inner.step": 3}, "there is no field 'inner.step'; did you mean inner.steps"),
        ({"inner": {"step": 3}}, "there is no field 'inner.step'"),
        ({"modes.steps": 3}, "there is no field 'modes.steps'"),
        ({"inner.steps": 0}, "inner.steps (inner steps): input should be greater than or equal to 1; got 0"),
        ({"inner.sizes": [1, "x"]}, "inner.sizes.1 (inner sizes): input should be a valid integer; got 'x'"),
        ({"inner.steps": 1, "inner.sizes": [1, 2]}, "inner (a config inside of a config): more sizes than steps"),
    ],
)
def test_a_mistake_in_a_nested_config_names_the_whole_way(changes, words):
    assert message(Odd().override, **changes).startswith(words)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("steps", text) for text in ("1.5", "1e9", "many")),
        *(("learning_rate", text) for text in ("inf", "fast")),
        *(("shuffle_labels", "perhaps"), ("widths", "3,x"), ("loss", "hinge"), ("seed", "-1"), ("devices", "0")),
    ],
)
def test_text_that_does_not_fit_is_refused_with_the_field_and_the_text(field, text):
    words = message(ToyConfig().override_text, {field: text})
    assert words.startswith(field)
    assert text.split(",")[-1] in words or str(float(text)) in words


def test_too_many_items_for_a_fixed_tuple_are_refused():
    assert message(Odd().override_text, {"sizes": "1,0.5,7"}).startswith("sizes")


def test_the_device_does_not_belong_to_the_identity_and_all_else_does():
    plain = ToyConfig()
    assert identity_of(plain.override(device="cpu", devices=4)) == identity_of(plain)
    assert identity_of(plain).keys() == ToyConfig.model_fields.keys() - {"device", "devices"}


def test_an_input_error_is_a_value_error_and_leaves_with_code_two():
    assert issubclass(ConfigError, InputError)
    assert issubclass(InputError, ValueError)
    assert ConfigError.exit_code == 2
