"""From a YAML file to an Experiment, or to every problem of the file at once."""

import re
from collections.abc import Hashable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ltray.contradictions import contradictions
from ltray.errors import InvalidExperiment, LtrayError, did_you_mean
from ltray.experiment import Experiment
from ltray.files import absolute
from ltray.given import GivenExperiment
from ltray.own_code import is_own_code, made_absolute

SEE_EXAMPLE = "see experiments/digits.yaml, and the README for every key"
Keys = tuple[str | int, ...]
Kind = TypeVar("Kind", bound=Experiment)


class OneKeyOnce(yaml.SafeLoader):
    """PyYAML's safe loader, but a key written twice is an error and not the last one's win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = getattr(key_node, "value", None)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is written twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def read_experiment(path: Path) -> Experiment:
    """Read one experiment file and check all that can be checked without its source.

    A relative data.path, or path of a person's own code, is taken from the file's folder and made
    absolute.

    Raises:
        InvalidExperiment: with every problem: key, value, what is allowed, the nearest key.
        LtrayError: the file is missing, unreadable, or not a mapping.
    """
    experiment = _with_absolute_paths(_checked(path, _load(path)), path.parent)
    criterion = experiment.prune.criterion
    if not is_own_code(criterion):
        return experiment
    absolute = {"criterion": made_absolute(criterion, path.parent)}
    return experiment.model_copy(update={"prune": experiment.prune.model_copy(update=absolute)})


def read_record(path: Path) -> Experiment:
    """Read the experiment.yaml of a folder: of a run, or of tickets that came from another one.

    A person's own criterion is left as it is written there. The reset points of a GivenExperiment
    do not have to agree with its own training.

    Raises:
        LtrayError: as `read_experiment`.
    """
    document = _load(path)
    if "given_by" not in document:
        return _with_absolute_paths(_checked(path, document), path.parent)
    try:
        experiment = GivenExperiment.model_validate(document)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        found = f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
        mend = "delete it and give the same transfer again, which writes it anew"
        raise LtrayError(str(path), found, mend) from None
    return _with_absolute_paths(experiment, path.parent)


def _checked(path: Path, document: dict[Any, Any]) -> Experiment:
    checked = _Checked(path, document)
    if checked.problems:
        raise InvalidExperiment(checked.problems)
    return Experiment.model_validate(document)


def _load(path: Path) -> dict[Any, Any]:
    try:
        document = yaml.load(path.read_bytes(), Loader=OneKeyOnce)
    except FileNotFoundError:
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise LtrayError(str(path), f"no such file{near}", "give an experiment's file") from None
    except OSError as error:
        raise LtrayError(str(path), f"cannot be read: {error.strerror}", "mend that") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise LtrayError(str(path), f"not readable as YAML: {reason}", SEE_EXAMPLE) from None
    if not isinstance(document, dict):
        found = "an empty file" if document is None else f"a {_kind(document)}"
        raise LtrayError(str(path), f"found {found}, expected a mapping of keys", SEE_EXAMPLE)
    return document


def _with_absolute_paths(experiment: Kind, folder: Path) -> Kind:
    """All but that of a person's own criterion."""
    data, model = experiment.data, experiment.model
    if data.path is not None and "://" not in data.path:
        data = data.model_copy(update={"path": str(absolute(data.path, folder).resolve())})
    if is_own_code(model.arch):
        model = model.model_copy(update={"arch": made_absolute(model.arch, folder)})
    return experiment.model_copy(update={"data": data, "model": model})


