"""Exporter `image`: an image under a name of the image store, and pushed to a registry where that is asked for."""

from collections.abc import Mapping
from dataclasses import replace

from ...oci.reference import InvalidReference, Reference, parse
from ..base import Context, Exportable, SolveError
from ..image_store import name_image
from .options import ImageOptions, boolean, read_options
from .writer import Committed, commit

_FLAGS = ("push", "push-by-digest", "registry.insecure", "unpack", "store", "name-canonical", "danging-name-empty-only")


def export(result: Exportable, id: str, attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """Make the image, name it, push it.

    Raises:
        SolveError: for options that make no sense, and where a registry refuses the image.
    """
    options = read_options(attrs, inline_attestations=True)
    flags = {key: boolean(key, options.rest[key]) for key in _FLAGS if key in options.rest}
    if flags.get("unpack") and options.rewrite_timestamp:
        raise SolveError("the exporter options rewrite-timestamp and unpack contradict each other")
    names = _names(options, result)
    image = commit(with_metadata(result, options), options, context)
    targets = _targets(names, image, flags, options.rest.get("dangling-name-prefix", ""))
    by_digest = flags.get("push-by-digest", False)
    if flags.get("push") and not targets:
        raise SolveError("a push needs a name")
    if flags.get("store", True):
        for target in targets:
            with context.step(f"naming to {target}"):
                names_of = [target]
                if flags.get("name-canonical") and not target.digest:
                    names_of.append(target.with_digest(image.root.digest))
                for name in names_of:
                    name_image(name, image.digests(), context)
    answer = image.answer()
    if targets:
        answer["image.name"] = ",".join(map(str, targets))
    if flags.get("push"):
        # The registry's client is slow to import, and most exports need none.
        from .push import push

        for target in targets:
            push(image, target, context, by_digest=by_digest, insecure=flags.get("registry.insecure", False))
    return answer


def with_metadata(result: Exportable, options: ImageOptions) -> Exportable:
    """The result with what a client's attributes say instead of the frontend."""
    given = {key: value.encode() for key, value in options.rest.items() if key.startswith("containerimage.")}
    return replace(result, metadata={**result.metadata, **given}) if given else result


def _names(options: ImageOptions, result: Exportable) -> list[Reference]:
    names = list(options.names)
    if names == ["*"] and "image.name" in result.metadata:
        names = result.metadata["image.name"].decode(errors="replace").split(",")
    return parsed_names(names)


def parsed_names(names: list[str] | tuple[str, ...]) -> list[Reference]:
    """Names as references with a tag or digest. Raises SolveError."""
    try:
        return list(dict.fromkeys(parse(name).tag_name_only() for name in names))
    except InvalidReference as error:
        raise SolveError(str(error)) from None


def _targets(names: list[Reference], image: Committed, flags: Mapping[str, bool], prefix: str) -> list[Reference]:
    if not prefix or (flags.get("danging-name-empty-only") and names):
        return names
    return [*names, *parsed_names([f"{prefix}@{image.root.digest}"])]
