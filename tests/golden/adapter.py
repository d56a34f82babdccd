"""Converts golden cases: one case a JSON line in, one answer a JSON line out (the command that check.py runs)."""

import json
import sys
from hashlib import sha256

from google.protobuf.json_format import MessageToDict

from brickyard.frontend.dockerfile.convert import convert
from brickyard.frontend.dockerfile.options import ConvertOptions, ResolvedImage
from brickyard.grammar.errors import SourceError
from brickyard.llb import caps
from brickyard.llb.marshal import digest_of
from brickyard.llb.state import Notes, source
from brickyard.oci.platform import Platform, parse
from brickyard.wire.pb import ops_pb2

AMD64 = Platform("linux", "amd64")


class Offline:
    """Answers as the golden set's README says: no image is fetched, the context is the whole folder."""

    def image(self, reference, platform, log_name):
        config = {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["/bin/sh"],
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 63 + "1"]},
            "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "base"}],
        }
        digest = "sha256:" + sha256(reference.encode()).hexdigest()
        return ResolvedImage(reference, digest, json.dumps(config).encode())

    def prefetch(self, images):
        pass

    def named_context(self, name, platform, paths):
        return None

    def ignored(self):
        return []

    def epoch(self, source, log_name):
        return None

    def main_context(self, follow_paths):
        wanted = [caps.SOURCE_LOCAL, caps.SOURCE_LOCAL_SESSION_ID, caps.SOURCE_LOCAL_SHARED_KEY_HINT]
        attrs = {"local.session": "s", "local.sharedkeyhint": "context"}
        notes = Notes("[internal] load build context")
        return source("local://context", attrs, wanted=wanted, notes=notes).output


def answer(case):
    warnings = []
    out = {"name": case["name"], "head": "", "ops": None, "image": None, "lint": None, "error": None}
    options = ConvertOptions(
        target=case.get("target", ""),
        platform=parse(case.get("platform", "linux/amd64")),
        build_platforms=[AMD64],
        build_args=case.get("args") or {},
        labels=case.get("labels") or {},
        warn=warnings.append,
    )
    try:
        converted = convert(case["dockerfile"], options, Offline())
        definition = converted.definition()
        out["head"] = definition.head
        out["image"] = converted.image.to_dict()
        out["ops"] = [_op(data, definition.metadata) for data in definition.ops]
    except SourceError as error:
        out["error"] = str(error)
    out["lint"] = [{"rule": w.rule.name, "line": w.start} for w in warnings] or None
    return out


def _op(data, metadata):
    digest = digest_of(data)
    known = metadata[digest]
    meta = {}
    if known.caps:
        meta["caps"] = sorted(known.caps)
    if known.description:
        meta["description"] = dict(known.description)
    return {"digest": digest, "op": MessageToDict(ops_pb2.Op.FromString(data)), "meta": meta}


def main():
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
