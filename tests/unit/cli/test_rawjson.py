"""The JSON display against the JSON that BuildKit's Go client makes."""

import base64
import io
import json
from typing import Any

from brickyard.cli.progress.rawjson import RawJsonDisplay


def test_each_message_is_a_line(events: Any) -> None:
    out = io.StringIO()
    display = RawJsonDisplay(out)
    display.update(events.vertex("RUN a", 0.5, 1.25, cached=True, group=("g", "name", True)))
    display.update(events.item("RUN a", "pull", 0, 7, 1.0))
    display.update(events.log("RUN a", "täxt\n", 1.0))
    display.update(events.warning("RUN a", "old"))
    display.close()
    vertex, item, log, warning = map(json.loads, out.getvalue().splitlines())
    assert vertex == {
        "vertexes": [
            {
                "digest": "sha256:a",
                "name": "RUN a",
                "started": "2023-11-14T22:13:20.5Z",
                "completed": "2023-11-14T22:13:21.25Z",
                "cached": True,
                "progressGroup": {"id": "g", "name": "name", "weak": True},
            }
        ]
    }
    assert item == {
        "statuses": [
            {
                "id": "pull",
                "vertex": "sha256:a",
                "total": 7,
                "current": 0,
                "timestamp": "2023-11-14T22:13:21Z",
                "started": "2023-11-14T22:13:20Z",
            }
        ]
    }
    data = base64.b64encode("täxt\n".encode()).decode()
    assert log == {"logs": [{"vertex": "sha256:a", "stream": 1, "data": data, "timestamp": "2023-11-14T22:13:21Z"}]}
    assert warning == {"warnings": [{"vertex": "sha256:a", "level": 1, "short": "b2xk"}]}
