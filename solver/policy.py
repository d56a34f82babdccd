"""Source policies: rules that allow, deny or convert what builds fetch.

Source: BuildKit's docs/sourcepolicy.md and its sourcepolicy package for what a rule means.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from ..wire import errors
from ..wire.pb import ops_pb2, policy_pb2
from .base import SolveError

MOST_CONVERSIONS = 20
"""How often one source may be converted before the rules count as going in circles."""

Mapper = Callable[[ops_pb2.SourceOp], bool]
"""Changes a source in place, and says whether it did. Raises SolveError for one that is denied."""


def mapper(policies: Sequence[policy_pb2.Policy]) -> Mapper | None:
    """The function that applies policies to a source, None where there are no rules.

    Raises:
        SolveError: for a policy that is broken or of a version that is not known.
    """
    for policy in policies:
        if policy.version > 1:
            raise SolveError(
                f"source policy version {policy.version} is not supported: use 1", code=errors.INVALID_ARGUMENT
            )
        for rule in policy.rules:
            _check(rule)
    rules = [policy for policy in policies if policy.rules]
    if not rules:
        return None

    def apply(source: ops_pb2.SourceOp) -> bool:
        changed = False
        for _ in range(MOST_CONVERSIONS + 1):
            if not any(_apply(policy, source) for policy in rules):
                return changed
            changed = True
        raise SolveError(f"the source policy converts {source.identifier!r} in circles", code=errors.INVALID_ARGUMENT)

    return apply


def _check(rule: policy_pb2.Rule) -> None:
    selector = rule.selector
    if rule.action not in policy_pb2.PolicyAction.values():
        raise SolveError(f"source policy: unknown action {rule.action}", code=errors.INVALID_ARGUMENT)
    if rule.action == policy_pb2.CONVERT and not rule.HasField("updates"):
        raise SolveError(
            f"source policy: a rule that converts {selector.identifier!r} says not to what",
            code=errors.INVALID_ARGUMENT,
        )
    expressions = [c.value for c in selector.constraints if c.condition == policy_pb2.MATCHES]
    if selector.match_type == policy_pb2.REGEX:
        expressions.append(selector.identifier)
    for text in expressions:
        try:
            _compiled(text)
        except re.error as error:
            raise SolveError(
                f"source policy: {text!r} is no regular expression: {error}", code=errors.INVALID_ARGUMENT
            ) from None


def _apply(policy: policy_pb2.Policy, source: ops_pb2.SourceOp) -> bool:
    """Apply one policy: its first rule that converts ends it, of the others the last that matches decides."""
    denied = False
    for rule in policy.rules:
        match = _match(rule.selector, source)
        if match is None:
            continue
        if rule.action == policy_pb2.CONVERT:
            if _convert(rule, match, source):
                return True
        else:
            denied = rule.action == policy_pb2.DENY
    if denied:
        raise SolveError(
            f"source {source.identifier!r} denied by policy: source denied by policy", code=errors.PERMISSION_DENIED
        )
    return False


@lru_cache(256)
def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(text)


@lru_cache(256)
def _wildcard(text: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(re.escape(part) for part in text.split("*")) + r"\Z", re.DOTALL)


Match = Callable[[str], str]
"""Puts what a selector's expression or wildcards matched into a text."""


def _match(selector: policy_pb2.Selector, source: ops_pb2.SourceOp) -> Match | None:
    for constraint in selector.constraints:
        value = source.attrs.get(constraint.key, "")
        if constraint.condition == policy_pb2.MATCHES:
            fits = _compiled(constraint.value).search(value) is not None
        else:
            fits = (value == constraint.value) == (constraint.condition == policy_pb2.EQUAL)
        if not fits:
            return None
    identifier = source.identifier
    if selector.match_type == policy_pb2.REGEX:
        expression = _compiled(selector.identifier)
        if expression.search(identifier) is None:
            return (lambda text: text) if selector.identifier == identifier else None
        return lambda text: expression.sub(lambda found: _filled(text, found), identifier)
    if selector.match_type == policy_pb2.WILDCARD:
        found = _wildcard(selector.identifier).match(identifier)
        return None if found is None else lambda text: _filled(text, found)
    return (lambda text: text) if selector.identifier == identifier else None


def _filled(text: str, found: re.Match[str]) -> str:
    """A text with `$1`, `${1}` and `${name}` replaced (`$$` is a dollar)."""

    def group(reference: re.Match[str]) -> str:
        if reference[0] == "$$":
            return "$"
        name = reference[1] or reference[2]
        try:
            return found[int(name) if name.isdigit() else name] or ""
        except (IndexError, KeyError):
            return ""

    return re.sub(r"\$\$|\$\{(\w+)\}|\$(\w+)", group, text)


def _convert(rule: policy_pb2.Rule, match: Match, source: ops_pb2.SourceOp) -> bool:
    target = match(rule.updates.identifier or rule.selector.identifier)
    changed = False
    if target and target != source.identifier:
        source.identifier = target
        changed = True
    for key, value in rule.updates.attrs.items():
        if source.attrs.get(key) != value:
            source.attrs[key] = value
            changed = True
    return changed


def converted(definition: ops_pb2.Definition, apply: Mapper) -> ops_pb2.Definition:
    """A definition with its sources mapped; what depends on a changed one has new digests, with the old metadata.

    Raises:
        SolveError: for a source that is denied.
    """
    digests: dict[str, str] = {}
    out = ops_pb2.Definition()
    encoded = getattr(out, "def")
    for data in getattr(definition, "def"):
        op = ops_pb2.Op()
        try:
            op.ParseFromString(data)
        except Exception:
            # The loader says what is wrong with it.
            return definition
        changed = op.WhichOneof("op") == "source" and apply(op.source)
        for needed in op.inputs:
            new = digests.get(needed.digest, needed.digest)
            changed |= new != needed.digest
            needed.digest = new
        old = "sha256:" + hashlib.sha256(data).hexdigest()
        if changed:
            data = op.SerializeToString(deterministic=True)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        digests[old] = digest
        encoded.append(data)
        if old in definition.metadata:
            out.metadata[digest].CopyFrom(definition.metadata[old])
        if old in definition.Source.locations:
            out.Source.locations[digest].CopyFrom(definition.Source.locations[old])
    if all(old == new for old, new in digests.items()):
        return definition
    out.Source.infos.extend(definition.Source.infos)
    return out
