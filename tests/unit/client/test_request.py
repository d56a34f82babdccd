"""The solve request: exporters and frontend attributes."""

import pytest

from brickyard.client.errors import ClientError
from brickyard.client.inputs import Inputs
from brickyard.client.options import BuildOptions, Output
from brickyard.client.request import frontend_attrs, outputs_of, solve_request


def test_no_cache_wins_over_its_filter() -> None:
    assert frontend_attrs(BuildOptions(no_cache=True, no_cache_filter=["a"])) == {"no-cache": ""}


def test_hosts() -> None:
    attrs = frontend_attrs(BuildOptions(add_hosts=["a:1.2.3.4", "b=[::1]", "c=1.2.3.4,::2", "d:::1"]))
    assert attrs == {"add-hosts": "a=1.2.3.4,b=::1,c=1.2.3.4,c=::2,d=::1"}
    for text in ("a", "a=b", "=1.2.3.4", "a=host-gateway"):
        with pytest.raises(ClientError, match="--add-host"):
            frontend_attrs(BuildOptions(add_hosts=[text]))


def test_push_reuses_the_image_output() -> None:
    options = BuildOptions(tags=["x:1"], push=True, outputs=[Output("image", "", {"compression": "zstd"})])
    (output,) = outputs_of(options)
    assert output.attrs == {"compression": "zstd", "push": "true", "unpack": "false", "name": "x:1"}


def test_tags_replace_names_and_only_images_get_them() -> None:
    outputs = [Output("oci", "a", {"name": "b"}), Output("local", "c"), Output("cacheonly")]
    made = outputs_of(BuildOptions(tags=["x:1", "y:2"], outputs=outputs, annotations={"annotation.k": "v"}))
    assert [(o.type, dict(o.attrs)) for o in made] == [
        ("oci", {"name": "x:1,y:2", "annotation.k": "v"}),
        ("local", {}),
    ]


def test_load_adds_a_docker_archive_once() -> None:
    assert [o.type for o in outputs_of(BuildOptions(load=True))] == ["docker"]
    assert len(outputs_of(BuildOptions(load=True, outputs=[Output("docker")]))) == 1
    assert len(outputs_of(BuildOptions(load=True, outputs=[Output("docker", "file")]))) == 2


def test_an_unnamed_push_is_refused() -> None:
    for options in (BuildOptions(push=True), BuildOptions(outputs=[Output("image", "", {"push": "true"})])):
        with pytest.raises(ClientError, match="a push needs a name"):
            outputs_of(options)
    assert outputs_of(BuildOptions(outputs=[Output("image", "", {"push": "false"})]))


def test_the_request() -> None:
    inputs = Inputs(attrs={"filename": "Dockerfile"})
    outputs = [Output("oci", "a", {"compression": "zstd"})]
    request = solve_request(BuildOptions(network="host", allow=["network.host"]), inputs, outputs, "s1")
    assert request.Session == "s1"
    assert request.Ref
    assert list(request.Entitlements) == ["network.host"]
    assert request.FrontendAttrs["filename"] == "Dockerfile"
    assert [(one.Type, dict(one.Attrs)) for one in request.Exporters] == [("oci", {"compression": "zstd"})]
