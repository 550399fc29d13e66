"""A Gradio application with a queue: `python gradio_app.py`."""

import os
from collections.abc import Iterator

import gradio


def count(name: str) -> Iterator[str]:
    for number in range(1, 4):
        yield f"{number} for {name}"


page = gradio.Interface(count, "text", "text", title="Gradio", flagging_mode="never")
page.queue().launch(server_name="127.0.0.1", server_port=int(os.environ["PORT"]))