class _Checked:
    """The problems of one document, each said once per key in the words of its field."""

    def __init__(self, path: Path, document: dict[Any, Any]) -> None:
        self.path = path
        self.document = document
        self.wrong: set[Keys] = set()
        self.problems = [
            *self._of_keys_that_are_no_text(),
            *self._of_single_keys(),
            *self._of_keys_together(),
        ]

    def _of_keys_that_are_no_text(self) -> Iterator[LtrayError]:
        sections = [value for value in self.document.values() if isinstance(value, dict)]
        for section in [self.document, *sections]:
            for key in section:
                if not isinstance(key, str):
                    found = f"the key {_shown(key)} is not a word"
                    yield LtrayError(str(self.path), found, _mend(key, "a key of the README's"))

    def _of_single_keys(self) -> Iterator[LtrayError]:
        try:
            Experiment.model_validate(self.document)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if detail["type"] == "invalid_key":
                    continue  # said by _of_keys_that_are_no_text: pydantic does not say which
                keys = self._keys(detail)
                if keys not in self.wrong:
                    self.wrong.add(keys)
                    yield self._problem(keys, detail)

    def _of_keys_together(self) -> Iterator[LtrayError]:
        """Contradictions among the keys that are right in themselves, where enough of them are."""
        try:
            experiment = Experiment.model_validate(_without(self.document, self.wrong))
        except ValidationError:
            return
        for key, problem, mend in contradictions(experiment):
            if tuple(key.split(".")) not in self.wrong:
                yield LtrayError(f"{self.path}: {key}", problem, mend)

    def _keys(self, detail: ErrorDetails) -> Keys:
        """The key that is wrong, without pydantic's names for the branches of a union.

        An item of a list is blamed with its list: a union says both, the person wrote one thing.
        """
        keys: Keys = ()
        for depth, key in enumerate(detail["loc"]):
            if isinstance(key, int) or (depth and not _is_section(keys)):
                break
            keys = (*keys, key)
        return keys

    def _problem(self, keys: Keys, detail: ErrorDetails) -> LtrayError:
        where = f"{self.path}: {'.'.join(map(str, keys))}"
        if detail["type"] == "extra_forbidden":
            near = did_you_mean(str(keys[-1]), list(_section(keys[:-1]).model_fields))
            return LtrayError(where, f"unknown key{near}", SEE_EXAMPLE)
        allowed = _allowed(keys)
        if detail["type"] == "missing":
            return LtrayError(where, f"missing; expected {allowed}", "write it")
        value = self._value(keys)
        near = did_you_mean(value, re.findall(r"\w+", allowed)) if isinstance(value, str) else ""
        found = f"found {_shown(value)}; expected {allowed}{near}"
        return LtrayError(where, found, _mend(value, allowed))

    def _value(self, keys: Keys) -> Any:
        value: Any = self.document
        for key in keys:
            value = value[key]
        return value


def _without(document: dict[Any, Any], wrong: set[Keys]) -> dict[Any, Any]:
    """A copy of the document that lacks the wrong keys."""
    return {
        key: {inner: item for inner, item in value.items() if (str(key), inner) not in wrong}
        if isinstance(value, dict)
        else value
        for key, value in document.items()
        if isinstance(key, str) and (key,) not in wrong
    }


def _section(keys: Keys) -> type[BaseModel]:
    section: type[BaseModel] = Experiment
    for key in keys:
        annotation = section.model_fields[str(key)].annotation
        assert isinstance(annotation, type), keys
        section = annotation
    return section


def _is_section(keys: Keys) -> bool:
    if not keys:
        return True
    field = Experiment.model_fields.get(str(keys[0]))
    return (
        len(keys) == 1
        and field is not None
        and isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
    )


def _allowed(keys: Keys) -> str:
    if _is_section(keys):
        return f"a mapping of {', '.join(_section(keys).model_fields)}"
    field = _section(keys[:-1]).model_fields[str(keys[-1])]
    assert field.description, keys
    return field.description


def _kind(value: object) -> str:
    kinds = {
        bool: "bool",
        str: "text",
        int: "number",
        float: "number",
        list: "list",
        dict: "mapping",
    }
    return kinds.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, float) and not isfinite(value):
        return f"{value} (not finite)"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({_kind(value)})"


def _mend(value: object, allowed: str) -> str:
    """How to mend, with PyYAML's traps named where the value fell into one."""
    found = value if isinstance(value, list) else [value]
    for item in found:
        if isinstance(item, str) and _reads_as_number(item) and "number" in allowed:
            return f"YAML takes {item} for text: no quotes, and with a point and a sign, as 1.0e-4"
        if isinstance(item, bool) and allowed != "true or false":
            return (
                "YAML takes yes, no, on, off, true and false for bools: write a number, or quote it"
            )
    return f"write {allowed}"


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
